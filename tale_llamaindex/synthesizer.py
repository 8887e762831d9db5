"""TALESynthesizer: a budget for synthesis alone; retrieval and rerankers never see it."""

# ruff: noqa: SLF001  # what a synthesizer is made of has no public names

from __future__ import annotations

import asyncio
import copy
import functools
from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from llama_index.core.async_utils import run_async_tasks
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.response_synthesizers import (
    Accumulate,
    BaseSynthesizer,
    TreeSummarize,
    get_response_synthesizer,
)
from llama_index.core.response_synthesizers.compact_and_accumulate import CompactAndAccumulate
from llama_index.core.response_synthesizers.context_only import ContextOnly
from llama_index.core.response_synthesizers.generation import Generation
from llama_index.core.response_synthesizers.no_text import NoText
from pydantic import BaseModel

from tale_core.errors import InvalidValueError
from tale_core.flows import arun, run, turn
from tale_llamaindex._setup import Setup, open_llm
from tale_llamaindex._tracking import Asking, QuestionText, asked_here, framed_before, framed_text, noted
from tale_llamaindex.llm import inner_of

if TYPE_CHECKING:
    from llama_index.core.base.response.schema import RESPONSE_TYPE
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.prompts.mixin import PromptDictType
    from llama_index.core.schema import NodeWithScore, QueryType
    from typing_extensions import Unpack

    from tale_llamaindex._setup import LLMLike, Options
    from tale_llamaindex._tracking import Question

Chunks: TypeAlias = Sequence[str] | Sequence[ChatMessage]
"""The context: texts, or messages where it is multimodal."""


