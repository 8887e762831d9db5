"""The paper's table (arXiv 2412.18547, table 2), and the same figures of another model beside it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tale_core.errors import InvalidValueError
from tale_core.types import Record

if TYPE_CHECKING:
    from tale_lab.bench.report.summary import Summary

SOURCE = "arXiv 2412.18547, table 2"
PAPER_MODEL = "GPT-4o-mini"
COLUMNS = {"direct": "direct answering", "vanilla": "vanilla CoT", "tale": "TALE-EP"}
"""The paper's methods, by the names of ours that ask in the same words."""


class Cell(Record):
    """One method on one dataset."""

    accuracy: float
    """Share of correct answers."""
    tokens: float
    """Mean output tokens of the answers, without the estimator's, as the paper counts them."""

    def __str__(self) -> str:
        """Return both figures as the paper prints them."""
        return f"{self.accuracy * 100:.2f} / {self.tokens:.2f}"


def _paper(
    direct: tuple[float, float], vanilla: tuple[float, float], tale: tuple[float, float]
) -> dict[str, Cell]:
    return {
        name: Cell(accuracy=percent / 100, tokens=tokens)
        for name, (percent, tokens) in zip(COLUMNS, (direct, vanilla, tale), strict=True)
    }


PUBLISHED: dict[str, dict[str, Cell]] = {
    "gsm8k": _paper((28.29, 12.46), (81.35, 318.10), (84.46, 77.26)),
    "gsm8k-zero": _paper((97.21, 18.85), (99.50, 252.96), (98.72, 22.67)),
    "mathbench-arithmetic": _paper((59.67, 41.10), (75.00, 313.51), (73.67, 39.60)),
    "mathbench-middle": _paper((33.33, 5.00), (84.67, 553.93), (79.33, 238.14)),
    "mathbench-high": _paper((51.33, 5.00), (84.00, 653.24), (80.00, 254.82)),
    "mathbench-college": _paper((44.00, 5.00), (78.00, 675.78), (70.00, 259.85)),
}
"""Accuracy and output tokens by dataset and method, on GPT-4o-mini."""


class PublishedRow(Record):
    """One line of the table: a dataset on a model."""

    dataset: str
    """The dataset, as the paper calls it in lower case."""
    model: str
    """The model."""
    where: str
    """Where the figures are from."""
    cells: dict[str, Cell]
    """The figures by method; methods that were not measured are missing."""

    @property
    def saved(self) -> float | None:
        """The share of vanilla's output tokens that TALE saves, without its estimator, as the paper counts."""
        if not {"vanilla", "tale"} <= set(self.cells):
            return None
        return 1 - self.cells["tale"].tokens / self.cells["vanilla"].tokens


def dataset_of(source: str) -> str | None:
    """Return which published dataset a source's name speaks of, or None.

    Args:
        source: A source as `tale_core.evaluation.load_dataset` takes it.
    """
    words = re.sub(r"[^a-z0-9]+", "-", source.lower())
    return next((name for name in sorted(PUBLISHED, key=len, reverse=True) if _named(name, words)), None)


def published_rows(summary: Summary, dataset: str | None = None) -> tuple[PublishedRow, ...]:
    """Return the paper's line of a dataset, and this benchmark's under it; nothing for other datasets.

    Args:
        summary: The benchmark.
        dataset: The published dataset that the questions are from; None goes by the data's name.

    Raises:
        InvalidValueError: The paper has no such dataset.
    """
    name = dataset_of(summary.data) if dataset is None else dataset
    if name is None:
        return ()
    check_published(name)
    ours = {
        one.label: Cell(accuracy=one.accuracy, tokens=one.answer_tokens)
        for one in summary.methods
        if one.label in COLUMNS
    }
    asked = max((one.questions for one in summary.methods), default=0)
    return (
        PublishedRow(dataset=name, model=PAPER_MODEL, where=SOURCE, cells=PUBLISHED[name]),
        PublishedRow(dataset=name, model=summary.model, where=f"this run, {asked} questions", cells=ours),
    )


def check_published(dataset: str) -> None:
    """Make sure that the paper has a dataset.

    Raises:
        InvalidValueError: It has not.
    """
    if dataset not in PUBLISHED:
        raise InvalidValueError(f"the paper has no dataset {dataset!r}; it has: {', '.join(PUBLISHED)}")


def _named(name: str, words: str) -> bool:
    return re.search(rf"(^|-){name}(-|$)", words) is not None or name.replace("-", "") in words.split("-")
