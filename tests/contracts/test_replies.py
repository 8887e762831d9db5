"""What a provider's reply means is the same for the client and for both adapters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ToolCallBlock
from openai.types.chat import ChatCompletion

from tale_core.errors import ServerError
from tale_core.models.client import ChatClient
from tale_core.models.providers import forces_tool
from tale_core.models.replies import concluded, read_ending, read_usage
from tale_langchain._convert import to_reply
from tale_llamaindex._convert import Gathering

PROMPT = "How much is 3 + 4?"
WRITTEN = "The sum of three and four is seven, since four after three is seven."
USAGE = {"prompt_tokens": 9, "completion_tokens": 5}
IN_LANGCHAIN = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}

READERS = ("core", "langchain", "llamaindex")


def outcome(
    reader: str,
    *,
    said: str | None = "stop",
    usage: dict[str, int] | None = USAGE,
    tools: bool = False,
    left: bool = False,
) -> tuple[str | None, int | None, str]:
    """Return how an answer ended, its measured output tokens (None: estimated), as one reader sees it."""
    if reader == "core":
        ending, counted = concluded(
            read_ending(said), read_usage(usage), calls_tools=tools, ended=not left, written=WRITTEN
        )
        return ending, None if counted is None else counted.output_tokens, "core"
    if reader == "langchain":
        message = AIMessageChunk(
            WRITTEN,
            response_metadata={"finish_reason": said},
            tool_calls=[{"name": "add", "args": {}, "id": "1", "type": "tool_call"}] if tools else [],
        )
        if usage is not None:
            counts = {IN_LANGCHAIN[name]: count for name, count in usage.items()}
            message.usage_metadata = {"total_tokens": sum(usage.values()), **counts}  # type: ignore[typeddict-item]
        reply = to_reply(message, [HumanMessage(PROMPT)], ended=not left)
    else:
        blocks = [ToolCallBlock(tool_call_id="1", tool_name="add", tool_kwargs={})] if tools else []
        raw = {"usage": usage, "choices": [{"finish_reason": said}]}
        gathering = Gathering([PROMPT])
        gathering.take(
            ChatResponse(
                message=ChatMessage(role="assistant", content=blocks or WRITTEN), raw=raw, delta=WRITTEN
            )
        )
        reply = gathering.reply(closed=left)
    assert reply.usage is not None
    measured = reply.usage.source == "measured"
    return reply.finish_reason, reply.usage.output_tokens if measured else None, reader


SPELLINGS = {
    "stop": "stop end_turn stop_sequence complete COMPLETE completed eos eos_token STOP",
    "length": "length max_tokens MAX_TOKENS max_output_tokens model_length model_context_window_exceeded",
    "tool_calls": "tool_calls tool_call tool_use function_call",
    "content_filter": "content_filter safety SAFETY recitation prohibited_content refusal blocklist spii "
    "guardrail_intervened content_filtered",
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("said", "reason"),
    [(one, reason) for reason, spelled in SPELLINGS.items() for one in spelled.split()],
)
def test_a_finish_reason_is_known_everywhere(reader: str, said: str, reason: str) -> None:
    assert outcome(reader, said=said)[:2] == (reason, 5)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("said", [None, "", "something new"])
def test_an_unknown_finish_reason_is_unknown(reader: str, said: str | None) -> None:
    assert outcome(reader, said=said)[:2] == (None, 5)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("said", ["error", "ERROR", "failed"])
def test_an_answer_that_the_provider_broke_off_is_a_failure(reader: str, said: str) -> None:
    with pytest.raises(ServerError, match="ended the answer with an error"):
        outcome(reader, said=said)


def test_an_answer_that_was_broken_off_is_still_accounted_for_by_an_observer() -> None:
    gathering = Gathering([PROMPT])
    raw = {"usage": USAGE, "choices": [{"finish_reason": "error"}]}
    gathering.take(ChatResponse(message=ChatMessage(role="assistant", content="up"), raw=raw))
    reply = gathering.reply(closed=False, failing=False)
    assert reply.usage is not None
    assert (reply.usage.output_tokens, reply.finish_reason) == (5, None)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("said", "reason"), [("stop", "tool_calls"), (None, "tool_calls"), ("length", "length")]
)
def test_a_tool_call_is_one_unless_it_was_cut(reader: str, said: str | None, reason: str) -> None:
    assert outcome(reader, said=said, tools=True)[0] == reason


FIRST_PART = {"prompt_tokens": 9, "completion_tokens": 1}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("case", "reason", "measured"),
    [
        pytest.param({"said": None, "usage": FIRST_PART}, "closed", None, id="a first part's count"),
        pytest.param({"said": None, "usage": FIRST_PART, "tools": True}, "closed", None, id="amid a tool call"),
        pytest.param({"said": "stop", "usage": None}, "closed", None, id="before the usage"),
        pytest.param({"said": "error", "usage": USAGE}, "closed", None, id="broken off"),
        pytest.param({"said": "stop", "usage": USAGE}, "stop", 5, id="when all had arrived"),
    ],
)
def test_a_stream_left_early_is_estimated(
    reader: str, case: dict[str, Any], reason: str, measured: int | None
) -> None:
    assert outcome(reader, **case, left=True)[:2] == (reason, measured)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": 3},
        {"completion_tokens": 3},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": 9, "completion_tokens": 0},
        {"prompt_tokens": 9, "completion_tokens": 10**30},
        {"prompt_tokens": 10**30, "completion_tokens": 5},
        {"prompt_tokens": 9, "completion_tokens": -5},
        {"prompt_tokens": 9, "completion_tokens": 5.5},
    ],
)
def test_a_usage_that_is_not_whole_is_not_measured(reader: str, usage: dict[str, int] | None) -> None:
    assert outcome(reader, usage=usage)[1] is None


@pytest.mark.parametrize("count", ["many", -3, 10**30, 2.5])
@pytest.mark.parametrize("name", ["cache_read_input_tokens", "thoughts_token_count"])
def test_a_count_that_is_none_is_left_out(name: str, count: object) -> None:
    usage = read_usage({"input_tokens": 2, "output_tokens": 5, name: count})
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (2, 5, None)


def test_cached_tokens_are_added_where_the_provider_counts_them_apart() -> None:
    anthropic = {"input_tokens": 2, "output_tokens": 5, "cache_read_input_tokens": 6}
    proxy = {"prompt_tokens": 8, "completion_tokens": 5, "cache_read_input_tokens": 6}
    counted = [read_usage(anthropic), read_usage(proxy)]
    assert [one.input_tokens for one in counted if one is not None] == [8, 8]


@pytest.mark.parametrize(
    ("arguments", "forced"),
    [
        ({}, False),
        ({"tools": [1], "tool_choice": None}, False),
        ({"tool_choice": "auto"}, False),
        ({"tool_choice": "none"}, False),
        ({"tool_choice": False}, False),
        ({"tool_choice": {"type": "auto"}}, False),
        ({"tool_choice": {"auto": {}}}, False),
        ({"function_call": "auto"}, False),
        ({"tool_choice": True}, True),
        ({"tool_choice": "any"}, True),
        ({"tool_choice": "required"}, True),
        ({"tool_choice": "add"}, True),
        ({"tool_choice": {"type": "tool", "name": "add"}}, True),
        ({"tool_choice": {"type": "function", "function": {"name": "add"}}}, True),
        ({"tool_choice": {"any": {}}}, True),
        ({"tool_choice": SimpleNamespace(type="tool")}, True),
        ({"function_call": {"name": "add"}}, True),
    ],
)
def test_a_forced_tool_is_told_from_a_free_choice(arguments: dict[str, Any], forced: bool) -> None:
    assert forces_tool(arguments) is forced


def completion(finish_reason: str) -> ChatCompletion:
    message = {"role": "assistant", "content": "upstream error 5"}
    return ChatCompletion.model_construct(
        model="m",
        usage=None,
        choices=[
            SimpleNamespace(message=SimpleNamespace(**message, refusal=None), finish_reason=finish_reason)
        ],
    )


def test_the_client_reads_replies_by_the_same_table() -> None:
    client = ChatClient("http://127.0.0.1:1/v1", "m")
    assert client._reply(completion("recitation"), 0.0).finish_reason == "content_filter"
    with pytest.raises(ServerError, match="ended the answer with an error"):
        client._reply(completion("error"), 0.0)


def test_an_answer_read_from_a_whole_message_is_not_a_stream() -> None:
    reply = to_reply(AIMessage(WRITTEN), [HumanMessage(PROMPT)])
    assert (reply.finish_reason, reply.usage is not None and reply.usage.source) == (None, "estimated")
