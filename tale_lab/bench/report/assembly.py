"""A report: every benchmark with its figures and words, the paper's figures beside them, and comparisons."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tale_core.errors import InvalidValueError
from tale_core.types import Record
from tale_lab.bench.report.figures import MARGIN, Comparison, Summary, list_price
from tale_lab.bench.report.views import View
from tale_lab.bench.report.wording import NOTHING, comparison_words, remarks, rows, sentences

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tale_lab.bench.report.views import Plan

PUBLISHED: dict[str, tuple[tuple[float, float], ...]] = {
    "gsm8k": ((28.29, 12.46), (81.35, 318.10), (84.46, 77.26)),
    "gsm8k-zero": ((97.21, 18.85), (99.50, 252.96), (98.72, 22.67)),
    "mathbench-arithmetic": ((59.67, 41.10), (75.00, 313.51), (73.67, 39.60)),
    "mathbench-middle": ((33.33, 5.00), (84.67, 553.93), (79.33, 238.14)),
    "mathbench-high": ((51.33, 5.00), (84.00, 653.24), (80.00, 254.82)),
    "mathbench-college": ((44.00, 5.00), (78.00, 675.78), (70.00, 259.85)),
}
"""The paper's table 2: accuracy in percent and mean output tokens on GPT-4o-mini, for each of `COLUMNS`."""
COLUMNS = {"direct": "direct answering", "vanilla": "vanilla CoT", "tale": "TALE-EP"}
"""The paper's methods, by the names of ours that ask in the same words."""


class Cell(Record):
    """One method on one dataset."""

    accuracy: float
    tokens: float
    """Mean output tokens of the answers, without the estimator's, as the paper counts them."""

    def __str__(self) -> str:
        """Return both figures as the paper prints them."""
        return f"{self.accuracy * 100:.2f} / {self.tokens:.2f}"


class PublishedRow(Record):
    """One line of the table: a dataset on a model."""

    dataset: str
    """The dataset, as the paper calls it in lower case."""
    model: str
    where: str
    cells: dict[str, Cell]
    """The figures by method; methods that were not measured are missing."""

    @property
    def saved(self) -> float | None:
        """The share of vanilla's output tokens that TALE saves, without its estimator, as the paper counts."""
        if not {"vanilla", "tale"} <= set(self.cells):
            return None
        return 1 - self.cells["tale"].tokens / self.cells["vanilla"].tokens


class ViewComparison(Record):
    """A benchmark against another one, method by method, on the questions that both asked."""

    first: str
    """The baseline's name."""
    second: str
    """The name of what is compared with it."""
    shared: int
    """Questions that both asked."""
    differences: tuple[str, ...]
    methods: dict[str, Comparison]
    """The second against the first, for each method that both measured."""
    margin: float = MARGIN
    """How much accuracy may fall, as a share, to count as no worse."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The comparison in sentences."""
        head = f"{self.second}, compared with {self.first}, on {self.shared} questions that both asked."
        differs = f"What differs: {'; '.join(self.differences) or 'nothing that was recorded'}."
        each = (
            f"{label}: {comparison_words(found, self.margin, than='in the first')}."
            for label, found in self.methods.items()
        )
        return (head, differs, *each)


def compare_views(
    first: View, second: View, *, names: tuple[str, str], margin: float = MARGIN
) -> ViewComparison | None:
    """Compare a benchmark with a first one, the baseline; None when they share no question or no method."""
    shared = set(first.plan.questions) & set(second.plan.questions)
    pairs = (
        (label, Comparison.of(second.of(label), first.of(label), name=names[0]))
        for label in second.labels
        if label in first.labels
    )
    methods = {label: found for label, found in pairs if found is not None}
    if not shared or not methods:
        return None
    return ViewComparison(
        first=names[0],
        second=names[1],
        shared=len(shared),
        differences=tuple(_differences(first, second)),
        methods=methods,
        margin=margin,
    )


def view_names(views: Sequence[View]) -> tuple[str, ...]:
    """Return a name for each benchmark: its title, with as much more as tells it from the others."""
    titles = [view.title for view in views]
    files = [f"{view.title} ({view.file})" for view in views]
    sampled = [f"{view.title} ({view.file}; {sampling_words(view.plan)})" for view in views]
    for names in (titles, files, sampled):
        if len(set(names)) == len(names):
            return tuple(names)
    return tuple(f"{name} [{number}]" for number, name in enumerate(sampled, 1))


def sampling_words(plan: Plan) -> str:
    """Return how a benchmark sampled and graded, in words."""
    temperature, cap = plan.sampling.temperature, plan.sampling.max_tokens
    return (
        f"temperature {'the model’s own' if temperature is None else format(temperature, 'g')}, "
        f"{'no cap' if cap is None else f'at most {cap} tokens a call'}, grader {plan.grader}"
    )


