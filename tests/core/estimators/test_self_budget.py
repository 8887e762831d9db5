"""One call in which the model states a budget, and is held to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale_core import (
    Answer,
    BudgetEvent,
    BudgetPolicy,
    ElasticityKind,
    Ledger,
    ModelReply,
    SelfBudget,
    TaleMethod,
    Usage,
    UsageEvent,
    arun,
    get_strategy,
    run,
)
from tale_core.testing import ScriptedModel

QUESTION = "Janet has 16 eggs, eats 3 and bakes with 4. How many are left?"
STYLE = SelfBudget()


def reply(text: str, tokens: int, **changes: str) -> ModelReply:
    return ModelReply.model_validate(
        {"text": text, "usage": Usage(input_tokens=30, output_tokens=tokens), "finish_reason": "stop"} | changes
    )


def asked(
    *script: str | ModelReply, policy: BudgetPolicy | None = None
) -> tuple[Answer, ScriptedModel, Ledger]:
    model = ScriptedModel(*script)
    question = TaleMethod(strategy="self-budget", policy=policy).begin(QUESTION)
    answer = run(question.answer(), model)
    ledger = Ledger()
    ledger.record_all(question.drain())
    return answer, model, ledger


def kinds(answer: Answer) -> list[ElasticityKind]:
    return [event.kind for event in answer.events]


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("Budget: 60 tokens\n16 - 3 - 4 = 9", 60),
        ("**Budget: 60 tokens.** Janet has 16 eggs.", 60),
        ("**Budget:** 60\n\nStep 1: 16 - 3 = 13", 60),
        ("Budget: 1,200 tokens", 1200),
        ("budget = 40", 40),
        ("My token budget is about 50 tokens. First, 16 - 3", 50),
        ("预算：80 tokens。然后一步一步", 80),
        ("Budget: ６０ tokens", 60),
        ("<think>Budget: 5 tokens?</think>Budget: 60 tokens", 60),
        ("Budget: N tokens\nBudget: 70 tokens", 70),
        ("Budget: 20 tokens\nThe family's budget is 500 tokens of play money.", 20),
        ("The family has a budget of $300. They spend 12.", None),
        ("Budget: $300", None),
        ("Budget: N tokens. 16 - 3 - 4 = 9", None),
        ("Budget: 0 tokens", None),
        ("Budget: -5 tokens", None),
        ("16 - 3 - 4 = 9", None),
        ("Janet starts with 16 eggs. " * 20 + "Budget: 60 tokens", None),
        ("", None),
    ],
)
def test_the_budget_is_read_from_the_head_of_the_answer(text: str, budget: int | None) -> None:
    assert STYLE.stated_budget(text) == budget


@given(st.text() | st.from_regex(r"budget.{0,60}", fullmatch=True))
def test_no_text_states_a_budget_below_one(text: str) -> None:
    stated = STYLE.stated_budget(text)
    assert stated is None or stated >= 1


def test_there_is_one_call_and_no_estimate() -> None:
    answer, model, ledger = asked(reply("Budget: 60 tokens\n16 - 3 - 4 = 9", 40))
    (call,) = model.calls
    assert (call.role, call.budget) == ("reason", None)
    assert call.messages[0].content.startswith(QUESTION)
    assert 'First write "Budget: N tokens"' in call.messages[0].content
    assert answer.estimate_usage is None
    assert ledger.count("estimate") == 0


def test_the_stated_budget_is_recorded_as_the_models_own() -> None:
    answer, _, ledger = asked(reply("Budget: 60 tokens\n16 - 3 - 4 = 9", 40))
    assert answer.summary() | {"budget": 60, "source": "self", "strategy": "self-budget"} == answer.summary()
    (budget,) = ledger.budgets
    assert (budget.budget, budget.source, budget.estimate) == (60, "self", 60)
    (call,) = ledger.calls
    assert call.budget == 60
    assert kinds(answer) == []


def test_there_is_one_budget_event_and_it_comes_before_the_usage() -> None:
    question = TaleMethod(strategy="self-budget").begin(QUESTION)
    plan = run(question.plan(), ScriptedModel("unused"))
    assert question.drain() == []
    question.settle(plan, reply("Budget: 60 tokens\n16 - 3 - 4 = 9", 40))
    assert [type(event) for event in question.drain()] == [BudgetEvent, UsageEvent]


@pytest.mark.parametrize(
    ("tokens", "kind"),
    [(200, ElasticityKind.OVERRUN), (12, ElasticityKind.UNDERRUN), (9, ElasticityKind.COLLAPSE)],
)
def test_the_answer_is_judged_against_the_stated_budget(tokens: int, kind: ElasticityKind) -> None:
    answer, *_ = asked(reply("Budget: 60 tokens\n16 - 3 - 4 = 9", tokens))
    assert kinds(answer) == [kind]
    assert answer.events[0].budget == 60


def test_an_answer_without_a_budget_is_recorded_and_stands() -> None:
    answer, _, ledger = asked(reply("16 - 3 - 4 = 9. The answer is 9.", 40))
    assert answer.reply.text == "16 - 3 - 4 = 9. The answer is 9."
    assert kinds(answer) == [ElasticityKind.UNPARSABLE]
    assert [(one.budget, one.source) for one in ledger.budgets] == [(None, "self")]


def test_a_stream_left_before_the_budget_is_no_failure_of_the_model() -> None:
    answer, *_ = asked(reply("Bud", 1, finish_reason="closed"))
    assert kinds(answer) == []


def test_an_overrun_is_asked_again_with_the_budget_in_the_prompt() -> None:
    answer, model, ledger = asked(
        reply("Budget: 30 tokens\n...", 200),
        reply("16 - 3 - 4 = 9", 50),
        policy=BudgetPolicy(on_overrun="retry"),
    )
    assert [call.budget for call in model.calls] == [None, 60]
    assert model.calls[1].messages[0].content.endswith("use less than 60 tokens:")
    assert (answer.plan.budget.tokens, answer.plan.budget.source) == (60, "retry")
    assert [one.source for one in ledger.budgets] == ["self", "retry"]


def test_a_cut_answer_is_not_asked_again_without_a_budget_that_was_never_in_the_prompt() -> None:
    cut = reply("Budget: 60 tokens\n16 - 3", 40, finish_reason="length")
    answer, model, _ = asked(cut, policy=BudgetPolicy(on_truncation="retry"))
    assert len(model.calls) == 1
    assert kinds(answer) == [ElasticityKind.TRUNCATED]


def test_nothing_to_ask_is_asked_without_a_budget() -> None:
    question = TaleMethod(strategy="self-budget").begin("  ")
    answer = run(question.answer(), ScriptedModel("Budget: 60 tokens"))
    assert answer.plan.budget.tokens is None
    assert answer.plan.budget.source == "none"


async def test_both_drivers_send_the_same_call() -> None:
    models = [ScriptedModel("Budget: 20 tokens. It is nine.") for _ in range(2)]
    method = TaleMethod(strategy="self-budget")
    sync = run(method.begin(QUESTION).answer(), models[0])
    other = await arun(method.begin(QUESTION).answer(), models[1].acall)
    assert models[0].calls == models[1].calls
    assert sync.plan == other.plan


def test_a_chinese_question_is_asked_in_chinese() -> None:
    framing = get_strategy("self-budget").frame("小明有3个苹果，又买了5个，一共有几个？", None)
    assert "预算" in framing.after
