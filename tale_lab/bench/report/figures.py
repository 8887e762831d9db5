"""The figures of a benchmark: each method by itself, against the baselines, and against its spend.

Methods are compared on the questions that both answered. Methods that spend differently are not compared by
accuracy alone: each is held against the best that could be had for no more than it spends (Wang et al.,
"Reasoning in Token Economies", arXiv 2406.06461).
"""

from __future__ import annotations

from collections import Counter
from statistics import fmean, quantiles
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from tale_core.errors import InvalidValueError, MissingExtraError
from tale_core.statistics import (
    Interval,
    mcnemar,
    mean_interval,
    paired_share_interval,
    ratio_interval,
    wilson_interval,
)
from tale_core.types import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tale_core.types import Usage
    from tale_lab.bench.benchmark import Attempt
    from tale_lab.bench.report.views import View

BASELINE = "vanilla"
"""The method that savings and accuracy are measured against."""
LOWER_BOUND = "direct"
"""The other method that savings are measured against: the least that an answer can take."""
MARGIN = 0.03
"""How much accuracy may fall, as a share of the questions, for a method to count as no worse."""

Answer: TypeAlias = Literal["yes", "no", "not shown"]
"""What measurements say: the whole interval says so, the whole interval denies it, or neither."""
Measure: TypeAlias = Literal["output", "total", "cost"]
"""What is spent: output tokens, input and output tokens, or US dollars."""
Price: TypeAlias = "Callable[[Usage], float]"
"""The price of a call in US dollars, by its tokens."""

_ENOUGH = 0.5  # one method that barely began must not shrink the questions that all are compared on


