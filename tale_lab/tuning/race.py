"""A race: methods asked more and more questions of a benchmark, until the one to use with a model is left.

All candidates and vanilla chain of thought answer the same first questions. After each round half of the
candidates leave (successive halving: Jamieson and Talwalkar, arXiv 1502.07943, algorithm 1); the others answer
more questions, so the sample grows where it matters and the race stays affordable.

The race only decides who is asked which questions. Asking, grading, keeping and comparing are the benchmark's:
candidates are its methods, rounds its jobs, and a round is judged by the `Comparison` of its report.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import Field, model_validator

from tale_core.errors import InvalidValueError
from tale_core.events import ElasticityKind
from tale_core.types import Record
from tale_lab.bench.benchmark import Attempt, Sampling, bench_jobs
from tale_lab.bench.methods import Vanilla
from tale_lab.bench.report.paired import Comparison
from tale_lab.tuning.candidates import BASELINE, Candidate, candidates_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from typing_extensions import Self

    from tale_lab.questions.datasets import Dataset
    from tale_lab.questions.graders import Grader
    from tale_lab.runs.runner import Job

    Ask: TypeAlias = Callable[[Sequence[Job[Attempt]]], Iterable[Attempt]]
    """Works on jobs and returns the answers that could be had."""

_KEEP = 1 / 2
_FEWEST_QUESTIONS = 8
_FINALISTS = 2


class RaceSettings(Record):
    """How a race is run."""

    candidates: tuple[Candidate, ...] = Field(default_factory=candidates_of, min_length=1)
    """Who takes part; vanilla chain of thought always does."""
    margin: float = Field(default=0.03, ge=0, lt=1)
    """How much accuracy may fall against vanilla chain of thought, as a share of the questions."""
    first: int = Field(default=_FEWEST_QUESTIONS, ge=1)
    """Questions of the first round."""
    sampling: Sampling = Sampling()
    """Sampling of every answer."""

    @model_validator(mode="after")
    def _no_twins(self) -> Self:
        labels = [candidate.label for candidate in self.candidates]
        twins = sorted({label for label in labels if labels.count(label) > 1})
        if twins:
            raise InvalidValueError(f"these candidates are named twice: {', '.join(twins)}")
        return self

    def rounds(self, questions: int) -> list[tuple[int, int]]:
        """Return (candidates, questions answered so far) of each round, the last one with all questions.

        Args:
            questions: How many questions there are.
        """
        field, plan = len(self.candidates), []
        answered = min(self.first, questions)
        while True:
            last = field <= _FINALISTS or answered >= questions
            plan.append((field, questions if last else answered))
            if last:
                return plan
            field = _left(field)
            answered = min(answered * 2, questions)

    def most_answers(self, questions: int) -> int:
        """Return an upper bound of the answers that the race asks for, vanilla's included."""
        return self._bound(questions, [1] * len(self.candidates))

    def most_calls(self, questions: int) -> int:
        """Return an upper bound of the model calls of the race, estimates and retries included."""
        return self._bound(questions, [one.most_calls for one in self.candidates])

    def _bound(self, questions: int, each: Sequence[int]) -> int:
        dearest = sorted(each, reverse=True)
        total, before = questions, 0
        for field, answered in self.rounds(questions):
            total += sum(dearest[:field]) * (answered - before)
            before = answered
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a candidate did against vanilla chain of thought, on the questions that both answered."""

    candidate: Candidate
    comparison: Comparison
    answers: tuple[Attempt, ...]
    baseline: tuple[Attempt, ...]
    """Vanilla's answers to the same questions, in the same order."""
    dropped_in_round: int | None = None
    """The round after which it left the race; None for a finalist."""

    @property
    def net_tokens(self) -> float:
        """Mean output tokens per question, the estimator's included."""
        return fmean(one.net_tokens for one in self.answers)

    def row(self) -> dict[str, Any]:
        """Return the figures as plain data for JSON."""
        spent = fmean(one.net_tokens for one in self.baseline)
        return {
            "candidate": self.candidate.label,
            "questions": self.comparison.questions,
            "correct": sum(one.correct for one in self.answers),
            "baseline_correct": sum(one.correct for one in self.baseline),
            "gained": self.comparison.gained,
            "lost": self.comparison.lost,
            "net_tokens": self.net_tokens,
            "baseline_tokens": spent,
            "collapses": sum(
                any(event.kind is ElasticityKind.COLLAPSE for event in one.events) for one in self.answers
            ),
            "dropped_in_round": self.dropped_in_round,
            "token_ratio": self.net_tokens / spent if spent else None,
            "accuracy_change": self.comparison.accuracy_change,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """How a race ended."""

    chosen: Candidate
    """The cheapest finalist within the margin; `BASELINE` when none saves anything."""
    standings: tuple[Standing, ...]
    """Every candidate that answered something, finalists first, each by its net tokens."""
    baseline: tuple[Attempt, ...]
    """Every answer of vanilla chain of thought."""
    margin: float
    """How much accuracy was allowed to fall, as a share of the questions."""


def run_race(
    dataset: Dataset, settings: RaceSettings, ask: Ask, *, model: str, grader: str | Grader = "auto"
) -> Race:
    """Race candidates on a dataset.

    Args:
        dataset: The questions, in the order in which the rounds take them.
        settings: Candidates and margin.
        ask: Works on the jobs of one round; questions that fail may be missing in what it returns.
        model: Names the model; part of every key.
        grader: How to grade: a name or a grader.

    Raises:
        DataError: The grader cannot read a reference answer.
        InvalidValueError: There are no questions, or vanilla chain of thought answered none of the first ones.
    """
    if not len(dataset):
        raise InvalidValueError("a race needs questions, got none")
    baseline = Vanilla()
    field = [one for one in settings.candidates if one.label != baseline.label]
    answers: dict[str, dict[str, Attempt]] = {one.label: {} for one in (baseline, *field)}
    dropped: dict[str, int] = {}
    before = 0
    for number, (_, answered) in enumerate(settings.rounds(len(dataset)), start=1):
        if number > 1:
            kept = survivors(_compared(field, answers), settings.margin)
            dropped.update({one.label: number - 1 for one in field if one.label not in kept})
            field = [one for one in field if one.label in kept]
        batch = dataset.model_copy(update={"questions": dataset.questions[before:answered]})
        before = answered
        methods = [baseline, *field]
        for one in ask(bench_jobs(batch, methods, model=model, sampling=settings.sampling, grader=grader)):
            answers[one.method][one.question_id] = one
        if not answers[baseline.label]:
            raise InvalidValueError(
                "vanilla chain of thought has no answer, so nothing can be compared with it"
            )
    chosen = choose(_compared(field, answers), settings.margin)
    found = [
        _standing(one, answers, dropped_in_round=dropped.get(one.label))
        for one in settings.candidates
        if answers.get(one.label)
    ]
    standings = [one for one in found if one is not None]
    return Race(
        chosen=next((one for one in field if one.label == chosen), BASELINE),
        standings=tuple(sorted(standings, key=lambda one: (one.dropped_in_round is not None, one.net_tokens))),
        baseline=tuple(answers[baseline.label].values()),
        margin=settings.margin,
    )


def survivors(field: Mapping[str, Comparison], margin: float) -> set[str]:
    """Return who stays after a round: first those that may still be within the margin, then the cheapest.

    Args:
        field: The candidates' comparisons with the baseline, by label.
        margin: How much accuracy may fall, as a share of the questions.
    """
    ranked = sorted(field, key=lambda label: (_shortfall(field[label], margin), -(field[label].saved or 0)))
    return set(ranked[: _left(len(field))])


def choose(finalists: Mapping[str, Comparison], margin: float) -> str | None:
    """Return the cheapest finalist that keeps the accuracy and saves tokens; None when there is none.

    Args:
        finalists: Their comparisons with the baseline, by label.
        margin: How much accuracy may fall, as a share of the questions.
    """
    able = {
        label: one.saved
        for label, one in finalists.items()
        if one.accuracy_change >= -margin and one.saved is not None and one.saved > 0
    }
    return max(able, key=lambda label: able[label]) if able else None


def _left(field: int) -> int:
    return max(_FINALISTS, math.ceil(field * _KEEP))


def _shortfall(one: Comparison, margin: float) -> float:
    """Return by how much a candidate misses the margin beyond what chance explains, as a share, at least 0.

    One standard error of the paired difference is granted: early rounds are small, and a good candidate must
    not fall to one unlucky question.
    """
    spread = math.sqrt(max(one.gained + one.lost, 1)) / one.questions
    return max(0.0, -one.accuracy_change - margin - spread)


def _compared(
    field: Iterable[Candidate], answers: Mapping[str, Mapping[str, Attempt]]
) -> dict[str, Comparison]:
    # The token interval is a bootstrap: slow, and no rule here looks at it.
    found = {
        one.label: Comparison.of(
            answers[one.label], answers[BASELINE.label], name=BASELINE.label, bootstrap=False
        )
        for one in field
    }
    return {label: one for label, one in found.items() if one is not None}


def _standing(
    candidate: Candidate, answers: Mapping[str, Mapping[str, Attempt]], *, dropped_in_round: int | None
) -> Standing | None:
    mine, others = answers[candidate.label], answers[BASELINE.label]
    comparison = _compared([candidate], answers).get(candidate.label)
    if comparison is None:
        return None
    both = [question for question in mine if question in others]
    return Standing(
        candidate=candidate,
        comparison=comparison,
        answers=tuple(mine[one] for one in both),
        baseline=tuple(others[one] for one in both),
        dropped_in_round=dropped_in_round,
    )
