"""The interval of a change of accuracy, on simulated answers whose truth is known."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tale_core import InvalidValueError
from tale_core.statistics import Interval, mcnemar, paired_share_interval

RUNS = 2000

cached = functools.cache(paired_share_interval)


def intervals(gain: float, loss: float, questions: int) -> list[Interval]:
    """Return the intervals of simulated benchmarks.

    Args:
        gain: Chance that only the new way answers a question.
        loss: Chance that only the baseline does.
        questions: Questions of a benchmark.
    """
    drawn = np.random.default_rng(1024).multinomial(questions, [gain, loss, 1 - gain - loss], RUNS)
    return [cached(int(gained), int(lost), questions) for gained, lost, _ in drawn]


@pytest.mark.parametrize("questions", [20, 60, 300])
@pytest.mark.parametrize(("gain", "loss"), [(0.1, 0.1), (0.02, 0.2), (0.3, 0.05), (0.01, 0.01), (0, 0.4)])
def test_the_interval_of_a_change_holds_it_as_often_as_it_says(
    gain: float, loss: float, questions: int
) -> None:
    found = intervals(gain, loss, questions)
    assert sum(gain - loss in one for one in found) / RUNS >= 0.93


@pytest.mark.parametrize("margin", [0.03, 0.1])
@pytest.mark.parametrize("both", [0.02, 0.1])
@pytest.mark.parametrize("questions", [60, 300])
def test_not_worse_by_more_than_a_margin_is_seldom_said_where_it_is_worse_by_just_that(
    margin: float, both: float, questions: int
) -> None:
    found = intervals(both, both + margin, questions)
    assert sum(one.low > -margin for one in found) / RUNS <= 0.04  # 2.5% for large numbers


def test_not_worse_by_more_than_a_margin_is_said_where_there_are_questions_enough() -> None:
    few, many = (intervals(0.05, 0.05, questions) for questions in (60, 1000))
    assert sum(one.low > -0.03 for one in few) / RUNS < 0.2
    assert sum(one.low > -0.03 for one in many) / RUNS > 0.8


def test_agreement_on_every_question_leaves_doubt() -> None:
    assert paired_share_interval(0, 0, 10).low < -0.1
    assert paired_share_interval(0, 0, 1000).low > -0.01


def test_the_interval_and_the_test_tell_the_same_story() -> None:
    assert 0 not in paired_share_interval(20, 5, 60)
    assert mcnemar(20, 5) < 0.05
    assert 0 in paired_share_interval(8, 5, 60)
    assert mcnemar(8, 5) > 0.05


@pytest.mark.parametrize("counts", [(-1, 0, 5), (0, -1, 5), (3, 3, 5), (0, 0, 0)])
def test_counts_that_cannot_be_meant_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidValueError, match="fit into the pairs, got gained="):
        paired_share_interval(*counts)
