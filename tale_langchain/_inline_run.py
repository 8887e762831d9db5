"""Asking a chat model within a run that is under way, so that callbacks hear of one run and one usage.

A chat model that calls another one as LangChain lets it is two runs: both report the same tokens, and a graph
streams every word twice. Here the model inside keeps all that `BaseChatModel` puts around a provider's request
(its rate limiter, its streaming switch, its output format), but the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import _gen_info_and_msg_metadata
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.utils.uuid import uuid7

from tale_langchain._convert import as_chunk, to_messages
from tale_langchain._models import rebuilt
from tale_langchain._question import Invocation, Question

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from uuid import UUID

    from langchain_core.outputs import ChatGenerationChunk, ChatResult

    from tale_core.types import ModelCall

L = TypeVar("L", CallbackManagerForLLMRun, AsyncCallbackManagerForLLMRun)

# Arguments that describe a structured output to tracers; BaseChatModel removes them before the request.
_FOR_TRACERS = ("ls_structured_output_format", "structured_output_format")


class InlineQuestion(Question):
    """A question asked within a chat model's own run: none of its calls is a run of its own."""

    result: ChatResult | None = None
    """What the last whole answer came in, with all that a message alone does not carry."""

    def invocation(self, call: ModelCall) -> Invocation:
        """Return what is invoked for a call of the flow."""
        invocation = super().invocation(call)
        run_id = None if self._manager is None else self._manager.run_id
        note = self if call.role == "reason" else None

        def inline(one: Runnable[Any, Any]) -> Runnable[Any, Any]:
            return _InlineModel(one, run_id, note) if isinstance(one, BaseChatModel) else one

        return invocation._replace(model=rebuilt(invocation.model, inline))


class _InlineModel(Runnable[LanguageModelInput, AIMessage]):
    """A chat model without runs of its own.

    The run around it names messages that have no id; the question, if any, keeps the whole result.
    """

    def __init__(self, model: BaseChatModel, run_id: UUID | None, question: InlineQuestion | None) -> None:
        self._model = model
        self._run_id = run_id
        self._question = question

    def invoke(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Ask the model."""
        silent = self._silent(CallbackManagerForLLMRun, config)
        return self._noted(
            self._model._generate_with_cache(  # noqa: SLF001  # the model, less the run
                to_messages(input), run_manager=silent, **_sent(kwargs)
            )
        )

    async def ainvoke(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Ask the model, asynchronously."""
        silent = self._silent(AsyncCallbackManagerForLLMRun, config)
        return self._noted(
            await self._model._agenerate_with_cache(  # noqa: SLF001  # as above
                to_messages(input), run_manager=silent, **_sent(kwargs)
            )
        )

    def stream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessage]:
        """Ask the model for a stream."""
        if not self._model._should_stream(async_api=False, **{**kwargs, "stream": True}):  # noqa: SLF001
            yield self.invoke(input, config, **kwargs)
            return
        if self._model.rate_limiter is not None:
            self._model.rate_limiter.acquire(blocking=True)
        for chunk in self._model._stream(to_messages(input), **_sent(kwargs)):  # noqa: SLF001  # as above
            yield _message_of(chunk)

    async def astream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessage]:
        """Ask the model for a stream, asynchronously."""
        if not self._model._should_stream(async_api=True, **{**kwargs, "stream": True}):  # noqa: SLF001
            yield await self.ainvoke(input, config, **kwargs)
            return
        if self._model.rate_limiter is not None:
            await self._model.rate_limiter.aacquire(blocking=True)
        async for chunk in self._model._astream(to_messages(input), **_sent(kwargs)):  # noqa: SLF001  # as above
            yield _message_of(chunk)

    def _silent(self, kind: type[L], config: RunnableConfig | None) -> L:
        """Return callbacks without handlers, under the tags of the call."""
        tags = ensure_config(config).get("tags") or []
        return kind(run_id=self._run_id or uuid7(), handlers=[], inheritable_handlers=[], tags=tags)

    def _noted(self, result: ChatResult) -> AIMessage:
        if self._question is not None:
            self._question.result = result
        message: AIMessage = result.generations[0].message  # type: ignore[assignment]  # checked where it is read
        return message


def _sent(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name not in _FOR_TRACERS}


def _message_of(chunk: ChatGenerationChunk) -> AIMessageChunk:
    """Return the message of a chunk, with the provider's metadata."""
    message = as_chunk(chunk.message)
    message.response_metadata = _gen_info_and_msg_metadata(chunk)
    return message
