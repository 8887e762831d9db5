"""A report as JSON, as Markdown, and as one interactive page that needs no network and cannot reach one."""

from __future__ import annotations

import html
import json
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tale_core.errors import MissingExtraError
from tale_core.files import replace_file
from tale_lab.bench.report.assembly import published_cells
from tale_lab.bench.report.wording import (
    HEADER,
    MEASURES,
    NOTES,
    amount,
    selected,
    shown_columns,
    spending_lines,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tale_lab.bench.benchmark import Attempt
    from tale_lab.bench.report.assembly import Reported, Section
    from tale_lab.bench.report.figures import Spending

_ASSETS = Path(__file__).parent / "assets"
_PLACE = re.compile(r"\{\{(\w+)\}\}")
_MOST_TEXT = 20_000_000  # characters; browsers open larger pages slowly or not at all
_MOST_TOKENS = 5_000  # values of one method; a plot shows no more
# None of these can end a script element or start another one.
_ESCAPES = {mark: f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"}


def to_json(reported: Reported) -> dict[str, Any]:
    """Return the figures and sentences of a report as plain data, without the texts of the answers."""
    return {
        "benchmarks": [
            {
                **section.summary.model_dump(mode="json"),
                "title": section.title,
                "conditions": section.conditions,
                "sentences": section.sentences,
                "remarks": section.remarks,
                "published": [one.model_dump(mode="json") for one in section.published],
            }
            for section in reported.sections
        ],
        "comparisons": [{**one.model_dump(mode="json"), "lines": one.lines} for one in reported.comparisons],
    }


def to_markdown(reported: Reported) -> str:
    """Return a report as Markdown."""
    blocks = [block for section in reported.sections for block in _markdown_section(section)]
    for comparison in reported.comparisons:
        head, *rest = comparison.lines
        blocks += [f"## {escaped(head)}", _list(rest)]
    return "\n\n".join(blocks) + "\n"


def _markdown_section(section: Section) -> Iterator[str]:
    columns = shown_columns(section.rows)
    yield f"## {escaped(section.title)}"
    yield escaped(f"{section.summary.questions} questions; {section.conditions}")
    yield markdown_table(selected(HEADER, columns), [selected(row, columns) for row in section.rows])
    yield _list(f"{label}: {sentence}" for label, sentence in section.sentences.items())
    for spending in section.summary.spending:
        yield _list(spending_lines(spending))
    if section.published:
        yield markdown_table(*published_cells(section.published))
    yield _list((*section.remarks, *NOTES))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, its first column to the left and the others to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(map(escaped, row))} |" for row in (header, rule, *rows))


def escaped(text: str) -> str:
    """Return a text that Markdown leaves as it is, on one line."""
    plain = " ".join(text.split())
    for mark in "\\`*_[]<>|":
        plain = plain.replace(mark, f"\\{mark}")
    return plain


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escaped(line)}" for line in lines)


def write_page(path: str | Path, reported: Reported) -> None:
    """Write a report as one page, with figures, plots and every answer; opens without a network.

    Raises:
        MissingExtraError: plotly is not installed.
        StoreError: The file cannot be written.
    """
    # Answers may hold half of a surrogate pair, which cannot be encoded.
    replace_file(path, to_page(reported).encode("utf-8", "replace"))


def to_page(reported: Reported) -> str:
    """Return a report as the text of a page."""
    try:
        from plotly.offline import get_plotlyjs  # noqa: PLC0415  # slow to import
    except ImportError as exc:
        raise MissingExtraError("plotly", "eval") from exc
    parts = {
        "title": html.escape("; ".join(section.title for section in reported.sections)),
        "style": _asset("page.css"),
        "script": _asset("page.js"),
        "plotly": get_plotlyjs(),
        "data": embedded(page_data(reported)),
    }
    # In one pass: what one part holds is never taken for the place of another.
    return _PLACE.sub(lambda found: parts[found[1]], _asset("page.html"))


def embedded(data: Any) -> str:
    """Return data as JSON that may stand inside a script element."""
    return "".join(_ESCAPES.get(mark, mark) for mark in json.dumps(data, ensure_ascii=False))


