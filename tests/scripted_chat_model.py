"""A fake chat model for tests of code that uses TALE: no network, exact token counts, truly asynchronous."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field, PrivateAttr

from tale_core.types import Message, ModelCall, ModelReply
from tale_langchain._convert import as_chunk
from tale_langchain._question import ESTIMATOR_TAGS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.messages.ai import UsageMetadata
    from langchain_core.runnables import Runnable

    from tale_core.testing import ScriptedModel

_ROLES = {"system": "system", "ai": "assistant"}


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One request that a `ScriptedChatModel` received."""

    messages: tuple[BaseMessage, ...]
    """The prompt."""
    kwargs: dict[str, Any]
    """The arguments of this call, ``stop`` included."""
    settings: dict[str, Any]
    """The model's own temperature and output limit at that moment."""
    tags: tuple[str, ...]
    """The tags of the run, by which tracers know it."""
    streamed: bool
    """Whether the answer was asked for as a stream."""

    @property
    def estimates(self) -> bool:
        """Whether this is an estimator's call."""
        return ESTIMATOR_TAGS[-1] in self.tags

    @property
    def text(self) -> str:
        """The text of the last message."""
        return str(self.messages[-1].text)


class ScriptedChatModel(BaseChatModel):
    """Answers from a script, streams word by word, and reports usage in words.

    Args:
        script: What to answer; see `ScriptedModel`. A reply with an AIMessage as ``native`` is answered with
            just that message.
        **fields: The fields below.

    Example:
        >>> from tale_core.testing import ScriptedModel
        >>> model = ScriptedChatModel(ScriptedModel(estimate="[[40]]", reason="3 + 4 = 7"))
        >>> model.invoke("How much is 3 + 4?").text
        '3 + 4 = 7'
        >>> [sent.text for sent in model.sent]
        ['How much is 3 + 4?']
    """

    model_name: str = "scripted"
    temperature: float | None = None
    max_tokens: int | None = None
    latency: float = Field(default=0.0, ge=0)
    """Seconds before each answer; asynchronous calls do not block the loop meanwhile."""
    reports_usage: bool = True
    """Whether messages say what they cost."""

    _script: ScriptedModel = PrivateAttr()
    _sent: list[Sent] = PrivateAttr(default_factory=list)

    def __init__(self, script: ScriptedModel, **fields: Any) -> None:
        super().__init__(**fields)
        self._script = script

    @property
    def sent(self) -> tuple[Sent, ...]:
        """Every request received, in order, by this model and by copies of it."""
        return tuple(self._sent)

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        """Bind tools as OpenAI's models do."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply = self._answer(messages, {**kwargs, "stop": stop}, run_manager, streamed=False)
        time.sleep(self.latency)
        return ChatResult(generations=[ChatGeneration(message=self._message(reply))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply = self._answer(messages, {**kwargs, "stop": stop}, run_manager, streamed=False)
        await asyncio.sleep(self.latency)
        return ChatResult(generations=[ChatGeneration(message=self._message(reply))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        reply = self._answer(messages, {**kwargs, "stop": stop}, run_manager, streamed=True)
        time.sleep(self.latency)
        yield from self._chunks(reply)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        reply = self._answer(messages, {**kwargs, "stop": stop}, run_manager, streamed=True)
        await asyncio.sleep(self.latency)
        for chunk in self._chunks(reply):
            yield chunk

    def _answer(
        self,
        messages: list[BaseMessage],
        kwargs: dict[str, Any],
        run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
        *,
        streamed: bool,
    ) -> ModelReply:
        sent = Sent(
            messages=tuple(messages),
            kwargs={name: value for name, value in kwargs.items() if value is not None},
            settings={"temperature": self.temperature, "max_tokens": self.max_tokens},
            tags=tuple(run_manager.tags if run_manager is not None else ()),
            streamed=streamed,
        )
        self._sent.append(sent)
        prompt = tuple(
            Message.model_validate({"role": _ROLES.get(one.type, "user"), "content": str(one.text)})
            for one in messages
        )
        return self._script(ModelCall(role="estimate" if sent.estimates else "reason", messages=prompt))

    def _message(self, reply: ModelReply) -> AIMessage:
        if isinstance(reply.native, AIMessage):
            return reply.native
        return AIMessage(reply.text, usage_metadata=self._usage(reply), response_metadata=self._metadata(reply))

    def _chunks(self, reply: ModelReply) -> Iterator[ChatGenerationChunk]:
        """Yield the words, then an empty chunk with usage and finish reason, as OpenAI does."""
        if isinstance(reply.native, AIMessage):
            yield ChatGenerationChunk(message=as_chunk(reply.native))
            return
        for count, word in enumerate(reply.text.split(" ")):
            yield ChatGenerationChunk(message=AIMessageChunk(content=f" {word}" if count else word))
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                content="", usage_metadata=self._usage(reply), response_metadata=self._metadata(reply)
            )
        )

    def _usage(self, reply: ModelReply) -> UsageMetadata | None:
        if reply.usage is None or not self.reports_usage:
            return None
        usage: UsageMetadata = {
            "input_tokens": reply.usage.input_tokens,
            "output_tokens": reply.usage.output_tokens,
            "total_tokens": reply.usage.total_tokens,
        }
        if reply.usage.reasoning_tokens is not None:
            usage["output_token_details"] = {"reasoning": reply.usage.reasoning_tokens}
        return usage

    def _metadata(self, reply: ModelReply) -> dict[str, Any]:
        return {"finish_reason": reply.finish_reason, "model_name": self.model_name}
