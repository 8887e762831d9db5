"""Answers a flow's model calls with a LlamaIndex LLM. The one place that says what an LLM is asked with."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tale_core.flows import arun, run
from tale_llamaindex._convert import to_messages, to_reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.llms.types import ChatMessage
    from llama_index.core.llms import LLM

    from tale_core.types import Flow, ModelCall, ModelReply, T
    from tale_llamaindex._tracking import Question

_OPENAI = "llama_index.llms.openai.utils"


@dataclass(frozen=True, slots=True)
class Request:
    """One call on an LLM: the endpoint, without its ``a``, and what it is given."""

    endpoint: str
    prompt: str | Sequence[ChatMessage]
    kwargs: dict[str, Any]


def to_request(llm: LLM, call: ModelCall) -> Request:
    """Return the request that answers a flow's call; the same for sync and async."""
    kwargs = call_kwargs(llm, call)
    if llm.metadata.is_chat_model:
        return Request("chat", to_messages(call.messages), kwargs)
    prompt = "\n\n".join(message.content for message in call.messages)
    return Request("complete", prompt, kwargs)


def call_kwargs(llm: LLM, call: ModelCall) -> dict[str, Any]:
    """Return the options of a call, as far as the LLM declares them.

    Models that think before they answer get neither: they refuse a temperature, and a small output cap would
    cut their thinking.
    """
    if _thinks(llm):
        return {}
    wanted = {"temperature": call.temperature, "max_tokens": call.max_tokens}
    fields = type(llm).model_fields
    return {name: value for name, value in wanted.items() if value is not None and name in fields}


def _thinks(llm: LLM) -> bool:
    """Return whether OpenAI's integration knows the model as one that reasons."""
    openai = sys.modules.get(_OPENAI)  # not imported: then the model is not OpenAI's
    return openai is not None and llm.metadata.model_name in openai.O1_MODELS


def run_flow(flow: Flow[T], llm: LLM, question: Question) -> T:
    """Drive a flow on an LLM; its calls belong to the question, which accounts for them."""

    def answer(call: ModelCall) -> ModelReply:
        request = to_request(llm, call)
        started = time.perf_counter()
        with question.calling():
            response = getattr(llm, request.endpoint)(request.prompt, **request.kwargs)
        return to_reply(response, seconds=time.perf_counter() - started)

    return run(flow, answer)


async def arun_flow(flow: Flow[T], llm: LLM, question: Question) -> T:
    """Drive a flow on an LLM, asynchronously; see `run_flow`."""

    async def answer(call: ModelCall) -> ModelReply:
        request = to_request(llm, call)
        started = time.perf_counter()
        with question.calling():
            response = await getattr(llm, f"a{request.endpoint}")(request.prompt, **request.kwargs)
        return to_reply(response, seconds=time.perf_counter() - started)

    return await arun(flow, answer)
