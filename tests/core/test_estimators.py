"""Estimators are flows from a question to an estimate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale_core import (
    Budget,
    ChainEstimator,
    Estimate,
    Estimator,
    FixedEstimator,
    Flow,
    InvalidValueError,
    ModelReply,
    Usage,
    ZeroShotEstimator,
    as_estimator,
    run,
)
from tale_core.testing import ScriptedModel

QUESTION = "A train leaves at 3 and arrives at 7. How long does it take?"


class Failing:
    """An estimator that fails before it asks anything."""

    name = "failing"

    def estimate(self, question: str) -> Flow[Estimate]:
        yield from ()
        raise ConnectionError("no route")


class Silent:
    """An estimator that never has an answer."""

    name = "silent"

    def estimate(self, question: str) -> Flow[Estimate]:
        yield from ()
        return Estimate(source=self.name)


def no_model(call: object) -> ModelReply:
    raise AssertionError(f"no model call was expected, got {call!r}")


# zero-shot


def test_zero_shot_asks_once_with_the_published_prompt_and_the_question_alone() -> None:
    model = ScriptedModel("[[40]]")
    estimate = run(ZeroShotEstimator().estimate(QUESTION), model)
    assert estimate == Estimate(tokens=40, source="zero-shot")
    (call,) = model.calls
    (message,) = call.messages
    assert message.role == "user"
    assert message.content == (
        "Task: Analyze the given question and estimate the minimum number of tokens required to generate a "
        "complete and accurate response. Please Give the response by strictly following this format: "
        f"[[budget]], for example, Budget: [[12]].\n\nQuestion: {QUESTION}"
    )


def test_zero_shot_asks_greedily_with_a_small_output_cap_and_no_framing() -> None:
    model = ScriptedModel("[[40]]")
    run(ZeroShotEstimator(max_tokens=20).estimate(QUESTION), model)
    (call,) = model.calls
    assert (call.role, call.temperature, call.max_tokens) == ("estimate", 0.0, 20)
    assert (call.framing, call.budget) == (None, None)


def test_zero_shot_asks_in_the_language_of_the_question_or_in_the_one_named() -> None:
    model = ScriptedModel(estimate="[[40]]")
    run(ZeroShotEstimator().estimate("火车三点出发，七点到达，需要多长时间？"), model)
    run(ZeroShotEstimator(language="zh").estimate(QUESTION), model)
    run(ZeroShotEstimator(language="en").estimate("火车需要多长时间？"), model)
    starts = [call.messages[0].content[:4] for call in model.calls]
    assert starts == ["任务：分", "任务：分", "Task"]


def test_zero_shot_takes_another_prompt() -> None:
    model = ScriptedModel("30")
    estimate = run(ZeroShotEstimator(prompt="How long? Say a number.").estimate(QUESTION), model)
    assert estimate.tokens == 30
    assert model.calls[0].messages[0].content == f"How long? Say a number.\n\nQuestion: {QUESTION}"


@pytest.mark.parametrize("reply", ["", "I cannot say.", "[[-5]]", "[[0]]"])
def test_an_unusable_reply_is_an_estimate_without_tokens_that_quotes_nothing(reply: str) -> None:
    estimate = run(ZeroShotEstimator().estimate(QUESTION), ScriptedModel(reply))
    assert estimate.tokens is None
    assert estimate.detail == "no usable number in the estimator's reply"


@given(st.text(st.characters()))
def test_no_reply_makes_zero_shot_fail_or_guess_below_one(reply: str) -> None:
    estimate = run(ZeroShotEstimator().estimate(QUESTION), ScriptedModel(ModelReply(text=reply)))
    assert estimate.tokens is None or estimate.tokens >= 1


def test_zero_shot_passes_an_exception_of_its_model_on() -> None:
    with pytest.raises(ConnectionError):
        run(ZeroShotEstimator().estimate(QUESTION), ScriptedModel(ConnectionError()))


def test_zero_shot_refuses_a_cap_below_one_and_an_unknown_language_at_once() -> None:
    with pytest.raises(InvalidValueError, match="max_tokens must be at least 1, got 0"):
        ZeroShotEstimator(max_tokens=0)
    with pytest.raises(InvalidValueError, match=r"no template in language 'fr'; available: en, zh, or 'auto'"):
        ZeroShotEstimator(language="fr")


# fixed


def test_a_fixed_budget_needs_no_model_and_is_exact() -> None:
    estimate = run(FixedEstimator(120).estimate(QUESTION), no_model)
    assert estimate == Estimate(tokens=120, source="fixed", exact=True)


@pytest.mark.parametrize("tokens", [0, -5, 12.5, "80", True, None])
def test_a_fixed_budget_that_is_no_whole_number_above_zero_is_refused(tokens: object) -> None:
    with pytest.raises(InvalidValueError, match=f"at least 1, got {tokens!r}"):
        FixedEstimator(tokens)


# chain


def test_a_chain_stops_at_the_first_usable_estimate() -> None:
    chain = ChainEstimator(ZeroShotEstimator(), FixedEstimator(80))
    model = ScriptedModel("[[40]]")
    assert run(chain.estimate(QUESTION), model) == Estimate(tokens=40, source="zero-shot")
    assert len(model.calls) == 1


def test_a_chain_passes_over_unusable_estimates_and_failures() -> None:
    chain = ChainEstimator(Failing(), ZeroShotEstimator(), FixedEstimator(80))
    estimate = run(chain.estimate(QUESTION), ScriptedModel("no idea"))
    assert estimate == Estimate(tokens=80, source="fixed", exact=True)


def test_a_chain_passes_over_a_failed_model_call() -> None:
    chain = ChainEstimator(ZeroShotEstimator(), FixedEstimator(80))
    assert run(chain.estimate(QUESTION), ScriptedModel(TimeoutError())).tokens == 80


def test_a_chain_that_found_nothing_says_what_its_last_link_said() -> None:
    estimate = run(ChainEstimator(Silent(), ZeroShotEstimator()).estimate(QUESTION), ScriptedModel("no idea"))
    assert (estimate.tokens, estimate.source) == (None, "zero-shot")
    with pytest.raises(ConnectionError, match="no route"):
        run(ChainEstimator(ZeroShotEstimator(), Failing()).estimate(QUESTION), ScriptedModel("no idea"))


def test_a_chain_passes_what_an_answer_cost_to_the_links_that_learn() -> None:
    class Learning(Silent):
        def __init__(self) -> None:
            self.lessons: list[tuple[object, ...]] = []

        def learn(self, *lesson: object) -> None:
            self.lessons.append(lesson)

    learner = Learning()
    lesson = (QUESTION, Budget(tokens=50), Usage(output_tokens=60), ())
    ChainEstimator(learner, FixedEstimator(80)).learn(*lesson)
    assert learner.lessons == [lesson]


def test_a_chain_is_named_after_its_links() -> None:
    assert ChainEstimator(ZeroShotEstimator(), FixedEstimator(80)).name == "zero-shot>fixed"


def test_a_chain_refuses_to_be_empty_or_to_hold_anything_but_estimators() -> None:
    with pytest.raises(InvalidValueError, match="at least one estimator, got none"):
        ChainEstimator()
    with pytest.raises(InvalidValueError, match="got 80; for a number use FixedEstimator"):
        ChainEstimator(ZeroShotEstimator(), 80)


# what a caller may mean by an estimator


def test_an_estimator_may_be_named_by_a_number_or_left_out() -> None:
    assert isinstance(as_estimator(None), ZeroShotEstimator)
    assert run(as_estimator(80).estimate(QUESTION), no_model).tokens == 80
    failing = Failing()
    assert as_estimator(failing) is failing


@pytest.mark.parametrize(
    ("thing", "shown"), [("80", "'80'"), (object(), "object"), ([80], "list"), (ZeroShotEstimator, "class")]
)
def test_anything_else_is_no_estimator(thing: object, shown: str) -> None:
    with pytest.raises(InvalidValueError, match=f"returns a flow; got .*{shown}"):
        as_estimator(thing)


@pytest.mark.parametrize("number", [0, -1, True, 12.5])
def test_a_number_below_one_is_no_estimator(number: int) -> None:
    with pytest.raises(InvalidValueError, match=f"at least 1, got {number}"):
        as_estimator(number)


@pytest.mark.parametrize(
    ("estimator", "shown"),
    [
        (ZeroShotEstimator(), "ZeroShotEstimator(max_tokens=64)"),
        (ChainEstimator(FixedEstimator(80)), "ChainEstimator(FixedEstimator(80))"),
    ],
)
def test_estimators_satisfy_the_protocol_and_show_what_they_are(estimator: Estimator, shown: str) -> None:
    assert isinstance(estimator, Estimator)
    assert repr(estimator) == shown
