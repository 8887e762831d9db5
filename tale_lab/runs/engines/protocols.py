"""What an engine is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from tale_core.types import Flow, T

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from tale_core.concurrency import Outcome
    from tale_core.types import ModelCall, ModelReply

Make: TypeAlias = Callable[[], Flow[T]]
"""Makes a flow. A flow itself cannot leave its process; what makes it can, if it is picklable."""


class Memory(Protocol):
    """What is known already, and where to write down what is new; a results file has one."""

    def recall(self, call: ModelCall) -> ModelReply | None:
        """Return the known answer to a call, or None when it has to be made."""

    def note(self, call: ModelCall, reply: ModelReply) -> None:
        """Take one answer the moment it is there."""


@runtime_checkable
class Engine(Protocol):
    """Somewhere that flows can run."""

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
