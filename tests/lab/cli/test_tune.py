"""``tale tune``: races strategies, proves the winner elsewhere, and writes a calibration that can be used."""

import json

import pytest
from typer.testing import CliRunner

from tale_core import (
    BudgetExample,
    BudgetPolicy,
    Calibration,
    ModelReply,
    RegressionEstimator,
    TaleMethod,
    Usage,
    run,
    search_budget,
)
from tale_core.models.client import ChatClient
from tale_core.models.reasoning_controls import prompt_control
from tale_core.statistics import paired_share_interval
from tale_core.testing import ScriptedModel
from tale_lab.cli import _measuring
from tale_lab.cli.app import app
from tale_lab.results.store import Store


class Adder:
    """A model that adds one; it is right unless the published wording asks for less than 50 tokens."""

    model = "adder"
    address = "http://scripted/v1"
    temperature = 0.0

    def __init__(self):
        self.calls = []
        self.helped = True
        self.broken = False
        self.wrong_from = None

    def __call__(self, call):
        self.calls.append(call)
        prompt = call.messages[-1].content
        if call.role == "judge":
            return ModelReply(text="CORRECT", usage=Usage(output_tokens=1), finish_reason="stop")
        if call.role == "estimate":
            return ModelReply(text="[[20]]", usage=Usage(output_tokens=4), finish_reason="stop")
        number = int(prompt.split()[0])
        if self.broken and number == 3:
            raise TimeoutError("slow")
        bare = (self.wrong_from or 99) <= number and call.budget is not None
        bare = bare or ("less than" in prompt and call.budget is not None and call.budget < 50)
        tokens = 5 if bare else (call.budget or 100) if self.helped else 100
        return ModelReply(
            text=f"Answer: {number + (2 if bare else 1)}",
            usage=Usage(output_tokens=tokens),
            finish_reason="stop",
        )


@pytest.fixture
def model(monkeypatch):
    adder = Adder()
    monkeypatch.setattr(ChatClient, "open", lambda *_, **__: adder)
    return adder


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"question": f"{number} and one?", "answer": str(number + 1)}) for number in range(30)]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))


def tale(*arguments, status=0):
    # A margin that 12 questions can show.
    result = CliRunner().invoke(app, ["tune", "data.jsonl[:20]", "--margin", "30", *arguments])
    assert result.exit_code == status, result.output
    return result


FIELD = ("--strategies", "tale,essential", "--budgets", "20,60", "--multipliers", "1")


def test_the_winner_is_written_as_a_calibration_with_its_proof(model, data):
    result = tale(*FIELD, "--test", "data.jsonl[20:30]")

    calibration = Calibration.load("calibration.json")
    assert (calibration.model, calibration.strategy, calibration.budget) == ("adder", "essential", 20)
    assert calibration.policy == BudgetPolicy(on_slip="retry"), "nothing is written that was not raced"
    assert calibration.chosen_on.startswith("data.jsonl[:20] (20 questions")
    (proof,) = calibration.evidence
    assert (proof.data, proof.questions, proof.token_ratio.value) == (
        "data.jsonl[20:30]",
        10,
        pytest.approx(0.2),
    )
    assert proof.accuracy_change.low == pytest.approx(paired_share_interval(0, 0, 10).low)
    assert "measured elsewhere: data.jsonl[20:30], n = 10: 20%" in result.stdout
    assert "not worse than vanilla by more than 30.0% of the questions: yes" in result.stdout
    assert TaleMethod(calibration=calibration).strategy.name == "essential"


def test_the_bound_is_said_before_and_the_cost_after(model, data):
    result = tale(*FIELD)
    assert "at most" in result.stderr
    assert f"took {len(model.calls):,} calls" in result.stderr
    assert "not measured on other questions" in result.stdout


def test_where_there_is_no_terminal_a_line_says_how_far_a_long_race_is(model, data, monkeypatch):
    monkeypatch.setattr(_measuring, "_SECONDS_BETWEEN_LINES", 0)
    result = tale("--strategies", "essential", "--budgets", "20", "--multipliers", "1")
    assert "30 of 60 answers, about 0 minutes left; 100% right over all methods" in result.stderr


