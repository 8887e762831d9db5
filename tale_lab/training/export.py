"""A folder of training data from a results file: lines, held-out questions, and a card.

Questions are split by a digest of their words: the same question is on the same side in every export with the
same seed, whatever else is in the file, and never on both.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field, ValidationError

from tale_core import __version__
from tale_core.errors import DataError, InvalidValueError
from tale_core.files import replace_file
from tale_core.prompts.strategies import get_strategy
from tale_core.types import Record
from tale_lab.curves.elasticity import Measurement
from tale_lab.questions.datasets import Dataset, Question, check_grader
from tale_lab.training.examples import (
    OPENAI_FEWEST,
    Example,
    Format,
    Labels,
    Line,
    Pairing,
    as_jsonl,
    examples_of,
    lines_of,
    prompt_of,
    question_key,
    reward_line,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tale_core.protocols import Strategy
    from tale_core.search.budget_search import SearchTrace
    from tale_lab.results.store import Store

Side: TypeAlias = Literal["train", "test"]

HELD_OUT = "held_out.jsonl"
"""All questions of the test side, also those without an example: DATA for ``tale bench``."""
FACTS = "export.json"
"""What was exported, for programs; ``README.md`` says it for people."""
_BINS, _BAR = 12, 24  # lines of the plot of the lengths, and characters of its longest bar


class ExportSettings(Record):
    """How training data is made from measured answers."""

    format: Format = "sft"
    pairing: Pairing = "vanilla"
    """What an answer is preferred to, in the formats of pairs."""
    model: str | None = None
    """Only the answers of the model of this name; None takes all."""
    strategy: str | None = None
    """Only the searches in this prompt strategy; None takes all."""
    labels: Labels = "graded"
    """Who says what is right."""
    prompt_strategy: str = "internalised"
    """The strategy, without a budget, in which the trained model will be asked."""
    test_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the questions that are held out."""
    seed: int = 1024
    """Decides which questions are held out."""
    min_tokens: int = Field(default=1, ge=1)
    """Least output tokens of an answer to learn."""
    with_vanilla: bool = False
    """Whether a question that only its vanilla answer got right gives that one."""
    grader: str = "auto"
    """Name of the grader for the reward; a model cannot be it."""


class Lengths(Record):
    """The lengths of answers, in output tokens."""

    mean: float
    low: float
    """A tenth of the answers is shorter."""
    median: float
    high: float
    """A tenth of the answers is longer."""

    @classmethod
    def of(cls, tokens: Sequence[int]) -> Lengths:
        """Return the figures of at least one answer."""
        ordered = sorted(tokens)
        last = len(ordered) - 1
        return cls(
            mean=statistics.fmean(ordered),
            low=ordered[round(0.1 * last)],
            median=statistics.median(ordered),
            high=ordered[round(0.9 * last)],
        )


class Facts(Record):
    """What a folder of training data holds."""

    results: str
    """The results file that it was made from."""
    data: tuple[str, ...]
    """The questions, as the runs in that file name them."""
    models: tuple[str, ...]
    """The models whose answers these are."""
    strategies: tuple[str, ...]
    """The prompt strategies that carried the budgets."""
    measured: int = Field(ge=0)
    """Questions in the results file."""
    examples: int = Field(ge=0)
    """Questions with an answer to learn."""
    train: int = Field(ge=0)
    test: int = Field(ge=0)
    vanilla: Lengths
    """The answers without a budget to these questions."""
    concise: Lengths
    estimated: int = Field(ge=0)
    """How many answers to learn were counted by a tokenizer, not by the provider."""
    digest: str
    """SHA-256 of the lines to train on."""
    settings: dict[str, Any]
    """How they were made; see `ExportSettings`."""
    version: str

    @property
    def saved(self) -> float:
        """Share of the vanilla output tokens that the answers to learn save."""
        return 1 - self.concise.mean / self.vanilla.mean if self.vanilla.mean else 0.0


