"""What a provider's reply means, whatever framework it came through: why it ended, and what it cost.

The client and both adapters read replies here: a new finish reason, or a new name of a count, is one row below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

from tale_core.errors import ServerError
from tale_core.tokens import estimate_usage
from tale_core.types import FinishReason, ModelReply, Usage

Ending: TypeAlias = FinishReason | Literal["error"]
"""A finish reason, or ``error`` where the provider failed in the middle of its answer."""

# In lower case: OpenAI, Azure, vLLM, SGLang, TGI, Anthropic, Bedrock, Cohere, Mistral, Gemini, Ollama, and the
# Responses API, which has a status instead.
_ENDINGS: dict[Ending, tuple[str, ...]] = {
    "stop": ("stop", "end_turn", "stop_sequence", "complete", "completed", "eos", "eos_token"),
    "length": ("length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"),
    "tool_calls": ("tool_calls", "tool_call", "tool_use", "function_call"),
    "content_filter": (
        *("content_filter", "content_filtered", "guardrail_intervened", "refusal"),
        *("safety", "recitation", "blocklist", "prohibited_content", "spii"),
    ),
    "error": ("error", "failed"),
}
_BY_NAME = {name: ending for ending, names in _ENDINGS.items() for name in names}

# The names of each count, in the order in which they are looked for.
_INPUT = ("prompt_tokens", "input_tokens", "prompt_token_count", "prompt_eval_count")
_OUTPUT = ("completion_tokens", "output_tokens", "candidates_token_count", "eval_count")
_REASONING = {
    "completion_tokens_details": ("reasoning_tokens",),
    "output_tokens_details": ("reasoning_tokens", "thinking_tokens"),
    # LangChain's, whose names carry OpenAI's service tier.
    "output_token_details": ("reasoning", "flex_reasoning", "priority_reasoning"),
}
# Anthropic counts what it reads from and writes to its cache apart from the rest of the prompt.
_CACHED = ("cache_creation_input_tokens", "cache_read_input_tokens")
# No model reads or writes as much in one call. Some servers send such numbers for "not counted".
_MOST_TOKENS = 10**9
# Gemini counts thinking apart from the candidates it belongs to.
_THOUGHTS = "thoughts_token_count"


def read_ending(said: object) -> Ending | None:
    """Return why a model stopped, from a string or an enumeration's member; None where that is unknown."""
    name = getattr(said, "name", said)
    return _BY_NAME.get(name.lower()) if isinstance(name, str) else None


def read_usage(reported: object) -> Usage | None:
    """Return what the provider measured; None when it reported nothing, or not all of it."""
    if reported is None:
        return None
    find = reported.get if isinstance(reported, dict) else _reader(reported)
    prompt, output = _count(find, _INPUT), _count(find, _OUTPUT)
    if prompt is None or output is None:
        return None
    if find("input_tokens") is not None:  # beside prompt_tokens, proxies count the cached ones a second time
        prompt += sum(_count(find, [name]) or 0 for name in _CACHED)
    reasoning = _count(find, [_THOUGHTS])
    output += reasoning or 0
    if not prompt and not output:
        return None  # some servers send zeros for "not counted"
    for outer, names in _REASONING.items():
        if reasoning is None and (details := find(outer)) is not None:
            reasoning = _count(_reader(details), names)
    return Usage(input_tokens=prompt, output_tokens=output, reasoning_tokens=reasoning)


def concluded(
    ending: Ending | None,
    usage: Usage | None,
    *,
    calls_tools: bool = False,
    ended: bool = True,
    written: str = "",
) -> tuple[FinishReason | None, Usage | None]:
    """Return why an answer ended, and what it cost as far as that was measured.

    Args:
        ending: What the provider said.
        usage: What the provider counted.
        calls_tools: Whether the answer calls tools; several providers then report a plain stop.
        ended: Whether the answer was read to its end. A stream that was left counts as whole when both its
            ending and its usage had arrived; otherwise the usage is that of a first part (Anthropic begins
            with 1 output token), and not of the whole.
        written: What the model wrote, as far as that is known: no output tokens for it were not measured.

    Raises:
        ServerError: The provider failed in the middle of the answer.
    """
    if usage is not None and not usage.output_tokens and written.strip():
        usage = None
    if not ended and (usage is None or ending in {None, "error"}):
        return "closed", None
    if ending == "error":
        raise ServerError("the provider ended the answer with an error, not with a finish reason; ask again")
    return ("tool_calls" if calls_tools and ending != "length" else ending), usage


def to_model_reply(
    text: str,
    *,
    prompt: Iterable[str],
    written: Callable[[], str],
    ending: Ending | None,
    usage: Usage | None,
    calls_tools: bool = False,
    ended: bool = True,
    **facts: Any,
) -> ModelReply:
    """Return an answer with its accounts; a usage that was not measured is estimated, and marked so.

    ``text`` is without thinking; ``written`` returns all that the model wrote, and is called only to count it.
    The next four are as `concluded` takes them, and ``facts`` are the other fields of `ModelReply`.
    """
    reason, measured = concluded(ending, usage, calls_tools=calls_tools, ended=ended, written=text)
    if measured is None:
        measured = estimate_usage([*prompt], written())
    return ModelReply(text=text, usage=measured, finish_reason=reason, **facts)


def visible(text: str) -> str:
    """Return the text without thinking."""
    from tale_core.parsing import strip_thinking  # noqa: PLC0415  # most replies hold no thinking block

    return strip_thinking(text).strip()


def get(holder: Any, name: str) -> Any:
    """Read a key or an attribute: providers answer with dicts, pydantic models and plain objects."""
    if isinstance(holder, dict | Mapping):  # a dict is found out at once, other mappings are not
        return holder.get(name)
    return None if holder is None else getattr(holder, name, None)


def _reader(holder: Any) -> Callable[[str], Any]:
    """Return what `get` does, for one holder."""
    return holder.get if isinstance(holder, Mapping) else lambda name: getattr(holder, name, None)


def _count(find: Callable[[str], Any], names: Iterable[str]) -> int | None:
    for name in names:
        value = find(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS:
            return value
    return None
