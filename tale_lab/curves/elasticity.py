"""The elasticity curve of a model: what budgets really cost, and what they do to the answers.

Every question is asked without a budget and under each budget of a grid, so that all points of the curve rest
on the same questions (arXiv 2412.18547, section 3.2 and figure 2).
"""

from __future__ import annotations

import math
from functools import partial
from itertools import takewhile
from statistics import fmean
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from tale_core.errors import InvalidValueError
from tale_core.prompts.strategies import get_strategy
from tale_core.search.curves import BudgetRange, Point, Probe, cheapest_window, points_of
from tale_core.search.graded_call import Asking, check_budgeted, probe
from tale_core.statistics import Interval, difference_interval, mean_interval, wilson_interval
from tale_core.types import Flow, Record
from tale_lab.runs.runner import graded_jobs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tale_core.types import Grade
    from tale_lab.questions.datasets import Dataset, Question
    from tale_lab.questions.graders import Grader
    from tale_lab.runs.runner import Job

BARE_SHARE = 0.1
"""An answer with less than this share of the question's vanilla tokens is bare: the reasoning collapsed."""

KEPT_MARGIN = 0.05
"""A budget keeps the answers when it loses no more than this share of them against vanilla."""

_HALF = 0.5


class ElasticitySettings(Asking):
    """How a curve is measured; with the question and the model it determines the calls."""

    budgets: tuple[int, ...] = Field(default=(10, 25, 50, 100, 200, 400), min_length=1)
    """Output tokens to ask for."""

    @field_validator("budgets")
    @classmethod
    def _distinct_and_positive(cls, budgets: tuple[int, ...]) -> tuple[int, ...]:
        wrong = [budget for budget in budgets if budget < 1]
        if wrong or len(set(budgets)) != len(budgets):
            raise InvalidValueError(f"budgets must be at least 1 and different from each other, got {budgets}")
        return tuple(sorted(budgets))

    @property
    def calls(self) -> int:
        """Answers that one question takes."""
        return self.samples * (1 + len(self.budgets))


class Measurement(Record):
    """One question under every budget of a grid."""

    question: str
    """The question, unframed."""
    question_id: str = ""
    settings: ElasticitySettings
    probes: tuple[Probe, ...]
    """Every answer, vanilla chain of thought first."""

    @property
    def points(self) -> dict[int | None, Point]:
        """What each budget led to; None is vanilla chain of thought."""
        return {point.budget: point for point in points_of(self.probes)}


def measure_elasticity(
    question: str, grade: Grade, settings: ElasticitySettings | None = None, *, question_id: str = ""
) -> Flow[Measurement]:
    """Ask one question without a budget and under every budget of a grid.

    Args:
        question: The question, unframed.
        grade: Grades the text of one answer.
        settings: The grid, and how to ask; None for the defaults.
        question_id: Copied into the result.

    Raises:
        InvalidValueError: The strategy carries no budget.
        EmptyAnswerError: The model answered nothing, so that there is nothing to measure.
    """
    settings = ElasticitySettings() if settings is None else settings
    strategy = get_strategy(settings.strategy)
    check_budgeted(strategy)
    probes: list[Probe] = []
    for budget in (None, *settings.budgets):
        for sample in range(settings.samples):
            call = settings.call(
                question, get_strategy("vanilla") if budget is None else strategy, budget, sample
            )
            probes += [(yield from probe(call, grade))]
    return Measurement(question=question, question_id=question_id, settings=settings, probes=tuple(probes))


def elasticity_jobs(
    dataset: Dataset, settings: ElasticitySettings, *, model: str, grader: str | Grader = "auto"
) -> list[Job[Measurement]]:
    """Return one measurement a question, ready for `tale_lab.runs.runner.run_jobs`.

    Args:
        dataset: The questions.
        settings: The grid, and how to ask.
        model: Names the model; part of every key.
        grader: How to grade: a name or a grader.

    Raises:
        DataError: The grader cannot read a reference answer.
        InvalidValueError: The strategy carries no budget.
    """
    check_budgeted(get_strategy(settings.strategy))
    return graded_jobs(
        dataset,
        partial(_measure, settings=settings),
        kind="elasticity",
        record=Measurement,
        settings=settings,
        model=model,
        grader=grader,
        most_calls=settings.calls,
    )


def _measure(question: Question, grade: Grade, *, settings: ElasticitySettings) -> Flow[Measurement]:
    return measure_elasticity(question.question, grade, settings, question_id=question.id)