def test_a_second_run_asks_nothing(model, data):
    tale(*FIELD)
    asked = len(model.calls)
    tale(*FIELD)
    assert len(model.calls) == asked


def test_when_nothing_helps_the_calibration_is_no_budget(model, data):
    model.helped = False
    result = tale(*FIELD)
    assert "Nothing beats plain chain of thought" in result.stdout
    assert Calibration.load("calibration.json").strategy == "vanilla"


def test_where_too_few_questions_show_nothing_it_says_how_many_would(model, data):
    result = tale(*FIELD, "--test", "data.jsonl[20:30]", "--margin", "3")
    told = " ".join(result.stdout.split())
    assert "accuracy +0.0 points (-23.1 to +23.1) on 10 questions; about 1,444 more would tell" in told
    assert "Nothing can be shown yet at this margin: the calibration has no budget" in told
    calibration = Calibration.load("calibration.json")
    assert (calibration.strategy, calibration.budget, calibration.evidence) == ("vanilla", None, ())


def test_the_output_can_be_json(model, data):
    told = json.loads(tale(*FIELD, "--no-retry", "--json").stdout)
    assert told["calibration"]["strategy"] == "essential"
    assert {row["candidate"] for row in told["standings"]} == {
        "tale", "tale @20", "tale @60", "essential", "essential @20", "essential @60",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--test", "data.jsonl[10:25]"), "test 1"),
        (("--strategies", "tail"), "did you mean 'tale'"),
        (("--strategies", " , "), "names no strategy"),
        (("--budgets", "50,many"), "'50,many'"),
        (("--budgets", "0"), "got 0"),
        (("--multipliers", "two"), "'two'"),
        (("--out", "missing/calibration.json"), "there is no folder 'missing'"),
        (("--max-cost", "1"), "needs the model's price"),
        (("--workers", "2"), "add --engine ray"),
    ],
)
def test_wrong_arguments_fail_before_any_call(model, data, arguments, message):
    result = tale(*arguments, status=1)
    assert message in result.stderr
    assert not model.calls


def test_a_margin_is_in_points(model, data):
    assert "percentage points" in " ".join(tale("--margin", "0.03", status=2).stderr.replace("│", " ").split())
    assert not model.calls


def test_the_saved_file_clamps_no_estimate_that_the_race_did_not_clamp(model, data):
    tale(*("--strategies", "essential", "--budgets", "60", "--multipliers", "1", "--test", "data.jsonl[20:30]"))
    calibration = Calibration.load("calibration.json")
    (proof,) = calibration.evidence
    assert (calibration.budget, calibration.policy.floor, proof.net_tokens) == (None, 16, 4 + 20), (
        "a floor of 60 would have made it 64"
    )


def test_a_proof_that_shows_the_choice_to_be_worse_makes_the_command_fail(model, data):
    model.wrong_from = 20
    result = tale(*FIELD, "--test", "data.jsonl[20:30]", "--margin", "30", status=1)
    assert "calibration.json is shown to be worse than the margin allows on data.jsonl[20:30]" in result.stderr
    (proof,) = Calibration.load("calibration.json").evidence
    assert proof.accuracy.value == 0, "the evidence is written all the same"


def test_the_proof_is_a_benchmark_of_the_saved_file_that_bench_and_report_go_on_with(model, data):
    tale(*FIELD, "--test", "data.jsonl[20:30]")
    (proof,) = Calibration.load("calibration.json").evidence
    asked = len(model.calls)
    shown = json.loads(CliRunner().invoke(app, ["report", "run.sqlite", "--json"]).stdout)
    (_, calibrated) = shown["benchmarks"][0]["methods"]
    assert (calibrated["label"], calibrated["net_tokens"]) == ("tale-calibration", proof.net_tokens)
    model.control, model.efforts = prompt_control, ()
    methods = ("--methods", "vanilla,tale-calibration", "--calibration", "calibration.json")
    result = CliRunner().invoke(app, ["bench", "data.jsonl[20:30]", *methods])
    assert result.exit_code == 0, result.output
    assert len(model.calls) == asked


