"""Tuning: races ways of asking on a sample of questions and finds the one to use with a model.

Every candidate is a strategy with a budget. All of them answer the same first questions; after each round the
half that spends most drops out, and with it whatever loses too many answers against vanilla chain of thought
(successive halving: Jamieson and Talwalkar, arXiv 1502.07943, algorithm 1). The survivors answer more
questions, so the sample grows where it matters and the race stays affordable.

A race is a generator of *rounds*: it yields the flows of one round and receives their outcomes, so that any
scheduler can run them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, TypeAlias

from pydantic import Field, model_validator

from tale_core.concurrency import Outcome, run_many
from tale_core.errors import InvalidValueError
from tale_core.events import ElasticityKind, UsageEvent
from tale_core.flows import adjusted
from tale_core.search.graded_call import answer_text, graded
from tale_core.types import Call, Flow, Grade, ModelCall, Record
from tale_lab.tuning.candidates import BASELINE, Candidate, Levels, default_candidates

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from typing_extensions import Self

_KEEP = 1 / 2
_FEWEST_QUESTIONS = 8
_FINALISTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedQuestion:
    """A question with what decides whether an answer is right."""

    id: str
    """Identifies the question in every round."""
    text: str
    """The question as it is asked."""
    grade: Grade
    """Grades the text of an answer."""


class Trial(Record):
    """One candidate's answer to one question."""

    candidate: Candidate
    question_id: str
    correct: bool
    """Whether the answer was graded correct; an unreadable answer is a wrong one."""
    reason_tokens: int
    """Output tokens of the answer."""
    estimate_tokens: int
    """Output tokens of the estimator."""
    collapsed: bool
    """Whether the answer was bare."""

    @property
    def net_tokens(self) -> int:
        """Output tokens of everything that this answer took."""
        return self.reason_tokens + self.estimate_tokens


class Standing(Record):
    """How a candidate did, against vanilla chain of thought on the very same questions."""

    candidate: Candidate
    questions: int
    """How many questions both answered."""
    correct: int
    baseline_correct: int
    gained: int
    """Questions that only the candidate answered correctly."""
    lost: int
    """Questions that only vanilla chain of thought answered correctly."""
    net_tokens: float
    """Mean output tokens a question, the estimator's included."""
    baseline_tokens: float
    """Mean output tokens a question of vanilla chain of thought."""
    collapses: int
    """How many of the answers were bare."""
    dropped_in_round: int | None = None
    """The round after which it left the race; None for a finalist."""

    @property
    def accuracy_change(self) -> float:
        """Change of the share of correct answers against vanilla chain of thought, from -1 to 1."""
        return (self.gained - self.lost) / self.questions

    @property
    def token_ratio(self) -> float:
        """Net output tokens as a share of vanilla chain of thought's."""
        return self.net_tokens / self.baseline_tokens


class Race(Record):
    """How a race ended."""

    chosen: Candidate
    """The cheapest candidate within the margin; vanilla chain of thought when none saves anything."""
    standings: tuple[Standing, ...]
    """Every candidate, finalists first, each by its net tokens."""
    trials: tuple[Trial, ...]
    """Every answer."""
    margin: float
    """How much accuracy was allowed to fall, as a share of the questions."""
    questions: tuple[str, ...]
    """Ids of the questions that the race used: none of them may serve as a test afterwards."""
    failures: int
    """Answers that could not be had; their questions are left out of the pairs they belong to."""
    first_failure: str = ""
    """What ended the first of them."""
    exemplars: Levels = Field(default_factory=dict)
    """The worked examples of the choice, where it shows the race's own."""

    def pairs(self, candidate: Candidate) -> tuple[tuple[Trial, Trial], ...]:
        """Return a candidate's answers, each with vanilla chain of thought's to the same question."""
        baseline = {one.question_id: one for one in self.trials if one.candidate == BASELINE}
        mine = (one for one in self.trials if one.candidate == candidate)
        return tuple((one, baseline[one.question_id]) for one in mine if one.question_id in baseline)


Rounds: TypeAlias = Generator[list[Flow[Trial]], list[Outcome[Trial]], Race]
"""A race: yields the flows of one round, receives their outcomes in any order."""