class TALESynthesizer(BaseSynthesizer):
    """Estimates a budget for each query, and has the answer synthesized under it.

    For whatever takes a ``response_synthesizer``; `TALEQueryEngine` takes less time, since it estimates while
    nodes are retrieved. The budget is divided by response mode: refining gives each call the whole, accumulated
    answers share it, and in a tree the root has the whole and the leaves share as much.

    Args:
        synthesizer: The synthesizer that answers, of any response mode; None for the default, ``compact``.
        llm: The LLM to estimate with, and whose shipped calibration is used; with no synthesizer also the LLM
            that answers. An LLM object, a string as for `TALELLM`, or None for the synthesizer's own.
        **options: ``estimator``, ``policy``, ``strategy``, ``language`` and ``calibration``; see `Options`. A
            stream is never asked again, whatever the policy.

    Raises:
        InvalidValueError: What answers is no synthesizer, an option is unknown, or a value is invalid.

    Example:
        >>> from llama_index.core import Document, MockEmbedding, SummaryIndex
        >>> from llama_index.core.llms import MockLLM
        >>> index = SummaryIndex.from_documents([Document(text="Ann is 36.")], embed_model=MockEmbedding(8))
        >>> synthesizer = TALESynthesizer(llm=MockLLM(), estimator=40)  # MockLLM answers with its prompt
        >>> engine = index.as_query_engine(llm=MockLLM(), response_synthesizer=synthesizer)
        >>> "use less than 40 tokens" in str(engine.query("How old is Ann?"))
        True
    """

    def __init__(
        self,
        synthesizer: BaseSynthesizer | None = None,
        *,
        llm: LLMLike = None,
        **options: Unpack[Options],
    ) -> None:
        if synthesizer is None:
            synthesizer = get_response_synthesizer(llm=open_llm(llm))
        if not isinstance(synthesizer, BaseSynthesizer):
            raise InvalidValueError(
                f"{type(self).__name__} takes a response synthesizer first, got {type(synthesizer).__name__}; "
                f"an LLM is given as {type(self).__name__}(llm=...)"
            )
        inner = synthesizer
        super().__init__(
            llm=inner._llm,
            callback_manager=inner._callback_manager,
            prompt_helper=inner._prompt_helper,
            chat_prompt_helper=inner._chat_prompt_helper,
            streaming=inner._streaming,
            output_cls=inner._output_cls,
            empty_response=inner._empty_response,
            multimodal=inner._multimodal,
        )
        self._inner = inner
        owner = type(self).__name__
        estimating = inner_of(inner._llm if llm is None else open_llm(llm))
        self._setup = Setup.of(estimating, owner=owner, prompt_only=True, **options)

    def begin(self, query: str) -> Question | None:
        """Start a query; None where no budget is to be put in: no model is asked, or it carries one already."""
        if isinstance(self._inner, NoText | ContextOnly) or framed_before(query) is not None:
            return None
        if isinstance(query, QuestionText):
            return query.question
        return None if isinstance(asked_here(), Asking) else self._setup.begin(query)

    def get_response(self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any) -> Any:
        """Answer a query from texts, asked under a budget."""
        return self._respond(query_str, text_chunks, response_kwargs)

    async def aget_response(self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any) -> Any:
        """Answer a query from texts, asked under a budget."""
        return await self._arespond(query_str, text_chunks, response_kwargs)

    def get_response_from_messages(
        self, query_str: str, message_chunks: Sequence[ChatMessage], **response_kwargs: Any
    ) -> Any:
        """Answer a query from messages with images and the like, asked under a budget."""
        return self._respond(query_str, message_chunks, response_kwargs)

    async def aget_response_from_messages(
        self, query_str: str, message_chunks: Sequence[ChatMessage], **response_kwargs: Any
    ) -> Any:
        """Answer a query from messages with images and the like, asked under a budget."""
        return await self._arespond(query_str, message_chunks, response_kwargs)

    # Generation asks the model even without nodes, which the base class would not.

    def synthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """Answer a query from nodes, asked under a budget."""
        kind: Any = Generation if isinstance(self._inner, Generation) else BaseSynthesizer
        response: RESPONSE_TYPE = kind.synthesize(
            self, query, nodes, additional_source_nodes, **response_kwargs
        )
        return response

    async def asynthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """Answer a query from nodes, asked under a budget."""
        kind: Any = Generation if isinstance(self._inner, Generation) else BaseSynthesizer
        response: RESPONSE_TYPE = await kind.asynthesize(
            self, query, nodes, additional_source_nodes, **response_kwargs
        )
        return response

    @property
    def callback_manager(self) -> CallbackManager:
        """The callback manager, which the synthesizer inside shares."""
        return self._callback_manager

    @callback_manager.setter
    def callback_manager(self, callback_manager: CallbackManager) -> None:
        self._callback_manager = callback_manager
        self._inner.callback_manager = callback_manager

    def _divide(self, question: Question, chunks: Chunks) -> Division:
        """Divide the question's budget over calls of the synthesizer inside."""
        return divide(self._inner, question, chunks)

    def _respond(self, query: str, chunks: Chunks, options: dict[str, Any]) -> Any:
        question = self.begin(query)
        if question is None:
            return _method(self._inner, chunks)(query, chunks, **options)
        call: Any = functools.partial(self._ask_all, options)
        return run(self._divide(self._setup.plan(question), chunks), call)

    async def _arespond(self, query: str, chunks: Chunks, options: dict[str, Any]) -> Any:
        await turn()
        question = self.begin(query)
        if question is None:
            return await _method(self._inner, chunks, "a")(query, chunks, **options)
        call: Any = functools.partial(_aask_all, options)
        return await arun(self._divide(await self._setup.aplan(question), chunks), call)

    def _ask_all(self, options: dict[str, Any], asks: list[Ask]) -> None:
        # Only where the synthesizer itself would.
        if len(asks) > 1 and getattr(self._inner, "_use_async", False):
            run_async_tasks([_aask(ask, options) for ask in asks])
            return
        for ask in asks:
            _ask(ask, options)

    def _get_prompts(self) -> PromptDictType:
        return self._inner._get_prompts()

    def _update_prompts(self, prompts: PromptDictType) -> None:
        self._inner.update_prompts(prompts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self._inner).__name__}, {self._setup.describe()})"


async def _aask_all(options: dict[str, Any], asks: list[Ask]) -> None:
    await asyncio.gather(*(_aask(ask, options) for ask in asks))


def _ask(ask: Ask, options: dict[str, Any]) -> None:
    """Make one call, and make it again where the policy says so; a stream is handed on as it comes."""
    method = _method(ask.synthesizer, ask.chunks)
    for asking in ask.asking.attempts():
        ask.asking = asking
        with noted(asking=asking):
            ask.response = method(ask.query, ask.chunks, **options)
        # A stream that was read in part cannot be taken back, so it is never retried.
        if isinstance(ask.response, Generator):
            ask.response = asking.stream(ask.response)
            return


async def _aask(ask: Ask, options: dict[str, Any]) -> None:
    """Make one call, asynchronously; see `_ask`."""
    method = _method(ask.synthesizer, ask.chunks, "a")
    for asking in ask.asking.attempts():
        ask.asking = asking
        with noted(asking=asking):
            ask.response = await method(ask.query, ask.chunks, **options)
        if isinstance(ask.response, AsyncGenerator):
            ask.response = asking.astream(ask.response)
            return


