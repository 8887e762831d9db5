"""A race: methods asked more and more questions of a benchmark, until the one to use with a model is left.

All candidates and vanilla chain of thought answer the same first questions. After each round half of the
candidates leave (successive halving: Jamieson and Talwalkar, arXiv 1502.07943, algorithm 1), and what stays is
the cheapest and the safest by turns: few questions tell what a candidate costs, but not yet what it loses. The
last two answer all other questions, and are judged on those alone: on the questions that picked it, the best of
many looks better than it is. One is chosen when its interval lies within the margin. Two intervals of 95% leave
at most 2.5% each on the wrong side, so at most 5% of the races choose a candidate outside the margin.

The race only decides who is asked which questions. Asking, grading, keeping and comparing are the benchmark's:
candidates are its methods, rounds its jobs, and a round is judged by the `Comparison` of its report.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import zip_longest
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import Field, model_validator

from tale_core.errors import InvalidValueError
from tale_core.events import ElasticityKind
from tale_core.statistics import CONFIDENCE
from tale_core.types import Record
from tale_lab.bench.benchmark import Attempt, Sampling, bench_jobs
from tale_lab.bench.methods import Vanilla
from tale_lab.bench.report.figures import Comparison
from tale_lab.tuning.candidates import BASELINE, Candidate, candidates_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from typing_extensions import Self

    from tale_lab.questions.datasets import Dataset
    from tale_lab.questions.graders import Grader
    from tale_lab.runs.runner import Job

    Ask: TypeAlias = Callable[[Sequence[Job[Attempt]]], Iterable[Attempt]]
    """Works on jobs and returns the answers that could be had."""

    Compare: TypeAlias = Callable[[Sequence[str], int, int, int], Mapping[str, Comparison]]
    """Called with labels and three numbers ``asked``, ``judged``, ``stop``: has the candidates answer questions
    ``[asked:stop]``, and compares them with the baseline on ``[judged:stop]``."""

_FEWEST_QUESTIONS = 8  # fewer tell nothing, not even what a candidate costs
_FIRST_SHARE = 30
_FINALISTS = 2
_POWER = 0.8  # the usual one: in 4 of 5 cases


class RaceSettings(Record):
    """How a race is run."""

    candidates: tuple[Candidate, ...] = Field(default_factory=candidates_of, min_length=1)
    """Who takes part; vanilla chain of thought always does."""
    margin: float = Field(default=0.03, ge=0, lt=1)
    """How much accuracy may fall against vanilla chain of thought, as a share of the questions."""
    first: int | None = Field(default=None, ge=1)
    """Questions of the first round; None is 8, or a thirtieth of all where that is more."""
    sampling: Sampling = Sampling()

    @model_validator(mode="after")
    def _no_twins(self) -> Self:
        labels = [candidate.label for candidate in self.candidates]
        twins = sorted({label for label in labels if labels.count(label) > 1})
        if twins:
            raise InvalidValueError(f"these candidates are named twice: {', '.join(twins)}")
        return self

    def rounds(self, questions: int) -> list[tuple[int, int]]:
        """Return (candidates, questions answered so far) of each round, the last one with all questions."""
        field, plan = len(self.candidates), []
        answered = self.first or max(_FEWEST_QUESTIONS, questions // _FIRST_SHARE)
        screening = questions // 2  # the other half judges the last two on questions that did not pick them
        while field > _FINALISTS and screening:
            plan.append((field, min(answered, screening)))
            field = _FINALISTS if answered >= screening else max(_FINALISTS, math.ceil(field / 2))
            answered *= 2
        return [*plan, (field, questions)]

    def most_answers(self, questions: int) -> int:
        """Return an upper bound of the answers that the race asks for, vanilla's included."""
        return self._bound(questions, [1] * len(self.candidates))

    def most_calls(self, questions: int) -> int:
        """Return an upper bound of the model calls of the race, estimates and retries included."""
        return self._bound(questions, [one.most_calls for one in self.candidates])

    def _bound(self, questions: int, each: Sequence[int]) -> int:
        # Nobody knows yet who will stay: at worst the dearest do.
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
class Decision:
    """What the comparisons of a race lead to."""

    chosen: str | None
    """The candidate that is shown to be within the margin; None when there is none."""
    finalists: Mapping[str, Comparison]
    """The comparisons of the last round, on questions that were not used to pick them."""
    dropped: Mapping[str, int]
    """The round after which each of the others left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """How a race ended."""

    chosen: Candidate
    """The cheapest finalist shown to be within the margin; `BASELINE` when there is none."""
    decision: Decision
    standings: tuple[Standing, ...]
    """Every candidate that answered something, finalists first, each by its net tokens."""
    baseline: tuple[Attempt, ...]
    """Every answer of vanilla chain of thought."""
    margin: float
    """How much accuracy was allowed to fall, as a share of the questions."""

    @property
    def undecided(self) -> dict[str, Comparison]:
        """The finalists that save tokens and are neither shown to be within the margin nor outside it."""
        return {
            label: one
            for label, one in self.decision.finalists.items()
            if one.saved and one.saved > 0 and one.no_worse(self.margin) == "not shown"
        }


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
        InvalidValueError: There are no questions, or vanilla chain of thought answered none of a round.
    """
    if not len(dataset):
        raise InvalidValueError("a race needs questions, got none")
    baseline = Vanilla()
    field = {one.label: one for one in settings.candidates if one.label != baseline.label}
    answers: dict[str, dict[str, Attempt]] = {label: {} for label in (baseline.label, *field)}

    def compare(labels: Sequence[str], asked: int, judged: int, stop: int) -> dict[str, Comparison]:
        batch = dataset.model_copy(update={"questions": dataset.questions[asked:stop]})
        methods = [baseline, *(field[label] for label in labels)]
        for one in ask(bench_jobs(batch, methods, model=model, sampling=settings.sampling, grader=grader)):
            answers[one.method][one.question_id] = one
        ids = {question.id for question in dataset.questions[judged:stop]}
        if ids.isdisjoint(answers[baseline.label]):
            raise InvalidValueError(
                "vanilla chain of thought has no answer, so nothing can be compared with it"
            )
        return _compared(labels, answers, ids)

    # The rule sees comparisons alone, so that it can be tested on simulated ones.
    decision = decide(list(field), settings.rounds(len(dataset)), compare, settings.margin)
    standings = []
    for label, one in _compared(list(field), answers).items():
        both = [question for question in answers[label] if question in answers[baseline.label]]
        standing = Standing(
            candidate=field[label],
            comparison=one,
            answers=tuple(answers[label][question] for question in both),
            baseline=tuple(answers[baseline.label][question] for question in both),
            dropped_in_round=decision.dropped.get(label),
        )
        standings.append(standing)
    return Race(
        chosen=BASELINE if decision.chosen is None else field[decision.chosen],
        decision=decision,
        standings=tuple(sorted(standings, key=lambda one: (one.dropped_in_round is not None, one.net_tokens))),
        baseline=tuple(answers[baseline.label].values()),
        margin=settings.margin,
    )


