"""Intervals and tests, against published values and against what they promise."""

from __future__ import annotations

import random

import pytest

from tale_core import InvalidValueError
from tale_core.statistics import (
    difference_interval,
    mcnemar,
    mean_interval,
    ratio_interval,
    wilson_interval,
)


def test_the_wilson_interval_of_published_examples() -> None:
    # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    for successes, trials, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
    ]:
        interval = wilson_interval(successes, trials)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


def test_a_share_of_one_has_an_interval_below_it() -> None:
    interval = wilson_interval(10, 10)
    assert interval.high == 1
    assert 0.6 < interval.low < 0.8


def test_the_mean_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    rng = random.Random(7)  # noqa: S311
    held = sum(100 in mean_interval([rng.gauss(100, 30) for _ in range(40)]) for _ in range(60))
    assert held >= 52


def test_pairs_cancel_what_differs_between_questions() -> None:
    baseline = [float(10 * number) for number in range(1, 60)]
    interval = difference_interval([value - 5 for value in baseline], baseline)
    assert interval.low == interval.high == pytest.approx(-5)
    half = ratio_interval([value / 2 for value in baseline], baseline)
    assert (half.low, half.high) == pytest.approx((0.5, 0.5))


def test_one_question_gives_no_more_than_itself() -> None:
    assert mean_interval([3.0]).low == mean_interval([3.0]).high == 3


@pytest.mark.parametrize(
    ("gained", "lost", "p"), [(0, 0, 1), (5, 5, 1), (0, 6, 0.03125), (1, 9, 0.021484375), (9, 1, 0.021484375)]
)
def test_the_exact_mcnemar_test(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p)


def test_values_that_cannot_be_meant() -> None:
    with pytest.raises(InvalidValueError, match="got 5 of 4"):
        wilson_interval(5, 4)
    with pytest.raises(InvalidValueError, match="got 2 and 1 of them"):
        difference_interval([1, 2], [1])
    with pytest.raises(InvalidValueError, match="lost=-1"):
        mcnemar(0, -1)
    with pytest.raises(InvalidValueError, match="at least one value"):
        mean_interval([])
