"""A report as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tale_lab.bench.report.wording import (
    HEADER,
    NOTES,
    published_cells,
    selected,
    shown_columns,
    spending_lines,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tale_lab.bench.report.assembly import Reported, Section


def to_markdown(reported: Reported) -> str:
    """Return a report as Markdown.

    Args:
        reported: The report.
    """
    blocks = [block for section in reported.sections for block in _section(section)]
    for comparison in reported.comparisons:
        head, *rest = comparison.lines
        blocks += [f"## {escaped(head)}", _list(rest)]
    return "\n\n".join(blocks) + "\n"


def _section(section: Section) -> Iterator[str]:
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
    """Return a table, its first column to the left and the others to the right.

    Args:
        header: The names of the columns.
        rows: The cells.
    """
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(map(escaped, row))} |" for row in (header, rule, *rows))


def escaped(text: str) -> str:
    """Return a text that Markdown leaves as it is, on one line.

    Args:
        text: Any text.
    """
    plain = " ".join(text.split())
    for mark in "\\`*_[]<>|":
        plain = plain.replace(mark, f"\\{mark}")
    return plain


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escaped(line)}" for line in lines)
