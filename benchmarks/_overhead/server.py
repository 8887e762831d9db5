"""A server that answers every chat completion alike, after a fixed time."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from _overhead.sides import TASK

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

OUTPUT_TOKENS = 120
_REASONING = "Each hen lays four dozen eggs, and a dozen are twelve. " * 8 + "So the answer is [[48]]."


class FixedDelay(BaseHTTPRequestHandler):
    """Keeps connections open, as model servers do, and answers at the end of its time."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet
    delay = 0.0

    def do_POST(self) -> None:
        """Answer one chat completion."""
        began = time.perf_counter()
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps(_completion(asked)).encode()
        time.sleep(max(0.0, self.delay - (time.perf_counter() - began)))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Takes many connections at the same moment."""

    request_queue_size = 128
    daemon_threads = True


def serve(said: Connection, delay: float) -> None:
    """Serve until the process ends.

    Args:
        said: Told the port.
        delay: Seconds for each answer.
    """
    handler = type("Handler", (FixedDelay,), {"delay": delay})
    with Server(("127.0.0.1", 0), handler) as server:
        said.send(server.server_address[1])
        server.serve_forever()


def _completion(asked: dict[str, Any]) -> dict[str, Any]:
    estimates = asked["messages"][-1]["content"].startswith(TASK)
    message = {"role": "assistant", "content": "Budget: [[120]]" if estimates else _REASONING}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": asked["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 60, "completion_tokens": OUTPUT_TOKENS, "total_tokens": 60 + OUTPUT_TOKENS},
    }
