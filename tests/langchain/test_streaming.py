"""Streams: the model's own chunks, no word of the estimator, and accounts however the stream ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableGenerator, RunnableLambda
from scripted_chat_model import ScriptedChatModel

from tale_core import BudgetOverrunError, BudgetPolicy, UnexpectedReplyError
from tale_core.testing import ScriptedModel
from tale_langchain import TALECallbackHandler, TALERunnable

if TYPE_CHECKING:
    from langchain_core.outputs import ChatGenerationChunk

QUESTION = "How many eggs are in four dozen?"
ANSWER = "Four dozen are four times twelve eggs which makes forty eight eggs in all so the answer is 48"
ESTIMATE = "Budget: [[40]]"

Ask = Callable[..., Awaitable[AIMessage]]


class BrokenStream(ScriptedChatModel):
    """Breaks its stream after three words."""

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        for count, chunk in enumerate(super()._stream(messages, *args, **kwargs)):
            if count == 3:
                raise ConnectionError("the line went dead")
            yield chunk

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages, *args, **kwargs):
            yield chunk


def script() -> ScriptedModel:
    return ScriptedModel(estimate=ESTIMATE, reason=ANSWER)


def test_the_models_own_chunks_come_through_and_an_empty_one_ends_them(tale: TALERunnable) -> None:
    *chunks, last = tale.stream(QUESTION)
    assert [chunk.text for chunk in chunks if chunk.text] == [
        word if position == 0 else f" {word}" for position, word in enumerate(ANSWER.split())
    ]
    assert last.content == ""
    assert last.response_metadata["tale"]["budget"] == 40


def test_exactly_the_last_chunk_says_that_it_is_the_last(tale: TALERunnable) -> None:
    positions = [chunk.chunk_position for chunk in tale.stream(QUESTION)]
    assert positions == [None] * (len(positions) - 1) + ["last"]


def test_only_one_chunk_carries_a_usage(tale: TALERunnable) -> None:
    assert sum(chunk.usage_metadata is not None for chunk in tale.stream(QUESTION)) == 1


async def test_a_model_that_cannot_stream_gives_its_answer_as_one_chunk_that_adds_up(
    every_way: dict[str, Ask],
) -> None:
    for way in ("stream", "astream"):
        model = ScriptedChatModel(script(), disable_streaming=True)
        answer = await every_way[way](TALERunnable(model), QUESTION)
        assert isinstance(answer, AIMessageChunk)
        assert (answer.text, answer.response_metadata["tale"]["budget"]) == (ANSWER, 40)


async def test_streaming_or_not_the_ledger_is_the_same(every_way: dict[str, Ask], tale: TALERunnable) -> None:
    ledgers = {}
    for way, ask in every_way.items():
        handler = TALECallbackHandler()
        await ask(tale, QUESTION, {"callbacks": [handler]})
        ledgers[way] = [
            call.model_dump(exclude={"question_id", "seconds"}) for call in handler.ledger.calls
        ] + [budget.model_dump(exclude={"question_id"}) for budget in handler.ledger.budgets]
    assert all(ledger == ledgers["invoke"] for ledger in ledgers.values())
    assert len(ledgers["invoke"]) == 3


async def test_the_result_is_the_same_message_in_all_ways(
    every_way: dict[str, Ask], tale: TALERunnable
) -> None:
    answers = [await ask(tale, QUESTION) for ask in every_way.values()]
    assert {answer.text for answer in answers} == {ANSWER}
    assert len({str(answer.usage_metadata) for answer in answers}) == 1
    assert len({str(answer.response_metadata) for answer in answers}) == 1


async def test_no_word_of_the_estimator_is_in_any_stream(every_way: dict[str, Ask], tale: TALERunnable) -> None:
    chain = ChatPromptTemplate.from_template("{q}") | tale
    assert "Budget" not in "".join(chunk.text for chunk in chain.stream({"q": QUESTION}))
    assert "Budget" not in "".join([chunk.text async for chunk in chain.astream({"q": QUESTION})])


@pytest.mark.parametrize("nested", [False, True])
async def test_no_word_of_the_estimator_is_in_the_events(tale: TALERunnable, nested: bool) -> None:
    runnable = RunnableLambda(lambda text: text) | tale | StrOutputParser() if nested else tale
    events = [event async for event in runnable.astream_events(QUESTION, version="v2")]
    streamed = [event["data"]["chunk"].text for event in events if event["event"] == "on_chat_model_stream"]
    assert "".join(streamed) == ANSWER
    assert ESTIMATE not in str(events)
    assert [event["name"] for event in events if event["event"] == "on_custom_event"] == [
        "tale_usage",
        "tale_budget",
        "tale_usage",
    ]


async def test_events_of_an_answer_that_is_not_streamed_hide_the_estimator_too(tale: TALERunnable) -> None:
    runnable = RunnableLambda(tale.ainvoke)
    events = [event async for event in runnable.astream_events(QUESTION, version="v2")]
    assert ESTIMATE not in str(events)
    assert ANSWER.split(maxsplit=1)[0] in [
        event["data"]["chunk"].text for event in events if event["event"] == "on_chat_model_stream"
    ]


class Tokens(BaseCallbackHandler):
    """Keeps every token that it is told of, as a handler that prints them does."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.starts: list[tuple[str, list[str], dict[str, Any]]] = []

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.starts.append((kwargs["name"], kwargs["tags"], kwargs["metadata"]))

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.seen.append(str(token))


