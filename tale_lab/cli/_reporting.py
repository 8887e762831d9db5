"""What ``tale bench`` and ``tale report`` share: how a report is asked for, shown and written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from tale_core.files import replace_file
from tale_core.shown import printable
from tale_lab.bench.report import report_of, to_json, to_markdown, write_page
from tale_lab.bench.report.assembly import check_published, published_cells
from tale_lab.bench.report.wording import (
    GROUPS,
    HEADER,
    NOTES,
    selected,
    shown_columns,
    spending_lines,
)
from tale_lab.cli._shared import check_writable, err, out, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_lab.bench.report import PublishedRow, Reported, View

_LEAST_MARGIN = 0.5


def _in_points(margin: float) -> float:
    if 0 < margin < _LEAST_MARGIN:
        raise typer.BadParameter(f"is in percentage points: got {margin:g}; for 3% of the questions write 3")
    return margin


MarginOption: TypeAlias = Annotated[
    float,
    typer.Option(
        min=0,
        max=99,
        callback=_in_points,
        help="Percentage points of accuracy that a method may lose and still be no worse.",
    ),
]
AsOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="DATASET",
        help="Published dataset to compare with: gsm8k, gsm8k-zero, mathbench-arithmetic, -middle, -high or "
        "-college. By default it follows from the data's name.",
    ),
]
HtmlOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write an interactive page that works offline."),
]
MarkdownOption: TypeAlias = Annotated[Path | None, typer.Option(metavar="FILE", help="Write Markdown.")]

_PERCENT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How a report is wanted."""

    margin: float
    """Points of accuracy that may be lost."""
    layout: str | None
    """The published dataset that the questions are from."""
    html: Path | None
    """Where to write a page."""
    markdown: Path | None
    """Where to write Markdown."""
    as_json: bool
    """Whether to print JSON in place of tables."""

    def check(self) -> None:
        """Check the options before hours of measuring.

        Raises:
            InvalidValueError: The paper has no such dataset, or a file cannot be written where it is wanted.
        """
        if self.layout is not None:
            check_published(self.layout)
        check_writable(self.html, self.markdown)


def show_report(views: Sequence[View], wanted: Wanted, *, facts: dict[str, Any] | None = None) -> None:
    """Show the report, and write it where it is wanted."""
    reported = report_of(views, margin=wanted.margin / _PERCENT, dataset=wanted.layout)
    if wanted.as_json:
        print_json({**to_json(reported), **(facts or {})})
    else:
        _print(reported)
    if wanted.markdown is not None:
        replace_file(wanted.markdown, printable(to_markdown(reported)).encode())
    if wanted.html is not None:
        write_page(wanted.html, reported)
    written = ", ".join(str(path) for path in (wanted.markdown, wanted.html) if path is not None)
    if written:
        err.print(f"written: {written}", soft_wrap=True)


def _print(reported: Reported) -> None:
    for section in reported.sections:
        out.print(Text(f"{section.title}\n{section.summary.questions} questions; {section.conditions}"))
        for group in GROUPS:
            out.print(_table(section.rows, group))
        for label, sentence in section.sentences.items():
            out.print(f"{label}: {sentence}", soft_wrap=True)
        for spending in section.summary.spending[:1]:
            out.print("\n" + "\n".join(spending_lines(spending)), soft_wrap=True)
        if section.published:
            out.print(_published_table(section.published))
        for line in (*section.remarks, *NOTES):
            err.print(line, style="dim", soft_wrap=True)
    for comparison in reported.comparisons:
        out.print("\n" + "\n".join(comparison.lines), soft_wrap=True)


def _table(rows: Sequence[Sequence[str]], group: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    columns = shown_columns(rows, group)
    for name in selected(HEADER, columns):
        to_the_left = name in {"method", "events"}
        table.add_column(name, justify="left" if to_the_left else "right", no_wrap=name != "events")
    for row in rows:
        table.add_row(*selected(row, columns))
    return table


def _published_table(rows: Sequence[PublishedRow]) -> Table:
    title = "accuracy % / output tokens of the answers, the estimator's not counted, as the paper does"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    header, cells = published_cells(rows)
    for name in header:
        table.add_column(name, overflow="fold")
    for line in cells:
        table.add_row(*line)
    return table
