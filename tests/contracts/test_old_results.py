"""What earlier code wrote is read by today's: results files, a profile, a fitted estimator."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import tale_core
from tale_core import RegressionEstimator, TaleMethod, run
from tale_core.testing import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

FOLDER = Path(__file__).parents[1] / "fixtures" / "results-42528ed"
EXPECTED: dict[str, Any] = json.loads(
    # The one method that has another name now; it must be shown under that name, with the same figures.
    (FOLDER / "expected.json").read_text(encoding="utf-8").replace('"tale-profile', '"tale-calibration')
)
BESIDE = Path(tale_core.__file__).parents[1]
"""The checkout under test, which need not be the one that is installed."""
COMMAND_LINES = ("tale_lab.cli", "tale_core.cli")
"""Where the function ``main`` of the command may be; the first that exists counts."""

UNSTEADY = "spend_interval"
"""Differs from process to process at 42528ed, so that no figure of it can be expected."""


def _load_make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_old_results", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = _load_make()


def command_line() -> str:
    """Return the package of the command."""
    return next(one for one in COMMAND_LINES if BESIDE.joinpath(*one.split(".")).is_dir())


def results_in(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT count(*) FROM results").fetchone()[0])


def load_profile(path: Path) -> Any:
    """Read a profile by the class that is public now."""
    return (getattr(tale_core, "Calibration", None) or tale_core.Profile).load(path)


@pytest.fixture
def tale(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command line in this process; the result is what it prints."""
    main = importlib.import_module(command_line()).main

    def command(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["tale", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert not ended.value.code, printed.err
        return printed.out

    return command


@pytest.fixture
def old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the old files, and the questions they are about; it is the current one."""
    for name, file in make.MADE.items():
        make.load(FOLDER / f"{name}.sql", tmp_path / file)
    for file in ("profile.json", "budget.skops"):
        (tmp_path / file).write_bytes((FOLDER / file).read_bytes())
    make.write_questions(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(loopback: str) -> Iterator[Any]:
    with make.Server() as running:
        yield running


def assert_holds(found: Any, expected: Any, where: str = "") -> None:
    """Assert that everything expected is there; what is new beside it is no difference."""
    match expected:
        case dict():
            for name, value in expected.items():
                if name == UNSTEADY:
                    continue
                assert name in found, f"{where}.{name} is missing"
                assert_holds(found[name], value, f"{where}.{name}")
        case list():
            assert len(found) == len(expected), where
            for number, (one, other) in enumerate(zip(found, expected, strict=True)):
                assert_holds(one, other, f"{where}[{number}]")
        case float():
            assert found == pytest.approx(expected), where
        case _:
            assert found == expected, where


@pytest.mark.parametrize("command", make.MADE)
def test_a_run_that_was_stopped_before_its_results_repeats_no_answered_call(
    command: str, tale: Callable[..., str], old_files: Path, server: Any
) -> None:
    with closing(sqlite3.connect(old_files / make.MADE[command])) as database, database:
        database.execute("DELETE FROM results")  # the calls are left, each under a key of its own
    tale(*make.COMMANDS[command], "--model", server.base_url)
    assert server.asked == 0


@pytest.mark.parametrize("command", make.MADE)
def test_a_finished_run_repeats_no_call(
    command: str, tale: Callable[..., str], old_files: Path, server: Any
) -> None:
    kept = results_in(old_files / make.MADE[command])
    tale(*make.COMMANDS[command], "--model", server.base_url)
    assert server.asked == EXPECTED["calls_repeated"][command] == 0
    if command != "tune":  # which kept calls alone at 42528ed
        assert results_in(old_files / make.MADE[command]) == kept > 0


def test_the_same_run_without_its_results_file_asks_as_often_as_it_did(
    tale: Callable[..., str], old_files: Path, server: Any
) -> None:
    (old_files / make.MADE["elasticity"]).unlink()
    tale(*make.COMMANDS["elasticity"], "--model", server.base_url)
    assert server.asked == EXPECTED["calls"]["elasticity"]  # the counter of the tests above counts


def test_a_report_gives_the_same_figures(tale: Callable[..., str], old_files: Path) -> None:
    assert_holds(json.loads(tale("report", make.MADE["bench"], "--json")), EXPECTED["report"])


def test_two_reports_of_one_file_agree_to_the_digit(old_files: Path) -> None:
    assert _report_under_hash_seed(1) == _report_under_hash_seed(2)


def _report_under_hash_seed(seed: int) -> str:
    script = f"from {command_line()} import main; main()"
    command = [sys.executable, "-c", script, "report", make.MADE["bench"], "--json"]
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(BESIDE)}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout  # noqa: S603


def test_old_searches_can_be_fitted(tale: Callable[..., str], old_files: Path) -> None:
    facts = json.loads(tale("fit", make.MADE["search"], "--out", "again.skops", "--json"))
    assert facts["examples"] + facts["skipped"] == 24
    assert RegressionEstimator.load("again.skops").trained_on(make.questions(1, 1)[0]["question"])


def test_an_old_estimator_predicts_the_same(old_files: Path) -> None:
    questions = list(EXPECTED["estimates"])
    predicted = RegressionEstimator.load("budget.skops").predict(questions)
    assert dict(zip(questions, predicted, strict=True)) == EXPECTED["estimates"]


def test_an_old_profile_asks_the_same(old_files: Path) -> None:
    model = ScriptedModel(estimate="[[40]]", reason="Answer: 1")
    method = TaleMethod(calibration=load_profile(old_files / "profile.json"))
    run(method.begin(make.questions(101, 1)[0]["question"]).answer(), model)
    asked = [
        {"role": call.role, "budget": call.budget, "prompt": call.messages[-1].content} for call in model.calls
    ]
    assert asked == EXPECTED["asked_with_profile"]
