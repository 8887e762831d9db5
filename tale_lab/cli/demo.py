"""``tale demo``: a few real questions asked directly, with plain chain of thought, and under a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.markdown import Markdown
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from tale_core.accounts.ledger import Ledger
from tale_core.events import ElasticityKind
from tale_core.method.calibration import find_calibration
from tale_core.models.client import ChatClient
from tale_lab.cli._asking import (
    DIRECT,
    NOTHING,
    TALE,
    VANILLA,
    accounts,
    ask_at_once,
    baselines,
    calibration_note,
    choose_method,
    events_text,
    output_text,
    savings_text,
    side_by_side,
    working,
)
from tale_lab.cli._shared import ModelOption, ModelPathOption, out
from tale_lab.questions.answer_extraction import read_number
from tale_lab.questions.datasets import ANSWER_FORMAT, Question
from tale_lab.questions.graders import numeric

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tale_core.accounts.ledger import Savings
    from tale_core.method.calibration import Calibration
    from tale_core.method.method import TaleMethod
    from tale_lab.cli._asking import Asked

QUESTIONS = (
    # The running example of the paper (arXiv 2412.18547).
    Question.of(
        "Peyton scheduled after-work activities of a one hour yoga class on Monday, a cooking class that lasts "
        "nine times as long on Tuesday, half an hour of cheese tasting on Wednesday, a museum tour that lasts "
        "half as long as the cooking class on Thursday, and two hours of errands on Friday. How many hours "
        "will Peyton spend on after-work activities?",
        "17",
    ),
    Question.of(
        "A bakery sells muffins for 3 dollars each and loaves of bread for 5 dollars each. On Saturday it "
        "sells 24 muffins and half as many loaves. How many dollars does it take in?",
        "132",
    ),
    Question.of(
        "Nora reads 18 pages every morning and 25 pages every evening. After 6 days she still has 92 pages to "
        "read. How many pages does her book have?",
        "350",
    ),
    Question.of(
        "A water tank holds 240 liters and is a quarter full. A pump adds 15 liters a minute. How many minutes "
        "does it take to fill the tank?",
        "12",
    ),
    Question.of(
        "A cyclist sets out for a town 100 kilometers away. She rides 2 hours at 14 kilometers an hour, rests, "
        "and rides 3 hours at 18 kilometers an hour. How many kilometers are left?",
        "18",
    ),
)
"""Questions with known answers: all but the first written for this demo, none chosen by its outcome."""

PUBLISHED = "--strategy tale"
_INTRODUCTION = """\
Each question goes to the same model in three ways at once: **directly** (asked to give no reasoning), with
**vanilla chain of thought** ("Let's think step by step": what savings are measured against), and with **TALE**,
under a token budget. Tokens are what the model's server counted. Savings are net: what estimating a budget
cost is subtracted.
"""
_PUBLISHED = """\
The paper's prompts were made for large models: "use less than N tokens" (`--strategy tale`), an estimator that
asks the model itself for N, and the answer in [[double brackets]]. This is what they do here on the first
question, beside vanilla chain of thought with the same brackets:
"""
_NO_CALIBRATION = "no calibration is shipped for this model, so the published wording and estimator are used"
_COLLAPSED = (
    "The answer collapsed: next to no reasoning was left, which the event says. Whether a wording works is a "
    "property of the model, so TALE measures it and keeps the result in a calibration."
)
_IGNORED = (
    "The model did not keep the budget, which the event says. Whether a wording works is a property of the "
    "model, so TALE measures it and keeps the result in a calibration."
)
_HELD = "This time the answer kept the budget and did not collapse. One question proves nothing: measure it."
_CLOSING = """\
Five questions prove nothing. Figures with intervals, on many more questions, are in `benchmarks/`, with the \
commands that repeat them.

Next: `tale ask "your question" --compare`, `tale doctor`, or wrap your own model: see `README.md`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """One question asked in every way."""

    question: Question
    """The question, with its answer."""
    ways: Mapping[str, Asked]
    """How it was asked, by way."""

    def right(self, way: str) -> bool:
        """Return whether the answer of a way is the known one."""
        return numeric(self.question)(self.ways[way].answer.reply.text) == "correct"


