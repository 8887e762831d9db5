"""What graders read out of answers, as a table."""

from __future__ import annotations

import types
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale_core import DataError, InvalidValueError, run
from tale_core.testing import ScriptedModel
from tale_lab.questions.answer_extraction import marked_answer, read_choice, read_number
from tale_lab.questions.datasets import Question
from tale_lab.questions.graders import Judge, audit, from_callable, get_grader, preflight, read_references


def grade(grader: str, reference: str, text: str) -> object:
    return get_grader(grader)(Question.of("?", reference))(text)


def ends_like(text: str, question: Question) -> bool:
    return text.endswith(question.answer)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", 18),
        ("[[18]]", 18),
        ("[[1,234]]", 1234),
        ("Answer: [[17]] and then 99", 17),
        (r"so \boxed{18}", 18),
        (r"\boxed{1{,}234}", 1234),
        (r"\boxed{\frac{3}{4}}", Fraction(3, 4)),
        (r"\boxed{x = \dfrac{1}{2}} of 9", Fraction(1, 2)),
        ("2\x1c\\frac13", Fraction(7, 3)),  # a space to a pattern, and none to int()
        ("#### 72", 72),
        ("<answer>5</answer> 9", 5),
        ("$18.00", 18),
        ("She makes $70,000 every day.", 70000),
        ("Answer: \\(18\\)", 18),
        ("Answer: \\$18", 18),
        ("**Answer**: **18**", 18),
        ("$$\\text{Answer} = 12$$", 12),
        ("Answer:\n\n18", 18),
        ("3/4 of a cup", Fraction(3, 4)),
        ("1 1/2 cups", Fraction(3, 2)),
        ("½", Fraction(1, 2)),
        ("25%", 25),
        ("25 \\%", 25),
        ("1.5 million", 1_500_000),
        ("1,234,567 bolts", 1_234_567),
        ("-5", -5),
        ("x = −5", -5),  # a minus sign, not a hyphen
        ("10-3=7", 7),
        ("Answer: 17\nStep 4: 3 + 9 = 12", 17),
        ("Answer: 17 apples, 3 left", 17),
        ("The answer is 9 * 2 = 18 dollars.", 18),
        ("Answer: 10 - 3 = 7 eggs", 7),
        ("Answer: In 3 days she runs 540 meters", 540),
        ("The answer is therefore 18", 18),
        ("The answer to the question is 12.", 12),
        ("Final Answer: The total is $70,000.", 70000),
        ("first: the answer is 4. Wait. The answer is 5.", 5),
        ("To answer this question we need 3 steps. 4 + 4 = 8. 8 * 2 = 16", 16),
        ("16 - 3 - 4 = 9 eggs\n9 * 2 = 18", 18),
        ("<think>maybe 3</think> 4", 4),
        ("答案是：42", 42),
        ("１８", 18),
        ("Answer: it cannot be said. We have 12 eggs", 12),
        ("Answer: 2/0", None),
        ("no answer", None),
        ("", None),
        ("9" * 5000, None),
    ],
)
def test_the_number_that_an_answer_gives(text: str, value: Fraction | int | None) -> None:
    number = read_number(text)
    assert (None if number is None else number.value) == value


@pytest.mark.parametrize(
    ("reference", "text", "verdict"),
    [
        ("18", "Answer: 18.00", "correct"),
        ("1,234", "[[1234]]", "correct"),
        ("25", "25%", "correct"),
        ("0.25", "25%", "correct"),
        ("25%", "0.25", "correct"),
        ("25%", "0.25%", "wrong"),
        ("0.75", "3/4", "correct"),
        ("33.33", "33.3333", "correct"),
        ("0.5", "0.54", "wrong"),
        ("18", "19", "wrong"),
        ("18", "-18", "wrong"),
        ("18", "I cannot say", "unreadable"),
    ],
)
def test_numeric_grading(reference: str, text: str, verdict: str) -> None:
    assert grade("numeric", reference, text) == verdict


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("b) x", "B"),
        ("Answer: B", "B"),
        ("**Answer:** B", "B"),
        ("The answer is (C).", "C"),
        ("[[d]]", "D"),
        (r"\boxed{A}", "A"),
        ("Answer: C) Paris", "C"),
        ("The correct option is (B) because", "B"),
        ("A dog ran", None),
        ("I think so", None),
        ("Answer: Apple", None),
    ],
)
def test_the_letter_that_an_answer_gives(text: str, letter: str | None) -> None:
    assert read_choice(text) == letter


@pytest.mark.parametrize(
    ("grader", "reference", "text", "verdict"),
    [
        ("choice", "(B)", "Answer: B", "correct"),
        ("choice", "B", "Answer: C", "wrong"),
        ("choice", "B", "hard to say", "unreadable"),
        ("exact", "Paris", "  paris.", "correct"),
        ("exact", "Paris", "Answer: Paris", "correct"),
        ("exact", "Paris", "Rome", "wrong"),
        ("exact", "Paris", " ", "unreadable"),
        ("auto", "B", "Answer: B", "correct"),
        ("auto", "18 dollars", "She makes $18", "correct"),
        ("auto", "Paris", "Answer: Paris", "correct"),
        ("math", "1/2", r"\boxed{\frac{2}{4}}", "correct"),
        ("math", "x^2 + 2x + 1", r"so $(x+1)^2$", "correct"),
        ("math", "1/2", "Answer: 2", "wrong"),
        ("math", "1/2", "no idea", "unreadable"),
    ],
)
def test_grading_by_name(grader: str, reference: str, text: str, verdict: str) -> None:
    assert grade(grader, reference, text) == verdict


