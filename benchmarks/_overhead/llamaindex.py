"""LlamaIndex: the query transform, the query engine, both synthesizers, `TALELLM` and the postprocessor."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.indices.query.query_transform.base import BaseQueryTransform, IdentityQueryTransform
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index_instrumentation import root_dispatcher

from _overhead.by_hand import PASSAGES, ROOM, fitted_by_hand, words
from _overhead.instant_llm import RETRIEVED, SURVEY, CountingHandler, Stand
from _overhead.sides import TASK, Comparison, Side, compare
from tale_core import Ledger
from tale_llamaindex import (
    TALELLM,
    TALECallbackHandler,
    TALEHierarchicalSynthesizer,
    TALENodePostprocessor,
    TALEQueryEngine,
    TALEQueryTransform,
    TALESynthesizer,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from llama_index.core.llms import LLM

    from _overhead.figures import Table
    from _overhead.sides import Clock

_KEPT = 100
_SAYS = (
    "By hand: the same calls one after the other in plain functions, without bounds, fallback, accounts or "
    "events. Handler: one that counts tokens in a `CallbackManager`; ours on our side, the least that does it "
    "on the others. A batch is a gathering of asynchronous questions. `bystander` is a plain call, not "
    "wrapped, in a process that uses TALE, against the same in one that does not."
)


class HandwrittenTransform(BaseQueryTransform):
    """Puts a budget into the query that the model reads, and leaves the original to the retriever."""

    def __init__(self, llm: LLM) -> None:
        super().__init__()
        self._llm = llm

    def _run(self, query_bundle: QueryBundle, metadata: dict[str, Any]) -> QueryBundle:
        del metadata
        return _budgeted(query_bundle, str(self._llm.complete(estimating(query_bundle.query_str))))

    async def arun(self, query: str) -> QueryBundle:
        """Do the same asynchronously."""
        return _budgeted(QueryBundle(query), str(await self._llm.acomplete(estimating(query))))

    def _get_prompts(self) -> Any:
        return {}

    def _update_prompts(self, prompts: Any) -> None:
        pass


class HandwrittenPostprocessor(BaseNodePostprocessor):
    """Ranks by BM25 and cuts to sentences, in the fewest lines."""

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        assert query_bundle is not None
        kept = fitted_by_hand(query_bundle.query_str, [one.text for one in nodes], ROOM)
        return [NodeWithScore(node=TextNode(text=text), score=nodes[at].score) for at, text in kept]


class WholePostprocessor(BaseNodePostprocessor):
    """Cuts nothing: the framework's call alone."""

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        del query_bundle
        return nodes


def estimating(question: str) -> str:
    """Return the estimator's prompt."""
    return f"{TASK} ...\n\nQuestion: {question}"


def budgeted(question: str, estimate: str) -> str:
    """Return a question with the budget that an estimate names."""
    budget = int(re.findall(r"\[\[(\d+)\]\]", estimate)[0])
    return f"{question}\n\nLet's think step by step and use less than {budget} tokens:"


# Every kind of wrapper as a side: of a stand, or of a stand and what is called on it.


def llm_side(llm: LLM) -> Side:
    """Return an LLM, wrapped or not."""

    async def astream(question: str) -> AsyncIterator[Any]:
        async for piece in await llm.astream_chat(_user(question)):
            yield piece

    return _side(
        lambda one: llm.chat(_user(one)),
        lambda one: llm.achat(_user(one)),
        lambda one: llm.stream_chat(_user(one)),
        astream,
    )


def llm_by_hand(llm: LLM) -> Side:
    """Return an estimate and a question under it."""

    def plan(question: str) -> list[ChatMessage]:
        return _user(budgeted(question, str(llm.chat(_user(estimating(question))).message.content)))

    async def aplan(question: str) -> list[ChatMessage]:
        return _user(budgeted(question, str((await llm.achat(_user(estimating(question)))).message.content)))

    async def ask(question: str) -> Any:
        return await llm.achat(await aplan(question))

    async def astream(question: str) -> AsyncIterator[Any]:
        async for piece in await llm.astream_chat(await aplan(question)):
            yield piece

    return _side(lambda one: llm.chat(plan(one)), ask, lambda one: llm.stream_chat(plan(one)), astream)