def page_data(reported: Reported) -> dict[str, Any]:
    """Return everything that a page shows, as plain data."""
    return {
        "sections": [_section(section) for section in reported.sections],
        "comparisons": [comparison.lines for comparison in reported.comparisons],
        "notes": NOTES,
    }


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _section(section: Section) -> dict[str, Any]:
    columns = shown_columns(section.rows)
    header, rows = published_cells(section.published)
    items, left_out = _items(section)
    return {
        "title": section.title,
        "conditions": f"{section.summary.questions} questions; {section.conditions}",
        "labels": section.view.labels,
        "header": selected(HEADER, columns),
        "rows": [selected(row, columns) for row in section.rows],
        "sentences": section.sentences,
        "remarks": section.remarks,
        "published": {"header": header, "rows": rows},
        "spending": [_spending(spending) for spending in section.summary.spending],
        "methods": [
            {"label": label, "tokens": _thinned([one.net_tokens for one in section.view.of(label).values()])}
            for label in (one.label for one in section.summary.methods)
        ],
        "items": items,
        "left_out": left_out,
    }


def _spending(spending: Spending) -> dict[str, Any]:
    unit = MEASURES[spending.measure]
    points = [
        {
            "label": point.label,
            "spend": point.spend,
            "spend_low": point.spend_interval.low,
            "spend_high": point.spend_interval.high,
            "spend_text": f"{amount(point.spend, spending.measure)} {unit}",
            "accuracy": point.accuracy,
            "low": point.accuracy_interval.low,
            "high": point.accuracy_interval.high,
            "efficient": point.efficient,
        }
        for point in spending.points
    ]
    return {"unit": unit, "lines": spending_lines(spending), "points": points}


def _thinned(values: Sequence[int]) -> Sequence[int]:
    """Return so many values that a plot can show them: every n-th of the sorted ones."""
    return sorted(values)[:: max(1, math.ceil(len(values) / _MOST_TOKENS))]


def _items(section: Section) -> tuple[list[dict[str, Any]], int]:
    """Return the questions with their answers, as many as a page can hold, and how many there are more."""
    answers: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in section.view.attempts:
        answers[attempt.question_id].append(attempt)
    errors: dict[str, dict[str, str]] = defaultdict(dict)
    for failure in section.view.failures:
        errors[failure.question_id][failure.label] = failure.error
    order = [one for one in section.view.plan.questions if one in answers or one in errors]
    items: list[dict[str, Any]] = []
    room = _MOST_TEXT
    for question in order:
        room -= sum(len(one.text) + len(one.question) for one in answers[question])
        if room < 0:
            break
        items.append(_item(question, answers[question], errors[question]))
    return items, len(order) - len(items)


def _item(question: str, attempts: Sequence[Attempt], errors: Mapping[str, str]) -> dict[str, Any]:
    # Only answers carry the texts; a failure knows no more than the question's id.
    text, reference = f"question {question}, which no method has answered yet", "known with the first answer"
    if attempts:
        text, reference = attempts[0].question, attempts[0].reference
    failed = {label: {"verdict": "error", "text": error, "facts": ""} for label, error in errors.items()}
    return {
        "id": question,
        "question": text,
        "reference": reference,
        "answers": {
            one.method: {"verdict": one.verdict, "text": one.text, "facts": " · ".join(_facts(one))}
            for one in attempts
        }
        | failed,
    }


def _facts(attempt: Attempt) -> Iterable[str]:
    mark = "~" if attempt.estimated else ""
    yield f"{mark}{attempt.net_tokens:,} output tokens"
    estimator = attempt.output_tokens("estimate")
    if estimator:
        yield f"{mark}{estimator:,} of them the estimator's"
    yield f"{mark}{attempt.input_tokens:,} input"
    budgets = [str(call.budget) for call in attempt.calls if call.budget is not None]
    if budgets:
        yield f"budget {', '.join(budgets)}"
    if len(attempt.calls) > 1:
        yield f"{len(attempt.calls)} calls"
    if attempt.seconds is not None:
        yield f"{attempt.seconds:.1f} s"
    if any(call.finish_reason == "length" for call in attempt.calls):
        yield "cut at the cap"
    yield from (event.kind.value for event in attempt.events)
