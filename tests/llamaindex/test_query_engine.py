"""TALEQueryEngine: one estimate per query, retrieval untouched, and the event loop free."""

from __future__ import annotations

import asyncio
import copy
import threading
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core import QueryBundle, Settings, VectorStoreIndex
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import CitationQueryEngine, CustomQueryEngine
from llama_index.core.tools import QueryEngineTool
from pydantic import Field
from scripted_llm import ScriptedLLM

from tale_core import BudgetPolicy, InvalidValueError
from tale_core.testing import ScriptedModel
from tale_llamaindex import TALEEventHandler, TALEQueryEngine, TALEQueryTransform, TALESynthesizer

if TYPE_CHECKING:
    from simulated_loop import SimulatedLoop

QUESTION = "How old is Ann?"
ANSWER = "Ann was born in 1990 and it is 2026 so she is 36 years old now."


class Watching(BaseNodePostprocessor):
    """Keeps the queries that a reranker would see."""

    queries: list[str] = Field(default_factory=list)

    def _postprocess_nodes(self, nodes: Any, query_bundle: QueryBundle | None = None) -> Any:
        self.queries.append(query_bundle.query_str if query_bundle else "")
        return nodes


@pytest.fixture
def watching() -> Watching:
    return Watching()


@pytest.fixture
def engine(index: VectorStoreIndex, llm: ScriptedLLM, watching: Watching) -> TALEQueryEngine:
    return TALEQueryEngine(index.as_query_engine(llm=llm, node_postprocessors=[watching]))


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_budget_reaches_synthesis_and_nothing_else(
    engine: TALEQueryEngine, llm: ScriptedLLM, watching: Watching, embedding: Any, asynchronous: bool
) -> None:
    response = await engine.aquery(QUESTION) if asynchronous else engine.query(QUESTION)
    assert str(response) == ANSWER
    assert (watching.queries, embedding.queries) == ([QUESTION], [QUESTION])
    estimate, reason = llm.sent
    assert estimate.text.endswith(f"Question: {QUESTION}")
    assert "use less than 40 tokens" in reason.text


async def test_sync_and_async_send_identical_calls(engine: TALEQueryEngine, llm: ScriptedLLM) -> None:
    engine.query(QUESTION)
    sync = llm.sent
    llm._sent.clear()
    await engine.aquery(QUESTION)
    assert llm.sent == sync


def test_retrieving_and_synthesizing_by_hand_estimates_once(engine: TALEQueryEngine, llm: ScriptedLLM) -> None:
    bundle = QueryBundle(QUESTION)
    engine.synthesize(bundle, engine.retrieve(bundle))
    assert [sent.estimates for sent in llm.sent] == [True, False]


async def test_the_same_by_hand_asynchronously(engine: TALEQueryEngine, llm: ScriptedLLM) -> None:
    bundle = QueryBundle(QUESTION)
    await engine.asynthesize(bundle, await engine.aretrieve(bundle))
    assert [sent.estimates for sent in llm.sent] == [True, False]


async def test_a_tool_around_it_works(engine: TALEQueryEngine, llm: ScriptedLLM) -> None:
    output = await QueryEngineTool.from_defaults(engine, name="age", description="Ages.").acall(QUESTION)
    assert str(output) == ANSWER
    assert [sent.estimates for sent in llm.sent] == [True, False]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_estimate_is_made_while_nodes_are_retrieved(
    index: VectorStoreIndex, asynchronous: bool
) -> None:
    estimating, retrieving = threading.Event(), threading.Event()

    class Meeting(ScriptedLLM):
        """Waits in the estimate until nodes are being retrieved."""

        def chat(self, messages: Any, **kwargs: Any) -> Any:
            estimating.set()
            assert retrieving.wait(60)
            return super().chat(messages, **kwargs)

        async def achat(self, messages: Any, **kwargs: Any) -> Any:
            estimating.set()
            assert await asyncio.to_thread(retrieving.wait, 60)
            return await super().achat(messages, **kwargs)

    class Waiting(BaseNodePostprocessor):
        """Waits in the retrieval until the estimate is under way."""

        def _postprocess_nodes(self, nodes: Any, query_bundle: QueryBundle | None = None) -> Any:
            retrieving.set()
            assert estimating.wait(60)
            return nodes

    llm = Meeting(ScriptedModel(estimate="[[40]]", reason=ANSWER))
    engine = TALEQueryEngine(index.as_query_engine(llm=llm, node_postprocessors=[Waiting()]))
    assert str(await engine.aquery(QUESTION) if asynchronous else engine.query(QUESTION)) == ANSWER


def test_the_engine_inside_goes_on_as_it_is(index: VectorStoreIndex, llm: ScriptedLLM) -> None:
    inner = index.as_query_engine(llm=llm)
    TALEQueryEngine(inner)
    inner.query(QUESTION)
    assert [sent.estimates for sent in llm.sent] == [False]


