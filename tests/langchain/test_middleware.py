"""An agent keeps one budget over each user turn."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel
from scripted_chat_model import ScriptedChatModel

from tale_core import BudgetPolicy, InvalidValueError, NotAChatModelError
from tale_core.errors import BudgetOverrunError
from tale_core.testing import ScriptedModel
from tale_core.types import ModelReply, Usage
from tale_langchain import ChatTALE, TALECallbackHandler, TALEMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable

QUESTION = "How many eggs are in four dozen?"
ANSWER = "Four times twelve eggs are forty eight eggs in all so 48"  # 12 words
ESTIMATE = "[[40]]"
SUFFIX = "\n\nLet's think step by step and use less than {} tokens:"


@tool
def dozen(count: int) -> int:
    """Return how many things are in dozens."""
    return 12 * count


def calling(name: str = "dozen", tokens: int = 15, **args: Any) -> ModelReply:
    """A model's call of a tool."""
    call = {"name": name, "args": args or {"count": 4}, "id": "call-1", "type": "tool_call"}
    usage = {"input_tokens": 30, "output_tokens": tokens, "total_tokens": 30 + tokens}
    return ModelReply(text="", native=AIMessage("", tool_calls=[call], usage_metadata=usage))


@pytest.fixture
def model() -> ScriptedChatModel:
    """Calls a tool, and answers with what it returned."""
    return ScriptedChatModel(ScriptedModel(calling(), ANSWER, calling(), ANSWER, estimate=ESTIMATE))


async def run(agent: Any, given: str = QUESTION, config: Any = None, *, asynchronous: bool = False) -> Any:
    state = {"messages": [HumanMessage(given)]}
    return await agent.ainvoke(state, config) if asynchronous else agent.invoke(state, config)


both = pytest.mark.parametrize("asynchronous", [False, True])
# Before Python 3.11 a task takes no context: LangGraph's asynchronous nodes see neither callbacks nor writers.
needs_contexts = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="before Python 3.11 asynchronous agents have no callbacks in middleware"
)
heard_both = pytest.mark.parametrize("asynchronous", [False, pytest.param(True, marks=needs_contexts)])
# The model is known beforehand, or only when it is called.
known_or_not = pytest.mark.parametrize(
    "given", [lambda model: (model,), lambda model: ()], ids=["known", "not"]
)


@both
@known_or_not
async def test_a_turn_is_estimated_once_and_every_call_of_it_asked_under_the_budget(
    model: ScriptedChatModel, given: Callable[[Any], Any], asynchronous: bool
) -> None:
    agent = create_agent(model, [dozen], middleware=[TALEMiddleware(*given(model))])
    await run(agent, asynchronous=asynchronous)
    assert [sent.estimates for sent in model.sent] == [True, False, False]
    asked = [sent.messages[0].text for sent in model.sent[1:]]
    assert asked == [QUESTION + SUFFIX.format(40)] * 2
    assert [message.type for message in model.sent[2].messages] == ["human", "ai", "tool"]
    assert "tools" not in model.sent[0].kwargs
    assert "tools" in model.sent[1].kwargs


@both
async def test_the_state_keeps_the_users_words_and_says_nothing_of_the_turn(
    model: ScriptedChatModel, asynchronous: bool
) -> None:
    agent = create_agent(model, [dozen], middleware=[TALEMiddleware(model)])
    state = await run(agent, asynchronous=asynchronous)
    question, call, result, answer = state["messages"]
    assert (question.text, result.text, answer.text) == (QUESTION, "48", ANSWER)
    assert call.tool_calls[0]["name"] == "dozen"
    assert set(state) == {"messages"}


