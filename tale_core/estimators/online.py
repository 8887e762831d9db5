"""A regression that learns one answer at a time, in plain Python: nothing to install, microseconds to ask."""

from __future__ import annotations

import math
from operator import mul
from typing import TYPE_CHECKING

from tale_core.estimators.features import FEATURES

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH = 1 + len(FEATURES)
_PENALTY = 1.0
# The intercept is free: it carries the usual length, which is far from 0.
_INTERCEPT_PENALTY = 1e-6
_FEWEST = 10
_RESIDUALS = 100


class OnlineRegression:
    """Predicts a quantile of a value from the features of a question.

    Ridge regression on sums that forget exponentially, shifted by the wanted quantile of what its last
    predictions missed. Predictions stay within the values learned. Not safe under threads by itself.

    Args:
        quantile: Which quantile to predict, between 0 and 1.
        memory: After about this many answers an old one has lost most of its weight.
    """

    def __init__(self, *, quantile: float, memory: float) -> None:
        self.quantile = quantile
        self.memory = memory
        self.count = 0
        self._products = [[0.0] * (row + 1) for row in range(_WIDTH)]  # sums of x times x, the lower triangle
        self._moments = [0.0] * _WIDTH  # sums of x times y
        self._residuals: list[float] = []  # what the last predictions missed, each made before its value
        self._lowest, self._highest = math.inf, -math.inf
        self._weights = self._solved()
        self._shift = 0.0

    def predict(self, features: Sequence[float]) -> float | None:
        """Return the prediction; None while too little was learned.

        Args:
            features: As `text_features` counts them.
        """
        if self.count < _FEWEST:
            return None
        return min(max(self._center(features) + self._shift, self._lowest), self._highest)

    def learn(self, features: Sequence[float], value: float) -> None:
        """Learn one value.

        Args:
            features: As `text_features` counts them.
            value: What was to be predicted.
        """
        if self.count >= _FEWEST // 2:
            self._residuals = [*self._residuals[1 - _RESIDUALS :], value - self._center(features)]
        keep = 1 - 1 / self.memory
        columns = (1.0, *features)
        for row, column in zip(self._products, columns, strict=True):
            row[:] = [keep * old + column * other for old, other in zip(row, columns, strict=False)]
        self._moments = [
            keep * old + column * value for old, column in zip(self._moments, columns, strict=True)
        ]
        self._lowest, self._highest = min(self._lowest, value), max(self._highest, value)
        self.count += 1
        self._weights = self._solved()
        self._shift = self._residual_quantile()

    def _center(self, features: Sequence[float]) -> float:
        intercept, *slopes = self._weights
        return intercept + sum(weight * feature for weight, feature in zip(slopes, features, strict=True))

    def _residual_quantile(self) -> float:
        if not self._residuals:
            return 0.0
        return sorted(self._residuals)[min(int(self.quantile * len(self._residuals)), len(self._residuals) - 1)]

    def _solved(self) -> list[float]:
        """Solve (products + penalty) weights = moments, by Cholesky's decomposition."""
        lower: list[list[float]] = []
        half: list[float] = []
        for index, row in enumerate(self._products):
            new: list[float] = []
            for column, above in enumerate(lower):
                new.append((row[column] - sum(map(mul, new, above))) / above[column])
            penalty = _PENALTY if index else _INTERCEPT_PENALTY
            new.append(math.sqrt(row[index] + penalty - sum(map(mul, new, new))))
            lower.append(new)
            half.append((self._moments[index] - sum(map(mul, new, half))) / new[index])
        weights = half
        for index in reversed(range(_WIDTH)):
            weights[index] /= lower[index][index]
            for column in range(index):
                weights[column] -= lower[index][column] * weights[index]
        return weights
