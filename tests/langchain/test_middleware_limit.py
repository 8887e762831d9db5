"""An agent's run and thread may take so many tokens, and no more."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from scripted_chat_model import ScriptedChatModel

from tale_core import InvalidValueError
from tale_core.errors import ServerError, TokenLimitExceededError
from tale_core.testing import ScriptedModel
from tale_core.types import ModelReply
from tale_langchain import TALEMiddleware, TALERunnable, TokenLimitMiddleware

both = pytest.mark.parametrize("asynchronous", [False, True])


@tool
def look() -> str:
    """Look again."""
    return "nothing"


def endless(*, reports_usage: bool = True) -> ScriptedChatModel:
    """A model that calls a tool for ever: 30 tokens in and 10 out each time."""
    usage = {"input_tokens": 30, "output_tokens": 10, "total_tokens": 40} if reports_usage else None
    call = {"name": "look", "args": {}, "id": "1", "type": "tool_call"}
    message = AIMessage("Let me look again.", tool_calls=[call], usage_metadata=usage)
    return ScriptedChatModel(ScriptedModel(estimate="[[40]]", reason=ModelReply(text="", native=message)))


async def run(agent: Any, config: Any = None, *, asynchronous: bool = False) -> list[Any]:
    given = {"messages": [HumanMessage("Is there anything?")]}
    state = await agent.ainvoke(given, config) if asynchronous else agent.invoke(given, config)
    return state["messages"]


@both
async def test_a_run_ends_at_its_limit_and_says_why(asynchronous: bool) -> None:
    model = endless()
    agent = create_agent(model, [look], middleware=[TokenLimitMiddleware(run_limit=100)])
    messages = await run(agent, asynchronous=asynchronous)
    assert len(model.sent) == 3  # 40, 80, 120: the call that reaches the limit is still made
    assert isinstance(messages[-1], AIMessage)
    assert messages[-1].text == "Token limits exceeded: run limit (120/100)"


@both
async def test_or_fails_there(asynchronous: bool) -> None:
    limit = TokenLimitMiddleware(run_limit=100, exit_behavior="error")
    with pytest.raises(TokenLimitExceededError, match=r"run limit \(120/100\)"):
        await run(create_agent(endless(), [look], middleware=[limit]), asynchronous=asynchronous)


@both
async def test_a_thread_has_its_limit_over_all_runs(asynchronous: bool) -> None:
    model = ScriptedChatModel(ScriptedModel(reason="one two three four"))
    limit = TokenLimitMiddleware(thread_limit=10, count="output", warn_at=None)
    agent = create_agent(model, middleware=[limit], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    texts = [(await run(agent, config, asynchronous=asynchronous))[-1].text for _ in range(4)]
    assert texts == ["one two three four"] * 3 + ["Token limits exceeded: thread limit (12/10)"]
    other: Any = {"configurable": {"thread_id": "2"}}
    assert (await run(agent, other))[-1].text == "one two three four"


async def test_each_run_begins_at_nothing() -> None:
    model = ScriptedChatModel(ScriptedModel(reason="one two three four"))
    limit = TokenLimitMiddleware(run_limit=4, count="output", warn_at=None)
    agent = create_agent(model, middleware=[limit], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    for _ in range(3):
        assert (await run(agent, config))[-1].text == "one two three four"


@both
async def test_close_to_the_limit_the_model_is_told_and_nobody_else(asynchronous: bool) -> None:
    model = endless()
    limit = TokenLimitMiddleware(run_limit=150, warn_at=0.5)
    agent = create_agent(model, [look], system_prompt="Be kind.", middleware=[limit])
    messages = await run(agent, asynchronous=asynchronous)
    systems = [sent.messages[0].text for sent in model.sent]
    assert systems[:2] == ["Be kind."] * 2
    assert systems[2].startswith("Be kind.")
    assert "run limit (80/150)" in systems[2]
    assert "run limit (120/150)" in systems[3]
    assert "Come to an end" not in str(messages)


@both
async def test_an_event_says_once_that_a_limit_has_come_close(asynchronous: bool) -> None:
    class Custom(BaseCallbackHandler):
        def __init__(self) -> None:
            self.heard: list[Any] = []

        def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
            self.heard.append((name, data))

    custom = Custom()
    limit = TokenLimitMiddleware(run_limit=150, thread_limit=10_000, warn_at=0.5)
    agent = create_agent(endless(), [look], middleware=[limit])
    await run(agent, {"callbacks": [custom]}, asynchronous=asynchronous)
    assert custom.heard == [("tale_limit", {"close": ["run limit (80/150)"], "warn_at": 0.5})]
    given: Any = {"messages": [HumanMessage("Is there anything?")]}
    assert list(agent.stream(given, stream_mode="custom")) == [{"tale_limit": custom.heard[0][1]}]


async def test_what_estimating_took_counts_as_well() -> None:
    model = endless()
    limit = TokenLimitMiddleware(run_limit=100, count="output", warn_at=None)
    agent = create_agent(model, [look], middleware=[TALEMiddleware(model), limit], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    await run(agent, config)
    # Eleven answers would be 110, with the one token of the estimate ten answers are enough.
    assert sum(not sent.estimates for sent in model.sent) == 10
    assert agent.get_state(config).values["thread_token_count"] == 101


async def test_tokens_that_nobody_reports_are_estimated() -> None:
    model = endless(reports_usage=False)
    messages = await run(create_agent(model, [look], middleware=[TokenLimitMiddleware(run_limit=60)]))
    assert messages[-1].text.startswith("Token limits exceeded: run limit (")
    assert len(model.sent) > 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "got neither"),
        ({"run_limit": 0}, "run_limit is a number of tokens of at least 1, got 0"),
        ({"thread_limit": "many"}, "thread_limit .* got 'many'"),
        ({"run_limit": 10, "warn_at": 80}, "share of the limit, above 0 and up to 1; got 80"),
        ({"run_limit": 10, "exit_behavior": "stop"}, "got 'stop'"),
        ({"run_limit": 10, "count": "input"}, "got 'input'"),
    ],
)
def test_what_cannot_be_meant_fails_at_once(arguments: Any, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        TokenLimitMiddleware(**arguments)


def test_an_answer_from_a_cache_takes_nothing_of_a_limit() -> None:
    model = ScriptedChatModel(ScriptedModel(reason="Nothing at all."), cache=InMemoryCache())
    taken = []
    for _ in range(2):
        agent = create_agent(model, middleware=[limit := TokenLimitMiddleware(run_limit=1000)])
        messages = agent.invoke({"messages": [("user", "Is there anything?")]})["messages"]
        taken.append(limit._tokens(messages))
    assert taken[0] > taken[1] == 0


def test_an_answer_that_the_provider_broke_off_is_counted_too() -> None:
    usage = {"input_tokens": 30, "output_tokens": 10, "total_tokens": 40}
    broken: Any = AIMessage("Noth", usage_metadata=usage, response_metadata={"finish_reason": "error"})
    model = ScriptedChatModel(ScriptedModel(ModelReply(text="", native=broken)))
    agent: Any = create_agent(model, middleware=[limit := TokenLimitMiddleware(run_limit=1000)])
    assert limit._tokens(agent.invoke({"messages": [("user", "Is there anything?")]})["messages"]) == 40


def test_an_answer_that_the_provider_broke_off_is_no_answer_under_a_budget() -> None:
    broken: Any = AIMessage("upstream error 5", response_metadata={"finish_reason": "error"})
    model = ScriptedChatModel(ScriptedModel(reason=ModelReply(text="", native=broken)))
    with pytest.raises(ServerError, match="ended the answer with an error"):
        TALERunnable(model, estimator=40).invoke("How much is 3 + 4?")
