"""The handler and its ledger: every call in its place, whoever asked, however many at once."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel
from scripted_chat_model import ScriptedChatModel

from tale_core import BudgetPolicy, ElasticityKind, Ledger, TruncatedAnswerError
from tale_core.testing import ScriptedModel
from tale_core.types import ModelCall, ModelReply, Usage
from tale_langchain import TALECallbackHandler, TALERunnable

QUESTION = "How many eggs are in four dozen?"

Ask = Callable[..., Awaitable[AIMessage]]


def number(call: ModelCall) -> int:
    """Return the number of the question that a call is about."""
    found = re.search(r"question number (\d+)", call.messages[-1].content)
    assert found is not None
    return int(found[1])


def numbered() -> ScriptedChatModel:
    """Question n is estimated at 20 + n tokens and answered in 15 + n words, a little later."""
    script = ScriptedModel(
        estimate=lambda call: f"[[{20 + number(call)}]]",
        reason=lambda call: " ".join(["word"] * (15 + number(call))),
    )
    return ScriptedChatModel(script, latency=0.003)


@pytest.mark.parametrize("way", ["batch", "abatch", "gather", "chain"])
async def test_a_hundred_questions_at_once_on_one_handler_each_get_their_own_accounts(
    way: str, handler: TALECallbackHandler
) -> None:
    tale, config = TALERunnable(numbered()), {"callbacks": [handler], "max_concurrency": 50}
    questions = [f"question number {n}" for n in range(100)]
    if way == "batch":
        answers = tale.batch(questions, config)
    elif way == "abatch":
        answers = await tale.abatch(questions, config)
    elif way == "gather":
        answers = await asyncio.gather(*(tale.ainvoke(question, config) for question in questions))
    else:
        chain = ChatPromptTemplate.from_template("{q}") | tale
        answers = await chain.abatch([{"q": question} for question in questions], config)
    assert [answer.response_metadata["tale"]["budget"] for answer in answers] == [20 + n for n in range(100)]
    budgets = {event.question_id: event.budget for event in handler.ledger.budgets}
    assert sorted(budgets.values()) == [20 + n for n in range(100)]
    roles = Counter((call.question_id, call.role) for call in handler.ledger.calls)
    assert roles == {(one, role): 1 for one in budgets for role in ("estimate", "reason")}
    for call in handler.ledger.calls:
        if call.role == "reason":
            assert call.budget == budgets[call.question_id] == call.usage.output_tokens + 5


async def test_a_question_is_known_by_the_id_of_its_run(ask: Ask, handler: TALECallbackHandler) -> None:
    run_id = uuid4()
    model = ScriptedChatModel(ScriptedModel(estimate="[[40]]", reason="48"))
    await ask(TALERunnable(model), QUESTION, {"callbacks": [handler], "run_id": run_id})
    assert {call.question_id for call in handler.ledger.calls} == {str(run_id)}
    assert {event.question_id for event in handler.ledger.events} == {str(run_id)}


async def test_a_handler_attached_at_several_levels_counts_once(ask: Ask, handler: TALECallbackHandler) -> None:
    config: Any = {"callbacks": [handler]}
    model = ScriptedChatModel(ScriptedModel(estimate="[[40]]", reason="48"), callbacks=[handler])
    inner = TALERunnable(model.with_config(config)).with_config(config)
    chain = (RunnableLambda(lambda text: text) | inner).with_config(config)
    await ask(chain, QUESTION, {"callbacks": [handler, handler]})
    assert [call.role for call in handler.ledger.calls] == ["estimate", "reason"]


def test_two_runnables_side_by_side_share_a_handler(tale: TALERunnable, handler: TALECallbackHandler) -> None:
    both = RunnableParallel(one=tale, two=TALERunnable(tale.model, estimator=60))
    both.invoke(QUESTION, {"callbacks": [handler]})
    assert sorted(event.budget or 0 for event in handler.ledger.budgets) == [40, 60]
    assert handler.ledger.count("reason") == 2


def test_two_handlers_may_share_a_ledger(tale: TALERunnable) -> None:
    ledger = Ledger()
    for _ in range(2):
        tale.invoke(QUESTION, {"callbacks": [TALECallbackHandler(ledger)]})
    assert ledger.count() == 4


async def test_estimates_are_in_the_ledger_and_in_every_saving(
    ask: Ask, tale: TALERunnable, handler: TALECallbackHandler
) -> None:
    await ask(tale, QUESTION, {"callbacks": [handler]})
    assert handler.ledger.totals("estimate").output_tokens == 2
    assert handler.ledger.savings(100).net_tokens == 100 - 19 - 2


def test_printed_it_is_a_table(tale: TALERunnable, handler: TALECallbackHandler) -> None:
    tale.invoke(QUESTION, {"callbacks": [handler]})
    lines = str(handler).splitlines()
    assert lines[0].split() == ["role", "calls", "input", "output", "thinking", "counted"]
    assert [line.split()[:2] for line in lines[1:]] == [["estimate", "1"], ["reason", "1"]]
    assert repr(handler) == "TALECallbackHandler(2 calls)"


def test_events_of_others_pass_by(handler: TALECallbackHandler) -> None:
    handler.on_custom_event("progress", {"done": 3}, run_id=uuid4())
    assert handler.ledger.count() == 0


class Events(AsyncCallbackHandler):
    """Keeps custom events, as any handler may."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any, UUID]] = []

    async def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self.seen.append((name, data, run_id))


