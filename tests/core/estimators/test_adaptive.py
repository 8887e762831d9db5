"""The adaptive estimator, end to end on simulated models whose behaviour is known."""

from __future__ import annotations

import asyncio
import copy
import math
import pickle
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tale_core import (
    AdaptiveEstimator,
    Budget,
    BudgetPolicy,
    CachedEstimator,
    ChainEstimator,
    ElasticityEvent,
    ElasticityKind,
    FixedEstimator,
    InvalidValueError,
    Learner,
    ModelCall,
    ModelReply,
    TaleMethod,
    Usage,
    ZeroShotEstimator,
    arun,
    run,
    run_many,
)
from tale_core.testing import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tale_core import Answer, Flow

QUANTILE = 0.75


def question(rng: random.Random) -> str:
    steps = [f"{rng.choice(('Ann', 'Bo'))} gets {rng.randint(2, 99)} more." for _ in range(rng.randint(1, 8))]
    return f"{' '.join(steps)} How many are there after {rng.randint(2, 9)} days?"


class SimulatedModel:
    """Answers at a length that depends on the question; estimates with an error of its own.

    Args:
        noise: Spread of the answers' length, in logarithms.
        bias: Mean error of the estimates, in logarithms.
        error: Spread of the estimates' error, in logarithms.
        obedience: 0 ignores the budget, 1 follows it and nothing else.
        readable: Whether the text tells how long the answer is; if not, only the model knows.
    """

    def __init__(
        self,
        *,
        noise: float = 0.15,
        bias: float = -0.3,
        error: float = 0.6,
        obedience: float = 0.0,
        readable: bool = True,
        seed: int = 0,
    ) -> None:
        self.noise, self.bias, self.error = noise, bias, error
        self.obedience, self.readable = obedience, readable
        self.scale = 1.0
        self.estimates = 0
        self.random = random.Random(seed)  # noqa: S311

    def need(self, text: str) -> float:
        if self.readable:
            return self.scale * 30 * text.count("gets") ** 0.8
        return self.scale * 80 * math.exp(random.Random(text).gauss(0, 0.5))  # noqa: S311

    def __call__(self, call: ModelCall) -> ModelReply:
        text = call.messages[-1].content.removesuffix("\n\n").split("Question: ")[-1].split("\n\n")[0]
        if call.role == "estimate":
            self.estimates += 1
            return reply(f"[[{self.tokens(self.need(text), self.bias, self.error)}]]", 6)
        asked = call.budget or 300
        natural = self.need(text) ** (1 - self.obedience) * asked**self.obedience
        return reply("One step after the other.", self.tokens(natural, 0, self.noise))

    async def acall(self, call: ModelCall) -> ModelReply:
        await asyncio.sleep(0)
        return self(call)

    def tokens(self, natural: float, bias: float, spread: float) -> int:
        return max(1, round(natural * math.exp(self.random.gauss(bias, spread))))


def reply(text: str, tokens: int) -> ModelReply:
    return ModelReply(text=text, usage=Usage(input_tokens=50, output_tokens=tokens), finish_reason="stop")


def flows(estimator: Any, count: int, *, seed: int = 0, **choices: Any) -> Iterator[Flow[Answer]]:
    rng = random.Random(seed)  # noqa: S311
    method = TaleMethod(estimator=estimator, **choices)
    return (method.begin(question(rng)).answer() for _ in range(count))


def answered(
    estimator: Any, model: SimulatedModel, count: int, *, seed: int = 0, **choices: Any
) -> list[Answer]:
    return [run(flow, model) for flow in flows(estimator, count, seed=seed, **choices)]


def until(
    estimator: AdaptiveEstimator, model: SimulatedModel, in_charge: str, *, most: int, seed: int = 0
) -> int:
    """Ask until somebody is in charge, and return after how many questions."""
    for number, flow in enumerate(flows(estimator, most, seed=seed), start=1):
        run(flow, model)
        if estimator.status.in_charge == in_charge:
            return number
    pytest.fail(f"{in_charge!r} was not in charge within {most} questions: {estimator.status}")


def trained(model: SimulatedModel, **choices: Any) -> AdaptiveEstimator:
    estimator = AdaptiveEstimator(ZeroShotEstimator(), seed=0, **choices)
    until(estimator, model, "learned", most=400)
    return estimator


