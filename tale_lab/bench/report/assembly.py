"""A report put together: every benchmark with its figures and words, ready to be shown in any form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tale_core.types import Record
from tale_lab.bench.report.comparing import ViewComparison, compare_views, sampling_words, view_names
from tale_lab.bench.report.paired import MARGIN
from tale_lab.bench.report.paper_table import PublishedRow, published_rows
from tale_lab.bench.report.pricing import list_price
from tale_lab.bench.report.summary import Summary
from tale_lab.bench.report.views import View
from tale_lab.bench.report.wording import remarks, rows, sentences

if TYPE_CHECKING:
    from collections.abc import Sequence


class Section(Record):
    """One benchmark of a report."""

    title: str
    """What tells it from the others."""
    conditions: str
    """How it sampled and graded, in words."""
    view: View
    """What was measured."""
    summary: Summary
    """The figures."""
    rows: tuple[tuple[str, ...], ...]
    """The figures as rows of text."""
    sentences: dict[str, str]
    """One sentence a method."""
    remarks: tuple[str, ...]
    """What a reader must know about all of the figures."""
    published: tuple[PublishedRow, ...]
    """The paper's figures and these beside them; empty for other datasets."""


class Reported(Record):
    """A whole report."""

    sections: tuple[Section, ...]
    """The benchmarks."""
    comparisons: tuple[ViewComparison, ...]
    """The first of them against each of the others, as far as they share questions and methods."""


def report_of(views: Sequence[View], *, margin: float = MARGIN, dataset: str | None = None) -> Reported:
    """Put a report together.

    Args:
        views: The benchmarks, at least one.
        margin: How much accuracy may fall, as a share, for a method to count as no worse.
        dataset: The published dataset that the questions are from; None goes by the data's name.

    Raises:
        InvalidValueError: The margin is no share, or the paper has no such dataset.
        MissingExtraError: A package of the extra ``eval`` is not installed.
    """
    names = view_names(views)
    compared = (
        compare_views(views[0], view, names=(names[0], name), margin=margin)
        for view, name in zip(views[1:], names[1:], strict=True)
    )
    return Reported(
        sections=tuple(_section(view, name, margin, dataset) for view, name in zip(views, names, strict=True)),
        comparisons=tuple(one for one in compared if one is not None),
    )


def to_json(reported: Reported) -> dict[str, Any]:
    """Return the figures and sentences of a report as plain data, without the texts of the answers.

    Args:
        reported: The report.
    """
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


def _section(view: View, name: str, margin: float, dataset: str | None) -> Section:
    price = list_price(view.plan.model, view.plan.address)
    summary = Summary.of(view, margin=margin, price=price)
    return Section(
        title=name,
        conditions=sampling_words(view.plan),
        view=view,
        summary=summary,
        rows=tuple(rows(summary)),
        sentences=sentences(summary),
        remarks=remarks(summary),
        published=published_rows(summary, dataset),
    )