def side_of(question: str, *, seed: int, test_share: float) -> Side:
    """Return on which side of the split a question is.

    Args:
        question: The plain question.
        seed: Another seed is another split.
        test_share: Share of all questions that is held out.

    Example:
        >>> [side_of(f"{n} + 1?", seed=1024, test_share=0.5) for n in range(4)]
        ['test', 'test', 'test', 'train']
    """
    # Not drawn at random: a later export with more questions must not move one to the other side.
    digest = hashlib.sha256(f"{seed}\0{question_key(question)}".encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") < test_share * 2**64 else "train"


def export_run(
    store: Store, folder: str | Path, settings: ExportSettings, *, data: Dataset | None = None
) -> Facts:
    """Write the training data of a results file.

    Args:
        store: Holds the searches; measurements of the elasticity curve count, too.
        folder: Where to write; created if needed.
        settings: What to write.
        data: The questions with their answers; None for those that the results file keeps.

    Returns:
        What was written.

    Raises:
        DataError: Nothing was measured, no answer can be learned from, questions are missing, or the lines are
            not what the format wants; nothing is written then.
        InvalidValueError: The prompt strategy carries a budget, or the folder cannot be written.
    """
    strategy = get_strategy(settings.prompt_strategy)
    if strategy.budgeted:
        raise InvalidValueError(
            f"strategy {settings.prompt_strategy!r} carries a budget, but the trained model is asked without "
            "one: use 'internalised' (the plain question) or 'vanilla'"
        )
    if settings.format == "reward":
        # Training reads the name from the data, and data never names what is imported.
        check_grader(settings.grader, "format reward")
    traces = _traces(store, settings)
    examples = examples_of(
        traces,
        labels=settings.labels,
        min_tokens=settings.min_tokens,
        with_vanilla=settings.with_vanilla,
    )
    if not examples:
        raise DataError(_nothing(store, traces, settings))
    known = store.results("question", Question) if data is None else data.questions
    asked = {question_key(one.question): one for one in known}
    lines = _lines(examples, strategy, settings, asked)
    facts = _facts(store, traces, examples, lines, settings)
    _check(lines, settings)  # before anything is written
    _write(Path(folder), facts, examples, lines, _held_out(traces, asked, settings))
    return facts


def _traces(store: Store, settings: ExportSettings) -> list[SearchTrace | Measurement]:
    every: list[SearchTrace | Measurement] = [*store.traces(), *store.results("elasticity", Measurement)]
    found = [
        trace
        for trace in every
        if settings.strategy in {None, trace.settings.strategy}
        and settings.model in {None, *(probe.model for probe in trace.probes)}
    ]
    if not found:
        named = (("of model", settings.model), ("in strategy", settings.strategy))
        which = "".join(f" {word} {name!r}" for word, name in named if name is not None)
        raise DataError(
            f"{store.path} holds no finished search{which}; make some with: tale search DATA --out {store.path}"
        )
    return found


def _nothing(store: Store, traces: Sequence[SearchTrace | Measurement], settings: ExportSettings) -> str:
    right = sum(probe.correct for trace in traces for probe in trace.probes)
    found = f"none of the {len(traces)} measured questions in {store.path} has an answer to learn from"
    if settings.labels == "majority":
        return f"{found}: no majority, or none under a budget; ask for more answers (tale search --samples 3)"
    if not right:
        return f"{found}: not one answer was graded correct; check the grader, or search easier questions"
    longest = f", and with at least {settings.min_tokens} tokens" if settings.min_tokens > 1 else ""
    return (
        f"{found}: {right} answers are right, but none under a budget is shorter than the vanilla one{longest}"
        "; search with another strategy, or add the vanilla answers with --with-vanilla"
    )


def _lines(
    examples: Iterable[Example], strategy: Strategy, settings: ExportSettings, asked: Mapping[str, Question]
) -> dict[Side, list[Line]]:
    lines: dict[Side, list[Line]] = {"train": [], "test": []}
    for example in examples:
        side = side_of(example.question, seed=settings.seed, test_share=settings.test_share)
        prompt = prompt_of(example.question, strategy)
        if settings.format != "reward":
            lines[side] += lines_of(example, prompt, settings.format, settings.pairing)
            continue
        question = asked.get(question_key(example.question))
        if question is None:
            raise DataError(
                f"the reference answer of {example.question[:60]!r} is not in the results file; name the "
                "questions that were searched with --data DATA"
            )
        lines[side].append(reward_line(example, prompt, question, settings.grader))
    return lines


def _facts(
    store: Store,
    traces: Sequence[SearchTrace | Measurement],
    examples: Sequence[Example],
    lines: Mapping[Side, Sequence[Line]],
    settings: ExportSettings,
) -> Facts:
    sources = sorted({str(run["data"]) for run in store.runs() if "data" in run})
    return Facts(
        results=store.path,
        data=tuple(sources),
        measured=len({question_key(trace.question) for trace in traces}),
        train=len(lines["train"]),
        test=len(lines["test"]),
        digest=hashlib.sha256(as_jsonl(lines["train"]).encode()).hexdigest(),
        settings=settings.model_dump(),
        models=tuple(sorted({one.model for one in examples if one.model})),
        strategies=tuple(sorted({one.strategy for one in examples})),
        examples=len(examples),
        vanilla=Lengths.of([one.vanilla.tokens for one in examples]),
        concise=Lengths.of([one.concise.tokens for one in examples]),
        estimated=sum(one.source == "estimated" for one in examples),
        version=__version__,
    )


def _check(lines: Mapping[Side, Sequence[Line]], settings: ExportSettings) -> None:
    train = lines["train"]
    if not train:
        raise DataError(
            f"no {'pairs' if 'dpo' in settings.format else 'examples'} are left to train on (pairing "
            f"{settings.pairing!r}, test share {settings.test_share:g}); search more, or hold out less"
        )
    if settings.format.startswith("openai") and len(train) < OPENAI_FEWEST:
        raise DataError(
            f"OpenAI needs at least {OPENAI_FEWEST} lines to train on, there are {len(train)}; search more "
            "questions"
        )


def _held_out(
    traces: Sequence[SearchTrace | Measurement], asked: Mapping[str, Question], settings: ExportSettings
) -> list[Line]:
    keys = {
        question_key(trace.question): None
        for trace in traces
        if side_of(trace.question, seed=settings.seed, test_share=settings.test_share) == "test"
    }
    found = (asked[key] for key in keys if key in asked)
    return [{"question": one.question, "answer": one.answer, "grader": one.grader, **one.meta} for one in found]


def _write(
    folder: Path,
    facts: Facts,
    examples: Sequence[Example],
    lines: Mapping[Side, Sequence[Line]],
    held_out: Sequence[Line],
) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / "README.md", card(facts, examples).encode())
        texts = {f"{side}.jsonl": as_jsonl(found) for side, found in lines.items()}
        for name, text in {**texts, HELD_OUT: as_jsonl(held_out)}.items():
            if text:
                replace_file(folder / name, text.encode())
            else:
                (folder / name).unlink(missing_ok=True)  # of an earlier export
        # Last: a folder without it is no export, so a write that was cut short is not trained on.
        replace_file(folder / FACTS, (facts.model_dump_json(indent=2) + "\n").encode())
    except OSError as exc:
        raise InvalidValueError(f"cannot write to {str(folder)!r}: {exc.strerror}") from exc


