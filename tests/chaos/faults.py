"""An OpenAI-compatible server on loopback that knows the right answers and has bad days of 37 kinds.

Whether a call meets the fault follows from what it asks, so that a run can be repeated: one call in five does.
Of those, half meet it once, and half whenever they come until `healthy` is set.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SHARE = 0.2
"""Share of the calls that meet the fault."""
PAUSE = 1.5
"""Seconds that the slow faults take."""
NOISE = "upstream error 5"
"""What a failing server writes where an answer should be; no right answer is 5."""

_STATUS = {"http-400": 400, "http-429": 429, "http-500": 500, "http-503": 503}
_USAGES: dict[str, Any] = {
    "usage-missing": None,
    "usage-zero": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    "usage-huge": {"prompt_tokens": 10**30, "completion_tokens": 10**30, "total_tokens": 2 * 10**30},
    "usage-negative": {"prompt_tokens": -9, "completion_tokens": -9, "total_tokens": -18},
    "usage-strings": {"prompt_tokens": "nine", "completion_tokens": "nine", "total_tokens": "eighteen"},
    "usage-nan": {"prompt_tokens": float("nan"), "completion_tokens": float("nan"), "total_tokens": 1},
}
_CONTENTS: dict[str, Callable[[str], str | None]] = {
    "content-null": lambda _: None,
    "content-empty": lambda _: "",
    "content-huge": lambda right: "so " * 100_000 + right,
    "content-control": lambda right: f"\x1b]52;c;AAAA\x07\x00\x9b2J{right}",
    "content-surrogate": lambda right: f"\ud800 {right}",
}
_FINISHES = {
    "finish-error": "error",
    "finish-length": "length",
    "finish-unknown": "banana",
    "finish-null": None,
}
_BODIES = ("truncated-json", "html-page", "bom", "wrong-content-type", "stream-unasked", "kept-alive-closed")
_SHAPES = ("choices-empty", "error-in-200", "wrong-model")
_CONNECTIONS = ("reset-before", "reset-after", "cut-body", "timeout", "slow-loris", "redirect")
_STREAMS = ("stream-no-end", "stream-cut", "stream-doubled")

MODES = (*_STATUS, *_USAGES, *_CONTENTS, *_FINISHES, *_BODIES, *_SHAPES, *_CONNECTIONS, *_STREAMS)
"""The names of the 37 faults; those that begin with ``stream`` are at their worst where an answer streams."""


class ChaosServer:
    """Answers sums rightly, but for the calls that meet the fault.

    Args:
        mode: One of `MODES`, or None for a server that is well.
        seconds: How long an answer takes.
        share: The share of the calls that meet the fault.
    """

    def __init__(self, mode: str | None = None, *, seconds: float = 0.0, share: float = SHARE) -> None:
        self.mode = mode
        self.healthy = mode is None
        self.seconds = seconds
        self.share = share
        self.served: Counter[str] = Counter()
        """Right answers handed out, by what was asked."""
        self.faults = 0
        self._met: Counter[str] = Counter()
        self._change = threading.Condition()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self.reply(json.dumps({"object": "list", "data": [{"id": "sums", "object": "model"}]}))

            def do_POST(self) -> None:
                with suppress(OSError):  # a killed client is not there any more
                    body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                    server._answer(self, body)

            def reply(self, text: str, *, status: int = 200, kind: str = "application/json") -> None:
                self.begin(len(text.encode()), status=status, kind=kind)
                self.wfile.write(text.encode())

            def begin(
                self, length: int | None, *, status: int = 200, kind: str = "application/json", **more: str
            ) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                if length is None:
                    self.close_connection = True
                    self.send_header("connection", "close")
                else:
                    self.send_header("content-length", str(length))
                for name, value in more.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()

            def reset(self) -> None:
                """Close so that the other side sees a reset and no end."""
                self.close_connection = True
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: object) -> None:
                """Connections that end early are what this is about."""

        self._http = Quiet(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        self.address = f"http://127.0.0.1:{self._http.server_port}/v1"
        self.model = f"{self.address}#sums"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def answered(self) -> int:
        """How many right answers were handed out."""
        return sum(self.served.values())

    @property
    def repeats(self) -> int:
        """How many of them had been handed out before."""
        return self.answered - len(self.served)

    def wait_for(self, answered: int, ended: Callable[[], bool]) -> bool:
        """Wait for so many right answers; False when it all ended before."""
        with self._change:
            while self.answered < answered:
                if ended():
                    return False
                self._change.wait(0.02)
        return True

    def _meets(self, asked: str) -> bool:
        if self.healthy:
            return False
        digest = hashlib.sha256(f"{self.mode} {asked}".encode()).digest()
        if digest[0] >= self.share * 256:
            return False
        with self._change:
            self._met[asked] += 1
            if digest[1] % 2 and self._met[asked] > 1:
                return False
            self.faults += 1
        return True

    def _answer(self, handler: Any, body: dict[str, Any]) -> None:
        asked = json.dumps(body, sort_keys=True)
        time.sleep(self.seconds)
        right, tokens = answer(body)
        reply = completion(body, right, tokens)
        if self._meets(asked):
            self._fault(handler, body, reply)
            return
        with self._change:
            self.served[asked] += 1
            self._change.notify_all()
        if body.get("stream"):
            handler.begin(None, kind="text/event-stream")
            handler.wfile.write("".join(events(reply)).encode())
        else:
            handler.reply(json.dumps(reply))

    def _fault(self, handler: Any, body: dict[str, Any], reply: dict[str, Any]) -> None:
        mode = self.mode
        assert mode is not None
        if mode in _STATUS:
            text = json.dumps({"error": {"message": NOISE, "type": "server_error"}})
            handler.begin(len(text), status=_STATUS[mode], retry_after="0")
            handler.wfile.write(text.encode())
            return
        if mode in _CONNECTIONS:
            _connection(mode, handler, json.dumps(reply))
            return
        if mode in _STREAMS:
            _stream(mode, handler, reply, streams=bool(body.get("stream")))
            return
        reply = _misshapen(mode, reply)
        text, kind = _garbled(mode, json.dumps(reply))
        if mode == "stream-unasked" or (body.get("stream") and text.startswith('{"id"') and reply["choices"]):
            text, kind = "".join(events(reply)), "text/event-stream"
        handler.reply(text, kind=kind)
        if mode == "kept-alive-closed":  # nothing said that this was the last one on the connection
            handler.close_connection = True


def _misshapen(mode: str, reply: dict[str, Any]) -> dict[str, Any]:
    """Return a reply that says something else than it should."""
    choice = reply["choices"][0]
    if mode in _USAGES:
        return {**reply, "usage": _USAGES[mode]}
    if mode in _CONTENTS:
        choice["message"]["content"] = _CONTENTS[mode](choice["message"]["content"])
    if mode in _FINISHES:
        choice["finish_reason"] = _FINISHES[mode]
    if mode == "finish-error":
        choice["message"]["content"] = NOISE
    shapes: dict[str, dict[str, Any]] = {
        "choices-empty": {**reply, "choices": []},
        "error-in-200": {"error": {"message": NOISE, "code": 502}},
        "wrong-model": {**reply, "model": "another"},
    }
    return shapes.get(mode, reply)


def _garbled(mode: str, text: str) -> tuple[str, str]:
    """Return the text and the content type of a body."""
    bodies = {
        "truncated-json": (text[: len(text) // 2], "application/json"),
        "html-page": (f"<html><body><h1>{NOISE}</h1></body></html>", "text/html"),
        "bom": ("\ufeff" + text, "application/json"),
        "wrong-content-type": (text, "text/plain"),
    }
    return bodies.get(mode, (text, "application/json"))


def answer(body: dict[str, Any]) -> tuple[str, int]:
    """Return the right answer to a call and its tokens; under a budget that is too small it is a wrong one."""
    content = body["messages"][-1]["content"]
    text = content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)
    sums = re.findall(r"(\d+) \+ (\d+)", text)
    first, second = map(int, sums[-1]) if sums else (1, 1)
    if "Analyze the given question" in text:
        return f"Budget: [[{30 + first}]]", 6
    named = re.findall(r"(?:less than|within|about|at most) (\d+) (?:output )?tokens", text)
    budget = int(named[-1]) if named else None
    enough = 8 + first
    if budget is not None and budget < enough:
        return f"Answer: {first + second + 1}", enough + 30
    return f"Adding them up.\nAnswer: {first + second}", min(budget or 90, 90)


def completion(body: dict[str, Any], text: str, tokens: int) -> dict[str, Any]:
    """Return a whole reply."""
    usage = {"prompt_tokens": 20, "completion_tokens": tokens, "total_tokens": tokens + 20}
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    head = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
    return {**head, "choices": [choice], "usage": usage}


def events(reply: dict[str, Any]) -> list[str]:
    """Return the same reply as the events of a stream."""
    head = {**reply, "object": "chat.completion.chunk", "choices": [], "usage": None}
    choice = reply["choices"][0]
    deltas: list[tuple[dict[str, Any], Any]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": word}, None) for word in re.findall(r"\S+\s*", choice["message"]["content"] or "")]
    deltas.append(({}, choice["finish_reason"]))
    chunks = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas
    ]
    chunks.append({**head, "usage": reply["usage"]})
    return [*(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks), "data: [DONE]\n\n"]


def _connection(mode: str, handler: Any, text: str) -> None:
    handler.close_connection = True
    if mode == "reset-before":
        handler.reset()
    elif mode == "reset-after":
        handler.begin(len(text))
        handler.reset()
    elif mode == "cut-body":
        handler.begin(len(text))
        handler.wfile.write(text[: len(text) // 2].encode())
    elif mode == "timeout":
        time.sleep(PAUSE)
    elif mode == "slow-loris":
        handler.begin(len(text))
        for at in range(0, len(text), 40):
            handler.wfile.write(text[at : at + 40].encode())
            time.sleep(PAUSE * 40 / len(text))
    elif mode == "redirect":
        handler.begin(0, status=302, location="/v1/models")


def _stream(mode: str, handler: Any, reply: dict[str, Any], *, streams: bool) -> None:
    """Fail in the middle of a stream; a plain call is answered by a stream's first part."""
    told = events(reply)
    half = len(told) // 2
    handler.begin(None, kind="text/event-stream" if streams else "application/json")
    if mode == "stream-no-end":
        told = told[:half]
    elif mode == "stream-cut":
        told = [*told[:half], told[half][: len(told[half]) // 2]]
    else:  # the usage comes twice, and so does the end
        told = [*told[:-2], *told[-2:], *told[-2:]]
    handler.wfile.write("".join(told).encode())
