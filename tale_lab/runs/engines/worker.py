"""What runs in a worker process: flows that go one step at a time, at somebody's word.

The worker makes the calls and keeps the flows; what is known, and what is written down, is the business of
whoever drives it. It knows nothing of how it is reached.
"""

from __future__ import annotations

import pickle
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tale_core.errors import EngineError

if TYPE_CHECKING:
    from tale_core.types import Call, Flow, ModelCall, ModelReply


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Where a flow stands after one step."""

    answer: ModelReply | None = None
    """The answer to the call that this step made, when it made one and got one."""
    failed: bool = False
    """Whether the call that this step made failed; the flow was told."""
    asked: ModelCall | None = None
    """The call that the flow asks for next; None when it has ended."""
    value: Any = None
    """The result of a flow that ended."""
    error: Exception | None = None
    """What ended a flow that failed."""


@dataclass(slots=True)
class _Standing:
    """A flow under way, and the call it waits for."""

    number: int
    flow: Flow[Any]
    asked: ModelCall | None = None


class Worker:
    """Holds flows and takes each one step at a time; safe under threads, one at a time for each flow.

    Args:
        packed: The pickled `Call` that answers; opened here at the first need, so with this machine's keys.
    """

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._lock = threading.Lock()
        self._call: Call | None = None
        self._standing: dict[int, _Standing] = {}

    def ready(self) -> str | None:
        """Open the model, and return in words why that cannot be done, or None."""
        try:
            self._opened()
        except Exception as exc:  # noqa: BLE001  # told to whoever drives
            return f"{type(exc).__name__}: {exc}"
        return None

    def begin(self, number: int, packed: bytes) -> Step:
        """Make a flow and go to its first call; without a call, so that it may be done again.

        Args:
            number: Stands for the flow from now on.
            packed: What makes the flow, pickled.
        """
        try:
            flow = pickle.loads(packed)()  # noqa: S301  # from the process that started this one
        except Exception as exc:  # noqa: BLE001  # costs only this flow
            return Step(error=portable(exc))
        standing = self._standing[number] = _Standing(number, flow)
        return self._stepped(standing, None, Step())

    def go_on(self, number: int, known: ModelReply | None) -> Step | None:
        """Take a flow to its next call, or to its end.

        Args:
            number: The flow.
            known: The answer to the call that it waits for; None makes the call here.

        Returns:
            Where it stands; None when no such flow is here, because this process was started anew.
        """
        standing = self._standing.get(number)
        if standing is None or standing.asked is None:
            return None
        if known is not None:
            return self._stepped(standing, known, Step())
        try:
            reply = self._opened()(standing.asked)
        except Exception as exc:  # noqa: BLE001  # handed to the flow, which lets through what it cannot use
            return self._stepped(standing, exc, Step(failed=True))
        # The provider's own message stays here: it need not be picklable.
        reply = reply.model_copy(update={"native": None})
        return self._stepped(standing, reply, Step(answer=reply))

    def _stepped(self, standing: _Standing, outcome: ModelReply | Exception | None, made: Step) -> Step:
        """Hand one outcome to a flow, and say where it stands and what this step made."""
        try:
            if isinstance(outcome, Exception):
                standing.asked = standing.flow.throw(outcome)
            else:
                standing.asked = standing.flow.send(outcome)  # type: ignore[arg-type]  # None starts it
        except StopIteration as stop:
            return self._ended(standing, replace(made, value=stop.value))
        except Exception as exc:  # noqa: BLE001  # reported with the flow it belongs to
            return self._ended(standing, replace(made, error=portable(exc)))
        return replace(made, asked=standing.asked)

    def _ended(self, standing: _Standing, step: Step) -> Step:
        # Where the line broke and the flow was begun again meanwhile, the new one stays.
        if self._standing.get(standing.number) is standing:
            del self._standing[standing.number]
        return step

    def _opened(self) -> Call:
        with self._lock:
            if self._call is None:
                self._call = pickle.loads(self._packed)  # noqa: S301  # as in `begin`
            return self._call


def portable(error: Exception) -> Exception:
    """Return an error that can be sent to another process: the same, or its words.

    Args:
        error: Any error; those of a provider's SDK seldom survive pickling.
    """
    try:
        copied = pickle.loads(pickle.dumps(error))  # noqa: S301  # made right here
    except Exception:  # noqa: BLE001  # whatever its class does when it is rebuilt
        return EngineError(f"{type(error).__name__}: {error}")
    return error if str(copied) == str(error) else EngineError(f"{type(error).__name__}: {error}")