async def test_budget_usage_and_elasticity_are_custom_events_of_plain_data(ask: Ask) -> None:
    events = Events()
    tale = TALERunnable(ScriptedChatModel(ScriptedModel(estimate="[[40]]", reason="48")))
    await ask(tale, QUESTION, {"callbacks": [events]})
    assert [name for name, _, _ in events.seen] == [
        "tale_usage",
        "tale_budget",
        "tale_usage",
        "tale_elasticity",
    ]
    assert all({"question_id": str(run_id)}.items() <= data.items() for _, data, run_id in events.seen)
    assert events.seen[1][1]["budget"] == 40
    assert events.seen[2][1]["usage"]["output_tokens"] == 1
    assert events.seen[3][1]["kind"] == "collapse"


async def test_the_budget_is_told_before_the_answer_is_asked_for(every_way: dict[str, Ask]) -> None:
    order: list[str] = []

    class Order(Events):
        async def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
            order.append(name)

    def reason(_: ModelCall) -> str:
        order.append("asked")
        return "48"

    tale = TALERunnable(ScriptedChatModel(ScriptedModel(estimate="[[40]]", reason=reason)))
    for ask in every_way.values():
        await ask(tale, QUESTION, {"callbacks": [Order()]})
        assert order[:3] == ["tale_usage", "tale_budget", "asked"]
        order.clear()


