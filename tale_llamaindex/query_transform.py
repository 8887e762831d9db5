"""TALEQueryTransform: a budget in the query that the model reads, the original question for the retriever."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.llms import LLM
from llama_index.core.schema import QueryBundle
from llama_index_instrumentation import get_dispatcher

from tale_core.errors import InvalidValueError
from tale_core.estimators import ZeroShotEstimator
from tale_core.method import TaleMethod
from tale_core.profile import find_profile
from tale_llamaindex._calls import arun_flow, run_flow
from tale_llamaindex._models import name_of, open_llm
from tale_llamaindex._observer import OBSERVER, watch
from tale_llamaindex._tracking import Question, framed_before

if TYPE_CHECKING:
    from pathlib import Path

    from llama_index.core.prompts.mixin import PromptDictType

    from tale_core.method import Plan
    from tale_core.policy import BudgetPolicy
    from tale_core.profile import Profile
    from tale_core.types import Estimator, Style
    from tale_llamaindex._models import LLMLike

_dispatcher = get_dispatcher(__name__)


class TALEQueryTransform(BaseQueryTransform):
    """Estimates a budget for each question and puts it into the query, for ``TransformQueryEngine``.

    Embedding retrievers go on seeing the original question. Hybrid and keyword retrieval and rerankers read
    the query as it is, budget and all.

    Args:
        llm: The LLM to estimate with, and whose shipped profile is used: an LLM object, ``"local"``,
            ``"openai:gpt-4o-mini"``, the URL of an OpenAI-compatible server, or None for ``Settings.llm``.
        estimator: An estimator, another LLM to estimate with, a number of output tokens, or None for the
            profile's budget or else the zero-shot estimator.
        policy: Bounds of the budget; None for the profile's or else the defaults.
        style: A prompt style or its name; None for the profile's or else ``"tale"``.
        language: Language of the prompt, or ``"auto"`` to follow the question's script.
        profile: What was measured about the LLM, or a path to it; None for the shipped one, if any.

    Raises:
        InvalidValueError: The policy asks to retry or to raise, which only who sees the answer can do.
        UnknownStyleError: No style of that name.
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

    def __init__(
        self,
        llm: LLMLike = None,
        *,
        estimator: Estimator | LLM | int | None = None,
        policy: BudgetPolicy | None = None,
        style: str | Style | None = None,
        language: str = "auto",
        profile: Profile | str | Path | None = None,
    ) -> None:
        super().__init__()
        self._llm = open_llm(llm)
        self._estimator_llm = self._llm
        if isinstance(estimator, LLM):
            self._estimator_llm, estimator = estimator, ZeroShotEstimator()
        self._method = TaleMethod(
            estimator=estimator,
            policy=policy,
            style=style,
            language=language,
            profile=find_profile(profile, model_name=name_of(self._llm)),
        )
        _check_records_only(self._method.policy)

    async def arun(
        self, query_bundle_or_str: str | QueryBundle, metadata: dict[str, Any] | None = None
    ) -> QueryBundle:
        """Estimate and put the budget in, without blocking the event loop; see ``run``.

        ``TransformQueryEngine`` itself calls ``run`` even from ``aquery``, which blocks the loop while the
        estimator's call is under way.

        Args:
            query_bundle_or_str: The question.
            metadata: Ignored, as in ``run``.
        """
        del metadata
        bundle = query_bundle_or_str
        return await self._arun(QueryBundle(bundle) if isinstance(bundle, str) else bundle)

    def _run(self, query_bundle: QueryBundle, metadata: dict[str, Any]) -> QueryBundle:
        del metadata
        before = framed_before(query_bundle.query_str)
        if before is not None:
            return _bundle(query_bundle, before)
        question = self._begin(query_bundle)
        try:
            plan = run_flow(question.run.plan(), self._estimator_llm, question)
        finally:
            question.emit()
        return _finish(query_bundle, question, plan)

    @_dispatcher.span
    async def _arun(self, query_bundle: QueryBundle) -> QueryBundle:
        before = framed_before(query_bundle.query_str)
        if before is not None:
            return _bundle(query_bundle, before)
        question = self._begin(query_bundle)
        try:
            plan = await arun_flow(question.run.plan(), self._estimator_llm, question)
        finally:
            question.emit()
        return _finish(query_bundle, question, plan)

    def _begin(self, bundle: QueryBundle) -> Question:
        watch()
        run = self._method.begin(bundle.query_str, question_id=active_span_id.get() or str(uuid4()))
        return Question(run, embedding_strs=list(bundle.embedding_strs))

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """Do nothing: styles are chosen at construction."""

    def __repr__(self) -> str:
        return (
            f"TALEQueryTransform({type(self._llm).__name__}({self._llm.metadata.model_name!r}), "
            f"estimator={self._method.estimator.name!r}, style={self._method.style.name!r})"
        )


def _finish(bundle: QueryBundle, question: Question, plan: Plan) -> QueryBundle:
    question.planned(plan)
    OBSERVER.scope(question)
    return _bundle(bundle, question)


def _bundle(bundle: QueryBundle, question: Question) -> QueryBundle:
    """Return the bundle with the framed question for the model and the original one for the retriever."""
    if not question.framed:
        return bundle
    return dataclasses.replace(
        bundle, query_str=question.framed, custom_embedding_strs=list(question.embedding_strs or ())
    )


def _check_records_only(policy: BudgetPolicy) -> None:
    for name in ("on_overrun", "on_truncation"):
        action = getattr(policy, name)
        if action != "record":
            raise InvalidValueError(
                f"a query transform never sees the answer, so {name}={action!r} cannot be kept; "
                f"use TALEQueryEngine, or leave {name} at 'record'"
            )
