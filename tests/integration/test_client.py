"""ChatClient over real HTTP: what it sends, what it makes of answers, and how it fails."""

from __future__ import annotations

import asyncio
import http
import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from http.server import HTTPServer as PlainServer
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from werkzeug.wrappers import Response

from tale_core.errors import ServerError, UnexpectedReplyError, UnknownModelError
from tale_core.local import LocalServer, ServerSettings
from tale_core.models.client import ChatClient
from tale_core.types import ControlSetting, Message, ModelCall, ModelReply, Usage
from tale_langchain._models import open_model
from tale_llamaindex._setup import open_llm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_httpserver import HTTPServer
    from werkzeug.wrappers import Request


pytestmark = pytest.mark.usefixtures("loopback")

CALL = ModelCall(role="reason", messages=(Message(role="user", content="How much is 3 + 4?"),))
PATH = "/v1/chat/completions"
SLOTS = ServerSettings().parallel


def completion(content: str | None = "7", **changes: Any) -> dict[str, Any]:
    answer = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "served",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17},
    }
    return {**answer, **changes}


def chunks(*pieces: str, finish: str | None = "stop", usage: dict[str, int] | None = None) -> str:
    base = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "served"}
    lines: list[dict[str, Any]] = [
        {**base, "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}
        for piece in pieces
    ]
    lines.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    lines.append(
        {
            **base,
            "choices": [],
            "usage": usage or {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17},
        }
    )
    return "".join(f"data: {json.dumps(line)}\n\n" for line in lines) + "data: [DONE]\n\n"


@pytest.fixture
def client(httpserver: HTTPServer) -> Iterator[ChatClient]:
    client = ChatClient(httpserver.url_for("/v1"), "served", max_retries=0, timeout=60)
    yield client
    client.close()


def sent(httpserver: HTTPServer) -> dict[str, Any]:
    body: dict[str, Any] = httpserver.log[-1][0].get_json()
    return body


def test_an_answer_carries_the_providers_usage_and_finish_reason(
    httpserver: HTTPServer, client: ChatClient
) -> None:
    httpserver.expect_request(PATH).respond_with_json(completion())
    reply = client(CALL)
    assert reply.text == "7"
    assert reply.usage == Usage(input_tokens=12, output_tokens=5)
    assert (reply.finish_reason, reply.model) == ("stop", "served")
    assert reply.seconds is not None
    assert reply.seconds > 0
    assert sent(httpserver) == {
        "model": "served",
        "messages": [{"role": "user", "content": "How much is 3 + 4?"}],
    }


def test_unknown_reasoning_tokens_stay_unknown_and_known_ones_are_kept(
    httpserver: HTTPServer, client: ChatClient
) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 9, "total_tokens": 10}
    details = {"completion_tokens_details": {"reasoning_tokens": 6}}
    httpserver.expect_ordered_request(PATH).respond_with_json(completion(usage=usage))
    httpserver.expect_ordered_request(PATH).respond_with_json(completion(usage={**usage, **details}))
    replies = [client(CALL), client(CALL)]
    assert [reply.usage and reply.usage.reasoning_tokens for reply in replies] == [None, 6]


def test_a_provider_that_reports_no_usage_gives_none(httpserver: HTTPServer, client: ChatClient) -> None:
    httpserver.expect_request(PATH).respond_with_json(completion(usage=None))
    assert client(CALL).usage is None


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("content_filter", "content_filter"),
        ("new_reason", None),
        (None, None),
    ],
)
def test_finish_reasons_have_one_spelling(
    httpserver: HTTPServer, client: ChatClient, theirs: str | None, ours: str | None
) -> None:
    answer = completion()
    answer["choices"][0]["finish_reason"] = theirs
    httpserver.expect_request(PATH).respond_with_json(answer)
    assert client(CALL).finish_reason == ours


def test_thinking_left_in_the_text_is_no_part_of_the_answer(httpserver: HTTPServer, client: ChatClient) -> None:
    httpserver.expect_request(PATH).respond_with_json(completion("<think>3 and 4 make 7</think>\n\n7"))
    assert client(CALL).text == "7"


