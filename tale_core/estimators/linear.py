"""A linear model of a question's text: which columns it has, and what one question comes to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import mul
from typing import TYPE_CHECKING

from tale_core.estimators.features import FEATURES, ngram_features, text_features

if TYPE_CHECKING:
    from collections.abc import Sequence


_HAIR = 1e-6


def tokens_of(logarithm: float, lowest: int, highest: int) -> int:
    """Return a budget between two bounds.

    Args:
        logarithm: The natural logarithm of a budget in output tokens.
        lowest: Smallest budget, at least 1.
        highest: Largest budget.
    """
    if logarithm >= math.log(highest):  # compared as logarithms: far outside, the budget would overflow
        return int(highest)
    # A fit passes through some of its examples, whose whole numbers come back a hair above or below.
    return max(int(lowest), math.ceil(math.exp(logarithm) - _HAIR))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which columns a question has: counts, then hashed n-grams, then an embedding."""

    ngrams: int = 0
    """Columns of hashed words and word pairs; 0 for none."""
    dimensions: int = 0
    """Length of an embedding; 0 for none."""

    @property
    def width(self) -> int:
        """How many columns there are."""
        return len(FEATURES) + self.ngrams + self.dimensions

    def blocks(self) -> tuple[slice, slice, slice]:
        """Return the columns of the counts, of the n-grams and of the embedding."""
        second = len(FEATURES)
        third = second + self.ngrams
        return slice(0, second), slice(second, third), slice(third, self.width)

    def row(self, question: str, vector: Sequence[float] = ()) -> list[float]:
        """Return the columns of one question, its embedding given."""
        ngrams = [0.0] * self.ngrams
        if self.ngrams:
            for column, value in ngram_features(question, self.ngrams).items():
                ngrams[column] = value
        return [*text_features(question), *ngrams, *vector]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One weight for each column."""

    intercept: float
    counts: tuple[float, ...]
    ngrams: tuple[float, ...] = ()
    embedding: tuple[float, ...] = ()

    def value(self, question: str, vector: Sequence[float] = ()) -> float:
        """Return the weighted sum of a question's columns, its embedding given."""
        total: float = self.intercept + sum(map(mul, self.counts, text_features(question)))
        if self.ngrams:
            found = ngram_features(question, len(self.ngrams))
            total += sum(self.ngrams[column] * value for column, value in found.items())
        total += sum(map(mul, self.embedding, vector))
        return total
