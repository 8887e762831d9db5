"""What LlamaIndex's provider packages send when a reasoning control carries a budget, and for an estimate."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from google.genai import types
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms import MockLLM
from llama_index.llms.anthropic import Anthropic
from llama_index.llms.google_genai import GoogleGenAI
from llama_index.llms.openai import OpenAI, OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
from recording import Recorder, chat_completion, claude_message, gemini_content, openai_response

from tale_core import InvalidValueError, Usage
from tale_core.models.reasoning_controls import THINKING_HEADROOM
from tale_llamaindex import TALEEventHandler, TALEQueryTransform
from tale_llamaindex._convert import usage_of
from tale_llamaindex.reasoning_controls import ModelControls

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from pytest_httpserver import HTTPServer

QUESTION = "How many eggs are in four dozen?"
THINKING = {"type": "enabled", "budget_tokens": 8000}


@pytest.fixture
def server(httpserver: HTTPServer, loopback: str) -> Recorder:
    return Recorder(httpserver)


def openai(server: Recorder, name: str, **fields: Any) -> OpenAI:
    return OpenAI(model=name, api_base=server.url, api_key="none", max_retries=0, **fields)


def responses(server: Recorder, name: str, **fields: Any) -> OpenAIResponses:
    return OpenAIResponses(model=name, api_base=server.url, api_key="none", max_retries=0, **fields)


def like(server: Recorder, **fields: Any) -> OpenAILike:
    return OpenAILike(
        model="qwen3", api_base=server.url, api_key="none", is_chat_model=True, max_retries=0, **fields
    )


def claude(server: Recorder, name: str, **fields: Any) -> Anthropic:
    return Anthropic(model=name, base_url=server.url, api_key="none", max_retries=0, **fields)


def gemini(server: Recorder, name: str, **thinking: Any) -> GoogleGenAI:
    config = types.GenerateContentConfig(thinking_config=types.ThinkingConfig(**thinking)) if thinking else None
    return GoogleGenAI(
        model=name,
        api_key="none",
        max_tokens=8192,
        context_window=100_000,
        http_options=types.HttpOptions(base_url=server.url),
        generation_config=config,
    )


def ask(
    llm: LLM, budget: int = 60, *, reasoning_control: str = "auto", **arguments: Any
) -> tuple[str, ChatResponse]:
    """Ask the question under a budget; return the control and the response."""
    native = ModelControls(llm, reasoning_control)
    setting = native.control(arguments)(budget)
    asked, sent = native.asked(setting, arguments)
    return setting.control, asked.chat([ChatMessage(QUESTION)], **sent)


# OpenAI


def test_a_known_reasoning_model_gets_an_effort(server: Recorder) -> None:
    server.will_answer(chat_completion("48", output=90, thinking=64))
    control, response = ask(openai(server, "gpt-5-mini"))
    assert (control, server.reason["reasoning_effort"]) == ("effort", "minimal")
    assert not {"max_tokens", "max_completion_tokens"} & set(server.reason)
    assert usage_of(response) == Usage(input_tokens=30, output_tokens=90, reasoning_tokens=64)


def test_a_model_without_thinking_is_asked_as_it_is(server: Recorder) -> None:
    server.will_answer(chat_completion("48", output=90))
    control, response = ask(openai(server, "gpt-4o-mini"))
    assert (control, "reasoning_effort" in server.reason) == ("prompt", False)
    usage = usage_of(response)
    assert usage is not None
    assert usage.reasoning_tokens is None


@pytest.mark.parametrize(
    "where", [{"reasoning_effort": "low"}, {"additional_kwargs": {"reasoning_effort": "low"}}]
)
def test_an_effort_set_on_the_llm_is_a_ceiling_and_does_not_win_over_a_lower_one(
    server: Recorder, where: dict[str, Any]
) -> None:
    server.will_answer(chat_completion("48", output=9), chat_completion("48", output=9))
    ask(openai(server, "gpt-5", **where), 4000)
    assert server.reason["reasoning_effort"] == "low"
    ask(openai(server, "gpt-5", **where), 60)
    assert server.reason["reasoning_effort"] == "minimal"


def test_the_estimator_of_a_reasoning_model_thinks_little_with_head_room(server: Recorder) -> None:
    server.will_answer(chat_completion("[[60]]", output=10, thinking=4))
    llm = openai(server, "gpt-5", reasoning_effort="high", max_tokens=16)
    TALEQueryTransform(llm).run(QUESTION)
    assert server.estimate["reasoning_effort"] == "minimal"
    assert server.estimate["max_completion_tokens"] == 64 + THINKING_HEADROOM
    assert "max_tokens" not in server.estimate
    assert server.estimate["temperature"] == 1.0  # what the class itself sends for these models
    assert (llm.reasoning_effort, llm.max_tokens) == ("high", 16)


def test_the_estimator_of_another_model_is_cold_and_short(server: Recorder) -> None:
    server.will_answer(chat_completion("[[60]]", output=10))
    TALEQueryTransform(openai(server, "gpt-4o-mini", max_tokens=500)).run(QUESTION)
    assert (server.estimate["temperature"], server.estimate["max_tokens"]) == (0.0, 64)


def test_tools_and_effort_do_not_meet_where_chat_completions_refuses(server: Recorder) -> None:
    native = ModelControls(openai(server, "gpt-5.5"))
    assert native.control({})(60).control == "effort"
    assert native.control({"tools": [{"type": "function"}]})(60).control == "prompt"


def test_the_responses_api_gets_its_own_form_and_keeps_what_the_user_set(server: Recorder) -> None:
    server.will_answer(
        openai_response("[[60]]", output=12, thinking=6), openai_response("48", output=90, thinking=80)
    )
    llm = responses(server, "gpt-5.5", reasoning_options={"effort": "high", "summary": "auto"})
    TALEQueryTransform(llm).run(QUESTION)
    _, response = ask(llm)
    assert server.estimate["reasoning"] == {"effort": "none", "summary": "auto"}
    assert server.estimate["max_output_tokens"] == 64
    assert server.reason["reasoning"] == {"effort": "low", "summary": "auto"}
    usage = usage_of(response)
    assert usage is not None
    assert (usage.output_tokens, usage.reasoning_tokens) == (90, 80)


# OpenAI-compatible servers


@pytest.mark.parametrize(
    ("reasoning_control", "parameters"),
    [
        ("vllm", {"thinking_token_budget": 60}),
        ("llama.cpp", {"thinking_budget_tokens": 60}),
        ("sglang", {"custom_params": {"thinking_budget": 60}}),
    ],
)
def test_a_server_that_is_named_gets_the_budget_itself(
    server: Recorder, reasoning_control: str, parameters: dict[str, Any]
) -> None:
    server.will_answer(chat_completion("48", output=9))
    control, _ = ask(
        like(server, additional_kwargs={"extra_body": {"top_k": 20}}), reasoning_control=reasoning_control
    )
    assert control == "thinking_budget"
    assert {name: server.reason.get(name) for name in ("top_k", *parameters)} == {"top_k": 20, **parameters}


def test_the_controls_of_a_server_can_be_pickled_and_copied(server: Recorder) -> None:
    reasoning_control = ModelControls(like(server), "vllm")
    for again in (pickle.loads(pickle.dumps(reasoning_control)), copy.deepcopy(reasoning_control)):  # noqa: S301  # our own bytes
        setting = again.control({})(60)
        assert again.asked(setting, {})[1] == {"extra_body": {"thinking_token_budget": 60}}


def test_a_server_is_never_guessed(server: Recorder) -> None:
    assert ModelControls(like(server)).control({})(60).control == "prompt"


def test_a_server_needs_a_class_that_speaks_to_one() -> None:
    with pytest.raises(InvalidValueError, match=r"reasoning_control='vllm' needs a class .* got MockLLM"):
        ModelControls(MockLLM(), "vllm")


# Anthropic


def test_a_thinking_budget_is_lowered_to_what_anthropic_accepts(server: Recorder) -> None:
    server.will_answer(claude_message("48", output=150, thinking=120, read=500, written=7))
    control, response = ask(claude(server, "claude-sonnet-4-5", thinking_dict=THINKING, max_tokens=16_000))
    assert control == "thinking_budget"
    assert server.reason["thinking"] == {"type": "enabled", "budget_tokens": 1024}
    assert usage_of(response) == Usage(input_tokens=527, output_tokens=150, reasoning_tokens=120)


def test_its_estimate_is_made_without_thinking(server: Recorder) -> None:
    server.will_answer(claude_message("[[60]]", output=8))
    TALEQueryTransform(claude(server, "claude-sonnet-4-5", thinking_dict=THINKING, max_tokens=16_000)).run(
        QUESTION
    )
    assert server.estimate["thinking"] == {"type": "disabled"}
    assert (server.estimate["temperature"], server.estimate["max_tokens"]) == (0.0, 64)


def test_claude_without_thinking_is_not_made_to_think(server: Recorder) -> None:
    server.will_answer(claude_message("48", output=30))
    control, response = ask(claude(server, "claude-sonnet-4-5"))
    assert (control, "thinking" in server.reason) == ("prompt", False)
    usage = usage_of(response)
    assert usage is not None
    assert usage.reasoning_tokens is None


def test_the_classes_own_small_output_cap_rules_thinking_out(server: Recorder) -> None:
    reasoning_control = ModelControls(claude(server, "claude-sonnet-4-5", thinking_dict=THINKING))
    assert "max_tokens=512 leaves no room" in reasoning_control.control({})(60).why


def test_a_forced_tool_rules_thinking_out(server: Recorder) -> None:
    reasoning_control = ModelControls(
        claude(server, "claude-sonnet-4-5", thinking_dict=THINKING, max_tokens=16_000)
    )
    assert "when a tool is forced" in reasoning_control.control({"tool_choice": {"type": "any"}})(60).why


def test_a_model_that_always_thinks_gets_an_effort_beside_what_the_user_set(server: Recorder) -> None:
    server.will_answer(claude_message("[[60]]", output=8), claude_message("48", output=30))
    llm = claude(server, "claude-opus-5-5", additional_kwargs={"output_config": {"format": {"type": "text"}}})
    TALEQueryTransform(llm).run(QUESTION)
    ask(llm)
    assert server.reason["output_config"] == {"format": {"type": "text"}, "effort": "low"}
    assert server.estimate["output_config"]["effort"] == "low"
    assert server.estimate["max_tokens"] == 64 + THINKING_HEADROOM
    assert "temperature" not in server.estimate


# Google


def test_gemini_2_5_gets_the_budget_itself(server: Recorder) -> None:
    server.will_answer(gemini_content("48", answer=40, thinking=55))
    control, response = ask(gemini(server, "gemini-2.5-flash", thinking_budget=4000, include_thoughts=True))
    assert control == "thinking_budget"
    assert server.reason["generationConfig"]["thinkingConfig"] == {
        "include_thoughts": True,
        "thinking_budget": 60,
    }
    assert usage_of(response) == Usage(input_tokens=25, output_tokens=95, reasoning_tokens=55)


def test_its_estimator_does_not_think(server: Recorder) -> None:
    server.will_answer(gemini_content("[[60]]", answer=6))
    TALEQueryTransform(gemini(server, "gemini-2.5-flash")).run(QUESTION)
    config = server.estimate["generationConfig"]
    assert config["thinkingConfig"] == {"thinking_budget": 0}
    assert (config["maxOutputTokens"], config["temperature"]) == (64, 0.0)


def test_gemini_3_gets_a_level_and_keeps_its_own_temperature(server: Recorder) -> None:
    server.will_answer(gemini_content("[[60]]", answer=6), gemini_content("48", answer=40))
    llm = gemini(server, "gemini-3-flash-preview", thinking_level="low")
    TALEQueryTransform(llm).run(QUESTION)
    ask(llm, 4000)
    assert server.estimate["generationConfig"]["thinkingConfig"] == {"thinking_level": "MINIMAL"}
    assert server.reason["generationConfig"]["thinkingConfig"] == {"thinking_level": "LOW"}
    assert "temperature" not in server.estimate["generationConfig"]


# All


async def test_async_estimates_send_the_same(server: Recorder) -> None:
    transform = TALEQueryTransform(openai(server, "gpt-5"))
    server.will_answer(chat_completion("[[60]]", output=10), chat_completion("[[60]]", output=10))
    transform.run(QUESTION)
    await transform.arun(QUESTION)
    assert server.bodies[0] == server.bodies[1]


def test_the_transform_records_that_the_prompt_carries_the_budget(server: Recorder) -> None:
    server.will_answer(chat_completion("[[60]]", output=10, thinking=4))
    with TALEEventHandler() as handler:
        TALEQueryTransform(openai(server, "gpt-5")).run(QUESTION)
    assert handler.ledger.budgets[0].control == "prompt"
    assert handler.ledger.totals("estimate").reasoning_tokens == 4


def test_native_is_refused_where_no_control_is_known() -> None:
    with pytest.raises(InvalidValueError, match="no reasoning control is known for MockLLM"):
        ModelControls(MockLLM(), "native")