class RaceSettings(Record):
    """How a race is run."""

    candidates: tuple[Candidate, ...] = Field(default_factory=default_candidates, min_length=1)
    """Who takes part; vanilla chain of thought always does."""
    margin: float = Field(default=0.03, ge=0, lt=1)
    """How much accuracy may fall against vanilla chain of thought, as a share of the questions."""
    first: int = Field(default=_FEWEST_QUESTIONS, ge=1)
    """Questions of the first round."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Hard output cap of every answer, against models that never end; None leaves the model's own."""
    temperature: float | None = Field(default=None, ge=0)
    """Sampling temperature of every answer; None leaves the model's own."""
    exemplars: Levels = Field(default_factory=dict)
    """Worked examples taken from searched answers, for the candidates that show them."""

    @model_validator(mode="after")
    def _has_examples(self) -> Self:
        if not self.exemplars and any(candidate.searched for candidate in self.candidates):
            raise InvalidValueError("a candidate shows searched examples, and the race has none; harvest some")
        return self

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
            field = max(_FINALISTS, math.ceil(field * _KEEP))
            answered = min(answered * 2, questions)

    def most_answers(self, questions: int) -> int:
        """Return an upper bound on the answers that the race asks for, vanilla's included, second tries not."""
        total, before = questions, 0
        for field, answered in self.rounds(questions):
            total += field * (answered - before)
            before = answered
        return total


def race(questions: Sequence[GradedQuestion], settings: RaceSettings) -> Rounds:
    """Plan a race.

    Args:
        questions: What to ask; their order decides which of them the early rounds use.
        settings: Candidates and margin.

    Returns:
        A generator of rounds that ends with a `Race`.

    Raises:
        InvalidValueError: There are no questions, or two of them have the same id.
    """
    ids = [question.id for question in questions]
    if not ids:
        raise InvalidValueError("a race needs questions, got none")
    if len(set(ids)) < len(ids):
        raise InvalidValueError("two questions of a race have the same id; remove the duplicates first")
    return _race(questions, settings)


def run_race(
    rounds: Rounds,
    call: Call,
    *,
    concurrency: int = 4,
    on_outcome: Callable[[Outcome[Trial]], None] | None = None,
) -> Race:
    """Drive a race to its end, synchronously.

    Args:
        rounds: What `race` returned.
        call: Answers one `ModelCall`; called from several threads at once.
        concurrency: How many answers are under way at a time.
        on_outcome: Told of every answer as it comes.
    """
    outcomes: list[Outcome[Trial]] | None = None
    while not isinstance(step := _advance(rounds, outcomes), Race):
        outcomes = []
        for outcome in run_many(step, call, concurrency=concurrency):
            outcomes.append(outcome)
            if on_outcome is not None:
                on_outcome(outcome)
    return step


def _advance(rounds: Rounds, outcomes: list[Outcome[Trial]] | None) -> list[Flow[Trial]] | Race:
    try:
        return next(rounds) if outcomes is None else rounds.send(outcomes)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # what the generator returns


def _race(questions: Sequence[GradedQuestion], settings: RaceSettings) -> Rounds:
    field = [candidate for candidate in settings.candidates if candidate != BASELINE]
    trials: dict[Candidate, dict[str, Trial]] = {candidate: {} for candidate in (BASELINE, *field)}
    dropped: dict[Candidate, int] = {}
    errors: list[Exception] = []
    before = 0
    for number, (_, answered) in enumerate(settings.rounds(len(questions)), start=1):
        if number > 1:
            survivors = _survivors(field, trials, settings.margin)
            dropped.update({candidate: number - 1 for candidate in field if candidate not in survivors})
            field = survivors
        batch = questions[before:answered]
        before = answered
        outcomes = yield [_trial(one, question, settings) for question in batch for one in (BASELINE, *field)]
        errors += [outcome.error for outcome in outcomes if outcome.error is not None]
        if not trials[BASELINE] and errors and len(errors) == len(outcomes):
            raise errors[0]  # a model that answers nothing cannot be measured
        for trial in (outcome.unwrap() for outcome in outcomes if outcome.error is None):
            trials[trial.candidate][trial.question_id] = trial
    standings = list(_standings(trials, dropped))
    chosen = _choose(standings, settings.margin)
    return Race(
        chosen=chosen,
        standings=tuple(sorted(standings, key=lambda one: (one.dropped_in_round is not None, one.net_tokens))),
        trials=tuple(trial for mine in trials.values() for trial in mine.values()),
        margin=settings.margin,
        questions=tuple(question.id for question in questions),
        failures=len(errors),
        first_failure=f"{type(errors[0]).__name__}: {errors[0]}" if errors else "",
        exemplars=settings.exemplars if chosen.searched else {},
    )