def engine_side(engine: Any, streaming: Any) -> Side:
    """Return a query engine, and the same that streams."""

    async def astream(question: str) -> AsyncIterator[str]:
        async for piece in (await streaming.aquery(question)).async_response_gen():
            yield piece

    return _side(engine.query, engine.aquery, lambda one: streaming.query(one).response_gen, astream)


def engine_by_hand(engine: Any, streaming: Any, llm: LLM) -> Side:
    """Return an estimate, a retrieval, and a synthesis under the budget."""

    def ask(question: str, engine: Any = engine) -> Any:
        estimate = llm.complete(estimating(question))
        nodes = engine.retrieve(QueryBundle(question))
        return engine.synthesize(QueryBundle(budgeted(question, str(estimate))), nodes)

    async def aask(question: str, engine: Any = engine) -> Any:
        estimate = await llm.acomplete(estimating(question))
        nodes = await engine.aretrieve(QueryBundle(question))
        return await engine.asynthesize(QueryBundle(budgeted(question, str(estimate))), nodes)

    async def astream(question: str) -> AsyncIterator[str]:
        async for piece in (await aask(question, streaming)).async_response_gen():
            yield piece

    return _side(ask, aask, lambda one: ask(one, streaming).response_gen, astream)


def synthesizer_side(synthesizer: Any, streaming: Any) -> Side:
    """Return a synthesizer, and the same that streams."""

    async def astream(question: str) -> AsyncIterator[str]:
        async for piece in (await streaming.asynthesize(question, _nodes())).async_response_gen():
            yield piece

    return _side(
        lambda one: synthesizer.synthesize(one, _nodes()),
        lambda one: synthesizer.asynthesize(one, _nodes()),
        lambda one: streaming.synthesize(one, _nodes()).response_gen,
        astream,
    )


def synthesizer_by_hand(synthesizer: Any, streaming: Any, llm: LLM, *, surveys: bool = False) -> Side:
    """Return an estimate and a synthesis under it, with a survey of the passages before it if wanted."""

    def ask(question: str, synthesizer: Any = synthesizer) -> Any:
        asked = budgeted(question, str(llm.complete(estimating(question))))
        nodes = _chosen(str(llm.complete(_surveying(question)))) if surveys else _nodes()
        return synthesizer.synthesize(asked, nodes)

    async def aask(question: str, synthesizer: Any = synthesizer) -> Any:
        asked = budgeted(question, str(await llm.acomplete(estimating(question))))
        nodes = _chosen(str(await llm.acomplete(_surveying(question)))) if surveys else _nodes()
        return await synthesizer.asynthesize(asked, nodes)

    async def astream(question: str) -> AsyncIterator[str]:
        async for piece in (await aask(question, streaming)).async_response_gen():
            yield piece

    return _side(ask, aask, lambda one: ask(one, streaming).response_gen, astream)


def comparisons() -> Iterator[Comparison]:
    """Yield every wrapper, without and with a handler."""
    for observed in (False, True):
        ours = Stand.under(TALECallbackHandler(ledger=Ledger(keep=_KEPT)) if observed else None)
        theirs = Stand.under(CountingHandler() if observed else None)
        for wrapper, tale, by_hand, bare in _wrappers(ours, theirs):
            yield Comparison(
                wrapper=wrapper,
                tale=tale,
                by_hand=_apart(by_hand),
                bare=_apart(bare),
                handler="yes" if observed else "no",
            )
    plain = Side(sync=llm_side(theirs.llm).sync, asynchronous=llm_side(theirs.llm).asynchronous)
    yield Comparison(wrapper="bystander", tale=plain, by_hand=Side(), bare=_apart(plain))
    yield Comparison(
        wrapper="TALENodePostprocessor",
        tale=_postprocessing(TALENodePostprocessor(ROOM, count=words)),
        by_hand=_apart(_postprocessing(HandwrittenPostprocessor())),
        bare=_apart(_postprocessing(WholePostprocessor())),
    )


