"""What cannot be trained is refused before the long work starts, with figures and the next step."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from tale_core.errors import DataError, InvalidValueError, TrainingError, UnknownModelError
from tale_lab.training import TrainingSettings, internalise


def settings(method: str = "sft", **more: Any) -> TrainingSettings:
    return TrainingSettings.of(method, **{"batch": 4, "generations": 2, "max_steps": 1, **more})


def test_too_few_examples_are_counted(base, data, tmp_path) -> None:
    with pytest.raises(DataError, match=r"\d+ examples are too few for one step of 64.*--batch"):
        internalise(str(base), data("sft"), tmp_path, settings(batch=64))


def test_data_of_another_format_says_how_to_make_the_right_one(base, data, tmp_path) -> None:
    with pytest.raises(DataError, match=r"'dpo' needs data of format 'dpo', got 'sft'.*tale export"):
        internalise(str(base), data("sft"), tmp_path, settings("dpo"))


def test_examples_longer_than_the_context_are_counted_and_named(base, data, tmp_path) -> None:
    with pytest.raises(DataError, match=r"of 14 examples are longer than the context of 20 .*'\d+ \+ 1\?' \("):
        internalise(str(base), data("sft"), tmp_path, settings(context=20), device="cpu")


def test_examples_longer_than_the_context_are_skipped_on_request(base, data, tmp_path) -> None:
    said: list[str] = []
    # "9 + 1?" takes two letters less than "10 + 1?", question and answer together.
    training = internalise(
        str(base), data("sft"), tmp_path, settings(context=19, skip_long=True), device="cpu", tell=said.append
    )
    assert 0 < training.skipped < 14
    assert said[0] == f"{training.skipped} of 14 examples are longer than 19 tokens: skipped"


def test_a_context_beyond_the_model_is_refused(base, data, tmp_path) -> None:
    with pytest.raises(InvalidValueError, match="is 256 tokens, got context=1000"):
        internalise(str(base), data("sft"), tmp_path, settings(context=1000), device="cpu")


def test_a_base_without_a_chat_template_is_refused(base, data, tmp_path) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(base, plain)
    (plain / "chat_template.jinja").unlink()
    with pytest.raises(TrainingError, match=r"has no chat template.*instruct"):
        internalise(str(plain), data("sft"), tmp_path / "out", settings(), device="cpu")


def test_too_little_memory_is_refused_with_figures(base, data, tmp_path, monkeypatch) -> None:
    from tale_lab.training import bases

    monkeypatch.setattr(bases, "_available", lambda device: 1000)
    with pytest.raises(
        TrainingError, match=r"not enough memory: about .* GiB needed .* 0.0 GiB free.*--micro-batch"
    ):
        internalise(str(base), data("sft"), tmp_path, settings(), device="cpu")
    assert internalise(str(base), data("sft"), tmp_path, settings(), device="cpu", check_memory=False).finished


def test_a_grader_that_rewards_nothing_is_refused(base, data, tmp_path) -> None:
    wrong = data("reward", grader="tests_that_never_match:nothing")
    with pytest.raises(InvalidValueError, match="cannot import grader"):
        internalise(str(base), wrong, tmp_path, settings("grpo"))
    strict = data("reward", grader="choice")
    with pytest.raises(DataError, match="no letter from A to J"):
        internalise(str(base), strict, tmp_path, settings("grpo"))


def test_a_model_that_is_not_there_is_named(data, tmp_path) -> None:
    for name in ("nowhere/model.gguf", str(tmp_path / "empty")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(UnknownModelError, match=name.rpartition("/")[2]):
            internalise(name, data("sft"), tmp_path / "out", settings(), device="cpu")


def test_a_device_that_is_not_there_is_refused(base, data, tmp_path) -> None:
    with pytest.raises(InvalidValueError, match=r"no device 'abacus' on this machine; available: .*cpu"):
        internalise(str(base), data("sft"), tmp_path, settings(), device="abacus")
