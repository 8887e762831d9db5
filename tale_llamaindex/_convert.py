"""Between the core's calls and replies and LlamaIndex's messages and responses; pure."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, ToolCallBlock

from tale_core.errors import UnexpectedReplyError
from tale_core.models.replies import get, read_ending, read_usage, to_model_reply, visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tale_core.models.replies import Ending
    from tale_core.types import Message, ModelReply, Usage

Response: TypeAlias = ChatResponse | CompletionResponse
"""What LlamaIndex's chat and completion endpoints answer with."""


def to_messages(messages: Iterable[Message]) -> list[ChatMessage]:
    """Return a flow's messages as chat messages."""
    return [ChatMessage(role=message.role, content=message.content) for message in messages]


def checked(response: object) -> Response:
    """Return what an LLM answered, if it is a response."""
    if isinstance(response, ChatResponse | CompletionResponse):
        return response
    raise UnexpectedReplyError(
        f"expected a ChatResponse or CompletionResponse from the LLM, got {type(response).__name__}; "
        "check the chat and complete methods of your LLM class"
    )


def raw_text_of(response: Response) -> str:
    """Return the whole text of a response."""
    if isinstance(response, ChatResponse):
        return response.message.content or ""
    return response.text


def usage_of(response: Response) -> Usage | None:
    """Return what the provider reports that the call cost; None when it reports nothing."""
    raw = response.raw
    # Integrations put usage in any of these places; the provider's own answer comes first.
    holders = [
        get(raw, "usage"),
        get(raw, "usage_metadata"),
        raw,
        get(response.additional_kwargs, "usage"),
        response.additional_kwargs,
    ]
    if isinstance(response, ChatResponse):
        # A completion that was converted to a chat response carries its counts on the message.
        holders.append(response.message.additional_kwargs)
    return next((usage for holder in holders if (usage := read_usage(holder)) is not None), None)


def ending_of(response: Response) -> Ending | None:
    """Return why the model stopped; None when it is unknown or not over yet."""
    raw = response.raw
    choice = _first(get(raw, "choices")) or _first(get(raw, "candidates"))
    reasons = (
        get(choice, "finish_reason"),
        get(raw, "finish_reason"),
        get(raw, "stop_reason"),
        get(raw, "done_reason"),
        get(get(raw, "incomplete_details"), "reason"),
        get(raw, "status"),
    )
    return next((found for reason in reasons if (found := read_ending(reason)) is not None), None)


def model_of(response: Response) -> str | None:
    """Return the model's name as the provider gives it."""
    for name in ("model", "model_version"):
        value = get(response.raw, name)
        if isinstance(value, str) and value:
            return value
    return None


def calls_tools(response: Response) -> bool:
    """Return whether an answer calls tools."""
    if not isinstance(response, ChatResponse):
        return False
    message = response.message
    return bool(message.additional_kwargs.get("tool_calls")) or any(
        isinstance(block, ToolCallBlock) for block in message.blocks
    )


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list | tuple) and value else None


# Usage and the reason to stop come late in a stream, and not in the same chunk.


@dataclass(slots=True)
class Gathering:
    """One answer on its way, whole or in chunks."""

    prompt: list[str]
    """The texts of the prompt, from which an unreported usage is estimated."""
    started: float = field(default_factory=time.perf_counter)
    last: Response | None = None
    """The latest chunk, or the whole response."""
    deltas: list[str] = field(default_factory=list)
    usage: Usage | None = None
    ending: Ending | None = None
    calls_tools: bool = False

    def take(self, response: Response) -> None:
        """Take in one chunk, or the whole response."""
        self.last = checked(response)
        self.deltas.append(response.delta or "")
        # Later chunks may come without: what was seen stays.
        self.usage = usage_of(response) or self.usage
        self.ending = ending_of(response) or self.ending
        self.calls_tools = self.calls_tools or calls_tools(response)

    def reply(self, *, closed: bool, failing: bool = True) -> ModelReply:
        """Return the answer, with an estimate of its usage where the provider reported none.

        ``closed``: its reader left early. ``failing``: raise where the provider broke off, as observers do not.
        """
        seconds = time.perf_counter() - self.started
        generated = "".join(self.deltas)
        if self.last is not None and not (closed and generated):
            generated = raw_text_of(self.last)
        broken_off = self.ending == "error" and not failing
        return to_model_reply(
            visible(generated),
            prompt=self.prompt,
            written=lambda: generated,
            ending=None if broken_off else self.ending,
            usage=self.usage,
            calls_tools=self.calls_tools,
            ended=not closed,
            model=None if self.last is None else model_of(self.last),
            seconds=seconds,
            native=self.last,
        )
