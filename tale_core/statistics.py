"""Intervals and tests for measured answers.

Everything is paired over questions: two methods are compared on the same questions, since questions differ far
more than methods do.
"""

from __future__ import annotations

import functools
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
        InvalidValueError: The counts are invalid.
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
    """Return the percentile bootstrap interval of a mean, from at least one value a question.

    Raises:
        MissingExtraError: numpy is not installed.
    """
    return _bootstrapped((values,), lambda mean: mean)


def difference_interval(values: Sequence[float], baseline: Sequence[float]) -> Interval:
    """Return the paired bootstrap interval of mean(values) - mean(baseline), both in the order of questions.

    Raises:
        InvalidValueError: The two differ in length.
        MissingExtraError: numpy is not installed.
    """
    _check_pairs(values, baseline)
    return mean_interval([one - other for one, other in zip(values, baseline, strict=True)])


def ratio_interval(values: Sequence[float], baseline: Sequence[float]) -> Interval:
    """Return the paired bootstrap interval of sum(values) / sum(baseline), both in the order of questions.

    Raises:
        InvalidValueError: The two differ in length.
        MissingExtraError: numpy is not installed.
    """
    _check_pairs(values, baseline)
    return _bootstrapped((values, baseline), lambda one, other: one / other)


def paired_share_interval(gained: int, lost: int, pairs: int) -> Interval:
    """Return the interval of the difference of two shares on the same questions.

    The adjusted Wald interval of D. G. Bonett and R. M. Price (Journal of Educational and Behavioral
    Statistics 37, 2012). Unlike a bootstrap it does not shrink to nothing where both agree on every question.

    Args:
        gained: Questions that only the new way answered correctly.
        lost: Questions that only the baseline answered correctly.
        pairs: All questions that both answered, at least 1.

    Raises:
        InvalidValueError: The counts are invalid.
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
    """
    if gained < 0 or lost < 0:
        raise InvalidValueError(f"counts must be at least 0, got gained={gained}, lost={lost}")
    # A fair coin: both tails are alike, and twice the smaller one counts the middle twice where they meet.
    tail = term = 1
    for taken in range(min(gained, lost)):
        term = term * (gained + lost - taken) // (taken + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << (gained + lost)))


def _bootstrapped(samples: tuple[Sequence[float], ...], statistic: Callable[..., Any]) -> Interval:
    """Return the percentile interval of a statistic of the samples' means."""
    if not samples[0]:
        raise InvalidValueError("an interval needs at least one value, got none")
    np = _numpy()
    values = np.asarray(samples, dtype=float)
    if values.shape[1] == 1:
        only = float(statistic(*values[:, 0]))
        return Interval(low=only, high=only)
    counts = _resamples(values.shape[1])
    # Not `@`, which would copy the counts to floats and start threads for each of dozens of small products.
    found = statistic(*(np.einsum("ij,j->i", counts, one) / len(one) for one in values))
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(low=float(low), high=float(high))


@functools.lru_cache(maxsize=2)
def _resamples(size: int) -> Any:
    """Return how often each of so many questions is drawn in each resample.

    The same draws serve every sample of a size: one report has dozens of intervals over the same questions.
    """
    np = _numpy()
    rng = np.random.default_rng(_SEED)
    counts = np.empty((_RESAMPLES, size), dtype=np.uint8)  # nothing is ever drawn 256 times: about 1 each
    for start in range(0, _RESAMPLES, _BATCH):
        rows = min(_BATCH, _RESAMPLES - start)
        drawn = rng.integers(0, size, (rows, size)) + size * np.arange(rows)[:, None]
        counts[start : start + rows] = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
    return counts


def _check_pairs(values: Sequence[float], baseline: Sequence[float]) -> None:
    if len(values) != len(baseline):
        raise InvalidValueError(
            f"paired values belong to the same questions, got {len(values)} and {len(baseline)} of them"
        )


def _numpy() -> Any:
    try:
        import numpy  # noqa: ICN001, PLC0415  # slow to import
    except ImportError as exc:
        raise MissingExtraError("numpy", "eval") from exc
    return numpy
