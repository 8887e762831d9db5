"""How a call finds its question where contexts, threads and equal texts make it hard."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import pickle
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core import QueryBundle
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.query_engine import TransformQueryEngine
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation import get_dispatcher, root_dispatcher
from scripted_llm import ScriptedLLM

from tale_core.testing import ScriptedModel
from tale_llamaindex import TALELLM, TALEEventHandler, TALEQueryEngine, TALEQueryTransform
from tale_llamaindex._tracking import asked_here
from tale_llamaindex.query_engine import _carrying

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llama_index.core import VectorStoreIndex

    from tale_core import Ledger

QUESTION = "How old is Ann?"


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Calling(MockFunctionCallingLLM):
    """Estimates 40, calls the tool on a user's message, and answers on the tool's."""

    def __init__(self) -> None:
        super().__init__(is_chat_model=True)

    def _get_response_generator(self) -> Callable[..., Any]:
        def generate(messages: Sequence[ChatMessage], **_: Any) -> ChatMessage:
            if "[[budget]]" in (messages[-1].content or ""):
                return ChatMessage(role="assistant", content="[[40]]")
            if messages[-1].role == "tool":
                return ChatMessage(role="assistant", content="Five.")
            block = ToolCallBlock(tool_call_id="1", tool_name="add", tool_kwargs={"a": 2, "b": 3})
            return ChatMessage(role="assistant", blocks=[block])

        return generate


def transform_question(transform: TALEQueryTransform) -> Any:
    """Return the question that a transform began, with its plan."""
    return transform.run(QUESTION).query_str.question


def calls_by_question(ledger: Ledger) -> list[Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for call in ledger.calls:
        found.setdefault(call.question_id, Counter())[call.role] += 1
    return list(found.values())


async def run_agents(llm: TALELLM, count: int, message: Callable[[int], str]) -> None:
    begun: list[int] = []
    all_begun = asyncio.Event()

    async def add(a: int, b: int) -> int:
        """Add two numbers, once every agent has called it."""
        begun.append(a)
        if len(begun) == count:
            all_begun.set()
        await all_begun.wait()
        return a + b

    agent = FunctionAgent(tools=[FunctionTool.from_defaults(async_fn=add)], llm=llm)
    await asyncio.gather(*(agent.run(message(number)) for number in range(count)))


async def test_agents_with_the_same_message_at_once_are_many_questions(
    handler: TALEEventHandler,
) -> None:
    await run_agents(TALELLM(Calling()), 20, lambda _: QUESTION)
    assert calls_by_question(handler.ledger) == [Counter(estimate=1, reason=2)] * 20


async def test_so_are_they_inside_a_span_of_the_application(handler: TALEEventHandler) -> None:
    @get_dispatcher(__name__).span
    async def serve() -> None:
        await run_agents(TALELLM(Calling()), 20, lambda _: QUESTION)

    await serve()
    assert calls_by_question(handler.ledger) == [Counter(estimate=1, reason=2)] * 20


async def test_three_hundred_turns_at_once_keep_their_budgets(handler: TALEEventHandler) -> None:
    await run_agents(TALELLM(Calling(), estimator=40), 300, lambda number: f"How much is {number} + 3?")
    assert Counter(call.budget for call in handler.ledger.calls) == {40: 600}


async def test_turns_one_after_the_other_are_roots_of_their_own(handler: TALEEventHandler) -> None:
    # A span that returns a future leaves its id behind as the active one.
    agent = FunctionAgent(tools=[FunctionTool.from_defaults(add)], llm=Calling())
    for _ in range(3):
        await agent.run(QUESTION)
    assert calls_by_question(handler.ledger) == [Counter(reason=2)] * 3


def test_the_first_query_of_a_process_is_estimated_once(index: VectorStoreIndex, llm: ScriptedLLM) -> None:
    spans = list(root_dispatcher.span_handlers)
    root_dispatcher.event_handlers.clear()
    root_dispatcher.span_handlers.clear()  # as it is before anything of ours is made
    try:
        index.as_query_engine(llm=TALELLM(llm), response_mode="refine", similarity_top_k=3).query(QUESTION)
    finally:
        root_dispatcher.span_handlers = spans
    assert [sent.estimates for sent in llm.sent].count(True) == 1


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy])
def test_a_bundle_finds_its_question_in_a_context_of_its_own(
    index: VectorStoreIndex, llm: ScriptedLLM, handler: TALEEventHandler, again: Callable[[Any], Any]
) -> None:
    transform, engine = TALEQueryTransform(llm), index.as_query_engine(llm=llm)
    bundles = [again(transform.run(f"How old is {name}?")) for name in ("Ann", "Bob", "Eve")]
    with ThreadPoolExecutor(1) as pool:
        for bundle in bundles:
            pool.submit(engine.query, bundle).result()
    assert calls_by_question(handler.ledger) == [Counter(estimate=1, reason=1)] * 3
    assert [call.budget for call in handler.ledger.calls] == [None] * 3 + [40] * 3


def test_a_bundle_gets_no_second_budget_in_another_thread(llm: ScriptedLLM, index: VectorStoreIndex) -> None:
    bundle = TALEQueryTransform(llm).run(QUESTION)
    engine = TALEQueryEngine(index.as_query_engine(llm=TALELLM(llm)))
    thread = threading.Thread(target=engine.query, args=[bundle])
    thread.start()
    thread.join()
    assert [sent.estimates for sent in llm.sent] == [True, False]


def test_a_querys_text_is_plain_text_to_everybody_else(llm: ScriptedLLM) -> None:
    bundle = TALEQueryTransform(llm, estimator=40).run(QUESTION)
    assert type(pickle.loads(pickle.dumps(bundle)).query_str) is str  # noqa: S301
    assert copy.deepcopy(bundle) == bundle


def test_an_llm_that_calls_a_budgeted_one_counts_once(handler: TALEEventHandler, llm: ScriptedLLM) -> None:
    inner = TALELLM(llm)

    class Around(ScriptedLLM):
        def _answer(self, endpoint: str, messages: Any, kwargs: Any) -> Any:
            inner.chat(messages)
            return super()._answer(endpoint, messages, kwargs)

    Around(ScriptedModel(reason="36")).complete(QUESTION)
    assert [call.role for call in handler.ledger.calls] == ["estimate", "reason"]


def test_prompts_are_not_searched_for_others_questions(index: VectorStoreIndex, llm: ScriptedLLM) -> None:
    engine = TransformQueryEngine(index.as_query_engine(llm=llm), TALEQueryTransform(llm, estimator=40))
    searched: list[object] = []

    class Prompt(str):  # noqa: SLOT000
        def __contains__(self, text: object) -> bool:
            searched.append(text)
            return False

    def ask() -> None:
        for number in range(20):
            engine.query(f"How old is number {number}?")
        assert asked_here(Prompt("Something else.")) is None

    contextvars.Context().run(ask)
    assert searched == []


def test_the_words_of_a_question_that_somebody_holds_are_anybodys(llm: ScriptedLLM) -> None:
    transform = TALEQueryTransform(llm, estimator=40)
    held = _carrying(QueryBundle(QUESTION), transform_question(transform))
    assert type(held.query_str) is not str  # an engine's bundle: the bare words, which know their question
    with ThreadPoolExecutor(1) as pool:
        pool.submit(TALELLM(llm, estimator=60).complete, QUESTION).result()
    assert "60 tokens" in llm.sent[-1].text