def read_export(folder: str | Path) -> tuple[Facts, list[Line], list[Line]]:
    """Read an exported folder again.

    Returns:
        The facts, the lines to train on, and the lines held out.

    Raises:
        DataError: It is not such a folder, or a file in it is damaged.
    """
    where = Path(folder)
    try:
        facts = Facts.model_validate_json((where / FACTS).read_bytes())
        return facts, _read(where / "train.jsonl"), _read(where / "test.jsonl")
    except OSError as exc:
        raise DataError(
            f"{str(where)!r} is not a folder of training data ({exc.strerror}: "
            f"{Path(str(exc.filename)).name}); make one with: tale export RESULTS --format sft --out DIR"
        ) from exc
    except (ValidationError, ValueError) as exc:
        raise DataError(f"{str(where)!r} holds a damaged file: {exc}; export it again") from exc


def _read(path: Path) -> list[Line]:
    if path.name == "test.jsonl" and not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def card(facts: Facts, examples: Sequence[Example]) -> str:
    """Return the card's text."""
    rows = "\n".join(
        f"| {name} | {one.mean:.0f} | {one.low:.0f} | {one.median:.0f} | {one.high:.0f} |"
        for name, one in (("without a budget", facts.vanilla), ("to learn", facts.concise))
    )
    counted = f" {facts.estimated} of them were counted by a tokenizer." if facts.estimated else ""
    return f"""# Concise answers: {facts.settings["format"]}

Training data for a model that keeps its budget by itself: each prompt names no budget, each answer was found
under the smallest budget that kept it right.

- Questions: {", ".join(facts.data) or "not recorded"}
- Answers by: {", ".join(facts.models) or "not recorded"}
- Prompt strategies that carried the budgets: {", ".join(facts.strategies)}
- Asked in training as: strategy `{facts.settings["prompt_strategy"]}`
- {facts.measured} questions were measured; {facts.examples} have an answer to learn
- {facts.train} lines to train on, {facts.test} held out, split by question (seed {facts.settings["seed"]})
{_choices(facts)}
- SHA-256 of `train.jsonl`: `{facts.digest}`
- Made with tale-reasoning {facts.version} from `{facts.results}`

| output tokens of the answers | mean | 10% below | median | 10% above |
|---|---|---|---|---|
{rows}

The answers to learn take {facts.concise.mean / max(facts.vanilla.mean, 1):.0%} of the tokens.\
{counted} They were chosen in hindsight, so this is a bound, not what a trained model will reach.

{_plot(examples)}
"""


