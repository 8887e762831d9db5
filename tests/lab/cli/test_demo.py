"""The demo tells the truth: right and wrong as they are, savings net, and what five questions prove."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest

from tale_core.method.calibration import SHIPPED
from tale_core.prompts.exemplars import LEVELS
from tale_core.testing import ScriptedModel
from tale_lab.cli.demo import QUESTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from tale_core.types import ModelCall

    Tale = Callable[..., Result]
    Opened = Callable[..., list[tuple[Any, ...]]]

QWEN = "qwen2.5-coder-1.5b-instruct-q4_k_m"
ANSWERS = {question.question: question.answer for question in QUESTIONS}
REASONING = "Step by step, one thing after the other, we find that"


def known_answer(call: ModelCall) -> str:
    prompt = call.messages[-1].content
    return next(answer for question, answer in ANSWERS.items() if question in prompt)


def model(*, tale_right: bool) -> ScriptedModel:
    """A model that is right with reasoning, wrong without, and collapses under the published wording."""

    def answer(call: ModelCall) -> str:
        prompt, right = call.messages[-1].content, known_answer(call)
        if "directly" in prompt:
            return "1"
        if "use less than 16 tokens:" in prompt:
            return "[[3]]"
        if call.budget is None:
            return f"{REASONING} {REASONING} {REASONING} {REASONING} the answer is {right}."
        return f"{REASONING} Answer: {right if tale_right else 2}"

    return ScriptedModel(estimate="[[10]]", reason=answer)


def row(result: Result, way: str, occurrence: int = -1) -> list[str]:
    lines = [line for line in result.stdout.splitlines() if re.match(rf"\s*{way}\s", line)]
    return lines[occurrence].split()


def test_the_known_answers_are_right() -> None:
    cooking = 1 * 9
    computed = [
        1 + cooking + Fraction(1, 2) + Fraction(cooking, 2) + 2,
        24 * 3 + 24 // 2 * 5,
        (18 + 25) * 6 + 92,
        (240 - 240 // 4) // 15,
        100 - 2 * 14 - 3 * 18,
    ]
    assert [question.answer for question in QUESTIONS] == [str(one) for one in computed]


def test_the_papers_question_comes_first_word_for_word() -> None:
    assert QUESTIONS[0].question == (
        "Peyton scheduled after-work activities of a one hour yoga class on Monday, a cooking class that lasts "
        "nine times as long on Tuesday, half an hour of cheese tasting on Wednesday, a museum tour that lasts "
        "half as long as the cooking class on Thursday, and two hours of errands on Friday. How many hours "
        "will Peyton spend on after-work activities?"
    )


def test_no_question_is_among_the_examples_that_the_model_is_shown() -> None:
    shown = {question for pairs in LEVELS.values() for question, _ in pairs}
    shown |= {
        one.question
        for calibration in SHIPPED.values()
        for level in calibration.exemplars.values()
        for one in level
    }
    assert shown.isdisjoint(ANSWERS)


def test_every_question_is_marked_and_the_totals_are_net(tale: Tale, opened: Opened) -> None:
    opened(model(tale_right=True), model=QWEN)
    result = tale("demo")
    assert result.exit_code == 0, result.output
    assert row(result, "direct")[1:5] == ["0", "of", "5", "5"]
    assert row(result, "vanilla CoT", -2)[2:6] == ["5", "of", "5", "240"]
    assert row(result, "TALE")[1:5] == ["5", "of", "5", "65"]
    # (240 - 65) / 240
    assert "+73%" in row(result, "TALE")
    assert "17 ✓" in result.stdout
    assert "1 ✗" in result.stdout


def test_wrong_answers_under_a_budget_are_shown_as_wrong(tale: Tale, opened: Opened) -> None:
    opened(model(tale_right=False), model=QWEN)
    result = tale("demo")
    assert row(result, "TALE")[1:4] == ["0", "of", "5"]
    assert "2 ✗" in result.stdout


def test_the_published_prompts_are_shown_collapsing_with_their_event(tale: Tale, opened: Opened) -> None:
    script = model(tale_right=True)
    opened(script, model=QWEN)
    result = tale("demo")
    assert row(result, "--strategy tale")[2:] == ["3", "✗", "1", "+", "1", "+96%", "clamped,", "collapse"]
    shown = " ".join(result.stdout.split())
    assert "budget 16 (zero-shot), strategy tale" in shown
    assert "collapse: fewer than 10 tokens of reasoning" in shown
    assert "The answer collapsed" in shown


def test_the_published_prompts_are_compared_with_vanilla_in_the_same_format(tale: Tale, opened: Opened) -> None:
    script = model(tale_right=True)
    opened(script, model=QWEN)
    tale("demo")
    last = [call.messages[-1].content for call in script.calls if call.role == "reason"][-2:]
    assert all("[[answer]]" in prompt for prompt in last)


@pytest.mark.parametrize(
    ("words", "said"),
    [(10, "This time the answer kept the budget"), (60, "The model did not keep the budget")],
)
def test_an_answer_that_does_not_collapse_is_not_said_to(
    tale: Tale, opened: Opened, words: int, said: str
) -> None:
    opened(ScriptedModel(estimate="[[30]]", reason="word " * words + "17"), model=QWEN)
    shown = " ".join(tale("demo").stdout.split())
    assert said in shown
    assert "The answer collapsed" not in shown


def test_it_says_what_five_questions_prove_and_where_the_figures_are(tale: Tale, opened: Opened) -> None:
    opened(model(tale_right=True), model=QWEN)
    shown = " ".join(tale("demo").stdout.split())
    assert "Five questions prove nothing" in shown
    assert "benchmarks/" in shown


@pytest.mark.parametrize("name", ["some-other-model"])
def test_a_model_without_a_calibration_gets_the_published_method_and_hears_so(
    tale: Tale, opened: Opened, name: str
) -> None:
    opened(model(tale_right=True), model=name)
    shown = " ".join(tale("demo").stdout.split())
    assert "no calibration is shipped for this model" in shown
    assert "The published prompts" not in shown
