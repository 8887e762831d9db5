"""Two steps of every method on a tiny random model, and a training that is killed and goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tale_core import Calibration
from tale_core.errors import InvalidValueError, TrainingError
from tale_lab.training import Standing, TrainingSettings, internalise

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = {"sft": "sft", "dpo": "dpo", "grpo": "reward"}
SMALL = {"batch": 4, "micro_batch": 2, "learning_rate": 1e-2, "generations": 2, "max_tokens": 8}


def settings(method: str, **more: Any) -> TrainingSettings:
    return TrainingSettings.of(method, **{**SMALL, "max_steps": 2, "checkpoint_steps": 1, **more})


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter" / "adapter_model.safetensors")


def furthest(one: dict[str, Any], other: dict[str, Any]) -> float:
    assert set(one) == set(other)
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603  # this interpreter


@pytest.fixture
def rewarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reward a random model, which answers nothing right, for the letters it writes."""
    from tale_lab.training import _work

    def letters(completions: Any, **_: Any) -> list[float]:
        return [1.0 + sum(letter.isalpha() for letter in one[0]["content"]) for one in completions]

    monkeypatch.setattr(_work, "concise_reward", letters)


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_two_steps_change_the_adapter_and_are_written_down(method, base, data, tmp_path, rewarded) -> None:
    said: list[str] = []
    standings: list[Standing] = []
    training = internalise(
        str(base),
        data(FORMATS[method]),
        tmp_path / "out",
        settings(method),
        device="cpu",
        tell=said.append,
        show=standings.append,
    )
    assert (training.steps, training.device, training.finished) == (2, "cpu", True)
    assert said[0].startswith("memory: about ")
    assert standings[0].figures.keys() >= {"reward" if method == "grpo" else "loss"}
    assert standings[-1].steps == 2
    changed = weights(tmp_path / "out")
    assert any(float(one.abs().max()) > 0 for name, one in changed.items() if "lora_B" in name)
    calibration = Calibration.load(tmp_path / "out" / "calibration.json")
    assert (calibration.model, calibration.strategy) == ("out", "internalised")
    assert calibration.trained is not None
    assert (calibration.trained.base, calibration.trained.method) == (str(base), method)
    assert calibration.trained.data_digest == training.facts["digest"]


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_a_stopped_training_goes_on_to_the_same_result(method, base, data, tmp_path, rewarded) -> None:
    def stop(standing: Standing) -> None:
        if standing.step == 3:
            raise KeyboardInterrupt

    def train(folder: Path, show: Any = lambda _: None) -> list[str]:
        said: list[str] = []
        chosen = settings(method, max_steps=4)
        internalise(str(base), data(FORMATS[method]), folder, chosen, device="cpu", show=show, tell=said.append)
        return said

    train(tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", stop)
    assert any(text == "resuming from checkpoint 2" for text in train(tmp_path / "broken"))
    assert furthest(weights(tmp_path / "unbroken"), weights(tmp_path / "broken")) < 1e-6


def test_a_killed_process_goes_on_to_the_same_result(base, data, tmp_path) -> None:
    command = [sys.executable, "-m", "tale_lab.cli", "internalise", "--model", str(base), "--data"]
    options = {"batch": 4, "learning-rate": 0.01, "max-steps": 6, "checkpoint-steps": 2, "device": "cpu"}
    killing = (
        "import os, signal, sys; from tale_lab.training import _work; from tale_lab.cli import main; "
        "_work._Shown.on_step_end = lambda self, args, state, control, **_: "
        "os.kill(os.getpid(), signal.SIGKILL) if state.global_step == 5 else None; "
        "sys.argv = ['tale', *sys.argv[1:]]; main()"
    )
    arguments = [str(data("sft")), "--json", *(f"--{name}={value}" for name, value in options.items())]
    broken, unbroken = (["--out", str(tmp_path / name)] for name in ("broken", "unbroken"))
    killed = run(sys.executable, "-c", killing, *command[3:], *arguments, *broken)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = run(*command, *arguments, *broken)
    assert "resuming from checkpoint 4" in again.stderr
    ran = run(*command, *arguments, *unbroken)
    assert json.loads(ran.stdout)["steps"] == 6
    assert furthest(weights(tmp_path / "unbroken"), weights(tmp_path / "broken")) < 1e-6


def test_a_finished_training_is_not_done_again(base, data, tmp_path) -> None:
    def train(**more: Any) -> Any:
        return internalise(str(base), data("sft"), tmp_path / "out", settings("sft", **more), device="cpu")

    first = train()
    assert train() == first
    with pytest.raises(InvalidValueError, match="holds another training: seed differ"):
        train(seed=1)


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path) -> None:
    from tale_lab.training._work import last_checkpoint

    for step, state in ((5, '{"global_step": 5}'), (10, '{"global_step": 10}'), (15, '{"glob')):
        (tmp_path / "checkpoints" / f"checkpoint-{step}").mkdir(parents=True)
        (tmp_path / "checkpoints" / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoints" / "checkpoint-20").mkdir()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoints" / "checkpoint-10"
    assert last_checkpoint(tmp_path / "checkpoints") is None


def test_only_the_answer_is_learned(base, data, tmp_path) -> None:
    from tale_lab.training import _work, bases

    tokenizer = bases.load_tokenizer(str(base))
    line = {
        "prompt": [{"role": "user", "content": "3 + 1?"}],
        "completion": [{"role": "assistant", "content": "4"}],
    }
    trainer = _work._trainer(
        str(base),
        tokenizer,
        settings("sft"),
        lines=[line] * 4,
        held_out=[],
        folder=tmp_path,
        device="cpu",
    )
    labels = trainer.train_dataset[0]["labels"]
    assert tokenizer.decode([one for one in labels if one != -100]) == "4<|end|>"


def test_nothing_rewarded_ends_the_training(base, data, tmp_path, monkeypatch) -> None:
    from tale_lab.training import _work

    monkeypatch.setattr(_work, "concise_reward", lambda completions, **_: [0.0] * len(completions))
    with pytest.raises(TrainingError, match="10 steps in a row earned no reward"):
        internalise(str(base), data("reward"), tmp_path, settings("grpo", max_steps=12), device="cpu")


def test_the_merged_model_says_what_the_adapter_says(base, data, tmp_path) -> None:
    import torch
    from peft import PeftModel

    from tale_lab.training import bases

    internalise(str(base), data("sft"), tmp_path, settings("sft"), device="cpu", merge=True)
    ids = torch.arange(20).reshape(1, 20)
    plain = bases.load_model(str(base), "cpu")
    untrained = plain(ids).logits
    trained = PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))(ids).logits
    merged = bases.load_model(str(tmp_path / "merged"), "cpu")(ids).logits
    assert torch.allclose(merged, trained, atol=1e-4)
    assert not torch.allclose(merged, untrained, atol=1e-2)
    assert bases.load_tokenizer(str(tmp_path / "merged")).chat_template
