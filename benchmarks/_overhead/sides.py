"""Three sides of a comparison: the bare framework call, the same as TALE written by hand, and TALE.

All sides ask the same questions of the same fake model in the same ways. Their turns alternate, so that a busy
machine slows all of them, and a ratio is taken within each turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from _overhead.figures import Spread, Table

QUESTION = "A tailor cuts 3 of 12 metres of cloth into 6 equal pieces. How long is a piece?"
BUDGET = 40
ESTIMATE = f"Budget: [[{BUDGET}]]"
ANSWER = "3 metres in 6 equal pieces are half a metre each: 0.5"
TASK = "Task: Analyze the given question and estimate the minimum number of tokens required"
"""How an estimator's prompt begins, ours and the one written by hand."""

_LEAST_TURNS = 2
_COLUMNS = {
    "wrapper": "",
    "way": "",
    "handler": "",
    "bare": ",.0f",
    "by hand": ",.0f",
    "TALE": ",.0f",
    "added to bare": ",.0f",
    "added to by hand": ",.0f",
    "TALE / bare": ".2f",
    "TALE / by hand": ".2f",
}

Round: TypeAlias = Callable[[], object]
"""Asks all questions once."""
Clock: TypeAlias = Callable[[], float]
"""Tells seconds: of the wall, or of the processor, which bears company on the machine."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """Something that answers, in each of the ways that it has."""

    sync: Callable[[str], object] | None = None
    """Answers one question."""
    asynchronous: Callable[[str], Awaitable[object]] | None = None
    batch: Callable[[Sequence[str]], object] | None = None
    """Answers many questions at once."""
    abatch: Callable[[Sequence[str]], Awaitable[object]] | None = None
    stream: Callable[[str], Iterable[object]] | None = None
    """Answers one question piece by piece."""
    astream: Callable[[str], AsyncIterator[object]] | None = None
    around: Callable[[], AbstractContextManager[object]] = nullcontext
    """What has to hold while it answers."""

    def rounds(self, questions: Sequence[str]) -> dict[str, Round]:
        """Return a round of the questions for each way that the side has, by the way's name."""
        made = {
            "sync": lambda: [self.sync(one) for one in questions],
            "async": lambda: asyncio.run(_one_by_one(self.asynchronous, questions)),
            "batch": lambda: self.batch(questions),
            "async batch": lambda: asyncio.run(_awaited(self.abatch, questions)),
            "stream": lambda: [_read(self.stream(one)) for one in questions],
            "async stream": lambda: asyncio.run(_streams(self.astream, questions)),
        }
        ways = [getattr(self, one.name) for one in fields(self)]
        return {name: turn for (name, turn), way in zip(made.items(), ways, strict=False) if way is not None}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A wrapper of ours beside what it is compared with."""

    wrapper: str
    tale: Side
    by_hand: Side
    bare: Side
    handler: str = "no"
    """Whether a handler counts tokens on every side."""


def compare(
    title: str,
    says: str,
    comparisons: Iterable[Comparison],
    *,
    questions: int,
    seconds: float,
    clock: Clock = time.perf_counter,
) -> Table:
    """Measure every wrapper in every way it has.

    Args:
        title: What is compared.
        says: What the sides are.
        comparisons: The wrappers.
        questions: Questions in one turn.
        seconds: How long to go on with one way of one wrapper.
        clock: What a turn is timed with.
    """
    table = Table(title, f"{says} Microseconds per question; ratios with their middle half.", _COLUMNS)
    asked = [QUESTION] * questions
    for one in comparisons:
        sides = {"bare": one.bare, "by hand": one.by_hand, "TALE": one.tale}
        rounds = {name: side.rounds(asked) for name, side in sides.items()}
        for way in rounds["TALE"]:
            turns = {
                name: (side.around, rounds[name][way]) for name, side in sides.items() if way in rounds[name]
            }
            times = _alternated(turns, seconds, clock)
            row = _row({name: [one / questions * 1e6 for one in taken] for name, taken in times.items()})
            table.rows.append({"wrapper": one.wrapper, "way": way, "handler": one.handler, **row})
    return table


def _alternated(turns: dict[str, tuple[Any, Round]], seconds: float, clock: Clock) -> dict[str, list[float]]:
    """Return the seconds of each turn of each side; whose turn comes first changes from time to time."""
    for around, turn in turns.values():
        with around():
            turn()  # warms up
    times: dict[str, list[float]] = {name: [] for name in turns}
    order, began = [*turns], time.perf_counter()
    while len(times["TALE"]) < _LEAST_TURNS or time.perf_counter() - began < seconds:
        for name in order:
            around, turn = turns[name]
            with around():
                started = clock()
                turn()
                times[name].append(clock() - started)
        order = [*order[1:], order[0]]
    return times


def _row(times: dict[str, list[float]]) -> dict[str, Any]:
    ours = times["TALE"]
    row: dict[str, Any] = {"turns": len(ours), "TALE": Spread.of(ours).median}
    for name in ("bare", "by hand"):
        theirs = times.get(name)
        pairs = None if theirs is None else [*zip(ours, theirs, strict=True)]
        row[name] = None if theirs is None else Spread.of(theirs).median
        row[f"added to {name}"] = None if pairs is None else Spread.of([one - two for one, two in pairs]).median
        row[f"TALE / {name}"] = None if pairs is None else Spread.of([one / two for one, two in pairs])
    return row


async def _one_by_one(ask: Any, questions: Sequence[str]) -> None:
    for question in questions:
        await ask(question)


async def _awaited(ask: Any, questions: Sequence[str]) -> None:
    await ask(questions)


async def _streams(ask: Any, questions: Sequence[str]) -> None:
    for question in questions:
        async for _ in ask(question):
            pass


def _read(stream: Iterable[object]) -> None:
    for _ in stream:
        pass


def pieces(text: str) -> Iterator[str]:
    """Yield a text word by word, as models stream it."""
    for word in text.split(" "):
        yield f"{word} "
