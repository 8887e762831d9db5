"""LangChain's own test suites for chat models, the whole of them, on ChatTALE over a server on loopback."""

from __future__ import annotations

from functools import reduce
from operator import add
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from openai_server import OpenAIServer

from tale_langchain import ChatTALE

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage
    from pytest_httpserver import HTTPServer

# The smallest picture there is: a server on loopback does not look at it.
PIXEL = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010806000000")


class ChatTALEOverOpenAI(ChatTALE):
    """The suites build a model from a provider's settings: they go to the model inside."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(ChatOpenAI(**settings))

    @property
    def openai_api_key(self) -> Any:
        return self.model.openai_api_key

    @property
    def openai_api_base(self) -> Any:
        return self.model.openai_api_base


class OverOpenAI:
    """What both suites are told."""

    @property
    def chat_model_class(self) -> type[ChatTALE]:
        return ChatTALEOverOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "gpt-4o-mini", "api_key": "test"}


class TestUnits(OverOpenAI, ChatModelUnitTests):
    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        # The key stands in `chat_model_params`, which every test passes.
        return {name: value for name, value in super().standard_chat_model_params.items() if name != "api_key"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return (
            {"OPENAI_API_KEY": "from-env", "OPENAI_API_BASE": "http://127.0.0.1:9/v1"},
            {"model": "gpt-4o-mini"},
            {"openai_api_key": "from-env", "openai_api_base": "http://127.0.0.1:9/v1"},
        )


# What the suite sends and langchain-openai's parsing make warnings of their own: no name for a PDF, a schema of
# pydantic 1, no user agent for Wikimedia, a parsed chunk of a stream.
@pytest.mark.filterwarnings("ignore::UserWarning")
class TestOverLoopback(OverOpenAI, ChatModelIntegrationTests):
    server: OpenAIServer

    @pytest.fixture(autouse=True)
    def _served(self, loopback: str, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = OpenAIServer(httpserver)
        # The suite fetches its pictures and sounds from the internet.
        fetched = SimpleNamespace(content=PIXEL)
        monkeypatch.setattr("langchain_tests.integration_tests.chat_models.httpx.get", lambda *_, **__: fetched)

    @pytest.fixture
    def vcr(self) -> SimpleNamespace:
        # The suite times streams from a recording; the server on loopback takes its place.
        return SimpleNamespace(responses=["from the server"])

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**super().chat_model_params, "base_url": self.server.base_url, "stream_usage": True}

    @property
    def model_override_value(self) -> str:
        return "gpt-4o"

    @property
    def supported_usage_metadata_details(self) -> dict[str, list[str]]:
        details = ["audio_input", "audio_output", "reasoning_output", "cache_read_input"]
        return {"invoke": details, "stream": details}

    @property
    def enable_vcr_tests(self) -> bool:
        return True

    supports_json_mode = supports_image_inputs = supports_image_urls = supports_image_tool_message = True
    supports_pdf_inputs = supports_pdf_tool_message = supports_audio_inputs = supports_anthropic_inputs = True

    def invoke_with_audio_input(self, *, stream: bool = False) -> AIMessage:
        model = self.chat_model_class(**self.chat_model_params)
        return reduce(add, model.stream("Hello")) if stream else model.invoke("Hello")

    # The server reports every detail on every answer.
    invoke_with_audio_output = invoke_with_audio_input
    invoke_with_reasoning_output = invoke_with_audio_input
    invoke_with_cache_read_input = invoke_with_audio_input

    def test_the_model_inside_was_asked_under_a_budget(self, model: ChatTALE) -> None:
        model.invoke("How many eggs are in four dozen?")
        estimate, question = self.server.bodies
        assert "less than 40 tokens" not in str(estimate)
        assert question["messages"][-1]["content"].endswith("use less than 40 tokens:")
