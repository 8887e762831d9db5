"""``tale search`` and ``tale elasticity``: what they print, write and keep."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from tale_core import ModelCall, ModelReply, Usage
from tale_core.models.client import ChatClient
from tale_lab.cli import _measuring
from tale_lab.cli.app import app
from tale_lab.curves.elasticity import Measurement
from tale_lab.results.store import Store
from tale_lab.runs import accounts

if TYPE_CHECKING:
    from pathlib import Path


class Adder:
    """A model that adds one, takes as many tokens as the budget says, and may fail."""

    model = "adder"
    temperature = 0.0
    ends_at: float | None = None

    def __init__(self) -> None:
        self.calls: list[ModelCall] = []
        self.broken = False
        self.interrupt_at: int | None = None

    def __call__(self, call: ModelCall) -> ModelReply:
        self.calls.append(call)
        if len(self.calls) == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
            while signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
                time.sleep(0.001)  # the main thread takes the signal when it is its turn
        number = int(call.messages[-1].content.split()[0])
        if self.broken and number == 2:
            raise TimeoutError("slow")
        usage = Usage(input_tokens=9, output_tokens=call.budget or 64)
        return ModelReply(text=f"Answer: {number + 1}", usage=usage, finish_reason="stop")


class Ruling:
    """A judge that rules the same on every answer."""

    temperature = 0.0

    def __init__(self, model: str, verdict: str) -> None:
        self.model = model
        self.verdict = verdict
        self.calls: list[ModelCall] = []

    def __call__(self, call: ModelCall) -> ModelReply:
        assert call.role == "judge"
        self.calls.append(call)
        return ModelReply(text=self.verdict, usage=Usage(output_tokens=1), finish_reason="stop")


STRICT, LAX = Ruling("strict", "VERDICT: WRONG"), Ruling("lax", "VERDICT: CORRECT")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Adder:
    adder = Adder()
    named = {"local": adder, "strict": STRICT, "lax": LAX}
    monkeypatch.setattr(ChatClient, "open", lambda name, **_: named[name])
    return adder


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)  # where results go that no test names a file for
    path = tmp_path / "data.jsonl"
    path.write_text("".join(f'{{"question": "{n} + 1?", "answer": {n + 1}}}\n' for n in range(4)))
    return str(path)


def tale(*arguments: str, status: int = 0) -> Any:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == status, result.output
    return result


def test_search_says_the_bound_before_and_the_cost_after(model: Adder, data: str, tmp_path: Path) -> None:
    result = tale(
        "search", data, "--method", "halving", "--out", str(tmp_path / "r.sqlite"), "--max-tokens", "64"
    )
    assert "at most 28 calls and 1,792 output tokens for 4 questions" in result.stderr
    assert "took 28 calls; 252 input and 508 output tokens in" in result.stderr
    assert len(model.calls) == 28
    shown = re.sub(r"[│ ]+", " ", result.stdout)
    assert "correct 4 of 4 4 of 4" in shown
    assert "output tokens a question 64 1" in shown
    assert "saved, chosen in hindsight 98%" in shown


def test_where_there_is_no_terminal_a_line_says_how_far_a_long_run_is(
    model: Adder, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert " of 4 questions" not in tale("search", data).stderr, "a short run needs no such line"
    monkeypatch.setattr(_measuring, "_SECONDS_BETWEEN_LINES", 0)
    told = tale("search", data, "--out", "other.sqlite").stderr
    assert "3 of 4 questions, about 0 minutes left; 3 budgets found" in told


def test_a_second_search_asks_nothing_and_says_so(model: Adder, data: str, tmp_path: Path) -> None:
    arguments = ("search", data, "--out", str(tmp_path / "r.sqlite"))
    first = tale(*arguments, "--json")
    made = len(model.calls)
    second = tale(*arguments, "--json")
    assert len(model.calls) == made
    assert "at most 0 calls" in second.stderr
    assert "4 of 4 are finished already" in second.stderr
    assert json.loads(second.stdout)["summary"] == json.loads(first.stdout)["summary"]
    assert json.loads(second.stdout)["spent"]["calls"] == 0


def test_a_failed_question_is_named_and_retried(model: Adder, data: str, tmp_path: Path) -> None:
    arguments = ("search", data, "--method", "halving", "--out", str(tmp_path / "r.sqlite"), "--json")
    model.broken = True
    first = tale(*arguments, status=1)
    assert "failed: '2 + 1?': TimeoutError: slow" in first.stderr
    assert "run the same command again to retry" in first.stderr
    assert json.loads(first.stdout)["finished"] == 3
    model.broken = False
    assert json.loads(tale(*arguments).stdout)["failed"] == []
    assert len(model.calls) == 28 + 1


def test_the_run_is_recorded_with_its_slice(model: Adder, data: str, tmp_path: Path) -> None:
    tale("search", f"{data}[1:3]", "--out", str(tmp_path / "r.sqlite"), "--strategy", "essential")
    run = Store(tmp_path / "r.sqlite").runs()[0]
    assert run["data"].endswith("data.jsonl[1:3]")
    assert len(run["questions"]) == 2
    assert (run["command"], run["model"], run["settings"]["strategy"]) == ("search", "adder", "essential")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.jsonl",), "cannot read 'nowhere.jsonl'"),
        (("DATA", "--strategy", "tail"), "did you mean 'tale'"),
        (("DATA", "--strategy", "direct"), "carries no budget"),
        (("DATA", "--grader", "fuzzy"), "no grader named 'fuzzy'"),
        (("DATA", "--grader", "choice"), "no letter from A to J"),
        (("DATA", "--precision", "2"), "got 2.0"),
        (("DATA", "--out", "/no/such/folder/r.sqlite"), "the folder must exist"),
    ],
)
def test_wrong_arguments_fail_before_any_call(
    model: Adder, data: str, arguments: tuple[str, ...], message: str
) -> None:
    result = tale("search", *(data if one == "DATA" else one for one in arguments), status=1)
    assert message in result.stderr
    assert result.stderr.count("\n") == 1, "an error is one line"
    assert model.calls == []


def test_malformed_lines_are_named_and_skipped_on_request(model: Adder, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"question": "1 + 1?", "answer": 2}\nbroken\n')
    out = str(tmp_path / "r.sqlite")
    assert "data.jsonl line 2" in tale("search", str(path), "--out", out, status=1).stderr
    assert "skipped: data.jsonl line 2" in tale("search", str(path), "--out", out, "--skip-malformed").stderr


def test_elasticity_prints_the_curve_and_writes_a_page(model: Adder, data: str, tmp_path: Path) -> None:
    page = tmp_path / "e.html"
    out = tmp_path / "r.sqlite"
    arguments = ("elasticity", data, "--budgets", "40,10,20", "--out", str(out))
    result = tale(*arguments, "--html", str(page), "--max-tokens", "64")
    assert "at most 16 calls and 1,024 output tokens for 4 questions" in result.stderr
    assert "Ideal budget: 10 tokens." in result.stdout
    assert "Rebound: none" in result.stdout
    assert "Token elasticity of adder" in page.read_text()
    assert len(list(Store(out).results("elasticity", Measurement))) == 4

    curve = json.loads(tale(*arguments, "--json", "--max-tokens", "64").stdout)["curve"]
    assert [point["tokens"] for point in curve["points"]] == [10, 20, 40]
    assert len(model.calls) == 16


def test_the_page_needs_no_network(model: Adder, data: str, tmp_path: Path) -> None:
    page = tmp_path / "e.html"
    tale("elasticity", data, "--budgets", "10", "--out", str(tmp_path / "r.sqlite"), "--html", str(page))
    text = page.read_text()
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", text)
    assert "Plotly.newPlot" in text


def test_names_from_outside_are_escaped_in_the_page(tmp_path: Path, model: Adder) -> None:
    model.model = "<script>alert(1)</script>"
    path = tmp_path / "data.jsonl"
    path.write_text('{"question": "1 </script><b>bold</b>", "answer": 2}\n')
    page = tmp_path / "e.html"
    tale("elasticity", str(path), "--budgets", "10", "--out", str(tmp_path / "r.sqlite"), "--html", str(page))
    text = page.read_text()
    assert "<script>alert(1)" not in text
    assert "<b>bold" not in text


@pytest.mark.parametrize(
    ("budgets", "message"), [("1,x", "got '1,x'"), ("0", "got (0,)"), ("5,5", "got (5, 5)")]
)
def test_invalid_budgets(model: Adder, data: str, budgets: str, message: str) -> None:
    assert message in tale("elasticity", data, "--budgets", budgets, status=1).stderr


@pytest.mark.parametrize("option", ["--html"])
def test_a_page_that_cannot_be_written_fails_before_any_call(
    model: Adder, data: str, tmp_path: Path, option: str
) -> None:
    told = tale("elasticity", data, "--budgets", "10", option, "/no/folder/e.html", status=1).stderr
    assert "cannot write '/no/folder/e.html': there is no folder '/no/folder'" in told
    assert "cannot write" in tale("elasticity", data, option, str(tmp_path), status=1).stderr
    assert not model.calls


def test_another_model_may_grade_and_its_rulings_are_kept_under_its_own_name(
    model: Adder, data: str, tmp_path: Path
) -> None:
    arguments = (
        "search",
        data,
        "--method",
        "halving",
        "--out",
        str(tmp_path / "r.sqlite"),
        "--json",
        "--judge",
    )
    told = tale(*arguments, "strict")
    assert "and 44 short calls to judge the answers" in told.stderr
    strict = json.loads(told.stdout)["summary"]
    lax = json.loads(tale(*arguments, "lax").stdout)["summary"]
    assert (strict["vanilla_correct"], lax["vanilla_correct"]) == (0, 4)
    assert len(STRICT.calls) == len(LAX.calls) == 4, "one text is judged once"
    assert len(model.calls) == 28, "what the model answered is not asked again"
    tale(*arguments, "strict")
    assert len(STRICT.calls) == 4


@pytest.mark.parametrize("command", ["search", "elasticity"])
def test_where_nothing_was_answered_there_is_an_error_and_no_table(
    model: Adder, data: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Adder, "__call__", lambda *_: ModelReply(text="", finish_reason="stop"))
    result = tale(command, data, status=1)
    assert "4 questions failed; run the same command again" in result.stderr
    assert not result.stdout


@pytest.mark.parametrize("command", [("search", "--method", "halving"), ("elasticity", "--budgets", "10,20")])
def test_a_token_limit_ends_any_measurement_and_the_next_run_goes_on(
    model: Adder, data: str, command: tuple[str, ...]
) -> None:
    arguments = (command[0], data, *command[1:], "--concurrency", "1")
    whole = {"search": 28, "elasticity": 12}[command[0]]
    stopped = tale(*arguments, "--max-tokens-total", "200", status=3)
    assert "stopped: the limit of 200 tokens is reached" in stopped.stderr
    assert 0 < len(model.calls) < whole
    tale(*arguments)
    assert len(model.calls) == whole, "nothing answered was asked again"


@pytest.mark.parametrize("command", [("search", "--method", "halving"), ("elasticity", "--budgets", "10,20")])
def test_a_deadline_ends_any_measurement_and_the_next_run_goes_on(
    model: Adder, data: str, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (command[0], data, *command[1:], "--concurrency", "1")
    whole = {"search": 28, "elasticity": 12}[command[0]]
    ticks = itertools.count()
    with monkeypatch.context() as patched:
        patched.setattr(accounts, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
        stopped = tale(*arguments, "--deadline", "5", status=3)
    assert "stopped: the limit of 5 seconds is reached; the same command goes on" in stopped.stderr
    assert 0 < len(model.calls) < whole
    assert model.ends_at == 5, "the calls under way end then, too"
    tale(*arguments)
    assert len(model.calls) == whole, "nothing answered was asked again"


@pytest.mark.parametrize("command", ["search", "elasticity", "bench", "tune"])
def test_the_time_of_a_call_is_an_option_of_every_command(
    data: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def opened(name: str, **options: Any) -> Adder:
        asked.append(options)
        raise ConnectionError("far enough")

    monkeypatch.setattr(ChatClient, "open", opened)
    assert "far enough" in tale(command, data, "--call-timeout", "7.5", status=1).stderr
    assert [one["timeout"] for one in asked] == [7.5]
    assert "--call-timeout" in tale(command, data, "--call-timeout", "0", status=2).stderr


def test_a_failure_is_told_without_the_key(model: Adder, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> ModelReply:
        raise PermissionError("Incorrect API key provided: hush-hush. Get one at")

    monkeypatch.setattr(Adder, "__call__", refuse)
    result = tale("search", data, status=1)
    assert "failed: '0 + 1?': PermissionError: Incorrect API key" in result.stderr
    assert "hush" not in result.output


def test_ctrl_c_says_what_it_waits_for_and_the_next_run_goes_on(model: Adder, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(f'{{"question": "{n} + 1?", "answer": {n + 1}}}\n' for n in range(40)))
    out = str(tmp_path / "r.sqlite")
    arguments = ("search", str(path), "--method", "halving", "--out", out, "--concurrency", "2")
    model.interrupt_at = 100  # by then both threads have started: what starts cannot be waited for
    stopped = tale(*arguments, status=130)
    assert "stopping after the calls under way" in stopped.stderr
    assert len(model.calls) < 40 * 7
    tale(*arguments)
    assert len(model.calls) == 40 * 7, "nothing answered was asked again"
