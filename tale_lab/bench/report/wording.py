"""A benchmark in words and rows of text: what every form of the report shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tale_core.statistics import Interval
from tale_lab.bench.report.figures import BASELINE, LOWER_BOUND

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tale_lab.bench.report.figures import Comparison, Measure, MethodSummary, Point, Spending, Summary

NOTHING = "-"
_FEW = 30  # an interval at this number is still some 35 points wide
_CENT = 0.01  # below it, four decimals would show one or two digits
MEASURES: dict[Measure, str] = {
    "output": "output tokens",
    "total": "input and output tokens",
    "cost": "US dollars",
}
"""What a spend is counted in, in words."""

HEADER = (
    "method", "n", "errors", "cut", "correct", "interval", "output", "answer", "estimator", "thinking", "input",
    "saved", "vs direct", "no worse", "cost", "p50", "p95", "events",
)  # fmt: skip
"""The columns of the table."""

_NOTE_TOKENS = (
    "Tokens are means over all answers, right or wrong. Output: of all calls that an answer takes; what the "
    "answer itself, the estimator and thinking take are parts of it. ~: counted by a tokenizer, not by the "
    "provider."
)
_NOTE_SAVED = (
    "Saved: net, of all calls, against vanilla, on the questions that both answered; vs direct: the same "
    "against direct. No worse: whether accuracy falls by no more than the margin; yes and no mean that the "
    "whole interval says so. Errors are the provider's: they do not count as wrong answers, and are in no "
    "mean. Cut: answers with a call that ended at the output cap."
)
_NOTE_INTERVALS = (
    "Intervals are 95%: Wilson for shares, Bonett and Price for paired changes, paired bootstrap for tokens."
)
NOTES = (_NOTE_TOKENS, _NOTE_SAVED, _NOTE_INTERVALS)
"""How the table is to be read."""
GROUPS = (
    ("method", "n", "correct", "interval", "output", "estimator", "thinking", "saved"),
    ("method", "errors", "cut", "input", "vs direct", "no worse", "cost", "p50", "p95", "events"),
)
"""The columns as two tables that fit a terminal."""


def rows(summary: Summary) -> list[tuple[str, ...]]:
    """Return the figures of a benchmark as rows of text, under `HEADER`."""
    silent = [
        (label, "0", str(errors), *[NOTHING] * (len(HEADER) - 3)) for label, errors in summary.silent.items()
    ]
    return [*(_row(one, summary.margin) for one in summary.methods), *silent]


def sentences(summary: Summary) -> dict[str, str]:
    """Return one sentence for every method that answered something."""
    return {one.label: _sentence(one, summary.margin) for one in summary.methods}


def remarks(summary: Summary) -> tuple[str, ...]:
    """Return what a reader must know about all of the figures."""
    lines: list[str] = []
    if summary.methods and summary.method(BASELINE) is None:
        lines.append(f"{BASELINE} was not measured, so there is nothing to compare with; add it to --methods.")
    answered = max((one.questions for one in summary.methods), default=0)
    if 0 < answered < _FEW:
        lines.append(f"Only {answered} questions: the intervals are rough, and most differences cannot show.")
    if any(one.questions + one.errors < summary.questions for one in summary.methods) or summary.silent:
        lines.append(f"Not all of the {summary.questions} questions are answered by every method yet.")
    tokenized = sum(one.estimated for one in summary.methods)
    if tokenized:
        lines.append(f"The tokens of {tokenized} answers were counted by a tokenizer, not by the provider.")
    if summary.methods and all(one.cost is None for one in summary.methods):
        lines.append("No price of this model is known, so there are no costs.")
    return tuple(lines)


def spending_lines(spending: Spending) -> tuple[str, ...]:
    """Return what each spend buys, one sentence a method that another one beats, and the frontier."""
    unit = MEASURES[spending.measure]
    frontier = ", ".join(
        f"{point.label} ({amount(point.spend, spending.measure)}, {point.accuracy:.0%})"
        for point in spending.points
        if point.efficient
    )
    asked = f"on the {spending.questions} questions that all answered"
    lines = [f"Pareto frontier of accuracy and mean {unit}, {asked}: {frontier}."]
    lines += [_beaten(point, spending.measure) for point in spending.points if not point.efficient]
    if spending.left_out:
        lines.append(f"Not compared here, for too few answers: {', '.join(spending.left_out)}.")
    return tuple(lines)


def amount(value: float, measure: Measure = "output") -> str:
    """Return a spend as text."""
    if measure == "cost":
        return f"${value:.4f}" if value >= _CENT else f"${value:.6f}"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"  # noqa: PLR2004  # two digits at least


def points(share: float, *, sign: bool = True) -> str:
    """Return a share in percentage points, as in ``+1.2``."""
    return f"{share * 100:+.1f}" if sign else f"{share * 100:.1f}"


def comparison_words(found: Comparison, margin: float, *, than: str) -> str:
    """Return a comparison as a sentence without its subject."""
    change = found.accuracy_interval
    return (
        f"{_saving(found)}; accuracy {points(found.accuracy_change)} points, interval {_points(change)} "
        f"(p = {found.p:.2g}, n = {found.questions}): not worse than {than} by more than "
        f"{points(margin, sign=False).removesuffix('.0')} points: {found.no_worse(margin)}"
    )


def _row(one: MethodSummary, margin: float) -> tuple[str, ...]:
    mark = "~" if one.estimated else ""
    vanilla = one.against(BASELINE)
    return (
        one.label,
        str(one.questions),
        str(one.errors),
        str(one.cut),
        f"{one.accuracy:.0%}",
        _percents(one.accuracy_interval),
        mark + amount(one.net_tokens),
        mark + amount(one.answer_tokens),
        mark + amount(one.estimator_tokens) if one.estimator_tokens else NOTHING,
        NOTHING if one.thinking_tokens is None else mark + amount(one.thinking_tokens),
        mark + amount(one.input_tokens),
        *(_saved(one.label, one.against(baseline), baseline) for baseline in (BASELINE, LOWER_BOUND)),
        NOTHING if vanilla is None else vanilla.no_worse(margin),
        NOTHING if one.cost is None else mark + amount(one.cost, "cost"),
        _seconds(one.p50),
        _seconds(one.p95),
        ", ".join(f"{count} {kind}" for kind, count in one.events.items()) or NOTHING,
    )


def _saved(label: str, found: Comparison | None, baseline: str) -> str:
    if found is None or found.saved is None:
        return "baseline" if label == baseline == BASELINE else NOTHING
    mark = "~" if found.estimated else ""
    # "-740%" is hard to read as "8.4 times".
    return f"{mark}{found.saved:+.0%}" if found.saved > -1 else f"{mark}{1 - found.saved:.1f} times"


def _sentence(one: MethodSummary, margin: float) -> str:
    found = one.against(BASELINE)
    if found is not None:
        return f"{comparison_words(found, margin, than=BASELINE)}."
    correct = f"{one.accuracy:.0%} correct ({one.accuracy_interval:.0%})"
    about = f"{correct} at {amount(one.net_tokens)} output tokens"
    if one.label == BASELINE:
        return f"the baseline: {about}."
    return f"{about}; no question was answered by {BASELINE} too, so there is nothing to compare with."


def _saving(found: Comparison) -> str:
    if found.saved is None or found.saved_answer is None or found.saved_interval is None:
        return "the baseline took no output tokens, so no saving can be stated"
    about = "about " if found.estimated else ""
    if found.saved < 0:
        # Told as a cost, the ends of the interval change places.
        more = Interval(low=-found.saved_interval.high, high=-found.saved_interval.low)
        return f"costs {about}{-found.saved:.0%} more output tokens net, interval {_percents(more)}"
    net, gross = f"{about}{found.saved:.0%}", f"{about}{found.saved_answer:.0%}"
    # Without an estimator both are the same figure, which is then said once.
    tokens = f"{net} of output tokens" if net == gross else f"{gross} of output tokens, {net}"
    return f"saves {tokens} net, interval {_percents(found.saved_interval)}"


def _beaten(point: Point, measure: Measure) -> str:
    more = point.best_accuracy - point.accuracy
    gain = "as accurate" if more == 0 else f"{points(more, sign=False)} points more accurate"
    mine = f"{amount(point.spend, measure)}, {point.accuracy:.0%}"
    return (
        f"For what {point.label} spends ({mine}), {point.best} is {gain} "
        f"({amount(point.best_spend, measure)}, {point.best_accuracy:.0%})."
    )


def _points(interval: Interval) -> str:
    return f"{interval.low * 100:+.0f} to {interval.high * 100:+.0f}"


def _percents(interval: Interval) -> str:
    return f"{interval.low * 100:.0f} to {interval.high * 100:.0f}%"


def _seconds(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def shown_columns(table: Sequence[Sequence[str]], names: Sequence[str] = HEADER) -> list[int]:
    """Return the columns that say something: those where not every row is empty."""
    return [
        number
        for number, name in enumerate(HEADER)
        if name in names and any(row[number] not in {NOTHING, "0"} for row in table)
    ]


def selected(cells: Iterable[str], columns: Sequence[int]) -> list[str]:
    """Return some cells of a row."""
    line = list(cells)
    return [line[column] for column in columns]