def loss(answers: list[Answer]) -> float:
    """Mean pinball loss of the budgets, in logarithms of tokens."""
    short = [math.log(one.reason_usage.output_tokens / (one.plan.budget.tokens or 1)) for one in answers]
    return sum(max(QUANTILE * one, (QUANTILE - 1) * one) for one in short) / len(short)


# taking over


def test_it_takes_over_where_the_text_tells_the_length_and_saves_the_call() -> None:
    model = SimulatedModel()
    estimator = AdaptiveEstimator(ZeroShotEstimator(), seed=0)
    asked = until(estimator, model, "learned", most=200)
    assert model.estimates == asked
    answers = answered(estimator, model, 300, seed=1)
    assert model.estimates - asked < 0.1 * 300
    assert estimator.status.saved_calls == sum(one.plan.budget.source == "adaptive" for one in answers)
    assert estimator.status.in_charge == "learned"


def test_its_budgets_are_better_than_those_of_the_start() -> None:
    model = SimulatedModel()
    start = answered(ZeroShotEstimator(), model, 200)
    learned = [one for one in answered(trained(model), model, 200) if one.plan.budget.source == "adaptive"]
    assert loss(learned) < 0.5 * loss(start)


@pytest.mark.parametrize("seed", range(3))
def test_it_does_not_take_over_where_only_the_start_knows(seed: int) -> None:
    model = SimulatedModel(readable=False, bias=0.1, error=0.1, seed=seed)
    estimator = AdaptiveEstimator(ZeroShotEstimator(), seed=seed)
    answered(estimator, model, 500, seed=seed)
    assert estimator.status.in_charge == "start"
    assert estimator.status.takeovers == 0


@pytest.mark.parametrize("seed", range(3))
def test_it_does_not_take_over_where_there_is_nothing_to_know(seed: int) -> None:
    """Lengths are noise, and the start names the best single budget: nothing can be better."""
    model = SimulatedModel(readable=False, noise=0.2, seed=seed)
    best = round(80 * math.exp(0.6745 * math.hypot(0.5, 0.2)))  # the 0.75 quantile of the lengths
    estimator = AdaptiveEstimator(FixedEstimator(best), seed=seed)
    answered(estimator, model, 500, seed=seed)
    assert estimator.status.takeovers == 0


def test_before_it_has_learned_everything_is_the_starts() -> None:
    model = SimulatedModel()
    answers = answered(AdaptiveEstimator(ZeroShotEstimator()), model, 40)
    assert {one.plan.budget.source for one in answers} == {"adaptive/zero-shot"}


def test_its_budgets_do_not_run_away_on_a_model_that_follows_them() -> None:
    """Whatever budget such a model is told, its answers confirm: to learn from them is to run away."""
    model = SimulatedModel()
    estimator = trained(model, explore=0, memory=100)
    model.obedience = 0.95
    answers = answered(estimator, model, 900, seed=1)
    first, last = (sum(one.plan.budget.tokens or 0 for one in part) for part in (answers[:300], answers[-300:]))
    assert estimator.status.takeovers == 1
    assert last == pytest.approx(first, rel=0.1)


def test_a_model_that_ignores_small_budgets_is_learned_from_too() -> None:
    """The start says 10 to everything, as small models do; every answer overruns, and says what it takes."""
    model = SimulatedModel()
    estimator = AdaptiveEstimator(FixedEstimator(10), seed=0)
    until(estimator, model, "learned", most=100)
    answers = [one for one in answered(estimator, model, 100) if one.plan.budget.source == "adaptive"]
    assert not any(event.kind == ElasticityKind.OVERRUN for one in answers for event in one.events)


# handing back


@pytest.mark.parametrize("scale", [2.5, 0.3])
def test_it_hands_back_after_a_drift_and_learns_anew(scale: float) -> None:
    model = SimulatedModel()
    estimator = trained(model)
    answered(estimator, model, 150, seed=1)
    assert estimator.status.in_charge == "learned"
    model.scale = scale
    assert until(estimator, model, "start", most=100, seed=2) < 60
    assert estimator.status.answers == 0
    until(estimator, model, "learned", most=200, seed=3)
    assert estimator.status.takeovers == 2