def measure(*, questions: int, seconds: float, clock: Clock = time.perf_counter) -> Table:
    """Compare every wrapper for LlamaIndex."""
    return compare("LlamaIndex", _SAYS, comparisons(), questions=questions, seconds=seconds, clock=clock)


def _wrappers(ours: Stand, theirs: Stand) -> Iterator[tuple[str, Side, Side, Side]]:
    engines = [theirs.engine(), theirs.engine(streaming=True)]
    plain = [theirs.synthesizer(), theirs.synthesizer(streaming=True)]
    own = [ours.synthesizer(), ours.synthesizer(streaming=True)]
    yield "TALELLM", llm_side(TALELLM(ours.llm)), llm_by_hand(theirs.llm), llm_side(theirs.llm)
    transform, by_hand = TALEQueryTransform(ours.llm), HandwrittenTransform(theirs.llm)
    yield (
        "TALEQueryTransform",
        _side(transform.run, transform.arun),
        _side(by_hand.run, by_hand.arun),
        Side(sync=IdentityQueryTransform().run),
    )
    yield (
        "TALEQueryEngine",
        engine_side(TALEQueryEngine(ours.engine()), TALEQueryEngine(ours.engine(streaming=True))),
        engine_by_hand(*engines, theirs.llm),
        engine_side(*engines),
    )
    bare = synthesizer_side(*plain)
    yield (
        "TALESynthesizer",
        synthesizer_side(*map(TALESynthesizer, own)),
        synthesizer_by_hand(*plain, theirs.llm),
        bare,
    )
    yield (
        "TALEHierarchicalSynthesizer",
        synthesizer_side(*map(TALEHierarchicalSynthesizer, own)),
        synthesizer_by_hand(*plain, theirs.llm, surveys=True),
        bare,
    )


def _side(
    ask: Callable[[str], object],
    aask: Callable[[str], Awaitable[object]],
    stream: Any = None,
    astream: Any = None,
) -> Side:
    async def together(questions: Sequence[str]) -> None:
        await asyncio.gather(*map(aask, questions))

    return Side(sync=ask, asynchronous=aask, abatch=together, stream=stream, astream=astream)


def _apart(side: Side) -> Side:
    """Return a side as in a process that does not use TALE, whose observer hears of every LLM call."""

    @contextmanager
    def unobserved() -> Iterator[None]:
        events, spans = root_dispatcher.event_handlers, root_dispatcher.span_handlers
        root_dispatcher.event_handlers = [one for one in events if one.class_name() != "TALEObserver"]
        root_dispatcher.span_handlers = [one for one in spans if one.class_name() != "TALEObserver"]
        try:
            yield
        finally:
            root_dispatcher.event_handlers, root_dispatcher.span_handlers = events, spans

    return dataclasses.replace(side, around=unobserved)


def _postprocessing(postprocessor: BaseNodePostprocessor) -> Side:
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in PASSAGES]
    return Side(
        sync=lambda one: postprocessor.postprocess_nodes(nodes, query_str=one),
        asynchronous=lambda one: postprocessor.apostprocess_nodes(nodes, query_str=one),
    )


def _budgeted(bundle: QueryBundle, estimate: str) -> QueryBundle:
    return dataclasses.replace(
        bundle,
        query_str=budgeted(bundle.query_str, estimate),
        custom_embedding_strs=list(bundle.embedding_strs),
    )


def _surveying(question: str) -> str:
    numbered = "\n\n".join(f"[{number}] {text}" for number, text in enumerate(PASSAGES[:RETRIEVED], start=1))
    return f"{SURVEY}\n{numbered}\nQuery: {question}\nLines: "


def _chosen(survey: str) -> list[NodeWithScore]:
    found = re.findall(r"^\[(\d+)\] (.*?)( \+)?$", survey, re.MULTILINE)
    texts = [PASSAGES[int(number) - 1] if more else gist for number, gist, more in found]
    return [NodeWithScore(node=TextNode(text=text)) for text in texts]


def _nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text)) for text in PASSAGES[:RETRIEVED]]


def _user(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]