def _trial(candidate: Candidate, question: GradedQuestion, settings: RaceSettings) -> Flow[Trial]:
    run = candidate.method(settings.exemplars).begin(question.text, question_id=question.id)
    sampling = {"max_tokens": settings.max_tokens, "temperature": settings.temperature}

    def sampled(call: ModelCall) -> ModelCall:
        return call.model_copy(update=sampling) if call.role == "reason" else call

    answer = yield from adjusted(run.answer(), sampled)
    verdict = yield from graded(question.grade, answer_text(answer.reply))
    calls = [event for event in run.drain() if isinstance(event, UsageEvent)]
    return Trial(
        candidate=candidate,
        question_id=question.id,
        correct=verdict == "correct",
        reason_tokens=sum(call.usage.output_tokens for call in calls if call.role == "reason"),
        estimate_tokens=sum(call.usage.output_tokens for call in calls if call.role == "estimate"),
        collapsed=any(event.kind is ElasticityKind.COLLAPSE for event in answer.events),
    )


def _standings(
    trials: Mapping[Candidate, Mapping[str, Trial]], dropped: Mapping[Candidate, int]
) -> Iterator[Standing]:
    baseline = trials[BASELINE]
    for candidate, mine in trials.items():
        pairs = [(mine[key], baseline[key]) for key in mine.keys() & baseline.keys()]
        if candidate == BASELINE or not pairs:
            continue
        yield Standing(
            candidate=candidate,
            questions=len(pairs),
            correct=sum(one.correct for one, _ in pairs),
            baseline_correct=sum(other.correct for _, other in pairs),
            gained=sum(one.correct and not other.correct for one, other in pairs),
            lost=sum(other.correct and not one.correct for one, other in pairs),
            net_tokens=fmean(one.net_tokens for one, _ in pairs),
            baseline_tokens=fmean(other.net_tokens for _, other in pairs),
            collapses=sum(one.collapsed for one, _ in pairs),
            dropped_in_round=dropped.get(candidate),
        )


def _survivors(
    field: Iterable[Candidate], trials: Mapping[Candidate, Mapping[str, Trial]], margin: float
) -> list[Candidate]:
    """Return the better half: first those that may still be within the margin, then those that spend less."""
    entered = list(field)
    known = {one.candidate: one for one in _standings(trials, {})}
    ranked = sorted(
        (candidate for candidate in entered if candidate in known),
        key=lambda candidate: (_shortfall(known[candidate], margin), known[candidate].net_tokens),
    )
    return ranked[: max(_FINALISTS, math.ceil(len(entered) * _KEEP))]


def _shortfall(standing: Standing, margin: float) -> float:
    """Return by how much a candidate misses the margin beyond what chance explains, as a share, at least 0.

    One standard error of the paired difference is granted: early rounds are small, and a good candidate must
    not fall to one unlucky question.
    """
    discordant = standing.gained + standing.lost
    spread = math.sqrt(max(discordant, 1)) / standing.questions
    return max(0.0, -standing.accuracy_change - margin - spread)


def _choose(standings: Iterable[Standing], margin: float) -> Candidate:
    """Return the cheapest finalist that keeps the accuracy and saves tokens, else vanilla chain of thought."""
    able = [
        one
        for one in standings
        if one.dropped_in_round is None and one.accuracy_change >= -margin and one.token_ratio < 1
    ]
    return min(able, key=lambda one: one.net_tokens).candidate if able else BASELINE
