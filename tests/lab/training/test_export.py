"""``tale export``: the files it writes, how it splits, and what it refuses to write."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from tale_core.errors import DataError, InvalidValueError
from tale_lab.cli.app import app
from tale_lab.questions.datasets import Dataset, Question, load_dataset
from tale_lab.results.store import Store
from tale_lab.training import ExportSettings, export_run, read_export, side_of

from .conftest import fill, probe, sum_trace, trace

if TYPE_CHECKING:
    from pathlib import Path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def settings(file_format: str = "sft", **more: Any) -> ExportSettings:
    return ExportSettings(format=file_format, **more)


def test_sft_asks_the_plain_question_and_answers_under_the_best_budget(searched, tmp_path) -> None:
    facts = export_run(searched(), tmp_path / "out", settings(test_share=0))
    first, *rest = lines(tmp_path / "out" / "train.jsonl")
    assert first == {
        "prompt": [{"role": "user", "content": "How much is 0 + 1?"}],
        "completion": [{"role": "assistant", "content": "0 + 1 = 1. Answer: 1"}],
    }
    assert (len(rest), facts.train, facts.test, facts.saved) == (39, 40, 0, 0.75)


def test_another_prompt_strategy_can_be_trained_for(searched, tmp_path) -> None:
    export_run(searched(), tmp_path / "out", settings(prompt_strategy="vanilla"))
    prompt = lines(tmp_path / "out" / "train.jsonl")[0]["prompt"]
    assert prompt[-1]["content"].endswith("?\n\nLet's think step by step:")
    with pytest.raises(InvalidValueError, match=r"'tale' carries a budget.*'internalised'"):
        export_run(searched(), tmp_path / "out", settings(prompt_strategy="tale"))


@pytest.mark.parametrize(
    ("pairing", "rejected"),
    [("vanilla", ["Let us see."]), ("wrong", ["Answer: 0"]), ("both", ["Let us see.", "Answer: 0"])],
)
def test_dpo_prefers_the_concise_answer_by_the_pairing_rule(searched, tmp_path, pairing, rejected) -> None:
    export_run(searched([sum_trace(0)]), tmp_path / "out", settings("dpo", pairing=pairing, test_share=0))
    pairs = lines(tmp_path / "out" / "train.jsonl")
    assert [pair["chosen"][0]["content"] for pair in pairs] == ["0 + 1 = 1. Answer: 1"] * len(rejected)
    assert [
        pair["rejected"][0]["content"][: len(start)] for pair, start in zip(pairs, rejected, strict=True)
    ] == rejected


def test_openai_files_have_the_form_that_openai_documents(searched, tmp_path) -> None:
    asked, answer = {"role": "user", "content": "How much is 0 + 1?"}, "0 + 1 = 1. Answer: 1"
    rambling = "Let us see. We take 0 and then we add one to it, which is 1. Answer: 1"
    # platform.openai.com/docs/guides/supervised-fine-tuning: a conversation that ends with the answer to learn
    export_run(searched(), tmp_path / "sft", settings("openai-sft", test_share=0))
    assert lines(tmp_path / "sft" / "train.jsonl")[0] == {
        "messages": [asked, {"role": "assistant", "content": answer}]
    }
    # platform.openai.com/docs/guides/direct-preference-optimization
    export_run(searched(), tmp_path / "dpo", settings("openai-dpo", test_share=0))
    assert lines(tmp_path / "dpo" / "train.jsonl")[0] == {
        "input": {"messages": [asked], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [{"role": "assistant", "content": answer}],
        "non_preferred_output": [{"role": "assistant", "content": rambling}],
    }


def test_openai_wants_ten_lines(searched, tmp_path) -> None:
    with pytest.raises(DataError, match="at least 10 lines to train on, there are 9"):
        export_run(
            searched([sum_trace(n) for n in range(9)]), tmp_path / "o", settings("openai-sft", test_share=0)
        )
    assert not (tmp_path / "o").exists()


def test_reward_lines_carry_what_a_reward_function_needs(searched, tmp_path) -> None:
    export_run(searched(), tmp_path / "out", settings("reward", test_share=0))
    assert lines(tmp_path / "out" / "train.jsonl")[3] == {
        "prompt": [{"role": "user", "content": "How much is 3 + 1?"}],
        "question": "How much is 3 + 1?",
        "answer": "4",
        "grader": "auto",
        "meta": "{}",
        "budget": 20,
        "baseline_tokens": 80,
    }


def test_reward_lines_need_the_reference_answers(searched, tmp_path) -> None:
    store = searched(keep_questions=False)
    with pytest.raises(DataError, match=r"'How much is 0 \+ 1\?' is not in the results file; name .* --data"):
        export_run(store, tmp_path / "out", settings("reward"))
    named = Dataset(
        source="sums", questions=tuple(Question.of(f"How much is {n} + 1?", str(n + 1)) for n in range(40))
    )
    export_run(store, tmp_path / "out", settings("reward", test_share=0), data=named)
    assert lines(tmp_path / "out" / "train.jsonl")[3]["answer"] == "4"


@pytest.mark.parametrize("file_format", ["sft", "dpo", "openai-sft", "openai-dpo", "reward"])
def test_no_question_is_on_both_sides_in_any_format(searched, tmp_path, file_format) -> None:
    facts = export_run(searched(), tmp_path / "out", settings(file_format, test_share=0.4, pairing="both"))
    sides = [
        {str(asked(line)) for line in lines(tmp_path / "out" / name)} for name in ("train.jsonl", "test.jsonl")
    ]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 40
    assert facts.test > 0


def asked(line: dict[str, Any]) -> Any:
    if "input" in line:
        return line["input"]["messages"]
    return line["messages"][:-1] if "messages" in line else line["prompt"]


def test_the_split_depends_on_the_words_and_the_seed_alone() -> None:
    def test_side(seed: int) -> set[int]:
        return {n for n in range(500) if side_of(f"How much is {n}?", seed=seed, test_share=0.2) == "test"}

    assert test_side(1) == test_side(1)
    assert test_side(1) != test_side(2)
    assert 60 <= len(test_side(1)) <= 140
    assert side_of("  how much IS 7? ", seed=1, test_share=0.5) == side_of(
        "How much is 7?", seed=1, test_share=0.5
    )


def test_held_out_questions_can_be_measured_also_those_without_an_example(searched, tmp_path) -> None:
    unsolved = [trace(f"How much is {n} + 1?", probe("?", 9, verdict="wrong")) for n in range(40, 80)]
    store = searched([*(sum_trace(n) for n in range(40)), *unsolved])
    facts = export_run(store, tmp_path / "out", settings(test_share=0.5))
    held_out = load_dataset(str(tmp_path / "out" / "held_out.jsonl"))
    assert len(held_out) > facts.test
    assert {side_of(one.question, seed=1024, test_share=0.5) for one in held_out.questions} == {"test"}


def test_the_card_says_where_the_data_came_from_and_how_long_answers_were(searched, tmp_path) -> None:
    facts = export_run(searched(), tmp_path / "out", settings("dpo"))
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for said in ("sums.jsonl", "adder", "tale", "internalised", "40 questions were measured", facts.digest):
        assert said in card
    assert re.search(r"without a budget \| 80 \|", card)
    assert re.search(r"to learn \| 20 \|", card)
    assert "the answer without a budget" in card
    assert "graded against reference answers" in card
    assert re.search(r"^ +77 to 83 +█+ 40 +0$", card, re.MULTILINE)
    assert re.search(r"^ +14 to 20 +0 +█+ 40$", card, re.MULTILINE)


def test_an_export_by_majority_says_so(searched, tmp_path) -> None:
    votes = [probe("so 4", 80), probe("4!", 20, 20), probe("[[4]]", 25, 25)]
    export_run(
        searched([trace("How much is 3 + 1?", *votes)]),
        tmp_path / "o",
        settings(labels="majority", test_share=0),
    )
    assert "Labels: by majority. No reference answer" in (tmp_path / "o" / "README.md").read_text(
        encoding="utf-8"
    )


def test_what_was_exported_is_read_again(searched, tmp_path) -> None:
    facts = export_run(searched(), tmp_path / "out", settings(test_share=0.3))
    again, train, test = read_export(tmp_path / "out")
    assert again == facts
    assert (len(train), len(test)) == (facts.train, facts.test)


def test_a_folder_that_is_no_export_is_refused(searched, tmp_path) -> None:
    with pytest.raises(DataError, match=r"not a folder of training data .*tale export"):
        read_export(tmp_path)
    export_run(searched(), tmp_path / "out", settings())
    (tmp_path / "out" / "train.jsonl").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        read_export(tmp_path / "out")


@pytest.mark.parametrize(
    ("traces", "more", "complaint"),
    [
        ([], {}, "no finished search; make some with: tale search"),
        (
            [trace("How much is 1 + 1?", probe("3", 9, verdict="wrong"))],
            {},
            "not one answer was graded correct",
        ),
        ([trace("How much is 1 + 1?", probe("2", 9))], {}, "1 answers are right, but none under a budget"),
        ([sum_trace(1)], {"labels": "majority"}, "no majority"),
        ([sum_trace(1)], {"model": "other"}, "of model 'other'"),
        ([sum_trace(1)], {"strategy": "words"}, "in strategy 'words'"),
        ([sum_trace(1)], {"test_share": 0.999}, "no examples are left to train on"),
    ],
)
def test_an_export_of_nothing_says_why(searched, tmp_path, traces, more, complaint) -> None:
    if more.get("labels") == "majority":
        traces = [trace("How much is 1 + 1?", probe("2", 9), probe("3", 5, 6))]
    with pytest.raises(DataError, match=complaint):
        export_run(searched(traces), tmp_path / "out", settings(**more))
    assert not (tmp_path / "out").exists()


def test_the_command_writes_and_says_what(tmp_path) -> None:
    with Store(tmp_path / "run.sqlite") as store:
        fill(store, [sum_trace(n) for n in range(40)])
    arguments = ["export", str(tmp_path / "run.sqlite"), "--format", "dpo", "--out", str(tmp_path / "pairs")]
    plain = CliRunner().invoke(app, arguments)
    assert plain.exit_code == 0, plain.output
    assert "75% of the tokens saved, in hindsight" in plain.stdout
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert (found["saved"], found["examples"], found["settings"]["format"]) == (0.75, 40, "dpo")


def test_the_command_names_a_missing_results_file(tmp_path) -> None:
    ran = CliRunner().invoke(app, ["export", str(tmp_path / "none.sqlite")])
    assert ran.exit_code == 1
    assert "there is no results file" in ran.stderr