def test_answers_that_failed_make_the_command_fail_and_are_retried(model, data):
    model.broken = True
    assert "7 answers failed; run the same command again" in tale(*FIELD, status=1).stderr
    model.broken = False
    tale(*FIELD)


def test_a_spending_limit_ends_the_race_and_the_next_run_goes_on(model, data):
    stopped = tale(*FIELD, "--max-tokens-total", "500", "--concurrency", "1", status=3)
    assert "stopped: the limit of 500 tokens is reached" in stopped.stderr
    some = len(model.calls)
    tale(*FIELD)
    finished = len(model.calls)
    assert 0 < some < finished
    tale(*FIELD)
    assert len(model.calls) == finished


def test_another_model_may_judge(model, data):
    tale("--strategies", "essential", "--budgets", "20", "--judge", "adder")
    assert {call.role for call in model.calls} == {"reason", "estimate", "judge"}


def test_an_estimator_is_not_raced_on_the_questions_it_was_fitted_on(model, data, tmp_path):
    seen = [BudgetExample(question=f"{number} and one?", tokens=20 + number) for number in range(25, 130)]
    RegressionEstimator().fit_table(seen, model=model.model, strategy="tale").save(tmp_path / "budget.skops")
    refused = tale("--test", "data.jsonl[20:30]", "--estimator", "budget.skops", status=1).stderr
    assert "budget.skops was fitted on 5 of the 10 questions of data.jsonl[20:30]" in " ".join(refused.split())
    assert not model.calls


@pytest.fixture
def searched(tmp_path):
    """A results file with finished searches of other questions."""

    def keep(*questions):
        with Store(tmp_path / "searched.sqlite") as store:
            for number, question in enumerate(questions):
                flow = search_budget(question, lambda _: True, method="halving", strategy="essential")
                words = " ".join(["so"] * 30)
                trace = run(flow, ScriptedModel(f"{words} it goes on and on", *[f"{words} {number}"] * 9))
                store.put(question, "search", trace, model="adder", question_id=question)

    return keep


def test_examples_taken_from_searched_answers_race_and_end_in_the_calibration(model, data, searched):
    searched(*(f"{number} and one, in words?" for number in range(100, 106)))
    model.helped = True
    tale("--strategies", "vanilla", "--budgets", "60", "--examples-from", "searched.sqlite")
    calibration = Calibration.load("calibration.json")
    assert (calibration.strategy, calibration.budget) == ("exemplars", 60)
    (level,) = calibration.exemplars.values()
    assert {one.question for one in level} <= {f"{number} and one, in words?" for number in range(100, 106)}
    prompt = TaleMethod(calibration=calibration).strategy.frame("7 and one?", 60)
    assert prompt.examples[0].content.startswith(level[0].question)


def test_examples_never_come_from_a_test_question(model, data, searched):
    searched(*(f"{number} and one?" for number in range(20, 26)))
    result = tale(
        *("--strategies", "vanilla", "--budgets", "60", "--examples-from", "searched.sqlite"),
        *("--test", "data.jsonl[20:30]"),
        status=1,
    )
    assert "6 questions to be asked were searched in searched.sqlite" in " ".join(result.stderr.split())


def test_examples_never_come_from_a_raced_question_either(model, data, searched):
    searched(*(f"{number} and one?" for number in range(20)))
    result = tale("--strategies", "vanilla", "--examples-from", "searched.sqlite", status=1)
    assert "20 questions to be asked were searched in searched.sqlite" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("flags", "on_slip"), [((), "retry"), (("--no-retry",), "record"), (("--no-second-try",), "record")]
)
def test_the_calibration_asks_again_after_an_arithmetic_error_unless_told_otherwise(
    model, data, flags, on_slip
):
    tale("--strategies", "words", "--budgets", "60", *flags)
    assert Calibration.load("calibration.json").policy.on_slip == on_slip
