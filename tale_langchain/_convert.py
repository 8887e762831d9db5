"""LangChain's messages to the core's records, and back."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    convert_to_messages,
)
from langchain_core.prompt_values import PromptValue

from tale_core.errors import InvalidValueError, UnexpectedReplyError
from tale_core.models.replies import read_ending, read_usage, to_model_reply
from tale_core.tokens import estimate_usage
from tale_core.types import Usage

if TYPE_CHECKING:
    from langchain_core.language_models import LanguageModelInput

    from tale_core.models.replies import Ending
    from tale_core.types import Framing, Message, ModelReply

_CLASSES: dict[str, type[BaseMessage]] = {
    "system": SystemMessage,
    "user": HumanMessage,
    "assistant": AIMessage,
}
_SPEAKERS = {"system": "System", "human": "User", "ai": "Assistant", "tool": "Tool"}

# Where providers say why they stopped (chat completions, Anthropic, Bedrock, Ollama, the Responses API).
_ENDING_KEYS = ("finish_reason", "stop_reason", "stopReason", "done_reason", "status")


def to_messages(given: LanguageModelInput) -> list[BaseMessage]:
    """Return what a caller passed to a model as a new list of messages; the messages stay the caller's."""
    if isinstance(given, str):
        return [HumanMessage(given)]
    if isinstance(given, PromptValue):
        return list(given.to_messages())
    if not isinstance(given, Sequence):
        raise InvalidValueError(
            f"a question is a str, a prompt value or a list of messages, got {type(given).__name__} "
            f"{reprlib.repr(given)}; put a prompt before the model: prompt | TALERunnable(model)"
        )
    try:
        return convert_to_messages(given)
    except (KeyError, NotImplementedError, TypeError, ValueError) as exc:  # what it cannot read
        raise InvalidValueError(
            "a message is a str, a (role, text) pair, a dict with role and content, or one of LangChain's, "
            f"got {reprlib.repr(given)}; pass a list of these, such as [('human', 'How much is 3 + 4?')]"
        ) from exc


def from_core(message: Message) -> BaseMessage:
    """Return LangChain's message of the same role."""
    return _CLASSES[message.role](message.content)


def asked_at(messages: Sequence[BaseMessage]) -> int | None:
    """Return the position of the question: the last message, if a human wrote it.

    System messages after it do not count. None means there is no question to estimate: the turn returns tool
    results, or goes on from the model's own words.
    """
    for position in range(len(messages) - 1, -1, -1):
        if isinstance(messages[position], HumanMessage):
            return position
        if not isinstance(messages[position], SystemMessage):
            return None
    return None


def text_of(message: BaseMessage) -> str:
    """Return the text of a message, without images and thinking."""
    content = message.content
    return content if isinstance(content, str) else str(message.text)


def transcript_of(messages: Sequence[BaseMessage]) -> str:
    """Return the whole conversation as text; images and tool calls are left out."""
    return "\n\n".join(
        f"{_SPEAKERS.get(message.type, message.type)}: {message.text}" for message in messages if message.text
    )


def turn_at(messages: Sequence[BaseMessage]) -> int | None:
    """Return the position of the message that opened the turn: the last human one, whatever follows it."""
    return next((at for at in reversed(range(len(messages))) if isinstance(messages[at], HumanMessage)), None)


def framed(messages: Sequence[BaseMessage], framing: Framing, position: int | None) -> list[BaseMessage]:
    """Return the messages with the framing in place, on a copy of the question at ``position`` alone."""
    if position is None:
        return list(messages)
    question = messages[position]
    content = _around(question.content, framing)
    return [
        *messages[:position],
        *map(from_core, framing.examples),
        question.model_copy(update={"content": content}),
        *messages[position + 1 :],
    ]


def _around(content: str | list[str | dict[Any, Any]], framing: Framing) -> str | list[str | dict[Any, Any]]:
    if isinstance(content, str):
        return framing.apply(content)
    # Parts of their own: the first and the last part may be images.
    before = [{"type": "text", "text": framing.before}] if framing.before else []
    after = [{"type": "text", "text": framing.after}] if framing.after else []
    return [*before, *content, *after]


def to_reply(
    message: object, prompt: Sequence[BaseMessage], *, seconds: float | None = None, ended: bool = True
) -> ModelReply:
    """Return a model's message as the core's record.

    The prompt is for estimating a usage that the provider does not report; ``ended`` as `concluded` takes it.
    """
    if not isinstance(message, AIMessage):
        raise _unexpected(message)
    metadata = message.response_metadata
    reported: Mapping[str, Any] = message.usage_metadata or {}
    return to_model_reply(
        text_of(message),
        prompt=map(text_of, prompt),
        written=lambda: _written(message),
        ending=_ending(message),
        usage=read_usage(reported),
        calls_tools=bool(message.tool_calls),
        ended=ended,
        model=metadata.get("model_name") or metadata.get("model"),
        seconds=seconds,
        cached=reported.get("total_cost") == 0,  # how LangChain marks what its cache gave
        native=message,
    )


def paid_usage(message: AIMessage, prompt: Sequence[BaseMessage]) -> Usage:
    """Return what a message cost, even one that its provider broke off: measured, or else estimated."""
    reported: Mapping[str, Any] = message.usage_metadata or {}
    if reported.get("total_cost") == 0:  # how LangChain marks what its cache gave
        return Usage()
    measured = read_usage(reported)
    return estimate_usage([*map(text_of, prompt)], _written(message)) if measured is None else measured


def _ending(message: AIMessage) -> Ending | None:
    metadata = message.response_metadata
    # The first that says anything counts: some providers send several.
    for key in _ENDING_KEYS:
        said = metadata.get(key)
        # The Responses API says that it stopped early in one field, and why in another.
        if said == "incomplete":
            said = (metadata.get("incomplete_details") or {}).get("reason")
        if said:
            return read_ending(said)
    return None


def _written(message: AIMessage) -> str:
    """Return all that the model wrote, thinking and tool calls included, to count its tokens."""
    blocks = message.content_blocks
    return " ".join(
        str(block.get("text") or block.get("reasoning") or block.get("args") or "") for block in blocks
    )


def as_chunk(message: object) -> AIMessageChunk:
    """Return a message as a chunk, so that it adds up with what follows in a stream."""
    if isinstance(message, AIMessageChunk):
        return message
    if isinstance(message, AIMessage):
        return AIMessageChunk(**message.model_dump(exclude={"type"}))
    raise _unexpected(message)


def _unexpected(message: object) -> UnexpectedReplyError:
    return UnexpectedReplyError(
        f"a chat model answers with an AIMessage, got {type(message).__name__}; wrap the model alone and put "
        "what follows behind it: TALERunnable(model) | parser"
    )
