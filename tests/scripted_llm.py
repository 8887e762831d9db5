"""A fake LLM for tests of code that uses TALE: no network, exact token counts, truly asynchronous."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.llms import LLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from pydantic import Field, PrivateAttr

from tale_core.types import Message, ModelCall, ModelReply

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence

    from tale_core.testing import ScriptedModel

_ESTIMATES = "[[budget]]"


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One request that a `ScriptedLLM` received."""

    endpoint: str
    """``chat``, ``complete``, ``stream_chat`` or ``stream_complete``, sync or async."""
    messages: tuple[tuple[str, str], ...]
    """Role and text of each message; a prompt is one user message."""
    kwargs: dict[str, Any]
    """The options of this call."""

    @property
    def text(self) -> str:
        """The texts of all messages."""
        return "\n".join(text for _, text in self.messages)

    @property
    def estimates(self) -> bool:
        """Whether this is the zero-shot estimator's call."""
        return _ESTIMATES in self.text


class ScriptedLLM(LLM):
    """Answers from a script, streams word by word, and reports usage as OpenAI does.

    Args:
        script: What to answer; see `ScriptedModel`.
        **fields: The fields below.

    Example:
        >>> from tale_core.testing import ScriptedModel
        >>> llm = ScriptedLLM(ScriptedModel(estimate="[[40]]", reason="Ann is 36."))
        >>> str(llm.complete("How old is Ann?"))
        'Ann is 36.'
        >>> [sent.endpoint for sent in llm.sent]
        ['complete']
    """

    model_name: str = "scripted"
    is_chat_model: bool = True
    temperature: float = 0.1
    max_tokens: int | None = None
    context_window: int = 8192
    latency: float = Field(default=0.0, ge=0)
    """Seconds before each answer; asynchronous calls do not block the loop meanwhile."""
    reports_usage: bool = True
    """Whether responses say what they cost, in words of prompt and answer."""

    _script: ScriptedModel = PrivateAttr()
    _sent: list[Sent] = PrivateAttr(default_factory=list)

    def __init__(self, script: ScriptedModel, **fields: Any) -> None:
        super().__init__(**fields)
        self._script = script

    @classmethod
    def class_name(cls) -> str:
        """Return the LLM's name."""
        return "ScriptedLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex wants to know about a model."""
        return LLMMetadata(
            model_name=self.model_name,
            is_chat_model=self.is_chat_model,
            context_window=self.context_window,
            num_output=self.max_tokens or -1,
        )

    @property
    def sent(self) -> tuple[Sent, ...]:
        """Every request received, in order."""
        return tuple(self._sent)

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer at once."""
        reply = self._answer("chat", messages, kwargs)
        self._wait()
        return _chat(reply.text, raw=self._raw(reply))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer at once."""
        reply = self._answer("chat", messages, kwargs)
        await asyncio.sleep(self.latency)
        return _chat(reply.text, raw=self._raw(reply))

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer at once."""
        del formatted
        reply = self._answer("complete", _user(prompt), kwargs)
        self._wait()
        return CompletionResponse(text=reply.text, raw=self._raw(reply))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer at once."""
        del formatted
        reply = self._answer("complete", _user(prompt), kwargs)
        await asyncio.sleep(self.latency)
        return CompletionResponse(text=reply.text, raw=self._raw(reply))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer word by word, and report usage in a last, empty chunk."""
        return self._stream(self._answer("stream_chat", messages, kwargs), _chat)

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Answer word by word, and report usage in a last, empty chunk."""
        return self._astream(self._answer("stream_chat", messages, kwargs), _chat)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer word by word, and report usage in a last, empty chunk."""
        del formatted
        return self._stream(self._answer("stream_complete", _user(prompt), kwargs), CompletionResponse)

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Answer word by word, and report usage in a last, empty chunk."""
        del formatted
        return self._astream(self._answer("stream_complete", _user(prompt), kwargs), CompletionResponse)

    def _stream(self, reply: ModelReply, chunk: Callable[..., Any]) -> Generator[Any, None, None]:
        self._wait()
        for text, delta, raw in self._chunks(reply):
            yield chunk(text=text, delta=delta, raw=raw)

    async def _astream(self, reply: ModelReply, chunk: Callable[..., Any]) -> AsyncGenerator[Any, None]:
        await asyncio.sleep(self.latency)
        for text, delta, raw in self._chunks(reply):
            yield chunk(text=text, delta=delta, raw=raw)

    def _answer(self, endpoint: str, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ModelReply:
        texts = tuple((message.role.value, message.content or "") for message in messages)
        sent = Sent(endpoint=endpoint, messages=texts, kwargs=kwargs)
        self._sent.append(sent)
        prompt = (Message(role="user", content=sent.text),)
        return self._script(ModelCall(role="estimate" if sent.estimates else "reason", messages=prompt))

    def _wait(self) -> None:
        if self.latency:  # even a sleep of 0 gives the processor away
            time.sleep(self.latency)

    def _raw(self, reply: ModelReply, *, usage: bool = True, finished: bool = True) -> dict[str, Any]:
        raw: dict[str, Any] = {"model": self.model_name, "usage": None}
        raw["choices"] = [{"finish_reason": reply.finish_reason if finished else None}]
        if usage and self.reports_usage and reply.usage is not None:
            raw["usage"] = {
                "prompt_tokens": reply.usage.input_tokens,
                "completion_tokens": reply.usage.output_tokens,
                "completion_tokens_details": {"reasoning_tokens": reply.usage.reasoning_tokens},
            }
        return raw

    def _chunks(self, reply: ModelReply) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield the text so far, the new part and the raw chunk."""
        words = reply.text.split(" ")
        for count, word in enumerate(words, start=1):
            delta = word if count == 1 else f" {word}"
            raw = self._raw(reply, usage=False, finished=count == len(words))
            yield " ".join(words[:count]), delta, raw
        yield reply.text, "", {**self._raw(reply), "choices": []}


def _user(prompt: str) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=prompt)]


def _chat(text: str, *, raw: dict[str, Any], delta: str | None = None) -> ChatResponse:
    message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
    return ChatResponse(message=message, delta=delta, raw=raw)
