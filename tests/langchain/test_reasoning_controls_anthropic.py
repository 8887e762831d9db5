"""What langchain-anthropic sends when a reasoning control carries the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from pydantic import BaseModel
from recording import Recorder, claude_events, claude_message

from tale_core import InvalidValueError
from tale_core.models.reasoning_controls import THINKING_HEADROOM
from tale_langchain import TALECallbackHandler, TALERunnable

if TYPE_CHECKING:
    from pytest_httpserver import HTTPServer

QUESTION = "How many eggs are in four dozen?"
THINKING = {"type": "enabled", "budget_tokens": 8000}


@pytest.fixture
def server(httpserver: HTTPServer, loopback: str) -> Recorder:
    return Recorder(httpserver)


def claude(server: Recorder, name: str, **fields: Any) -> ChatAnthropic:
    return ChatAnthropic(model=name, base_url=server.url, api_key="none", max_retries=0, **fields)


def answers(server: Recorder, *, estimate: int = 60, text: str = "4 x 12 = 48") -> None:
    server.will_answer(
        claude_message(f"[[{estimate}]]", output=8),
        claude_message(text, output=150, thinking=120, read=500, written=7),
    )


@tool
def multiply(a: int, b: int) -> int:
    """Multiply."""
    return a * b


class Count(BaseModel):
    """A number of things."""

    count: int


def test_claude_without_thinking_gets_the_budget_in_the_prompt(server: Recorder) -> None:
    answers(server)
    answer = TALERunnable(claude(server, "claude-sonnet-4-5")).invoke(QUESTION)
    assert not {"thinking", "output_config"} & {*server.estimate, *server.reason}
    assert "60 tokens" in server.reason["messages"][0]["content"]
    assert (server.estimate["temperature"], server.estimate["max_tokens"]) == (0.0, 64)
    assert "does not think as it is set up" in answer.response_metadata["tale"]["reasoning_control_why"]


@pytest.mark.parametrize(("estimate", "tokens"), [(60, 1024), (3000, 3000), (4096, 4096)])
def test_a_thinking_budget_is_lowered_but_never_below_what_anthropic_accepts(
    server: Recorder, estimate: int, tokens: int
) -> None:
    answers(server, estimate=estimate)
    TALERunnable(claude(server, "claude-sonnet-4-5", thinking=THINKING)).invoke(QUESTION)
    assert server.reason["thinking"] == {"type": "enabled", "budget_tokens": tokens}
    assert server.reason["thinking"]["budget_tokens"] < server.reason["max_tokens"]
    assert server.reason["messages"][0]["content"] == QUESTION
    assert "temperature" not in server.reason


def test_a_thinking_budget_is_never_raised(server: Recorder) -> None:
    answers(server, estimate=4000)
    thinking = {"type": "enabled", "budget_tokens": 2000}
    TALERunnable(claude(server, "claude-sonnet-4-5", thinking=thinking)).invoke(QUESTION)
    assert server.reason["thinking"]["budget_tokens"] == 2000


def test_the_estimate_is_made_without_thinking_cold_and_short(server: Recorder) -> None:
    answers(server)
    TALERunnable(claude(server, "claude-sonnet-4-5", thinking=THINKING)).invoke(QUESTION)
    assert server.estimate["thinking"] == {"type": "disabled"}
    assert (server.estimate["temperature"], server.estimate["max_tokens"]) == (0.0, 64)


@pytest.mark.parametrize("set_by", ["field", "binding", "call"])
def test_thinking_is_turned_down_wherever_it_was_turned_on(server: Recorder, set_by: str) -> None:
    model: Any = claude(server, "claude-haiku-4-5", **({"thinking": THINKING} if set_by == "field" else {}))
    if set_by == "binding":
        model = model.bind(thinking=THINKING)
    answers(server)
    TALERunnable(model).invoke(QUESTION, **({"thinking": THINKING} if set_by == "call" else {}))
    assert server.reason["thinking"]["budget_tokens"] == 1024
    assert server.estimate.get("thinking", {"type": "disabled"}) == {"type": "disabled"}


def test_a_model_that_thinks_by_itself_gets_an_effort(server: Recorder) -> None:
    answers(server)
    answer = TALERunnable(claude(server, "claude-opus-5")).invoke(QUESTION)
    assert server.reason["output_config"] == {"effort": "low"}
    assert "thinking" not in server.reason
    assert server.estimate["thinking"] == {"type": "disabled"}
    assert "temperature" not in server.estimate
    assert answer.response_metadata["tale"]["reasoning_control_value"] == "low"


def test_a_model_whose_thinking_cannot_be_switched_off_estimates_with_head_room(server: Recorder) -> None:
    answers(server)
    TALERunnable(claude(server, "claude-opus-5-5")).invoke(QUESTION)
    assert "thinking" not in server.estimate
    assert server.estimate["output_config"] == {"effort": "low"}
    assert server.estimate["max_tokens"] == 64 + THINKING_HEADROOM
    assert "temperature" not in server.estimate


def test_effort_does_not_start_thinking_on_a_model_where_it_is_off(server: Recorder) -> None:
    answers(server)
    TALERunnable(claude(server, "claude-opus-4-7")).invoke(QUESTION)
    assert not {"thinking", "output_config"} & set(server.reason)
    assert "60 tokens" in server.reason["messages"][0]["content"]


def test_an_effort_the_user_set_starts_adaptive_thinking_and_is_a_ceiling(server: Recorder) -> None:
    answers(server, estimate=4000)
    TALERunnable(claude(server, "claude-opus-4-7", reasoning_effort="high")).invoke(QUESTION)
    assert server.reason["output_config"] == {"effort": "medium"}
    assert server.reason["thinking"]["type"] == "adaptive"
    assert server.estimate["thinking"] == {"type": "disabled"}


def test_a_forced_tool_rules_thinking_out_and_the_prompt_takes_over(server: Recorder) -> None:
    model = claude(server, "claude-sonnet-4-5").bind_tools([multiply], tool_choice="any")
    server.will_answer(claude_message("[[60]]", output=8), claude_message("48", output=30))
    answer = TALERunnable(model.bind(thinking=THINKING)).invoke(QUESTION)
    assert answer.response_metadata["tale"]["reasoning_control"] == "prompt"
    assert "cannot think when a tool is forced" in answer.response_metadata["tale"]["reasoning_control_why"]
    assert "60 tokens" in server.reason["messages"][0]["content"]


def test_an_output_cap_below_the_least_thinking_leaves_the_prompt(server: Recorder) -> None:
    server.will_answer(claude_message("48", output=30))
    model = claude(server, "claude-sonnet-4-5", thinking=THINKING, max_tokens=1000)
    answer = TALERunnable(model, estimator=60).invoke(QUESTION)
    assert "max_tokens=1000 leaves no room" in answer.response_metadata["tale"]["reasoning_control_why"]


def test_structured_output_keeps_its_format_beside_the_effort(server: Recorder) -> None:
    answers(server, text='{"count": 48}')
    tale = TALERunnable(claude(server, "claude-opus-5"))
    found = tale.with_structured_output(Count, method="json_schema").invoke(QUESTION)
    assert found == Count(count=48)
    assert server.reason["output_config"]["effort"] == "low"
    assert server.reason["output_config"]["format"]["type"] == "json_schema"
    assert "format" not in server.estimate.get("output_config", {})


def test_cached_input_and_thinking_are_counted_as_anthropic_means_them(server: Recorder) -> None:
    answers(server)
    handler = TALECallbackHandler()
    TALERunnable(claude(server, "claude-opus-5")).invoke(QUESTION, {"callbacks": [handler]})
    reason = handler.ledger.totals("reason")
    assert (reason.input_tokens, reason.output_tokens, reason.reasoning_tokens) == (20 + 500 + 7, 150, 120)
    assert handler.ledger.totals("estimate").reasoning_tokens is None


def test_a_stream_carries_the_control_and_counts_the_same(server: Recorder) -> None:
    server.will_answer(
        claude_message("[[60]]", output=8), claude_events("4 x 12 = 48", output=150, thinking=120)
    )
    *_, last = TALERunnable(claude(server, "claude-opus-5")).stream(QUESTION)
    assert (server.reason["output_config"], server.reason["stream"]) == ({"effort": "low"}, True)
    usage = last.response_metadata["tale"]["reason_usage"]
    assert (usage["output_tokens"], usage["reasoning_tokens"]) == (150, 120)


def test_native_is_refused_at_construction_for_a_model_that_does_not_think(server: Recorder) -> None:
    with pytest.raises(InvalidValueError, match="claude-sonnet-4-5 does not think as it is set up"):
        TALERunnable(claude(server, "claude-sonnet-4-5"), reasoning_control="native")


def test_native_is_accepted_where_the_user_turned_thinking_on(server: Recorder) -> None:
    server.will_answer(claude_message("48", output=30))
    model = claude(server, "claude-sonnet-4-5", thinking=THINKING)
    answer = TALERunnable(model, estimator=60, reasoning_control="native").invoke(QUESTION)
    assert answer.response_metadata["tale"]["reasoning_control"] == "thinking_budget"