def _method(synthesizer: BaseSynthesizer, chunks: Chunks, prefix: str = "") -> Any:
    """Return the method that answers from texts, or from messages."""
    messages = bool(chunks) and isinstance(chunks[0], ChatMessage)
    return getattr(synthesizer, f"{prefix}get_response{'_from_messages' if messages else ''}")


# How a budget is divided over the calls of a response mode. Every call carries the whole text of the budget,
# so a budget of B becomes N x B where a mode makes N calls.


@dataclass(slots=True)
class Ask:
    """One use of a synthesizer under one budget."""

    synthesizer: BaseSynthesizer
    asking: Asking
    chunks: Any
    response: Any = None
    """What came back."""

    @property
    def query(self) -> str:
        """The framed question."""
        return framed_text(self.asking.plan)

    @property
    def spent(self) -> int:
        """Output tokens that came back."""
        return sum(answer.reason_usage.output_tokens for answer in self.asking.answers)


Division: TypeAlias = Generator[Any, Any, Any]
"""Yields lists of `Ask`, each what can be asked at once, and returns the answer; driven as a flow is."""


def divide(synthesizer: BaseSynthesizer, question: Question, chunks: Chunks, share: float = 1.0) -> Division:
    """Divide a share of a planned question's budget by the synthesizer's response mode.

    Refining rewrites the whole answer in each call, so each may take the whole budget. Accumulated answers
    stand one after the other and share it. In a tree the root writes the answer with the whole budget, and the
    leaves, which only feed it, share as much among themselves.
    """
    if isinstance(synthesizer, Accumulate):
        return _accumulate(synthesizer, question, chunks, share)
    if isinstance(synthesizer, TreeSummarize):
        return _tree(synthesizer, question, chunks, share)
    return _each(synthesizer, question, chunks, share)


def _each(synthesizer: BaseSynthesizer, question: Question, chunks: Chunks, share: float) -> Division:
    """Let each call have the same share."""
    ask = Ask(synthesizer, portion(question, share), chunks)
    yield [ask]
    return ask.response


def portion(question: Question, share: float) -> Asking:
    """Return the question as it is asked with a share of its budget."""
    if question.plan is None:
        raise AssertionError("a question is planned before it is asked")
    plan = question.plan if share == 1 else question.run.portion(question.plan, share)
    return Asking(question, plan)


def without_streaming(synthesizer: BaseSynthesizer) -> BaseSynthesizer:
    """Return the synthesizer for answers that are not streamed to a reader."""
    quiet = copy.copy(synthesizer)
    quiet._streaming = False
    return quiet


def _accumulate(synthesizer: Accumulate, question: Question, chunks: Chunks, share: float) -> Division:
    prompts = ("text_qa_template", "chat_content_qa_template")
    if isinstance(synthesizer, CompactAndAccumulate):
        chunks = _packed(synthesizer, question, chunks, *prompts)
    calls = 0
    # A chunk that does not fit into the window is answered in several calls.
    for chunk in chunks:
        calls += len(_packed(synthesizer, question, [chunk], *prompts))
    return (yield from _each(synthesizer, question, chunks, share / max(1, calls)))


def _tree(synthesizer: TreeSummarize, question: Question, chunks: Chunks, share: float) -> Division:
    prompts = ("summary_template", "chat_summary_template")
    packed = _packed(synthesizer, question, chunks, *prompts)
    while len(packed) > 1:
        leaf = without_streaming(synthesizer)
        asks = [Ask(leaf, portion(question, share / len(packed)), [chunk]) for chunk in packed]
        yield asks
        packed = _packed(synthesizer, question, [_as_text(ask.response) for ask in asks], *prompts)
    return (yield from _each(synthesizer, question, packed, share))


def _packed(synthesizer: BaseSynthesizer, question: Question, chunks: Any, text: str, chat: str) -> Any:
    """Fit chunks into the context window around a prompt, as the synthesizer itself does.

    ``text`` and ``chat`` name the prompts for texts and for messages.
    """
    messages = bool(chunks) and isinstance(chunks[0], ChatMessage)
    helper: Any = synthesizer._chat_prompt_helper if messages else synthesizer._prompt_helper
    template = synthesizer._get_prompts()[chat if messages else text]
    framed = template.partial_format(query_str=framed_text(portion(question, 1).plan))
    return helper.repack(framed, chunks, llm=synthesizer._llm)


def _as_text(response: Any) -> str:
    return response.model_dump_json() if isinstance(response, BaseModel) else str(response)