async def test_a_model_set_to_stream_always_tells_no_token_of_the_estimator(ask: Ask) -> None:
    class Streaming(ScriptedChatModel):
        streaming: bool = False

    tokens = Tokens()
    await ask(TALERunnable(Streaming(script(), streaming=True)), QUESTION, {"callbacks": [tokens]})
    assert "".join(tokens.seen) == ANSWER


async def test_tracers_see_the_estimator_under_its_name_and_tags(ask: Ask, tale: TALERunnable) -> None:
    tokens = Tokens()
    await ask(tale, QUESTION, {"callbacks": [tokens], "tags": ["mine"], "metadata": {"user": "ann"}})
    (name, tags, metadata), (own_name, own_tags, own_metadata) = tokens.starts
    assert (name, metadata["lc_source"], metadata["user"]) == ("tale_estimator", "tale_estimator", "ann")
    assert {"nostream", "tale:estimator", "mine"} <= set(tags)
    assert (own_name, own_metadata.get("lc_source")) != (name, metadata["lc_source"])
    assert set(own_tags) & {"nostream", "tale:estimator", "mine"} == {"mine"}


def close_early(tale: TALERunnable, config: Any) -> None:
    stream = tale.stream(QUESTION, config)
    for _ in range(3):
        next(stream)
    stream.close()


async def aclose_early(tale: TALERunnable, config: Any) -> None:
    stream = tale.astream(QUESTION, config)
    for _ in range(3):
        await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]


async def test_a_stream_closed_early_is_still_recorded(
    tale: TALERunnable, handler: TALECallbackHandler
) -> None:
    close_early(tale, {"callbacks": [handler]})
    await aclose_early(tale, {"callbacks": [handler]})
    estimate, closed, *again = handler.ledger.calls
    assert (estimate.role, estimate.usage.source) == ("estimate", "measured")
    assert (closed.role, closed.finish_reason, closed.usage.source) == ("reason", "closed", "estimated")
    assert 1 <= closed.usage.output_tokens < 10
    assert closed.usage.input_tokens > 10
    assert [(call.role, call.usage) for call in again] == [
        ("estimate", estimate.usage),
        ("reason", closed.usage),
    ]
    assert handler.ledger.events == ()