def _plot(examples: Sequence[Example]) -> str:
    """Return the lengths as bars of text, which any viewer of Markdown shows."""
    sides = [[one.vanilla.tokens for one in examples], [one.concise.tokens for one in examples]]
    longest = max(map(max, sides))
    step = longest // _BINS + 1
    counts = [Counter(tokens // step for tokens in side) for side in sides]
    most = max(max(side.values()) for side in counts)
    lines = [f"{'output tokens':<16} {'without a budget':<{_BAR + 6}} to learn"]
    for number in range(longest // step + 1):
        bars = (f"{'█' * -(-_BAR * side[number] // most):<{_BAR}} {side[number]:<5}" for side in counts)
        lines.append(f"{number * step:>6} to {number * step + step - 1:<6} {' '.join(bars)}".rstrip())
    return "\n".join(("```text", *lines, "```"))


def _choices(facts: Facts) -> str:
    """Say by what rules the lines were made."""
    settings = facts.settings
    lines = [
        "- Labels: by majority. No reference answer was used: an answer counts as right where more than half "
        "of the readable answers to its question agree, so some are wrong"
        if settings["labels"] == "majority"
        else "- Labels: graded against reference answers"
    ]
    if "dpo" in settings["format"]:
        lines.append(f"- Preferred to: {_PAIRINGS[settings['pairing']]}")
    if settings["with_vanilla"]:
        lines.append("- Questions that no budget kept right hold their vanilla answer")
    if settings["min_tokens"] > 1:
        lines.append(f"- Answers under {settings['min_tokens']} tokens were left out")
    return "\n".join(lines)


_PAIRINGS = {
    "vanilla": "the answer without a budget",
    "wrong": "a wrong answer that is no longer",
    "both": "the answer without a budget, and a wrong answer that is no longer",
}
