"""The adaptive estimator: learns from use what answers cost, and saves the extra call once it knows."""

from __future__ import annotations

import copy
import math
import random
import threading
from collections import deque
from operator import mul
from statistics import fmean, variance
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tale_core.errors import InvalidValueError
from tale_core.estimators.features import FEATURES, text_features
from tale_core.events import ElasticityKind
from tale_core.protocols import Estimator
from tale_core.types import Estimate, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_core.events import ElasticityEvent
    from tale_core.types import Budget, Flow, Usage

_SEPARATOR = "/"
_SMALLEST_WINDOW = 20
# The cost of such an answer says nothing about what the question takes.
_NO_MEASURE = {ElasticityKind.COLLAPSE, ElasticityKind.TRUNCATED}
# Standard errors beyond which a difference counts. Many, because the test is repeated after every answer.
_SURE = 3.0
# To take over, the learned budgets' mean loss must be at most this share of the start's.
_MARGIN = 0.9
# A loss counts at most this much: one answer that ran away must not decide.
_WORST = 2.0

_WIDTH = 1 + len(FEATURES)
_PENALTY = 1.0
# The intercept is free: it carries the usual length, which is far from 0.
_INTERCEPT_PENALTY = 1e-6
_FEWEST = 10
_RESIDUALS = 100


class AdaptiveStatus(Record):
    """How an `AdaptiveEstimator` is doing."""

    in_charge: Literal["start", "learned"]
    """Whose estimates are used, except for exploration."""
    answers: int = Field(ge=0)
    """Answers learned from since it last started over."""
    learned_loss: float | None
    """Mean pinball loss of the learned predictions over the window, in logarithms of tokens."""
    start_loss: float | None
    """The same for the start's budgets, on the same answers."""
    takeovers: int
    """How often the learned predictions took over."""
    saved_calls: int
    """Questions that were given a budget without asking the start."""


