"""Between the core's calls and replies and LlamaIndex's messages and responses; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, ToolCallBlock

from tale_core.errors import UnexpectedReplyError
from tale_core.parsing import strip_thinking
from tale_core.types import FinishReason, Message, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

Response: TypeAlias = ChatResponse | CompletionResponse
"""What LlamaIndex's chat and completion endpoints answer with."""

# One row per spelling, in the order in which they are looked for.
_INPUT = ("prompt_tokens", "input_tokens", "prompt_token_count", "prompt_eval_count")
_OUTPUT = ("completion_tokens", "output_tokens", "candidates_token_count", "eval_count")
_REASONING = (
    ("completion_tokens_details", "reasoning_tokens"),
    ("output_tokens_details", "reasoning_tokens"),
    ("output_tokens_details", "thinking_tokens"),
    ("output_token_details", "reasoning"),
)
# Anthropic counts what it reads from and writes to its cache apart from the rest of the prompt.
_CACHED = ("cache_creation_input_tokens", "cache_read_input_tokens")
# Gemini counts thinking apart from the candidates it belongs to.
_THOUGHTS = "thoughts_token_count"

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "completed": "stop",
    "complete": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "refusal": "content_filter",
}


def to_messages(messages: Iterable[Message]) -> list[ChatMessage]:
    """Return a flow's messages as chat messages."""
    return [ChatMessage(role=message.role, content=message.content) for message in messages]


def checked(response: object) -> Response:
    """Return what an LLM answered, if it is a response.

    Raises:
        UnexpectedReplyError: It is not.
    """
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


def visible(text: str) -> str:
    """Return the text without thinking."""
    return strip_thinking(text).strip()


def usage_of(response: Response) -> Usage | None:
    """Return what the provider reports that the call cost; None when it reports nothing."""
    raw = response.raw
    holders = [
        _get(raw, "usage"),
        _get(raw, "usage_metadata"),
        raw,
        _get(response.additional_kwargs, "usage"),
        response.additional_kwargs,
    ]
    if isinstance(response, ChatResponse):
        # A completion that was converted to a chat response carries its counts on the message.
        holders.append(response.message.additional_kwargs)
    return next((usage for holder in holders if (usage := _usage(holder)) is not None), None)


def finish_of(response: Response) -> FinishReason | None:
    """Return why the model stopped, in the core's spelling; None when it is unknown or not over yet."""
    if isinstance(response, ChatResponse) and _calls_tools(response.message):
        return "tool_calls"
    raw = response.raw
    choice = _first(_get(raw, "choices")) or _first(_get(raw, "candidates"))
    reasons = (
        _get(choice, "finish_reason"),
        _get(raw, "finish_reason"),
        _get(raw, "stop_reason"),
        _get(raw, "done_reason"),
        _get(_get(raw, "incomplete_details"), "reason"),
        _get(raw, "status"),
    )
    return next((found for reason in reasons if (found := _finish(reason)) is not None), None)


def model_of(response: Response) -> str | None:
    """Return the model's name as the provider gives it."""
    for name in ("model", "model_version"):
        value = _get(response.raw, name)
        if isinstance(value, str) and value:
            return value
    return None


def _usage(holder: Any) -> Usage | None:
    output = _count(holder, _OUTPUT)
    if output is None:
        return None
    prompt = (_count(holder, _INPUT) or 0) + sum(_count(holder, (name,)) or 0 for name in _CACHED)
    thoughts = _count(holder, (_THOUGHTS,))
    output += thoughts or 0
    if not prompt and not output:
        return None  # some servers send zeros for "not counted"
    nested = (_count(_get(holder, outer), (inner,)) for outer, inner in _REASONING)
    reasoning = thoughts if thoughts is not None else next((one for one in nested if one is not None), None)
    return Usage(input_tokens=prompt, output_tokens=output, reasoning_tokens=reasoning)


def _count(holder: Any, names: Iterable[str]) -> int | None:
    for name in names:
        value = _get(holder, name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None


def _finish(reason: Any) -> FinishReason | None:
    """Normalise a string or an enumeration's member."""
    name = getattr(reason, "name", reason)
    return _FINISH.get(name.lower()) if isinstance(name, str) else None


def _calls_tools(message: ChatMessage) -> bool:
    return bool(message.additional_kwargs.get("tool_calls")) or any(
        isinstance(block, ToolCallBlock) for block in message.blocks
    )


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list | tuple) and value else None


def _get(holder: Any, name: str) -> Any:
    """Read a key or an attribute: providers answer with dicts, pydantic models and plain objects."""
    if isinstance(holder, dict | Mapping):  # a dict is found out at once, other mappings are not
        return holder.get(name)
    return None if holder is None else getattr(holder, name, None)
