"""What providers' messages say in the core's words."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolCall

from tale_langchain._convert import to_reply

PROMPT = [HumanMessage("How many eggs are in four dozen?")]
CALL: ToolCall = {"name": "count", "args": {}, "id": "1", "type": "tool_call"}


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"finish_reason": "stop"}, "stop"),
        ({"finish_reason": "STOP"}, "stop"),
        ({"finish_reason": "length"}, "length"),
        ({"finish_reason": "MAX_TOKENS"}, "length"),
        ({"finish_reason": "content_filter"}, "content_filter"),
        ({"finish_reason": "tool_calls"}, "tool_calls"),
        ({"stop_reason": "end_turn"}, "stop"),
        ({"stop_reason": "max_tokens"}, "length"),
        ({"stop_reason": "tool_use"}, "tool_calls"),
        ({"stop_reason": "refusal"}, "content_filter"),
        ({"stopReason": "end_turn"}, "stop"),
        ({"done_reason": "length"}, "length"),
        ({"status": "completed"}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "incomplete", "incomplete_details": None}, None),
        ({"finish_reason": "something new"}, None),
        ({"finish_reason": None}, None),
        ({}, None),
    ],
)
def test_the_reason_to_stop_is_read_in_every_providers_spelling(metadata: dict[str, Any], reason: Any) -> None:
    assert to_reply(AIMessage("48", response_metadata=metadata), PROMPT).finish_reason == reason


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [({"finish_reason": "stop"}, "tool_calls"), ({}, "tool_calls"), ({"finish_reason": "length"}, "length")],
)
def test_a_tool_call_is_one_whatever_the_provider_calls_it(metadata: dict[str, Any], reason: str) -> None:
    message = AIMessage("", tool_calls=[CALL], response_metadata=metadata)
    assert to_reply(message, PROMPT).finish_reason == reason


@pytest.mark.parametrize(
    ("details", "reasoning"),
    [
        ({}, None),
        ({"audio": 3}, None),
        ({"reasoning": 0}, 0),
        ({"reasoning": 7}, 7),
        ({"flex_reasoning": 7, "flex": 2}, 7),
        ({"priority_reasoning": 5}, 5),
    ],
)
def test_thinking_tokens_that_are_not_reported_are_unknown_and_not_zero(
    details: Any, reasoning: int | None
) -> None:
    message = AIMessage(
        "48",
        usage_metadata={
            "input_tokens": 3,
            "output_tokens": 9,
            "total_tokens": 12,
            "output_token_details": details,
        },
    )
    usage = to_reply(message, PROMPT).usage
    assert usage is not None
    assert (usage.output_tokens, usage.reasoning_tokens, usage.source) == (9, reasoning, "measured")


@pytest.mark.parametrize("usage", [None, {}, {"total_cost": 0}, {"input_tokens": 3, "total_tokens": 3}])
def test_a_usage_without_its_counts_is_estimated(usage: Any) -> None:
    message = AIMessage("48")
    message.usage_metadata = usage
    counted = to_reply(message, PROMPT).usage
    assert counted is not None
    assert counted.source == "estimated"


def test_text_is_read_from_blocks_without_the_thinking() -> None:
    message = AIMessage([{"type": "reasoning", "reasoning": "4 x 12"}, {"type": "text", "text": "48"}])
    reply = to_reply(message, [HumanMessage("?")])
    assert reply.text == "48"
    assert type(reply.text) is str


def test_what_a_closed_stream_wrote_is_counted_with_its_thinking() -> None:
    blocks: list[Any] = [{"type": "reasoning", "reasoning": "four times twelve " * 9}]
    thinking = to_reply(AIMessageChunk(content=blocks), [HumanMessage("?")], ended=False)
    silent = to_reply(AIMessageChunk(content=""), [HumanMessage("?")], ended=False)
    assert thinking.usage is not None
    assert silent.usage is not None
    assert thinking.usage.output_tokens > 20 > silent.usage.output_tokens
    assert thinking.finish_reason == "closed"


def test_the_models_name_is_the_providers() -> None:
    replies = [to_reply(AIMessage("", response_metadata={key: "gpt"}), []) for key in ("model_name", "model")]
    assert [reply.model for reply in replies] == ["gpt", "gpt"]
