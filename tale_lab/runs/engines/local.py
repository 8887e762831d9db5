"""The engine that needs nothing: threads of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tale_core.concurrency import run_many
from tale_core.flows import observed

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from tale_core.concurrency import Outcome
    from tale_core.types import Call, Flow, T
    from tale_lab.runs.engines.protocols import Make, Memory


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
        remembering = (_remembered(make, memory) for make in flows)
        return run_many(remembering, self._call, concurrency=self.concurrency)


def _remembered(make: Make[T], memory: Memory) -> Flow[T]:
    # Made inside the flow, so that what cannot be made costs only itself.
    return (yield from observed(make(), memory.note, recall=memory.recall))
