"""Searches as if a model had been asked: answers, their cost, and their grades, all by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tale_core import Usage
from tale_core.search.budget_search import SearchSettings, SearchTrace
from tale_core.search.curves import Probe
from tale_lab.questions.datasets import Question
from tale_lab.results.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RAMBLING = "Let us see. We take {n} and then we add one to it, which is {m}. Answer: {m}"
TERSE = "{n} + 1 = {m}. Answer: {m}"


def probe(text: str, tokens: int, budget: int | None = None, **changes: Any) -> Probe:
    given = {"verdict": "correct", "model": "adder", "finish_reason": "stop"} | changes
    return Probe(text=text, usage=Usage(input_tokens=9, output_tokens=tokens), budget=budget, **given)


def trace(question: str, *probes: Probe, chosen: int | None = None, strategy: str = "tale") -> SearchTrace:
    return SearchTrace(
        question=question,
        question_id=question,
        settings=SearchSettings(strategy=strategy),
        probes=probes,
        chosen=chosen,
        ideal=None,
        stopped="rejected",
    )


def sum_trace(n: int, **changes: Any) -> SearchTrace:
    """Search that found 20 tokens where the model takes 80 by itself, and a wrong answer at 10."""
    return trace(
        f"How much is {n} + 1?",
        probe(RAMBLING.format(n=n, m=n + 1), 80),
        probe(TERSE.format(n=n, m=n + 1), 20, 20),
        probe(f"Answer: {n}", 5, 10, verdict="wrong"),
        **({"chosen": 20} | changes),
    )


def fill(store: Store, traces: list[SearchTrace], *, keep_questions: bool = True) -> None:
    for one in traces:
        store.put(f"search {one.question}", "search", one, model="adder", question_id=one.question_id)
        if keep_questions:
            answer = str(int(one.question.split()[-3]) + 1)
            question = Question.of(one.question, answer)
            store.put(f"question {one.question}", "question", question, model="", question_id=question.id)
    store.begin_run(command="search", data="sums.jsonl", grader="auto")


@pytest.fixture
def searched(tmp_path: Path) -> Callable[..., Store]:
    """Make a results file of 40 searched sums, or of the traces given."""

    def make(traces: list[SearchTrace] | None = None, **options: Any) -> Store:
        store = Store(tmp_path / "run.sqlite")
        fill(store, [sum_trace(n) for n in range(40)] if traces is None else traces, **options)
        return store

    return make
