"""The whole method: estimate, ask, watch, ask again; and what each step records."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tale_core import (
    Answer,
    BudgetEvent,
    BudgetOverrunError,
    BudgetPolicy,
    Calibration,
    ChainEstimator,
    ElasticityEvent,
    ElasticityKind,
    Estimate,
    FixedEstimator,
    Flow,
    InvalidValueError,
    Ledger,
    Message,
    ModelCall,
    ModelReply,
    PolicyViolationError,
    QuestionRun,
    SlippedAnswerError,
    TaleMethod,
    TruncatedAnswerError,
    UnknownStrategyError,
    Usage,
    UsageEvent,
    ZeroShotEstimator,
    run,
)
from tale_core.testing import ScriptedModel

QUESTION = "A baker bakes 12 loaves an hour. How many in 3 hours?"


def words(count: int) -> str:
    return " ".join(["word"] * count)


def ask(model: ScriptedModel, question: str = QUESTION, **choices: Any) -> tuple[Answer, QuestionRun]:
    """Ask one question; texts cost as many tokens as they have words."""
    question_run = TaleMethod(**choices).begin(question, question_id="run-1")
    return run(question_run.answer(), model), question_run


def kinds(answer: Answer) -> list[str]:
    return [str(event.kind) for event in answer.events]


# one question, step by step


def test_the_method_estimates_then_asks_under_the_budget() -> None:
    flow = TaleMethod().begin(QUESTION).answer()
    estimating = next(flow)
    assert estimating.role == "estimate"
    asking = flow.send(ModelReply(text="[[50]]"))
    assert asking.role == "reason"
    assert asking.budget == 50
    assert asking.messages == (
        Message(role="user", content=f"{QUESTION}\n\nLet's think step by step and use less than 50 tokens:"),
    )
    with pytest.raises(StopIteration) as stop:
        flow.send(ModelReply(text=words(40), finish_reason="stop"))
    answer: Answer = stop.value.value
    assert answer.reply.text == words(40)
    assert answer.plan.budget.tokens == 50
    assert answer.events == ()


def test_planning_alone_leaves_the_visible_call_to_the_adapter() -> None:
    question_run = TaleMethod().begin(QUESTION)
    model = ScriptedModel(estimate="[[50]]")
    plan = run(question_run.plan(), model)
    assert [call.role for call in model.calls] == ["estimate"]
    assert plan.call().messages[0].content == plan.framing.apply(QUESTION)


def test_an_adapter_that_makes_the_visible_call_itself_gets_the_same_answer_and_records() -> None:
    reply = ModelReply(text=words(90), usage=Usage(output_tokens=90), finish_reason="stop")
    driven, driven_run = ask(ScriptedModel("[[50]]", reply))
    question_run = TaleMethod().begin(QUESTION, question_id="run-1")
    plan = run(question_run.plan(), ScriptedModel("[[50]]"))
    assert question_run.settle(plan, reply) == driven
    assert question_run.drain() == driven_run.drain()


def test_the_journal_tells_the_story_in_order_and_names_the_question() -> None:
    answer, question_run = ask(ScriptedModel("[[5]]", words(90)))
    journal = question_run.drain()
    assert [type(event) for event in journal] == [
        UsageEvent,
        ElasticityEvent,  # clamped
        BudgetEvent,
        UsageEvent,
        ElasticityEvent,  # overrun
    ]
    assert {event.question_id for event in journal} == {"run-1"}
    assert tuple(event for event in journal if isinstance(event, ElasticityEvent)) == answer.events
    assert kinds(answer) == ["clamped", "overrun"]


def test_a_journal_is_drained_once() -> None:
    _, question_run = ask(ScriptedModel("[[50]]", words(40)))
    assert question_run.drain()
    assert question_run.drain() == []


def test_the_answering_call_carries_budget_strategy_model_and_time_into_the_records() -> None:
    reply = ModelReply(
        text=words(40), usage=Usage(output_tokens=40), finish_reason="stop", model="m-1", seconds=1.5
    )
    _, question_run = ask(ScriptedModel("[[50]]", reply))
    estimating, asking = [event for event in question_run.drain() if isinstance(event, UsageEvent)]
    assert (estimating.role, estimating.budget, estimating.strategy) == ("estimate", None, None)
    assert asking == UsageEvent(
        question_id="run-1",
        role="reason",
        usage=Usage(output_tokens=40),
        budget=50,
        strategy="tale",
        model="m-1",
        finish_reason="stop",
        seconds=1.5,
    )


# whatever the estimator says


@settings(deadline=None, max_examples=200)
@given(
    estimate=st.text(st.characters()) | st.from_regex(r"\[\[[-0-9., k]{0,12}\]\]"),
    text=st.text(max_size=20),
    finish_reason=st.sampled_from([None, "stop", "length", "tool_calls", "content_filter", "closed"]),
    strategy=st.sampled_from(["tale", "essential", "exemplars", "words", "steps"]),
    policy=st.builds(
        BudgetPolicy,
        floor=st.integers(1, 100),
        ceiling=st.integers(100, 10**6),
        multiplier=st.floats(1e-6, 1e6),
        fallback=st.none() | st.integers(1, 1000),
        on_overrun=st.sampled_from(["record", "retry"]),
        on_truncation=st.sampled_from(["record", "retry"]),
        on_slip=st.sampled_from(["record", "retry"]),
        retries=st.integers(0, 10),
    ),
)
def test_no_estimate_and_no_answer_leads_to_a_budget_below_one_or_to_an_exception(
    estimate: str, text: str, finish_reason: Any, strategy: str, policy: BudgetPolicy
) -> None:
    reply = ModelReply(text=text, usage=Usage(output_tokens=10**5), finish_reason=finish_reason)
    model = ScriptedModel(estimate=estimate, reason=reply)
    answer, question_run = ask(model, strategy=strategy, policy=policy)
    budgets = [event.budget for event in question_run.drain() if isinstance(event, BudgetEvent)]
    assert all(budget is None or budget >= 1 for budget in budgets)
    assert 1 <= len(budgets) <= 1 + policy.retries
    assert budgets == [call.budget for call in model.calls if call.role == "reason"]
    assert answer.plan.attempt == len(budgets)
    if "unparsable" in kinds(answer):
        assert budgets[0] == policy.fallback
    else:
        assert budgets[0] is not None
        assert policy.floor <= budgets[0] <= policy.ceiling


@settings(deadline=None)
@given(question=st.text(), budget=st.integers(10**7, 10**9), strategy=st.sampled_from(["tale", "essential"]))
def test_the_budget_is_in_the_prompt_exactly_once_and_the_question_as_it_was(
    question: str, budget: int, strategy: str
) -> None:
    model = ScriptedModel(reason="fine")
    ask(model, question, estimator=budget, strategy=strategy)
    (call,) = model.calls
    content = call.messages[-1].content
    assert content.startswith(question)
    added = content[len(question) :]
    assert added.count(str(budget)) == (1 if question.strip() else 0)


@pytest.mark.parametrize("reply", ["", "no idea", "[[0]]", "[[-5]]"])
@pytest.mark.parametrize(("fallback", "wording"), [(None, "step by step:"), (80, "use less than 80 tokens:")])
def test_an_unusable_estimate_means_the_fallback_and_an_event(
    reply: str, fallback: int | None, wording: str
) -> None:
    model = ScriptedModel(reply, words(40))
    answer, question_run = ask(model, policy=BudgetPolicy(fallback=fallback))
    assert model.calls[-1].messages[0].content.endswith(wording)
    assert (answer.plan.budget.tokens, answer.plan.budget.source) == (fallback, "fallback")
    (event,) = answer.events
    assert (event.kind, event.budget) == (ElasticityKind.UNPARSABLE, fallback)
    assert event.detail == "no usable number in the estimator's reply"
    assert isinstance(question_run.drain()[0], UsageEvent)  # it was paid for all the same


def test_an_estimate_outside_the_bounds_is_clamped_and_says_what_it_was() -> None:
    answer, _ = ask(ScriptedModel("[[5]]", words(15)), policy=BudgetPolicy(floor=20))
    assert (answer.plan.budget.tokens, answer.plan.budget.estimate) == (20, 5)
    (event,) = answer.events
    assert (event.kind, event.budget, event.estimate, event.actual) == ("clamped", 20, 5, None)


def test_a_budget_somebody_named_is_exact_whatever_the_policy() -> None:
    policy = BudgetPolicy(floor=100, ceiling=200, multiplier=3)
    model = ScriptedModel(reason=words(15))
    answer, _ = ask(model, estimator=20, policy=policy)
    assert (answer.plan.budget.tokens, answer.plan.budget.source, kinds(answer)) == (20, "fixed", [])
    assert [call.role for call in model.calls] == ["reason"]
    assert answer.estimate_usage is None


# failures


class Crashing:
    """An estimator that pays for a call and then fails."""

    name = "crashing"

    def estimate(self, question: str) -> Flow[Estimate]:
        yield ModelCall(role="estimate", messages=(Message(role="user", content=question),))
        raise ZeroDivisionError(question)


@pytest.mark.parametrize(
    ("estimator", "line", "name"),
    [(ZeroShotEstimator(), TimeoutError("slow"), "TimeoutError"), (Crashing(), "5", "ZeroDivisionError")],
)
def test_an_estimator_that_fails_falls_back_and_is_recorded_without_the_prompt(
    estimator: Any, line: Any, name: str
) -> None:
    answer, question_run = ask(ScriptedModel(line, words(40)), estimator=estimator)
    assert (answer.plan.budget.tokens, answer.plan.budget.source) == (None, "fallback")
    (event,) = answer.events
    assert (event.kind, event.detail) == ("unparsable", f"the estimator raised {name}")
    assert QUESTION not in repr(question_run.drain())


def test_an_estimator_that_fails_raises_its_own_exception_where_the_policy_says_so() -> None:
    error = TimeoutError("slow")
    with pytest.raises(TimeoutError) as caught:
        ask(ScriptedModel(error), policy=BudgetPolicy(on_estimator_error="raise"))
    assert caught.value is error


def test_what_a_failed_estimator_paid_for_is_recorded_even_where_it_raises() -> None:
    question_run = TaleMethod(estimator=Crashing(), policy=BudgetPolicy(on_estimator_error="raise")).begin(
        QUESTION
    )
    with pytest.raises(ZeroDivisionError):
        run(question_run.answer(), ScriptedModel("5"))
    (event,) = question_run.drain()
    assert isinstance(event, UsageEvent)
    assert event.role == "estimate"


def test_an_exception_of_the_answering_model_reaches_the_caller_unchanged() -> None:
    error = ConnectionError("gone")
    with pytest.raises(ConnectionError) as caught:
        ask(ScriptedModel("[[50]]", error))
    assert caught.value is error


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_of_the_estimator_is_no_failed_estimate(interruption: type[BaseException]) -> None:
    def interrupt(call: ModelCall) -> ModelReply:
        raise interruption

    with pytest.raises(interruption):
        run(TaleMethod().begin(QUESTION).answer(), interrupt)


class Careless:
    """An estimator that returns a bare number."""

    name = "careless"

    def estimate(self, question: str) -> Flow[Estimate]:
        yield from ()
        return 50  # type: ignore[return-value]


def test_an_estimator_that_returns_no_estimate_is_named() -> None:
    with pytest.raises(InvalidValueError, match=r"returns an Estimate; <.*Careless.*> returned 50"):
        ask(ScriptedModel("never asked"), estimator=Careless())


# overrun and truncation


def test_an_overrun_is_recorded_and_the_answer_kept_by_default() -> None:
    answer, _ = ask(ScriptedModel("[[50]]", words(90)))
    assert (answer.reply.text, kinds(answer), answer.plan.attempt) == (words(90), ["overrun"], 1)


def test_an_overrun_is_asked_again_with_twice_the_budget() -> None:
    model = ScriptedModel("[[50]]", words(90), words(95))
    answer, question_run = ask(model, policy=BudgetPolicy(on_overrun="retry"))
    assert [call.budget for call in model.calls] == [None, 50, 100]
    assert "less than 100 tokens" in model.calls[-1].messages[0].content
    assert "less than 50 tokens" not in model.calls[-1].messages[0].content
    assert (answer.reply.text, answer.plan.attempt) == (words(95), 2)
    assert (answer.plan.budget.source, answer.plan.budget.estimate) == ("retry", 50)
    assert (answer.observed, kinds(answer)) == ((), ["overrun"])
    spent = [event.usage.output_tokens for event in question_run.drain() if isinstance(event, UsageEvent)]
    assert spent == [1, 90, 95]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_retries_end_where_the_policy_says(retries: int) -> None:
    model = ScriptedModel(estimate="[[50]]", reason=words(10_000))
    answer, _ = ask(model, policy=BudgetPolicy(on_overrun="retry", retries=retries))
    assert [call.budget for call in model.calls[1:]] == [50 * 2**attempt for attempt in range(retries + 1)]
    assert answer.plan.attempt == retries + 1
    assert kinds(answer) == ["overrun"] * (retries + 1)


def test_a_retrying_policy_asks_again_once_unless_told_otherwise() -> None:
    answer, _ = ask(
        ScriptedModel(estimate="[[50]]", reason=words(10_000)), policy=BudgetPolicy(on_overrun="retry")
    )
    assert answer.plan.attempt == 2


CUT = ModelReply(text=words(50), usage=Usage(output_tokens=50), finish_reason="length")


@pytest.mark.parametrize("cut", [CUT, ModelReply(text="", usage=Usage(), finish_reason="stop")])
def test_a_cut_or_empty_answer_is_asked_again_without_a_budget(cut: ModelReply) -> None:
    model = ScriptedModel("[[50]]", cut, words(200))
    answer, _ = ask(model, policy=BudgetPolicy(on_truncation="retry"))
    assert [call.budget for call in model.calls] == [None, 50, None]
    assert model.calls[-1].messages[0].content.endswith("Let's think step by step:")
    assert (answer.reply.text, kinds(answer)) == (words(200), ["truncated"])


def test_a_cut_answer_without_a_budget_is_not_asked_again() -> None:
    model = ScriptedModel("no idea", CUT)
    answer, _ = ask(model, policy=BudgetPolicy(on_truncation="retry", retries=5))
    assert kinds(answer) == ["unparsable", "truncated"]


SLIPPED = f"{words(20)} 3 + 9 + 16 = 38. So [[38]]."


def test_an_answer_that_slips_in_a_sum_is_asked_again_with_the_sum_put_right() -> None:
    model = ScriptedModel("[[50]]", SLIPPED, "3 + 9 + 16 = 28. So [[28]].")
    answer, question_run = ask(model, policy=BudgetPolicy(on_slip="retry"))
    first, again = (call.messages[-1].content for call in model.calls[1:])
    assert again == first.replace(QUESTION, f"{QUESTION}\n\nNote that 3 + 9 + 16 = 28.")
    assert [call.budget for call in model.calls] == [None, 50, 50]
    assert (answer.reply.text, answer.plan.attempt) == ("3 + 9 + 16 = 28. So [[28]].", 2)
    assert kinds(answer) == ["slip", "collapse"]
    assert answer.plan.budget.source == "zero-shot"
    assert "38" not in str(question_run.drain())  # events hold no text of the answer


@pytest.mark.parametrize(("policy", "seen"), [(BudgetPolicy(), False), (BudgetPolicy(on_slip="record"), True)])
def test_arithmetic_errors_are_looked_for_on_request_only(policy: BudgetPolicy, seen: bool) -> None:
    answer, _ = ask(ScriptedModel("[[50]]", SLIPPED), policy=policy)
    assert answer.plan.attempt == 1
    assert ("slip" in kinds(answer)) == seen


def test_an_answer_that_goes_on_slipping_is_asked_again_only_as_often_as_the_policy_says() -> None:
    model = ScriptedModel(estimate="[[50]]", reason=SLIPPED)
    answer, _ = ask(model, policy=BudgetPolicy(on_slip="retry", retries=2))
    assert (answer.plan.attempt, len(model.calls)) == (3, 4)


def test_a_slip_without_a_budget_is_put_right_too() -> None:
    model = ScriptedModel(SLIPPED, "28")
    ask(model, strategy="vanilla", policy=BudgetPolicy(on_slip="retry"))
    assert "Note that 3 + 9 + 16 = 28.\n\nLet's think step by step:" in model.calls[-1].messages[-1].content


def test_a_slip_is_put_right_in_the_language_of_the_question() -> None:
    model = ScriptedModel("[[50]]", "3 + 4 = 8", "7")
    run(TaleMethod(policy=BudgetPolicy(on_slip="retry")).begin("三加四是多少？").answer(), model)
    assert "请注意：3 + 4 = 7。" in model.calls[-1].messages[-1].content


def test_a_slip_that_the_policy_forbids_raises_with_the_text_that_was_paid_for() -> None:
    message = r"does not come out .* set on_slip='retry' or 'record'"
    with pytest.raises(SlippedAnswerError, match=message) as raised:
        ask(ScriptedModel("[[50]]", SLIPPED), policy=BudgetPolicy(on_slip="raise"))
    assert raised.value.text == SLIPPED


def test_a_cut_answer_that_also_overran_is_asked_again_as_cut() -> None:
    cut = CUT.model_copy(update={"usage": Usage(output_tokens=500)})
    model = ScriptedModel("[[50]]", cut, words(200))
    ask(model, policy=BudgetPolicy(on_truncation="retry", on_overrun="retry"))
    assert model.calls[-1].budget is None


@pytest.mark.parametrize(
    ("policy", "reply", "error", "message"),
    [
        (
            BudgetPolicy(on_overrun="raise"),
            ModelReply(text="far too long", usage=Usage(output_tokens=90), finish_reason="stop"),
            BudgetOverrunError,
            "took 90 output tokens with a budget of 50; raise the budget or the tolerance",
        ),
        (
            BudgetPolicy(on_truncation="raise", on_overrun="retry"),
            ModelReply(text="cut in the mid", usage=Usage(output_tokens=90), finish_reason="length"),
            TruncatedAnswerError,
            r"cut or is empty after 90 output tokens \(budget 50\); raise the model's own output limit",
        ),
    ],
)
def test_a_raising_policy_raises_with_the_text_that_was_paid_for(
    policy: BudgetPolicy, reply: ModelReply, error: type[PolicyViolationError], message: str
) -> None:
    question_run = TaleMethod(policy=policy).begin(QUESTION)
    with pytest.raises(error, match=message) as caught:
        run(question_run.answer(), ScriptedModel("[[50]]", reply))
    assert caught.value.text == reply.text
    ledger = Ledger()
    ledger.record_all(question_run.drain())
    assert ledger.totals("reason").output_tokens == 90


def test_a_collapse_is_recorded_under_the_published_wording() -> None:
    answer, _ = ask(ScriptedModel("[[50]]", "The answer is 36."))
    assert kinds(answer) == ["collapse"]


def test_direct_and_vanilla_ask_without_an_estimate_and_show_no_collapse() -> None:
    for strategy in ("direct", "vanilla"):
        model = ScriptedModel(reason="36")
        answer, _ = ask(model, strategy=strategy)
        assert [call.role for call in model.calls] == ["reason"]
        assert (answer.plan.budget.tokens, answer.plan.budget.source, kinds(answer)) == (None, "none", [])


# accounts


def test_the_ledger_of_a_question_states_its_saving_net_of_estimate_and_retries() -> None:
    model = ScriptedModel("[[50]]", words(90), words(95))
    _, question_run = ask(model, policy=BudgetPolicy(on_overrun="retry"))
    ledger = Ledger()
    ledger.record_all(question_run.drain())
    savings = ledger.savings(400)
    assert (savings.reason, savings.estimate, savings.net_tokens) == (185, 1, 214)


def test_a_call_without_a_usage_is_estimated_and_marked() -> None:
    answer, question_run = ask(ScriptedModel("[[50]]", ModelReply(text=words(40), finish_reason="stop")))
    assert answer.reason_usage.source == "estimated"
    assert answer.reason_usage.output_tokens > 0
    assert answer.estimate_usage is not None
    assert answer.estimate_usage.source == "measured"
    sources = [event.usage.source for event in question_run.drain() if isinstance(event, UsageEvent)]
    assert sources == ["measured", "estimated"]


class TwoCalls:
    """An estimator that asks twice."""

    name = "twice"

    def estimate(self, question: str) -> Flow[Estimate]:
        call = ModelCall(role="estimate", messages=(Message(role="user", content=question),))
        yield call
        yield call
        return Estimate(tokens=50, source=self.name)


@pytest.mark.parametrize(
    ("second", "source"), [("two words", "measured"), (ModelReply(text="two words"), "estimated")]
)
def test_the_cost_of_estimating_is_all_measured_or_all_estimated(second: Any, source: str) -> None:
    answer, question_run = ask(ScriptedModel("one two three", second, words(40)), estimator=TwoCalls())
    assert answer.estimate_usage is not None
    assert answer.estimate_usage.source == source
    if source == "measured":
        assert answer.estimate_usage.output_tokens == 5
    assert len([event for event in question_run.drain() if getattr(event, "role", "") == "estimate"]) == 2


def test_the_summary_is_plain_data_with_the_figures_and_no_prompt() -> None:
    answer, _ = ask(ScriptedModel("[[5]]", words(90)))
    summary = answer.summary()
    expected = {"budget": 16, "source": "zero-shot", "estimate": 5, "strategy": "tale", "attempts": 1}
    assert expected.items() <= summary.items()
    assert summary["reason_usage"] == answer.reason_usage.model_dump(mode="json")
    assert summary["events"] == [
        {"kind": "clamped", "budget": 16, "estimate": 5},
        {"kind": "overrun", "budget": 16, "actual": 90, "counted": "measured"},
    ]
    assert QUESTION not in repr(summary)


# what is asked


def test_the_estimator_sees_the_question_and_the_framing_goes_around_what_is_shown() -> None:
    model = ScriptedModel(estimate="[[50]]", reason=words(40))
    question_run = TaleMethod().begin("How many?", shown="Context: 12 loaves.\n\nHow many?")
    run(question_run.answer(), model)
    estimating, asking = (call.messages[-1].content for call in model.calls)
    assert "Context" not in estimating
    assert asking.startswith("Context: 12 loaves.\n\nHow many?\n\nLet's think")


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question_is_asked_as_it_is_without_estimate_budget_or_framing(question: str) -> None:
    model = ScriptedModel(reason="fine")
    answer, _ = ask(model, question)
    (call,) = model.calls
    assert call.messages[-1].content == question
    assert (answer.plan.budget.tokens, kinds(answer)) == (None, [])


def test_a_chinese_question_is_estimated_and_asked_in_chinese() -> None:
    model = ScriptedModel("[[50]]", words(40))
    ask(model, "面包师每小时烤12个面包，三小时烤多少个？")
    estimating, asking = (call.messages[-1].content for call in model.calls)
    assert estimating.startswith("任务：")
    assert asking.endswith("让我们一步一步思考并使用少于 50 tokens:")


# the choices


PROFILE = Calibration(model="m-1", strategy="essential", budget=90, policy=BudgetPolicy(floor=60))


def test_a_calibration_fills_in_what_the_caller_left_open() -> None:
    method = TaleMethod(calibration=PROFILE)
    assert (method.strategy.name, method.policy) == ("essential", PROFILE.policy)
    assert isinstance(method.estimator, FixedEstimator)
    assert method.estimator.tokens == 90


def test_what_the_caller_names_wins_over_the_calibration() -> None:
    policy = BudgetPolicy(floor=5)
    estimator = ChainEstimator(FixedEstimator(7))
    method = TaleMethod(calibration=PROFILE, strategy="tale", policy=policy, estimator=estimator)
    assert (method.strategy.name, method.policy, method.estimator) == ("tale", policy, estimator)


def test_a_calibration_without_a_budget_leaves_the_estimate_to_the_model() -> None:
    calibration = PROFILE.model_copy(update={"budget": None})
    assert isinstance(TaleMethod(calibration=calibration).estimator, ZeroShotEstimator)


def test_wrong_choices_fail_when_they_are_made() -> None:
    with pytest.raises(UnknownStrategyError, match="'tael'"):
        TaleMethod(strategy="tael")
    with pytest.raises(InvalidValueError, match="'fr'"):
        TaleMethod(language="fr")
    with pytest.raises(InvalidValueError, match="got 'zero-shot'"):
        TaleMethod(estimator="zero-shot")
    with pytest.raises(InvalidValueError, match="at least 1, got 0"):
        TaleMethod(estimator=0)
    with pytest.raises(InvalidValueError, match="got 5"):
        TaleMethod(strategy=5)


def test_a_hundred_questions_over_one_method_keep_their_records_apart() -> None:
    method = TaleMethod(estimator=50)
    runs = [method.begin(f"Question {number}?", question_id=str(number)) for number in range(100)]
    flows = [one.answer() for one in runs]
    calls = [next(flow) for flow in flows]
    for number, flow in enumerate(flows):  # interleaved: all asked before any is answered
        with pytest.raises(StopIteration):
            flow.send(ModelReply(text="x", usage=Usage(output_tokens=number), finish_reason="stop"))
    for number, (one, call) in enumerate(zip(runs, calls, strict=True)):
        journal = one.drain()
        assert {event.question_id for event in journal} == {str(number)}
        (usage,) = [event.usage for event in journal if isinstance(event, UsageEvent)]
        assert usage.output_tokens == number
        assert call.messages[-1].content.startswith(f"Question {number}?")


@pytest.mark.parametrize(
    ("whole", "share", "expected"), [(100, 0.3, 30), (100, 0.01, 16), (8, 0.5, 8), (100, 1, 100)]
)
def test_a_portion_of_a_budget_stays_above_the_floor(whole: int, share: float, expected: int) -> None:
    one = TaleMethod(estimator=whole).begin(QUESTION)
    plan = run(one.plan(), ScriptedModel("unused"))
    one.drain()
    portion = one.portion(plan, share)
    assert portion.budget.tokens == expected
    assert f"{expected} tokens" in portion.framing.after
    assert one.drain() == []


def test_no_budget_has_no_portions() -> None:
    one = TaleMethod(strategy="vanilla").begin(QUESTION)
    plan = run(one.plan(), ScriptedModel("unused"))
    assert one.portion(plan, 0.5) is plan


@pytest.mark.parametrize(
    ("estimator", "said"), [(ZeroShotEstimator, "the class ZeroShotEstimator"), ("70", "'70'"), (2.5, "2.5")]
)
def test_what_is_no_estimator_is_shown_with_what_would_do(estimator: Any, said: str) -> None:
    with pytest.raises(InvalidValueError, match=f"got {said}; "):
        TaleMethod(estimator=estimator)


def test_what_is_no_policy_is_shown_with_how_to_build_one() -> None:
    with pytest.raises(InvalidValueError, match=r"got {'floor': 30}; build one: BudgetPolicy\("):
        TaleMethod(policy={"floor": 30})  # type: ignore[arg-type]