def test_a_retriever_will_do(index: VectorStoreIndex, llm: ScriptedLLM) -> None:
    assert str(TALEQueryEngine(index.as_retriever(), llm).query(QUESTION)) == ANSWER


def test_a_synthesizer_of_ours_is_used_as_it_is(index: VectorStoreIndex, llm: ScriptedLLM) -> None:
    inner = index.as_query_engine(llm=llm, response_synthesizer=TALESynthesizer(llm=llm, estimator=70))
    TALEQueryEngine(inner).query(QUESTION)
    assert "less than 70 tokens" in llm.sent[0].text


def test_other_engines_that_retrieve_and_synthesize_keep_their_ways(
    index: VectorStoreIndex, llm: ScriptedLLM
) -> None:
    TALEQueryEngine(CitationQueryEngine.from_args(index, llm=llm)).query(QUESTION)
    assert "Source 1:" in llm.sent[1].text
    assert "use less than 40 tokens" in llm.sent[1].text


class Custom(CustomQueryEngine):
    """Does everything in one step."""

    def custom_query(self, query_str: str) -> str:
        return query_str


@pytest.mark.parametrize("thing", [Custom(), MockLLM(), 3])
def test_what_cannot_be_wrapped_is_refused_with_a_way_out(thing: Any) -> None:
    with pytest.raises(InvalidValueError, match=f"got {type(thing).__name__}. For other engines use Transform"):
        TALEQueryEngine(thing)