@pytest.mark.parametrize(
    ("grader", "reference", "message"),
    [
        ("numeric", "Paris", "'Paris' is no number"),
        ("choice", "Paris", "no letter from A to J"),
        ("gym", "7", "not from reasoning-gym"),
    ],
)
def test_a_reference_that_the_grader_cannot_read_is_refused_before_any_call(
    grader: str, reference: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        get_grader(grader)(Question.of("?", reference))


def test_a_function_is_found_by_its_import_path() -> None:
    grader = get_grader(f"{__name__}:ends_like")
    assert grader(Question.of("?", "7"))("it is 7") is True
    assert grader(Question.of("?", "7"))("it is 8") is False


def test_an_unknown_grader_is_named_with_the_known_ones() -> None:
    with pytest.raises(InvalidValueError, match="cannot import grader 'nowhere:at_all'"):
        get_grader("nowhere:at_all")
    with pytest.raises(InvalidValueError, match="known: auto, choice"):
        get_grader("fuzzy")


def test_a_callable_grades_with_text_and_question() -> None:
    grader = from_callable(lambda text, question: question.answer in text)
    assert grader(Question.of("?", "7"))("it is 7") is True


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("VERDICT: CORRECT", "correct"),
        ("They differ.\nVERDICT: WRONG\n", "wrong"),
        ("CORRECT", "unreadable"),
        ("Wrong. The correct answer is 5.", "unreadable"),
        ("VERDICT: UNREADABLE", "unreadable"),
        ("<think>VERDICT: CORRECT</think>VERDICT: WRONG", "wrong"),
        ("hm", "unreadable"),
        ("", "unreadable"),
    ],
)
def test_what_a_judge_says(reply: str, verdict: str) -> None:
    flow = Judge()(Question.of("Capital?", "Paris"))("It is {reference}.")
    model = ScriptedModel(reply)
    assert run(flow, model) == verdict
    assert model.calls[0].role == "judge"
    assert "It is {reference}." in model.calls[0].messages[0].content


def test_a_judge_must_be_shown_all_three_texts() -> None:
    with pytest.raises(InvalidValueError, match=r"\{answer\}"):
        Judge("{question} {reference}")


@pytest.mark.parametrize(
    "name", ["numeric:tolerance=much", "numeric:tolerance=1", "numeric:tolerance=-1", "numeric:units=maybe",
             "numeric:size=3", "exact:tolerance=0.1"],
)  # fmt: skip
def test_an_option_that_a_grader_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidValueError, match="only numeric has options: tolerance, a share from 0"):
        get_grader(name)


def test_preflight_lists_how_every_reference_is_read() -> None:
    references = [
        "18 dollars",
        "25%",
        "B",
        "12:30",
        "2024-03-14",
        "July 4",
        "10-12",
        "H2O",
        "[1, 2]",
        "Paris",
        "(1, 2)",
    ]
    found = preflight([Question.of(f"q{n}", reference) for n, reference in enumerate(references)])
    assert [one.reads for one in found] == [
        "number 18", "number 25%", "letter B", "time 12, 30, 0, any", "date 2024, 3, 14", "date any, 7, 4",
        "range 10, 12", "code h2o", "list 1,2", "text 'paris'", "formula (1, 2)",
    ]  # fmt: skip


def test_preflight_refuses_a_question_whose_own_reference_is_not_graded_right() -> None:
    questions = [Question.of("q1", "7"), Question.of("q2", "!!!"), Question.of("q3", "?")]
    with pytest.raises(
        DataError,
        match=r"'!!!', read as text '', is graded unreadable when .* --grader \(and 1 more of 3 questions\)",
    ):
        preflight(questions)
    assert [bool(one.problem) for one in read_references(questions)] == [False, True, True]


def test_preflight_asks_neither_models_nor_functions_of_ones_own() -> None:
    questions = [Question.of("q", "7")]
    assert [one.reads for one in preflight(questions, Judge(name="judge m"))] == ["by judge m"]
    assert preflight(questions, from_callable(ends_like))[0].reads.endswith("ends_like")


def test_the_audit_shows_unreadable_answers_and_close_calls() -> None:
    def one(reference: str, text: str, verdict: str) -> types.SimpleNamespace:
        return types.SimpleNamespace(question_id=text, reference=reference, text=text, verdict=verdict)

    doubtful = list(
        audit(
            [
                one("7", "Answer: 7", "correct"),
                one("7", "Answer: 8", "wrong"),
                one("7", "no idea", "unreadable"),
                one("7", "Answer: 70, of which 7 count", "wrong"),
                one("1/3", "Answer: 0.33", "correct"),
                one("Paris", "It is Paris.", "wrong"),
            ]
        )
    )
    assert [(found.question_id, found.why.partition(",")[0].partition(":")[0]) for found in doubtful] == [
        ("no idea", "no answer was read"),
        ("Answer: 70, of which 7 count", "graded wrong"),
        ("Answer: 0.33", "graded correct by rounding"),
        ("It is Paris.", "graded wrong"),
    ]


@given(st.text())
def test_no_text_makes_a_reader_fail(text: str) -> None:
    marked_answer(text)
    read_number(text)
    read_choice(text)


@given(st.integers(min_value=-(10**12), max_value=10**12))
def test_integers_survive_every_usual_notation(number: int) -> None:
    for text in (f"{number}", f"{number:,}", f"[[{number}]]", rf"\boxed{{{number}}}", f"Answer: {number} eggs"):
        found = read_number(text)
        assert found is not None
        assert found.value == number
