"""``tale bench`` and ``tale report``: a run that cannot be lost, limits that hold, errors that help."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from slow_server import SlowServer
from typer.testing import CliRunner

from tale_core import BudgetExample, ModelReply, RegressionEstimator, Usage
from tale_core.models.client import ChatClient
from tale_core.models.reasoning_controls import prompt_control
from tale_lab.cli.app import app
from tale_lab.results.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

THREE = ("--methods", "vanilla,tale:tale@50,tale:tale@20")


class Adder:
    """Adds one. A budget of 20 makes it wrong; it fails on 3 while it is busy, and says nothing when mute."""

    model = "gpt-4o-mini"
    temperature = 0.0
    efforts = ()
    control = staticmethod(prompt_control)

    def __init__(self):
        self.address = "http://scripted/v1"
        self.asked = []
        self.busy = self.mute = False

    def __call__(self, call):
        self.asked.append(call)
        if call.role == "estimate":
            return ModelReply(
                text="[[50]]", usage=Usage(input_tokens=30, output_tokens=4), finish_reason="stop"
            )
        number = next(int(word) for word in call.messages[-1].content.split() if word.isdigit())
        if self.busy and number == 3:
            raise TimeoutError("slow")
        text = "" if self.mute else f"Answer: {number + (2 if call.budget == 20 else 1)}"
        usage = Usage(input_tokens=10, output_tokens=call.budget or 100)
        return ModelReply(text=text, usage=usage, finish_reason="stop", seconds=0.5)


@pytest.fixture
def model(monkeypatch):
    adder = Adder()
    monkeypatch.setattr(ChatClient, "open", lambda *_, **__: adder)
    return adder


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"question": f"{number} and one?", "answer": str(number + 1)}) for number in range(10)]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    return tmp_path


def tale(*arguments, status=0):
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "120"})
    assert result.exit_code == status, result.output
    return result


def bench(*arguments, status=0):
    return tale("bench", "data.jsonl", *(arguments or THREE), status=status)


def test_the_bound_comes_before_and_the_report_after(model, data):
    result = bench(*THREE)
    assert "at most 30 calls and 30,720 output tokens for 30 answers" in result.stderr
    assert "took 30 calls" in result.stderr
    assert "tale:tale@50: saves 50% of output tokens net" in result.stdout
    assert "accuracy -100.0 points" in result.stdout


def test_methods_take_turns_on_each_question(model, data):
    bench(*THREE, "--concurrency", "1")
    budgets = [call.budget for call in model.asked]
    assert budgets[:6] == [None, 50, 20, 50, 20, None]


def test_by_default_every_method_runs_that_the_model_allows(model, data):
    result = bench("--limit", "2", "--json")
    told = json.loads(result.stdout)
    labels = {one["label"] for one in told["benchmarks"][0]["methods"]}
    assert {"direct", "vanilla", "tale", "self-consistency"} <= labels
    assert not {"tale-calibration", "effort-low"} & labels
    assert "skipped, requirements not met: tale-calibration" in result.stderr


def test_the_same_command_asks_nothing_and_other_methods_are_added(model, data):
    bench(*THREE)
    asked = len(model.asked)
    bench(*THREE)
    assert len(model.asked) == asked
    result = bench("--methods", "direct")
    assert len(model.asked) == asked + 10
    assert all(label in result.stdout for label in ("direct", "vanilla", "tale:tale@50"))


def test_errors_of_the_provider_are_counted_and_retried_by_the_next_run(model, data):
    model.busy = True
    result = bench(*THREE, "--json", status=1)
    methods = json.loads(result.stdout)["benchmarks"][0]["methods"]
    assert [(one["questions"], one["errors"], one["accuracy"]) for one in methods] == [
        (9, 1, 1),
        (9, 1, 1),
        (9, 1, 0),
    ]
    model.busy = False
    methods = json.loads(bench(*THREE, "--json").stdout)["benchmarks"][0]["methods"]
    assert [(one["questions"], one["errors"]) for one in methods] == [(10, 0)] * 3


def test_a_model_that_answers_nothing_fails_and_is_not_wrong(model, data):
    model.mute = True
    result = bench(*THREE, status=1)
    assert "error: the model answered nothing" in result.stderr
    assert not result.stdout
    assert Store("run.sqlite").calls == 0


def test_a_token_limit_ends_the_run_and_the_report_comes_all_the_same(model, data):
    result = bench(*THREE, "--max-tokens-total", "500", "--concurrency", "1", status=3)
    assert "stopped: the limit of 500 tokens is reached" in result.stderr
    assert "not worse than vanilla" in result.stdout
    spent = sum(10 + (call.budget or 100) for call in model.asked)
    assert 500 <= spent < 500 + 110
    bench(*THREE)
    assert len(model.asked) == 30


def test_a_cost_limit_goes_by_the_list_price(model, data):
    model.address = "https://api.openai.com/v1"
    result = bench(*THREE, "--max-cost", "0.0002", "--concurrency", "1", status=3)
    assert "at most $0.02 for these output tokens at list price" in result.stderr
    assert "stopped: the limit of 0.0002 is reached" in result.stderr
    assert "$0.0000" in result.stdout


def test_a_cost_limit_without_a_price_fails_before_any_call(model, data):
    result = bench(*THREE, "--max-cost", "1", status=1)
    assert "needs the model's price, which is unknown; limit the tokens" in result.stderr
    assert not model.asked


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "vanila"), "no method named 'vanila'; did you mean 'vanilla'?"),
        (("--methods", "vanilla,vanilla"), "these methods are named twice: vanilla"),
        (("--methods", " , "), "--methods names no method"),
        (("--methods", "tale-calibration"), "tale-calibration needs a calibration of this model"),
        (("--methods", "no.such:Method"), "cannot import the method"),
        (("--as", "gsm"), "the paper has no dataset 'gsm'"),
        (("--html", "missing/page.html"), "there is no folder 'missing'"),
        (("--estimator", "missing.skops"), "missing.skops"),
    ],
)
def test_wrong_arguments_fail_before_any_call(model, data, arguments, message):
    result = bench(*arguments, status=1)
    assert message in result.stderr
    assert not model.asked


def test_an_estimator_is_not_tested_on_the_questions_it_was_fitted_on(model, data):
    seen = [BudgetExample(question=f"{number} and one?", tokens=20 + number) for number in range(4, 40)]
    RegressionEstimator().fit_table(seen, model=model.model, strategy="tale").save(data / "budget.skops")
    fitted = ("--methods", "tale-fitted", "--estimator", "budget.skops")
    refused = bench(*fitted, status=1).stderr
    assert "budget.skops was fitted on 6 of the 10 questions of data.jsonl" in " ".join(refused.split())
    assert not model.asked
    tale("bench", "data.jsonl[:4]", *fitted)


def test_data_without_questions_is_an_error(model, data):
    (data / "data.jsonl").write_text("\n")
    assert "data.jsonl: no questions there" in bench(*THREE, status=1).stderr


def test_a_question_that_stands_twice_is_asked_once_and_with_two_answers_is_an_error(model, data):
    line = json.dumps({"question": "5 and one?", "answer": "6"})
    (data / "data.jsonl").write_text(f"{line}\n{line}")
    assert "1 repeated questions are asked once" in bench(*THREE).stderr
    other = json.dumps({"question": "5 and one?", "answer": "7"})
    (data / "data.jsonl").write_text(f"{line}\n{other}")
    assert "stands there twice, with the answers '6' and '7'" in bench(*THREE, status=1).stderr


def test_a_store_of_another_version_is_refused_and_left_alone(model, data):
    bench(*THREE)
    with sqlite3.connect("run.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    assert "run.sqlite has schema version 99" in bench(*THREE, status=1).stderr
    assert "run.sqlite has schema version 99" in tale("report", "run.sqlite", status=1).stderr


def test_a_locked_store_is_an_error_that_says_what_to_do(model, data, monkeypatch):
    bench(*THREE, "--limit", "2")
    monkeypatch.setattr("tale_lab.results.database._BUSY_SECONDS", 0.01)
    holder = sqlite3.connect("run.sqlite", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    assert "another program holds it" in bench(*THREE, status=1).stderr
    holder.close()


def test_a_store_that_cannot_be_written_is_an_error(model, data, monkeypatch):
    bench(*THREE, "--limit", "2")
    # Root may write to a file whatever its mode is.
    monkeypatch.setattr("tale_lab.results.database._SETTINGS", ("query_only = ON",))
    assert "make the file and its folder writable" in bench(*THREE, status=1).stderr


def test_a_store_in_a_folder_that_is_not_there_is_an_error(model, data):
    assert "the folder must exist" in bench(*THREE, "--out", "missing/run.sqlite", status=1).stderr


def test_report_shows_a_file_again_without_writing_to_it(model, data):
    shown = bench(*THREE).stdout
    before = (data / "run.sqlite").read_bytes()
    assert tale("report", "run.sqlite").stdout == shown
    assert (data / "run.sqlite").read_bytes() == before


def test_report_compares_and_merges_files(model, data):
    bench(*THREE)
    model.model = "other"
    bench("--methods", "vanilla,tale:tale@50", "--out", "other.sqlite")
    result = tale("report", "run.sqlite", "other.sqlite", "--merge", "both.sqlite")
    assert "other on data.jsonl, compared with gpt-4o-mini on data.jsonl, on 10 questions" in result.stdout
    assert "What differs: model other (was gpt-4o-mini); methods only there: tale:tale@20." in result.stdout
    assert tale("report", "both.sqlite").stdout == result.stdout


def test_report_merges_into_no_file_that_it_reads(model, data):
    bench(*THREE, "--limit", "1")
    result = tale("report", "run.sqlite", "--merge", "run.sqlite", status=1)
    assert "is one of the files to merge" in result.stderr


def test_report_of_a_file_that_is_not_there_is_an_error(data):
    assert "there is no results file 'none.sqlite'" in tale("report", "none.sqlite", status=1).stderr


def test_markdown_and_page_are_written_where_they_are_wanted(model, data):
    result = bench(*THREE, "--markdown", "table.md", "--html", "page.html")
    assert "written: table.md, page.html" in result.stderr
    assert "| tale:tale@50 | 10 |" in (data / "table.md").read_text()
    assert "<!DOCTYPE html>" in (data / "page.html").read_text()[:20]


class Process:
    """The command in a process of its own, on a server that stops answering."""

    def __init__(self, server: SlowServer) -> None:
        self.server = server
        command = [sys.executable, "-m", "tale_lab.cli", "bench", "data.jsonl", *THREE, "--concurrency", "2"]
        with self.about.open("w") as about:
            self.process = subprocess.Popen(  # noqa: S603
                [*command, "--model", server.model], stdout=subprocess.PIPE, stderr=about, text=True
            )

    @property
    def about(self) -> Path:
        return Path("about.txt")

    def until(self, so: Callable[[], bool]) -> Process:
        while not so():
            assert self.process.poll() is None, self.about.read_text()
            time.sleep(0.005)
        return self

    def ended(self) -> tuple[int, str, str]:
        self.server.go_on.set()
        told, _ = self.process.communicate(timeout=240)
        return self.process.returncode, told, self.about.read_text()


ANSWERED = 9


@pytest.fixture
def server(loopback, data):
    server = SlowServer(holds_after=ANSWERED)
    yield server
    server.close()


def kept() -> int:
    with Store("run.sqlite", read_only=True) as store:
        return store.calls


def test_a_killed_run_goes_on_and_repeats_no_finished_call(server, data: Path):
    run = Process(server).until(lambda: server.answered == ANSWERED)
    run.process.kill()
    assert run.process.wait() == -signal.SIGKILL
    finished = kept()
    assert ANSWERED - 2 <= finished <= ANSWERED
    server.asked.clear()

    status, told, about = Process(server).ended()
    assert (status, kept()) == (0, 30), about
    assert len(server.asked) == 30 - finished
    assert "tale:tale@50: saves" in told


def test_ctrl_c_reports_what_there_is(server, data):
    run = Process(server).until(lambda: server.answered == ANSWERED)
    run.process.send_signal(signal.SIGINT)
    run.until(lambda: "stopping after the calls under way" in run.about.read_text())
    status, told, about = run.ended()
    assert status == 130, about
    assert "the same command goes on where it was" in about
    assert "vanilla: the baseline" in told
    assert kept() <= ANSWERED + 2


@pytest.mark.model
def test_the_small_real_model_is_measured_and_shown_on_a_page(small_model, data, monkeypatch):
    monkeypatch.setenv("TALE_API_KEY", small_model.api_key)
    arguments = ("--methods", "vanilla,tale:essential@40,direct", "--max-tokens", "24", "--limit", "2")
    result = tale(
        "bench", "data.jsonl", "--model", small_model.base_url, *arguments, "--html", "page.html", "--json"
    )
    (found,) = json.loads(result.stdout)["benchmarks"]
    assert [one["label"] for one in found["methods"]] == ["vanilla", "tale:essential@40", "direct"]
    for one in found["methods"]:
        assert (one["questions"], one["errors"], one["estimated"]) == (2, 0, 0)
        assert 0 < one["net_tokens"] <= 24
        assert one["p50"] > 0
    assert small_model.model in (data / "page.html").read_text()
