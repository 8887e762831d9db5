"""The figures of a benchmark: each method by itself, and against the baselines on the same questions."""

from __future__ import annotations

from collections import Counter
from statistics import fmean, quantiles
from typing import TYPE_CHECKING

from pydantic import Field

from tale_core.errors import InvalidValueError
from tale_core.statistics import Interval, mean_interval, wilson_interval
from tale_core.types import Record
from tale_lab.bench.report.paired import BASELINE, LOWER_BOUND, MARGIN, Comparison, answer_tokens
from tale_lab.bench.report.spending import Spending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tale_lab.bench.benchmark import Attempt
    from tale_lab.bench.report.pricing import Price
    from tale_lab.bench.report.spending import Measure
    from tale_lab.bench.report.views import View


class MethodSummary(Record):
    """What one method did; every mean is over all of its answers, right or wrong."""

    label: str
    """The method."""
    source: str
    """Who proposed it."""
    questions: int
    """Questions that were answered."""
    errors: int
    """Questions that failed: the provider's errors, never wrong answers, and in no mean."""
    correct: int
    """Questions answered correctly."""
    unreadable: int
    """Answers that hold nothing to compare with the reference; they count as wrong."""
    cut: int
    """Answers with a call that ended at the output cap."""
    accuracy: float
    """Share of correct answers."""
    accuracy_interval: Interval
    """Its interval (Wilson)."""
    net_tokens: float
    """Mean output tokens of everything that an answer took."""
    net_interval: Interval
    """Its interval (bootstrap over questions)."""
    answer_tokens: float
    """The part of them that answers took, thinking included."""
    estimator_tokens: float
    """The part of them that estimators took."""
    thinking_tokens: float | None
    """The part of them spent thinking, where the provider says so; None where it does not."""
    input_tokens: float
    """Mean prompt tokens."""
    calls: float
    """Mean model calls."""
    estimated: int
    """Answers with tokens that a tokenizer counted, not the provider; their means are estimates."""
    p50: float | None
    """Median of the seconds of an answer; None where calls were not timed."""
    p95: float | None
    """The 95th percentile of the seconds."""
    events: dict[str, int]
    """Elasticity events by kind."""
    cost: float | None
    """Mean cost in US dollars; None where no price is known."""
    comparisons: tuple[Comparison, ...] = ()
    """Against vanilla chain of thought and direct answering, as far as they were measured."""

    @classmethod
    def of(
        cls,
        label: str,
        attempts: Sequence[Attempt],
        *,
        source: str = "",
        errors: int = 0,
        price: Price | None = None,
        comparisons: Iterable[Comparison] = (),
    ) -> MethodSummary:
        """Total the answers of one method.

        Args:
            label: The method.
            attempts: Its answers, at least one.
            source: Who proposed it.
            errors: Questions that failed.
            price: The price of a call, where it is known.
            comparisons: Against the baselines.
        """
        net = [float(one.net_tokens) for one in attempts]
        correct = sum(one.correct for one in attempts)
        p50, p95 = _latency(attempts)
        return cls(
            label=label,
            source=source,
            questions=len(attempts),
            errors=errors,
            correct=correct,
            unreadable=sum(one.verdict == "unreadable" for one in attempts),
            cut=sum(any(call.finish_reason == "length" for call in one.calls) for one in attempts),
            accuracy=correct / len(attempts),
            accuracy_interval=wilson_interval(correct, len(attempts)),
            net_tokens=fmean(net),
            net_interval=mean_interval(net),
            answer_tokens=fmean(map(answer_tokens, attempts)),
            estimator_tokens=fmean(one.output_tokens("estimate") for one in attempts),
            thinking_tokens=_thinking(attempts),
            input_tokens=fmean(one.input_tokens for one in attempts),
            calls=fmean(len(one.calls) for one in attempts),
            estimated=sum(one.estimated for one in attempts),
            p50=p50,
            p95=p95,
            events=dict(Counter(event.kind.value for one in attempts for event in one.events)),
            cost=None if price is None else fmean(cost_of(one, price) for one in attempts),
            comparisons=tuple(comparisons),
        )

    def against(self, baseline: str) -> Comparison | None:
        """Return the comparison with a baseline, or None where there is none."""
        return next((one for one in self.comparisons if one.baseline == baseline), None)


