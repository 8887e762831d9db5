"""Budget search over a whole dataset."""

from __future__ import annotations

import math
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from pydantic import Field

from tale_core.search.budget_search import SearchSettings, SearchTrace, search_budget
from tale_core.types import Record
from tale_lab.runs.runner import graded_jobs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tale_core.types import Flow, Grade
    from tale_lab.questions.datasets import Dataset, Question
    from tale_lab.questions.graders import Grader
    from tale_lab.runs.runner import Job


def search_jobs(
    dataset: Dataset, settings: SearchSettings, *, model: str, grader: str | Grader = "auto"
) -> list[Job[SearchTrace]]:
    """Return one search a question, ready for `tale_lab.runs.runner.run_jobs`.

    Args:
        dataset: The questions.
        settings: How to search.
        model: Names the model; part of every key.
        grader: How to grade: a name or a grader.

    Raises:
        DataError: The grader cannot read a reference answer.
        InvalidValueError: The settings are invalid, or the strategy carries no budget.
    """
    search_budget("", bool, **settings.model_dump()).close()  # wrong settings fail here, once
    return graded_jobs(
        dataset,
        partial(_search, settings=settings),
        kind="search",
        record=SearchTrace,
        settings=settings,
        model=model,
        grader=grader,
        most_calls=most_calls(settings),
    )


def _search(question: Question, grade: Grade, *, settings: SearchSettings) -> Flow[SearchTrace]:
    return search_budget(question.question, grade, question_id=question.id, **settings.model_dump())


def most_calls(settings: SearchSettings) -> int:
    """Return an upper bound of the answers that one search asks for."""
    cap = settings.max_tokens
    if cap is None:
        return settings.max_calls
    # A budget is tried below vanilla's cost, which the cap bounds.
    halvings = int(math.log2(cap)) if cap > 1 else 0
    budgets = halvings if settings.method == "halving" else cap - 1
    return min(settings.max_calls, settings.samples * (1 + budgets))


class SearchSummary(Record):
    """What the searches of many questions found, in totals."""

    questions: int = Field(ge=0)
    """Finished searches."""
    vanilla_correct: int = 0
    """Questions that vanilla chain of thought answered correctly."""
    best_correct: int = 0
    """Questions answered correctly under the chosen budget, or without one where none was chosen."""
    found: int = 0
    """Questions for which a budget was found."""
    vanilla_tokens: float = 0.0
    """Output tokens of the vanilla answers."""
    best_tokens: float = 0.0
    """Output tokens of the answers under the chosen budgets, or without one where none was chosen."""
    calls: int = 0
    """Answers that the searches asked for."""
    searched_tokens: int = 0
    """Output tokens of all of them."""
    estimated: int = 0
    """How many of those answers were counted by a tokenizer, not by the provider."""
    chosen_median: float | None = None
    """Median of the chosen budgets, in output tokens."""

    @classmethod
    def of(cls, traces: Iterable[SearchTrace]) -> SearchSummary:
        """Total finished searches."""
        found = list(traces)
        chosen = [trace.chosen for trace in found if trace.chosen is not None]
        return cls(
            questions=len(found),
            vanilla_correct=sum(trace.vanilla.correct for trace in found),
            best_correct=sum(trace.best.correct for trace in found),
            found=len(chosen),
            vanilla_tokens=sum(trace.vanilla.tokens for trace in found),
            best_tokens=sum(trace.best.tokens for trace in found),
            calls=sum(len(trace.probes) for trace in found),
            searched_tokens=sum(trace.output_tokens for trace in found),
            estimated=sum(probe.usage.source == "estimated" for trace in found for probe in trace.probes),
            chosen_median=median(chosen) if chosen else None,
        )

    @property
    def saved(self) -> float:
        """Share of the vanilla output tokens that the chosen budgets save; chosen in hindsight, so a bound."""
        return 1 - self.best_tokens / self.vanilla_tokens if self.vanilla_tokens else 0.0
