"""A server that records what providers' packages send to it, and answers as the providers do."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_httpserver import HTTPServer
    from werkzeug.wrappers import Request


class Recorder:
    """Answers requests in order and keeps their JSON bodies and paths.

    Args:
        httpserver: The server, on loopback.
    """

    def __init__(self, httpserver: HTTPServer) -> None:
        self.url = httpserver.url_for("").rstrip("/")
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self._replies: list[dict[str, Any] | list[dict[str, Any]]] = []
        httpserver.expect_request(re.compile(".*")).respond_with_handler(self._answer)

    def will_answer(self, *replies: dict[str, Any] | list[dict[str, Any]]) -> None:
        """Queue replies; a list is sent as a stream of server-sent events."""
        self._replies += replies

    @property
    def estimate(self) -> dict[str, Any]:
        """The body of the first request, the estimator's."""
        return self.bodies[0]

    @property
    def reason(self) -> dict[str, Any]:
        """The body of the last request, the question's."""
        return self.bodies[-1]

    def _answer(self, request: Request) -> Response:
        self.bodies.append(request.get_json())
        self.paths.append(request.path)
        reply = self._replies.pop(0)
        if isinstance(reply, list):
            return Response(_events(reply), content_type="text/event-stream")
        return Response(json.dumps(reply), content_type="application/json")


def _events(chunks: Iterable[dict[str, Any]]) -> Iterable[str]:
    for chunk in chunks:
        name = f"event: {chunk['type']}\n" if "type" in chunk else ""
        yield f"{name}data: {json.dumps(chunk)}\n\n"


def chat_completion(
    text: str, *, output: int, thinking: int | None = None, prompt: int = 30, cached: int = 0, tools: Any = None
) -> dict[str, Any]:
    """Return a reply of OpenAI's chat completions; ``thinking`` is part of ``output``."""
    message = {"role": "assistant", "content": text, "tool_calls": tools}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "as-served",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if tools else "stop"}],
        "usage": _openai_usage(output, thinking, prompt, cached),
    }


def chat_completion_chunks(text: str, *, output: int, thinking: int, prompt: int = 30) -> list[dict[str, Any]]:
    """Return the same as a stream with ``include_usage``."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "as-served"}
    words = [
        {"delta": {"role": "assistant", "content": word}, "finish_reason": None} for word in text.split(" ")
    ]
    choices = [*words, {"delta": {}, "finish_reason": "stop"}]
    usage = _openai_usage(output, thinking, prompt, 0)
    return [
        *({**head, "choices": [{"index": 0, **choice}]} for choice in choices),
        {**head, "choices": [], "usage": usage},
    ]


def _openai_usage(output: int, thinking: int | None, prompt: int, cached: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": cached},
        **({} if thinking is None else {"completion_tokens_details": {"reasoning_tokens": thinking}}),
    }


def openai_response(text: str, *, output: int, thinking: int, prompt: int = 30) -> dict[str, Any]:
    """Return a reply of OpenAI's Responses API."""
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "as-served",
        "status": "completed",
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "output": [
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content},
        ],
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": thinking},
            "total_tokens": prompt + output,
        },
    }


def claude_message(
    text: str, *, output: int, thinking: int | None = None, prompt: int = 20, read: int = 0, written: int = 0
) -> dict[str, Any]:
    """Return a reply of Anthropic's Messages API, which counts cached input apart."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "as-served",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": prompt,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written,
            "output_tokens": output,
            **({} if thinking is None else {"output_tokens_details": {"thinking_tokens": thinking}}),
        },
    }


def claude_events(text: str, *, output: int, thinking: int, prompt: int = 20) -> list[dict[str, Any]]:
    """Return such a reply as a stream, whose last usage counts everything written so far."""
    start = {**claude_message("", output=1, prompt=prompt), "content": [], "stop_reason": None}
    usage = {"output_tokens": output, "output_tokens_details": {"thinking_tokens": thinking}}
    return [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]


def gemini_content(text: str, *, answer: int, thinking: int | None = None, prompt: int = 25) -> dict[str, Any]:
    """Return a reply of Gemini's generateContent, which counts thinking apart from the answer."""
    return {
        "candidates": [
            {"index": 0, "content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}
        ],
        "usageMetadata": {
            "promptTokenCount": prompt,
            "candidatesTokenCount": answer,
            "totalTokenCount": prompt + answer + (thinking or 0),
            **({} if thinking is None else {"thoughtsTokenCount": thinking}),
        },
        "modelVersion": "as-served",
    }
