"""Graders: from a known question to a function that grades one answer text.

A grader is bound to a question first (``numeric(question)``), which fails when the reference answer is none
that it can read. The bound function then never fails: it says correct, wrong or unreadable.
"""

from __future__ import annotations

import importlib
import re
import string
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from tale_core.errors import DataError, InvalidValueError, MissingExtraError
from tale_core.parsing import strip_thinking
from tale_core.types import Flow, Grade, Message, ModelCall, Verdict
from tale_lab.questions.answer_extraction import marked_answer, read_choice, read_number
from tale_lab.questions.datasets import Question

if TYPE_CHECKING:
    from typing import Any

Grader: TypeAlias = Callable[[Question], Grade]
"""Binds a question; what it returns grades the text of one answer."""

# reasoning-gym gives partial credit for form; only a full score is an answer.
_FULL_SCORE = 0.99
_WORD = re.compile(r"[A-Za-z]{2,}")


def exact(question: Question) -> Grade:
    """Compare texts, without regard to case, spacing and closing punctuation."""
    reference = _normalized(question.answer)

    def grade(text: str) -> Verdict:
        marked = marked_answer(text)
        given = [_normalized(one) for one in (text, marked or "")]
        if not any(given):
            return "unreadable"
        return "correct" if reference in given else "wrong"

    return grade


def numeric(question: Question) -> Grade:
    """Compare the number that the text gives as its answer; see `tale_lab.questions.answer_extraction`.

    Raises:
        DataError: The reference answer is no number.
    """
    reference = read_number(question.answer)
    if reference is None:
        raise DataError(
            f"question {question.id}: the reference answer {question.answer!r} is no number; use grader "
            "'exact', 'choice' or 'math'"
        )

    def grade(text: str) -> Verdict:
        number = read_number(text)
        if number is None:
            return "unreadable"
        return "correct" if reference.matches(number) else "wrong"

    return grade


def choice(question: Question) -> Grade:
    """Compare the letter of a multiple choice.

    Raises:
        DataError: The reference answer is no letter from A to J.
    """
    reference = read_choice(question.answer)
    if reference is None:
        raise DataError(
            f"question {question.id}: the reference answer {question.answer!r} is no letter from A to J; use "
            "grader 'exact' or 'numeric'"
        )

    def grade(text: str) -> Verdict:
        letter = read_choice(text)
        if letter is None:
            return "unreadable"
        return "correct" if letter == reference else "wrong"

    return grade


def math(question: Question) -> Grade:
    """Compare mathematical expressions for equality, with math-verify.

    Raises:
        MissingExtraError: math-verify is not installed.
        DataError: math-verify cannot read the reference answer.
    """
    verify = _import("math_verify")
    # Its time limits use signals, which only the main thread may set.
    gold = verify.parse(f"${question.answer}$", parsing_timeout=None)
    if not gold:
        raise DataError(f"question {question.id}: math-verify cannot read {question.answer!r}")

    def grade(text: str) -> Verdict:
        try:
            given = verify.parse(_final(text), parsing_timeout=None)
            if not given:
                return "unreadable"
            return "correct" if verify.verify(gold, given, timeout_seconds=None) else "wrong"
        except Exception:  # noqa: BLE001  # a text that its parser stumbles over holds no answer
            return "unreadable"

    return grade


def gym(question: Question) -> Grade:
    """Use the scorer of the reasoning-gym task that the question came from.

    Raises:
        MissingExtraError: reasoning-gym is not installed.
        DataError: The question did not come from reasoning-gym.
    """
    task = question.meta.get("task")
    if task is None:
        raise DataError(
            f"question {question.id} is not from reasoning-gym; use grader "
            "'numeric', 'exact', 'choice' or 'math'"
        )
    score = _import("reasoning_gym").get_score_answer_fn(task)
    entry = {
        "question": question.question,
        "answer": question.answer,
        "metadata": question.meta.get("metadata", {}),
    }

    def grade(text: str) -> Verdict:
        candidates = _candidates(text, question.answer)
        if not candidates:
            return "unreadable"
        return "correct" if any(_scores(score, one, entry) for one in candidates) else "wrong"

    return grade


def auto(question: Question) -> Grade:
    """Choose by the question: the grader that its source names, else by the form of the reference answer."""
    if question.grader is not None and question.grader != "auto":
        return get_grader(question.grader)(question)
    answer = question.answer.strip()
    if len(answer.strip("().")) == 1 and read_choice(answer):
        return choice(question)
    number = read_number(answer)
    few_words = 3  # "18 dollars" is a number, a sentence with a number in it is not
    if number is not None and len(answer.split()) <= few_words:
        return numeric(question)
    return exact(question)


