"""Counting works without a network, leaves the environment alone, and calls itself an estimate."""

from __future__ import annotations

import os
import tempfile
from hashlib import sha1
from typing import TYPE_CHECKING

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from tale_core import Message, Usage, count_tokens, estimate_usage, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIKTOKEN_VARIABLES = ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR")
ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
CACHE_NAME = sha1(ADDRESS.encode(), usedforsecurity=False).hexdigest()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Leave no folder but one empty one for a vocabulary to lie in."""
    for variable in TIKTOKEN_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tokens.importlib.util, "find_spec", lambda name: None)
    tokens._offline_encoding.cache_clear()
    cache = tmp_path / "data-gym-cache"
    cache.mkdir()
    yield cache
    tokens._offline_encoding.cache_clear()


@pytest.fixture
def uncached() -> Iterator[None]:
    tokens._offline_encoding.cache_clear()
    yield
    tokens._offline_encoding.cache_clear()


# with a vocabulary on this disk (llama-index-core ships one)


@pytest.mark.usefixtures("uncached")
def test_a_vocabulary_on_this_disk_is_used_without_a_network() -> None:
    assert tokens._offline_encoding() is not None
    assert count_tokens("Let's think step by step:") == 6
    assert count_tokens("让我们一步一步思考") > 1


@pytest.mark.usefixtures("uncached")
@pytest.mark.parametrize("before", [None, "", "/no/such/folder"])
def test_the_environment_is_as_it_was_after_counting(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    for variable in TIKTOKEN_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    if before is not None:
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", before)
    environment = dict(os.environ)
    count_tokens("text")
    assert dict(os.environ) == environment


@pytest.mark.usefixtures("uncached")
def test_it_counts_as_tiktoken_itself_does(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = next(folder for folder in tokens._cache_folders() if (folder / CACHE_NAME).exists())
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
    text = "It's 3,141.59 of 100% (α→ω),\n\n  让我们一步一步思考 <|endoftext|> HTTPServer can't"
    assert count_tokens(text) == len(tiktoken.get_encoding("o200k_base").encode(text, disallowed_special=()))


def test_special_tokens_in_a_text_are_counted_as_text() -> None:
    assert count_tokens("<|endoftext|>") > 1


# without one


@pytest.mark.usefixtures("nowhere")
def test_without_a_vocabulary_a_rule_of_thumb_counts() -> None:
    assert tokens._offline_encoding() is None
    assert count_tokens("abcdefgh") == 2
    assert count_tokens("abcdefghi") == 3
    assert count_tokens("让我们") == 3
    assert count_tokens("用 Python") == 1 + 2


def test_a_damaged_vocabulary_is_passed_over_and_left_where_it_is(nowhere: Path) -> None:
    damaged = nowhere / CACHE_NAME
    damaged.write_bytes(b"not a vocabulary")
    assert count_tokens("abcdefgh") == 2  # tiktoken would delete the file and download another
    assert damaged.read_bytes() == b"not a vocabulary"


# either way


@pytest.mark.parametrize("folder", ["nowhere", "uncached"])
def test_only_the_empty_text_counts_as_nothing(folder: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(folder)
    assert count_tokens("") == 0
    assert count_tokens(" ") == count_tokens("a") == 1


@settings(deadline=None)  # the first text loads the vocabulary
@given(st.text(st.characters()))
def test_any_text_can_be_counted(text: str) -> None:
    assert (count_tokens(text) == 0) == (text == "")


def test_an_estimated_usage_says_that_it_is_estimated() -> None:
    usage = estimate_usage([Message(role="user", content="How much is 3 + 4?")], "seven")
    assert usage.source == "estimated"
    assert usage.output_tokens == count_tokens("seven")
    assert usage.reasoning_tokens is None
    assert usage.input_tokens > count_tokens("How much is 3 + 4?")  # roles and separators cost too


def test_messages_and_their_texts_are_estimated_alike() -> None:
    texts = ["Be brief.", "How much is 3 + 4?"]
    messages = [Message(role="user", content=text) for text in texts]
    assert estimate_usage(messages, "7") == estimate_usage(texts, "7")
    assert estimate_usage([], "") == Usage(source="estimated")