def list_price(model: str, address: str) -> Price | None:
    """Return the provider's list price of a model; None where none is known, as for a server of one's own.

    Prices come with the package ``genai-prices``; nothing is downloaded. They are for calls one at a time,
    without discounts for cached prompts or batches.

    Args:
        model: The model's name.
        address: The address of its API, which says whose price it is.

    Raises:
        MissingExtraError: genai-prices is not installed.
    """
    if not address:  # without it, a local model would be billed at the price of its namesake
        return None
    try:
        from genai_prices import Usage as Tokens  # noqa: PLC0415  # slow to import
        from genai_prices import calc_price  # noqa: PLC0415
    except ImportError as exc:
        raise MissingExtraError("genai_prices", "eval") from exc

    def price(usage: Usage) -> float:
        tokens = Tokens(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
        return float(calc_price(tokens, model, provider_api_url=address).total_price)

    try:
        calc_price(Tokens(input_tokens=1, output_tokens=1), model, provider_api_url=address)
    except LookupError:
        return None
    return price


class Comparison(Record):
    """A method against a baseline, on the questions that both answered."""

    baseline: str
    questions: int = Field(ge=1)
    """How many questions both answered."""
    gained: int
    """Questions that only the method answered correctly."""
    lost: int
    """Questions that only the baseline answered correctly."""
    p: float
    """Two-sided p-value of the exact McNemar test on these two counts."""
    accuracy_change: float
    """Share of correct answers, method minus baseline."""
    accuracy_interval: Interval
    """Its interval (Bonett and Price)."""
    saved_answer: float | None
    """Share of the baseline's output tokens that the answers alone save; None where it took none."""
    saved: float | None
    """The same net of every other call; negative when the method costs more."""
    saved_interval: Interval | None
    """Its interval (paired bootstrap over questions)."""
    input_ratio: float | None
    """Input tokens as a multiple of the baseline's."""
    estimated: bool
    """Whether a tokenizer counted some of these tokens."""

    @classmethod
    def of(
        cls,
        method: Mapping[str, Attempt],
        baseline: Mapping[str, Attempt],
        *,
        name: str,
        bootstrap: bool = True,
    ) -> Comparison | None:
        """Compare the answers of two methods by question; None when they share none."""
        both = [question for question in method if question in baseline]
        if not both:
            return None
        mine, others = [method[one] for one in both], [baseline[one] for one in both]
        gained = sum(one.correct > other.correct for one, other in zip(mine, others, strict=True))
        lost = sum(one.correct < other.correct for one, other in zip(mine, others, strict=True))
        nets, baseline_nets = [one.net_tokens for one in mine], [one.net_tokens for one in others]
        spent, prompts = sum(baseline_nets), sum(one.input_tokens for one in others)
        answers = sum(one.output_tokens("reason") for one in mine)
        ratio = ratio_interval(nets, baseline_nets) if spent and bootstrap else None
        return cls(
            baseline=name,
            questions=len(both),
            gained=gained,
            lost=lost,
            p=mcnemar(gained, lost),
            accuracy_change=(gained - lost) / len(both),
            accuracy_interval=paired_share_interval(gained, lost, len(both)),
            saved_answer=1 - answers / spent if spent else None,
            saved=1 - sum(nets) / spent if spent else None,
            saved_interval=None if ratio is None else Interval(low=1 - ratio.high, high=1 - ratio.low),
            input_ratio=sum(one.input_tokens for one in mine) / prompts if prompts else None,
            estimated=any(one.estimated for one in (*mine, *others)),
        )

    def no_worse(self, margin: float) -> Answer:
        """Say whether accuracy falls by no more than a margin, a share of the questions."""
        if self.accuracy_interval.low >= -margin:
            return "yes"
        return "no" if self.accuracy_interval.high < -margin else "not shown"


class Point(Record):
    """One method: its mean spend on a question, and what it bought."""

    label: str
    spend: float
    spend_interval: Interval
    """Its interval (bootstrap over questions)."""
    accuracy: float
    accuracy_interval: Interval
    """Its interval (Wilson)."""
    efficient: bool
    """Whether no other method is at least as accurate for no more, and better in one of both."""
    best: str
    """The most accurate method that spends no more than this one; itself where there is none."""
    best_accuracy: float
    best_spend: float


class Spending(Record):
    """Every method on the questions that all of them answered, by mean spend."""

    measure: Measure
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
        """Compare methods by what they spend; None when they share no question."""
        most = max(map(len, answers.values()), default=0)
        enough = {label: mine for label, mine in answers.items() if mine and len(mine) >= _ENOUGH * most}
        # Sorted: the bootstrap draws by position, and a set has another order in every process.
        common = sorted(set.intersection(*(set(mine) for mine in enough.values()))) if enough else []
        if not common:
            return None
        spends = {label: [spend(mine[one]) for one in common] for label, mine in enough.items()}
        right = {label: sum(mine[one].correct for one in common) for label, mine in enough.items()}
        means = {label: (fmean(spends[label]), right[label] / len(common)) for label in enough}

        def point(label: str) -> Point:
            mine, accuracy = means[label]
            # Of methods as accurate for as much, a method is beaten by none: it stands for itself.
            best = max(
                (other for other, (mean, _) in means.items() if mean <= mine),
                key=lambda other: (means[other][1], -means[other][0], other == label),
            )
            return Point(
                label=label,
                spend=mine,
                spend_interval=mean_interval(spends[label]),
                accuracy=accuracy,
                accuracy_interval=wilson_interval(right[label], len(common)),
                efficient=best == label,
                best=best,
                best_accuracy=means[best][1],
                best_spend=means[best][0],
            )

        return cls(
            measure=measure,
            questions=len(common),
            points=tuple(map(point, sorted(means, key=lambda label: means[label]))),
            left_out=tuple(label for label in answers if label not in enough),
        )

    @property
    def frontier(self) -> tuple[str, ...]:
        """The methods that no other one beats, the cheapest first."""
        return tuple(point.label for point in self.points if point.efficient)


class MethodSummary(Record):
    """What one method did; every mean is over all of its answers, right or wrong."""

    label: str
    source: str
    questions: int
    errors: int
    """Questions that failed: the provider's errors, never wrong answers, and in no mean."""
    correct: int
    unreadable: int
    """Answers that hold nothing to compare with the reference; they count as wrong."""
    cut: int
    """Answers with a call that ended at the output cap."""
    accuracy: float
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
    estimated: int
    """Answers with tokens that a tokenizer counted, not the provider; their means are estimates."""
    p50: float | None
    """Median of the seconds of an answer; None where calls were not timed."""
    p95: float | None
    """The 95th percentile of the seconds."""
    events: dict[str, int]
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
        """Total the answers of one method."""
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
            answer_tokens=fmean(one.output_tokens("reason") for one in attempts),
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
    title: str
    model: str
    data: str
    questions: int
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
        """Summarise a benchmark."""
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
    """Return what an answer cost, in US dollars."""
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
        # Input and output have different prices, so cost may order the methods differently.
        ways["cost"] = lambda one: cost_of(one, price)
    found = (Spending.of(answers, measure=measure, spend=spend) for measure, spend in ways.items())
    return tuple(one for one in found if one is not None)


def _thinking(attempts: Sequence[Attempt]) -> float | None:
    counts = [call.usage.reasoning_tokens for one in attempts for call in one.calls]
    # One unknown count makes the mean unknown: None is not 0.
    return None if None in counts else sum(count or 0 for count in counts) / len(attempts)


def _latency(attempts: Sequence[Attempt]) -> tuple[float | None, float | None]:
    seconds = [one.seconds for one in attempts if one.seconds is not None]
    if not seconds:
        return None, None
    # Quantiles need two values; of one answer, every quantile is itself.
    marks = quantiles(seconds if seconds[1:] else seconds * 2, n=20, method="inclusive")
    return marks[9], marks[18]
