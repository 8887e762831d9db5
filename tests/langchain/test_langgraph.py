"""Inside LangGraph: answers stream token by token, and the estimator stays out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig  # noqa: TC002  # LangGraph reads a node's annotations
from langgraph.graph import END, START, MessagesState, StateGraph

if TYPE_CHECKING:
    from tale_langchain import TALECallbackHandler, TALERunnable

QUESTION = "How many eggs are in four dozen?"
ESTIMATE = "Budget"


def graph_of(tale: TALERunnable, *, asynchronous: bool) -> Any:
    def answer(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [tale.invoke(state["messages"], config)]}

    async def aanswer(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [await tale.ainvoke(state["messages"], config)]}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", aanswer if asynchronous else answer)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph.compile()


async def streamed(graph: Any, config: Any, *, asynchronous: bool, mode: str = "messages") -> list[Any]:
    given = {"messages": [HumanMessage(QUESTION)]}
    if asynchronous:
        return [part async for part in graph.astream(given, config, stream_mode=mode)]
    return list(graph.stream(given, config, stream_mode=mode))


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_graph_streams_the_answer_and_no_word_of_the_estimator(
    tale: TALERunnable, handler: TALECallbackHandler, asynchronous: bool
) -> None:
    graph = graph_of(tale, asynchronous=asynchronous)
    parts = await streamed(graph, {"callbacks": [handler]}, asynchronous=asynchronous)
    texts = [message.text for message, _ in parts]
    assert len(texts) > 10
    assert "".join(texts).count("Four dozen") == 1
    assert ESTIMATE not in "".join(texts)
    assert [call.role for call in handler.ledger.calls] == ["estimate", "reason"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_state_keeps_the_users_words_and_the_accounts(tale: TALERunnable, asynchronous: bool) -> None:
    (*_, state) = await streamed(
        graph_of(tale, asynchronous=asynchronous), None, asynchronous=asynchronous, mode="values"
    )
    question, answer = state["messages"]
    assert question.text == QUESTION
    assert answer.response_metadata["tale"]["budget"] == 40


def test_the_runnable_is_a_node_itself(tale: TALERunnable) -> None:
    graph = StateGraph(MessagesState)
    graph.add_node("answer", (lambda state: state["messages"]) | tale | (lambda answer: {"messages": [answer]}))
    graph.add_edge(START, "answer")
    texts = [
        message.text
        for message, _ in graph.compile().stream({"messages": [HumanMessage(QUESTION)]}, stream_mode="messages")
    ]
    assert "".join(texts).count("Four dozen") == 1
    assert ESTIMATE not in "".join(texts)
