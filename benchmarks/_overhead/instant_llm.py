"""An LLM for LlamaIndex that answers at once, what is built on it, and the least that counts its tokens."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama_index.core import Document, MockEmbedding, VectorStoreIndex, get_response_synthesizer
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.llms import LLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.query_engine import RetrieverQueryEngine

from _overhead.by_hand import PASSAGES
from _overhead.sides import ANSWER, ESTIMATE, TASK, pieces

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

SURVEY = "Numbered passages are below."
"""How the prompt begins that surveys passages, ours and the one written by hand."""
RETRIEVED = 3
"""Passages that are retrieved for a question."""

_LINES = "[1] on the cloth +\n[2] on the ship"


class InstantLLM(LLM):
    """Answers at once, with a usage as OpenAI reports it."""

    latency: float = 0.0
    """Seconds before an asynchronous answer."""

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex wants to know about a model."""
        return LLMMetadata(model_name="instant", is_chat_model=True, context_window=8192)

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        """Answer at once."""
        return _response(_answer(messages[-1].content or ""))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        """Answer at once, or when the latency has passed."""
        if self.latency:
            await asyncio.sleep(self.latency)
        return _response(_answer(messages[-1].content or ""))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **_: Any) -> Iterator[ChatResponse]:
        """Answer word by word."""
        return _streamed(_answer(messages[-1].content or ""))

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **_: Any) -> AsyncIterator[ChatResponse]:
        """Answer word by word."""

        async def stream() -> AsyncIterator[ChatResponse]:
            for response in _streamed(_answer(messages[-1].content or "")):
                yield response

        return stream()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        """Answer at once."""
        del formatted
        return CompletionResponse(text=_answer(prompt), raw=_raw())

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        """Answer at once."""
        del formatted
        return CompletionResponse(text=_answer(prompt), raw=_raw())

    # Nobody streams completions here.

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> Any:
        """Answer in one piece."""
        del formatted
        return iter([CompletionResponse(text=_answer(prompt), raw=_raw())])

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> Any:
        """Answer in one piece."""
        raise NotImplementedError


class CountingHandler(BaseCallbackHandler):
    """The least that counts tokens."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.tokens = 0
        self._lock = threading.Lock()

    def on_event_start(self, *_: Any, event_id: str = "", **__: Any) -> str:
        """Do nothing."""
        return event_id

    def on_event_end(self, event_type: CBEventType, payload: dict[str, Any] | None = None, **_: Any) -> None:
        """Add the tokens of a call."""
        if event_type == CBEventType.LLM and payload:
            response = payload.get(EventPayload.RESPONSE) or payload.get(EventPayload.COMPLETION)
            with self._lock:
                self.tokens += response.raw["usage"]["completion_tokens"]

    def start_trace(self, trace_id: str | None = None) -> None:
        """Do nothing."""

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Stand:
    """An LLM and what is built on it, under one callback manager."""

    llm: LLM
    manager: CallbackManager

    @classmethod
    def under(cls, handler: BaseCallbackHandler | None, *, latency: float = 0.0) -> Stand:
        """Return an LLM that a handler hears of."""
        manager = CallbackManager([] if handler is None else [handler])
        return cls(InstantLLM(callback_manager=manager, latency=latency), manager)

    def engine(self, *, streaming: bool = False) -> Any:
        """Return a query engine over a few passages."""
        index = VectorStoreIndex.from_documents(
            [Document(text=text) for text in PASSAGES[:RETRIEVED]],
            embed_model=MockEmbedding(8, callback_manager=self.manager),
            callback_manager=self.manager,
        )
        return RetrieverQueryEngine.from_args(
            index.as_retriever(similarity_top_k=RETRIEVED),
            llm=self.llm,
            response_synthesizer=self.synthesizer(streaming=streaming),
            callback_manager=self.manager,
        )

    def synthesizer(self, *, streaming: bool = False) -> Any:
        """Return the framework's default synthesizer."""
        return get_response_synthesizer(llm=self.llm, streaming=streaming, callback_manager=self.manager)


def _answer(prompt: str) -> str:
    if prompt.startswith(TASK):
        return ESTIMATE
    return _LINES if SURVEY in prompt else ANSWER


def _response(text: str, delta: str | None = None, *, usage: bool = True) -> ChatResponse:
    return ChatResponse(message=ChatMessage(role="assistant", content=text), delta=delta, raw=_raw(usage=usage))


def _streamed(text: str) -> Iterator[ChatResponse]:
    so_far = ""
    for piece in pieces(text):
        so_far += piece
        yield _response(so_far, piece, usage=False)
    yield _response(so_far, "")


def _raw(*, usage: bool = True) -> dict[str, Any]:
    counts = {"prompt_tokens": 50, "completion_tokens": 38, "completion_tokens_details": None}
    return {"model": "instant", "choices": [{"finish_reason": "stop"}], "usage": counts if usage else None}
