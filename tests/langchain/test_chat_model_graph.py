"""In a LangGraph node both wrappers stream what their model says once, and what they record on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import ConfigurableField, RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from scripted_chat_model import ScriptedChatModel

from tale_core.testing import ScriptedModel
from tale_core.types import ModelReply
from tale_langchain import ChatTALE, TALERunnable

if TYPE_CHECKING:
    from tale_langchain import TALECallbackHandler

QUESTION = "How many eggs are in four dozen?"
ANSWER = "Four dozen are four times twelve eggs which makes forty eight eggs in all so the answer is 48"

pytestmark = [
    pytest.mark.parametrize("asynchronous", [False, True]),
    pytest.mark.parametrize("wrap", [ChatTALE, TALERunnable]),
]


def graph_of(runnable: Any, *, asynchronous: bool) -> Any:
    # The configuration is not handed on: the node's own reaches the model all the same.
    def answer(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [runnable.invoke(state["messages"])]}

    async def aanswer(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [await runnable.ainvoke(state["messages"], config)]}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", aanswer if asynchronous else answer)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph.compile(checkpointer=InMemorySaver())


async def streamed(graph: Any, mode: Any, *, asynchronous: bool, **configurable: Any) -> list[Any]:
    given = {"messages": [HumanMessage(QUESTION)]}
    config = {"configurable": {"thread_id": "1", **configurable}}
    if asynchronous:
        return [part async for part in graph.astream(given, config, stream_mode=mode)]
    return list(graph.stream(given, config, stream_mode=mode))


async def test_messages_hold_every_word_once_and_none_of_the_estimator(
    wrap: Any, model: ScriptedChatModel, asynchronous: bool
) -> None:
    parts = await streamed(
        graph_of(wrap(model), asynchronous=asynchronous), "messages", asynchronous=asynchronous
    )
    assert len(parts) > 10
    assert "".join(message.text for message, _ in parts) == ANSWER
    assert len({message.id for message, _ in parts}) == 1


async def test_updates_hold_the_answer_with_its_accounts(
    wrap: Any, model: ScriptedChatModel, asynchronous: bool
) -> None:
    graph = graph_of(wrap(model), asynchronous=asynchronous)
    (update,) = await streamed(graph, "updates", asynchronous=asynchronous)
    (answer,) = update["answer"]["messages"]
    assert answer.text == ANSWER
    assert answer.response_metadata["tale"]["budget"] == 40
    question, kept = graph.get_state({"configurable": {"thread_id": "1"}}).values["messages"]
    assert question.text == QUESTION
    assert kept.response_metadata["tale"]["budget"] == 40


async def test_the_custom_stream_holds_budgets_and_usage(
    wrap: Any, model: ScriptedChatModel, asynchronous: bool
) -> None:
    parts = await streamed(
        graph_of(wrap(model), asynchronous=asynchronous), "custom", asynchronous=asynchronous
    )
    assert [name for part in parts for name in part] == ["tale_usage", "tale_budget", "tale_usage"]
    estimate, budget, reason = (record for part in parts for record in part.values())
    assert (estimate["role"], budget["budget"], reason["role"]) == ("estimate", 40, "reason")
    assert reason["usage"]["output_tokens"] == 19


async def test_all_modes_at_once_repeat_nothing(
    wrap: Any, model: ScriptedChatModel, asynchronous: bool
) -> None:
    graph = graph_of(wrap(model), asynchronous=asynchronous)
    parts = await streamed(graph, ["messages", "updates", "custom", "values"], asynchronous=asynchronous)
    assert "".join(part[0].text for mode, part in parts if mode == "messages") == ANSWER
    assert sum(mode == "custom" for mode, _ in parts) == 3


async def test_the_budget_can_be_chosen_for_one_run_of_the_graph(
    wrap: Any, model: ScriptedChatModel, asynchronous: bool
) -> None:
    chosen = wrap(model).configurable_fields(estimator=ConfigurableField("budget"))
    graph = graph_of(chosen, asynchronous=asynchronous)
    (update,) = await streamed(graph, "updates", asynchronous=asynchronous, budget=60)
    assert update["answer"]["messages"][0].response_metadata["tale"]["budget"] == 60


async def test_an_agent_runs_on_it(
    wrap: Any, model: ScriptedChatModel, handler: TALECallbackHandler, asynchronous: bool
) -> None:
    def dozen(count: int) -> int:
        """Return how many things are in dozens."""
        return 12 * count

    call = {"name": "dozen", "args": {"count": 4}, "id": "1", "type": "tool_call"}
    usage = {"input_tokens": 30, "output_tokens": 15, "total_tokens": 45}
    tooling = ModelReply(text="", native=AIMessage("", tool_calls=[call], usage_metadata=usage))
    scripted = ScriptedChatModel(ScriptedModel(tooling, ANSWER, estimate="[[40]]"))
    agent = create_agent(wrap(scripted), [dozen])
    given: Any = {"messages": [HumanMessage(QUESTION)]}
    config: Any = {"callbacks": [handler]}
    state = await agent.ainvoke(given, config) if asynchronous else agent.invoke(given, config)
    assert [message.text for message in state["messages"]] == [QUESTION, "", "48", ANSWER]
    assert [one.role for one in handler.ledger.calls] == ["estimate", "reason", "reason"]
    assert [one.budget for one in handler.ledger.calls] == [None, 40, None]
