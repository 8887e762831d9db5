"""What a report says: sentences, tables, Markdown, JSON, the paper's figures, and two runs side by side."""

from __future__ import annotations

import json

import pytest
from attempts import ADDRESS, answers, attempt, call, view_of_attempts

from tale_core import InvalidValueError
from tale_lab.bench.report import PUBLISHED, Summary, published_rows, report_of, to_json, to_markdown
from tale_lab.bench.report.assembly import dataset_of
from tale_lab.bench.report.wording import HEADER, remarks, rows, sentences, spending_lines


def summary(by_method, **more):
    return Summary.of(view_of_attempts(by_method, **more))


def cells(found: Summary, label: str) -> dict[str, str]:
    row = next(row for row in rows(found) if row[0] == label)
    return dict(zip(HEADER, row, strict=True))


def test_a_sentence_says_what_is_saved_and_whether_the_method_is_worse():
    rights = [n % 2 == 0 for n in range(400)]
    found = summary(
        {
            "vanilla": answers("vanilla", rights, [100] * 400),
            "tale": answers("tale", rights, [59] * 400, estimate=3),
        }
    )
    assert sentences(found) == {
        "vanilla": "the baseline: 50% correct (45% to 55%) at 100 output tokens.",
        "tale": (
            "saves 41% of output tokens, 38% net, interval 38 to 38%; accuracy +0.0 points, interval -1 to +1 "
            "(p = 1, n = 400): not worse than vanilla by more than 3 points: yes."
        ),
    }


def test_a_method_that_costs_more_is_said_to_cost_more():
    found = summary(
        {"vanilla": answers("vanilla", [True] * 2, [100] * 2), "long": answers("long", [True] * 2, [150] * 2)}
    )
    assert sentences(found)["long"].startswith("costs 50% more output tokens net, interval 50 to 50%;")


def test_what_a_tokenizer_counted_is_marked_everywhere():
    counted = attempt("tale", 0, calls=[call(50, source="estimated")])
    found = summary({"vanilla": [attempt("vanilla", 0)], "tale": [counted]})
    assert cells(found, "tale")["output"] == "~50"
    assert cells(found, "tale")["saved"] == "~+50%"
    assert cells(found, "vanilla")["output"] == "100"
    assert sentences(found)["tale"].startswith("saves about 50% of output tokens net")
    assert "The tokens of 1 answers were counted by a tokenizer, not by the provider." in remarks(found)


def test_a_method_without_an_answer_has_a_row_with_its_errors():
    found = summary({"vanilla": [attempt("vanilla", 0)], "tale": []}, failed={"tale": [0]})
    assert rows(found)[-1] == ("tale", "0", "1", *["-"] * (len(HEADER) - 3))
    assert "Not all of the 1 questions are answered by every method yet." in remarks(found)


def test_without_the_baseline_nothing_is_compared_and_the_report_says_so():
    found = summary({"tale": [attempt("tale", 0)]})
    assert cells(found, "tale")["saved"] == "-"
    assert "nothing to compare with" in sentences(found)["tale"]
    assert (
        remarks(found)[0]
        == "vanilla was not measured, so there is nothing to compare with; add it to --methods."
    )


def test_a_saving_that_would_be_a_great_loss_is_told_as_a_multiple():
    found = summary(
        {"direct": [attempt("direct", 0, tokens=10)], "vanilla": [attempt("vanilla", 0, tokens=125)]}
    )
    assert cells(found, "vanilla")["vs direct"] == "12.5 times"
    assert cells(found, "vanilla")["saved"] == "baseline"


def test_a_baseline_without_tokens_gives_no_saving():
    empty = attempt("vanilla", 0, calls=[call(0)])
    found = summary({"vanilla": [empty], "tale": [attempt("tale", 0)]})
    assert "no saving can be stated" in sentences(found)["tale"]


def test_the_spending_lines_name_the_frontier_and_what_beats_the_others():
    (spending, _) = summary(
        {
            "vanilla": answers("vanilla", [True, False], [100, 100]),
            "tale": answers("tale", [True, True], [40, 40]),
        }
    ).spending
    asked = "on the 2 questions that all answered"
    assert spending_lines(spending) == (
        f"Pareto frontier of accuracy and mean output tokens, {asked}: tale (40, 100%).",
        "For what vanilla spends (100, 50%), tale is 50.0 points more accurate (40, 100%).",
    )


