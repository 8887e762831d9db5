"""Tricky answers, graded: as a table, and as math-verify grades them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from tale_lab.questions.answer_extraction import read_number
from tale_lab.questions.datasets import Question
from tale_lab.questions.graders import get_grader

TRICKY = Path(__file__).with_name("tricky.jsonl")
"""Answers that were misread once, or might be: reference, text, verdict, and the grader if not ``auto``."""

ANSWERS = Path(__file__).with_name("answers.jsonl")
"""Answers of the embedded default model to GSM8K and gsm_symbolic questions, in several ways of asking."""


def grade(reference: str, text: str, grader: str = "auto") -> object:
    return get_grader(grader)(Question.of("?", reference))(text)


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        # double brackets
        ("1234", "Answer: [[1,234]]"),
        ("1,234", "[[1234]]."),
        ("366", "[[366 downloads]]"),
        ("366", "[[60 + 180 + 126 = 366]]"),
        ("366", "[[answer]] is [[366]]"),
        ("5", "[[5]]\n[[5]]\n[["),
        # boxes
        ("18", r"Therefore \boxed{18}."),
        ("18", r"\[ \boxed{\$18} \]"),
        ("18", r"\boxed{18 \text{ dollars}}"),
        ("18", r"\boxed{x=18}"),
        ("18", r"\boxed{17}, no wait: \boxed{18}"),
        ("18", r"$\boxed{18}$. Let me check: 9 * 2 = 18, with 16 eggs."),
        # money
        ("18", "She makes $18.00."),
        ("18", "**$18**"),
        ("18", "Answer: $18/day"),
        ("18", "18€"),
        ("-18", "-$18"),
        ("-18", "Answer: -$18.00"),
        # thousands
        ("70000", "$70,000"),
        ("70000", r"\$70{,}000"),
        ("70000", "[[70 000]]"),
        ("1500000", "1.5 million dollars"),
        # fractions
        ("0.75", "3/4 of a cup"),
        ("3/4", "0.75"),
        ("3/4", r"\boxed{\frac{3}{4}}"),
        ("3/4", r"\boxed{\frac34}"),
        ("-3/4", r"\boxed{-\dfrac{3}{4}}"),
        ("1.5", "1 1/2 cups"),
        ("1.5", "1½"),
        ("1.5", r"1\frac{1}{2}"),
        # percentages
        ("25", "25%"),
        ("25", r"\boxed{25\%}"),
        ("25%", "0.25"),
        ("25", "The answer is 25 percent of the 200 apples."),
        # units
        ("12", "Answer: 12 apples"),
        ("12", "Answer: 12 apples, which leaves 3 for Tom"),
        ("60", "60 km/h"),
        ("8", "The area is 8 m^2"),
        ("8", "The area is 8 m²."),
        ("8", r"\boxed{8\text{ cm}^2}"),
        # signs
        ("-5", "x = −5"),
        ("-5", "The temperature is -5°C"),
        ("3", "He eats 3 of them:\n- 3 apples"),
        ("4", "10 - 4"),
        # LaTeX
        ("18", r"The answer is \( 18 \)."),
        ("18", r"The answer is \( \frac{36}{2} = 18 \)."),
        ("18", r"\(9 \times 2 = \$18\)"),
        # labels
        ("42", "6 * 7 = 42. #### 42"),
        ("42", "6 * 7 = 42.\n####\n42"),
        ("42", "#### $42.00"),
        ("12", "**Answer:** 12"),
        ("12", "### Answer\n12\n\nThis took 3 steps."),
        ("12", "The correct answer is 12, because 3 * 4 = 12"),
        ("12", "So the answer is 3 * 4 = 12"),
        # further talk
        ("12", "Answer:\n12\n\nExplanation: there are 3 boxes of 4 each."),
        ("12", "12\n\nExplanation: there are 3 boxes with 4 in each."),
        ("18", "Step 1: 16 - 3 - 4 = 9\nStep 2: 9 * 2 = 18\nAnswer: 18 (in 2 steps)"),
        ("42", "#### 42\n\nQ: Tom has 5 apples. How many are left?\nA: 5. #### 5"),
        ("5", "Answer: 5\n\nHuman: What is 7 * 8?\nAssistant: The answer is 56."),
        # loops
        ("5", "The answer is 5.\nThe answer is 5.\nThe answer is"),
        ("5", "Answer: 5\nAnswer: 5\nAnswer:"),
        ("42", "#### 42\n#### 42\n#### 42"),
        # thinking
        ("5", "<think>it is 4</think>The answer is 5"),
    ],
)
def test_a_right_number_is_found_in_every_dress(reference: str, text: str) -> None:
    assert grade(reference, text) == "correct"


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("18", "Step 1: 9 * 2 = 18\nStep 2: 18 - 3 = 15\nAnswer: 15"),  # a step has it, the answer has not
        ("18", "16 - 3 - 4 = 9, and 9 * 2 = 18. #### 9"),
        ("18", "[[17]]. Was it 18?"),
        ("18", r"\boxed{17} is near 18"),
        ("18", "18 - 1 = 17"),
        ("5", "-5"),
        ("-5", "5"),
        ("0.25", "25"),
        ("70000", "70"),
        ("0.5", "1/3"),
        ("5", "#### 42\n\nQ: Tom has 5 apples. How many are left?\nA: 5. #### 5"),  # its own question
    ],
)
def test_a_right_number_in_the_wrong_place_is_no_answer(reference: str, text: str) -> None:
    assert grade(reference, text) == "wrong"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "I do not know.",
        "<think>it is 5</think>",
        "<think>it is 5, so",
        "[[answer]]",
    ],
)
def test_a_text_without_a_number_is_unreadable(text: str) -> None:
    assert grade("5", text) == "unreadable"


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "b",
        "(B)",
        "**B**",
        "**B) 12**",
        "B) 12 apples",
        "[[b]]",
        r"\boxed{B}",
        r"\boxed{\text{B}}",
        r"\boxed{\textbf{(B)}\ 12}",
        "#### (B)",
        "Answer: B",
        "The answer is $B$.",
        "The answer is **B**",
        "Final Answer: Option B",
        "The correct answer is B, because A is too small.",
        "The correct option is B",
        "So the correct choice is B.",
        "Option B is correct, A is not.",
        "Therefore, option (B) is right, not (A).",
        "I would choose B over the others",
        "B is the answer.",
        "(A) no. (C) no. So (B).",
        "A: no\nB: yes\nAnswer: B",
    ],
)
def test_the_letter_of_a_choice_is_found_in_a_sentence(text: str) -> None:
    assert grade("B", text) == "correct"
    assert grade("C", text) == "wrong"


@pytest.mark.parametrize(
    "text", ["A dog ran", "I think so", "Answer: I think so", "none of them", "A is not what I would say", ""]
)
def test_an_article_or_a_pronoun_is_no_letter(text: str) -> None:
    assert grade("A", text) == grade("I", text) == "unreadable"


def test_our_reading_of_real_answers_agrees_with_math_verify(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "math_verify")
    texts = [json.loads(line)["text"] for line in ANSWERS.read_text(encoding="utf-8").splitlines()]
    numbers = [(text, number) for text in texts if (number := read_number(text))]
    odd = [
        f"{number.value}, in {text[-120:]!r}"
        for text, number in numbers
        if grade(str(number.value), text, "math") != "correct"
    ]
    assert len(numbers) > 200
    assert 1 - len(odd) / len(numbers) >= 0.98, "math-verify reads these differently:\n" + "\n".join(odd)


@pytest.mark.parametrize("grader", ["auto", "numeric", "math"])
def test_the_graders_agree_that_a_neighbouring_number_is_wrong(grader: str) -> None:
    texts = [json.loads(line)["text"] for line in ANSWERS.read_text(encoding="utf-8").splitlines()][::6]
    for text in texts:
        number = read_number(text)
        if number is not None:
            assert grade(str(number.value + 1), text, grader) == "wrong", text


@pytest.mark.parametrize("row", TRICKY.read_text(encoding="utf-8").splitlines())
def test_a_tricky_answer_is_graded_as_a_person_would(row: str) -> None:
    known = json.loads(row)
    assert grade(known["reference"], known["text"], known.get("grader", "auto")) == known["verdict"]
