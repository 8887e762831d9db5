"""TALEQueryTransform: a budget in the query that the model reads, the original question for the retriever."""

from __future__ import annotations

import dataclasses
import reprlib
from typing import TYPE_CHECKING, Any

from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.schema import QueryBundle
from llama_index_instrumentation import get_dispatcher

from tale_core.errors import InvalidValueError
from tale_llamaindex._setup import Setup, open_llm
from tale_llamaindex._tracking import framed_before
from tale_llamaindex.llm import inner_of

if TYPE_CHECKING:
    from llama_index.core.prompts.mixin import PromptDictType
    from typing_extensions import Unpack

    from tale_core.method.policy import BudgetPolicy
    from tale_llamaindex._setup import LLMLike, Options
    from tale_llamaindex._tracking import Question

_dispatcher = get_dispatcher(__name__)


class TALEQueryTransform(BaseQueryTransform):
    """Estimates a budget for each question and puts it into the query, for ``TransformQueryEngine``.

    For engines that `TALEQueryEngine` refuses. Embedding retrievers go on seeing the original question. Hybrid
    and keyword retrieval and rerankers read the query as it is, budget and all; with `TALEQueryEngine` they do
    not. A transform never sees the answer: it cannot retry or raise.

    Args:
        llm: The LLM to estimate with, and whose shipped calibration is used: an LLM object, ``"local"``,
            ``"openai:gpt-4o-mini"``, the URL of an OpenAI-compatible server, or None for ``Settings.llm``.
        **options: ``estimator``, ``policy``, ``strategy``, ``language`` and ``calibration``; see `Options`. A
            calibration's policy is used without its retries.

    Raises:
        InvalidValueError: The policy asks to retry or to raise, an option is unknown, or a value is invalid.
        UnknownStrategyError: No strategy of that name.
        NotAChatModelError: ``llm`` is neither an LLM nor a string.
        UnknownModelError: ``llm`` is a string that names no model.

    Example:
        >>> from llama_index.core import Document, MockEmbedding, SummaryIndex
        >>> from llama_index.core.llms import MockLLM
        >>> from llama_index.core.query_engine import TransformQueryEngine
        >>> llm = MockLLM()  # answers with its prompt
        >>> index = SummaryIndex.from_documents([Document(text="Ann is 36.")], embed_model=MockEmbedding(8))
        >>> engine = TransformQueryEngine(index.as_query_engine(llm=llm), TALEQueryTransform(llm, estimator=40))
        >>> "use less than 40 tokens" in str(engine.query("How old is Ann?"))
        True
    """

    def __init__(self, llm: LLMLike = None, **options: Unpack[Options]) -> None:
        super().__init__()
        inner = inner_of(open_llm(llm))
        self._setup = Setup.of(inner, owner=type(self).__name__, prompt_only=True, **options)
        _check_can_be_kept(self._setup.method.policy, own=options.get("policy") is not None)

    async def arun(
        self, query_bundle_or_str: str | QueryBundle, metadata: dict[str, Any] | None = None
    ) -> QueryBundle:
        """Estimate and put the budget in, without blocking the event loop; takes and raises as ``run``.

        ``TransformQueryEngine`` itself calls ``run`` even from ``aquery``, which blocks the loop while the
        estimator's call is under way; `TALEQueryEngine` does not.
        """
        del metadata
        bundle = query_bundle_or_str
        return await self._arun(_checked(QueryBundle(bundle) if isinstance(bundle, str) else bundle))

    def _run(self, query_bundle: QueryBundle, metadata: dict[str, Any]) -> QueryBundle:
        del metadata
        _checked(query_bundle)
        question = framed_before(query_bundle.query_str)
        if question is None:
            question = self._setup.plan(self._setup.begin(query_bundle.query_str))
        return _transformed(query_bundle, question)

    @_dispatcher.span
    async def _arun(self, query_bundle: QueryBundle) -> QueryBundle:
        question = framed_before(query_bundle.query_str)
        if question is None:
            question = await self._setup.aplan(self._setup.begin(query_bundle.query_str))
        return _transformed(query_bundle, question)

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """Do nothing: strategies are chosen at construction."""

    def __repr__(self) -> str:
        return f"TALEQueryTransform({self._setup.describe()})"


def _checked(bundle: object) -> QueryBundle:
    if isinstance(bundle, QueryBundle) and isinstance(bundle.query_str, str):
        return bundle
    raise InvalidValueError(
        f"a query is a str or a QueryBundle around one, got {reprlib.repr(bundle)}; pass the question as text"
    )


def _transformed(bundle: QueryBundle, question: Question) -> QueryBundle:
    """Return the bundle with the framed question for the model and the original one for the retriever."""
    if not question.framed:
        return bundle
    # The engine asks the model later, in a span beside this one.
    question.announce()
    original = question.run.question
    # A query that was framed before must not be embedded as it is either.
    embedded = [original if text == question.framed else text for text in bundle.embedding_strs]
    return dataclasses.replace(bundle, query_str=question.framed, custom_embedding_strs=embedded)


def _check_can_be_kept(policy: BudgetPolicy, *, own: bool) -> None:
    """Refuse reactions that need the answer; a calibration's retry is skipped without an error."""
    for name, action in policy.reactions.items():
        if action == "raise" or (own and action == "retry"):
            raise InvalidValueError(
                f"a query transform never sees the answer, so {name}={action!r} cannot be kept; "
                f"use TALEQueryEngine, or leave {name} at 'record'"
            )
