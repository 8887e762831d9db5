"""What a results file of a million calls takes: rates of writing, size, and times of reading.

    python benchmarks/store.py                    # a million calls, in a file that is removed afterwards
    python benchmarks/store.py --calls 50000 --json

Everything goes through `Store` as a run does it: one commit a call and one a result, keys made from the
content. The texts are made up, as long as those of a 1.5B model on grade-school mathematics.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from tale_core import Message, ModelCall, ModelReply, SearchSettings, SearchTrace, Usage
from tale_core.search.curves import Probe
from tale_lab.results.store import Store, result_key

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLS_A_QUESTION = 10
LOOKUPS = 2_000
MODELS = ("one", "another")

_WORDS = ("the", "number", "of", "eggs", "a", "day", "is", "four", "times", "three", "which", "she", "sells")


def text(rng: random.Random, words: int) -> str:
    """Return words that no compression of a page could make small by repetition alone."""
    return " ".join(f"{rng.choice(_WORDS)}{rng.randrange(100)}" for _ in range(words))


def call(question: int, number: int) -> ModelCall:
    """Return one call of a question; the same arguments give the same call."""
    content = text(random.Random(question), 50)  # noqa: S311  # made-up words
    message = Message(role="user", content=f"{question} {content} use less than {number} tokens")
    return ModelCall(role="reason", messages=(message,), budget=number or None, max_tokens=1024)


def reply(rng: random.Random) -> ModelReply:
    """Return an answer of 120 words."""
    usage = Usage(input_tokens=90, output_tokens=rng.randrange(50, 400))
    return ModelReply(text=text(rng, 120), usage=usage, finish_reason="stop", model="one", seconds=rng.random())


def trace(question: int, replies: list[ModelReply]) -> SearchTrace:
    """Return the result that these answers lead to."""
    probes = tuple(
        Probe(
            budget=number or None,
            sample=0,
            usage=one.usage or Usage(),
            verdict="correct",
            finish_reason=one.finish_reason,
            text=one.text,
            seconds=one.seconds,
            model=one.model,
        )
        for number, one in enumerate(replies)
    )
    return SearchTrace(
        question=text(random.Random(question), 50),  # noqa: S311  # made-up words
        question_id=f"{question:016x}",
        settings=SearchSettings(),
        probes=probes,
        chosen=1,
        ideal=None,
        stopped="smallest",
    )


def fill(store: Store, questions: int) -> Iterator[tuple[float, float]]:
    """Work on questions, and yield the seconds that the calls and the result of each took in the store."""
    rng = random.Random(0)  # noqa: S311  # made-up words
    for question in range(questions):
        model = MODELS[question % len(MODELS)]
        calls = [call(question, number) for number in range(CALLS_A_QUESTION)]
        replies = [reply(rng) for _ in calls]
        began = time.perf_counter()
        for asked, answer in zip(calls, replies, strict=True):
            store.keep(asked, answer, model=model)
        kept = time.perf_counter()
        result = trace(question, replies)
        put = time.perf_counter()
        store.put(key(question), "search", result, model=model, question_id=result.question_id)
        yield kept - began, time.perf_counter() - put


def key(question: int) -> str:
    """Return the key of a question's result."""
    return result_key(kind="search", question=question)


def rate(seconds: list[float], each: int) -> int:
    """Return how many a second, over a stretch of questions."""
    return round(len(seconds) * each / sum(seconds))


def timed(work: Any) -> float:
    """Return the seconds that something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def reading(path: Path, questions: int) -> dict[str, float]:
    """Measure a store that is opened anew: single look-ups, and lists."""
    rng = random.Random(1)  # noqa: S311  # a sample
    sample = [rng.randrange(questions) for _ in range(LOOKUPS)]
    with Store(path, must_exist=True) as store:
        calls = [(call(one, 3), MODELS[one % len(MODELS)]) for one in sample]
        known = [timed(lambda one=one, model=model: store.reply(one, model=model)) for one, model in calls]
        unknown = [timed(lambda one=one: store.reply(one, model="third")) for one, _ in calls]
        first = timed(lambda: next(iter(store.traces(model=MODELS[0]))))
        listed = timed(lambda: sum(1 for _ in store.traces(model=MODELS[0])))
        nothing = timed(lambda: list(store.traces(model="third")))
        every = timed(lambda: sum(1 for _ in store.calls()))
    return {
        "known call, microseconds": median(known) * 1e6,
        "unknown call, microseconds": median(unknown) * 1e6,
        "first search of a model, seconds": first,
        f"all {questions // len(MODELS):,} searches of a model, seconds": listed,
        "searches of a model that has none, seconds": nothing,
        f"all {questions * CALLS_A_QUESTION:,} calls, seconds": every,
    }


def measure(path: Path, calls: int) -> dict[str, float]:
    """Fill a store and read it.

    Args:
        path: Where to make it.
        calls: How many calls.
    """
    questions = calls // CALLS_A_QUESTION
    with Store(path) as store:
        keeping, putting = map(list, zip(*fill(store, questions), strict=True))
    size, stretch = path.stat().st_size, max(1, questions // 20)
    return {
        "calls": questions * CALLS_A_QUESTION,
        "results": questions,
        "calls a second, first twentieth": rate(keeping[:stretch], CALLS_A_QUESTION),
        "calls a second, last twentieth": rate(keeping[-stretch:], CALLS_A_QUESTION),
        "results a second, first twentieth": rate(putting[:stretch], 1),
        "results a second, last twentieth": rate(putting[-stretch:], 1),
        "file, MB": size / 1e6,
        "file, bytes a call with its share of the result": size / calls,
        **reading(path, questions),
    }


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where to make the file; the system's own for such files")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figures = measure(Path(folder) / "run.sqlite", arguments.calls)
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"| {os.cpu_count()} processors | |\n|---|---:|")
    for name, figure in figures.items():
        print(f"| {name} | {figure:,.{0 if figure >= 100 or figure == int(figure) else 3}f} |")  # noqa: PLR2004


if __name__ == "__main__":
    main()
