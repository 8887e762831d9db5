"""How far estimates are from the budgets that a search found; needs the extra ``learn``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tale_core.errors import InvalidValueError
from tale_core.estimators.training import Score
from tale_core.evaluation.statistics import Interval, mean_interval, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_core.estimators.training import Bounds, BudgetExample


def score(
    name: str, examples: Sequence[BudgetExample], estimates: Sequence[int | None], quantile: float
) -> Score:
    """Score the estimates of one estimator.

    Args:
        name: The estimator.
        examples: Questions with their budgets.
        estimates: Output tokens, one for each example; None for an unusable estimate.
        quantile: The quantile of the pinball loss.

    Raises:
        InvalidValueError: No estimate is usable.
    """
    usable = [(one.tokens, guess) for one, guess in zip(examples, estimates, strict=True) if guess is not None]
    if not usable:
        raise InvalidValueError(
            f"none of the {len(examples)} estimates of {name!r} is usable; key them by the text of the question"
        )
    budgets, guesses = np.array(usable, dtype=float).T
    short = budgets - guesses
    errors = np.abs(short)
    losses = np.maximum(quantile * short, (quantile - 1) * short)
    inside = [
        guess is not None and one.ideal.low <= guess <= one.ideal.high
        for one, guess in zip(examples, estimates, strict=True)
        if one.ideal is not None
    ]
    return Score(
        name=name,
        questions=len(examples),
        unusable=len(examples) - len(usable),
        error=float(errors.mean()),
        error_interval=_bounds(mean_interval(errors.tolist())),
        pinball=float(losses.mean()),
        pinball_interval=_bounds(mean_interval(losses.tolist())),
        in_range=sum(inside) / len(inside) if inside else None,
        in_range_interval=_bounds(wilson_interval(sum(inside), len(inside))) if inside else None,
    )


def _bounds(interval: Interval) -> Bounds:
    return interval.low, interval.high
