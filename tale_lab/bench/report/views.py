"""Views: the benchmarks in a results file, each a model, its questions, and the methods measured on them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pydantic import ValidationError

from tale_core.errors import DataError, StoreError
from tale_core.types import Record
from tale_lab.bench.benchmark import KIND, Attempt, Sampling, setup_of
from tale_lab.bench.methods.base import MethodName
from tale_lab.results.store import Failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tale_lab.bench.methods import Method
    from tale_lab.questions.datasets import Dataset
    from tale_lab.results.store import Store

COMMAND = "bench"
"""What a run that belongs to a benchmark calls itself."""


class Entry(Record):
    """One method of a benchmark, under the settings that it had."""

    setup: str
    """The digest of `tale_lab.bench.benchmark.setup_of`."""
    label: MethodName
    source: str


class Plan(Record):
    """What is measured: the record that a run leaves in its results file."""

    model: str
    """The model's name, as its server gives it."""
    address: str = ""
    """Where it was asked; its price depends on it. A local server has another address at every start."""
    data: str
    digest: str
    questions: tuple[str, ...]
    sampling: Sampling
    grader: str
    methods: tuple[Entry, ...]
    version: str = ""

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        methods: Sequence[Method],
        *,
        model: str,
        sampling: Sampling,
        grader: str,
        address: str = "",
        version: str = "",
    ) -> Plan:
        """Describe a run before it begins."""
        setups = [setup_of(method, sampling, model=model, grader=grader) for method in methods]
        entries = tuple(
            Entry(setup=setup, label=method.label, source=method.source)
            for setup, method in zip(setups, methods, strict=True)
        )
        return cls(
            model=model,
            address=address,
            data=dataset.source,
            digest=dataset.digest,
            questions=tuple(question.id for question in dataset.questions),
            sampling=sampling,
            grader=grader,
            methods=entries,
            version=version,
        )

    @property
    def conditions(self) -> tuple[object, ...]:
        """What must be the same for two runs to be one benchmark."""
        return (self.model, frozenset(self.questions), self.sampling, self.grader)

    def contains(self, other: Plan) -> bool:
        """Return whether another benchmark is a part of this one: fewer questions, fewer methods."""
        # Equal setups say that the model, the sampling and the grader are the same.
        return set(other.questions) <= set(self.questions) and (
            {one.setup for one in other.methods} <= {one.setup for one in self.methods}
        )

    def joined(self, other: Plan) -> Plan:
        """Return this benchmark with the methods of another under the same conditions."""
        known = {one.setup for one in self.methods}
        return self.model_copy(
            update={"methods": (*self.methods, *(one for one in other.methods if one.setup not in known))}
        )


class View(Record):
    """One benchmark as far as it was measured."""

    file: str
    plan: Plan
    attempts: tuple[Attempt, ...]
    """Every graded answer; where one label stands for several settings, they are told apart by a number."""
    failures: tuple[Failure, ...] = ()
    """Questions that failed and have no answer yet, once each and method."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The methods' names, in order."""
        return tuple(_named(self.plan.methods).values())

    @property
    def title(self) -> str:
        """One line that says what this is."""
        return f"{self.plan.model} on {self.plan.data}"

    def of(self, label: str) -> dict[str, Attempt]:
        """Return the answers of one method by question."""
        return {one.question_id: one for one in self.attempts if one.method == label}

    def errors(self, label: str) -> int:
        """Return how many questions failed with a method and have no answer yet."""
        return sum(one.label == label for one in self.failures)


def read_views(store: Store) -> tuple[View, ...]:
    """Return the benchmarks in a results file, in the order in which they were begun.

    Runs under the same conditions are one benchmark. A run that is a part of another one, on fewer of the same
    questions with the same methods, is not listed apart.

    Raises:
        DataError: There is no benchmark in it.
        StoreError: It cannot be read.
    """
    found = tuple(_plans(store).values())
    if not found:
        raise DataError(f"{store.path} holds no benchmark; make one with: tale bench DATA --out {store.path}")
    # A trial run on the first questions is in the larger benchmark already.
    whole = [one for one in found if not any(other.contains(one) for other in found if other is not one)]
    return _views(store, whole)


def view_of(store: Store, plan: Plan) -> View:
    """Return the benchmark that a run belongs to, with what earlier runs under its conditions measured."""
    return _views(store, [_plans(store).get(plan.conditions, plan)])[0]


def _plans(store: Store) -> dict[tuple[object, ...], Plan]:
    joined: dict[tuple[object, ...], Plan] = {}
    for run in store.runs():
        if run.get("command") != COMMAND:
            continue
        try:
            plan = Plan.model_validate(run["plan"])
        except (KeyError, ValidationError) as exc:
            raise StoreError(
                f"{store.path}: run {run['id']} is not a benchmark of this version; name another file"
            ) from exc
        before = joined.get(plan.conditions)
        joined[plan.conditions] = plan if before is None else before.joined(plan)
    return joined


def _views(store: Store, plans: Sequence[Plan]) -> tuple[View, ...]:
    attempts, failures = list(store.results(KIND, Attempt)), store.failures()
    views = []
    for plan in plans:
        names, asked = _named(plan.methods), set(plan.questions)
        mine = tuple(
            one.model_copy(update={"method": names[one.setup]})
            for one in attempts
            if one.setup in names and one.question_id in asked
        )
        # By key: a question that failed in several runs is one question without an answer.
        failed = {
            one.key: one.model_copy(update={"label": names[setup]})
            for one in failures
            if (setup := one.key.partition(".")[0]) in names and one.question_id in asked
        }
        views.append(View(file=store.path, plan=plan, attempts=mine, failures=tuple(failed.values())))
    return tuple(views)


def _named(entries: Iterable[Entry]) -> dict[str, str]:
    """Return a name for every setup: its label, with a number where that stands for several."""
    names: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for entry in entries:
        seen[entry.label] += 1
        number = seen[entry.label]
        names[entry.setup] = entry.label if number == 1 else f"{entry.label} ({number})"
    return names