def test_it_stays_in_charge_while_nothing_changes() -> None:
    model = SimulatedModel()
    estimator = trained(model)
    answered(estimator, model, 1000, seed=1)
    assert (estimator.status.in_charge, estimator.status.takeovers) == ("learned", 1)


@pytest.mark.parametrize(("explore", "least", "most"), [(0.0, 0, 0), (0.2, 40, 120), (1.0, 400, 400)])
def test_it_goes_on_asking_the_start_for_the_share_it_is_told(explore: float, least: int, most: int) -> None:
    model = SimulatedModel()
    estimator = trained(model, explore=explore)
    before = model.estimates
    answered(estimator, model, 400, seed=1)
    assert least <= model.estimates - before <= most


# what it learns from


def told(
    estimator: Learner, source: str = "adaptive/zero-shot", *kinds: ElasticityKind, **changes: Any
) -> None:
    usage = changes.get("usage", Usage(output_tokens=90))
    budget = Budget(tokens=changes.get("tokens", 60), source=source)
    estimator.learn("How many?", budget, usage, tuple(ElasticityEvent(kind=kind) for kind in kinds))


@pytest.mark.parametrize("kind", [ElasticityKind.COLLAPSE, ElasticityKind.TRUNCATED])
def test_an_answer_that_is_no_measure_teaches_nothing(kind: ElasticityKind) -> None:
    estimator = AdaptiveEstimator(ZeroShotEstimator())
    told(estimator, "adaptive/zero-shot", kind)
    assert estimator.status.answers == 0


@pytest.mark.parametrize("source", ["adaptive", "retry", "fallback", "none", "fixed", "self", "zero-shot"])
def test_only_budgets_of_its_start_are_learned_from(source: str) -> None:
    estimator = AdaptiveEstimator(ZeroShotEstimator())
    told(estimator, source)
    assert estimator.status.answers == 0
    told(estimator)
    assert estimator.status.answers == 1


@pytest.mark.parametrize("usage", [Usage(output_tokens=90, source="estimated"), Usage(output_tokens=0)])
def test_tokens_that_no_provider_reported_teach_nothing(usage: Usage) -> None:
    estimator = AdaptiveEstimator(ZeroShotEstimator())
    told(estimator, usage=usage)
    assert estimator.status.answers == 0


@pytest.mark.parametrize("reason", ["tool_calls", "closed"])
def test_an_answer_that_came_to_no_end_is_not_told(reason: Any) -> None:
    estimator = AdaptiveEstimator(ZeroShotEstimator())
    cut = ModelReply(text="so far", usage=Usage(output_tokens=90), finish_reason=reason)
    run(TaleMethod(estimator=estimator).begin("How many?").answer(), ScriptedModel("[[60]]", cut))
    assert estimator.status.answers == 0


def test_an_unusable_estimate_of_the_start_stays_one() -> None:
    estimator = AdaptiveEstimator(ZeroShotEstimator())
    model = ScriptedModel("I cannot say", "The answer is four, since two and two are four, as everyone knows.")
    answer = run(TaleMethod(estimator=estimator).begin("How many?").answer(), model)
    assert (answer.plan.budget.tokens, estimator.status.answers) == (None, 0)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(max_size=30),
            st.sampled_from(["adaptive", "adaptive/zero-shot", "retry"]),
            st.none() | st.integers(1, 10**9),
            st.integers(0, 10**9),
            st.sets(st.sampled_from(ElasticityKind)),
        ),
        max_size=80,
    )
)
def test_no_stream_of_answers_breaks_it(
    stream: list[tuple[str, str, int | None, int, set[ElasticityKind]]],
) -> None:
    estimator = AdaptiveEstimator(ZeroShotEstimator(), window=20, memory=20)
    for text, source, tokens, cost, kinds in stream:
        events = tuple(ElasticityEvent(kind=kind) for kind in kinds)
        estimator.learn(text, Budget(tokens=tokens, source=source), Usage(output_tokens=cost), events)
        estimate = run(estimator.estimate(text), ScriptedModel(estimate="[[7]]"))
        assert estimate.tokens is not None
        assert 1 <= estimate.tokens <= 10**9 + 1


# with the policy