class CurvePoint(Record):
    """What one budget led to, over all questions."""

    budget: int | None
    """Output tokens that the prompt asked for; None is vanilla chain of thought."""
    tokens: float
    """Mean output tokens a question."""
    tokens_interval: Interval
    accuracy: float
    accuracy_interval: Interval
    bare: float
    """Share of bare answers: less than a tenth of the same question's vanilla tokens."""
    truncated: float
    """Share of answers that the provider cut."""


class ElasticityCurve(Record):
    """Budget against real tokens and accuracy, over all questions, and what follows from it."""

    strategy: str
    """The prompt strategy that carried the budgets."""
    questions: int = Field(ge=1)
    """How many questions every point rests on."""
    vanilla: CurvePoint
    """Without a budget."""
    points: tuple[CurvePoint, ...]
    """Under each budget, smallest first."""
    rebound: int | None
    """The largest budget that costs more than some larger one does, beyond the noise: spending grows again
    from here down. None when it never does."""
    ideal: BudgetRange | None
    """The cheapest third of the budgets that keep the answers and cost less than none; None where none does."""
    floor: int | None
    """The collapse floor: from this budget up fewer than half of the answers are bare. None when even the
    largest collapses."""
    estimated: int = 0
    """How many answers were counted by a tokenizer, not by the provider."""

    @classmethod
    def of(cls, measurements: Iterable[Measurement]) -> ElasticityCurve:
        """Pool measurements of different questions on the same grid."""
        pooled = _Pool(measurements)
        points = tuple(pooled.point(budget) for budget in pooled.settings.budgets)
        vanilla = pooled.point(None)
        # From the largest budget down, for as long as most answers still reason.
        reasoned = takewhile(lambda point: point.bare < _HALF, reversed(points))
        return cls(
            strategy=pooled.settings.strategy,
            questions=len(pooled.measurements),
            vanilla=vanilla,
            points=points,
            rebound=pooled.rebound(),
            ideal=cheapest_window(
                (point.budget or 0, point.tokens)
                for point in points
                if point.tokens < vanilla.tokens and point.accuracy >= vanilla.accuracy - KEPT_MARGIN
            ),
            floor=min((point.budget or 0 for point in reasoned), default=None),
            estimated=sum(
                probe.usage.source == "estimated" for one in pooled.measurements for probe in one.probes
            ),
        )


class _Pool:
    """Measurements of many questions on one grid, by budget."""

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self.measurements = list(measurements)
        if not self.measurements:
            raise InvalidValueError("a curve needs at least one measured question, got none")
        # Points of different grids rest on different questions, and would not be one curve.
        ways = {measurement.settings for measurement in self.measurements}
        if len(ways) > 1:
            raise InvalidValueError(
                f"one curve is one grid and one strategy, got {len(ways)} different settings"
            )
        self.settings = self.measurements[0].settings
        self._rows = [measurement.points for measurement in self.measurements]

    def tokens(self, budget: int | None) -> list[float]:
        """Return the mean output tokens of each question under a budget."""
        return [row[budget].tokens for row in self._rows]

    def point(self, budget: int | None) -> CurvePoint:
        tokens = self.tokens(budget)
        shares = [row[budget].accuracy for row in self._rows]
        probes = [
            (probe, row[None].tokens)
            for measurement, row in zip(self.measurements, self._rows, strict=True)
            for probe in measurement.probes
            if probe.budget == budget
        ]
        return CurvePoint(
            budget=budget,
            tokens=fmean(tokens),
            tokens_interval=mean_interval(tokens),
            accuracy=fmean(shares),
            # Sums of shares may exceed their number by rounding.
            accuracy_interval=wilson_interval(min(math.fsum(shares), len(shares)), len(shares)),
            bare=fmean(probe.usage.output_tokens < BARE_SHARE * vanilla for probe, vanilla in probes),
            truncated=fmean(probe.finish_reason == "length" for probe, _ in probes),
        )

    def rebound(self) -> int | None:
        """Go down the grid and return the first budget that costs more than the cheapest larger one."""
        budgets = sorted(self.settings.budgets, reverse=True)
        cheapest = self.tokens(budgets[0])
        for budget in budgets[1:]:
            tokens = self.tokens(budget)
            # Pairwise, question by question: the means of two budgets differ by chance alone.
            if difference_interval(tokens, cheapest).low > 0:
                return budget
            cheapest = min(cheapest, tokens, key=sum)
        return None
