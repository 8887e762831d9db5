"""Two benchmarks side by side: what differs between them, and what that changed, question by question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tale_core.types import Record
from tale_lab.bench.report.paired import MARGIN, Comparison
from tale_lab.bench.report.wording import comparison_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tale_lab.bench.report.views import Plan, View


class ViewComparison(Record):
    """A benchmark against another one, method by method, on the questions that both asked."""

    first: str
    """The baseline's name."""
    second: str
    """The name of what is compared with it."""
    shared: int
    """Questions that both asked."""
    differences: tuple[str, ...]
    """What differs between the two, in words."""
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
    """Compare two benchmarks; None when they share no question or no method.

    Args:
        first: The baseline.
        second: What is compared with it.
        names: What to call the two.
        margin: How much accuracy may fall, as a share, to count as no worse.
    """
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
    """Return a name for each benchmark: its title, with as much more as tells it from the others.

    Args:
        views: The benchmarks.
    """
    for name in (_title, _with_file, _with_sampling):
        names = tuple(name(view) for view in views)
        if len(set(names)) == len(names):
            return names
    return tuple(f"{_with_sampling(view)} [{number}]" for number, view in enumerate(views, 1))


def _title(view: View) -> str:
    return view.title


def _with_file(view: View) -> str:
    return f"{view.title} ({view.file})"


def _with_sampling(view: View) -> str:
    return f"{view.title} ({view.file}; {sampling_words(view.plan)})"


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
    if (one.model, one.sampling, one.grader) == (other.model, other.sampling, other.grader):
        setups = {entry.label: entry.setup for entry in one.methods}
        changed = [
            entry.label for entry in other.methods if setups.get(entry.label, entry.setup) != entry.setup
        ]
        if changed:
            yield f"settings of {', '.join(changed)}"