def test_an_empty_answer_is_an_empty_text(httpserver: HTTPServer, client: ChatClient) -> None:
    httpserver.expect_request(PATH).respond_with_json(completion(None))
    assert client(CALL).text == ""


def test_temperature_cap_and_sample_are_sent_only_when_somebody_named_them(
    httpserver: HTTPServer, client: ChatClient
) -> None:
    httpserver.expect_request(PATH).respond_with_json(completion())
    client(CALL.model_copy(update={"temperature": 0.0, "max_tokens": 64, "sample": 3}))
    named = {key: value for key, value in sent(httpserver).items() if key not in {"model", "messages"}}
    assert named == {"temperature": 0.0, "max_tokens": 64, "seed": 3}
    client(CALL.model_copy(update={"sample": 0}))
    assert "seed" not in sent(httpserver)


def test_the_clients_temperature_serves_calls_that_name_none(httpserver: HTTPServer) -> None:
    client = ChatClient(httpserver.url_for("/v1"), "served", temperature=0.5)
    httpserver.expect_request(PATH).respond_with_json(completion())
    client(CALL)
    assert sent(httpserver)["temperature"] == 0.5
    client(CALL.model_copy(update={"temperature": 0.0}))
    assert sent(httpserver)["temperature"] == 0.0
    client.close()


def test_an_effort_that_carries_the_budget_is_sent(httpserver: HTTPServer, client: ChatClient) -> None:
    httpserver.expect_request(PATH).respond_with_json(completion())
    client(CALL.model_copy(update={"setting": ControlSetting(control="effort", value="low")}))
    assert sent(httpserver)["reasoning_effort"] == "low"


def openai_request(model: str, call: ModelCall) -> dict[str, Any]:
    return ChatClient("https://api.openai.com/v1", model)._request(call)


def test_openai_gets_its_own_name_of_the_cap() -> None:
    request = openai_request("gpt-4o-mini", CALL.model_copy(update={"max_tokens": 64}))
    assert request["max_completion_tokens"] == 64
    assert "max_tokens" not in request


def test_estimating_on_a_model_that_thinks_turns_thinking_down_and_leaves_room_for_it() -> None:
    estimate = CALL.model_copy(update={"role": "estimate", "temperature": 0.0, "max_tokens": 64})
    request = openai_request("o3-mini", estimate)
    assert request["reasoning_effort"] == "low"
    assert request["max_completion_tokens"] > 1000
    assert "temperature" not in request


def test_a_stream_yields_its_pieces_and_then_the_whole_reply(
    httpserver: HTTPServer, client: ChatClient
) -> None:
    httpserver.expect_request(PATH).respond_with_data(chunks("3 + 4", " = 7"), content_type="text/event-stream")
    *pieces, reply = client.stream(CALL)
    assert pieces == ["3 + 4", " = 7"]
    assert isinstance(reply, ModelReply)
    assert (reply.text, reply.finish_reason, reply.model) == ("3 + 4 = 7", "stop", "served")
    assert reply.usage == Usage(input_tokens=12, output_tokens=5)
    assert sent(httpserver)["stream_options"] == {"include_usage": True}


def test_a_stream_without_a_single_chunk_is_no_answer(httpserver: HTTPServer, client: ChatClient) -> None:
    httpserver.expect_request(PATH).respond_with_data("data: [DONE]\n\n", content_type="text/event-stream")
    with pytest.raises(UnexpectedReplyError, match="closed the stream without an answer"):
        list(client.stream(CALL))


