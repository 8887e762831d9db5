"""Feed the readers of text with mutated inputs, and check what must hold for every text.

    python benchmarks/fuzz.py                      # 1,000,000 inputs for each reader
    python benchmarks/fuzz.py answers --inputs 50000 --seed 7
    python benchmarks/fuzz.py models --coverage    # guided by coverage; needs the package atheris

A reader may refuse (None, unreadable, a DataError), but it never raises anything else, never hangs, and never
says a budget below 1. The first input that breaks this is printed and ends the run with exit status 1.
"""

from __future__ import annotations

import argparse
import inspect
import json
import random
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tale_core.errors import DataError, InvalidValueError, UnknownModelError
from tale_core.method.arithmetic import find_slips
from tale_core.method.calibration import SHIPPED, Calibration
from tale_core.models.model_strings import ModelString, shown_address
from tale_core.parsing import parse_budget
from tale_core.types import Estimate
from tale_lab.questions.answer_extraction import marked_answer, read_choice, read_number
from tale_lab.questions.datasets import Question, load_dataset
from tale_lab.questions.graders import exact, get_grader, numeric, structured
from tale_lab.questions.structures import is_mathematical, is_measure, read_structure

if TYPE_CHECKING:
    from collections.abc import Callable

CORPUS = Path(__file__).parents[1] / "tests" / "lab" / "questions"
PIECES = (
    "[[", "]]", "\\boxed{", "}", "{", "####", "Answer:", "answer is", "答案是", "<think>", "</think>",
    "\n", " ", "-", "−", ",", ".", ":", "/", "%", "^", "**", "\\frac", "½", "²", "١", "e9", "=", "x",
    "(", ")", "or", "to", "and", "A", "B", "12", "007", "1,234", "9" * 50, "three", "million", "March",
    "2024", "pm", "H2O", "tokens", "budget", "\u2028", "\0", "\ud800", "\U0001f600", "nan", "inf", '"',
    "\\", "\\u", "$", "°C", "km/h", "local", "openai:", "http://", "https://u:p@", "[::1]", "#", ":80/v1", "?",
    "null", "true", "1e400", '"budget":', '"policy":{"floor":', '"exemplars":{"1":[', '"curve":[', ",,",
)  # fmt: skip
LONGEST = 2000  # characters; a whole calibration is nearly as long
VERDICTS = {"correct", "wrong", "unreadable"}


def budgets(text: str) -> None:
    """A budget is a whole number from 1, or none."""
    budget = parse_budget(text)
    assert budget is None or (isinstance(budget, int) and budget >= 1)


def answers(text: str) -> None:
    """Every text is read, and a reference that is graded at all is graded by one of three verdicts."""
    marked = marked_answer(text)
    assert marked is None or isinstance(marked, str)
    assert read_choice(text) in {None, *"ABCDEFGHIJ"}
    read_number(text)
    assert GRADES[len(text) % len(GRADES)](text) in VERDICTS  # by turns: each sees a tenth of the inputs


def references(text: str) -> None:
    """Every reference answer is read as something, or refused."""
    is_measure(text)
    is_mathematical(text)
    if text:
        question = Question.of("?", text.encode(errors="replace").decode())
        bind = structured if read_structure(question.answer) else (exact, numeric)[len(text) % 2]
        with suppress(DataError):
            assert bind(question)(question.answer) in VERDICTS


def arithmetic(text: str) -> None:
    """What is reported does not come out."""
    for slip in find_slips(text):
        assert slip.put_right()


def datasets(text: str) -> None:
    """A file holds questions, or is refused with words."""
    FILE.write_bytes(text.encode(errors="surrogatepass"))
    for name in (FILE, FILE.with_suffix(".csv")):
        if name != FILE:
            name.write_bytes(b"question,answer\n" + FILE.read_bytes())
        try:
            for question in load_dataset(str(name)).questions:
                question.question.encode()
        except DataError as exc:
            if not str(exc):
                raise


def calibrations(text: str) -> None:
    """A file is a calibration that can be used and written again, or is refused with words."""
    FILE.write_bytes(text.encode(errors="surrogatepass"))
    with suppress(InvalidValueError):
        found = Calibration.load(FILE)
        assert found.budget is None or found.budget >= 1
        budget, _ = found.policy.decide(Estimate(tokens=len(text), source="zero-shot"))
        assert budget.tokens is not None
        assert budget.tokens >= 1
        found.save(FILE)
        assert Calibration.load(FILE) == found
        found.prompt_strategy()


