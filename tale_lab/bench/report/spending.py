"""What a spend buys: which methods no other one beats, and the best accuracy for at most so much.

Methods that spend differently are not compared by accuracy alone: each is held against the best that could be
had for no more than it spends (Wang et al., "Reasoning in Token Economies", arXiv 2406.06461).
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from tale_core.statistics import Interval, mean_interval, wilson_interval
from tale_core.types import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tale_lab.bench.benchmark import Attempt

Measure: TypeAlias = Literal["output", "total", "cost"]
"""What is spent: output tokens, input and output tokens, or US dollars."""

_ENOUGH = 0.5


class Point(Record):
    """One method: its mean spend on a question, and what it bought."""

    label: str
    """The method."""
    spend: float
    """Mean spend on a question."""
    spend_interval: Interval
    """Its interval (bootstrap over questions)."""
    accuracy: float
    """Share of correct answers."""
    accuracy_interval: Interval
    """Its interval (Wilson)."""
    efficient: bool
    """Whether no other method is at least as accurate for no more, and better in one of both."""
    best: str
    """The most accurate method that spends no more than this one; itself where there is none."""
    best_accuracy: float
    """The accuracy of that method."""
    best_spend: float
    """Its mean spend on a question."""


class Spending(Record):
    """Every method on the questions that all of them answered, by mean spend."""

    measure: Measure
    """What is spent."""
    questions: int = Field(ge=1)
    """How many questions all of these methods answered."""
    points: tuple[Point, ...]
    """The methods, the cheapest first."""
    left_out: tuple[str, ...] = ()
    """Methods that answered less than half as many questions as others did."""

    @classmethod
    def of(
        cls,
        answers: Mapping[str, Mapping[str, Attempt]],
        *,
        measure: Measure,
        spend: Callable[[Attempt], float],
    ) -> Spending | None:
        """Compare methods by what they spend; None when they share no question.

        Args:
            answers: The answers by method and question.
            measure: What is spent.
            spend: The spend of one answer.
        """
        most = max(map(len, answers.values()), default=0)
        enough = {label: mine for label, mine in answers.items() if mine and len(mine) >= _ENOUGH * most}
        # Sorted: the bootstrap draws by position, and a set has another order in every process.
        common = sorted(set.intersection(*(set(mine) for mine in enough.values()))) if enough else []
        if not common:
            return None
        bought = {
            label: _Bought([spend(mine[one]) for one in common], sum(mine[one].correct for one in common))
            for label, mine in enough.items()
        }
        order = sorted(bought, key=lambda label: (bought[label].spend, bought[label].accuracy))
        return cls(
            measure=measure,
            questions=len(common),
            points=tuple(_point(label, bought) for label in order),
            left_out=tuple(label for label in answers if label not in enough),
        )

    @property
    def frontier(self) -> tuple[str, ...]:
        """The methods that no other one beats, the cheapest first."""
        return tuple(point.label for point in self.points if point.efficient)


class _Bought:
    """What one method spent on each question, and what came of it."""

    def __init__(self, spends: Sequence[float], correct: int) -> None:
        self.spends = spends
        self.correct = correct
        self.spend = fmean(spends)
        self.accuracy = correct / len(spends)


def _point(label: str, bought: Mapping[str, _Bought]) -> Point:
    mine = bought[label]
    affordable = {
        name: (one.accuracy, -one.spend, name == label)
        for name, one in bought.items()
        if one.spend <= mine.spend
    }
    best = max(affordable, key=lambda name: affordable[name])
    return Point(
        label=label,
        spend=mine.spend,
        spend_interval=mean_interval(mine.spends),
        accuracy=mine.accuracy,
        accuracy_interval=wilson_interval(mine.correct, len(mine.spends)),
        efficient=best == label,
        best=best,
        best_accuracy=bought[best].accuracy,
        best_spend=bought[best].spend,
    )
