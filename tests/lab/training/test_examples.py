"""What a model learns from a question: the shortest right answer under a budget, and nothing else."""

from __future__ import annotations

import pytest

from tale_lab.curves.elasticity import ElasticitySettings, Measurement
from tale_lab.training import agreed_answer, examples_of

from .conftest import probe, sum_trace, trace


def test_the_answer_under_the_chosen_budget_is_learned() -> None:
    (example,) = examples_of([sum_trace(3)])
    assert example.question == "How much is 3 + 1?"
    assert (example.concise.text, example.concise.tokens, example.concise.budget) == (
        "3 + 1 = 4. Answer: 4",
        20,
        20,
    )
    assert (example.vanilla.tokens, example.vanilla.budget) == (80, None)
    assert example.wrong is not None
    assert example.wrong.text == "Answer: 3"
    assert (example.strategy, example.model, example.source) == ("tale", "adder", "measured")


def test_of_several_answers_under_the_budget_the_shortest_right_one_is_learned() -> None:
    answers = [probe("long", 30, 20), probe("wrong", 5, 20, verdict="wrong"), probe("short", 25, 20)]
    (example,) = examples_of([trace("q", probe("plain", 80), *answers, chosen=20)])
    assert example.concise.text == "short"


@pytest.mark.parametrize(
    "why",
    [
        trace("no budget helped", probe("plain", 80), probe("no", 9, 20, verdict="wrong")),
        trace("cut", probe("plain", 80), probe("cut off", 20, 20, finish_reason="length"), chosen=20),
        trace("longer than without a budget", probe("plain", 10), probe("more", 20, 20), chosen=20),
        trace("empty", probe("plain", 80), probe("  ", 20, 20), chosen=20),
    ],
    ids=lambda one: one.question,
)
def test_a_question_without_a_right_shorter_answer_gives_no_example(why) -> None:
    assert examples_of([why]) == ()


def test_the_vanilla_answer_can_stand_in_where_no_budget_kept_the_answer() -> None:
    lost = trace("q", probe("plain", 80), probe("no", 9, 20, verdict="wrong"))
    (example,) = examples_of([lost], with_vanilla=True)
    assert (example.concise.text, example.concise.budget) == ("plain", None)
    both_wrong = trace("q", probe("plain", 80, verdict="wrong"), probe("no", 9, 20, verdict="wrong"))
    assert examples_of([both_wrong], with_vanilla=True) == ()


def test_bare_answers_can_be_left_out() -> None:
    assert examples_of([sum_trace(3)], min_tokens=21) == ()
    assert len(examples_of([sum_trace(3)], min_tokens=20)) == 1


def test_the_same_question_in_other_spacing_is_one_example_the_shortest() -> None:
    shorter = trace(" HOW much is  3 + 1? ", probe("plain", 80), probe("4", 2, 5), chosen=5, strategy="words")
    for traces in ([sum_trace(3), shorter], [shorter, sum_trace(3)]):
        (example,) = examples_of(traces)
        assert (example.concise.text, example.strategy) == ("4", "words")


def test_a_measured_curve_gives_the_cheapest_right_answer_under_any_budget() -> None:
    answers = (
        probe("plain", 80),
        probe("wrong", 5, 10, verdict="wrong"),
        probe("25", 25, 25),
        probe("30", 30, 50),
    )
    measured = Measurement(question="q", settings=ElasticitySettings(), probes=answers)
    (example,) = examples_of([measured])
    assert example.concise.text == "25"


def test_a_majority_decides_where_no_answer_is_known() -> None:
    wrongly_graded = [
        probe("So it is 4", 80, verdict="wrong"),
        probe("Answer: 4", 20, 20, verdict="wrong"),
        probe("Answer: 5", 10, 10, verdict="correct"),
        probe("no idea", 12, 15, verdict="correct"),
    ]
    (example,) = examples_of([trace("q", *wrongly_graded, chosen=10)], labels="majority")
    assert (example.concise.text, example.concise.tokens) == ("Answer: 4", 20)
    assert example.wrong is not None
    assert example.wrong.text == "no idea"


@pytest.mark.parametrize(
    ("texts", "agreed"),
    [
        (["It is 4", "Answer: 4.0", "[[4]]", "5"], "4"),
        (["Answer: Paris", "The answer is paris.", "Answer: Rome"], "paris"),
        (["4", "4"], None),  # too few
        (["4", "4", "5", "5"], None),  # no majority
        (["perhaps", "who knows", "well", "4"], None),  # unreadable
    ],
)
def test_a_majority_is_more_than_half_of_at_least_three_readable_answers(texts, agreed) -> None:
    assert agreed_answer(texts) == agreed