def models(text: str) -> None:
    """A string names a model of one kind, or is refused; and no password is shown."""
    with suppress(UnknownModelError):
        found = ModelString.read(text)
        assert (found.address is None) == (found.kind == "local")
        if found.address is not None:
            assert "@" not in shown_address(found.address).split("/")[2]


TARGETS: dict[str, Callable[[str], None]] = {
    one.__name__: one for one in (budgets, answers, references, arithmetic, datasets, calibrations, models)
}
GRADES = [
    get_grader("auto")(Question.of("?", reference))
    for reference in ("12", "B", "12:30", "March 14, 2024", "10-12", "[1, 2]", "10, 12", "H2O", "3:4", "Paris")
]
FILE = Path(tempfile.mkdtemp()) / "data.jsonl"


def seeds(target: str) -> list[str]:
    """Return texts to begin with."""
    if target == "models":
        return ["local:qwen", "openai:gpt-4o", "http://localhost:8000/v1#m/n", "https://u:p@[::1]:80/api#m"]
    if target == "calibrations":
        small = Calibration(model="m", strategy="tale", budget=50, exemplars={30: ()})
        shipped = [one.model_copy(update={"exemplars": {}, "evidence": ()}) for one in SHIPPED.values()]
        return [
            one.model_dump_json(exclude_defaults=bare) for one in (small, *shipped) for bare in (True, False)
        ]
    rows = [json.loads(line) for name in ("tricky", "answers") for line in (CORPUS / f"{name}.jsonl").open()]
    if target == "datasets":
        return [json.dumps({"question": row["text"], "answer": row.get("reference", "1")}) for row in rows]
    return [row["reference" if target == "references" and "reference" in row else "text"] for row in rows]


def mutated(text: str, other: str, draw: random.Random) -> str:
    """Return a text with a few pieces put in, taken out, doubled or exchanged with another text."""
    for _ in range(draw.randint(1, 6)):
        at, to = sorted((draw.randint(0, len(text)), draw.randint(0, len(text))))
        match draw.randrange(5):
            case 0:
                text = text[:at] + draw.choice(PIECES) + text[at:]
            case 1:
                text = text[:at] + text[to:]
            case 2:
                text = text[:to] + text[at:to] + text[to:]
            case 3:
                text = text[:at] + other[at:to] + text[to:]
            case _:
                text = text[:at] + chr(draw.choice((draw.randrange(128), draw.randrange(0x3000)))) + text[at:]
    return text[:LONGEST]


def guided(target: str, inputs: int, seed: int) -> int:
    """Feed one reader with what atheris makes up from the branches that were taken; does not return."""
    import atheris  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415  # an own environment has it

    folder = Path(tempfile.mkdtemp())
    for number, text in enumerate(seeds(target)):
        (folder / str(number)).write_bytes(text.encode(errors="surrogatepass"))
    for module in [one for name, one in sys.modules.items() if name.startswith(("tale_", "urllib.parse"))]:
        values = [one for one in vars(module).values() if getattr(one, "__module__", "") == module.__name__]
        for holder in (values, *(vars(one).values() for one in values if inspect.isclass(one))):
            for value in map(inspect.unwrap, [getattr(one, "__func__", one) for one in holder]):
                if inspect.isfunction(value):
                    atheris.instrument_func(value)
    options = [sys.argv[0], f"-runs={inputs}", f"-seed={seed}", f"-max_len={LONGEST}", "-print_final_stats=1"]
    atheris.Setup([*options, str(folder)], lambda data: TARGETS[target](data.decode(errors="surrogateescape")))
    atheris.Fuzz()
    return 0


def main() -> int:
    """Feed the readers that are named, or all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--coverage", action="store_true", help="guided by coverage, one reader")
    asked = parser.parse_args()
    if asked.coverage:
        if len(asked.targets) != 1:
            parser.error("--coverage takes one reader: " + ", ".join(TARGETS))
        return guided(asked.targets[0], asked.inputs, asked.seed)
    for name in asked.targets or TARGETS:
        draw, corpus, began = random.Random(asked.seed), seeds(name), time.perf_counter()  # noqa: S311  # no secret
        for number in range(asked.inputs):
            text = mutated(draw.choice(corpus), draw.choice(corpus), draw)
            try:
                TARGETS[name](text)
            except Exception as exc:  # noqa: BLE001  # whatever it is, it must not be
                print(f"{name}: input {number}: {type(exc).__name__}: {exc}\n{text!r}")
                return 1
        seconds = time.perf_counter() - began
        print(
            f"{name}: {asked.inputs:,} inputs, seed {asked.seed}: nothing found, {seconds:,.0f} s", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
