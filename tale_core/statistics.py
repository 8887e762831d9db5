"""Intervals and tests for measured answers.

Everything is paired over questions: two ways of asking are compared on the same questions, since questions
differ far more than ways of asking do.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from tale_core.errors import InvalidValueError, MissingExtraError
from tale_core.types import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONFIDENCE = 0.95
"""The share of intervals that hold the true value."""

_RESAMPLES = 4999
_BATCH = 500
_SEED = 1024


class Interval(Record):
    """A confidence interval, both ends included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        """Return whether a value lies in the interval."""
        return self.low <= value <= self.high

    def __format__(self, spec: str) -> str:
        """Return ``low to high``, each in the given format."""
        return f"{format(self.low, spec)} to {format(self.high, spec)}"


def wilson_interval(successes: float, trials: int) -> Interval:
    """Return the interval of a share (E. B. Wilson, 1927); unlike the plain one it holds near 0 and 1.

    Args:
        successes: How many trials succeeded; a sum of shares where trials are themselves means.
        trials: How many trials there were, at least 1.

    Raises:
        InvalidValueError: The counts cannot be meant.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise InvalidValueError(f"successes must lie between 0 and trials, got {successes} of {trials}")
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share = successes / trials
    weight = 1 + z * z / trials
    center = (share + z * z / (2 * trials)) / weight
    half = z / weight * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return Interval(low=max(0.0, center - half), high=min(1.0, center + half))


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the percentile bootstrap interval of a mean over questions.

    Args:
        values: One value a question, at least one; a single one gives no more than itself.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    return _bootstrapped((values,), lambda sample, axis: sample.mean(axis=axis))


def difference_interval(values: Sequence[float], baseline: Sequence[float]) -> Interval:
    """Return the paired bootstrap interval of mean(values) - mean(baseline).

    Args:
        values: One value a question.
        baseline: One value for each of the same questions, in the same order.

    Raises:
        InvalidValueError: The two differ in length.
        MissingExtraError: scipy is not installed.
    """
    _check_pairs(values, baseline)
    return mean_interval([one - other for one, other in zip(values, baseline, strict=True)])


def ratio_interval(values: Sequence[float], baseline: Sequence[float]) -> Interval:
    """Return the paired bootstrap interval of sum(values) / sum(baseline).

    Args:
        values: One value a question, say net output tokens.
        baseline: One value above 0 for each of the same questions, in the same order.

    Raises:
        InvalidValueError: The two differ in length.
        MissingExtraError: scipy is not installed.
    """
    _check_pairs(values, baseline)

    def ratio(one: Any, other: Any, axis: int) -> Any:
        return one.sum(axis=axis) / other.sum(axis=axis)

    return _bootstrapped((values, baseline), ratio)


def paired_share_interval(gained: int, lost: int, pairs: int) -> Interval:
    """Return the interval of the difference of two shares on the same questions.

    The adjusted Wald interval of D. G. Bonett and R. M. Price (Journal of Educational and Behavioral
    Statistics 37, 2012). Unlike a bootstrap it does not shrink to nothing where both agree on every question.

    Args:
        gained: Questions that only the new way answered correctly.
        lost: Questions that only the baseline answered correctly.
        pairs: All questions that both answered, at least 1.

    Raises:
        InvalidValueError: The counts cannot be meant.
    """
    if min(gained, lost) < 0 or pairs < 1 or gained + lost > pairs:
        raise InvalidValueError(
            f"counts must be at least 0 and fit into the pairs, got gained={gained}, lost={lost}, pairs={pairs}"
        )
    up, down = (gained + 1) / (pairs + 2), (lost + 1) / (pairs + 2)
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    half = z * math.sqrt((up + down - (up - down) ** 2) / (pairs + 2))
    return Interval(low=max(-1.0, up - down - half), high=min(1.0, up - down + half))


def mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided p-value of the exact McNemar test (Q. McNemar, 1947).

    Args:
        gained: Questions that only the new way answered correctly.
        lost: Questions that only the baseline answered correctly.

    Raises:
        InvalidValueError: A count is negative.
        MissingExtraError: scipy is not installed.
    """
    if gained < 0 or lost < 0:
        raise InvalidValueError(f"counts must be at least 0, got gained={gained}, lost={lost}")
    if gained + lost == 0:
        return 1.0
    return float(_stats().binomtest(gained, gained + lost).pvalue)


def _bootstrapped(samples: tuple[Sequence[float], ...], statistic: Callable[..., Any]) -> Interval:
    if not samples[0]:
        raise InvalidValueError("an interval needs at least one value, got none")
    stats = _stats()
    import numpy as np  # noqa: PLC0415  # comes with scipy

    arrays = tuple(np.asarray(sample, dtype=float) for sample in samples)
    if len(arrays[0]) == 1:
        only = float(statistic(*arrays, axis=0))
        return Interval(low=only, high=only)
    found = stats.bootstrap(
        arrays,
        statistic,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        vectorized=True,
        paired=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return Interval(low=float(found.low), high=float(found.high))


def _check_pairs(values: Sequence[float], baseline: Sequence[float]) -> None:
    if len(values) != len(baseline):
        raise InvalidValueError(
            f"paired values belong to the same questions, got {len(values)} and {len(baseline)} of them"
        )


def _stats() -> Any:
    try:
        from scipy import stats  # noqa: PLC0415  # slow to import
    except ImportError as exc:
        raise MissingExtraError("scipy", "eval") from exc
    return stats
