"""An OpenAI-compatible server for tests: it calls the tools and fills in the schemas that it is given.

It listens on loopback, answers estimators with a budget, and counts tokens in words.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_httpserver import HTTPServer
    from werkzeug.wrappers import Request

BUDGET = 40
ANSWER = "Four dozen are four times twelve eggs which makes forty eight in all"
_ESTIMATING = "Task: Analyze the given question"


class OpenAIServer:
    """Answers chat completions, streamed or whole, and keeps what was sent.

    Args:
        httpserver: The server, on loopback.
    """

    def __init__(self, httpserver: HTTPServer) -> None:
        self.base_url = httpserver.url_for("/v1")
        self.bodies: list[dict[str, Any]] = []
        httpserver.expect_request("/v1/chat/completions", method="POST").respond_with_handler(self._answer)

    @property
    def questions(self) -> list[dict[str, Any]]:
        """The requests that were no estimates."""
        return [body for body in self.bodies if not _estimates(body)]

    def _answer(self, request: Request) -> Response:
        body: dict[str, Any] = request.get_json()
        self.bodies.append(body)
        message = _message(body)
        if body.get("stream"):
            return Response(_events(_chunks(body, message)), content_type="text/event-stream")
        choice = {"index": 0, "message": message, "finish_reason": _reason(message), "logprobs": None}
        reply = {**_head(body, "chat.completion"), "choices": [choice], "usage": _usage(body, message)}
        return Response(json.dumps(reply), content_type="application/json")


def _estimates(body: dict[str, Any]) -> bool:
    return _asked(body).startswith(_ESTIMATING)


def _asked(body: dict[str, Any]) -> str:
    content = body["messages"][-1].get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text", "") for part in content)


def _message(body: dict[str, Any]) -> dict[str, Any]:
    asked = _asked(body)
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    tool = _tool(body)
    if _estimates(body):
        message["content"] = f"Budget: [[{BUDGET}]]"
    elif tool is not None:
        arguments = json.dumps(_filled(tool.get("parameters", {}), asked), ensure_ascii=False)
        call = {
            "id": "call_1",
            "type": "function",
            "function": {"name": tool["name"], "arguments": arguments},
        }
        message["tool_calls"] = [call]
    elif body.get("response_format", {}).get("type") in {"json_schema", "json_object"}:
        described = body["response_format"].get("json_schema", {}).get("schema")
        schema = described or {"properties": {name: {"type": "string"} for name in ("setup", "punchline")}}
        message["content"] = json.dumps(_filled(schema, asked))
    else:
        message["content"] = ANSWER
    return message


def _tool(body: dict[str, Any]) -> dict[str, Any] | None:
    """Return the function to call: the one that is forced, or the one that can be called and was not yet."""
    tools = [tool["function"] for tool in body.get("tools", ())]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        return next(tool for tool in tools if tool["name"] == choice["function"]["name"])
    if not tools or choice == "none" or (choice != "required" and body["messages"][-1]["role"] == "tool"):
        return None
    return tools[0]


def _filled(schema: dict[str, Any], asked: str, definitions: dict[str, Any] | None = None) -> Any:
    """Return data that a schema allows; numbers and quoted names come from what was asked."""
    definitions = schema.get("$defs", definitions or {})
    if "$ref" in schema:
        return _filled(definitions[schema["$ref"].rpartition("/")[2]], asked, definitions)
    if "anyOf" in schema:
        return _filled(schema["anyOf"][0], asked, definitions)
    if "enum" in schema:
        return schema["enum"][0]
    if "properties" in schema or schema.get("type") == "object":
        properties = schema.get("properties", {})
        return {name: _filled(one, asked, definitions) for name, one in properties.items()}
    simple: dict[Any, Any] = {
        "array": lambda: [_filled(schema.get("items", {}), asked, definitions)],
        "integer": lambda: int((re.findall(r"\d+", asked) or ["1"])[0]),
        "boolean": lambda: True,
    }
    words = re.findall(r"'([^']+)'", asked) or ["words"]
    return simple.get(schema.get("type"), lambda: words[0])()


def _reason(message: dict[str, Any]) -> str:
    return "tool_calls" if message.get("tool_calls") else "stop"


def _head(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": body["model"]}


def _usage(body: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    """Count words; the details are there so that it can be seen whether they arrive."""
    prompt = 10 + len(json.dumps(body["messages"]).split())
    written = 10 + len((message["content"] or "").split())
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 1},
        "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 1},
    }


def _chunks(body: dict[str, Any], message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    head = _head(body, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}

    yield chunk({"role": "assistant", "content": "" if message["content"] else None})
    for word in re.findall(r"\S+\s*", message["content"] or ""):
        yield chunk({"content": word})
    for index, call in enumerate(message.get("tool_calls", ())):
        arguments = call["function"]["arguments"]
        half = len(arguments) // 2
        start = {**call["function"], "arguments": arguments[:half]}
        yield chunk({"tool_calls": [{**call, "index": index, "function": start}]})
        yield chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments[half:]}}]})
    yield chunk({}, _reason(message))
    if (body.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": _usage(body, message)}


def _events(chunks: Iterator[dict[str, Any]]) -> Iterator[str]:
    for chunk in chunks:
        yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"
