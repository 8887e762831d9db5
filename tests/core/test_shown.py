"""What came from outside cannot steer a terminal."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale_core.shown import printable, printable_json

ANY_TEXT = st.text(st.characters(exclude_categories=()))


def obeyed(text: str) -> set[str]:
    """Return the characters of a text that terminals act on, or cannot be written at all."""
    return {one for one in text if unicodedata.category(one) in {"Cc", "Cf", "Cs", "Zl", "Zp"}} - {"\n", "\t"}


@pytest.mark.parametrize(
    "text",
    [
        "\x1b]52;c;ZXZpbA==\x07",  # the clipboard
        "\x1b]0;title\x1b\\",
        "\x1b[2J\x1b[H\x1b[8m",  # clear, and conceal
        "\x9b2J\x9d0;title\x9c",  # the same in one byte each
        "a\rb\x08\x7f\x00",
        "\u202egpj.exe\u2066\u200b\u200f\ufeff\u2028",
        "\ud800",
    ],
)
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = printable(text)
    assert not obeyed(shown)
    shown.encode()


def test_an_escape_sequence_is_seen_not_hidden() -> None:
    assert printable("\x1b[8m\x9b\u202e\U000e0041") == "\\x1b[8m\\x9b\\u202e\\U000e0041"


def test_honest_text_stays() -> None:
    text = "Größe: 3 × 4 = 12\n\t漢字 ✓ שלום"
    assert printable(text) == text
    assert printable("a\r\nb") == "a\nb"


@given(ANY_TEXT)
def test_the_pieces_of_a_stream_are_shown_as_the_whole_is(text: str) -> None:
    assert "".join(map(printable, text)) == printable(text)
    printable(text).encode()


@given(ANY_TEXT)
def test_json_keeps_its_meaning(text: str) -> None:
    written = printable_json(json.dumps(text, ensure_ascii=False))
    written.encode()
    assert json.loads(written) == json.loads(json.dumps(text))
