"""``tale ask``: what goes where, who chose the budget, and what the comparison says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tale_core.method.calibration import Calibration, Evidence, Measured
from tale_core.testing import ScriptedModel
from tale_core.types import ModelReply, Usage
from tale_lab.cli._asking import shorten

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from tale_core.types import ModelCall

    Tale = Callable[..., Result]
    Opened = Callable[..., list[tuple[Any, ...]]]

QUESTION = "How much is 3 + 4?"
LONG = "First we take three and then we add four to it, which makes seven in all."


def in_three_ways(call: ModelCall) -> str:
    """Answer as long as the prompt allows."""
    prompt = call.messages[-1].content
    if "directly" in prompt:
        return "7"
    return "3 + 4 = 7, of course, as everybody knows" if call.budget is not None else LONG


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    interval = Measured(value=0.5, low=0.4, high=0.6)
    evidence = Evidence(
        data="some questions[0:60]",
        questions=60,
        accuracy=interval,
        baseline_accuracy=interval,
        accuracy_change=Measured(value=0.0, low=-0.1, high=0.1),
        net_tokens=40.0,
        baseline_tokens=80.0,
        token_ratio=interval,
    )
    path = tmp_path / "calibration.json"
    Calibration(model="scripted", strategy="essential", budget=33, evidence=(evidence,)).save(path)
    return path


def test_the_answer_goes_to_standard_output_and_its_accounts_to_standard_error(
    tale: Tale, opened: Opened
) -> None:
    opened(ScriptedModel(estimate="[[40]]", reason="3 + 4 = 7"))
    result = tale("ask", QUESTION)
    assert result.exit_code == 0
    assert result.stdout == "3 + 4 = 7\n"
    accounts = one_line(result.stderr)
    assert "budget 40 (zero-shot), strategy tale" in accounts
    assert "answer 5 output tokens" in accounts
    assert "estimator 1 output tokens" in accounts
    assert "events collapse: fewer than 10 tokens of reasoning, budget 40, actual 5" in accounts


def test_the_model_is_opened_as_the_options_say(tale: Tale, opened: Opened, tmp_path: Path) -> None:
    asked = opened(ScriptedModel("7"))
    tale("ask", QUESTION, "--model", "openai:gpt-4o-mini", "--temperature", "0.5", "--strategy", "direct")
    assert asked == [("openai:gpt-4o-mini", {"temperature": 0.5})]


def test_a_budget_that_is_named_needs_no_estimator(tale: Tale, opened: Opened) -> None:
    script = ScriptedModel("3 + 4 = 7")
    opened(script)
    result = tale("ask", QUESTION, "--budget", "50")
    assert [call.budget for call in script.calls] == [50]
    assert "estimator not asked" in one_line(result.stderr)


def test_a_question_can_come_from_standard_input(tale: Tale, opened: Opened) -> None:
    script = ScriptedModel("7")
    opened(script)
    tale("ask", "-", "--strategy", "direct", stdin=f"  {QUESTION}\n")
    assert script.calls[0].messages[-1].content.endswith(f"\n\n{QUESTION}")


@pytest.mark.parametrize(("question", "stdin"), [("", None), ("  ", None), ("-", "\n")])
def test_an_empty_question_is_refused(tale: Tale, opened: Opened, question: str, stdin: str | None) -> None:
    opened(ScriptedModel("7"))
    result = tale("ask", question, stdin=stdin)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: the question is empty, got ")


def test_a_calibration_chooses_and_says_on_what_evidence(tale: Tale, opened: Opened, calibration: Path) -> None:
    script = ScriptedModel("3 + 4 = 7")
    opened(script)
    result = tale("ask", QUESTION, "--calibration", str(calibration))
    assert script.calls[0].budget == 33
    assert "essential calculations" in script.calls[0].messages[-1].content
    note = result.stderr.splitlines()[0]
    assert note.startswith(
        "the calibration of scripted chooses strategy essential and budget 33 (some questions[0:60]"
    )
    assert "n = 60: 50% of vanilla's output tokens net" in note


def test_a_budget_of_ones_own_keeps_the_calibrations_strategy_and_claims_no_evidence(
    tale: Tale, opened: Opened, calibration: Path
) -> None:
    script = ScriptedModel("3 + 4 = 7")
    opened(script)
    result = tale("ask", QUESTION, "--calibration", str(calibration), "--budget", "20")
    assert script.calls[0].budget == 20
    assert result.stderr.splitlines()[0] == "the calibration of scripted chooses strategy essential"


def test_another_strategy_sets_the_calibration_aside(tale: Tale, opened: Opened, calibration: Path) -> None:
    script = ScriptedModel(estimate="[[60]]", reason="3 + 4 = 7")
    opened(script)
    result = tale("ask", QUESTION, "--calibration", str(calibration), "--strategy", "tale")
    assert script.calls[-1].budget == 60
    assert "calibration" not in result.stderr


def test_the_embedded_models_shipped_calibration_is_used(tale: Tale, opened: Opened) -> None:
    opened(ScriptedModel(reason=LONG), model="qwen2.5-coder-1.5b-instruct-q4_k_m")
    result = tale("ask", QUESTION)
    assert "the calibration of qwen2.5-coder-1.5b-instruct-q4_k_m chooses" in result.stderr


def test_the_language_of_the_prompt_can_be_chosen(tale: Tale, opened: Opened) -> None:
    script = ScriptedModel("7")
    opened(script)
    tale("ask", QUESTION, "--budget", "50", "--language", "zh")
    assert "让我们一步一步思考" in script.calls[0].messages[-1].content


def test_tokens_that_no_provider_counted_are_marked(tale: Tale, opened: Opened) -> None:
    opened(ScriptedModel(ModelReply(text="3 + 4 = 7", finish_reason="stop")))
    assert "answer ~" in one_line(tale("ask", QUESTION, "--budget", "50").stderr)


def test_thinking_is_counted_apart(tale: Tale, opened: Opened) -> None:
    usage = Usage(input_tokens=5, output_tokens=90, reasoning_tokens=80)
    opened(ScriptedModel(ModelReply(text="7", usage=usage, finish_reason="stop")))
    result = tale("ask", QUESTION, "--budget", "100")
    assert "90 output tokens, 80 of them thinking" in one_line(result.stderr)


def test_json_is_one_object_and_nothing_else(tale: Tale, opened: Opened, calibration: Path) -> None:
    opened(ScriptedModel(estimate="[[40]]", reason=LONG))
    result = tale("ask", QUESTION, "--json", "--strategy", "tale")
    assert result.stderr == ""
    data = json.loads(result.stdout)
    assert set(data) == {"question", "model", "way", "answer", "finish_reason", "seconds", "tale", "calls"}
    assert (data["question"], data["model"], data["answer"]) == (QUESTION, "scripted", LONG)
    assert data["finish_reason"] == "stop"
    assert data["tale"]["budget"] == 40
    assert data["tale"]["style"] == data["tale"]["strategy"] == "tale"  # the former key stays
    assert data["tale"]["estimate_usage"]["output_tokens"] == 1
    assert [usage["output_tokens"] for usage in data["calls"]["reason"]] == [16]
    assert [usage["source"] for usage in data["calls"]["estimate"]] == ["measured"]


def test_comparing_puts_the_three_ways_side_by_side_with_net_savings(tale: Tale, opened: Opened) -> None:
    script = ScriptedModel(estimate="Budget: [[12]]", reason=in_three_ways)
    opened(script)
    result = tale("ask", QUESTION, "--compare")
    assert result.exit_code == 0
    rows = {line[:18].strip(): line[18:].split() for line in result.stdout.splitlines() if line.strip()}
    assert "direct vanilla CoT TALE" in one_line(result.stdout)
    assert rows["answer tokens"] == ["1", "16", "10"]
    assert rows["estimator tokens"] == ["-", "-", "2"]
    # (16 - 10 - 2) / 16
    assert rows["net savings"] == ["+94%", "baseline", "+25%"]
    assert "TALE against vanilla CoT: saved 25% of output tokens net" in one_line(result.stdout)


def test_comparing_shows_answers_shortened_and_keeps_them_whole_in_json(tale: Tale, opened: Opened) -> None:
    endless = "We think about it once more. " * 80 + "It is 7."
    opened(ScriptedModel(reason=endless))
    shown = tale("ask", QUESTION, "--compare", "--budget", "50").stdout
    assert len(shown) < 3 * len(endless)
    assert "…" in shown
    assert "It is 7." in one_line(shown)
    data = json.loads(tale("ask", QUESTION, "--compare", "--budget", "50", "--json").stdout)
    assert [one["answer"] for one in data["ways"]] == [endless] * 3


def test_comparing_in_json_has_every_way_and_the_savings(tale: Tale, opened: Opened) -> None:
    opened(ScriptedModel(estimate="Budget: [[12]]", reason=in_three_ways))
    data = json.loads(tale("ask", QUESTION, "--compare", "--json").stdout)
    assert [(one["way"], one["tale"]["strategy"]) for one in data["ways"]] == [
        ("direct", "direct"),
        ("vanilla CoT", "vanilla"),
        ("TALE", "tale"),
    ]
    assert data["savings"] == {
        "baseline": 16,
        "reason": 10,
        "estimate": 2,
        "uncertain": 0,
        "net_tokens": 4,
        "net_ratio": 0.25,
    }


def test_an_answer_that_is_asked_again_is_accounted_for_whole(
    tale: Tale, opened: Opened, tmp_path: Path
) -> None:
    path = tmp_path / "calibration.json"
    policy = {"on_truncation": "retry"}
    path.write_text(json.dumps({"model": "scripted", "strategy": "tale", "budget": 20, "policy": policy}))
    cut = ModelReply(text="3 + 4 =", usage=Usage(output_tokens=30), finish_reason="length")
    opened(ScriptedModel(cut, "3 + 4 = 7"))
    result = tale("ask", QUESTION, "--calibration", str(path))
    assert result.stdout.split() == ["3", "+", "4", "=", "3", "+", "4", "=", "7"]
    assert "answer 35 output tokens, " in one_line(result.stderr)
    assert "in 2 calls" in one_line(result.stderr)


def test_a_strategy_that_does_not_exist_is_one_red_line(tale: Tale, opened: Opened) -> None:
    opened(ScriptedModel("7"))
    result = tale("ask", QUESTION, "--strategy", "tal")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: no prompt strategy named 'tal'; did you mean 'tale'?")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("budget", ["0", "-5"])
def test_a_budget_below_one_is_shown(tale: Tale, opened: Opened, budget: str) -> None:
    opened(ScriptedModel("7"))
    result = tale("ask", QUESTION, "--budget", budget)
    assert result.exit_code == 1
    assert f"got {budget}" in result.stderr


def test_a_temperature_below_zero_is_a_usage_error(tale: Tale, opened: Opened) -> None:
    opened(ScriptedModel("7"))
    result = tale("ask", QUESTION, "--temperature", "-1")
    assert result.exit_code == 2
    assert "--temperature" in result.stderr


def test_interrupting_an_answer_ends_quietly(tale: Tale, opened: Opened) -> None:
    def interrupted(call: ModelCall) -> str:
        raise KeyboardInterrupt

    opened(ScriptedModel(reason=interrupted))
    result = tale("ask", QUESTION, "--strategy", "direct")
    assert result.exit_code == 130
    assert result.stderr.strip() == "stopped"


def test_a_long_text_is_shortened_to_its_start_and_more_of_its_end() -> None:
    text = "start " + "x" * 500 + " the end"
    short = shorten(text, 60)
    assert len(short) == 60
    assert short.startswith("start ")
    assert short.endswith("the end")
    assert shorten("as  it\nis", 60) == "as it is"