def test_a_stream_left_after_its_usage_came_is_measured(
    tale: TALERunnable, handler: TALECallbackHandler
) -> None:
    stream = tale.stream(QUESTION, {"callbacks": [handler]})
    while next(stream).usage_metadata is None:
        pass
    stream.close()
    answer = handler.ledger.calls[-1]
    assert (answer.finish_reason, answer.usage.source, answer.usage.output_tokens) == ("stop", "measured", 19)


async def test_a_stream_that_breaks_is_recorded_and_its_error_passes_unchanged(
    every_way: dict[str, Ask], handler: TALECallbackHandler
) -> None:
    tale = TALERunnable(BrokenStream(script()))
    for way in ("stream", "astream"):
        with pytest.raises(ConnectionError, match="the line went dead"):
            await every_way[way](tale, QUESTION, {"callbacks": [handler]})
    assert [(call.role, call.finish_reason) for call in handler.ledger.calls] == [
        ("estimate", "stop"),
        ("reason", "closed"),
    ] * 2
    assert handler.ledger.totals("reason", source="estimated").output_tokens > 0


async def test_a_stream_that_never_begins_costs_the_estimate_alone(
    ask: Ask, handler: TALECallbackHandler
) -> None:
    tale = TALERunnable(
        ScriptedChatModel(ScriptedModel(estimate=ESTIMATE, reason=ConnectionError("no server")))
    )
    with pytest.raises(ConnectionError, match="no server"):
        await ask(tale, QUESTION, {"callbacks": [handler]})
    assert [call.role for call in handler.ledger.calls] == ["estimate"]


async def test_without_a_usage_from_the_provider_tokens_are_estimated_and_marked(
    ask: Ask, handler: TALECallbackHandler
) -> None:
    tale = TALERunnable(ScriptedChatModel(script(), reports_usage=False))
    answer = await ask(tale, QUESTION, {"callbacks": [handler]})
    assert {call.usage.source for call in handler.ledger.calls} == {"estimated"}
    assert answer.response_metadata["tale"]["reason_usage"]["source"] == "estimated"
    assert answer.usage_metadata is None


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_a_policy_that_raises_does_so_when_the_stream_has_ended(
    every_way: dict[str, Ask], handler: TALECallbackHandler, way: str
) -> None:
    model = ScriptedChatModel(script())
    tale = TALERunnable(model, estimator=10, policy=BudgetPolicy(on_overrun="raise"))
    with pytest.raises(BudgetOverrunError, match="took 19 output tokens with a budget of 10"):
        await every_way[way](tale, QUESTION, {"callbacks": [handler]})
    assert handler.ledger.totals("reason").output_tokens == 19


def test_a_streamed_answer_is_never_asked_for_twice(handler: TALECallbackHandler) -> None:
    model = ScriptedChatModel(script())
    tale = TALERunnable(model, estimator=10, policy=BudgetPolicy(on_overrun="retry"))
    answer = reduce(add, tale.stream(QUESTION, {"callbacks": [handler]}))
    assert len(model.sent) == 1
    assert [event["kind"] for event in answer.response_metadata["tale"]["events"]] == ["overrun"]
    assert len(handler.ledger.budgets) == 1


def test_input_that_streams_in_is_gathered_first(model: ScriptedChatModel) -> None:
    def words(_: Iterator[str]) -> Iterator[str]:
        yield from (f"{word} " for word in QUESTION.split())

    chain = RunnableGenerator(words) | TALERunnable(model)
    assert reduce(add, chain.stream("")).text == ANSWER
    assert model.sent[-1].text.startswith(QUESTION)


def test_a_stream_of_something_else_than_messages_is_an_error() -> None:
    def spell(given: Iterator[Any]) -> Iterator[Any]:
        for _ in given:
            yield from "four"

    tale = TALERunnable(RunnableGenerator(spell), estimator=10)
    with pytest.raises(UnexpectedReplyError, match=r"got str.*TALERunnable\(model\) \| parser"):
        list(tale.stream(QUESTION))
