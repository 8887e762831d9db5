"""The budget search, against simulated models whose behaviour is known."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tale_core import (
    EmptyAnswerError,
    InvalidValueError,
    ModelReply,
    SearchTrace,
    Usage,
    arun,
    run,
    search_budget,
)
from tale_core.search.curves import BudgetRange, Point, ideal_range
from tale_core.testing import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from tale_core import ModelCall
    from tale_core.search.budget_search import Method

QUESTION = "How many eggs are left?"
METHODS: tuple[Method, ...] = ("halving", "bisect")


def right(text: str) -> bool:
    return text == "right"


class SimulatedModel:
    """Answers with the tokens and the correctness that a function of the budget dictates."""

    def __init__(self, behave: Callable[[int | None, int], tuple[int, bool]]) -> None:
        self.behave = behave
        self.calls: list[ModelCall] = []

    def __call__(self, call: ModelCall) -> ModelReply:
        self.calls.append(call)
        tokens, correct = self.behave(call.budget, call.sample)
        return ModelReply(
            text="right" if correct else "wrong",
            usage=Usage(input_tokens=10, output_tokens=tokens),
            finish_reason="stop",
        )


def elastic(budget: int | None, sample: int = 0) -> tuple[int, bool]:
    """Vanilla takes 256; a budget is followed down to 64; below, spending grows again; below 20 it is wrong."""
    if budget is None:
        return 256, True
    if budget >= 64:
        return min(256, budget + 6), True
    return 70 + 2 * (64 - budget), budget >= 20


def test_halving_follows_the_published_algorithm_step_by_step() -> None:
    trace = run(search_budget(QUESTION, right, method="halving"), SimulatedModel(elastic))

    assert [probe.budget for probe in trace.probes] == [None, 128, 64, 32]
    assert [probe.usage.output_tokens for probe in trace.probes] == [256, 134, 70, 134]
    assert (trace.chosen, trace.stopped) == (64, "rejected")


def test_halving_compares_with_the_last_accepted_budget_and_not_with_vanilla() -> None:
    tokens = {None: 100, 50: 60, 25: 60}
    trace = run(
        search_budget(QUESTION, right, method="halving"),
        SimulatedModel(lambda budget, _: (tokens[budget], True)),
    )

    assert trace.chosen == 50, "25 costs as much as 50, which Algorithm 2 refuses"


def test_bisect_raises_the_lower_bound_on_a_rebound_and_then_descends() -> None:
    trace = run(search_budget(QUESTION, right, method="bisect"), SimulatedModel(elastic))

    budgets = [probe.budget for probe in trace.probes]
    assert budgets[:4] == [None, 128, 64, 32]
    assert all(budget > 32 for budget in budgets[4:] if budget), "nothing below the rebound is tried again"
    assert trace.chosen == 64
    assert 32 in trace.rebounds


def test_bisect_finds_a_budget_between_the_powers_that_halving_visits() -> None:
    def cliff(budget: int | None, _: int) -> tuple[int, bool]:
        return (200, True) if budget is None else (budget, budget >= 80)

    halving = run(search_budget(QUESTION, right, method="halving"), SimulatedModel(cliff))
    bisect = run(search_budget(QUESTION, right, method="bisect"), SimulatedModel(cliff))

    assert halving.chosen == 100
    assert bisect.chosen is not None
    assert 80 <= bisect.chosen < 90


def test_a_model_that_only_answers_without_a_budget_gets_none() -> None:
    for method in METHODS:
        trace = run(
            search_budget(QUESTION, right, method=method),
            SimulatedModel(lambda budget, _: (90, budget is None)),
        )
        assert trace.chosen is None
        assert trace.ideal is None
        assert trace.best == trace.vanilla


def test_a_vanilla_answer_of_one_token_leaves_nothing_to_search() -> None:
    for method in METHODS:
        trace = run(search_budget(QUESTION, right, method=method), SimulatedModel(lambda *_: (1, True)))
        assert len(trace.probes) == 1
        assert trace.chosen is None


def test_the_majority_of_the_samples_decides_and_a_tie_is_no_majority() -> None:
    votes = {50: [True, False, True], 25: [True, False, False]}

    def behave(budget: int | None, sample: int) -> tuple[int, bool]:
        return (100, True) if budget is None else (budget, votes[budget][sample])

    trace = run(search_budget(QUESTION, right, method="halving", samples=3), SimulatedModel(behave))
    assert trace.chosen == 50
    assert [point.accuracy for point in trace.points] == pytest.approx([1, 2 / 3, 1 / 3])

    votes[50] = [True, False]
    trace = run(search_budget(QUESTION, right, method="halving", samples=2), SimulatedModel(behave))
    assert trace.chosen is None


def test_each_sample_is_a_call_of_its_own() -> None:
    model = SimulatedModel(lambda budget, _: (100 if budget is None else 200, True))
    run(search_budget(QUESTION, right, method="halving", samples=2), model)
    assert [(call.budget, call.sample) for call in model.calls] == [(None, 0), (None, 1), (50, 0), (50, 1)]


def test_the_acceptance_rule_is_the_callers() -> None:
    def at_least_30_percent_less(reference: Point, candidate: Point) -> bool:
        return candidate.tokens <= 0.7 * reference.tokens

    def slow_decline(budget: int | None, _: int) -> tuple[int, bool]:
        return (100, True) if budget is None else (50 + budget // 2, True)

    published = run(search_budget(QUESTION, right, method="halving"), SimulatedModel(slow_decline))
    strict = run(
        search_budget(QUESTION, right, method="halving", accept=at_least_30_percent_less),
        SimulatedModel(slow_decline),
    )
    assert published.chosen == 1
    assert strict.chosen is None


def test_a_rule_that_accepts_everything_never_gets_a_wrong_answer_chosen() -> None:
    for method in METHODS:
        trace = run(
            search_budget(QUESTION, right, method=method, accept=lambda *_: True),
            SimulatedModel(lambda budget, _: (100, budget is None)),
        )
        assert trace.chosen is None


def test_the_prompts_are_vanilla_first_and_then_the_strategy() -> None:
    model = SimulatedModel(elastic)
    run(search_budget(QUESTION, right, method="halving", temperature=0, max_tokens=900), model)

    assert model.calls[0].messages[0].content == f"{QUESTION}\n\nLet's think step by step:"
    assert "less than 128 tokens" in model.calls[1].messages[0].content
    assert {(call.role, call.temperature, call.max_tokens) for call in model.calls} == {("reason", 0, 900)}


def test_a_judge_takes_calls_of_its_own_through_the_same_driver() -> None:
    def judged(text: str) -> object:
        reply = yield ScriptedModelCall
        return "correct" if reply.text == f"{text} yes" else "wrong"

    from tale_core import Message, ModelCall

    ScriptedModelCall = ModelCall(role="judge", messages=(Message(role="user", content="right?"),))  # noqa: N806
    model = ScriptedModel("a b c d", "a b c d yes", "ab", "no")
    trace = run(search_budget(QUESTION, judged, method="halving"), model)  # type: ignore[arg-type]
    assert [call.role for call in model.calls] == ["reason", "judge", "reason", "judge"]
    assert [probe.verdict for probe in trace.probes] == ["correct", "wrong"]


def test_calls_without_usage_are_counted_here_and_marked() -> None:
    model = ScriptedModel(reason=lambda call: ModelReply(text="right"))
    trace = run(search_budget(QUESTION, right), model)
    assert {probe.usage.source for probe in trace.probes} == {"estimated"}


def test_an_empty_answer_is_a_failure_and_not_a_wrong_answer() -> None:
    with pytest.raises(EmptyAnswerError, match="run again"):
        run(search_budget(QUESTION, right), ScriptedModel(" "))


def test_an_answer_cut_before_its_first_word_is_an_answer_without_a_result() -> None:
    cut = ModelReply(text="", usage=Usage(output_tokens=64), finish_reason="length")
    trace = run(search_budget(QUESTION, right, method="halving"), ScriptedModel(reason=cut))
    assert [(probe.verdict, probe.finish_reason) for probe in trace.probes] == [("wrong", "length")] * 2


def test_a_failing_call_ends_the_search_with_that_error() -> None:
    model = ScriptedModel("a b c d e f", TimeoutError("slow"))
    with pytest.raises(TimeoutError, match="slow"):
        run(search_budget(QUESTION, right), model)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"strategy": "vanilla"}, "carries no budget"),
        ({"samples": 3, "max_calls": 5}, "max_calls must be at least 2 x samples = 6"),
        ({"samples": 0}, "got 0"),
        ({"precision": 0}, "got 0"),
        ({"method": "random"}, "got 'random'"),
        ({"strategy": "tail"}, "did you mean 'tale'"),
    ],
)
def test_wrong_settings_fail_before_any_call(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        search_budget(QUESTION, right, **wrong)  # type: ignore[arg-type]


async def test_both_drivers_lead_to_the_same_trace() -> None:
    model = SimulatedModel(elastic)

    async def acall(call: ModelCall) -> ModelReply:
        return model(call)

    assert await arun(search_budget(QUESTION, right), acall) == run(search_budget(QUESTION, right), model)


def test_a_trace_survives_json() -> None:
    trace = run(search_budget(QUESTION, right, question_id="q1"), SimulatedModel(elastic))
    assert SearchTrace.model_validate_json(trace.model_dump_json()) == trace


seeds = st.integers(min_value=0, max_value=2**32)
curves = st.fixed_dictionaries(
    {
        "vanilla": st.integers(min_value=0, max_value=5000),
        "seed": seeds,
        "kind": st.sampled_from(["monotone", "elastic", "adversarial", "always right", "always wrong"]),
    }
)


def simulated(vanilla: int, seed: int, kind: str) -> SimulatedModel:
    """A model that is a pure function of budget and sample, of any shape."""

    def behave(budget: int | None, sample: int) -> tuple[int, bool]:
        rng = random.Random(f"{seed} {budget} {sample}")  # noqa: S311
        if budget is None:
            return vanilla, kind != "always wrong"
        if kind == "monotone":
            return budget, budget >= seed % (vanilla + 1)
        if kind == "elastic":
            return abs(budget - seed % (vanilla + 1)) + 5, budget > vanilla // 50
        if kind == "adversarial":
            return rng.randrange(6000), rng.random() < 0.7
        return max(0, budget - 1), kind == "always right"

    return SimulatedModel(behave)


@settings(max_examples=300, deadline=None)
@given(
    curve=curves,
    method=st.sampled_from(METHODS),
    samples=st.integers(min_value=1, max_value=4),
    slack=st.integers(min_value=0, max_value=60),
    precision=st.floats(min_value=0.01, max_value=0.9),
)
def test_for_any_model_the_search_ends_in_bounds_and_its_choice_was_asked_and_right(
    curve: dict[str, int], method: Method, samples: int, slack: int, precision: float
) -> None:
    model = simulated(**curve)  # type: ignore[arg-type]
    most = 2 * samples + slack
    trace = run(
        search_budget(QUESTION, right, method=method, samples=samples, max_calls=most, precision=precision),
        model,
    )

    assert len(model.calls) == len(trace.probes) <= most
    budgets = [probe.budget for probe in trace.probes if probe.budget is not None]
    assert all(1 <= budget < max(2, curve["vanilla"]) for budget in budgets)
    assert len(set(budgets)) * samples == len(budgets), "no budget is asked twice"
    if trace.chosen is not None:
        votes = [probe.correct for probe in trace.probes if probe.budget == trace.chosen]
        assert sum(votes) * 2 > len(votes)
        assert trace.best.tokens < trace.vanilla.tokens


@given(
    points=st.lists(
        st.builds(
            Point,
            budget=st.integers(min_value=1, max_value=500),
            tokens=st.floats(min_value=0, max_value=1000),
            accuracy=st.sampled_from([0.0, 1.0]),
            samples=st.just(1),
        ),
        unique_by=lambda point: point.budget,
    )
)
def test_the_ideal_range_is_the_cheapest_window_of_a_third_of_the_right_budgets(points: list[Point]) -> None:
    found = ideal_range(points)
    right_ones = sorted((point for point in points if point.correct), key=lambda point: point.budget or 0)
    if not right_ones:
        assert found is None
        return
    assert found is not None
    inside = [point for point in right_ones if (point.budget or 0) in found]
    width = -(-len(right_ones) // 3)
    assert len(inside) == width
    spent = sum(point.tokens for point in inside)
    for start in range(len(right_ones) - width + 1):
        window = right_ones[start : start + width]
        assert spent <= sum(point.tokens for point in window) + 1e-6


def test_the_ideal_range_of_a_known_curve() -> None:
    tokens = {200: 210, 100: 110, 50: 60, 40: 55, 30: 70, 10: 150}
    points = [Point(budget=b, tokens=t, accuracy=1, samples=1) for b, t in tokens.items()]
    assert ideal_range(points) == BudgetRange(low=40, high=50)