async def test_nothing_depends_on_context_that_python_3_10_does_not_carry(
    handler: TALECallbackHandler, tale: TALERunnable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langchain_core.runnables.utils.asyncio_accepts_context", lambda: False)
    chain = ChatPromptTemplate.from_template("{q}") | tale
    await chain.ainvoke({"q": QUESTION}, {"callbacks": [handler]})
    assert [chunk async for chunk in chain.astream({"q": QUESTION}, {"callbacks": [handler]})]
    assert [call.role for call in handler.ledger.calls] == ["estimate", "reason"] * 2
    assert len({call.question_id for call in handler.ledger.calls}) == 2


async def test_an_estimate_that_fails_falls_back_and_is_recorded(
    ask: Ask, handler: TALECallbackHandler
) -> None:
    model = ScriptedChatModel(ScriptedModel(estimate=TimeoutError("slow"), reason="So it is " * 10))
    answer = await ask(TALERunnable(model), QUESTION, {"callbacks": [handler]})
    assert model.sent[-1].text.endswith("Let's think step by step:")
    assert answer.response_metadata["tale"]["source"] == "fallback"
    assert [event.kind for event in handler.ledger.events] == [ElasticityKind.UNPARSABLE]


async def test_an_estimate_that_fails_raises_where_the_policy_says_so(ask: Ask) -> None:
    model = ScriptedChatModel(ScriptedModel(estimate=TimeoutError("slow"), reason="48"))
    with pytest.raises(TimeoutError, match="slow"):
        await ask(TALERunnable(model, policy=BudgetPolicy(on_estimator_error="raise")), QUESTION)


async def test_an_exception_of_the_model_reaches_the_user_unchanged(
    ask: Ask, handler: TALECallbackHandler
) -> None:
    error = PermissionError("no credit")
    model = ScriptedChatModel(ScriptedModel(estimate="[[40]]", reason=error))
    with pytest.raises(PermissionError) as raised:
        await ask(TALERunnable(model), QUESTION, {"callbacks": [handler]})
    assert raised.value is error
    assert handler.ledger.totals("estimate").output_tokens == 1


def cut(text: str) -> ModelReply:
    return ModelReply(
        text=text, usage=Usage(input_tokens=9, output_tokens=len(text.split())), finish_reason="length"
    )


async def test_a_cut_answer_is_asked_for_again_without_a_budget(
    every_way: dict[str, Ask], handler: TALECallbackHandler
) -> None:
    policy = BudgetPolicy(on_truncation="retry")
    for way in ("invoke", "ainvoke", "batch", "abatch"):
        model = ScriptedChatModel(ScriptedModel(cut("Four dozen are"), "Four dozen are 48", estimate="[[40]]"))
        answer = await every_way[way](TALERunnable(model, policy=policy), QUESTION, {"callbacks": [handler]})
        assert answer.text == "Four dozen are 48"
        assert answer.response_metadata["tale"]["attempts"] == 2
        assert [sent.text.rsplit("\n", 1)[-1] for sent in model.sent[1:]] == [
            "Let's think step by step and use less than 40 tokens:",
            "Let's think step by step:",
        ]
    assert handler.ledger.totals("reason").output_tokens == 4 * (3 + 4)


def test_an_overrun_is_asked_for_again_with_twice_the_budget(handler: TALECallbackHandler) -> None:
    model = ScriptedChatModel(ScriptedModel("word " * 90, "word " * 30, estimate="[[20]]"))
    tale = TALERunnable(model, policy=BudgetPolicy(on_overrun="retry"))
    tale.invoke(QUESTION, {"callbacks": [handler]})
    assert [event.budget for event in handler.ledger.budgets] == [20, 40]
    assert [event.kind for event in handler.ledger.events] == [ElasticityKind.OVERRUN]


async def test_a_slip_is_put_right_in_the_second_asking(
    every_way: dict[str, Ask], handler: TALECallbackHandler
) -> None:
    for way in ("invoke", "ainvoke"):
        model = ScriptedChatModel(ScriptedModel("48 + 12 = 50", "48 + 12 = 60", estimate="[[40]]"))
        tale = TALERunnable(model, policy=BudgetPolicy(on_slip="retry"))
        answer = await every_way[way](tale, QUESTION, {"callbacks": [handler]})
        assert answer.text == "48 + 12 = 60"
        assert f"{QUESTION}\n\nNote that 48 + 12 = 60.\n\nLet's think" in model.sent[-1].text
    assert ElasticityKind.SLIP in {event.kind for event in handler.ledger.events}


async def test_a_cut_answer_raises_where_the_policy_says_so(ask: Ask, handler: TALECallbackHandler) -> None:
    model = ScriptedChatModel(ScriptedModel(estimate="[[40]]", reason=cut("Four dozen")))
    tale = TALERunnable(model, policy=BudgetPolicy(on_truncation="raise"))
    with pytest.raises(TruncatedAnswerError, match="cut") as raised:
        await ask(tale, QUESTION, {"callbacks": [handler]})
    assert raised.value.text == "Four dozen"
    assert handler.ledger.totals("reason").output_tokens == 2
    assert [event.kind for event in handler.ledger.events] == [ElasticityKind.TRUNCATED]


@pytest.mark.parametrize(
    "reply",
    ["[[0]]", "[[-5]]", "[[99999999999]]", "", "no idea", "<think>maybe 40</think>", "[[１２]]", "1 2 3"],
)
async def test_no_estimate_leads_to_a_budget_that_cannot_be(every_way: dict[str, Ask], reply: str) -> None:
    tale = TALERunnable(ScriptedChatModel(ScriptedModel(estimate=reply, reason="48")))
    for way in ("invoke", "astream"):
        budget = (await every_way[way](tale, QUESTION)).response_metadata["tale"]["budget"]
        assert budget is None or 16 <= budget <= 4096


def test_answers_from_a_cache_cost_nothing(handler: TALECallbackHandler) -> None:
    answer = "Four times twelve eggs are forty eight eggs in all so 48"
    model = ScriptedChatModel(ScriptedModel(estimate="[[40]]", reason=answer), cache=InMemoryCache())
    policy = BudgetPolicy(on_collapse="raise")  # the answer is judged by its length, not by what was paid
    tale = TALERunnable(model, policy=policy)
    first, again = (tale.invoke(QUESTION, {"callbacks": [handler]}) for _ in range(2))
    assert len(model.sent) == 2
    paid = [call.usage.total_tokens for call in handler.ledger.calls]
    assert len(paid) == 4
    assert [*map(bool, paid)] == [True, True, False, False]
    assert first.response_metadata["tale"]["reason_usage"]["output_tokens"] == len(answer.split())
    accounts = again.response_metadata["tale"]
    assert (accounts["budget"], accounts["estimate_usage"]) == (40, None)
    assert accounts["reason_usage"]["output_tokens"] == 0
    assert accounts["events"] == first.response_metadata["tale"]["events"]
