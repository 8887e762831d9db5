"""What langchain-google-genai sends when a reasoning control carries the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from langchain_google_genai import ChatGoogleGenerativeAI
from recording import Recorder, gemini_content

from tale_core.models.reasoning_controls import THINKING_HEADROOM
from tale_langchain import TALECallbackHandler, TALERunnable

if TYPE_CHECKING:
    from pytest_httpserver import HTTPServer

QUESTION = "How many eggs are in four dozen?"


@pytest.fixture
def server(httpserver: HTTPServer, loopback: str) -> Recorder:
    return Recorder(httpserver)


def gemini(server: Recorder, name: str, **fields: Any) -> ChatGoogleGenerativeAI:
    return ChatGoogleGenerativeAI(model=name, base_url=server.url, api_key="none", max_retries=1, **fields)


def answers(server: Recorder, *, estimate: int = 60) -> None:
    server.will_answer(
        gemini_content(f"[[{estimate}]]", answer=6),
        gemini_content("4 x 12 = 48", answer=40, thinking=55),
    )


def sent(body: dict[str, Any]) -> dict[str, Any]:
    return dict(body["generationConfig"])


def test_gemini_2_5_gets_the_budget_itself_and_the_plain_question(server: Recorder) -> None:
    answers(server)
    answer = TALERunnable(gemini(server, "gemini-2.5-flash")).invoke(QUESTION)
    assert sent(server.reason)["thinkingConfig"] == {"thinking_budget": 60}
    assert server.reason["contents"][0]["parts"] == [{"text": QUESTION}]
    assert "maxOutputTokens" not in sent(server.reason)
    assert answer.response_metadata["tale"]["reasoning_control_value"] == 60


def test_its_estimator_does_not_think(server: Recorder) -> None:
    answers(server)
    TALERunnable(gemini(server, "gemini-2.5-flash")).invoke(QUESTION)
    config = sent(server.estimate)
    assert config["thinkingConfig"] == {"thinking_budget": 0}
    assert (config["maxOutputTokens"], config["temperature"]) == (64, 0.0)


def test_a_model_that_must_think_gets_the_least_it_accepts(server: Recorder) -> None:
    answers(server)
    TALERunnable(gemini(server, "gemini-2.5-pro")).invoke(QUESTION)
    assert sent(server.reason)["thinkingConfig"] == {"thinking_budget": 128}
    config = sent(server.estimate)
    assert config["thinkingConfig"] == {"thinking_budget": 128}
    assert config["maxOutputTokens"] == 64 + 128 + THINKING_HEADROOM


def test_gemini_3_gets_a_level_and_keeps_its_own_temperature(server: Recorder) -> None:
    answers(server, estimate=2000)
    TALERunnable(gemini(server, "gemini-3-flash-preview")).invoke(QUESTION)
    assert sent(server.reason)["thinkingConfig"] == {"thinking_level": "MEDIUM"}
    assert sent(server.estimate)["thinkingConfig"] == {"thinking_level": "MINIMAL"}
    assert not any("temperature" in sent(body) for body in server.bodies)
    assert sent(server.estimate)["maxOutputTokens"] == 64 + THINKING_HEADROOM


def test_a_level_below_the_models_own_default_is_never_raised(server: Recorder) -> None:
    answers(server, estimate=4000)
    TALERunnable(gemini(server, "gemini-3.1-flash-lite")).invoke(QUESTION)
    assert sent(server.reason)["thinkingConfig"] == {"thinking_level": "MINIMAL"}


@pytest.mark.parametrize("fields", [{"thinking_budget": 0}, {"thinking_config": {"thinking_budget": 0}}])
def test_thinking_that_the_user_switched_off_stays_off(server: Recorder, fields: dict[str, Any]) -> None:
    answers(server)
    TALERunnable(gemini(server, "gemini-2.5-flash", **fields)).invoke(QUESTION)
    assert sent(server.reason)["thinkingConfig"] == {"thinking_budget": 0}
    assert "60 tokens" in server.reason["contents"][0]["parts"][0]["text"]


def test_what_else_the_user_configured_about_thinking_is_kept(server: Recorder) -> None:
    answers(server)
    raw = {"thinking_budget": 4000, "include_thoughts": True}
    TALERunnable(gemini(server, "gemini-2.5-flash", thinking_config=raw)).invoke(QUESTION)
    assert sent(server.reason)["thinkingConfig"] == {"thinking_budget": 60, "include_thoughts": True}


def test_a_level_set_by_its_native_name_in_a_call_is_a_ceiling(server: Recorder) -> None:
    answers(server, estimate=4000)
    TALERunnable(gemini(server, "gemini-3-flash-preview")).invoke(QUESTION, thinking_level="low")
    assert sent(server.reason)["thinkingConfig"] == {"thinking_level": "LOW"}


def test_a_model_without_thinking_gets_the_budget_in_the_prompt(server: Recorder) -> None:
    answers(server)
    TALERunnable(gemini(server, "gemini-2.5-flash-lite")).invoke(QUESTION)
    assert not any("thinkingConfig" in sent(body) for body in server.bodies)
    assert "60 tokens" in server.reason["contents"][0]["parts"][0]["text"]


def test_a_stream_carries_the_control_and_counts_the_same(server: Recorder) -> None:
    first = gemini_content("4 x 12", answer=20, thinking=55)
    del first["candidates"][0]["finishReason"]
    server.will_answer(
        gemini_content("[[60]]", answer=6), [first, gemini_content(" = 48", answer=40, thinking=55)]
    )
    *_, last = TALERunnable(gemini(server, "gemini-2.5-flash")).stream(QUESTION)
    assert sent(server.reason)["thinkingConfig"] == {"thinking_budget": 60}
    usage = last.response_metadata["tale"]["reason_usage"]
    assert (usage["output_tokens"], usage["reasoning_tokens"]) == (95, 55)


def test_thoughts_are_part_of_the_output_and_counted_apart(server: Recorder) -> None:
    answers(server)
    handler = TALECallbackHandler()
    TALERunnable(gemini(server, "gemini-2.5-flash")).invoke(QUESTION, {"callbacks": [handler]})
    reason = handler.ledger.totals("reason")
    assert (reason.input_tokens, reason.output_tokens, reason.reasoning_tokens) == (25, 95, 55)
    assert handler.ledger.totals("estimate").reasoning_tokens is None
