"""Budget search over a whole dataset."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from pydantic import Field

from tale_core.search.budget_search import SearchSettings, SearchTrace, search_budget
from tale_core.types import Record
from tale_lab.questions.graders import get_grader, grader_name, preflight
from tale_lab.results.store import result_key
from tale_lab.runs.runner import Job

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tale_core.types import Flow
    from tale_lab.questions.datasets import Dataset, Question
    from tale_lab.questions.graders import Grader


def search_jobs(
    dataset: Dataset, settings: SearchSettings, *, model: str, grader: str | Grader = "auto"
) -> list[Job[SearchTrace]]:
    """Return one search a question, ready for `tale_core.evaluation.run_jobs`.

    Args:
        dataset: The questions.
        settings: How to search.
        model: Names the model; part of every key.
        grader: How to grade: a name or a grader.

    Raises:
        DataError: The grader cannot read a reference answer.
        InvalidValueError: The settings cannot be meant, or the strategy carries no budget.
    """
    search_budget("", bool, **settings.model_dump()).close()  # wrong settings fail here, once
    preflight(dataset.questions, grader)  # so does a reference answer that cannot be graded
    return [_job(question, settings, model=model, grader=grader) for question in dataset.questions]


@dataclass(frozen=True, slots=True, kw_only=True)
class Searching:
    """Makes the search of one question; picklable, so that it can be made in another process."""

    question: Question
    """The question."""
    settings: SearchSettings
    """How to search."""
    grader: str | Grader
    """How to grade: a name or a grader."""

    def __call__(self) -> Flow[SearchTrace]:
        """Return the search."""
        grade = get_grader(self.grader)(self.question)
        settings = self.settings.model_dump()
        return search_budget(self.question.question, grade, question_id=self.question.id, **settings)


def _job(question: Question, settings: SearchSettings, *, model: str, grader: str | Grader) -> Job[SearchTrace]:
    key = result_key(
        kind="search",
        question=question.id,
        model=model,
        settings=settings.model_dump(mode="json"),
        grader=grader_name(grader),
    )
    flow = Searching(question=question, settings=settings, grader=grader)
    return Job(question=question, key=key, kind="search", record=SearchTrace, flow=flow)


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


class SearchCost(Record):
    """Upper bound of what a search run may take."""

    calls: int
    """Answers."""
    output_tokens: int | None
    """Output tokens; None when answers have no cap."""

    @classmethod
    def bound(cls, questions: int, settings: SearchSettings) -> SearchCost:
        """Return the most that searches can take.

        Args:
            questions: How many questions are still to be searched.
            settings: How they are searched.
        """
        each = settings.max_calls
        if settings.max_tokens is not None:
            each = min(each, settings.samples * (1 + most_budgets(settings, settings.max_tokens)))
        calls = questions * each
        return cls(
            calls=calls, output_tokens=None if settings.max_tokens is None else calls * settings.max_tokens
        )


def most_budgets(settings: SearchSettings, vanilla: int) -> int:
    """Return the most budgets a search can try below a vanilla cost.

    Args:
        settings: How to search.
        vanilla: Output tokens of the vanilla answer.
    """
    if settings.method == "halving":
        return int(math.log2(vanilla)) if vanilla > 1 else 0
    return vanilla - 1