class Summary(Record):
    """All figures of one benchmark."""

    file: str
    """The results file."""
    title: str
    """The model and the questions."""
    model: str
    """The model."""
    data: str
    """The questions."""
    questions: int
    """How many questions there are."""
    margin: float
    """How much accuracy may fall, as a share, for a method to count as no worse."""
    methods: tuple[MethodSummary, ...]
    """The methods that answered something, in the order in which they were named."""
    silent: dict[str, int] = Field(default_factory=dict)
    """Methods without any answer, with the questions that failed."""
    spending: tuple[Spending, ...] = ()
    """What each spend buys: by output tokens, by all tokens, by cost where it is known."""

    @classmethod
    def of(cls, view: View, *, margin: float = MARGIN, price: Price | None = None) -> Summary:
        """Summarise a benchmark.

        Args:
            view: The benchmark.
            margin: How much accuracy may fall, as a share between 0 and 1.
            price: The price of a call, where it is known.

        Raises:
            InvalidValueError: The margin is no share.
            MissingExtraError: numpy is not installed.
        """
        if not 0 <= margin < 1:
            raise InvalidValueError(f"a margin is a share from 0 to below 1, such as {MARGIN}, got {margin}")
        answers = {label: view.of(label) for label in view.labels}
        sources = dict(zip(view.labels, (entry.source for entry in view.plan.methods), strict=True))
        methods = tuple(
            MethodSummary.of(
                label,
                list(mine.values()),
                source=sources[label],
                errors=view.errors(label),
                price=price,
                comparisons=_comparisons(label, answers),
            )
            for label, mine in answers.items()
            if mine
        )
        return cls(
            file=view.file,
            title=view.title,
            model=view.plan.model,
            data=view.plan.data,
            questions=len(view.plan.questions),
            margin=margin,
            methods=methods,
            silent={label: view.errors(label) for label, mine in answers.items() if not mine},
            spending=_spending(answers, price),
        )

    def method(self, label: str) -> MethodSummary | None:
        """Return the figures of one method, or None where it answered nothing."""
        return next((one for one in self.methods if one.label == label), None)


def cost_of(attempt: Attempt, price: Price) -> float:
    """Return what an answer cost, in US dollars.

    Args:
        attempt: The answer.
        price: The price of a call.
    """
    return sum(price(call.usage) for call in attempt.calls)


def _comparisons(label: str, answers: Mapping[str, Mapping[str, Attempt]]) -> list[Comparison]:
    pairs = (
        Comparison.of(answers[label], answers[baseline], name=baseline)
        for baseline in (BASELINE, LOWER_BOUND)
        if baseline != label and baseline in answers
    )
    return [one for one in pairs if one is not None]


def _spending(answers: Mapping[str, Mapping[str, Attempt]], price: Price | None) -> tuple[Spending, ...]:
    ways: dict[Measure, Callable[[Attempt], float]] = {
        "output": lambda one: one.net_tokens,
        "total": lambda one: one.net_tokens + one.input_tokens,
    }
    if price is not None:
        ways["cost"] = lambda one: cost_of(one, price)
    found = (Spending.of(answers, measure=measure, spend=spend) for measure, spend in ways.items())
    return tuple(one for one in found if one is not None)


def _thinking(attempts: Sequence[Attempt]) -> float | None:
    counts = [call.usage.reasoning_tokens for one in attempts for call in one.calls]
    return None if None in counts else sum(count or 0 for count in counts) / len(attempts)


def _latency(attempts: Sequence[Attempt]) -> tuple[float | None, float | None]:
    seconds = [one.seconds for one in attempts if one.seconds is not None]
    if not seconds:
        return None, None
    if len(seconds) == 1:
        return seconds[0], seconds[0]
    marks = quantiles(seconds, n=20, method="inclusive")
    return marks[9], marks[18]
