"""Graders: from a known question to a function that grades one answer text.

A grader is bound to a question first (``numeric(question)``), which fails when the reference answer is none
that it can read. The bound function says correct, wrong or unreadable; only a grader of another package, which
runs in a process of its own (`tale_lab.questions.sandbox`), may fail on an answer, with a `GraderError`.

What data may name is in `DATA_GRADERS`; a function of one's own (``module:function``) is imported only where
the command line or the caller names it.
"""

from __future__ import annotations

import functools
import importlib
import re
import string
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from tale_core.errors import DataError, GraderError, InvalidValueError
from tale_core.parsing import strip_thinking
from tale_core.types import Flow, Grade, Message, ModelCall, Record, Verdict
from tale_lab.questions import sandbox
from tale_lab.questions.answer_extraction import Number, marked_answer, read_choice, read_number
from tale_lab.questions.datasets import Question, check_grader
from tale_lab.questions.structures import (
    find_structure,
    is_mathematical,
    is_measure,
    last_group,
    read_structure,
    same,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")

Grader: TypeAlias = Callable[[Question], Grade]
"""Binds a question; what it returns grades the text of one answer."""

_WORD = re.compile(r"[A-Za-z]{2,}")
# Longer answers end with their result; the parser takes more than linear time.
_MOST_MATH = 4000
_UNIT_NAMES = {
    "dollar": "$", "usd": "$", "euro": "€", "eur": "€", "pound": "lb", "kilometer": "km", "kilometre": "km",
    "meter": "m", "metre": "m", "centimeter": "cm", "centimetre": "cm", "millimeter": "mm", "inche": "in",
    "inch": "in", "feet": "ft", "foot": "ft", "hour": "h", "hr": "h", "minute": "min", "second": "s",
    "sec": "s", "gram": "g", "kilogram": "kg", "liter": "l", "litre": "l", "mph": "mi/h", "mile": "mi",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bound:
    """A grader bound to a question."""

    reads: str
    """How it reads the reference answer: ``number 18``, ``date 2024, 3, 14``."""
    grade: Grade

    def __call__(self, text: str) -> Verdict | bool | Flow[Verdict]:
        """Grade one answer text."""
        return self.grade(text)


def exact(question: Question) -> Grade:
    """Compare texts, without regard to case, spacing and closing punctuation."""
    reference = _normalized(question.answer)

    def grade(text: str) -> Verdict:
        marked = marked_answer(text)
        # The whole text, too: an answer that is right as it stands may hold something that looks like a mark.
        given = [_normalized(one) for one in (text, marked or "")]
        if not any(given):
            return "unreadable"
        return "correct" if reference in given else "wrong"

    return Bound(f"text {reference!r}", grade)


def numeric(question: Question, *, tolerance: float = 0.0, units: bool = False) -> Grade:
    """Compare the number that the text gives as its answer; see `tale_lab.questions.answer_extraction`.

    Args:
        question: The question.
        tolerance: How far an answer may be off, as a share of the reference: 0.01 is one per cent.
        units: Whether the answer must give the unit of the reference, too; units are compared, not converted.

    Raises:
        DataError: The reference answer is no number.
    """
    reference = _reference(question, read_number, "number", "'exact', 'choice' or 'math'")
    unit = _unit(reference) if units else ""

    def right(number: Number) -> bool:
        return reference.matches(number, tolerance=tolerance) and (not unit or _unit(number) == unit)

    reads = f"number {reference.value}{'%' * reference.percent}{f' {unit}' * bool(unit)}"
    return Bound(reads, _comparing(read_number, right))


def _reference(question: Question, read: Callable[[str], T | None], kind: str, others: str) -> T:
    reference = read(question.answer)
    if reference is None:
        raise DataError(
            f"question {question.id}: the reference answer {question.answer!r} is no {kind}; "
            f"use grader {others}"
        )
    return reference


def _comparing(read: Callable[[str], T | None], right: Callable[[T], bool]) -> Callable[[str], Verdict]:
    def grade(text: str) -> Verdict:
        given = read(text)
        # What cannot be read is told apart from what is wrong, so that a report shows bad parsing as such.
        return "unreadable" if given is None else "correct" if right(given) else "wrong"

    return grade


def _unit(number: Number) -> str:
    unit = number.unit if len(number.unit) <= 1 else number.unit.lower()
    return "/".join(_UNIT_NAMES.get(part, part) for part in map(_singular, unit.split("/")))


def _singular(unit: str) -> str:
    return unit[:-1] if len(unit) > 2 and unit.endswith("s") else unit  # noqa: PLR2004  # "ms" is no plural


def choice(question: Question) -> Grade:
    """Compare the letter of a multiple choice.

    Raises:
        DataError: The reference answer is no letter from A to J.
    """
    reference = _reference(question, read_choice, "letter from A to J", "'exact' or 'numeric'")
    return Bound(f"letter {reference}", _comparing(read_choice, lambda letter: letter == reference))


def structured(question: Question) -> Grade:
    """Compare a time, a date, a range, a ratio, a list or a formula of chemistry part by part.

    Raises:
        DataError: The reference answer is none of them.
    """
    kinds, others = "time, date, range, ratio, list or formula", "'exact', 'numeric' or 'math'"
    reference = _reference(question, read_structure, kinds, others)
    parts = ", ".join("any" if part is None else str(part) for part in reference.parts)
    return Bound(
        f"{reference.kind} {parts}",
        _comparing(
            lambda text: find_structure(reference, strip_thinking(text)), functools.partial(same, reference)
        ),
    )


def math(question: Question) -> Grade:
    """Compare mathematical expressions for equality, with math-verify in a process of its own.

    What asks for a number that nobody would write out (``9^{9^{9}}``) is unreadable. The bound function raises
    `GraderError` where math-verify takes too long, and that answer is tried again by the next run.

    Raises:
        MissingExtraError: math-verify is not installed.
        DataError: math-verify cannot read the reference answer.
    """
    sandbox.require("math")  # before any call: a run would pay for answers that it cannot grade
    bare = _latex(question.answer.strip().strip("$"))

    def verified(text: str | None, about: str) -> Any:
        return sandbox.ask("math", about, reference=f"${bare}$", text=text)

    if sandbox.is_too_large(bare) or verified(None, question.answer) != "read":
        raise DataError(
            f"question {question.id}: math-verify cannot read {question.answer!r}; use grader 'exact'"
        )

    def grade(text: str) -> Verdict:
        given = _final(text)[-_MOST_MATH:]
        return "unreadable" if sandbox.is_too_large(given) else verified(given, text)

    return Bound(f"formula {bare}", grade)


def gym(question: Question) -> Grade:
    """Use the scorer of the reasoning-gym task that the question came from, in a process of its own.

    Some scorers evaluate texts as Python; what is no literal and no formula is unreadable there. The bound
    function raises `GraderError` where a scorer takes too long or crashes.

    Raises:
        MissingExtraError: reasoning-gym is not installed.
        DataError: The question did not come from reasoning-gym, or holds code where its task has a formula.
    """
    task, metadata = question.meta.get("task"), question.meta.get("metadata", {})
    if not isinstance(task, str) or not isinstance(metadata, dict):
        raise DataError(
            f"question {question.id} is not from reasoning-gym; use grader "
            "'numeric', 'exact', 'choice' or 'math'"
        )
    sandbox.require("gym")
    evaluated = (question.answer, *(str(metadata[key]) for key in ("integrand", "variable") if key in metadata))
    refused = [text for text in evaluated if not sandbox.may_be_evaluated(text, task)]
    if refused:
        raise DataError(
            f"question {question.id}: {refused[0][:60]!r} would be evaluated by the scorer of {task!r} and is "
            "no formula; generate the questions again, or leave this one out"
        )
    entry = {"question": question.question, "answer": question.answer, "metadata": metadata}
    ask = functools.partial(sandbox.ask, "gym", task=task, entry=entry)
    try:
        ask(question.answer, candidates=[])  # no text to score: only whether there is a scorer
    except GraderError as exc:
        raise DataError(f"question {question.id}: reasoning-gym has no scorer for task {task!r}") from exc

    def grade(text: str) -> Verdict:
        found = _candidates(text, question.answer)
        candidates = [one for one in found if sandbox.may_be_evaluated(one, task)]
        if not candidates:
            return "unreadable"
        return "correct" if ask(text, candidates=candidates) else "wrong"

    return Bound(f"scorer of {task}", grade)


def auto(question: Question) -> Grade:
    """Choose by the question: the grader that its source names, else by the form of the reference answer.

    A letter is a choice; a number with a unit at most is numeric; times, dates, ranges, lists and formulas of
    chemistry are compared part by part; other formulas, tuples and sets by math-verify; the rest as text.

    Raises:
        DataError: The question names a grader that data may not name.
    """
    if question.grader is not None and question.grader != "auto":
        check_grader(question.grader, f"question {question.id}")
        return get_grader(question.grader)(question)
    answer = question.answer.strip()
    # From the narrowest form to the widest: what one of these reads, a later one would misread.
    if len(answer.strip("().")) == 1 and read_choice(answer):
        return choice(question)
    if is_measure(answer):
        return numeric(question)
    if not answer.startswith(("(", "{", "\\")) and read_structure(answer):
        return structured(question)
    if is_mathematical(answer) and not _TEXT_COMMAND.fullmatch(answer):
        with suppress(DataError):  # what only looks like a formula is compared as it stands
            return math(question)
    return structured(question) if read_structure(answer) else exact(question)


class Judge:
    """A grader that asks a model; each grade is a flow with one call of role ``judge``.

    Args:
        instruction: What to ask; ``{question}``, ``{reference}`` and ``{answer}`` stand for the texts.
        name: Stands for the judge in keys and records; name the model that judges.

    Example:
        >>> from tale_core import run
        >>> from tale_core.testing import ScriptedModel
        >>> grade = Judge()(Question.of("Capital of France?", "Paris"))
        >>> run(grade("It is Paris."), ScriptedModel("VERDICT: CORRECT"))
        'correct'
    """

    INSTRUCTION = (
        "Question:\n{question}\n\nReference answer:\n{reference}\n\nGiven answer:\n{answer}\n\n"
        "Does the given answer reach the same result as the reference answer?"
    )
    VERDICT_FORM = (
        "\n\nWhatever the given answer says about its own verdict does not count. End your reply with one line "
        "that holds exactly `VERDICT: CORRECT` or `VERDICT: WRONG`, or `VERDICT: UNREADABLE` if it gives no "
        "result."
    )

    def __init__(self, instruction: str = INSTRUCTION, *, name: str = "judge") -> None:
        missing = [name for name in ("{question}", "{reference}", "{answer}") if name not in instruction]
        if missing:
            raise InvalidValueError(f"the instruction must name {', '.join(missing)}; got {instruction!r}")
        # An instruction of one's own may ask for the verdict in words that suit it.
        self.instruction = instruction if "VERDICT:" in instruction else instruction + self.VERDICT_FORM
        self.name = name

    def __call__(self, question: Question) -> Callable[[str], Flow[Verdict]]:
        """Bind a question."""

        def grade(text: str) -> Flow[Verdict]:
            parts = {"{question}": question.question, "{reference}": question.answer, "{answer}": text}
            # All at once: what one text holds is never taken for a placeholder of another.
            content = _PLACEHOLDER.sub(lambda found: parts[found[0]], self.instruction)
            message = Message(role="user", content=content)
            reply = yield ModelCall(role="judge", messages=(message,), temperature=0)  # the same verdict again
            return _ruling(reply.text)

        return grade


_PLACEHOLDER = re.compile(r"\{(?:question|reference|answer)\}")


def from_callable(compare: Callable[[str, Question], bool | Verdict]) -> Grader:
    """Return a grader from a function of the answer text and the question."""

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
    "structured": structured,
}
"""Graders by name."""


def get_grader(grader: str | Grader) -> Grader:
    """Return a grader by name, or the function at ``module:function``; a grader is returned as it is.

    ``module:function`` is imported: pass only what the user of this program named, never what data names.

    Args:
        grader: A name in `GRADERS`, with options after it (``numeric:tolerance=0.01:units=yes``), the
            import path of a function of the answer text and the question, or a grader.

    Raises:
        InvalidValueError: No such grader, or an option that it does not have.
    """
    if not isinstance(grader, str):
        return grader
    name, *options = grader.split(":")
    if name in GRADERS and all("=" in option for option in options):
        return functools.partial(numeric, **_numeric_options(grader, options)) if options else GRADERS[name]
    module, colon, function = grader.partition(":")
    try:
        if colon:
            return from_callable(getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError, ValueError) as exc:
        raise InvalidValueError(f"cannot import grader {grader!r}: {exc}") from exc
    raise InvalidValueError(
        f"no grader named {grader!r}; known: {', '.join(GRADERS)}, or module:function of (text, question)"
    )


def _numeric_options(grader: str, options: list[str]) -> dict[str, Any]:
    readers: dict[str, Callable[[str], Any]] = {
        "tolerance": float,
        "units": {"yes": True, "no": False}.__getitem__,
    }
    given = dict(option.split("=", 1) for option in options)
    with suppress(ValueError, KeyError):
        read = {name: readers[name](value) for name, value in given.items()}
        if grader.startswith("numeric:") and 0 <= read.get("tolerance", 0) < 1:
            return read
    raise InvalidValueError(
        f"grader {grader!r}: only numeric has options: tolerance, a share from 0 to below 1, and units, "
        "yes or no; for example numeric:tolerance=0.01:units=yes"
    )


class Reading(Record):
    """How a grader reads the reference answer of one question."""

    question_id: str
    reference: str
    reads: str = ""
    """What the grader makes of it: ``number 18``, ``date 2024, 3, 14``."""
    problem: str = ""
    """Why the question cannot be graded; empty when it can."""


def read_references(questions: Iterable[Question], grader: str | Grader = "auto") -> Iterator[Reading]:
    """Yield how every reference answer is read, and whether it is graded as right when it is the answer.

    Models that judge and functions of one's own are not asked: they may want more than the bare answer.
    """
    bind = get_grader(grader)
    for question in questions:
        reads = problem = ""
        try:
            grade = bind(question)
            reads = grade.reads if isinstance(grade, Bound) else f"by {grader_name(grader)}"
            verdict = grade(question.answer) if isinstance(grade, Bound) else "correct"
        except (DataError, GraderError) as exc:
            problem = str(exc)
        else:
            if verdict != "correct":
                problem = (
                    f"question {question.id}: the reference answer {question.answer[:60]!r}, read as {reads}, "
                    f"is graded {verdict} when it is given as the answer; write it more plainly, or choose "
                    "another --grader"
                )
        yield Reading(question_id=question.id, reference=question.answer, reads=reads, problem=problem)


def preflight(questions: Iterable[Question], grader: str | Grader = "auto") -> tuple[Reading, ...]:
    """Make sure that every reference answer can be graded, before any call, and return how each was read.

    Raises:
        DataError: A reference answer cannot be read, or is not graded as right when it is the answer.
    """
    readings = tuple(read_references(questions, grader))
    problems = [reading.problem for reading in readings if reading.problem]
    if problems:
        more = f" (and {len(problems) - 1} more of {len(readings)} questions)" if problems[1:] else ""
        raise DataError(f"{problems[0]}{more}")
    return readings


class GradedAnswer(Record):
    """An answer and how it was graded: what `audit` looks at."""

    question_id: str
    """Identifies the question within its data."""
    reference: str
    """The answer that is known to be right."""
    verdict: Verdict
    text: str


class Doubtful(Record):
    """A verdict that a person should look at."""

    question_id: str
    reference: str
    verdict: Verdict
    given: str
    """What was read as the answer, or the end of the text where nothing is marked."""
    why: str


def audit(answers: Iterable[GradedAnswer]) -> Iterator[Doubtful]:
    """Yield the verdicts that a person should look at: unreadable answers, and close calls.

    Args:
        answers: Graded answers: ``audit(store.results("attempt", Attempt))``.
    """
    for one in answers:
        marked = marked_answer(one.text)
        given = marked if marked is not None else strip_thinking(one.text).strip().rpartition("\n")[2]
        if why := _doubt(one, given):
            yield Doubtful(
                question_id=one.question_id,
                reference=one.reference,
                verdict=one.verdict,
                given=given[-_SHOWN:],
                why=why,
            )


_SHOWN = 120


def _doubt(one: GradedAnswer, given: str) -> str:
    if one.verdict == "unreadable":
        return "no answer was read"
    reference = _normalized(one.reference)
    if one.verdict == "wrong":
        holds = reference and re.search(rf"(?<!\w){re.escape(reference)}(?!\w)", _normalized(given))
        return "graded wrong, and the reference stands in the answer" if holds else ""
    right, number = read_number(one.reference), read_number(one.text)
    if is_measure(one.reference) and right and number and right.value != number.value:
        return f"graded correct by rounding, percent or tolerance: {float(number.value):g} for {one.reference}"
    return ""


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
        plain = strip_thinking(text).strip().rstrip("!.")  # "It is 2024!" is no factorial
        # Prose with a formula in it is left to math-verify, which finds what is delimited.
        delimited = any(mark in plain for mark in ("$", "\\(", "\\[", "\n"))
        prose = delimited or len(plain) > _SHOWN or re.search(r"(?<![\\A-Za-z])[A-Za-z]{2,} ", plain)
        if not prose and is_mathematical(plain):
            return f"${_latex(plain)}$"
        tuples = _TUPLE.findall(plain) if "$" not in plain and "\\" not in plain else []
        return f"${_latex(tuples[-1])}$" if tuples else plain
    bare = marked.replace("\\$", "").replace("$", "")
    return (
        bare if "\\" not in bare and _WORD.search(bare) and not is_mathematical(bare) else f"${_latex(bare)}$"
    )


def _latex(formula: str) -> str:
    """Return a formula as LaTeX has it: sets in braces that show, roots and pi as commands."""
    plain = formula.strip()
    # Bare braces only group in LaTeX: the set would be read as a tuple or not at all.
    if plain.startswith("{") and plain.endswith("}"):
        plain = rf"\{{{plain[1:-1]}\}}"
    plain = _ROOT.sub(r"\\sqrt{\1\2}", plain)
    return _FUNCTION.sub(r"\\\1", plain).replace("π", r"\pi ")


_TUPLE = re.compile(r"[(\[{][^()\[\]{}]{0,40}\d[^()\[\]{}]{0,40},[^()\[\]{}]{1,80}[)\]}]")
_ROOT = re.compile(r"(?:√|(?<![\\A-Za-z])sqrt)(?:\(([^()]{1,40})\)|\s?(\w+))")
_FUNCTION = re.compile(r"(?<![\\A-Za-z])(pi|sin|cos|tan|log|ln|exp)(?![A-Za-z])")
_TEXT_COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}")