@pytest.mark.parametrize(
    ("source", "dataset"),
    [
        ("hf:openai/gsm8k:main:test", "gsm8k"),
        ("gsm8k.jsonl[0:60]", "gsm8k"),
        ("data/GSM8K-Zero.jsonl", "gsm8k-zero"),
        ("gsm8k_zero.csv", "gsm8k-zero"),
        ("mathbench_college.jsonl", "mathbench-college"),
        ("gsm_symbolic:60:seed=7", None),
        ("my-questions.jsonl", None),
        ("notgsm8k.jsonl", None),
    ],
)
def test_the_published_dataset_is_known_by_the_datas_name(source, dataset):
    assert dataset_of(source) == dataset


def test_the_papers_figures_stand_beside_ours():
    by_method = {"vanilla": [attempt("vanilla", 0)], "tale": [attempt("tale", 0, tokens=40, estimate=5)]}
    paper, ours = published_rows(summary(by_method, data="gsm8k.jsonl", model="small"))
    assert (paper.model, ours.model) == ("GPT-4o-mini", "small")
    assert [str(cell) for cell in paper.cells.values()] == ["28.29 / 12.46", "81.35 / 318.10", "84.46 / 77.26"]
    assert f"{paper.saved:.1%}" == "75.7%"
    assert {name: str(cell) for name, cell in ours.cells.items()} == {
        "vanilla": "100.00 / 100.00",
        "tale": "100.00 / 40.00",
    }
    assert ours.saved == pytest.approx(0.6)


def test_the_papers_savings_follow_from_its_tokens():
    # Table 2 states the saving of each dataset, too.
    stated = {"gsm8k": 75.7, "gsm8k-zero": 91.0, "mathbench-arithmetic": 87.4, "mathbench-middle": 57.0}
    for name, percent in stated.items():
        _, (_, vanilla), (_, tale) = PUBLISHED[name]
        assert 100 * (1 - tale / vanilla) == pytest.approx(percent, abs=0.06)


def test_a_dataset_that_the_paper_has_not_is_an_error():
    with pytest.raises(InvalidValueError, match="no dataset 'gsm'; it has: gsm8k,"):
        published_rows(summary({"vanilla": [attempt("vanilla", 0)]}), "gsm")


def two_runs():
    first = view_of_attempts({"vanilla": answers("vanilla", [True, False], [100, 200])}, file="a.sqlite")
    second = view_of_attempts(
        {"vanilla": answers("vanilla", [True, True], [50, 50]), "tale": [attempt("tale", 0)]},
        file="b.sqlite",
        model="other",
        address=ADDRESS,
    )
    return first, second


def test_two_runs_are_compared_method_by_method_and_the_differences_named():
    (found,) = report_of(two_runs()).comparisons
    assert (
        found.lines[0]
        == "other on data.jsonl, compared with gpt-4o-mini on data.jsonl, on 2 questions that both asked."
    )
    assert "model other (was gpt-4o-mini)" in found.lines[1]
    assert "methods only here: tale" in found.lines[1]
    assert list(found.methods) == ["vanilla"]
    assert found.methods["vanilla"].saved == pytest.approx(2 / 3)
    assert found.methods["vanilla"].gained == 1


def test_runs_of_one_name_are_told_apart_by_their_files():
    first, _ = two_runs()
    again = first.model_copy(update={"file": "c.sqlite"})
    titles = [section.title for section in report_of([first, again]).sections]
    assert titles == ["gpt-4o-mini on data.jsonl (a.sqlite)", "gpt-4o-mini on data.jsonl (c.sqlite)"]


def test_markdown_keeps_its_table_whatever_names_hold():
    view = view_of_attempts(
        {"vanilla": [attempt("vanilla", 0)], "a|b*": [attempt("a|b*", 0)]}, data="x|y_z.jsonl"
    )
    text = to_markdown(report_of([view]))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "a\\|b\\*" in text
    assert "## gpt-4o-mini on x\\|y\\_z.jsonl" in text


def test_the_json_has_figures_sentences_and_no_texts():
    view = view_of_attempts({"vanilla": [attempt("vanilla", 0, text="a secret")], "tale": [attempt("tale", 0)]})
    told = json.loads(json.dumps(to_json(report_of([view]))))
    (found,) = told["benchmarks"]
    assert found["methods"][1]["comparisons"][0]["saved"] == 0
    assert set(found["sentences"]) == {"vanilla", "tale"}
    assert "a secret" not in json.dumps(told)
