"""Model strings lead where they say, or the error lists the forms that are allowed."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale_core.errors import InvalidValueError, UnknownModelError
from tale_core.models.model_strings import ModelString, resolve_model

if TYPE_CHECKING:
    from tale_core.local.catalogue import WeightsFile


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "TALE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "kind", "name", "address"),
    [
        ("local", "local", None, None),
        ("local:smollm2-135m-instruct-q4_1", "local", "smollm2-135m-instruct-q4_1", None),
        ("openai:gpt-4o-mini", "openai", "gpt-4o-mini", "https://api.openai.com/v1"),
        ("http://localhost:8000/v1", "server", None, "http://localhost:8000/v1"),
        ("http://localhost:8000", "server", None, "http://localhost:8000/v1"),
        ("http://localhost:8000/v1/#meta/llama-3", "server", "meta/llama-3", "http://localhost:8000/v1"),
        ("https://example.org/api/openai#m", "server", "m", "https://example.org/api/openai"),
        (" local ", "local", None, None),
    ],
)
def test_a_model_string_is_read(text: str, kind: str, name: str | None, address: str | None) -> None:
    assert ModelString.read(text).model_dump() == {"kind": kind, "name": name, "address": address}


@pytest.mark.parametrize(
    "text",
    [
        *("", "gpt-4o-mini", "local:", "openai:", "openai", "anthropic:claude", "http://", "ftp://host/v1"),
        *("http://[", "http://host:abc/v1", "http://host:99999/v1", "http://[::1/v1"),
    ],
)
def test_any_other_string_is_shown_with_the_allowed_forms(text: str) -> None:
    with pytest.raises(
        UnknownModelError,
        match=rf"for '{re.escape(text)}'(: .*)?; allowed: local, local:NAME, openai:NAME, http",
    ):
        ModelString.read(text)


@given(st.text() | st.text(st.sampled_from("htps:/locan@[]#.?01%\\ ")).map("http://{}".format))
def test_every_string_names_a_model_or_is_refused_with_the_forms(text: str) -> None:
    with suppress(UnknownModelError):
        found = ModelString.read(text)
        assert (found.address is None) == (found.kind == "local")


def test_openai_without_a_key_says_which_variable_holds_it() -> None:
    with pytest.raises(InvalidValueError, match=r"'openai:gpt-4o-mini' needs a key: set OPENAI_API_KEY, or"):
        resolve_model("openai:gpt-4o-mini")


def test_a_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    found = resolve_model("openai:gpt-4o-mini")
    assert found.api_key == "sk-secret"
    assert "secret" not in repr(found) + found.model_dump_json()


def test_openais_address_can_be_changed_by_its_usual_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example/v1/")
    assert ModelString.read("openai:gpt-4o-mini").address == "https://gateway.example/v1"


@pytest.mark.parametrize("path", ["weights.gguf"])
def test_weights_are_for_the_local_model_only(path: WeightsFile) -> None:
    with pytest.raises(InvalidValueError, match="for the model 'local' only, got 'http://localhost/v1'"):
        resolve_model("http://localhost/v1", model_path=path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://[", "for 'http://[': Invalid IPv6 URL; allowed: local"),
        (":abc", "for ':abc'; allowed: local"),
        ("http://host:abc/v1", "for 'http://host:abc/v1': Port could not be cast"),
        ("http://host:99999", "Port out of range"),
        ("http://me:hush@[?key=hush", "for 'http://[': "),
    ],
)
def test_an_address_that_is_none_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        ModelString.read(text)
    assert said in str(caught.value)
    assert "hush" not in str(caught.value)