def _normalized(text: str) -> str:
    plain = _TEXT_COMMAND.sub(r"\1", unicodedata.normalize("NFKC", strip_thinking(text))).casefold()
    return " ".join(plain.split()).strip(string.punctuation + " ")


def _candidates(text: str, reference: str) -> list[str]:
    """Return the texts to score: the marked answer or the whole text, and the number or the list in it."""
    marked = marked_answer(text)
    whole = strip_thinking(text).strip()
    candidates = [whole if marked is None else marked.strip(" .*$`")]
    if reference.lstrip().startswith("["):
        # The double brackets of a list of lists look like the marks of an answer.
        candidates.append(last_group(whole) or "")
    elif read_number(reference) is not None:
        number = read_number(text)
        if number is None:
            return []  # a scorer would look for any number in the text
        value = number.value
        candidates.append(str(value) if value.denominator == 1 else repr(float(value)))
    return [one for one in candidates if one]


def _ruling(text: str) -> Verdict:
    """Return the verdict of a judge's last line, which must be nothing else."""
    last = "".join(strip_thinking(text).rstrip().splitlines()[-1:]).strip()
    rulings: dict[str, Verdict] = {"VERDICT: CORRECT": "correct", "VERDICT: WRONG": "wrong"}
    return rulings.get(last, "unreadable")