def demo(*, model: ModelOption = "local", model_path: ModelPathOption = None) -> None:
    """Ask five questions in three ways and show what a budget saves (minutes on two cores)."""
    out.print(Rule("TALE: token-budget-aware reasoning", style="bold"))
    out.print(Padding(Markdown(_INTRODUCTION), (1, 0)))
    client = ChatClient.open(model, model_path=model_path)
    calibration = find_calibration(None, model_name=client.model)
    out.print(f"Model: {client.model}")
    chosen = _NO_CALIBRATION if calibration is None else calibration_note(calibration)
    out.print(f"TALE: {chosen}")
    _questions(client, calibration)
    if calibration is not None:  # without one, the published wording is what was just shown
        _published(client)
    out.print(Padding(Markdown(_CLOSING), (1, 0)))


def _questions(client: ChatClient, calibration: Calibration | None) -> None:
    method, _ = choose_method(calibration=calibration)
    methods = {**baselines("auto"), TALE: method}
    marked = []
    for number, question in enumerate(QUESTIONS, start=1):
        _announce(f"Question {number} of {len(QUESTIONS)}", question)
        one = _asked(client, methods, question)
        if number == 1:
            ways = list(one.ways.values())
            out.print(side_by_side(ways, one.ways[VANILLA], width=out.width, timed=False))
        out.print(_marks(one))
        marked.append(one)
    out.print(Rule(f"All {len(QUESTIONS)} questions", style="dim"))
    out.print(_totals(marked))


def _published(client: ChatClient) -> None:
    out.print(Rule("The published prompts on this model", style="dim"))
    out.print(Padding(Markdown(_PUBLISHED), (1, 0)))
    # The whole setting of the paper's evaluation: it is together with the brackets that the wording collapses.
    question = QUESTIONS[0].model_copy(update={"question": f"{QUESTIONS[0].question}\n{ANSWER_FORMAT}"})
    method, _ = choose_method(strategy="tale")
    one = _asked(client, {VANILLA: baselines("auto")[VANILLA], PUBLISHED: method}, question)
    out.print(_marks(one))
    asked = one.ways[PUBLISHED]
    out.print(accounts(asked))
    out.print(Padding(_verdict(asked), (1, 0, 0, 0)))


def _verdict(asked: Asked) -> str:
    kinds = {event.kind for event in asked.answer.observed}
    if ElasticityKind.COLLAPSE in kinds:
        return _COLLAPSED
    return _IGNORED if ElasticityKind.OVERRUN in kinds else _HELD


def _asked(client: ChatClient, methods: Mapping[str, TaleMethod], question: Question) -> Marked:
    with working(*methods) as shows:
        return Marked(question=question, ways=ask_at_once(client, methods, question.question, shows=shows))


def _announce(title: str, question: Question) -> None:
    out.print()
    out.print(Rule(title, style="dim"))
    out.print(question.question)
    out.print(f"Known answer: {question.answer}", style="dim")


def _marks(one: Marked) -> Table:
    table = _table("answer", "output tokens", "net savings", "events")
    for way, asked in one.ways.items():
        table.add_row(
            way,
            _mark(one, way),
            _output(asked),
            savings_text(asked, one.ways[VANILLA]),
            events_text(asked.answer.events),
        )
    return table


def _totals(marked: Sequence[Marked]) -> Table:
    table = _table("right", "output tokens", "net savings", "events")
    baseline = _total(marked, VANILLA)
    for way in (DIRECT, VANILLA, TALE):
        total = _total(marked, way)
        saved: Savings = total.savings(baseline, count_estimates=True)
        right = sum(one.right(way) for one in marked)
        table.add_row(
            way,
            f"{right} of {len(marked)}",
            str(saved.reason + saved.estimate),
            Text("baseline", style="dim") if way == VANILLA else f"{saved.net_ratio:+.0%}",
            events_text(total.events),
        )
    return table


def _total(marked: Sequence[Marked], way: str) -> Ledger:
    ledger = Ledger()
    for one in marked:
        ledger.record_all(one.ways[way].ledger.calls)
        ledger.record_all(one.ways[way].ledger.events)
    return ledger


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="left" if column == "events" else "right")
    return table


def _mark(one: Marked, way: str) -> Text:
    number = read_number(one.ways[way].answer.reply.text)
    shown = NOTHING if number is None else f"{float(number.value):g}"
    right = one.right(way)
    return Text(f"{shown} {'✓' if right else '✗'}", style="green" if right else "red")


def _output(asked: Asked) -> str:
    estimated = f" + {output_text(asked.ledger, 'estimate')}" if asked.ledger.count("estimate") else ""
    return output_text(asked.ledger, "reason") + estimated