class BreaksOff(BaseHTTPRequestHandler):
    """Sends one chunk of a stream and is gone."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        chunk = chunks("3 + 4").partition("\n\n")[0] + "\n\n"
        self.wfile.write(f"{len(chunk):x}\r\n{chunk}\r\n".encode())

    def log_message(self, *_: object) -> None:
        pass


def test_a_stream_that_breaks_off_names_the_server(loopback: str) -> None:
    with PlainServer((loopback, 0), BreaksOff) as server:
        threading.Thread(target=server.handle_request).start()
        client = ChatClient(f"http://{loopback}:{server.server_port}/v1", "served", max_retries=0)
        stream = client.stream(CALL)
        assert next(stream) == "3 + 4"
        with pytest.raises(ServerError, match=r"http://127\.0\.0\.1:\d+/v1 does not answer"):
            next(stream)


async def test_an_asynchronous_call_sends_and_gives_the_same(
    httpserver: HTTPServer, client: ChatClient
) -> None:
    httpserver.expect_request(PATH).respond_with_json(completion())
    reply = await client.acall(CALL)
    asynchronous = sent(httpserver)
    assert reply.model_copy(update={"seconds": None}) == client(CALL).model_copy(update={"seconds": None})
    assert sent(httpserver) == asynchronous


def test_one_client_serves_several_event_loops(httpserver: HTTPServer, client: ChatClient) -> None:
    httpserver.expect_request(PATH).respond_with_json(completion())
    texts = [asyncio.run(client.acall(CALL)).text for _ in range(3)]
    assert texts == ["7", "7", "7"]


def test_many_threads_share_one_client(httpserver: HTTPServer, client: ChatClient) -> None:
    def echo(request: Request) -> Response:
        question = request.get_json()["messages"][0]["content"]
        return Response(json.dumps(completion(question)), content_type="application/json")

    httpserver.expect_request(PATH).respond_with_handler(echo)
    calls = [
        CALL.model_copy(update={"messages": (Message(role="user", content=str(number)),)})
        for number in range(100)
    ]
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(client, calls))
    assert [reply.text for reply in replies] == [str(number) for number in range(100)]


def test_a_dead_server_is_named_with_the_next_step() -> None:
    client = ChatClient("http://user:secret@127.0.0.1:1/v1", "served", max_retries=0)
    with pytest.raises(ServerError, match=r"http://127\.0\.0\.1:1/v1 does not answer; check that") as error:
        client(CALL)
    assert "secret" not in str(error.value)
    with pytest.raises(ServerError):
        list(client.stream(CALL))
    with pytest.raises(ServerError):
        asyncio.run(client.acall(CALL))


def test_a_server_that_takes_too_long_is_named_with_the_limit(httpserver: HTTPServer) -> None:
    release = threading.Event()

    def wait(_: Request) -> Response:
        release.wait(60)
        return Response(json.dumps(completion()), content_type="application/json")

    httpserver.expect_request(PATH).respond_with_handler(wait)
    client = ChatClient(httpserver.url_for("/v1"), "served", max_retries=0, timeout=0.2)
    with pytest.raises(ServerError, match=r"did not answer within 0\.2 seconds; give it more time"):
        client(CALL)
    release.set()


def test_a_server_error_is_tried_again_by_the_sdk(httpserver: HTTPServer) -> None:
    httpserver.expect_ordered_request(PATH).respond_with_data(
        "busy", status=503, headers={"retry-after-ms": "1"}
    )
    httpserver.expect_ordered_request(PATH).respond_with_json(completion())
    assert ChatClient(httpserver.url_for("/v1"), "served", max_retries=1)(CALL).text == "7"


def test_what_the_models_server_reports_reaches_the_caller_unchanged(
    httpserver: HTTPServer, client: ChatClient
) -> None:
    httpserver.expect_request(PATH).respond_with_json({"error": {"message": "no such model"}}, status=404)
    with pytest.raises(openai.NotFoundError, match="no such model"):
        client(CALL)


def test_an_answer_without_a_choice_is_no_answer(httpserver: HTTPServer, client: ChatClient) -> None:
    httpserver.expect_request(PATH).respond_with_json(completion(choices=[]))
    with pytest.raises(UnexpectedReplyError, match="without a choice; check that it is an OpenAI-compatible"):
        client(CALL)


def test_a_page_that_is_no_api_is_no_answer(httpserver: HTTPServer, client: ChatClient) -> None:
    httpserver.expect_request(PATH).respond_with_data("<html>hello</html>", content_type="text/html")
    with pytest.raises(UnexpectedReplyError):
        client(CALL)


def models(*names: str) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": name, "object": "model", "created": 1} for name in names]}


def test_the_only_model_of_a_server_needs_no_name(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/models").respond_with_json(models("one"))
    client = ChatClient.open(httpserver.url_for(""))
    assert client.model == "one"
    assert repr(client) == f"<ChatClient one at {httpserver.url_for('/v1')}>"


def opened_by(framework: str, url: str) -> Any:
    opener = {"core": ChatClient.open, "langchain": open_model, "llamaindex": open_llm}[framework]
    return opener(url)


@pytest.mark.parametrize("framework", ["core", "langchain", "llamaindex"])
def test_a_server_is_asked_once_for_its_only_model(framework: str, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/models").respond_with_data("", status=503)
    with pytest.raises(UnknownModelError, match="HTTP 503"):
        opened_by(framework, httpserver.url_for("/v1"))
    assert len(httpserver.log) == 1


@pytest.mark.parametrize("framework", ["core", "langchain", "llamaindex"])
def test_a_server_has_ten_seconds_to_list_its_models(
    framework: str, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    send, asend = httpx.Client.send, httpx.AsyncClient.send

    def recorded(self: httpx.Client, request: httpx.Request, **kwargs: Any) -> httpx.Response:
        seen.append(request.extensions["timeout"])
        return send(self, request, **kwargs)

    async def arecorded(self: httpx.AsyncClient, request: httpx.Request, **kwargs: Any) -> httpx.Response:
        seen.append(request.extensions["timeout"])
        return await asend(self, request, **kwargs)

    monkeypatch.setattr(httpx.Client, "send", recorded)
    monkeypatch.setattr(httpx.AsyncClient, "send", arecorded)
    httpserver.expect_request("/v1/models").respond_with_json({"data": [{"id": "one"}]})
    opened_by(framework, httpserver.url_for("/v1"))
    assert [{*timeout.values()} for timeout in seen] == [{10.0}]


@pytest.mark.parametrize(("names", "said"), [(("a", "b"), "has the models a, b"), ((), "lists no model")])
def test_a_server_with_several_models_asks_for_a_name(
    httpserver: HTTPServer, names: tuple[str, ...], said: str
) -> None:
    httpserver.expect_request("/v1/models").respond_with_json(models(*names))
    with pytest.raises(UnknownModelError, match=f"{said}; name one after a '#': .*/v1#NAME"):
        ChatClient.open(httpserver.url_for("/v1"))


@pytest.mark.parametrize("status", [401, 404])
def test_a_server_that_lists_no_models_is_named_with_the_next_step(httpserver: HTTPServer, status: int) -> None:
    httpserver.expect_request("/v1/models").respond_with_data("", status=status)
    with pytest.raises(
        UnknownModelError, match=rf"/v1 lists no models \(HTTP {status}\); .*TALE_API_KEY.*#NAME"
    ):
        ChatClient.open(httpserver.url_for("/v1"))


def test_a_servers_key_comes_from_its_own_variable_and_openais_is_not_sent(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    monkeypatch.setenv("TALE_API_KEY", "key-of-this-server")
    httpserver.expect_request(PATH).respond_with_json(completion())
    client = ChatClient.open(httpserver.url_for("/v1#one"))
    client(CALL)
    assert httpserver.log[-1][0].headers["Authorization"] == "Bearer key-of-this-server"
    assert "key-of-this-server" not in repr(client)


def test_a_proxy_is_not_asked_for_a_server_on_this_machine(
    httpserver: HTTPServer, client: ChatClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    httpserver.expect_request(PATH).respond_with_json(completion())
    assert client(CALL).text == "7"
    assert asyncio.run(client.acall(CALL)).text == "7"


@pytest.fixture
def small_client(small_model: LocalServer) -> Iterator[ChatClient]:
    client = ChatClient.open(f"local:{small_model.model}")
    yield client
    client.close()


SHORT = CALL.model_copy(update={"max_tokens": 24})


@pytest.mark.model
def test_the_embedded_model_is_asked_greedily_and_reports_its_name(small_client: ChatClient) -> None:
    first, second = small_client(SHORT), small_client(SHORT)
    assert first.text == second.text
    assert first.model == small_client.model == "smollm2-135m-instruct-q4_1"
    assert first.finish_reason == "length"


@pytest.mark.model
def test_samples_of_one_question_differ_at_a_temperature_and_agree_without(small_client: ChatClient) -> None:
    def texts(temperature: float) -> set[str]:
        changes = [{"temperature": temperature, "sample": sample} for sample in range(4)]
        return {small_client(SHORT.model_copy(update=change)).text for change in changes}

    assert len(texts(1.5)) >= 3, "the first one is not seeded, and might repeat another by chance"
    assert len(texts(0.0)) == 1


@pytest.mark.model
def test_streaming_and_not_streaming_give_the_same_text_and_usage(small_client: ChatClient) -> None:
    plain = small_client(SHORT)
    *pieces, reply = small_client.stream(SHORT)
    assert isinstance(reply, ModelReply)
    assert "".join(map(str, pieces)).strip() == reply.text == plain.text
    assert reply.usage == plain.usage
    assert reply.usage is not None
    assert reply.usage.output_tokens == 24
    assert reply.finish_reason == plain.finish_reason


@pytest.mark.model
def test_a_stream_that_is_left_frees_the_server(small_client: ChatClient) -> None:
    def begun(tokens: int) -> Any:
        stream = small_client.stream(CALL.model_copy(update={"max_tokens": tokens}))
        next(stream)
        return stream

    for stream in [begun(3000) for _ in range(SLOTS - 1)]:
        stream.close()
    kept, enough = begun(300), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: all(not enough.is_set() for _ in kept))
        # Abandoned answers, beside the one that is read, would keep all slots busy until that one has ended.
        small_client(SHORT)
        ended = reading.done()
        enough.set()
    kept.close()
    assert not ended


@pytest.mark.model
def test_an_embedded_server_that_ended_is_opened_again(
    small_model: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalServer(small_model.weights, ServerSettings(context=512)) as server:
        monkeypatch.setattr("tale_core.local.serve", lambda *_, **__: server)
        client = ChatClient.open("local", max_retries=0)
    with pytest.raises(ServerError, match="the embedded server has ended: open the model again"):
        client(SHORT)


@pytest.mark.model
def test_many_open_streams_do_not_shut_others_out(small_model: LocalServer, small_client: ChatClient) -> None:
    answering, enough = threading.Semaphore(0), threading.Event()

    def read_on() -> None:
        for _ in small_client.stream(CALL.model_copy(update={"max_tokens": 600})):
            answering.release()
            if enough.is_set():
                return

    with ThreadPoolExecutor(12) as pool:
        reading = [pool.submit(read_on) for _ in range(12)]
        # A few are answered at a time; all the others hold their connections.
        assert answering.acquire(timeout=240)
        connection = http.client.HTTPConnection("127.0.0.1", small_model.port, timeout=240)
        try:
            key = {"Authorization": f"Bearer {small_model.api_key}"}
            connection.request("GET", "/v1/models", headers=key)
            assert connection.getresponse().status == http.HTTPStatus.OK
            assert not any(one.done() for one in reading), "no stream had to end first"
        finally:
            enough.set()
            connection.close()


@pytest.mark.model
def test_many_threads_ask_the_embedded_model_at_once(small_client: ChatClient) -> None:
    call = CALL.model_copy(update={"max_tokens": 4})
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(small_client, [call] * 32))
    assert {reply.usage and reply.usage.output_tokens for reply in replies} == {4}


@pytest.mark.model
async def test_many_tasks_ask_the_embedded_model_at_once(small_client: ChatClient) -> None:
    call = CALL.model_copy(update={"max_tokens": 4})
    replies = await asyncio.gather(*(small_client.acall(call) for _ in range(32)))
    assert {reply.usage and reply.usage.output_tokens for reply in replies} == {4}
