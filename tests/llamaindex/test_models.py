from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core import MockEmbedding, Settings
from llama_index.core.llms import MockLLM

from tale_core import (
    InvalidValueError,
    MissingExtraError,
    NotAChatModelError,
    ServerError,
    UnknownModelError,
)
from tale_llamaindex import TALEQueryTransform
from tale_llamaindex._setup import Setup, name_of, open_llm

if TYPE_CHECKING:
    from pytest_httpserver import HTTPServer


def test_an_llm_object_is_used_as_it_is() -> None:
    llm = MockLLM()
    assert open_llm(llm) is llm


def test_nothing_means_the_llm_of_settings() -> None:
    Settings.llm = llm = MockLLM()
    assert open_llm(None) is llm


def test_local_is_the_embedded_model_with_usage_in_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    served = SimpleNamespace(base_url="http://127.0.0.1:9/v1", model="small", api_key="of this server")
    monkeypatch.setattr("tale_core.local.serve", lambda *_, **__: served)
    llm: Any = open_llm("local")
    assert llm.metadata.model_name == "small"
    assert llm.metadata.is_chat_model
    assert (llm.api_base, llm.api_key, llm.temperature) == ("http://127.0.0.1:9/v1", "of this server", 0.0)
    assert llm.additional_kwargs == {"stream_options": {"include_usage": True}}


def test_the_llm_that_estimates_may_be_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-key")
    setup = Setup.of(MockLLM(), estimator="openai:gpt-4o-mini")
    assert (name_of(setup.estimator.llm), setup.method.estimator.name) == ("gpt-4o-mini", "zero-shot")
    with pytest.raises(UnknownModelError, match="'banana'"):
        TALEQueryTransform(MockLLM(), estimator="banana")


def test_openai_is_named_with_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-key")
    llm = open_llm("openai:gpt-4o-mini")
    assert type(llm).__name__ == "OpenAI"
    assert llm.metadata.model_name == "gpt-4o-mini"


def test_a_url_is_asked_which_model_it_serves(loopback: str, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/models").respond_with_json({"object": "list", "data": [{"id": "small"}]})
    assert open_llm(httpserver.url_for("/v1")).metadata.model_name == "small"


def test_a_url_may_name_one_of_several_models() -> None:
    assert open_llm("http://127.0.0.1:9/v1#small").metadata.model_name == "small"


def test_a_url_that_serves_nothing_is_named(loopback: str, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/models").respond_with_json({"object": "list", "data": []})
    with pytest.raises(UnknownModelError, match=r"127\.0\.0\.1"):
        open_llm(httpserver.url_for("/v1"))


def test_a_dead_server_is_named_with_its_address(loopback: str) -> None:
    with pytest.raises(ServerError, match=r"http://127\.0\.0\.1:9/v1"):
        open_llm("http://127.0.0.1:9/v1")


def test_openai_without_a_key_says_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InvalidValueError, match="set OPENAI_API_KEY"):
        open_llm("openai:gpt-4o-mini")


@pytest.mark.parametrize("name", ["gpt-4o-mini", "", "ollama:llama3", "openai:", "local:"])
def test_an_unknown_string_says_what_would_do(name: str) -> None:
    with pytest.raises(UnknownModelError, match=f"'{name}'; allowed: local"):
        TALEQueryTransform(name)


def test_an_unknown_openai_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-key")
    with pytest.raises(UnknownModelError, match="'gpt-77'"):
        open_llm("openai:gpt-77")


@pytest.mark.parametrize("thing", [MockEmbedding(8), 3, object()])
def test_an_object_that_is_no_llm_is_refused_with_its_type(thing: object) -> None:
    with pytest.raises(NotAChatModelError, match=f"got {type(thing).__name__}; pass an LLM object"):
        open_llm(thing)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("openai:gpt-4o-mini", "llama_index.llms.openai"),
        ("http://127.0.0.1:9/v1#small", "llama_index.llms.openai_like"),
    ],
)
def test_a_missing_extra_names_its_pip_command(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-key")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tale-reasoning\[llamaindex\]'"):
        open_llm(name)
