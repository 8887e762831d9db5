"""Questions with known answers, from files, generators and the Hugging Face hub.

A source is named by a string, so that a command line can name it and a results file can record it:

==============================  ==============================================================
``questions.jsonl``             one JSON object a line, with ``question`` and ``answer``
``questions.csv``               a header with ``question`` and ``answer``
``gsm_symbolic:200:seed=7``     200 questions of a reasoning-gym task; options follow
``hf:openai/gsm8k:main:test``   a Hugging Face dataset: name, configuration, split
``questions.jsonl[400:460]``    any of them, only these positions (from 0, the end excluded)
==============================  ==============================================================
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import itertools
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field

from tale_core.errors import DataError, MissingExtraError
from tale_core.types import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OnError: TypeAlias = Literal["stop", "skip"]
"""What a malformed entry leads to: ``stop`` with an error, or ``skip`` it and say so."""

Row: TypeAlias = tuple[str, "dict[str, Any] | DataError"]
"""Where an entry stands (``data.jsonl line 7``), and the entry or what is wrong with it."""

ANSWER_FORMAT = (
    "Please Give the response by strictly following this format: [[answer]], for example: Answer: [[50]]."
)
"""The instruction of the published evaluation (arXiv 2412.18547); some models copy its example."""

DATA_GRADERS = frozenset({"auto", "choice", "exact", "gym", "judge", "math", "numeric", "structured"})
"""Graders that a data file may name; numeric with options (``numeric:tolerance=0.01``), too."""

_NUMERIC_OPTIONS = re.compile(r"numeric(?::\w+=[\w.]+)+")
_SLICE = re.compile(r"\[(?P<start>\d*):(?P<stop>\d*)\]$")
_GYM = re.compile(r"(?P<task>[a-z0-9_]+):(?P<size>\d+)(?P<options>(?::\w+=[^:]+)*)")
_FILES = {".jsonl", ".ndjson", ".csv"}
_GSM8K_MARK = "####"
_ID_DIGITS = 16  # 64 bits: no two questions of a dataset share one by chance


class Question(Record):
    """One question whose answer is known.

    Example:
        >>> Question.of("How much is 3 + 4?", "7").id
        'a734c487fc846b61'
    """

    id: str
    """A digest of question and answer: the same question has the same id in every file."""
    question: str = Field(min_length=1)
    """The question, as it is put to the model."""
    answer: str = Field(min_length=1)
    grader: str | None = None
    """Name of the grader that the source asks for; None leaves the choice to the caller."""
    meta: dict[str, Any] = Field(default_factory=dict)
    """Whatever else the source says about the question."""

    @classmethod
    def of(
        cls, question: str, answer: str, *, grader: str | None = None, meta: dict[str, Any] | None = None
    ) -> Question:
        """Return a question with its id.

        Args:
            question: The question.
            answer: The reference answer.
            grader: Name of the grader that fits it.
            meta: Anything else.
        """
        digest = hashlib.sha256(f"{question}\0{answer}".encode("utf-8", "surrogatepass")).hexdigest()[
            :_ID_DIGITS
        ]
        return cls(id=digest, question=question, answer=answer, grader=grader, meta=meta or {})


class Dataset(Record):
    """Questions, and where they came from."""

    source: str
    """The string that names them, slice included."""
    questions: tuple[Question, ...]
    """The questions, in the order of the source."""
    skipped: tuple[str, ...] = ()
    """What was wrong with each entry that was left out."""
    merged: int = 0
    """How many entries repeated an earlier one and were left out."""

    @property
    def digest(self) -> str:
        """A digest of the questions, whatever the file is called."""
        return hashlib.sha256(" ".join(one.id for one in self.questions).encode()).hexdigest()[:_ID_DIGITS]

    def __len__(self) -> int:
        """Return the number of questions."""
        return len(self.questions)


def load_dataset(
    source: str, *, on_error: OnError = "stop", limit: int | None = None, instruction: str = ""
) -> Dataset:
    """Read questions with known answers.

    Args:
        source: What to read; the forms are listed at the top of this module.
        on_error: Whether a malformed entry stops the reading or is left out.
        limit: Most questions to keep; None keeps all.
        instruction: Put after every question, such as `ANSWER_FORMAT`.

    Raises:
        DataError: The source cannot be read or holds no questions, an entry is malformed, or the same
            question stands there with two answers.
        MissingExtraError: The source needs a package that is not installed.
    """
    name, start, stop = split_slice(source)
    rows = itertools.islice(_rows(name), start, stop)
    questions: dict[str, Question] = {}
    skipped: list[str] = []
    merged = 0
    for where, row in rows:
        if limit is not None and len(questions) >= limit:
            break
        try:
            merged += _add(questions, _question(where, row, instruction), where)
        except DataError as exc:
            if on_error == "stop":
                raise
            skipped.append(str(exc))
    if not questions:
        raise DataError(f"{source}: no questions there{f'; {skipped[0]}' if skipped else ''}")
    return Dataset(source=source, questions=tuple(questions.values()), skipped=tuple(skipped), merged=merged)


def split_slice(source: str) -> tuple[str, int, int | None]:
    """Split ``name[start:stop]`` into the name and the positions, from 0, the end excluded."""
    match = _SLICE.search(source)
    if match is None or Path(source).exists():  # a file may be named like a slice
        return source, 0, None
    start, stop = match["start"], match["stop"]
    return source[: match.start()], int(start) if start else 0, int(stop) if stop else None


def check_disjoint(**datasets: Dataset) -> None:
    """Make sure that no question stands in two datasets, so that nothing is tested on what it was tuned on.

    Raises:
        DataError: A question stands in two of them; says which and how many.
    """
    for (one, left), (other, right) in itertools.combinations(datasets.items(), 2):
        # By the words, not the id: the same question with another answer would leak just as well.
        asked = {question.question for question in left.questions}
        both = [question.question for question in right.questions if question.question in asked]
        if both:
            raise DataError(
                f"{len(both)} questions are both in {one} ({left.source}) and in {other} ({right.source}), the "
                f"first: {both[0][:60]!r}; choose slices that do not overlap"
            )


def check_grader(grader: object, where: str) -> None:
    """Make sure that data names a grader that data may name: never a function, which would be imported and run.

    Raises:
        DataError: It is none of `DATA_GRADERS`.
    """
    known = isinstance(grader, str) and (grader in DATA_GRADERS or _NUMERIC_OPTIONS.fullmatch(grader))
    if not known:
        raise DataError(
            f"{where}: data may not name the grader {str(grader)[:60]!r}, only one of "
            f"{', '.join(sorted(DATA_GRADERS))}; leave it out there, and name a function of your own with "
            "--grader module:function"
        )


def _add(questions: dict[str, Question], question: Question, where: str) -> bool:
    """Add a question under its text; return whether it was there already."""
    # Two answers to one question would make one of them wrong for whoever answers it.
    before = questions.setdefault(question.question, question)
    if before.answer != question.answer:
        raise DataError(
            f"{where}: the question {question.question[:60]!r} stands there twice, with the answers "
            f"{before.answer!r} and {question.answer!r}; keep one"
        )
    return before is not question


def _question(where: str, row: dict[str, Any] | DataError, instruction: str) -> Question:
    if isinstance(row, DataError):
        raise row
    texts = {key: _text(where, row, key) for key in ("question", "answer")}
    answer = texts["answer"].rpartition(_GSM8K_MARK)[2].strip()
    if not answer:
        raise DataError(f"{where}: 'answer' is empty after {_GSM8K_MARK!r}; put the answer there")
    meta = {key: value for key, value in row.items() if key not in {"question", "answer", "grader"}}
    text = f"{texts['question']}\n{instruction}" if instruction else texts["question"]
    grader = row.get("grader") or None  # an empty CSV field names none
    if grader is not None:
        check_grader(grader, where)
    return Question.of(text, answer, grader=grader, meta=meta)


def _text(where: str, row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if is_number or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        shown = "there is none" if value is None else f"got {value!r}"
        raise DataError(f"{where}: {key!r} must be a text or a number, {shown}; every entry needs both")
    return value.strip()


def _rows(name: str) -> Iterator[Row]:
    path = Path(name)
    if path.suffix.lower() in _FILES or path.is_file():
        return _read_csv(path) if path.suffix.lower() == ".csv" else _read_jsonl(path)
    if match := _GYM.fullmatch(name):
        return _generate(match["task"], int(match["size"]), _options(match["options"]))
    if name.startswith("hf:"):
        return _download(*name.removeprefix("hf:").split(":"))
    raise DataError(
        f"no questions at {name!r}: give a .jsonl or .csv file, a reasoning-gym task like "
        "gsm_symbolic:200:seed=7, or a Hugging Face dataset like hf:openai/gsm8k:main:test"
    )


def _opened(path: Path) -> Iterator[bytes]:
    """Yield a file's lines as they are read, without a byte order mark."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file):
                yield line if number else line.removeprefix(b"\xef\xbb\xbf")
    except OSError as exc:
        raise DataError(f"cannot read {str(path)!r}: {exc.strerror}") from exc


