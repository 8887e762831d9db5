"""The commands on the small real model, over real HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from tale_core import Calibration
from tale_core.local import SMALL_MODEL, LocalServer, ServerSettings
from tale_lab.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.model

QUESTION = "A hen lays 3 eggs a day. How many eggs does it lay in 4 days?"


@pytest.fixture(scope="module")
def terse(small_model: LocalServer) -> Iterator[LocalServer]:
    """The small model with a low output cap: it would go on for minutes."""
    with LocalServer(small_model.weights, ServerSettings(answer_limit=32, context=1024)) as server:
        yield server


@pytest.fixture
def options(terse: LocalServer, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.setenv("TALE_API_KEY", terse.api_key)
    return ("--model", terse.base_url)


def test_an_answer_is_streamed_with_its_accounts(options: tuple[str, str]) -> None:
    result = CliRunner().invoke(app, ["ask", QUESTION, "--budget", "30", *options])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip()
    assert "30 (fixed), strategy exemplars" in result.stderr
    assert "output tokens" in result.stderr


def test_a_comparison_is_measured_by_the_server_and_net_of_the_estimator(
    options: tuple[str, str], tmp_path: Path
) -> None:
    published = tmp_path / "published.json"
    Calibration(model=SMALL_MODEL, strategy="tale").save(published)
    arguments = ["ask", QUESTION, "--compare", "--json", "--calibration", str(published), *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["model"] == SMALL_MODEL
    assert [one["way"] for one in data["ways"]] == ["direct", "vanilla CoT", "TALE"]
    usages = [usage for one in data["ways"] for role in one["calls"].values() for usage in role]
    assert {usage["source"] for usage in usages} == {"measured"}
    saved = data["savings"]
    assert saved["estimate"] > 0
    assert saved["net_tokens"] == saved["baseline"] - saved["reason"] - saved["estimate"]


def test_the_same_question_gets_the_same_answer(options: tuple[str, str]) -> None:
    arguments = ["ask", QUESTION, "--budget", "30", *options]
    first, second = (CliRunner().invoke(app, arguments).stdout for _ in range(2))
    assert first == second


def test_the_embedded_model_is_served_by_its_name(small_model: LocalServer) -> None:
    result = CliRunner().invoke(
        app, ["ask", "Say: yes", "--strategy", "direct", "--json", "--model", f"local:{small_model.model}"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["model"] == small_model.model


def test_the_doctor_finds_the_small_model_and_its_digest(small_model: LocalServer) -> None:
    result = CliRunner().invoke(app, ["doctor", "--verify", "--model", f"local:{small_model.model}"])
    assert result.exit_code == 0, result.output
    assert "as published" in " ".join(result.stdout.split())


def test_a_reader_that_leaves_early_ends_the_command_quietly(options: tuple[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tale_lab.cli", "ask", QUESTION, *options]
    with (tmp_path / "stderr").open("w+") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)  # noqa: S603  # our own
        assert process.stdout is not None
        process.stdout.read(1)
        process.stdout.close()
        process.wait(60)
        stderr.seek(0)
        assert "Traceback" not in stderr.read()
