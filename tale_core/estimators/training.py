"""What a budget regression learns from, and what it reports about itself."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from tale_core.errors import InvalidValueError
from tale_core.search.curves import BudgetRange
from tale_core.types import STORED_STRATEGY, Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tale_core.search.budget_search import SearchTrace

PAPER_IN_RANGE = 0.6061
"""Share of zero-shot estimates in the ideal range, as published (arXiv 2412.18547)."""

_MOST_TOKENS = 1_000_000_000

MOST_BYTES = 4_000_000
"""Of the file of a fitted estimator: 100,000 questions leave room."""

Bounds: TypeAlias = tuple[float, float]
"""Both ends of a 95% confidence interval."""


class BudgetExample(Record):
    """A question with the budget that a search found for it."""

    question: str
    """The question, without the prompt text around it."""
    tokens: int = Field(ge=1)
    """The budget found, in output tokens."""
    ideal: BudgetRange | None = None
    """The ideal budget range, for the report."""


class Score(Record):
    """How one estimator did on questions that it was not fitted to."""

    name: str
    """The estimator."""
    questions: int
    """How many questions it was asked."""
    unusable: int = 0
    """Questions without a usable estimate: no part of the errors, but outside the ideal range."""
    error: float | None = None
    """Mean absolute difference to the budget found, in output tokens; None where no estimate is usable."""
    error_interval: Bounds | None = None
    """Its interval, from a bootstrap over questions."""
    pinball: float | None = None
    """Mean pinball loss at the report's quantile, in output tokens."""
    pinball_interval: Bounds | None = None
    """Its interval, from a bootstrap over questions."""
    in_range: float | None = None
    """Share of estimates in the ideal range; None where no ideal range is known."""
    in_range_interval: Bounds | None = None
    """Its interval (Wilson)."""


class FitReport(Record):
    """Cross-validated scores: each question is predicted by a model that has not seen it."""

    quantile: float
    """The quantile of the budget that was fitted."""
    folds: int
    """Parts that the questions were divided into."""
    scores: tuple[Score, ...]
    """The regression; one budget for all questions, for comparison; the zero-shot estimator where given."""

    def score(self, name: str) -> Score:
        """Return the score of one estimator.

        Raises:
            InvalidValueError: The report does not hold it.
        """
        for score in self.scores:
            if score.name == name:
                return score
        raise InvalidValueError(
            f"no score of {name!r}; scored: {', '.join(score.name for score in self.scores)}"
        )

    @property
    def gains(self) -> bool:
        """Whether the regression loses less than one budget for all questions."""
        learned, constant = self.score("regression").pinball, self.score("one budget").pinball
        return learned is not None and constant is not None and learned < constant

    def rows(self) -> list[tuple[str, ...]]:
        """Return the report as rows of text, the heading first."""
        heading = ("estimator", "questions", "error in tokens", "pinball loss", "in the ideal range")
        return [heading, *(_row(score) for score in self.scores)]

    def __str__(self) -> str:
        """Return a table, with 95% intervals."""
        rows = self.rows()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in lines)


class FitFacts(Record):
    """What a fitted regression knows about itself; the header of its file."""

    version: int
    """Version of the file's layout."""
    examples: int
    """Questions it was fitted to."""
    skipped: int = 0
    """Searches without a budget that is both correct and cheaper: nothing to learn from."""
    model: str = ""
    """The model whose answers were searched."""
    strategy: str = Field(default="", validation_alias=STORED_STRATEGY)
    """The prompt strategy of the searches."""
    date: str
    """Day of the fit, ISO 8601."""
    quantile: float = Field(gt=0, lt=1)
    """The quantile of the budget that it predicts."""
    lowest: int = Field(ge=1, le=_MOST_TOKENS)
    """Smallest budget fitted to, in output tokens; predictions do not go below."""
    highest: int = Field(ge=1, le=_MOST_TOKENS)
    """Largest budget fitted to, in output tokens; predictions do not go above."""
    features: tuple[str, ...]
    """What was counted in each question."""
    # Words and embeddings were features once; files and the keys of results still hold these fields.
    ngrams: Literal[0] = 0
    embedding: Literal[""] = ""
    dimensions: Literal[0] = 0
    digests: frozenset[str] = frozenset()
    """Digests of the questions fitted to, so that a test on one of them can be noticed."""
    report: FitReport
    """Cross-validated scores."""


def question_digest(question: str) -> str:
    """Return a short digest that recognises a question without telling it."""
    return hashlib.sha256(question.strip().encode(errors="replace")).hexdigest()[:16]


def examples_of(traces: Iterable[SearchTrace]) -> list[BudgetExample]:
    """Return what finished searches teach; those that found no budget are left out."""
    return [
        BudgetExample(question=trace.question, tokens=trace.chosen, ideal=trace.ideal)
        for trace in traces
        if trace.chosen is not None
    ]


def only(values: Iterable[str | None], what: str) -> str:
    """Return the one known value; empty when there is none, `InvalidValueError` when there are several."""
    found = sorted({value for value in values if value})
    if len(found) > 1:
        raise InvalidValueError(
            f"searches of several {what}: {', '.join(found)}; budgets differ between them, so fit one at a time"
        )
    return found[0] if found else ""


def _row(score: Score) -> tuple[str, ...]:
    name = f"{score.name} ({score.unusable} unusable)" if score.unusable else score.name
    return (
        name,
        str(score.questions),
        _cell(score.error, score.error_interval, ".1f"),
        _cell(score.pinball, score.pinball_interval, ".1f"),
        _cell(score.in_range, score.in_range_interval, ".0%"),
    )


def _cell(value: float | None, bounds: Bounds | None, spec: str) -> str:
    if value is None or bounds is None:
        return "-"
    low, high = bounds
    return f"{value:{spec}} [{low:{spec}}, {high:{spec}}]"
