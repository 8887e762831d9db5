"""ChatOpenAI over real HTTP on loopback: what is sent, and what is made of what comes back."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import openai
import pytest
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from recording import Recorder, chat_completion, chat_completion_chunks
from werkzeug.wrappers import Request, Response

from tale_core import ServerError, UnknownModelError
from tale_langchain import TALECallbackHandler, TALERunnable

if TYPE_CHECKING:
    from pytest_httpserver import HTTPServer

QUESTION = "How many eggs are in four dozen?"
ANSWER = "Four dozen are four times twelve, which makes 48."

Ask = Callable[..., Awaitable[AIMessage]]


@pytest.fixture
def server(httpserver: HTTPServer, loopback: str) -> Recorder:
    return Recorder(httpserver)


def chat(url: str, **fields: Any) -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4o-mini", base_url=url, api_key="none", max_retries=0, **fields)


def count(number: int) -> int:
    """Count something."""
    return number


def test_the_estimate_is_cold_short_and_plain_and_the_question_as_the_user_set_it_up(server: Recorder) -> None:
    server.will_answer(chat_completion("[[40]]", output=5), chat_completion(ANSWER, output=12))
    model = chat(server.url, temperature=0.7, max_tokens=900).bind_tools([count])
    TALERunnable(model).invoke(QUESTION)
    assert {key: server.estimate.get(key) for key in ("temperature", "max_completion_tokens")} == {
        "temperature": 0.0,
        "max_completion_tokens": 64,
    }
    assert not {"tools", "tool_choice"} & set(server.estimate)
    assert not server.estimate.get("stream")
    assert server.reason["messages"] == [
        {"role": "user", "content": f"{QUESTION}\n\nLet's think step by step and use less than 40 tokens:"}
    ]
    assert (server.reason["temperature"], server.reason["max_completion_tokens"]) == (0.7, 900)
    assert [tool["function"]["name"] for tool in server.reason["tools"]] == ["count"]


@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_only_the_question_streams_and_it_asks_for_its_usage(
    server: Recorder, every_way: dict[str, Ask], handler: TALECallbackHandler, way: str
) -> None:
    server.will_answer(
        chat_completion("[[40]]", output=5), chat_completion_chunks(ANSWER, output=12, thinking=0)
    )
    tale = TALERunnable(chat(server.url, stream_usage=True))
    answer = await every_way[way](tale, QUESTION, {"callbacks": [handler]})
    assert answer.text == ANSWER.replace(" ", "")
    assert not server.estimate.get("stream")
    assert server.reason["stream"] is True
    assert server.reason["stream_options"] == {"include_usage": True}
    assert [(call.role, call.usage.output_tokens, call.usage.source) for call in handler.ledger.calls] == [
        ("estimate", 5, "measured"),
        ("reason", 12, "measured"),
    ]
    assert handler.ledger.calls[-1].model == "as-served"
    assert handler.ledger.calls[-1].finish_reason == "stop"


async def test_streaming_or_not_the_server_is_asked_the_same(
    server: Recorder, every_way: dict[str, Ask]
) -> None:
    tale = TALERunnable(chat(server.url, stream_usage=True))
    asked = {}
    for way, ask in every_way.items():
        answer: Any = chat_completion(ANSWER, output=12, thinking=0)
        if "stream" in way:
            answer = chat_completion_chunks(ANSWER, output=12, thinking=0)
        server.will_answer(chat_completion("[[40]]", output=5), answer)
        accounts = (await ask(tale, QUESTION)).response_metadata["tale"]
        bodies = [
            {key: value for key, value in body.items() if key not in {"stream", "stream_options"}}
            for body in server.bodies[-2:]
        ]
        asked[way] = (bodies, accounts)
    assert all(one == asked["invoke"] for one in asked.values())


def test_an_address_is_a_model_whose_name_the_server_tells(
    httpserver: HTTPServer, loopback: str, monkeypatch: pytest.MonkeyPatch, handler: TALECallbackHandler
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    keys = []

    def answer(request: Request) -> Response:
        keys.append(request.headers["Authorization"])
        if request.path == "/v1/models":
            return Response(json.dumps({"object": "list", "data": [{"id": "tiny", "object": "model"}]}))
        body = request.get_json()
        assert body["model"] == "tiny"
        if not body.get("stream"):
            return Response(json.dumps(chat_completion("[[40]]", output=5)), content_type="application/json")
        chunks = chat_completion_chunks(ANSWER, output=12, thinking=0)
        return Response(
            "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks), content_type="text/event-stream"
        )

    for path in ("/v1/models", "/v1/chat/completions"):
        httpserver.expect_request(path).respond_with_handler(answer)
    tale = TALERunnable(httpserver.url_for("/v1"))
    list(tale.stream(QUESTION, {"callbacks": [handler]}))
    assert handler.ledger.totals("reason").output_tokens == 12
    assert len(keys) == 3
    assert not any("sk-secret" in key for key in keys)


def test_an_address_where_nothing_answers_is_an_error_that_shows_it(loopback: str) -> None:
    with pytest.raises(ServerError, match=r"http://127.0.0.1:9/v1 does not answer; check that a server"):
        TALERunnable("http://127.0.0.1:9/v1")


def test_an_address_without_models_is_an_error_that_shows_it(httpserver: HTTPServer, loopback: str) -> None:
    httpserver.expect_request("/api/models").respond_with_data("", status=404)
    with pytest.raises(
        UnknownModelError, match=r"lists no models \(HTTP 404\); check that the address ends in /v1"
    ):
        TALERunnable(httpserver.url_for("/api"))


async def test_the_providers_errors_reach_the_user_as_they_are(
    httpserver: HTTPServer, loopback: str, every_way: dict[str, Ask], handler: TALECallbackHandler
) -> None:
    httpserver.expect_request("/chat/completions").respond_with_json({"error": {"message": "no"}}, status=401)
    tale = TALERunnable(chat(httpserver.url_for("")))
    for way in ("invoke", "ainvoke", "stream", "astream"):
        with pytest.raises(openai.AuthenticationError):
            await every_way[way](tale, QUESTION, {"callbacks": [handler]})
    assert [event.kind.value for event in handler.ledger.events] == ["unparsable"] * 4
    assert handler.ledger.count() == 0


async def test_a_dead_server_is_the_providers_own_error(every_way: dict[str, Ask], loopback: str) -> None:
    tale = TALERunnable(chat("http://127.0.0.1:9/v1"))
    for way in ("invoke", "astream"):
        with pytest.raises(openai.APIConnectionError):
            await every_way[way](tale, QUESTION)
