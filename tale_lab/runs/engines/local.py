"""What an engine is, and the one that needs nothing: threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from tale_core.concurrency import run_many
from tale_core.types import Flow, T

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from tale_core.concurrency import Outcome
    from tale_core.types import Call, ModelCall, ModelReply

Make: TypeAlias = Callable[[], Flow[T]]
"""Makes a flow. A flow itself cannot leave its process; what makes it can, if it is picklable."""


class Memory(Protocol):
    """Known answers, and where new ones are kept; a results file has one."""

    def recall(self, call: ModelCall) -> ModelReply | None:
        """Return the known answer to a call, or None when it has to be made."""

    def note(self, call: ModelCall, reply: ModelReply) -> ModelReply | None:
        """Take one answer the moment it is there, and return the one that is kept."""

    def key(self, call: ModelCall) -> bytes:
        """Return what is the same for two calls that one answer serves."""

    def shared(self, call: ModelCall, ask: Call, *, left: threading.Event | None = None) -> ModelReply:
        """Return the known answer, or make the call; one that is under way elsewhere is waited for."""


@runtime_checkable
class Engine(Protocol):
    """Runs flows somewhere."""

    @property
    def concurrency(self) -> int:
        """How many flows are under way at a time, on all machines together."""

    def drive(self, flows: Iterable[Make[T]], memory: Memory) -> Generator[Outcome[T], None, None]:
        """Drive many flows and yield each outcome as it comes.

        The input is read lazily, never more than ``concurrency`` flows ahead. A flow that fails costs only
        itself. Leaving the iteration early starts nothing more, and keeps the answers to the calls under way.

        Args:
            flows: What makes the flows.
            memory: Asked before each call, and told of each answer, in this process alone.
        """


class LocalEngine:
    """Runs flows on threads of this process.

    Args:
        call: Answers one `ModelCall`; called from several threads at once.
        concurrency: How many flows are under way at a time, at least 1.

    Example:
        >>> from tale_core import search_budget
        >>> from tale_lab.results.store import Store
        >>> from tale_core.testing import ScriptedModel
        >>> def search():
        ...     return search_budget("3 + 4?", lambda text: "7" in text, method="halving")
        >>> engine = LocalEngine(ScriptedModel("it is 7", "7"), concurrency=1)
        >>> [outcome] = engine.drive([search], Store(":memory:").memory(model="m"))
        >>> outcome.unwrap().chosen
        1
    """

    def __init__(self, call: Call, *, concurrency: int = 4) -> None:
        self._call = call
        self.concurrency = concurrency

    def drive(self, flows: Iterable[Make[T]], memory: Memory) -> Generator[Outcome[T], None, None]:
        """Drive many flows; see `tale_lab.runs.engines.Engine`.

        Raises:
            InvalidValueError: ``concurrency`` is below 1.
        """
        left = threading.Event()
        answered = partial(memory.shared, ask=self._call, left=left)
        return run_many(map(_made, flows), answered, concurrency=self.concurrency, left=left)


def _made(make: Make[T]) -> Flow[T]:
    # Made inside the flow, so that what cannot be made costs only itself.
    return (yield from make())
