"""Answers a flow's model calls with a LlamaIndex LLM: the two drivers of this package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tale_core.flows import arun, run, turn
from tale_llamaindex._answers import Gathering
from tale_llamaindex._convert import to_messages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llama_index.core.base.llms.types import ChatMessage
    from llama_index.core.llms import LLM

    from tale_core.types import Flow, ModelCall, ModelReply, T
    from tale_llamaindex._tracking import Question
    from tale_llamaindex.reasoning_controls import ModelControls


@dataclass(frozen=True, slots=True)
class Request:
    """One call on an LLM."""

    llm: LLM
    endpoint: str
    """``chat``, ``complete``, ``stream_chat`` or ``stream_complete``; `asend` puts an ``a`` before it."""
    prompt: str | Sequence[ChatMessage]
    kwargs: dict[str, Any]

    def texts(self) -> list[str]:
        """Return the texts of the prompt."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        return [message.content or "" for message in self.prompt]

    def send(self) -> Any:
        """Make the call."""
        return getattr(self.llm, self.endpoint)(self.prompt, **self.kwargs)

    async def asend(self) -> Any:
        """Make the call, asynchronously."""
        return await getattr(self.llm, f"a{self.endpoint}")(self.prompt, **self.kwargs)


def quiet_request(reasoning_control: ModelControls, call: ModelCall) -> Request:
    """Return the request that answers a flow's own call, an estimate: cold, short, and without thinking."""
    llm, kwargs = reasoning_control.quieted(call)
    if llm.metadata.is_chat_model:
        return Request(llm, "chat", to_messages(call.messages), kwargs)
    prompt = "\n\n".join(message.content for message in call.messages)
    return Request(llm, "complete", prompt, kwargs)


def run_flow(flow: Flow[T], question: Question, request: Callable[[ModelCall], Request]) -> T:
    """Drive a flow; its calls belong to the question, which accounts for them.

    Args:
        flow: A flow of the question's run.
        question: The question.
        request: Says how a call is made.
    """

    def respond(call: ModelCall) -> ModelReply:
        question.emit()
        asked = request(call)
        answer = Gathering(asked.texts())
        with question.calling():
            answer.take(asked.send())
        return answer.reply(closed=False)

    try:
        return run(flow, respond)
    finally:
        question.emit()


async def arun_flow(flow: Flow[T], question: Question, request: Callable[[ModelCall], Request]) -> T:
    """Drive a flow, asynchronously; see `run_flow`."""

    async def respond(call: ModelCall) -> ModelReply:
        question.emit()
        asked = request(call)
        answer = Gathering(asked.texts())
        with question.calling():
            answer.take(await asked.asend())
        return answer.reply(closed=False)

    await turn()
    try:
        return await arun(flow, respond)
    finally:
        question.emit()
