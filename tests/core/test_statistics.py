"""Intervals and tests on simulated answers whose truth is known."""

from __future__ import annotations

import functools
import itertools
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tale_core import InvalidValueError
from tale_core.statistics import (
    CONFIDENCE,
    Interval,
    difference_interval,
    mcnemar,
    mean_interval,
    ratio_interval,
    wilson_interval,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator
    from numpy.typing import NDArray

QUESTIONS = 60
RUNS = 250
"""Simulated benchmarks for each bootstrap interval: at a true coverage of 95% the share found has a standard
error of 1.4 points."""
MANY = 2000
"""Simulated benchmarks where a figure needs no bootstrap."""


def rng() -> Generator:
    return np.random.default_rng(1024)


def covered(simulate: Callable[[Generator], Interval], truth: float, runs: int = RUNS) -> float:
    """Return the share of simulated benchmarks whose interval holds the truth."""
    generator = rng()
    return sum(truth in simulate(generator) for _ in range(runs)) / runs


def tokens(generator: Generator, questions: int = QUESTIONS) -> NDArray[np.float64]:
    """Return the lengths of answers: skewed, as real ones are; their mean is 250."""
    sigma = 0.6
    return generator.lognormal(np.log(250) - sigma**2 / 2, sigma, questions)


def shortened(generator: Generator, lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lengths of shorter answers to the same questions: 40% of each on average, noisily."""
    sigma = 0.4
    return 0.4 * lengths * generator.lognormal(-(sigma**2) / 2, sigma, len(lengths))


@pytest.mark.parametrize("share", [0.03, 0.3, 0.5, 0.95])
def test_the_interval_of_a_share_holds_it_as_often_as_it_says(share: float) -> None:
    interval = functools.cache(wilson_interval)

    def simulate(generator: Generator) -> Interval:
        return interval(int(generator.binomial(QUESTIONS, share)), QUESTIONS)

    assert 0.92 <= covered(simulate, share, MANY) <= 0.99


def test_the_interval_of_a_share_does_not_shrink_to_nothing_at_the_ends() -> None:
    assert wilson_interval(0, 20).high > 0.1
    assert wilson_interval(20, 20).low < 0.9
    assert (wilson_interval(0, 20).low, wilson_interval(20, 20).high) == (0, 1)


def test_the_interval_of_mean_tokens_holds_it_as_often_as_it_says() -> None:
    coverage = covered(lambda generator: mean_interval(tokens(generator).tolist()), 250)
    assert 0.9 <= coverage <= 0.99


def test_the_interval_of_a_saving_in_tokens_holds_it_as_often_as_it_says() -> None:
    def simulate(generator: Generator) -> Interval:
        lengths = tokens(generator)
        return difference_interval(shortened(generator, lengths).tolist(), lengths.tolist())

    assert 0.9 <= covered(simulate, -150) <= 0.99


def test_the_interval_of_a_share_of_tokens_holds_it_as_often_as_it_says() -> None:
    def simulate(generator: Generator) -> Interval:
        lengths = tokens(generator)
        return ratio_interval(shortened(generator, lengths).tolist(), lengths.tolist())

    assert 0.9 <= covered(simulate, 0.4) <= 0.99


def test_the_interval_of_a_change_of_accuracy_holds_it_as_often_as_it_says() -> None:
    def simulate(generator: Generator) -> Interval:
        before = generator.random(QUESTIONS) < 0.6
        after = np.where(before, generator.random(QUESTIONS) < 0.9, generator.random(QUESTIONS) < 0.2)
        return difference_interval(after.astype(float).tolist(), before.astype(float).tolist())

    assert 0.9 <= covered(simulate, 0.6 * 0.9 + 0.4 * 0.2 - 0.6) <= 0.99


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    generator = rng()
    lengths = tokens(generator)
    shorter = shortened(generator, lengths)
    paired = difference_interval(shorter.tolist(), lengths.tolist())
    shuffled = difference_interval(shorter.tolist(), generator.permutation(lengths).tolist())
    assert paired.high - paired.low < 0.9 * (shuffled.high - shuffled.low)


def rejected(gain: float, loss: float, questions: int) -> float:
    """Return how often McNemar's test finds a difference at 5%.

    Args:
        gain: Chance that only the new way answers a question.
        loss: Chance that only the baseline does.
        questions: Questions of a benchmark.
    """
    p_value = functools.cache(mcnemar)
    drawn = rng().multinomial(questions, [gain, loss, 1 - gain - loss], MANY)
    return sum(p_value(int(gained), int(lost)) <= 1 - CONFIDENCE for gained, lost, _ in drawn) / MANY


@pytest.mark.parametrize("chance", [0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("questions", [20, QUESTIONS, 300])
def test_mcnemar_seldom_finds_a_difference_where_there_is_none(chance: float, questions: int) -> None:
    assert rejected(chance, chance, questions) <= 0.05


def test_mcnemar_finds_a_difference_that_is_there() -> None:
    assert rejected(0.05, 0.3, QUESTIONS) > 0.9
    assert rejected(0.05, 0.15, QUESTIONS) < rejected(0.05, 0.15, 300)


def test_mcnemar_looks_at_the_questions_that_differ_alone() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(1, 9) == mcnemar(9, 1) == pytest.approx(2 * 11 / 2**10)


def test_the_same_values_give_the_same_interval() -> None:
    values = tokens(rng()).tolist()
    assert mean_interval(values) == mean_interval(values)


def test_a_single_question_gives_no_more_than_itself() -> None:
    assert mean_interval([3.0]) == Interval(low=3, high=3)
    assert ratio_interval([1.0], [4.0]) == Interval(low=0.25, high=0.25)


@pytest.mark.parametrize(
    ("interval", "message"),
    [
        (lambda: wilson_interval(3, 2), "got 3 of 2"),
        (lambda: wilson_interval(0, 0), "got 0 of 0"),
        (lambda: mean_interval([]), "at least one value, got none"),
        (lambda: difference_interval([1.0], [1.0, 2.0]), "got 1 and 2 of them"),
        (lambda: ratio_interval([1.0, 2.0], [1.0]), "got 2 and 1 of them"),
        (lambda: mcnemar(-1, 2), "gained=-1, lost=2"),
    ],
)
def test_what_no_figure_can_be_made_of_is_refused(interval: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        interval()


def test_intervals_are_those_of_scipys_paired_percentile_bootstrap() -> None:
    from scipy import stats

    rng = np.random.default_rng(7)
    one, other = rng.integers(1, 400, 90).astype(float), rng.integers(1, 400, 90).astype(float)
    expected = stats.bootstrap(
        (one, other),
        lambda mine, theirs, axis: mine.sum(axis=axis) / theirs.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=4999,
        batch=500,
        rng=np.random.default_rng(1024),
    ).confidence_interval
    assert tuple(ratio_interval(list(one), list(other)).model_dump().values()) == pytest.approx(expected)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    from scipy import stats

    for gained, lost in itertools.product(range(0, 40, 3), range(0, 60, 7)):
        expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        assert mcnemar(gained, lost) == pytest.approx(expected)


def test_figures_need_numpy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert mean_interval([1.0, 2.0, 6.0]).low >= 1
    assert mcnemar(3, 9) < 1