class Retrieving(BaseQueryEngine):
    """Retrieves and synthesizes, but knows no asynchronous retrieval."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine.callback_manager)
        self._inner, self._response_synthesizer = engine, engine._response_synthesizer

    def retrieve(self, query_bundle: QueryBundle) -> Any:
        return self._inner.retrieve(query_bundle)

    async def asynthesize(
        self, query_bundle: QueryBundle, nodes: Any, additional_source_nodes: Any = None
    ) -> Any:
        return await self._response_synthesizer.asynthesize(query_bundle, nodes)

    def _query(self, query_bundle: QueryBundle) -> Any:
        raise NotImplementedError

    async def _aquery(self, query_bundle: QueryBundle) -> Any:
        raise NotImplementedError

    def _get_prompt_modules(self) -> Any:
        return {}


async def test_engines_without_asynchronous_retrieval_will_do(
    index: VectorStoreIndex, llm: ScriptedLLM
) -> None:
    assert str(await TALEQueryEngine(Retrieving(index.as_query_engine(llm=llm))).aquery(QUESTION)) == ANSWER


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_query_with_a_budget_gets_no_second_one(
    engine: TALEQueryEngine, llm: ScriptedLLM, asynchronous: bool
) -> None:
    bundle = TALEQueryTransform(llm).run(QUESTION)
    await engine.aquery(bundle) if asynchronous else engine.query(bundle)
    assert [sent.estimates for sent in llm.sent] == [True, False]
    assert llm.sent[1].text.count("use less than") == 1


def test_streams_are_handed_on(index: VectorStoreIndex, llm: ScriptedLLM, handler: TALEEventHandler) -> None:
    response: Any = TALEQueryEngine(index.as_query_engine(llm=llm, streaming=True)).query(QUESTION)
    assert "".join(response.response_gen) == ANSWER
    assert [call.role for call in handler.ledger.calls] == ["estimate", "reason"]


@pytest.mark.parametrize("mode", ["refine", "accumulate", "tree_summarize"])
def test_each_response_mode_estimates_once(index: VectorStoreIndex, llm: ScriptedLLM, mode: str) -> None:
    engine = TALEQueryEngine(index.as_query_engine(llm=llm, response_mode=mode, similarity_top_k=3))
    engine.query(QUESTION)
    assert [sent.estimates for sent in llm.sent].count(True) == 1


def test_an_overrun_is_asked_again_without_retrieving_again(
    index: VectorStoreIndex, watching: Watching
) -> None:
    llm = ScriptedLLM(ScriptedModel("word " * 99, ANSWER, estimate="[[40]]"))
    inner = index.as_query_engine(llm=llm, node_postprocessors=[watching])
    assert str(TALEQueryEngine(inner, policy=BudgetPolicy(on_overrun="retry")).query(QUESTION)) == ANSWER
    assert watching.queries == [QUESTION]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_exceptions_of_retriever_and_model_pass_unchanged(
    index: VectorStoreIndex, asynchronous: bool
) -> None:
    class Failing(BaseNodePostprocessor):
        def _postprocess_nodes(self, nodes: Any, query_bundle: QueryBundle | None = None) -> Any:
            raise LookupError("no index")

    llm = ScriptedLLM(ScriptedModel(estimate="[[40]]", reason=ConnectionError("down")))
    failing = TALEQueryEngine(index.as_query_engine(llm=llm, node_postprocessors=[Failing()]))
    with pytest.raises(LookupError, match="no index"):
        await failing.aquery(QUESTION) if asynchronous else failing.query(QUESTION)
    down = TALEQueryEngine(index.as_query_engine(llm=llm))
    with pytest.raises(ConnectionError, match="down"):
        await down.aquery(QUESTION) if asynchronous else down.query(QUESTION)


def test_a_failed_retrieval_does_not_wait_for_the_estimate(index: VectorStoreIndex) -> None:
    begun, raised, ended = threading.Event(), threading.Event(), threading.Event()
    seen: list[bool] = []

    class Slow(ScriptedLLM):
        """Estimates until the engine has raised."""

        def chat(self, messages: Any, **kwargs: Any) -> Any:
            begun.set()
            seen.append(raised.wait(5))
            ended.set()
            return super().chat(messages, **kwargs)

    class Failing(BaseNodePostprocessor):
        """Fails while the estimate is under way."""

        def _postprocess_nodes(self, nodes: Any, query_bundle: QueryBundle | None = None) -> Any:
            assert begun.wait(5)
            raise LookupError("no index")

    llm = Slow(ScriptedModel(estimate="[[40]]"))
    with pytest.raises(LookupError, match="no index"):
        TALEQueryEngine(index.as_query_engine(llm=llm, node_postprocessors=[Failing()])).query(QUESTION)
    raised.set()
    assert ended.wait(10)
    assert seen == [True], "the engine raised first"


def test_callbacks_see_one_query_as_it_was_asked(index: VectorStoreIndex, llm: ScriptedLLM) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    Settings.callback_manager = CallbackManager([debug])
    TALEQueryEngine(index.as_query_engine(llm=llm)).query(QUESTION)
    for kind in (CBEventType.QUERY, CBEventType.SYNTHESIZE):
        ((start, _),) = debug.get_event_pairs(kind)
        assert start.payload == {**(start.payload or {}), "query_str": QUESTION}
    assert len(debug.get_event_pairs(CBEventType.LLM)) == 2


def test_prompts_are_those_of_the_engine_inside(engine: TALEQueryEngine) -> None:
    assert "response_synthesizer:text_qa_template" in engine.get_prompts()


def test_it_can_be_copied_and_shows_no_key(index: VectorStoreIndex) -> None:
    engine = TALEQueryEngine(index.as_query_engine(llm=MockLLM()), estimator=40)
    assert "less than 40 tokens" in str(copy.deepcopy(engine).query(QUESTION))
    assert repr(engine) == (
        "TALEQueryEngine(RetrieverQueryEngine, TALESynthesizer(CompactAndRefine, MockLLM('unknown'), "
        "estimator='fixed', strategy='tale'))"
    )


# Two hundred at once

QUERIES = 200
AT_ONCE = 25
LATENCY = 10.0
MOST_CALLS = 110_000
"""Function calls within one turn of the loop: 73,000; 216,000 if no query waited for its turn."""


class Limited(ScriptedLLM):
    """A server that answers some requests at a time."""

    _free: Any = None

    async def achat(self, messages: Any, **kwargs: Any) -> Any:
        if self._free is None:
            self._free = asyncio.Semaphore(AT_ONCE)
        async with self._free:
            return await super().achat(messages, **kwargs)


def numbered(call: Any) -> str:
    text = call.messages[-1].content
    number = int(text.rsplit("person number ", 1)[1].split("?", 1)[0])
    return " ".join(["word"] * (number + 20))


def test_two_hundred_queries_run_at_the_servers_pace_and_leave_the_loop_free(
    mock_index: VectorStoreIndex, handler: TALEEventHandler, simulated_loop: SimulatedLoop
) -> None:
    llm = Limited(ScriptedModel(estimate="[[300]]", reason=numbered), latency=LATENCY)
    engine = TALEQueryEngine(mock_index.as_query_engine(llm=llm))

    async def ask_all() -> float:
        await engine.aquery("How old is person number 0?")  # whatever is loaded on first use
        handler.ledger.clear()
        simulated_loop.most_calls, started = 0, simulated_loop.now
        await asyncio.gather(*(engine.aquery(f"How old is person number {n}?") for n in range(QUERIES)))
        return simulated_loop.now - started

    took = simulated_loop.run_until_complete(ask_all())
    assert took == pytest.approx(2 * QUERIES / AT_ONCE * LATENCY), "the server never waits for a query"
    assert simulated_loop.most_calls < MOST_CALLS
    assert handler.ledger.count("estimate") == handler.ledger.count("reason") == QUERIES
    answers = {
        call.question_id: call.usage.output_tokens for call in handler.ledger.calls if call.role == "reason"
    }
    assert sorted(answers.values()) == [number + 20 for number in range(QUERIES)]