def _read_jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_opened(path), 1):
        if line.strip():
            where = f"{path.name} line {number}"
            yield where, _json_row(where, line)


def _json_row(where: str, line: bytes) -> dict[str, Any] | DataError:
    try:
        # Given bytes, json would let encoded halves of surrogate pairs pass.
        row = json.loads(line.decode(), parse_constant=_no_number)
        # JSON may escape half of a surrogate pair, which is no character: it could not be sent or stored.
        if b"\\ud" in line.lower():
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        half = str(exc.object)[exc.start]
        return DataError(f"{where}: holds half of a surrogate pair, {half!r}; write the whole character there")
    except (ValueError, RecursionError) as exc:
        return DataError(f"{where}: not JSON ({exc})")
    if not isinstance(row, dict):
        return DataError(f"{where}: must be a JSON object, got {type(row).__name__}")
    return row


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number there")


def _read_csv(path: Path) -> Iterator[Row]:
    try:
        text = b"".join(_opened(path)).decode()
    except UnicodeDecodeError as exc:
        raise DataError(f"{path.name}: not UTF-8 (byte {exc.start}); save the file as UTF-8") from exc
    # Not splitlines: a field may hold U+2028, a vertical tab and others, which end no line of CSV.
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            where = f"{path.name} line {reader.line_num}"
            if None in row:
                yield where, DataError(f"{where}: more fields than the header has; quote commas")
            else:
                yield where, row
    except csv.Error as exc:
        longer = "; save it as .jsonl, which has no such limit" if "field limit" in str(exc) else ""
        raise DataError(f"{path.name}, after line {reader.line_num}: {exc}{longer}") from exc