class Judge:
    """A grader that asks a model; each grade is a flow with one call of role ``judge``.

    Args:
        instruction: What to ask; ``{question}``, ``{reference}`` and ``{answer}`` stand for the texts.
        name: Stands for the judge in keys and records; name the model that judges.

    Example:
        >>> from tale_core import run
        >>> from tale_core.testing import ScriptedModel
        >>> grade = Judge()(Question.of("Capital of France?", "Paris"))
        >>> run(grade("It is Paris."), ScriptedModel("CORRECT"))
        'correct'
    """

    INSTRUCTION = (
        "Question:\n{question}\n\nReference answer:\n{reference}\n\nGiven answer:\n{answer}\n\n"
        "Does the given answer reach the same result as the reference answer? Reply with one word: CORRECT, "
        "WRONG, or UNREADABLE if it gives no result."
    )

    def __init__(self, instruction: str = INSTRUCTION, *, name: str = "judge") -> None:
        missing = [name for name in ("{question}", "{reference}", "{answer}") if name not in instruction]
        if missing:
            raise InvalidValueError(f"the instruction must name {', '.join(missing)}; got {instruction!r}")
        self.instruction = instruction
        self.name = name

    def __call__(self, question: Question) -> Callable[[str], Flow[Verdict]]:
        """Bind a question."""

        def grade(text: str) -> Flow[Verdict]:
            content = self.instruction
            # The answer last: it is the only text that could contain a placeholder by accident.
            parts = {"{question}": question.question, "{reference}": question.answer, "{answer}": text}
            for name, part in parts.items():
                content = content.replace(name, part)
            message = Message(role="user", content=content)
            reply = yield ModelCall(role="judge", messages=(message,), temperature=0)
            return _ruling(reply.text)

        return grade


def from_callable(compare: Callable[[str, Question], bool | Verdict]) -> Grader:
    """Return a grader from a function of the answer text and the question.

    Args:
        compare: Says whether the text answers the question.
    """

    def bind(question: Question) -> Grade:
        return lambda text: compare(text, question)

    # The function's name, not this one's, stands for the grader in keys.
    bind.__module__, bind.__qualname__ = compare.__module__, compare.__qualname__
    return bind


GRADERS: dict[str, Grader] = {
    "auto": auto,
    "choice": choice,
    "exact": exact,
    "gym": gym,
    "judge": Judge(),
    "math": math,
    "numeric": numeric,
}
"""Graders by name."""


def get_grader(grader: str | Grader) -> Grader:
    """Return a grader by name, or the function at ``module:function``; a grader is returned as it is.

    Args:
        grader: A name in `GRADERS`, the import path of a function of the answer text and the question, or a
            grader.

    Raises:
        InvalidValueError: No such grader.
    """
    if not isinstance(grader, str):
        return grader
    if grader in GRADERS:
        return GRADERS[grader]
    module, colon, function = grader.partition(":")
    try:
        if colon:
            return from_callable(getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError, ValueError) as exc:
        raise InvalidValueError(f"cannot import grader {grader!r}: {exc}") from exc
    raise InvalidValueError(
        f"no grader named {grader!r}; known: {', '.join(GRADERS)}, or module:function of (text, question)"
    )


def grader_name(grader: str | Grader) -> str:
    """Return a name that stands for a grader in keys and records."""
    if isinstance(grader, str):
        return grader
    name = getattr(grader, "name", None)
    return name if isinstance(name, str) else f"{grader.__module__}.{getattr(grader, '__qualname__', '?')}"


def _final(text: str) -> str:
    """Return what math-verify is to read: formulas between dollar signs, prose with a number as it is."""
    marked = marked_answer(text)
    if marked is None:
        return strip_thinking(text)
    bare = marked.replace("\\$", "").replace("$", "")
    return bare if "\\" not in bare and _WORD.search(bare) else f"${bare}$"


def _normalized(text: str) -> str:
    plain = unicodedata.normalize("NFKC", strip_thinking(text)).casefold()
    return " ".join(plain.split()).strip(string.punctuation + " ")


def _candidates(text: str, reference: str) -> list[str]:
    """Return the texts to score: the marked answer or the whole text, and the number where one is wanted."""
    marked = marked_answer(text)
    whole = strip_thinking(text).strip() if marked is None else marked.strip(" .*$`")
    candidates = [whole] if whole else []
    if read_number(reference) is None:
        return candidates
    number = read_number(text)
    if number is None:
        return []
    value = number.value
    return [*candidates, str(value) if value.denominator == 1 else repr(float(value))]


def _scores(score: Callable[[str, dict[str, Any]], float], candidate: str, entry: dict[str, Any]) -> bool:
    try:
        return score(candidate, entry) >= _FULL_SCORE
    except Exception:  # noqa: BLE001  # a scorer that stumbles over a text has not accepted it
        return False


def _ruling(text: str) -> Verdict:
    words = strip_thinking(text).upper().replace("INCORRECT", "WRONG")
    found: dict[str, Verdict] = {"CORRECT": "correct", "WRONG": "wrong", "UNREADABLE": "unreadable"}
    last = max(found, key=words.rfind)
    return found[last] if last in words else "unreadable"


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as exc:
        raise MissingExtraError(package, "eval") from exc
