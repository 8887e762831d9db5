"""The regression that learns one answer at a time."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tale_core.estimators.adaptive import OnlineRegression
from tale_core.estimators.features import FEATURES

WIDTH = len(FEATURES)


def learned(count: int, *, memory: float = 200, noise: float = 0.1, quantile: float = 0.5) -> OnlineRegression:
    rng = random.Random(0)  # noqa: S311
    regression = OnlineRegression(quantile=quantile, memory=memory)
    for _ in range(count):
        features = [rng.uniform(0, 3) for _ in range(WIDTH)]
        regression.learn(features, truth(features) + rng.gauss(0, noise))
    return regression


def truth(features: list[float]) -> float:
    return 4 + 0.7 * features[2] - 0.2 * features[5]


def test_it_is_ridge_regression_with_weights_that_fade() -> None:
    rng = random.Random(0)  # noqa: S311
    rows = [[1.0, *(rng.uniform(0, 3) for _ in range(WIDTH))] for _ in range(60)]
    values = [truth(row[1:]) + rng.gauss(0, 0.3) for row in rows]
    regression = OnlineRegression(quantile=0.5, memory=50)
    for row, value in zip(rows, values, strict=True):
        regression.learn(row[1:], value)
    fading = np.diag([(1 - 1 / 50) ** age for age in reversed(range(60))])
    penalty = np.diag([1e-6, *[1.0] * WIDTH])
    matrix = np.array(rows)
    expected = np.linalg.solve(matrix.T @ fading @ matrix + penalty, matrix.T @ fading @ np.array(values))
    assert regression._weights == pytest.approx(expected.tolist(), rel=1e-9)


def test_it_predicts_what_it_was_not_shown() -> None:
    regression = learned(300)
    rng = random.Random(1)  # noqa: S311
    for _ in range(20):
        features = [rng.uniform(0.5, 2.5) for _ in range(WIDTH)]
        assert regression.predict(features) == pytest.approx(truth(features), abs=0.25)


def test_the_quantile_covers_that_share_of_the_answers() -> None:
    regression = learned(600, noise=0.4, quantile=0.8)
    rng = random.Random(2)  # noqa: S311
    covered = 0
    for _ in range(500):
        features = [rng.uniform(0, 3) for _ in range(WIDTH)]
        covered += truth(features) + rng.gauss(0, 0.4) <= (regression.predict(features) or 0)
    assert 0.7 < covered / 500 < 0.9


def test_it_says_nothing_before_ten_answers() -> None:
    assert learned(9).predict([1.0] * WIDTH) is None
    assert learned(10).predict([1.0] * WIDTH) is not None


def test_it_follows_a_change() -> None:
    regression = learned(300, memory=50)
    features = [1.5] * WIDTH
    before = regression.predict(features)
    rng = random.Random(3)  # noqa: S311
    for _ in range(200):
        row = [rng.uniform(0, 3) for _ in range(WIDTH)]
        regression.learn(row, truth(row) + 1)
    assert regression.predict(features) == pytest.approx((before or 0) + 1, abs=0.15)


values = st.floats(min_value=0, max_value=15)
rows = st.lists(st.floats(min_value=0, max_value=12), min_size=WIDTH, max_size=WIDTH)


@settings(max_examples=50)
@given(st.lists(st.tuples(rows, values), min_size=10, max_size=40), rows)
def test_whatever_it_learned_it_stays_within_it(
    learn: list[tuple[list[float], float]], asked: list[float]
) -> None:
    regression = OnlineRegression(quantile=0.75, memory=30)
    for features, value in learn:
        regression.learn(features, value)
    found = regression.predict(asked)
    assert found is not None
    assert min(value for _, value in learn) <= found <= max(value for _, value in learn)


def test_tens_of_thousands_of_answers_do_not_wear_it_out() -> None:
    regression = OnlineRegression(quantile=0.5, memory=20)
    for number in range(3000):
        regression.learn([0.0] * WIDTH, 4.0 + number % 2)
    assert regression.predict([0.0] * WIDTH) == pytest.approx(4.5, abs=0.6)
    assert all(math.isfinite(value) for row in regression._products for value in row)
