"""An OpenAI-compatible server on loopback that takes its time: it adds one to the number it is asked about."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WRONG = 13
"""The number that this server does not add to: it answers with an error."""


class SlowServer:
    """Answers each request after a while, any number at a time, and keeps what was asked.

    Args:
        seconds: How long an answer takes.
        together: How many requests must be there before they are answered; an error if they never are.
        holds_after: After how many answers it keeps the others waiting, until `go_on` is set.
    """

    def __init__(self, seconds: float = 0.0, *, together: int = 1, holds_after: int | None = None) -> None:
        self.seconds = seconds
        self.asked: list[str] = []
        self.answered = 0
        self.under_way = 0
        self.most_under_way = 0
        self.go_on = threading.Event()
        self._holds_after = holds_after
        self._together = threading.Barrier(together, timeout=60)
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, reply = server.answer(body)
                content = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._http.server_port}/v1"
        self.model = f"{self.address}#adder"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        prompt = body["messages"][-1]["content"]
        with self._lock:
            held = self._holds_after is not None and len(self.asked) >= self._holds_after
            self.asked.append(prompt)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        if held:
            self.go_on.wait()
        self._together.wait()
        time.sleep(self.seconds)
        with self._lock:
            self.under_way -= 1
            self.answered += 1
        number = int(prompt.split()[0])
        if number == WRONG:
            return 400, {"error": {"message": "thirteen is unlucky", "type": "invalid_request_error"}}
        words = prompt.split("less than ")
        tokens = int(words[1].split()[0]) if len(words) > 1 else 64
        message = {"role": "assistant", "content": f"Answer: {number + 1}"}
        usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": tokens + 9}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return 200, {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [choice],
            "usage": usage,
        }
