"""TALEQueryEngine: a query engine whose answers are asked for under a budget."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CBEventType
from llama_index.core.callbacks.schema import EventPayload
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import BaseSynthesizer

from tale_core.errors import InvalidValueError
from tale_core.flows import turn
from tale_llamaindex._setup import open_llm
from tale_llamaindex._tracking import QuestionText
from tale_llamaindex.synthesizer import TALESynthesizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.response.schema import RESPONSE_TYPE
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.prompts.mixin import PromptMixinType
    from llama_index.core.schema import NodeWithScore, QueryBundle
    from typing_extensions import Unpack

    from tale_llamaindex._setup import LLMLike, Options
    from tale_llamaindex._tracking import Question


class TALEQueryEngine(BaseQueryEngine):
    """Estimates a budget for each query while its nodes are retrieved, and synthesizes the answer under it.

    The first choice for retrieval: node postprocessors and rerankers see the query as it was asked, a query is
    estimated once however the engine is used, and the budget is divided by response mode. Asynchronous queries
    never block the event loop for the estimate.

    Args:
        query_engine: An engine that retrieves and synthesizes, such as ``index.as_query_engine()``, or a
            retriever. The engine itself is not changed.
        llm: The LLM to estimate with, and whose shipped calibration is used; with a retriever also the LLM that
            answers. An LLM object, a string as for `TALELLM`, or None for the engine's own.
        callback_manager: The callback manager; None for the engine's.
        **options: ``estimator``, ``policy``, ``strategy``, ``language`` and ``calibration``; see `Options`. A
            stream is never asked again, whatever the policy. An engine whose synthesizer is a `TALESynthesizer`
            keeps that one's.

    Raises:
        InvalidValueError: The engine does not retrieve and synthesize, an option is unknown, or a value is
            invalid.

    Example:
        >>> from llama_index.core import Document, MockEmbedding, SummaryIndex
        >>> from llama_index.core.llms import MockLLM
        >>> index = SummaryIndex.from_documents([Document(text="Ann is 36.")], embed_model=MockEmbedding(8))
        >>> engine = TALEQueryEngine(index.as_query_engine(llm=MockLLM()), estimator=40)
        >>> "use less than 40 tokens" in str(engine.query("How old is Ann?"))  # MockLLM answers with its prompt
        True
    """

    def __init__(
        self,
        query_engine: BaseQueryEngine | BaseRetriever,
        llm: LLMLike = None,
        *,
        callback_manager: CallbackManager | None = None,
        **options: Unpack[Options],
    ) -> None:
        engine, synthesizer = _parts(query_engine, llm)
        if not isinstance(synthesizer, TALESynthesizer):
            synthesizer = TALESynthesizer(synthesizer, llm=llm, **options)
        self._synthesizer = synthesizer
        self._setup = synthesizer._setup  # noqa: SLF001  # ours
        self._engine: Any = copy.copy(engine)  # the caller's engine goes on as it is
        vars(self._engine)["_response_synthesizer"] = synthesizer
        super().__init__(callback_manager or engine.callback_manager)

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Retrieve nodes, as the engine inside does."""
        nodes: list[NodeWithScore] = self._engine.retrieve(query_bundle)
        return nodes

    async def aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Retrieve nodes, as the engine inside does."""
        nodes: list[NodeWithScore]
        if hasattr(self._engine, "aretrieve"):
            nodes = await self._engine.aretrieve(query_bundle)
        else:
            nodes = await asyncio.to_thread(self._engine.retrieve, query_bundle)
        return nodes

    def synthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """Estimate a budget, and synthesize the answer under it."""
        response: RESPONSE_TYPE = self._engine.synthesize(query_bundle, nodes, additional_source_nodes)
        return response

    async def asynthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """Estimate a budget, and synthesize the answer under it."""
        response: RESPONSE_TYPE = await self._engine.asynthesize(query_bundle, nodes, additional_source_nodes)
        return response

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with self.callback_manager.event(
            CBEventType.QUERY, payload={EventPayload.QUERY_STR: query_bundle.query_str}
        ) as event:
            question = self._synthesizer.begin(query_bundle.query_str)
            nodes = self._retrieve_while_planning(query_bundle, question)
            response = self.synthesize(_carrying(query_bundle, question), nodes)
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        await turn()
        with self.callback_manager.event(
            CBEventType.QUERY, payload={EventPayload.QUERY_STR: query_bundle.query_str}
        ) as event:
            question = self._synthesizer.begin(query_bundle.query_str)
            nodes = await self._aretrieve_while_planning(query_bundle, question)
            response = await self.asynthesize(_carrying(query_bundle, question), nodes)
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    def _retrieve_while_planning(self, bundle: QueryBundle, question: Question | None) -> list[NodeWithScore]:
        if question is None:
            return self.retrieve(bundle)
        pool = ThreadPoolExecutor(1, thread_name_prefix="tale-estimate")
        try:
            # In a copy of the context, so that the estimate belongs to this query's span.
            planning = pool.submit(copy_context().run, self._setup.plan, question)
            nodes = self.retrieve(bundle)
            planning.result()
        finally:
            pool.shutdown(wait=False)  # where retrieval failed, the estimate is not awaited
        return nodes

    async def _aretrieve_while_planning(
        self, bundle: QueryBundle, question: Question | None
    ) -> list[NodeWithScore]:
        if question is None:
            return await self.aretrieve(bundle)
        # Not gathered: where retrieval fails, the estimate is cancelled instead of awaited.
        planning = asyncio.ensure_future(self._setup.aplan(question))
        try:
            nodes = await self.aretrieve(bundle)
            await planning
        finally:
            planning.cancel()
        return nodes

    def _get_prompt_modules(self) -> PromptMixinType:
        modules: PromptMixinType = self._engine._get_prompt_modules()  # noqa: SLF001  # its part of the mixin
        return modules

    def __repr__(self) -> str:
        return f"TALEQueryEngine({type(self._engine).__name__}, {self._synthesizer!r})"


def _carrying(bundle: QueryBundle, question: Question | None) -> QueryBundle:
    """Return the bundle with a text that carries the planned question to the synthesizer."""
    if question is None:
        return bundle
    return dataclasses.replace(bundle, query_str=QuestionText.of(bundle.query_str, question))


def _parts(engine: object, llm: LLMLike) -> tuple[BaseQueryEngine, BaseSynthesizer]:
    """Return an engine and the synthesizer that it answers with."""
    if isinstance(engine, BaseRetriever):
        engine = RetrieverQueryEngine.from_args(engine, llm=open_llm(llm))
    synthesizer = getattr(engine, "_response_synthesizer", None)
    retrieves = isinstance(engine, BaseQueryEngine) and type(engine).retrieve is not BaseQueryEngine.retrieve
    if not isinstance(engine, BaseQueryEngine) or not isinstance(synthesizer, BaseSynthesizer) or not retrieves:
        raise InvalidValueError(
            "TALEQueryEngine needs an engine that retrieves and synthesizes, such as index.as_query_engine(), "
            f"or a retriever; got {type(engine).__name__}. For other engines use "
            "TransformQueryEngine(engine, TALEQueryTransform(llm))"
        )
    return engine, synthesizer