class AdaptiveEstimator:
    """Starts with another estimator, learns what its answers cost, and takes over when it is better.

    It learns the cost of an answer under the start's budgets, from the question's text alone. That is not the
    optimal budget, which takes a search with a known answer: it learns to do without the extra call what the
    start does with it. It learns nothing from answers under its own budgets, since those would confirm
    themselves until they run away, and nothing from answers that collapsed or were cut.

    The rule: it *takes over* when, over the last ``window`` answers that it learned from, the mean pinball loss
    of its predictions, each made before the answer, is at most nine tenths of that of the start's budgets, and
    smaller by three standard errors. It *hands back* and starts over when, by three standard errors, the start
    is better where it is still asked, or its own budgets do worse than the start's did or than they used to.
    Losses are taken of logarithms, so that a factor counts the same at any length.

    Only answers whose tokens the provider reported count. Safe under threads. Pickle it to keep what it
    learned.

    Args:
        start: The estimator to start with, to explore with, and to hand back to.
        quantile: The share of answers that its budgets are to cover.
        window: How many answers are compared, at least 20.
        explore: Share of the questions that still go to the start once it has taken over.
        memory: After about this many answers an old one has lost most of its weight.
        seed: Makes the exploration repeatable.

    Raises:
        InvalidValueError: A value is out of bounds.

    Example:
        >>> from tale_core import TaleMethod, ZeroShotEstimator, run
        >>> from tale_core.testing import ScriptedModel
        >>> estimator = AdaptiveEstimator(ZeroShotEstimator())
        >>> model = ScriptedModel(estimate="[[10]]", reason="Three and four: 3 + 4 = 7, so the answer is 7.")
        >>> answer = run(TaleMethod(estimator=estimator).begin("What is 3 + 4?").answer(), model)
        >>> answer.plan.budget.source, estimator.status.answers
        ('adaptive/zero-shot', 1)
    """

    def __init__(
        self,
        start: Estimator,
        *,
        quantile: float = 0.75,
        window: int = 50,
        explore: float = 0.05,
        memory: float = 500,
        seed: int | None = None,
    ) -> None:
        _check(start, quantile, window, explore, memory)
        self.start = start
        self.quantile = quantile
        self.window = window
        self.explore = explore
        self.memory = memory
        self._random = random.Random(seed)  # noqa: S311  # exploration, no secret
        self._lock = threading.Lock()
        self._takeovers = self._saved_calls = 0
        self._in_charge = False
        # Losses of the prediction and of the start's budget on the same answers, all budgeted by the start.
        self._pairs: deque[tuple[float, float]] = deque(maxlen=window)
        # Losses of its own budgets since it took over: the latest, and the first full window.
        self._own: deque[float] = deque(maxlen=window)
        self._usual: tuple[float, ...] = ()
        self._regression = OnlineRegression(quantile=quantile, memory=memory)

    @property
    def name(self) -> str:
        """``"adaptive"``; estimates that it leaves to the start are named ``"adaptive/<start>"``."""
        return "adaptive"

    @property
    def status(self) -> AdaptiveStatus:
        """How it is doing."""
        with self._lock:
            own, start = self._losses()
            return AdaptiveStatus(
                in_charge="learned" if self._in_charge else "start",
                answers=self._regression.count,
                learned_loss=fmean(own) if own else None,
                start_loss=fmean(start) if start else None,
                takeovers=self._takeovers,
                saved_calls=self._saved_calls,
            )

    def estimate(self, question: str) -> Flow[Estimate]:
        """Predict, or ask the start; see `Estimator.estimate`."""
        with self._lock:
            mine = self._in_charge and self._random.random() >= self.explore
            value = self._regression.predict(text_features(question)) if mine else None
            self._saved_calls += value is not None
        if value is not None:
            return Estimate(tokens=max(1, math.ceil(math.exp(value))), source=self.name, calibrated=True)
        found = yield from self.start.estimate(question)
        return found.model_copy(update={"source": f"{self.name}{_SEPARATOR}{found.source}"})

    def learn(self, question: str, budget: Budget, usage: Usage, events: tuple[ElasticityEvent, ...]) -> None:
        """Learn what an answer cost; see `Learner.learn`."""
        mine = budget.source == self.name
        if not mine and not budget.source.startswith(f"{self.name}{_SEPARATOR}"):
            return  # another estimator's budget, or a retry
        if budget.tokens is None or usage.source != "measured" or usage.output_tokens < 1:
            return
        cost = math.log(usage.output_tokens)
        with self._lock:
            loss = self._loss(cost, math.log(budget.tokens))
            if mine:
                self._own.append(loss)
                if not self._usual and len(self._own) == self.window:
                    self._usual = tuple(self._own)
            elif not any(event.kind in _NO_MEASURE for event in events):
                self._learn(text_features(question), cost, loss)
            if self._in_charge and self._is_worse():
                self._start_over()
            elif not self._in_charge and self._is_better():
                self._in_charge = True
                self._takeovers += 1

    def _learn(self, features: tuple[float, ...], cost: float, start_loss: float) -> None:
        expected = self._regression.predict(features)
        if expected is not None:
            self._pairs.append((self._loss(cost, expected), start_loss))
        self._regression.learn(features, cost)

    def _start_over(self) -> None:
        """Hand back and forget everything: what was learned is wrong, or no longer right."""
        self._in_charge = False
        self._pairs.clear()
        self._own.clear()
        self._usual = ()
        self._regression = OnlineRegression(quantile=self.quantile, memory=self.memory)

    def _losses(self) -> tuple[list[float], list[float]]:
        return [own for own, _ in self._pairs], [start for _, start in self._pairs]

    def _is_better(self) -> bool:
        own, start = self._losses()
        return (
            len(own) == self.window
            and fmean(own) <= _MARGIN * fmean(start)
            and _surely_positive([two - one for one, two in self._pairs])
        )

    def _is_worse(self) -> bool:
        if _surely_positive([one - two for one, two in self._pairs]):
            return True
        _, start = self._losses()
        seen = len(self._own) >= self.window // 2
        return seen and (_surely_larger(self._own, start) or _surely_larger(self._own, self._usual))

    def _loss(self, cost: float, budget: float) -> float:
        """Return the pinball loss of a budget, both in logarithms, so that it is a matter of factors."""
        short = cost - budget
        return min(_WORST, max(self.quantile * short, (self.quantile - 1) * short))

    def __repr__(self) -> str:
        return f"AdaptiveEstimator({self.start!r}) <{self.status.in_charge} in charge>"

    # A lock cannot be pickled or deep-copied, and frameworks do both to what they carry.
    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return copy.deepcopy({name: value for name, value in self.__dict__.items() if name != "_lock"})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


def _surely_positive(values: Sequence[float]) -> bool:
    if len(values) < 2:  # noqa: PLR2004  # no spread, no judgement
        return False
    return fmean(values) > _SURE * math.sqrt(variance(values) / len(values))


def _surely_larger(ones: Sequence[float], others: Sequence[float]) -> bool:
    """Whether one mean is above the other by three standard errors, spreads unequal (B. L. Welch, 1947)."""
    if min(len(ones), len(others)) < 2:  # noqa: PLR2004  # as above
        return False
    error = math.sqrt(variance(ones) / len(ones) + variance(others) / len(others))
    return fmean(ones) - fmean(others) > _SURE * error


def _check(start: Estimator, quantile: float, window: int, explore: float, memory: float) -> None:
    if not isinstance(start, Estimator):
        raise InvalidValueError(f"start must be an estimator, got {start!r}; for a number use FixedEstimator")
    if not 0 < quantile < 1:
        raise InvalidValueError(f"a quantile lies between 0 and 1, got {quantile}")
    if window < _SMALLEST_WINDOW:
        raise InvalidValueError(f"window must be at least {_SMALLEST_WINDOW} answers, got {window}")
    if not 0 <= explore <= 1:
        raise InvalidValueError(f"explore is a share of the questions, from 0 to 1, got {explore}")
    if memory < window:
        raise InvalidValueError(f"memory must be at least the window, {window} answers; got {memory}")


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
        """Return the prediction for `text_features`; None while too little was learned."""
        if self.count < _FEWEST:
            return None
        return min(max(self._center(features) + self._shift, self._lowest), self._highest)

    def learn(self, features: Sequence[float], value: float) -> None:
        """Learn the value that belongs to `text_features`."""
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
