"""``tale fit``: from a results file to an estimator's file, with a report."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from tale_core import (
    BudgetRange,
    ModelCall,
    ModelReply,
    Probe,
    RegressionEstimator,
    SearchSettings,
    SearchTrace,
    Usage,
)
from tale_core.models.client import ChatClient
from tale_lab.cli.app import app
from tale_lab.results.store import Store

if TYPE_CHECKING:
    from pathlib import Path


def trace(number: int, *, strategy: str = "tale", model: str = "qwen", learnable: bool = True) -> SearchTrace:
    count = 2 + number % 12
    found = number % 6 > 0
    tokens = 9 * count if learnable else random.Random(number).randint(20, 200)  # noqa: S311
    usage = Usage(input_tokens=30, output_tokens=300)
    return SearchTrace(
        question=f"Question {number}: " + " + ".join(["3"] * count),
        settings=SearchSettings(strategy=strategy),
        probes=(Probe(budget=None, usage=usage, verdict="correct", text="9", model=model),),
        chosen=tokens if found else None,
        ideal=BudgetRange(low=tokens - 8, high=tokens + 8) if found else None,
        stopped="rejected",
    )


def results(path: Path, *traces: SearchTrace) -> str:
    with Store(path) as store:
        for number, one in enumerate(traces):
            store.put(f"key {number}", "search", one, model="qwen", question_id=str(number))
    return str(path)


@pytest.fixture
def run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return results(tmp_path / "run.sqlite", *(trace(number) for number in range(72)))


class Guesser:
    """A model that says 12 to everything, and nothing to some."""

    model = "qwen"
    temperature = 0.0

    def __init__(self) -> None:
        self.calls: list[ModelCall] = []

    def __call__(self, call: ModelCall) -> ModelReply:
        self.calls.append(call)
        text = "hard to say" if "Question 7:" in call.messages[-1].content else "[[12]]"
        return ModelReply(text=text, usage=Usage(input_tokens=60, output_tokens=5), finish_reason="stop")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Guesser:
    guesser = Guesser()
    monkeypatch.setattr(ChatClient, "open", lambda *_, **__: guesser)
    return guesser


def tale(*arguments: str, status: int = 0) -> Any:
    result = CliRunner(env={"COLUMNS": "160"}).invoke(app, list(arguments))
    assert result.exit_code == status, result.output
    return result


def test_it_writes_an_estimator_and_prints_its_scores(run_file: str, tmp_path: Path) -> None:
    out = tmp_path / "budget.skops"
    result = tale("fit", run_file, "--out", str(out))
    assert "60 questions of qwen, strategy tale" in result.stdout
    assert "in the ideal range" in result.stdout
    assert "12 more searches found no budget" in result.stdout
    assert "zero-shot estimates, as published: 61% in the ideal range" in result.stdout
    assert "budget.skops" in result.stderr
    loaded = RegressionEstimator.load(out)
    assert loaded.facts.report.gains
    assert loaded.trained_on(trace(1).question)


def test_as_json_it_prints_the_facts_alone(run_file: str, tmp_path: Path) -> None:
    result = tale("fit", run_file, "--quantile", "0.8", "--json")
    facts = json.loads(result.stdout)
    assert (facts["examples"], facts["skipped"], facts["quantile"], facts["model"]) == (60, 12, 0.8, "qwen")
    assert [score["name"] for score in facts["report"]["scores"]] == ["regression", "one budget"]
    assert facts["written"] == "budget.skops"
    assert (tmp_path / "budget.skops").is_file()


def test_zero_shot_estimates_are_asked_once_and_scored_beside(run_file: str, model: Guesser) -> None:
    first = tale("fit", run_file, "--zero-shot")
    assert "at most 60 calls and 3,840 output tokens" in first.stderr
    assert len(model.calls) == 60
    assert {call.role for call in model.calls} == {"estimate"}
    assert "zero-shot (1 unusable)" in first.stdout
    assert "as published" not in first.stdout
    second = json.loads(tale("fit", run_file, "--zero-shot", "--json").stdout)
    assert len(model.calls) == 60
    zero_shot = second["report"]["scores"][-1]
    assert (zero_shot["name"], zero_shot["questions"], zero_shot["unusable"]) == ("zero-shot", 60, 1)


def test_an_estimate_that_failed_is_an_error_and_is_asked_for_again(
    run_file: str, model: Guesser, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Guesser.__call__

    def broken(self: Guesser, call: ModelCall) -> ModelReply:
        if "Question 9:" in call.messages[-1].content:
            raise TimeoutError("slow")
        return answer(self, call)

    with monkeypatch.context() as patched:
        patched.setattr(Guesser, "__call__", broken)
        assert (
            "1 questions failed; run the same command" in tale("fit", run_file, "--zero-shot", status=1).stderr
        )
    tale("fit", run_file, "--zero-shot")
    assert len(model.calls) == 60


def test_where_nothing_can_be_learned_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = results(tmp_path / "run.sqlite", *(trace(number, learnable=False) for number in range(72)))
    assert "one budget for all does as well" in tale("fit", path).stdout


def test_searches_of_several_kinds_are_told_apart_by_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mixed = [trace(number) for number in range(60)]
    mixed += [trace(number, strategy="essential") for number in range(60)]
    mixed += [trace(number, strategy="essential", model="llama") for number in range(60)]
    path = results(tmp_path / "run.sqlite", *mixed)
    assert "several models: llama, qwen" in tale("fit", path, status=1).stderr
    assert "several strategies: essential, tale" in tale("fit", path, "--searched", "qwen", status=1).stderr
    facts = json.loads(tale("fit", path, "--searched", "llama", "--strategy", "essential", "--json").stdout)
    assert (facts["model"], facts["strategy"], facts["examples"]) == ("llama", "essential", 50)
    nothing = tale("fit", path, "--strategy", "draft", status=1).stderr
    assert "holds no finished search in strategy 'draft'" in nothing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.sqlite"], "there is no results file 'missing.sqlite'"),
        (["run.sqlite", "--quantile", "1.5"], "between 0 and 1, got 1.5"),
        (["run.sqlite", "--out", "missing/budget.skops"], "cannot write 'missing/budget.skops'"),
    ],
)
def test_what_cannot_work_is_one_clear_line(run_file: str, arguments: list[str], message: str) -> None:
    result = tale("fit", *arguments, status=1)
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_too_few_searches_are_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = results(tmp_path / "run.sqlite", *(trace(number) for number in range(12)))
    assert "at least 20 different questions with a budget, got 10 (2 more" in tale("fit", path, status=1).stderr
    assert not (tmp_path / "budget.skops").exists()
