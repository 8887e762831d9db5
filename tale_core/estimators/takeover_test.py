"""Who predicts better, the estimator that started or the one that learned: the windows and the rule."""

from __future__ import annotations

import math
from collections import deque
from statistics import fmean, variance
from typing import TYPE_CHECKING

from tale_core.types import Record

if TYPE_CHECKING:
    from collections.abc import Collection

_SURE = 3.0
"""Standard errors beyond which a difference is no accident; the test is repeated after every answer."""
_MARGIN = 0.9
"""To take over, the learner's mean loss must be at most this share of the start's."""
_WORST = 2.0
"""A loss counts at most this much: one answer that ran away must not decide."""


def pinball(cost: float, budget: float, quantile: float) -> float:
    """Return the pinball loss of a budget in logarithms, so that it is a matter of factors.

    Args:
        cost: Natural logarithm of the output tokens that an answer took.
        budget: Natural logarithm of the budget that was to cover it.
        quantile: The share of answers that the budget is to cover.
    """
    short = cost - budget
    return min(_WORST, max(quantile * short, (quantile - 1) * short))


class ContestState(Record):
    """The windows of a `Contest`."""

    pairs: tuple[tuple[float, float], ...] = ()
    """Losses of the learner and of the start on the same answers, all budgeted by the start."""
    start: tuple[float, ...] = ()
    """Losses of the start's budgets on the answers that they led to."""
    own: tuple[float, ...] = ()
    """Losses of the learner's budgets on the answers that they led to."""
    reference: tuple[float, ...] = ()
    """The first full window of ``own`` since the learner is in charge."""


class Contest:
    """Compares over sliding windows.

    Two views, because each alone is blind on one side: the same answers, where the start has the advantage that
    a model follows the budget it was given; and each side's own answers, which come slowly to the side that is
    not in charge.

    Args:
        window: How many answers each window holds.
        state: What to begin with.
    """

    def __init__(self, window: int, state: ContestState | None = None) -> None:
        state = ContestState() if state is None else state
        self.window = window
        self._pairs = deque(state.pairs, maxlen=window)
        self._start = deque(state.start, maxlen=window)
        self._own = deque(state.own, maxlen=window)
        self._reference = state.reference

    @property
    def state(self) -> ContestState:
        """The windows, to be kept and begun with again."""
        return ContestState(
            pairs=tuple(self._pairs),
            start=tuple(self._start),
            own=tuple(self._own),
            reference=self._reference,
        )

    @property
    def open(self) -> bool:
        """Whether there is a full window of pairs, so that the learner may be tried."""
        return len(self._pairs) == self.window

    @property
    def losses(self) -> tuple[float | None, float | None]:
        """Mean loss of the learner and of the start on the same answers; None before there is one."""
        if not self._pairs:
            return None, None
        return fmean(own for own, _ in self._pairs), fmean(start for _, start in self._pairs)

    def begin(self) -> None:
        """Forget how the learner's budgets went: from now on it is in charge."""
        self._own.clear()
        self._reference = ()

    def compare(self, own: float, start: float) -> None:
        """Take in the losses of both on one answer that the start budgeted."""
        self._pairs.append((own, start))

    def note_start(self, loss: float) -> None:
        """Take in how an answer under the start's budget went."""
        self._start.append(loss)

    def note_own(self, loss: float) -> None:
        """Take in how an answer under the learner's budget went."""
        self._own.append(loss)
        if not self._reference and len(self._own) == self.window:
            self._reference = tuple(self._own)

    def won(self) -> bool:
        """Whether the learner is better: by a tenth and no accident, in either view."""
        if not self.open:
            return False
        own, start = zip(*self._pairs, strict=True)
        same = _tenth_less(own, start) and _above_zero([two - one for one, two in self._pairs])
        tried = len(self._own) == self.window
        return same or (tried and _tenth_less(self._own, self._start) and _larger(self._start, self._own))

    def lost(self) -> bool:
        """Whether the learner, in charge, is no longer worth it.

        It lost when its budgets go worse than the start's did or than they used to, or when the start is better
        where it is still asked.
        """
        if _above_zero([one - two for one, two in self._pairs]):
            return True
        seen = len(self._own) >= self.window // 2
        return seen and (_larger(self._own, self._start) or _larger(self._own, self._reference))


def _tenth_less(ones: Collection[float], others: Collection[float]) -> bool:
    return fmean(ones) <= _MARGIN * fmean(others)


def _above_zero(values: Collection[float]) -> bool:
    if len(values) < 2:  # noqa: PLR2004  # no spread, no judgement
        return False
    error = math.sqrt(variance(values) / len(values))
    return fmean(values) > _SURE * error


def _larger(ones: Collection[float], others: Collection[float]) -> bool:
    """Whether one mean is above the other beyond accident, spreads unequal (B. L. Welch, 1947)."""
    if min(len(ones), len(others)) < 2:  # noqa: PLR2004  # as above
        return False
    error = math.sqrt(variance(ones) / len(ones) + variance(others) / len(others))
    return fmean(ones) - fmean(others) > _SURE * error
