"""What langchain-openai sends when a reasoning control carries the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from recording import Recorder, chat_completion, chat_completion_chunks, openai_response

from tale_core.models.reasoning_controls import THINKING_HEADROOM
from tale_langchain import TALECallbackHandler, TALERunnable

if TYPE_CHECKING:
    from pytest_httpserver import HTTPServer

QUESTION = "How many eggs are in four dozen?"


@pytest.fixture
def server(httpserver: HTTPServer, loopback: str) -> Recorder:
    return Recorder(httpserver)


def chat(server: Recorder, name: str, **fields: Any) -> ChatOpenAI:
    return ChatOpenAI(model=name, base_url=server.url, api_key="none", max_retries=0, **fields)


def answers(server: Recorder, *, estimate: int = 60) -> None:
    server.will_answer(
        chat_completion(f"[[{estimate}]]", output=10, thinking=4),
        chat_completion("4 x 12 = 48", output=90, thinking=64, cached=16),
    )


@tool
def multiply(a: int, b: int) -> int:
    """Multiply."""
    return a * b


def test_a_thinking_model_gets_an_effort_level_and_the_plain_question(server: Recorder) -> None:
    answers(server)
    answer = TALERunnable(chat(server, "gpt-5-mini")).invoke(QUESTION)
    assert server.reason["reasoning_effort"] == "minimal"
    assert server.reason["messages"] == [{"role": "user", "content": QUESTION}]
    assert not {"max_tokens", "max_completion_tokens", "temperature"} & set(server.reason)
    tale = answer.response_metadata["tale"]
    assert (tale["budget"], tale["reasoning_control"], tale["reasoning_control_value"]) == (
        60,
        "effort",
        "minimal",
    )


def test_its_estimator_thinks_as_little_as_it_can_with_head_room_and_no_temperature(server: Recorder) -> None:
    answers(server)
    TALERunnable(chat(server, "gpt-5-mini")).invoke(QUESTION)
    assert server.estimate["reasoning_effort"] == "minimal"
    assert server.estimate["max_completion_tokens"] == 64 + THINKING_HEADROOM
    assert "temperature" not in server.estimate


def test_reasoning_tokens_are_counted_apart_and_within_the_output(server: Recorder) -> None:
    answers(server)
    handler = TALECallbackHandler()
    tale = TALERunnable(chat(server, "gpt-5-mini"))
    summary = tale.invoke(QUESTION, {"callbacks": [handler]}).response_metadata["tale"]
    reason = {"input_tokens": 30, "output_tokens": 90, "reasoning_tokens": 64, "source": "measured"}
    assert summary["reason_usage"] == reason
    assert handler.ledger.totals("reason").model_dump() == reason
    assert handler.ledger.totals("estimate").reasoning_tokens == 4
    assert handler.ledger.totals().output_tokens == 100
    assert handler.ledger.budgets[0].control == "effort"


def test_reasoning_tokens_nobody_reported_are_unknown_not_zero(server: Recorder) -> None:
    server.will_answer(chat_completion("48", output=5))
    answer = TALERunnable(chat(server, "gpt-5-mini"), estimator=60).invoke(QUESTION)
    assert answer.response_metadata["tale"]["reason_usage"]["reasoning_tokens"] is None


def test_zero_reported_reasoning_tokens_are_zero(server: Recorder) -> None:
    server.will_answer(chat_completion("48", output=5, thinking=0))
    answer = TALERunnable(chat(server, "gpt-5-mini"), estimator=60).invoke(QUESTION)
    assert answer.response_metadata["tale"]["reason_usage"]["reasoning_tokens"] == 0


def test_a_model_that_does_not_think_gets_the_budget_in_the_prompt(server: Recorder) -> None:
    answers(server)
    answer = TALERunnable(chat(server, "gpt-4o-mini")).invoke(QUESTION)
    assert "reasoning_effort" not in server.reason
    assert "60 tokens" in server.reason["messages"][0]["content"]
    assert (server.estimate["temperature"], server.estimate["max_completion_tokens"]) == (0.0, 64)
    tale = answer.response_metadata["tale"]
    assert tale["reasoning_control"] == "prompt"
    assert "gpt-4o-mini does not think" in tale["reasoning_control_why"]


def test_a_model_whose_thinking_is_off_by_default_is_not_made_to_think(server: Recorder) -> None:
    answers(server)
    TALERunnable(chat(server, "gpt-5.1")).invoke(QUESTION)
    assert "reasoning_effort" not in server.reason
    assert "reasoning_effort" not in server.estimate
    assert "60 tokens" in server.reason["messages"][0]["content"]


def test_thinking_that_the_user_switched_on_is_turned_down_and_off_for_the_estimate(server: Recorder) -> None:
    answers(server)
    TALERunnable(chat(server, "gpt-5.1", reasoning_effort="high")).invoke(QUESTION)
    assert server.reason["reasoning_effort"] == "low"
    assert server.estimate["reasoning_effort"] == "none"
    assert (server.estimate["temperature"], server.estimate["max_completion_tokens"]) == (0.0, 64)


@pytest.mark.parametrize("set_by", ["field", "binding", "call"])
def test_an_effort_that_the_user_chose_is_a_ceiling_wherever_it_was_set(server: Recorder, set_by: str) -> None:
    model: Any = chat(server, "gpt-5", **({"reasoning_effort": "low"} if set_by == "field" else {}))
    if set_by == "binding":
        model = model.bind(reasoning_effort="low")
    answers(server, estimate=3000)
    TALERunnable(model).invoke(QUESTION, **({"reasoning_effort": "low"} if set_by == "call" else {}))
    assert server.reason["reasoning_effort"] == "low"
    assert server.estimate["reasoning_effort"] == "minimal"


def test_the_users_own_output_cap_stays(server: Recorder) -> None:
    answers(server)
    TALERunnable(chat(server, "gpt-5", max_tokens=5000)).invoke(QUESTION)
    assert server.reason["max_completion_tokens"] == 5000


def test_the_users_model_is_never_touched(server: Recorder) -> None:
    model = chat(server, "gpt-5")
    before = model.model_dump()
    answers(server)
    TALERunnable(model).invoke(QUESTION)
    assert model.model_dump() == before


async def test_async_sends_the_same_requests(server: Recorder) -> None:
    tale = TALERunnable(chat(server, "gpt-5"))
    answers(server)
    tale.invoke(QUESTION)
    answers(server)
    await tale.ainvoke(QUESTION)
    assert server.bodies[:2] == server.bodies[2:]


def test_a_stream_carries_the_control_and_counts_the_same(server: Recorder) -> None:
    server.will_answer(
        chat_completion("[[60]]", output=10, thinking=4),
        chat_completion_chunks("4 x 12 = 48", output=90, thinking=64),
    )
    tale = TALERunnable(chat(server, "gpt-5", stream_usage=True))
    *_, last = tale.stream(QUESTION)
    assert (server.reason["reasoning_effort"], server.reason["stream"]) == ("minimal", True)
    summary = last.response_metadata["tale"]
    assert (summary["reasoning_control"], summary["reason_usage"]["reasoning_tokens"]) == ("effort", 64)


def test_tools_and_effort_do_not_meet_in_chat_completions_where_the_provider_refuses(server: Recorder) -> None:
    answers(server)
    answer = TALERunnable(chat(server, "gpt-5.5").bind_tools([multiply])).invoke(QUESTION)
    assert "reasoning_effort" not in server.reason
    assert "60 tokens" in server.reason["messages"][0]["content"]
    assert "only in the Responses API" in answer.response_metadata["tale"]["reasoning_control_why"]


def test_tools_and_effort_meet_where_the_provider_lets_them(server: Recorder) -> None:
    answers(server)
    TALERunnable(chat(server, "gpt-5").bind_tools([multiply])).invoke(QUESTION)
    assert (server.reason["reasoning_effort"], len(server.reason["tools"])) == ("minimal", 1)
    assert "tools" not in server.estimate


def test_the_responses_api_gets_its_own_form_and_keeps_what_the_user_set(server: Recorder) -> None:
    server.will_answer(
        openai_response("[[60]]", output=12, thinking=6), openai_response("48", output=90, thinking=80)
    )
    model = chat(server, "gpt-5.5", reasoning={"effort": "high", "summary": "auto"})
    answer = TALERunnable(model.bind_tools([multiply])).invoke(QUESTION)
    assert [path.rpartition("/")[2] for path in server.paths] == ["responses", "responses"]
    assert server.reason["reasoning"] == {"effort": "low", "summary": "auto"}
    assert server.estimate["reasoning"] == {"effort": "none", "summary": "auto"}
    assert server.estimate["max_output_tokens"] == 64
    tale = answer.response_metadata["tale"]
    assert (tale["reason_usage"]["reasoning_tokens"], tale["reasoning_control_value"]) == (80, "low")


def test_the_responses_api_takes_the_short_form_too(server: Recorder) -> None:
    server.will_answer(openai_response("48", output=90, thinking=80))
    TALERunnable(chat(server, "gpt-5", use_responses_api=True), estimator=60).invoke(QUESTION)
    assert server.reason["reasoning"] == {"effort": "minimal"}
    assert "reasoning_effort" not in server.reason


def test_a_profile_that_the_user_wrote_wins(server: Recorder) -> None:
    profile = {"reasoning_output": True, "reasoning_effort_levels": ["low", "high"]}
    answers(server)
    TALERunnable(chat(server, "my-deployment", profile=profile)).invoke(QUESTION)
    assert server.reason["reasoning_effort"] == "low"


def test_a_model_that_thinks_without_a_known_control_gets_head_room_for_the_estimate(server: Recorder) -> None:
    answers(server)
    TALERunnable(chat(server, "thinker", profile={"reasoning_output": True})).invoke(QUESTION)
    assert server.estimate["max_completion_tokens"] == 64 + THINKING_HEADROOM
    assert "60 tokens" in server.reason["messages"][0]["content"]


def test_controls_prompt_leaves_the_native_control_alone(server: Recorder) -> None:
    answers(server)
    TALERunnable(chat(server, "gpt-5"), reasoning_control="prompt").invoke(QUESTION)
    assert "reasoning_effort" not in server.reason
    assert "60 tokens" in server.reason["messages"][0]["content"]
    assert server.estimate["reasoning_effort"] == "minimal"


@pytest.mark.parametrize(
    ("reasoning_control", "on", "off"),
    [
        ("vllm", {"thinking_token_budget": 60}, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("llama.cpp", {"thinking_budget_tokens": 60}, {"chat_template_kwargs": {"enable_thinking": False}}),
        (
            "sglang",
            {"custom_params": {"thinking_budget": 60}, "chat_template_kwargs": {"thinking_budget": 60}},
            {"chat_template_kwargs": {"enable_thinking": False}},
        ),
    ],
)
def test_a_server_that_is_named_gets_the_budget_itself(
    server: Recorder, reasoning_control: Any, on: dict[str, Any], off: dict[str, Any]
) -> None:
    answers(server)
    answer = TALERunnable(chat(server, "qwen3"), reasoning_control=reasoning_control).invoke(QUESTION)
    assert {name: server.reason.get(name) for name in on} == on
    assert {name: server.estimate.get(name) for name in off} == off
    assert not set(on) - set(off) & set(server.estimate)
    assert server.reason["messages"] == [{"role": "user", "content": QUESTION}]
    assert answer.response_metadata["tale"]["reasoning_control"] == "thinking_budget"


def test_what_the_user_sends_to_a_server_is_kept(server: Recorder) -> None:
    body = {"top_k": 20, "chat_template_kwargs": {"tone": "dry"}}
    answers(server)
    TALERunnable(chat(server, "qwen3", extra_body=body), reasoning_control="sglang").invoke(QUESTION)
    assert server.reason["top_k"] == server.estimate["top_k"] == 20
    assert server.reason["chat_template_kwargs"] == {"tone": "dry", "thinking_budget": 60}
    assert server.estimate["chat_template_kwargs"] == {"tone": "dry", "enable_thinking": False}


def test_another_model_that_estimates_is_not_taken_to_stand_behind_the_same_server(server: Recorder) -> None:
    answers(server)
    TALERunnable(chat(server, "qwen3"), estimator=chat(server, "gpt-4o-mini"), reasoning_control="vllm").invoke(
        QUESTION
    )
    assert server.reason["thinking_token_budget"] == 60
    assert "chat_template_kwargs" not in server.estimate


def test_a_server_is_never_guessed_from_its_address(server: Recorder) -> None:
    answers(server)
    TALERunnable(chat(server, "qwen3")).invoke(QUESTION)
    assert not {"chat_template_kwargs", "thinking_token_budget"} & {*server.estimate, *server.reason}