def test_the_multiplier_is_learned_and_not_applied_twice() -> None:
    policy = BudgetPolicy(multiplier=3)
    model = SimulatedModel(bias=-1.1, obedience=0.3)
    estimator = AdaptiveEstimator(ZeroShotEstimator(), seed=0)
    answers = answered(estimator, model, 600, policy=policy)
    own = [one.plan.budget for one in answers if one.plan.budget.source == "adaptive"]
    assert own
    assert all(budget.tokens == max(budget.estimate or 0, policy.floor) for budget in own)


def test_the_floor_holds_for_learned_budgets_too() -> None:
    model = SimulatedModel()
    estimator = trained(model)
    answers = answered(estimator, model, 50, policy=BudgetPolicy(floor=120))
    assert min(one.plan.budget.tokens or 0 for one in answers) == 120


# through other estimators


@pytest.mark.parametrize(
    "wrap",
    [
        lambda one: ChainEstimator(one, FixedEstimator(100)),
        CachedEstimator,
        lambda one: ChainEstimator(CachedEstimator(one), FixedEstimator(100)),
    ],
    ids=["chain", "cached", "both"],
)
def test_it_learns_through_what_wraps_it(wrap: Callable[[AdaptiveEstimator], Any]) -> None:
    inner = AdaptiveEstimator(ZeroShotEstimator(), seed=0)
    model = SimulatedModel()
    answered(wrap(inner), model, 250)
    assert inner.status.in_charge == "learned"
    assert model.estimates < 150


def test_a_cache_never_hides_what_was_learned() -> None:
    model = SimulatedModel()
    inner = AdaptiveEstimator(ZeroShotEstimator(), seed=0, explore=0)
    answered(CachedEstimator(inner), model, 200)
    again = answered(CachedEstimator(inner), model, 20)
    assert {one.plan.budget.source for one in again} == {"adaptive"}


class Forgetful:
    """An estimator that fails to learn."""

    name = "forgetful"

    def estimate(self, question: str) -> Any:
        return FixedEstimator(40).estimate(question)

    def learn(self, question: str, budget: Budget, usage: Usage, events: tuple[ElasticityEvent, ...]) -> None:
        raise KeyError("secret question")


def test_an_answer_survives_an_estimator_that_fails_to_learn() -> None:
    method = TaleMethod(estimator=Forgetful())
    with pytest.warns(RuntimeWarning, match=r"^forgetful could not learn from an answer: KeyError$"):
        answer = run(method.begin("How many?").answer(), ScriptedModel("It is four."))
    assert answer.reply.text == "It is four."


# concurrency


def test_eight_threads_learn_the_same() -> None:
    model = SimulatedModel()
    estimator = AdaptiveEstimator(ZeroShotEstimator(), seed=0)
    outcomes = [one.unwrap() for one in run_many(flows(estimator, 400), model, concurrency=8)]
    own = [one for one in outcomes if one.plan.budget.source == "adaptive"]
    status = estimator.status
    assert status.in_charge == "learned"
    assert status.saved_calls == len(own) > 200
    assert status.answers == 400 - len(own) == model.estimates


async def test_it_learns_on_an_event_loop() -> None:
    model = SimulatedModel()
    estimator = AdaptiveEstimator(ZeroShotEstimator(), seed=0)
    waiting = list(flows(estimator, 250))
    for at in range(0, 250, 50):
        await asyncio.gather(*(arun(flow, model.acall) for flow in waiting[at : at + 50]))
    assert estimator.status.in_charge == "learned"


# copies


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])  # noqa: S301
def test_a_copy_knows_as_much_and_learns_for_itself(
    duplicate: Callable[[AdaptiveEstimator], AdaptiveEstimator],
) -> None:
    estimator = trained(SimulatedModel())
    twin = duplicate(estimator)
    assert twin.status == estimator.status
    told(twin)
    assert twin.status.answers == estimator.status.answers + 1


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"start": 40}, "start must be an estimator, got 40"),
        ({"quantile": 1.0}, "between 0 and 1, got 1.0"),
        ({"window": 19}, "at least 20 answers, got 19"),
        ({"explore": 1.5}, "from 0 to 1, got 1.5"),
        ({"explore": float("nan")}, "got nan"),
        ({"memory": 10}, "at least the window, 50 answers; got 10"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        AdaptiveEstimator(**{"start": ZeroShotEstimator(), **choices})
