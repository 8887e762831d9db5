"""The elasticity curve, against simulated models whose curve is known."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tale_core import InvalidValueError, ModelReply, Usage, run
from tale_core.search.curves import BudgetRange
from tale_lab.curves.elasticity import (
    ElasticityCurve,
    ElasticitySettings,
    Measurement,
    elasticity_jobs,
    measure_elasticity,
)
from tale_lab.questions.datasets import Dataset, Question
from tale_lab.results.store import Store
from tale_lab.runs.runner import run_jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tale_core import ModelCall

GRID = (10, 25, 50, 100, 200, 400)
PAPER = {None: 258, 10: 157, 25: 120, 50: 86, 100: 105, 200: 190, 400: 230}
"""Figure 2 of the paper at budgets None, 10 and 50; the rest drawn between."""


def measured(
    tokens: Callable[[int | None, random.Random], float],
    right: Callable[[int | None, random.Random], bool],
    *,
    questions: int = 40,
    seed: int = 1,
    grid: tuple[int, ...] = GRID,
    samples: int = 1,
) -> list[Measurement]:
    """Measure a model that spends and answers as two functions of the budget say."""
    rng = random.Random(seed)  # noqa: S311

    def call(call: ModelCall) -> ModelReply:
        spent = max(0, round(tokens(call.budget, rng)))
        text = "right" if right(call.budget, rng) else "wrong"
        return ModelReply(text=text, usage=Usage(output_tokens=spent), finish_reason="stop")

    way = ElasticitySettings(budgets=grid, samples=samples)
    return [
        run(measure_elasticity(f"q{n}?", lambda text: text == "right", way, question_id=str(n)), call)
        for n in range(questions)
    ]


def test_the_papers_curve_is_recovered_from_noisy_questions() -> None:
    accuracy = {None: 0.9, 10: 0.3, 25: 0.8, 50: 0.9, 100: 0.9, 200: 0.9, 400: 0.9}
    found = ElasticityCurve.of(
        measured(
            lambda budget, rng: PAPER[budget] * rng.uniform(0.7, 1.3),
            lambda budget, rng: rng.random() < accuracy[budget],
            questions=150,
        )
    )
    for point in (found.vanilla, *found.points):
        assert point.tokens == pytest.approx(PAPER[point.budget], rel=0.1)
        assert point.accuracy == pytest.approx(accuracy[point.budget], abs=0.1)
    assert found.rebound == 25
    assert found.ideal == BudgetRange(low=50, high=100)
    assert found.floor == 10


@settings(max_examples=25, deadline=None)
@given(
    bottom=st.sampled_from(GRID[1:]),
    slope=st.floats(min_value=0.4, max_value=3),
    noise=st.floats(min_value=0, max_value=0.25),
    seed=st.integers(min_value=0, max_value=10**6),
)
def test_any_elastic_model_is_recovered_within_its_noise(
    bottom: int, slope: float, noise: float, seed: int
) -> None:
    def tokens(budget: int | None) -> float:
        if budget is None:
            return 800
        return 100 + slope * abs(budget - bottom)

    found = ElasticityCurve.of(
        measured(
            lambda budget, rng: tokens(budget) * rng.uniform(1 - noise, 1 + noise),
            lambda *_: True,
            questions=30,
            seed=seed,
        )
    )
    for point in found.points:
        true = tokens(point.budget)
        # Half the width of a uniform noise is far outside the error of a mean of 30.
        assert abs(point.tokens - true) <= max(1, noise * true / 2)
    below = [budget for budget in GRID if budget < bottom]
    step = {budget: tokens(budget) - tokens(bottom) for budget in below}
    if found.rebound is not None:
        assert found.rebound < bottom or tokens(found.rebound) * (1 + noise) >= tokens(bottom)
    if below and step[below[-1]] > noise * tokens(below[-1]):
        assert found.rebound == below[-1]


def test_a_model_that_obeys_every_budget_never_rebounds() -> None:
    found = ElasticityCurve.of(
        measured(lambda budget, rng: (budget or 500) * rng.uniform(0.8, 1), lambda *_: True)
    )
    assert found.rebound is None
    assert found.ideal == BudgetRange(low=10, high=25)


def test_a_model_that_ignores_every_budget_never_rebounds() -> None:
    found = ElasticityCurve.of(measured(lambda _, rng: rng.uniform(250, 300), lambda *_: True, seed=3))
    assert found.rebound is None


def test_a_model_that_collapses_to_bare_answers_has_a_floor_above_them() -> None:
    """Qwen2.5-Coder-1.5B under the published wording: 6 tokens and guesses, where vanilla takes 286."""
    found = ElasticityCurve.of(
        measured(
            lambda budget, _: 286 if budget is None else (6 if budget <= 100 else 200),
            lambda budget, rng: rng.random() < (0.56 if budget is None or budget > 100 else 0.1),
            questions=80,
        )
    )
    assert found.floor == 200
    assert [point.bare for point in found.points] == [1, 1, 1, 1, 0, 0]
    assert found.ideal is not None
    assert found.ideal.low >= 200


def test_a_model_that_always_collapses_has_no_floor_and_no_ideal_range() -> None:
    found = ElasticityCurve.of(
        measured(lambda budget, _: 286 if budget is None else 6, lambda budget, _: budget is None)
    )
    assert found.floor is None
    assert found.ideal is None


def test_one_question_is_a_curve_without_width() -> None:
    found = ElasticityCurve.of(measured(lambda budget, _: PAPER[budget], lambda *_: True, questions=1))
    assert found.rebound == 25
    assert all(point.tokens_interval.low == point.tokens_interval.high for point in found.points)


def test_samples_of_one_question_count_as_one_question() -> None:
    found = ElasticityCurve.of(
        measured(lambda budget, _: PAPER[budget], lambda _, rng: rng.random() < 0.5, questions=10, samples=4)
    )
    assert found.questions == 10
    wide = found.vanilla.accuracy_interval
    assert wide.high - wide.low > 0.4


def test_cut_answers_are_counted() -> None:
    way = ElasticitySettings(budgets=(10,))
    cut = ModelReply(text="", usage=Usage(output_tokens=5), finish_reason="length")
    found = ElasticityCurve.of([run(measure_elasticity("?", lambda _: False, way), lambda _: cut)])
    assert found.vanilla.truncated == found.points[0].truncated == 1


@pytest.mark.parametrize("budgets", [(), (0, 10), (-5,), (10, 10)])
def test_budgets_that_cannot_be_meant(budgets: tuple[int, ...]) -> None:
    with pytest.raises(InvalidValueError, match="budgets"):
        ElasticitySettings(budgets=budgets)


def test_a_strategy_without_budget_has_no_curve() -> None:
    with pytest.raises(InvalidValueError, match="'direct' carries no budget"):
        run(
            measure_elasticity("?", lambda _: True, ElasticitySettings(strategy="direct")),
            lambda _: ModelReply(text=""),
        )


def test_measurements_of_different_grids_are_not_pooled() -> None:
    one = measured(lambda *_: 10, lambda *_: True, questions=1, grid=(10,))
    other = measured(lambda *_: 10, lambda *_: True, questions=1, grid=(20,))
    with pytest.raises(InvalidValueError, match="got 2 different settings"):
        ElasticityCurve.of(one + other)
    with pytest.raises(InvalidValueError, match="got none"):
        ElasticityCurve.of([])


def test_a_dataset_is_measured_through_the_results_file() -> None:
    store, asked = Store(":memory:"), []
    way = ElasticitySettings(budgets=(10, 20))
    questions = tuple(Question.of(f"{n} + 1?", str(n + 1)) for n in range(3))

    def call(call: ModelCall) -> ModelReply:
        asked.append(call)
        number = int(call.messages[-1].content.split()[0])
        return ModelReply(text=str(number + 1), usage=Usage(output_tokens=call.budget or 50))

    jobs = elasticity_jobs(Dataset(source="t", questions=questions), way, model="m")
    first = [done.result for done in run_jobs(jobs, store, call, model="m")]
    assert len(asked) == 3 * way.calls == 9
    assert {one.question_id for one in first if one} == {one.id for one in questions}
    list(run_jobs(jobs, store, call, model="m"))
    assert len(asked) == 9, "a second run asks nothing"
    assert ElasticityCurve.of(store.results("elasticity", Measurement)).vanilla.accuracy == 1


def test_a_budget_that_saves_nothing_is_not_ideal() -> None:
    found = ElasticityCurve.of(measured(lambda *_: 96, lambda *_: True))
    assert found.ideal is None
