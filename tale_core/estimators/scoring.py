"""How far estimates are from the budgets that a search found; needs the extra ``learn``."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from tale_core.estimators.training import Score
from tale_core.statistics import Interval, mean_interval, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_core.estimators.training import Bounds, BudgetExample


def score(
    name: str, examples: Sequence[BudgetExample], estimates: Sequence[int | None], quantile: float
) -> Score:
    """Score the estimates of one estimator.

    Args:
        name: The estimator.
        examples: Questions with their budgets, at least one.
        estimates: Output tokens, one for each example; None for an unusable estimate.
        quantile: The quantile of the pinball loss.
    """
    short = [one.tokens - guess for one, guess in zip(examples, estimates, strict=True) if guess is not None]
    error, error_interval = _mean([abs(one) for one in short])
    pinball, pinball_interval = _mean([max(quantile * one, (quantile - 1) * one) for one in short])
    inside = [
        guess is not None and guess in one.ideal
        for one, guess in zip(examples, estimates, strict=True)
        if one.ideal is not None
    ]
    return Score(
        name=name,
        questions=len(examples),
        unusable=len(examples) - len(short),
        error=error,
        error_interval=error_interval,
        pinball=pinball,
        pinball_interval=pinball_interval,
        in_range=sum(inside) / len(inside) if inside else None,
        in_range_interval=_bounds(wilson_interval(sum(inside), len(inside))) if inside else None,
    )


def _mean(values: Sequence[float]) -> tuple[float, Bounds] | tuple[None, None]:
    return (fmean(values), _bounds(mean_interval(values))) if values else (None, None)


def _bounds(interval: Interval) -> Bounds:
    return interval.low, interval.high
