"""What runs in a worker process: flows that are advanced one step per request.

The worker keeps the flows and makes their calls. The process that drives it looks up known answers and stores
new ones. The worker does not know how it is reached.
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
    """The state of a flow after one step."""

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
    """Holds flows and advances each one step at a time; thread-safe, with one thread per flow at a time.

    Args:
        packed: The pickled `Call` that answers; opened here on first use, so with this machine's keys.
    """

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._lock = threading.Lock()
        self._call: Call | None = None
        self._standing: dict[int, _Standing] = {}

    def ready(self) -> str | None:
        """Open the model; return the reason when that fails, else None."""
        try:
            self._opened()
        except Exception as exc:  # noqa: BLE001  # reported to the driving process
            return f"{type(exc).__name__}: {exc}"
        return None

    def begin(self, number: int, packed: bytes) -> Step:
        """Make a flow and advance it to its first call; makes no call, so it can be repeated.

        Args:
            number: Identifies the flow from now on.
            packed: What makes the flow, pickled.
        """
        try:
            flow = pickle.loads(packed)()  # noqa: S301  # from the process that started this one
        except Exception as exc:  # noqa: BLE001  # fails only this flow
            return Step(error=portable(exc))
        standing = self._standing[number] = _Standing(number, flow)
        return self._stepped(standing, None, Step())

    def go_on(self, number: int, known: ModelReply | None) -> Step | None:
        """Advance a flow to its next call, or to its end.

        Args:
            number: The flow.
            known: The answer to the call that it waits for; None makes the call here.

        Returns:
            Its state; None when this process was restarted and does not have the flow.
        """
        standing = self._standing.get(number)
        if standing is None or standing.asked is None:
            return None
        if known is not None:
            return self._stepped(standing, known, Step())
        try:
            reply = self._opened()(standing.asked)
        except Exception as exc:  # noqa: BLE001  # handed to the flow, which raises it again if it cannot recover
            return self._stepped(standing, exc, Step(failed=True))
        # The provider's own message stays here: it need not be picklable.
        reply = reply.model_copy(update={"native": None})
        return self._stepped(standing, reply, Step(answer=reply))

    def _stepped(self, standing: _Standing, outcome: ModelReply | Exception | None, made: Step) -> Step:
        """Hand one outcome to a flow, and return its state and what this step made."""
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
        # After a lost connection the flow may have been begun again; the new one stays.
        if self._standing.get(standing.number) is standing:
            del self._standing[standing.number]
        return step

    def _opened(self) -> Call:
        with self._lock:
            if self._call is None:
                self._call = pickle.loads(self._packed)  # noqa: S301  # as in `begin`
            return self._call


def portable(error: Exception) -> Exception:
    """Return an error that can be pickled: the same, or its message.

    Args:
        error: Any error; those of a provider's SDK seldom survive pickling.
    """
    try:
        copied = pickle.loads(pickle.dumps(error))  # noqa: S301  # made right here
    except Exception:  # noqa: BLE001  # whatever its class does when it is rebuilt
        return EngineError(f"{type(error).__name__}: {error}")
    return error if str(copied) == str(error) else EngineError(f"{type(error).__name__}: {error}")
