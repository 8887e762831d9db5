"""TALESynthesizer: a budget for synthesis alone; retrieval and rerankers never see it."""

# ruff: noqa: SLF001  # what a synthesizer is made of has no public names

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from llama_index.core.async_utils import run_async_tasks
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.response_synthesizers import BaseSynthesizer, get_response_synthesizer
from llama_index.core.response_synthesizers.context_only import ContextOnly
from llama_index.core.response_synthesizers.generation import Generation
from llama_index.core.response_synthesizers.no_text import NoText

from tale_core.flows import turn
from tale_llamaindex._division import Ask, Chunks, Division, divide
from tale_llamaindex._models import open_llm
from tale_llamaindex._setup import Setup
from tale_llamaindex._tracking import current_asking, framed_before
from tale_llamaindex._wrapped import inner_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from llama_index.core.base.response.schema import RESPONSE_TYPE
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.llms import LLM
    from llama_index.core.prompts.mixin import PromptDictType
    from llama_index.core.schema import NodeWithScore, QueryType

    from tale_core.method.calibration import Calibration
    from tale_core.method.policy import BudgetPolicy
    from tale_core.protocols import Estimator, Strategy
    from tale_llamaindex._models import LLMLike
    from tale_llamaindex._tracking import Question

_planned: ContextVar[Question | None] = ContextVar("tale_planned", default=None)


@contextmanager
def planned(question: Question | None) -> Iterator[None]:
    """Have synthesizers called inside ask this question as it was planned, rather than plan it again."""
    token = _planned.set(question)
    try:
        yield
    finally:
        _planned.reset(token)


class TALESynthesizer(BaseSynthesizer):
    """Estimates a budget for each query, and has the answer synthesized under it.

    The budget is divided by response mode: refining gives each call the whole, accumulated answers share it,
    and in a tree the root has the whole and the leaves share as much.

    Args:
        synthesizer: The synthesizer that answers, of any response mode; None for the default, ``compact``.
        llm: The LLM to estimate with, and whose shipped calibration is used; with no synthesizer also the LLM
            that answers. An LLM object, a string as for `TALELLM`, or None for the synthesizer's own.
        estimator: An estimator, another LLM (or string) to ask, a number of output tokens, or None for the
            calibration's budget or else the zero-shot estimator.
        policy: Bounds of the budget, and what to do when an answer does not keep it; None for the
            calibration's or else the defaults. A stream is never asked again.
        strategy: A prompt strategy or its name; None for the calibration's or else ``"tale"``.
        language: Language of the prompt, or ``"auto"`` to follow the question's script.
        calibration: What was measured about the LLM, or a path to it; None for the shipped one, if any.

    Raises:
        InvalidValueError: A value that cannot be meant; its subclasses say which.

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
        estimator: Estimator | LLM | str | int | None = None,
        policy: BudgetPolicy | None = None,
        strategy: str | Strategy | None = None,
        language: str = "auto",
        calibration: Calibration | str | Path | None = None,
    ) -> None:
        if synthesizer is None:
            synthesizer = get_response_synthesizer(llm=open_llm(llm))
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
        self._setup = Setup.of(
            inner_of(inner._llm if llm is None else open_llm(llm)),
            estimator=estimator,
            policy=policy,
            strategy=strategy,
            language=language,
            calibration=calibration,
        )

    def begin(self, query: str) -> Question | None:
        """Start a query; None where no budget is to be put in: no model is asked, or it carries one already."""
        before = _planned.get()
        if before is not None and before.run.question == query:
            return before
        if (
            isinstance(self._inner, NoText | ContextOnly)
            or current_asking() is not None
            or framed_before(query)
        ):
            return None
        return self._setup.begin(query)

    def plan(self, question: Question) -> Question:
        """Estimate the budget of a query, if that has not been done."""
        return question if question.plan is not None else self._setup.plan(question)

    async def aplan(self, question: Question) -> Question:
        """Estimate the budget of a query, asynchronously, if that has not been done."""
        return question if question.plan is not None else await self._setup.aplan(question)

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
        division = self._divide(self.plan(question), chunks)
        asks = _advance(division)
        while isinstance(asks, list):
            self._ask_all(asks, options)
            asks = _advance(division)
        return asks.value

    async def _arespond(self, query: str, chunks: Chunks, options: dict[str, Any]) -> Any:
        await turn()
        question = self.begin(query)
        if question is None:
            return await _method(self._inner, chunks, "a")(query, chunks, **options)
        division = self._divide(await self.aplan(question), chunks)
        asks = _advance(division)
        while isinstance(asks, list):
            await asyncio.gather(*(_aask(ask, options) for ask in asks))
            asks = _advance(division)
        return asks.value

    def _ask_all(self, asks: list[Ask], options: dict[str, Any]) -> None:
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


def _advance(division: Division) -> list[Ask] | StopIteration:
    """Return the next calls, or the end, which carries the answer."""
    try:
        return next(division)
    except StopIteration as stop:
        return stop


def _ask(ask: Ask, options: dict[str, Any]) -> None:
    """Make one call, and make it again where the policy says so; a stream is handed on as it comes."""
    method = _method(ask.synthesizer, ask.chunks)
    while True:
        with ask.asking.under_way():
            ask.response = method(ask.query, ask.chunks, **options)
        if isinstance(ask.response, Generator):
            ask.response = ask.asking.stream(ask.response)
            return
        again = ask.asking.again()
        if again is None:
            return
        ask.asking = again


async def _aask(ask: Ask, options: dict[str, Any]) -> None:
    """Make one call, asynchronously; see `_ask`."""
    method = _method(ask.synthesizer, ask.chunks, "a")
    while True:
        with ask.asking.under_way():
            ask.response = await method(ask.query, ask.chunks, **options)
        if isinstance(ask.response, AsyncGenerator):
            ask.response = ask.asking.astream(ask.response)
            return
        again = ask.asking.again()
        if again is None:
            return
        ask.asking = again


def _method(synthesizer: BaseSynthesizer, chunks: Chunks, prefix: str = "") -> Any:
    """Return the method that answers from texts, or from messages."""
    messages = bool(chunks) and isinstance(chunks[0], ChatMessage)
    return getattr(synthesizer, f"{prefix}get_response{'_from_messages' if messages else ''}")
