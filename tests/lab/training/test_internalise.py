"""What can be said about a training without the libraries that do it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tale_core.errors import DataError, InvalidValueError, MissingExtraError
from tale_lab.cli.app import app
from tale_lab.training import ExportSettings, TrainingSettings, export_run, internalise

HEAVY = ("torch", "transformers", "trl", "peft", "datasets")


def test_the_papers_settings_are_the_defaults() -> None:
    sft, dpo = TrainingSettings.of("sft"), TrainingSettings.of("dpo")
    assert (sft.rank, sft.alpha, sft.epochs, sft.batch) == (8, 32, 3, 16)
    assert (sft.learning_rate, sft.weight_decay) == (1e-4, 0.01)
    assert (dpo.epochs, dpo.learning_rate, dpo.weight_decay, dpo.beta) == (2, 3e-5, 0.001, 0.5)


@pytest.mark.parametrize(
    ("method", "changes", "complaint"),
    [
        ("sft", {"batch": 16, "micro_batch": 5}, "micro_batch must divide batch, got 5 and 16"),
        ("grpo", {"batch": 12}, "generations must divide batch, got 8 and 12"),
        ("sft", {"epochs": 0}, "epochs"),
        ("sft", {"beat": 1}, "beat: no such field"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(method, changes, complaint) -> None:
    with pytest.raises(InvalidValueError, match=complaint):
        TrainingSettings.of(method, **changes)


def test_a_small_batch_fits_into_memory_at_once() -> None:
    assert [TrainingSettings.of("sft", batch=batch).micro_batch for batch in (1, 6, 16)] == [1, 2, 4]


@pytest.fixture
def without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*HEAVY, "tale_lab.training._work"]:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("without_extra")
def test_a_missing_extra_names_its_command(searched, tmp_path) -> None:
    export_run(searched(), tmp_path / "data", ExportSettings())
    with pytest.raises(MissingExtraError, match=r"pip install 'tale-reasoning\[train\]'"):
        internalise("base", tmp_path / "data", tmp_path / "out")
    ran = CliRunner().invoke(app, ["internalise", "--model", "base", "--data", str(tmp_path / "data")])
    assert ran.exit_code == 1
    assert "pip install 'tale-reasoning[train]'" in ran.stderr


@pytest.mark.usefixtures("without_extra")
@pytest.mark.parametrize(
    ("method", "changes", "complaint"),
    [
        ("dpo", {}, "'dpo' needs data of format 'dpo', got 'sft'; make it with: tale export"),
        ("sft", {"batch": 64}, "examples are too few for one step of 64"),
    ],
)
def test_data_is_checked_before_anything_heavy_is_imported(
    searched, tmp_path, method, changes, complaint
) -> None:
    export_run(searched(), tmp_path / "data", ExportSettings())
    with pytest.raises(DataError, match=complaint):
        internalise("base", tmp_path / "data", tmp_path / "out", TrainingSettings.of(method, **changes))


def test_a_grader_that_rewards_nothing_is_refused(searched, tmp_path, monkeypatch) -> None:
    export_run(searched(), tmp_path / "data", ExportSettings(format="reward", grader="numeric"))
    module = sys.modules["tale_lab.training.internalise"]
    monkeypatch.setattr(module, "correct_reward", lambda texts, **_: [0.0] * len(texts))
    with pytest.raises(DataError, match=r"'numeric' rewards nothing: .* none of the"):
        internalise("base", tmp_path / "data", tmp_path / "out", TrainingSettings.of("grpo"))


def test_training_data_names_no_code(searched, tmp_path) -> None:
    with pytest.raises(DataError, match="format reward: data may not name the grader 'os:system'"):
        export_run(searched(), tmp_path / "data", ExportSettings(format="reward", grader="os:system"))
    folder = tmp_path / "hostile"
    export_run(searched(), folder, ExportSettings(format="reward"))
    train = folder / "train.jsonl"
    train.write_text(train.read_text().replace('"grader": "auto"', '"grader": "os:system"'))
    with pytest.raises(DataError, match="reward data, row 1: data may not name the grader 'os:system'"):
        internalise("base", folder, tmp_path / "out", TrainingSettings.of("grpo"))


def test_importing_the_training_package_and_the_command_line_loads_nothing_heavy() -> None:
    script = f"import sys, tale_lab.training, tale_lab.cli; print([n for n in {HEAVY} if n in sys.modules])"
    ran = subprocess.run(  # noqa: S603  # this interpreter, a constant script
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"