def _options(text: str) -> dict[str, Any]:
    """Read ``:seed=7:difficulty=1.5`` into keyword arguments: JSON values, otherwise text."""
    options: dict[str, Any] = {}
    for part in text.split(":")[1:]:
        key, _, value = part.partition("=")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options


def _generate(task: str, size: int, options: dict[str, Any]) -> Iterator[Row]:
    gym = _import("reasoning_gym")
    try:
        entries = gym.create_dataset(task, size=size, **options)
    except (ValueError, TypeError, AssertionError) as exc:
        raise DataError(f"reasoning-gym cannot make {task}:{size} with {options}: {exc}") from exc
    for index, entry in enumerate(entries):
        row = {"question": entry["question"], "answer": entry["answer"], "grader": "gym"}
        yield f"{task} entry {index}", {**row, "task": task, "metadata": _plain(entry["metadata"])}


def _download(name: str, *parts: str) -> Iterator[Row]:
    hub = _import("datasets")
    config, split = (parts[0] if len(parts) > 1 else None), (parts[-1] if parts else "test")
    try:
        entries: Iterable[dict[str, Any]] = hub.load_dataset(name, config, split=split)
    except Exception as exc:  # the hub, its cache and its scripts raise errors of many packages
        raise DataError(f"cannot load hf:{name} (configuration {config}, split {split!r}): {exc}") from exc
    for index, entry in enumerate(entries):
        yield f"hf:{name} entry {index}", _plain(entry)


def _plain(value: Any) -> Any:
    """Return JSON-ready data: what a generator hangs on an entry may be anything."""
    return json.loads(json.dumps(value, default=str))


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as exc:
        raise MissingExtraError(package, "eval") from exc