@heard_both
@known_or_not
async def test_the_accounts_are_exact(
    model: ScriptedChatModel,
    handler: TALECallbackHandler,
    given: Callable[[Any], Any],
    asynchronous: bool,
) -> None:
    agent = create_agent(model, [dozen], middleware=[TALEMiddleware(*given(model))])
    state = await run(agent, config={"callbacks": [handler]}, asynchronous=asynchronous)
    question, call, _, answer = state["messages"]
    ledger = handler.ledger
    assert [one.role for one in ledger.calls] == ["estimate", "reason", "reason"]
    assert [one.usage.output_tokens for one in ledger.calls] == [1, 15, 12]
    assert [one.budget for one in ledger.budgets] == [40]
    assert {one.question_id for one in (*ledger.calls, *ledger.budgets)} == {question.id}
    accounts = [message.response_metadata["tale"] for message in (call, answer)]
    assert [one["budget"] for one in accounts] == [40, 40]
    assert [one["estimate_usage"] is None for one in accounts] == [False, True]


@both
async def test_budget_and_spending_are_in_private_state(model: ScriptedChatModel, asynchronous: bool) -> None:
    agent = create_agent(model, [dozen], middleware=[TALEMiddleware(model)], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    state = await run(agent, config=config, asynchronous=asynchronous)
    turn = agent.get_state(config).values["tale_turn"]
    assert turn["message"] == state["messages"][0].id
    assert turn["budget"]["tokens"] == 40
    assert (turn["spent"], turn["calls"]) == (27, 2)
    assert "tale_turn" not in agent.get_input_jsonschema()["properties"]
    assert "tale_turn" not in agent.get_output_jsonschema()["properties"]


async def test_the_next_turn_of_a_thread_is_estimated_anew(model: ScriptedChatModel) -> None:
    agent = create_agent(model, [dozen], middleware=[TALEMiddleware(model)], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    await run(agent, config=config)
    await run(agent, "And in five?", config=config)
    assert [sent.estimates for sent in model.sent] == [True, False, False] * 2
    # Only the turn under way carries its budget.
    assert [message.text for message in model.sent[-1].messages if message.type == "human"] == [
        QUESTION,
        "And in five?" + SUFFIX.format(40),
    ]
    assert agent.get_state(config).values["tale_turn"]["calls"] == 2


async def test_a_turn_goes_on_under_its_budget_after_an_interruption(model: ScriptedChatModel) -> None:
    agent = create_agent(
        model,
        [dozen],
        middleware=[TALEMiddleware(model)],
        checkpointer=InMemorySaver(),
        interrupt_before=["tools"],
    )
    config: Any = {"configurable": {"thread_id": "1"}}
    await run(agent, config=config)
    agent.invoke(None, config)
    assert [sent.estimates for sent in model.sent] == [True, False, False]
    assert agent.get_state(config).values["tale_turn"]["spent"] == 27


@both
async def test_the_calls_of_a_turn_may_share_its_budget(asynchronous: bool) -> None:
    replies = [calling(tokens=30), calling(tokens=60), ANSWER]
    model = ScriptedChatModel(ScriptedModel(*replies, estimate="[[100]]"))
    middleware = TALEMiddleware(model, divide=True, policy=BudgetPolicy(floor=20))
    await run(create_agent(model, [dozen], middleware=[middleware]), asynchronous=asynchronous)
    budgets = [sent.messages[0].text for sent in model.sent if not sent.estimates]
    assert budgets == [QUESTION + SUFFIX.format(left) for left in (100, 70, 20)]


@heard_both
async def test_no_stream_shows_a_word_of_the_estimator(model: ScriptedChatModel, asynchronous: bool) -> None:
    agent = create_agent(model, [dozen], middleware=[TALEMiddleware(model)])
    given: Any = {"messages": [HumanMessage(QUESTION)]}
    modes = ["messages", "updates", "custom"]
    if asynchronous:
        parts = [part async for part in agent.astream(given, stream_mode=modes)]
    else:
        parts = list(agent.stream(given, stream_mode=modes))
    words = [part[0].text for mode, part in parts if mode == "messages" and part[0].type == "AIMessageChunk"]
    assert "".join(words) == ANSWER
    assert ESTIMATE not in str(parts)
    nodes = [name for mode, part in parts if mode == "updates" for name in part]
    assert nodes == ["TALEMiddleware.before_model", "model", "tools", "TALEMiddleware.before_model", "model"]
    events = [name for mode, part in parts if mode == "custom" for name in part]
    assert events.count("tale_budget") == 1
    assert events.count("tale_usage") == 3


@needs_contexts
async def test_neither_do_the_events_of_a_run(model: ScriptedChatModel) -> None:
    agent = create_agent(model, [dozen], middleware=[TALEMiddleware(model)])
    given: Any = {"messages": [HumanMessage(QUESTION)]}
    events = [event async for event in agent.astream_events(given, version="v2")]
    ended = [event["data"]["output"].text for event in events if event["event"] == "on_chat_model_end"]
    assert ended == ["", ANSWER]
    names = [event["name"] for event in events if event["event"] == "on_custom_event"]
    assert names.count("tale_usage") == 3


@known_or_not
async def test_nor_the_messages_of_a_protocol_stream(
    model: ScriptedChatModel, given: Callable[[Any], Any]
) -> None:
    agent = create_agent(model, [dozen], middleware=[TALEMiddleware(*given(model))])
    stream = agent.stream_events({"messages": [HumanMessage(QUESTION)]}, version="v3")
    texts = [str(message.text) for message in stream.messages]
    assert texts == ["", ANSWER]


@both
async def test_a_model_of_its_own_may_estimate(model: ScriptedChatModel, asynchronous: bool) -> None:
    small = ScriptedChatModel(ScriptedModel(estimate="[[70]]"))
    agent = create_agent(model, [dozen], middleware=[TALEMiddleware(model, estimator=small)])
    await run(agent, asynchronous=asynchronous)
    assert [sent.estimates for sent in small.sent] == [True]
    assert [sent.messages[0].text for sent in model.sent] == [QUESTION + SUFFIX.format(70)] * 2


@pytest.mark.parametrize("outermost", ["retries", "budget"])
async def test_retried_calls_do_not_estimate_again(outermost: str) -> None:
    model = ScriptedChatModel(ScriptedModel(ConnectionError("gone"), ANSWER, estimate=ESTIMATE))
    layers: list[Any] = [TALEMiddleware(model), ModelRetryMiddleware(max_retries=1, initial_delay=0)]
    await run(create_agent(model, middleware=layers if outermost == "budget" else layers[::-1]))
    assert [sent.estimates for sent in model.sent] == [True, False, False]
    assert model.sent[-1].text == QUESTION + SUFFIX.format(40)


@heard_both
async def test_the_policy_asks_again(handler: TALECallbackHandler, asynchronous: bool) -> None:
    model = ScriptedChatModel(ScriptedModel(ANSWER, ANSWER))
    middleware = TALEMiddleware(estimator=7, policy=BudgetPolicy(on_overrun="retry"))
    agent = create_agent(model, middleware=[middleware], checkpointer=InMemorySaver())
    config: Any = {"callbacks": [handler], "configurable": {"thread_id": "1"}}
    state = await run(agent, config=config, asynchronous=asynchronous)
    assert [call.budget for call in handler.ledger.calls] == [7, 14]
    assert len(state["messages"]) == 2
    assert agent.get_state(config).values["tale_turn"]["spent"] == 24


async def test_the_policy_may_raise(model: ScriptedChatModel) -> None:
    model = ScriptedChatModel(ScriptedModel(ANSWER))
    middleware = TALEMiddleware(estimator=7, policy=BudgetPolicy(on_overrun="raise"))
    with pytest.raises(BudgetOverrunError):
        await run(create_agent(model, middleware=[middleware]))


async def test_what_the_model_raises_is_raised() -> None:
    model = ScriptedChatModel(ScriptedModel(estimate=ESTIMATE, reason=ConnectionError("gone")))
    with pytest.raises(ConnectionError, match="gone"):
        await run(create_agent(model, middleware=[TALEMiddleware(model)]))


async def test_a_structured_response_is_kept() -> None:
    class Count(BaseModel):
        """A number of things."""

        number: int

    model = ScriptedChatModel(ScriptedModel(calling("Count", number=48), estimate=ESTIMATE))
    agent = create_agent(model, response_format=Count, middleware=[TALEMiddleware(model)])
    state = await run(agent)
    assert state["structured_response"] == Count(number=48)
    _, answer, result = state["messages"]
    assert answer.response_metadata["tale"]["budget"] == 40
    assert isinstance(result, ToolMessage)


async def test_an_agent_within_a_tool_has_turns_of_its_own(handler: TALECallbackHandler) -> None:
    inside = ScriptedChatModel(ScriptedModel(ANSWER, estimate="[[70]]"))
    helper = create_agent(inside, middleware=[TALEMiddleware(inside)], name="helper")

    @tool
    def ask(question: str) -> str:
        """Ask a helper."""
        return str(helper.invoke({"messages": [HumanMessage(question)]})["messages"][-1].text)

    outside = ScriptedChatModel(ScriptedModel(calling("ask", question="Really?"), ANSWER, estimate=ESTIMATE))
    agent = create_agent(outside, [ask], middleware=[TALEMiddleware(outside)])
    await run(agent, config={"callbacks": [handler]})
    assert [budget.budget for budget in handler.ledger.budgets] == [40, 70]
    assert [sent.messages[0].text for sent in inside.sent][1:] == ["Really?" + SUFFIX.format(70)]
    assert handler.ledger.count() == 5


async def test_a_question_without_words_is_asked_as_it_is() -> None:
    picture = [{"type": "image", "base64": "aGVs", "mime_type": "image/png"}]
    model = ScriptedChatModel(ScriptedModel(ANSWER))
    agent = create_agent(model, middleware=[TALEMiddleware(model)])
    state = agent.invoke({"messages": [HumanMessage(picture)]})
    assert model.sent[0].messages[0].content == picture
    assert state["messages"][-1].response_metadata["tale"]["budget"] is None


async def test_a_native_control_is_turned_for_the_call_alone() -> None:
    thinking = Usage(input_tokens=5, output_tokens=20, reasoning_tokens=8)
    reply = ModelReply(text=ANSWER, usage=thinking, finish_reason="stop")
    model = Thinking(ScriptedModel(reply), reasoning_effort="high", calibration={"reasoning_output": True})
    agent = create_agent(model, middleware=[TALEMiddleware(model, estimator=40, reasoning_control="auto")])
    state = await run(agent)
    accounts = state["messages"][-1].response_metadata["tale"]
    if accounts["reasoning_control"] == "effort":
        assert model.sent[0].messages[0].text == QUESTION
    assert model.reasoning_effort == "high"


class Thinking(ScriptedChatModel):
    """A model with LangChain's standard argument for effort."""

    reasoning_effort: str | None = None


@pytest.mark.parametrize(
    ("build", "error", "said"),
    [
        (lambda: TALEMiddleware(estimator=0), InvalidValueError, "0"),
        (lambda: TALEMiddleware(strategy="tail"), InvalidValueError, "did you mean 'tale'"),
        (lambda: TALEMiddleware(policy={"floor": 3}), InvalidValueError, "BudgetPolicy"),
        (lambda: TALEMiddleware(language="xx"), InvalidValueError, "xx"),
        (lambda: TALEMiddleware(estimator_sees="all"), InvalidValueError, "all"),
        (lambda: TALEMiddleware(reasoning_control="none"), InvalidValueError, "none"),
        (lambda: TALEMiddleware(object()), NotAChatModelError, "object"),
        (lambda: TALEMiddleware(""), InvalidValueError, "empty"),
        (
            lambda: TALEMiddleware(ChatTALE(ScriptedChatModel(ScriptedModel("7")))),
            InvalidValueError,
            "under a budget already",
        ),
    ],
)
def test_what_cannot_be_meant_fails_at_once(build: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        build()


def test_an_agent_on_a_model_with_a_budget_of_its_own_is_refused_at_its_first_call() -> None:
    agent = create_agent(ChatTALE(ScriptedChatModel(ScriptedModel("7"))), middleware=[TALEMiddleware()])
    with pytest.raises(InvalidValueError, match="under a budget already"):
        agent.invoke({"messages": [HumanMessage(QUESTION)]})
