"""What others wrote does not steer the user's terminal, whichever way a command shows it."""

from __future__ import annotations

import functools
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from tale_core.errors import ServerError
from tale_core.local import _progress
from tale_core.testing import ScriptedModel
from tale_lab.cli._asking import working
from tale_lab.cli._shared import SafeConsole, err, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    Tale = Callable[..., Result]
    Opened = Callable[..., list[tuple[Any, ...]]]

CLIPBOARD = "\x1b]52;c;ZXZpbA==\x07"
HOSTILE = f"{CLIPBOARD}\x1b[2J\x1b[8m\x9b31m\u202e\u200b[/x][link=http://evil.example]name[/link]"
SPELLED = r"\x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b[8m\x9b31m\u202e[/x][link=http://evil.example]name[/link]"
IN_TEXT = SPELLED.replace(r"\x07", "")  # which rich drops itself
FORBIDDEN = ("\x1b]", "\x1b[2J", "\x1b[8m", "\x9b", "\x07", "\u202e", "\u200b")


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def console() -> SafeConsole:
    return SafeConsole(file=io.StringIO(), force_terminal=True, width=300)


def written(console: SafeConsole) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def safe(text: str) -> bool:
    return not any(one in text for one in FORBIDDEN)


@pytest.mark.parametrize("text", [HOSTILE, Text(HOSTILE), Text(HOSTILE, style="link http://\x1b]0;x\x07")])
@pytest.mark.parametrize("options", [{}, {"soft_wrap": True}, {"style": "bold red"}])
def test_printed_text(console: SafeConsole, text: Any, options: dict[str, Any]) -> None:
    console.print(text, **options)
    assert IN_TEXT in written(console).replace(r"\x07", "")
    assert safe(written(console))


def test_tables(console: SafeConsole) -> None:
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(Text(HOSTILE))
    console.print(table)
    assert written(console).replace(r"\x07", "").count(IN_TEXT) == 3
    assert safe(written(console))


def test_progress_and_status(console: SafeConsole) -> None:
    with Progress(TextColumn("{task.description}", markup=False), console=console) as bar:
        bar.add_task(HOSTILE)
    with console.status(HOSTILE):
        pass
    assert SPELLED in written(console)
    assert safe(written(console))


def test_a_stream_that_splits_a_sequence(console: SafeConsole) -> None:
    for piece in HOSTILE:
        console.write(piece)
    assert written(console) == SPELLED


def test_the_progress_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(err, "_force_terminal", True)
    monkeypatch.setattr(err, "is_interactive", True)
    monkeypatch.setattr(err, "_file", shown)
    monkeypatch.setattr(err, "_width", 300)
    monkeypatch.setattr(err, "_height", 20)
    # At once, not when the refreshing thread comes to it.
    monkeypatch.setattr(Progress, "update", functools.partialmethod(Progress.update, refresh=True))
    with working(HOSTILE) as (show,):
        show(HOSTILE)
    assert "evil.example" in shown.getvalue()
    assert safe(shown.getvalue())


def test_the_progress_of_the_embedded_model(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("sys.stderr", shown)
    with _progress.progress(HOSTILE):
        pass
    assert "evil.example" in shown.getvalue()
    assert safe(shown.getvalue())


@pytest.mark.parametrize("debug", [False, True])
def test_errors(debug: bool, tale: Tale, opened: Opened) -> None:
    def fails(_: Any) -> str:
        raise ServerError(HOSTILE)

    opened(ScriptedModel(reason=fails), HOSTILE)
    result = tale("ask", "How much is 3 + 4?", "--budget", "50", *(["--debug"] if debug else []))
    assert result.exit_code == 1
    assert SPELLED in " ".join(result.stderr.split())
    assert safe(result.output)


@pytest.mark.parametrize("options", [[], ["--compare"]])
def test_ask_with_a_hostile_model(options: list[str], tale: Tale, opened: Opened) -> None:
    opened(ScriptedModel(estimate=f"{HOSTILE} [[50]]", reason=f"{HOSTILE} 7"), HOSTILE)
    result = tale("ask", "How much is 3 + 4?", *options)
    assert result.exit_code == 0, result.output
    assert "evil.example" in result.output
    assert safe(result.output)


def test_json_says_everything_in_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"answer": HOSTILE})
    shown = capsys.readouterr().out
    assert safe(shown)
    assert json.loads(shown) == {"answer": HOSTILE}