def _differences(first: View, second: View) -> Iterator[str]:
    one, other = first.plan, second.plan
    facts = {
        "model": (one.model, other.model),
        "data": (one.data, other.data),
        "questions": (len(one.questions), len(other.questions)),
        "sampling": (sampling_words(one), sampling_words(other)),
        "version": (one.version, other.version),
    }
    yield from (f"{name} {new} (was {old})" for name, (old, new) in facts.items() if old != new)
    for words, mine, theirs in (("only here", second, first), ("only there", first, second)):
        alone = [label for label in mine.labels if label not in theirs.labels]
        if alone:
            yield f"methods {words}: {', '.join(alone)}"
    # A setup is a digest of these three and the method's settings: only now does a difference mean settings.
    if (one.model, one.sampling, one.grader) == (other.model, other.sampling, other.grader):
        setups = {entry.label: entry.setup for entry in one.methods}
        changed = [one.label for one in other.methods if setups.get(one.label, one.setup) != one.setup]
        if changed:
            yield f"settings of {', '.join(changed)}"


class Section(Record):
    """One benchmark of a report."""

    title: str
    conditions: str
    """How it sampled and graded, in words."""
    view: View
    summary: Summary
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
    comparisons: tuple[ViewComparison, ...]
    """The first of them against each of the others, as far as they share questions and methods."""


def report_of(views: Sequence[View], *, margin: float = MARGIN, dataset: str | None = None) -> Reported:
    """Put a report together.

    Args:
        views: The benchmarks, at least one.
        margin: How much accuracy may fall, as a share, for a method to count as no worse.
        dataset: The published dataset that the questions are from; None goes by the data's name.

    Raises:
        InvalidValueError: The margin is not a share, or the paper has no such dataset.
        MissingExtraError: A package of the extra ``eval`` is not installed.
    """
    names = view_names(views)
    compared = (
        compare_views(views[0], view, names=(names[0], name), margin=margin)
        for view, name in zip(views[1:], names[1:], strict=True)
    )
    sections = []
    for view, name in zip(views, names, strict=True):
        price = list_price(view.plan.model, view.plan.address)
        summary = Summary.of(view, margin=margin, price=price)
        section = Section(
            title=name,
            conditions=sampling_words(view.plan),
            view=view,
            summary=summary,
            rows=tuple(rows(summary)),
            sentences=sentences(summary),
            remarks=remarks(summary),
            published=published_rows(summary, dataset),
        )
        sections.append(section)
    return Reported(sections=tuple(sections), comparisons=tuple(one for one in compared if one is not None))


def dataset_of(source: str) -> str | None:
    """Return which published dataset a source's name speaks of, or None."""
    words = re.sub(r"[^a-z0-9]+", "-", source.lower())
    # The longest first: gsm8k-zero is not gsm8k.
    for name in sorted(PUBLISHED, key=len, reverse=True):
        if re.search(rf"(^|-){name}(-|$)", words) or name.replace("-", "") in words.split("-"):
            return name
    return None


def published_rows(summary: Summary, dataset: str | None = None) -> tuple[PublishedRow, ...]:
    """Return the paper's line of a dataset, and this benchmark's under it; nothing for other datasets."""
    if dataset is not None:
        check_published(dataset)
    name = dataset or dataset_of(summary.data)
    if name is None:
        return ()
    paper = {
        label: Cell(accuracy=percent / 100, tokens=tokens)
        for label, (percent, tokens) in zip(COLUMNS, PUBLISHED[name], strict=True)
    }
    ours = {
        one.label: Cell(accuracy=one.accuracy, tokens=one.answer_tokens)
        for one in summary.methods
        if one.label in COLUMNS
    }
    asked = max((one.questions for one in summary.methods), default=0)
    return (
        PublishedRow(dataset=name, model="GPT-4o-mini", where="arXiv 2412.18547, table 2", cells=paper),
        PublishedRow(dataset=name, model=summary.model, where=f"this run, {asked} questions", cells=ours),
    )


def check_published(dataset: str) -> None:
    """Raise InvalidValueError for a dataset that the paper does not have."""
    if dataset not in PUBLISHED:
        raise InvalidValueError(f"the paper has no dataset {dataset!r}; it has: {', '.join(PUBLISHED)}")


def published_cells(rows: Sequence[PublishedRow]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the paper's table with ours beside it as text: its header, and its rows."""
    header = ("dataset", "model", *COLUMNS.values(), "tokens saved", "from")
    return header, [
        (
            row.dataset,
            row.model,
            *(str(row.cells[name]) if name in row.cells else NOTHING for name in COLUMNS),
            NOTHING if row.saved is None else f"{row.saved:.1%}",
            row.where,
        )
        for row in rows
    ]
