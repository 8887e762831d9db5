"""A call ends at its deadline, wherever it hangs; servers on loopback hang on purpose."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tale_core.errors import DeadlineError, InvalidValueError, ServerError
from tale_core.models.client import ChatClient
from tale_core.types import Message, ModelCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CALL = ModelCall(role="reason", messages=(Message(role="user", content="3 + 4?"),))
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
CHUNK = (
    b'data: {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", '
    b'"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": null}]}\n\n'
)


# What a server sends at once, and what it then sends again and again.
SENT = {
    "silent": (b"", b""),
    "drips headers": (b"HTTP/1.1 200 OK\r\ncontent-type: ", b"x"),
    "drips the body": (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n",
        b" ",
    ),
    "drips a stream": (STREAM, CHUNK),
    "asks to come again": (b"HTTP/1.1 503 Busy\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n", None),
    "ends a stream amid the answer": (STREAM + CHUNK, None),
}
HANGS = [how for how in SENT if how != "ends a stream amid the answer"]


@pytest.fixture
def hanging(loopback: str) -> Iterator[Callable[[str], str]]:
    """Start servers that hang in a given way until the test is over."""
    over = threading.Event()
    servers: list[ThreadingHTTPServer] = []

    def start(how: str) -> str:
        first, again = SENT[how]

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                with suppress(OSError):
                    self.wfile.write(first)
                    while again is not None and not over.wait(0.02):
                        self.wfile.write(again)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer((loopback, 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://{loopback}:{server.server_port}/v1"

    yield start
    over.set()
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("how", HANGS)
def test_a_call_ends_at_its_deadline(how: str, hanging: Callable[[str], str]) -> None:
    client = ChatClient(hanging(how), "m", timeout=0.3, max_retries=4)
    with pytest.raises(DeadlineError, match=r"did not answer within 0\.3 seconds; give it more time"):
        client(CALL)
    with pytest.raises(DeadlineError, match=r"did not answer within 0\.3 seconds"):
        list(client.stream(CALL))
    client.close()


@pytest.mark.parametrize("how", HANGS)
async def test_a_call_on_an_event_loop_does_too(how: str, hanging: Callable[[str], str]) -> None:
    with pytest.raises(DeadlineError, match=r"did not answer within 0\.3 seconds"):
        await ChatClient(hanging(how), "m", timeout=0.3, max_retries=4).acall(CALL)


def test_a_call_ends_with_the_run(hanging: Callable[[str], str]) -> None:
    client = ChatClient(hanging("silent"), "m")
    client.ends_at = time.monotonic() + 0.2
    with pytest.raises(DeadlineError):
        client(CALL)
    client.close()


def test_a_stream_that_ends_amid_the_answer_is_no_answer(hanging: Callable[[str], str]) -> None:
    client = ChatClient(hanging("ends a stream amid the answer"), "m")
    with pytest.raises(ServerError, match="closed the stream before the answer ended; ask again"):
        list(client.stream(CALL))
    client.close()


@pytest.mark.parametrize(
    ("address", "cap", "seconds"),
    [
        ("http://127.0.0.1:8000/v1", 1024, 376),
        ("https://llm.example/v1", 1024, 171.2),
        ("https://llm.example/v1", None, 600),
    ],
)
def test_without_a_timeout_a_call_may_take_what_its_limit_needs(
    address: str, cap: int | None, seconds: float
) -> None:
    assert ChatClient(address, "m").seconds(cap) == pytest.approx(seconds)
    assert ChatClient(address, "m", timeout=5).seconds(cap) == 5


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_is_above_zero(timeout: float) -> None:
    with pytest.raises(InvalidValueError, match="a number of seconds above 0, got"):
        ChatClient("http://127.0.0.1:1/v1", "m", timeout=timeout)
