from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from tale_core import Message, ModelReply, UnexpectedReplyError, Usage
from tale_llamaindex._convert import Gathering, to_messages, usage_of


def chat(content: Any = "36", **fields: Any) -> ChatResponse:
    return ChatResponse(message=ChatMessage(role="assistant", content=content), **fields)


def to_reply(response: ChatResponse | CompletionResponse) -> ModelReply:
    answer = Gathering(["How old is Ann?"])
    answer.take(response)
    return answer.reply(closed=False)


def test_messages_keep_role_and_text() -> None:
    flow = (Message(role="system", content="Be brief."), Message(role="user", content="How old?"))
    assert [(one.role.value, one.content) for one in to_messages(flow)] == [
        ("system", "Be brief."),
        ("user", "How old?"),
    ]


OPENAI = SimpleNamespace(
    prompt_tokens=9, completion_tokens=5, completion_tokens_details=SimpleNamespace(reasoning_tokens=3)
)
OPENAI_DICT = {"prompt_tokens": 9, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 3}}
RESPONSES = SimpleNamespace(
    input_tokens=9, output_tokens=5, output_tokens_details=SimpleNamespace(reasoning_tokens=3)
)


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(chat(raw=SimpleNamespace(usage=OPENAI)), id="object in raw"),
        pytest.param(chat(raw={"usage": OPENAI_DICT}), id="dict in raw"),
        pytest.param(chat(raw={"usage": OPENAI}), id="object in a dict"),
        pytest.param(chat(additional_kwargs={"usage": RESPONSES}), id="responses API"),
        pytest.param(CompletionResponse(text="36", raw={"usage": OPENAI_DICT}), id="completion"),
    ],
)
def test_usage_is_what_the_provider_measured(response: ChatResponse | CompletionResponse) -> None:
    assert to_reply(response).usage == Usage(input_tokens=9, output_tokens=5, reasoning_tokens=3)


@pytest.mark.parametrize(
    "response",
    [
        chat(additional_kwargs={"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}),
        chat(raw={"prompt_eval_count": 9, "eval_count": 5}),
        ChatResponse(
            message=ChatMessage(
                role="assistant", content="36", additional_kwargs={"prompt_tokens": 9, "completion_tokens": 5}
            )
        ),
    ],
    ids=["openai counts", "ollama", "converted completion"],
)
def test_reasoning_tokens_that_nobody_reports_are_unknown_not_zero(response: ChatResponse) -> None:
    assert to_reply(response).usage == Usage(input_tokens=9, output_tokens=5, reasoning_tokens=None)


def test_cached_prompt_tokens_belong_to_the_prompt() -> None:
    usage = {
        "input_tokens": 2,
        "cache_read_input_tokens": 6,
        "cache_creation_input_tokens": 1,
        "output_tokens": 5,
    }
    assert to_reply(chat(raw={"usage": usage})).usage == Usage(input_tokens=9, output_tokens=5)


def test_thoughts_counted_apart_are_output() -> None:
    usage = {"prompt_token_count": 9, "candidates_token_count": 2, "thoughts_token_count": 3}
    reply = to_reply(chat(raw={"usage_metadata": usage}))
    assert reply.usage == Usage(input_tokens=9, output_tokens=5, reasoning_tokens=3)


@pytest.mark.parametrize(
    "raw", [None, {}, {"usage": None}, {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}, "text", 3]
)
def test_without_a_report_usage_is_estimated_and_says_so(raw: Any) -> None:
    assert usage_of(chat(raw=raw)) is None
    usage = to_reply(chat(raw=raw)).usage
    assert usage is not None
    assert (usage.source, usage.output_tokens > 0) == ("estimated", True)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"choices": [{"finish_reason": "length"}]}, "length"),
        (SimpleNamespace(choices=[SimpleNamespace(finish_reason="stop")]), "stop"),
        ({"stop_reason": "max_tokens"}, "length"),
        ({"stop_reason": "end_turn"}, "stop"),
        ({"candidates": [{"finish_reason": SimpleNamespace(name="MAX_TOKENS")}]}, "length"),
        ({"done_reason": "stop"}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"choices": [{"finish_reason": "something new"}]}, None),
        ({"choices": []}, None),
        (None, None),
    ],
)
def test_finish_reasons_have_one_spelling(raw: Any, expected: str | None) -> None:
    assert to_reply(chat(raw=raw)).finish_reason == expected


def test_an_answer_that_calls_tools_says_so_whatever_the_provider_says() -> None:
    blocks = [ToolCallBlock(tool_call_id="1", tool_name="add", tool_kwargs={"a": 1})]
    response = chat(blocks, raw={"choices": [{"finish_reason": "stop"}]})
    assert to_reply(response).finish_reason == "tool_calls"


def test_text_is_the_answer_without_thinking() -> None:
    blocks = [ThinkingBlock(content="1990 ..."), TextBlock(text="<think>36?</think>She is 36.")]
    assert to_reply(chat(blocks)).text == "She is 36."


def test_the_model_is_named_as_the_provider_names_it() -> None:
    assert to_reply(chat(raw={"model": "gpt-4o-mini-2024-07-18"})).model == "gpt-4o-mini-2024-07-18"
    assert to_reply(chat(raw=None)).model is None


def test_an_answer_that_is_no_response_is_refused_with_its_type() -> None:
    with pytest.raises(UnexpectedReplyError, match="got str; check the chat and complete methods"):
        to_reply("36")
