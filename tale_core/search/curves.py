"""Points of the elasticity curve: what a budget really cost, and which budgets are ideal.

Pure arithmetic over measured answers (arXiv 2412.18547, section 3.2); no model, no I/O.
"""

from __future__ import annotations

import itertools
import math
from statistics import fmean
from typing import TYPE_CHECKING

from pydantic import Field

from tale_core.types import FinishReason, Record, Usage, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# The published window: a third of the answer-preserving budgets (arXiv 2412.18547, section 4.1).
_WINDOW = 3


class Probe(Record):
    """One answer to one question under one budget."""

    budget: int | None = Field(default=None, ge=1)
    """Output tokens that the prompt asked for; None is vanilla chain of thought."""
    sample: int = Field(default=0, ge=0)
    """Which of several independent answers under this budget it is."""
    usage: Usage
    """What the answer cost; its ``source`` says who counted."""
    verdict: Verdict
    """How the answer was graded."""
    finish_reason: FinishReason | None = None
    """Why the model stopped."""
    text: str
    """The answer."""
    seconds: float | None = None
    """Wall-clock seconds of the call."""
    model: str | None = None
    """The model's name as the provider gives it."""

    @property
    def correct(self) -> bool:
        """Whether the answer was graded correct."""
        return self.verdict == "correct"


class Point(Record):
    """What one budget led to for one question, over all its samples."""

    budget: int | None
    """Output tokens that the prompt asked for; None is vanilla chain of thought."""
    tokens: float = Field(ge=0)
    """Mean output tokens of the answers."""
    accuracy: float = Field(ge=0, le=1)
    """Share of correct answers."""
    samples: int = Field(ge=1)
    """How many answers it rests on."""

    @property
    def correct(self) -> bool:
        """Whether the majority of the answers is correct."""
        return self.accuracy > 1 / 2

    @classmethod
    def of(cls, probes: Sequence[Probe]) -> Point:
        """Return the point of several answers under one budget."""
        return cls(
            budget=probes[0].budget,
            tokens=fmean(probe.usage.output_tokens for probe in probes),
            accuracy=fmean(probe.correct for probe in probes),
            samples=len(probes),
        )


class BudgetRange(Record):
    """A range of budgets, both ends included."""

    low: int = Field(ge=1)
    """Smallest budget, in output tokens."""
    high: int = Field(ge=1)
    """Largest budget, in output tokens."""

    def __contains__(self, budget: int) -> bool:
        """Return whether a budget lies in the range."""
        return self.low <= budget <= self.high


def points_of(probes: Iterable[Probe]) -> tuple[Point, ...]:
    """Gather probes of one question into points, in the order in which their budgets first appear."""
    grouped: dict[int | None, list[Probe]] = {}
    for probe in probes:
        grouped.setdefault(probe.budget, []).append(probe)
    return tuple(Point.of(group) for group in grouped.values())


def ideal_range(points: Iterable[Point]) -> BudgetRange | None:
    """Return the ideal budget range of one question (arXiv 2412.18547, section 4.1).

    It is the window of a third (rounded up) of the answer-preserving budgets, side by side, whose summed real
    cost is the least; of equal windows the one of smaller budgets.

    Args:
        points: What was measured; points without a budget and points with a wrong answer do not count.

    Returns:
        The range, or None when no budget kept the answer.
    """
    return cheapest_window((point.budget, point.tokens) for point in points if point.budget and point.correct)


def cheapest_window(spent: Iterable[tuple[int, float]]) -> BudgetRange | None:
    """Return the range of the third of all budgets, side by side, whose real output tokens are the least."""
    kept = sorted(spent)
    if not kept:
        return None
    width = math.ceil(len(kept) / _WINDOW)
    windows = [kept[start : start + width] for start in range(len(kept) - width + 1)]
    best = min(windows, key=lambda window: sum(tokens for _, tokens in window))
    return BudgetRange(low=best[0][0], high=best[-1][0])


def rebounds(points: Iterable[Point]) -> tuple[int, ...]:
    """Return the budgets that cost more real tokens than the next larger one, smallest first."""
    by_budget = sorted((point.budget, point.tokens) for point in points if point.budget)
    return tuple(small for (small, spent), (_, larger) in itertools.pairwise(by_budget) if spent > larger)