def decide(
    field: Sequence[str], rounds: Sequence[tuple[int, int]], compare: Compare, margin: float
) -> Decision:
    """Take candidates through the rounds of a race."""
    dropped: dict[str, int] = {}
    asked = 0
    for number, (_, stop) in enumerate(rounds[:-1], start=1):
        kept = survivors(compare(field, asked, 0, stop), margin, keep=rounds[number][0])
        dropped.update({label: number for label in field if label not in kept})
        field, asked = kept, stop
    finalists = compare(field, asked, asked, rounds[-1][1])
    return Decision(chosen=choose(finalists, margin), finalists=finalists, dropped=dropped)


def survivors(field: Mapping[str, Comparison], margin: float, *, keep: int) -> list[str]:
    """Return who stays after a round: by turns the cheapest that may be within the margin, and the safest."""
    # Who saves nothing has no place in a race for savings, unless nobody saves anything yet.
    by_cost = sorted(field, key=lambda label: -(field[label].saved or 0))
    saving = [label for label in by_cost if (field[label].saved or 0) > 0] or by_cost
    cheapest = [label for label in saving if field[label].no_worse(margin) != "no"]
    safest = sorted(saving, key=lambda label: -field[label].accuracy_interval.low)
    by_turns = (label for pair in zip_longest(cheapest, safest) for label in pair if label is not None)
    return list(dict.fromkeys(by_turns))[:keep]


def choose(finalists: Mapping[str, Comparison], margin: float) -> str | None:
    """Return the cheapest finalist shown to keep the accuracy and to save tokens; None when there is none."""
    able = {
        label: one.saved
        for label, one in finalists.items()
        if one.no_worse(margin) == "yes" and one.saved is not None and one.saved > 0
    }
    return max(able, key=lambda label: able[label]) if able else None


def questions_needed(one: Comparison, margin: float) -> int:
    """Return how many questions show a candidate that loses nothing to be within a margin, in 4 of 5 cases.

    The usual sample size of a paired difference of shares, with the discordance that was seen.
    """
    discordance = (one.gained + one.lost + 2) / (one.questions + 2)  # as in its interval
    normal = NormalDist()
    reach = normal.inv_cdf((1 + CONFIDENCE) / 2) + normal.inv_cdf(_POWER)
    return math.ceil(reach**2 * discordance / margin**2)


def _compared(
    labels: Sequence[str], answers: Mapping[str, Mapping[str, Attempt]], ids: Collection[str] | None = None
) -> dict[str, Comparison]:
    """Compare candidates with the baseline, on some of the questions or all."""
    name = BASELINE.label
    baseline = {key: one for key, one in answers[name].items() if ids is None or key in ids}
    # The token interval is a bootstrap: slow, and no rule here looks at it.
    found = ((label, Comparison.of(answers[label], baseline, name=name, bootstrap=False)) for label in labels)
    return {label: one for label, one in found if one is not None}
