"""A question asked in one way or several, with the accounts of each, and how commands show them."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from tale_core.accounts.ledger import Ledger
from tale_core.flows import run
from tale_core.method.method import TaleMethod
from tale_core.types import ModelReply
from tale_lab.cli._shared import err

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tale_core.accounts.ledger import Savings
    from tale_core.events import ElasticityEvent
    from tale_core.method.calibration import Calibration
    from tale_core.method.plan import Answer
    from tale_core.models.client import ChatClient
    from tale_core.types import ModelCall, Role

DIRECT = "direct"
VANILLA = "vanilla CoT"
TALE = "TALE"

_GAP = " … "
_START_SHARE = 0.3
_TAIL = 48
_ANSWER_LINES = 8
_LABEL_WIDTH = 18
_BORDERS = 3
NOTHING = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question asked in one way."""

    way: str
    """The way's name."""
    answer: Answer
    """The answer, with its plan and events."""
    ledger: Ledger
    """Every call that it took."""

    @property
    def seconds(self) -> float:
        """Seconds spent in model calls."""
        return sum(call.seconds or 0.0 for call in self.ledger.calls)

    def against(self, baseline: Asked) -> Savings:
        """Return what this way saved, net of the estimator; uncertain where a tokenizer counted."""
        return self.ledger.savings(baseline.ledger, count_estimates=True)

    def record(self) -> dict[str, Any]:
        """Return everything as plain data for JSON."""
        roles = {
            role: [call.usage.model_dump(mode="json") for call in self.ledger.calls if call.role == role]
            for role in ("estimate", "reason")
        }
        return {
            "way": self.way,
            "answer": self.answer.reply.text,
            "finish_reason": self.answer.reply.finish_reason,
            "seconds": round(self.seconds, 3),
            "tale": self.answer.summary(),
            "calls": roles,
        }


def ask_once(
    model: ChatClient,
    method: TaleMethod,
    question: str,
    *,
    way: str = TALE,
    show: Callable[[str], None] = lambda _: None,
) -> Asked:
    """Estimate, ask with the answer streamed, and ask again where the policy says so."""
    ledger = Ledger()
    question_run = method.begin(question, control=model.control)
    plan = run(question_run.plan(), model)
    while True:
        answer = question_run.settle(plan, _streamed(model, plan.call(), show))
        ledger.record_all(question_run.drain())
        again = question_run.react(answer)
        if again is None:
            return Asked(way=way, answer=answer, ledger=ledger)
        show("\n\n")
        plan = again


def ask_at_once(
    model: ChatClient,
    methods: Mapping[str, TaleMethod],
    question: str,
    *,
    shows: Sequence[Callable[[str], None]],
) -> dict[str, Asked]:
    """Ask a question in several ways at the same time."""
    stopped = threading.Event()

    def answer(future: Future[Asked], way: str, show: Callable[[str], None]) -> None:
        def show_on(piece: str) -> None:
            if stopped.is_set():
                raise InterruptedError
            show(piece)

        try:
            future.set_result(ask_once(model, methods[way], question, way=way, show=show_on))
        except Exception as exc:  # noqa: BLE001  # raised where the result is asked for
            future.set_exception(exc)

    under_way: dict[str, Future[Asked]] = {way: Future() for way in methods}
    for (way, future), show in zip(under_way.items(), shows, strict=True):
        # Daemons: Ctrl-C must not wait for the next token of a busy model.
        threading.Thread(target=answer, args=(future, way, show), daemon=True).start()
    try:
        return {way: future.result() for way, future in under_way.items()}
    finally:
        stopped.set()


def choose_method(
    *,
    strategy: str | None = None,
    budget: int | None = None,
    language: str = "auto",
    calibration: Calibration | None = None,
) -> tuple[TaleMethod, Calibration | None]:
    """Return the method, and the calibration if it was used.

    A calibration was measured with its own strategy: under another one its budget and bounds mean nothing.

    Args:
        strategy: The strategy that the user named.
        budget: The budget that the user named, in output tokens.
        language: The language that the user named.
        calibration: What is known about the model.
    """
    if calibration is not None and strategy not in {None, calibration.strategy}:
        calibration = None
    method = TaleMethod(estimator=budget, strategy=strategy, language=language, calibration=calibration)
    if strategy is not None and budget is not None:
        calibration = None  # only its bounds are left
    return method, calibration


def baselines(language: str) -> dict[str, TaleMethod]:
    """Return the two ways that TALE is compared with."""
    return {
        DIRECT: TaleMethod(strategy="direct", language=language),
        VANILLA: TaleMethod(strategy="vanilla", language=language),
    }


def _streamed(model: ChatClient, call: ModelCall, show: Callable[[str], None]) -> ModelReply:
    for piece in model.stream(call):
        if isinstance(piece, ModelReply):
            return piece
        show(piece)
    raise AssertionError("a stream ends with its reply")


@contextmanager
def working(*labels: str) -> Iterator[tuple[Callable[[str], None], ...]]:
    """Show the progress of answers on stderr; nothing if that is not a terminal.

    Args:
        *labels: One for each answer under way.

    Yields:
        For each label, a function that takes the pieces of its answer. Safe under threads.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TextColumn("~{task.completed:.0f} tokens"),
        TextColumn("{task.fields[tail]}", style="dim", markup=False),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:

        def follow(label: str) -> Callable[[str], None]:
            task = bar.add_task(label, total=None, tail="")
            seen = ""

            def show(piece: str) -> None:
                nonlocal seen
                seen = (seen + piece)[-_TAIL:]
                bar.update(task, advance=1, tail=" ".join(seen.split()))

            return show

        yield tuple(map(follow, labels))


def calibration_note(calibration: Calibration, *, budget: int | None = None) -> str:
    """Return, in one line, what a calibration decides and on what evidence.

    Args:
        calibration: The calibration.
        budget: The budget that the user named in place of the calibration's, to which no evidence applies.
    """
    chooses = f"the calibration of {calibration.model} chooses strategy {calibration.strategy}"
    if budget is not None:
        return chooses
    tokens = "the estimator's budget" if calibration.budget is None else f"budget {calibration.budget}"
    evidence = str(calibration.evidence[0]) if calibration.evidence else "no measurement is recorded in it"
    return f"{chooses} and {tokens} ({evidence})"


def accounts(asked: Asked) -> Table:
    """Return the budget, tokens by role, time and events of one answer."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("budget", _budget(asked))
    setting = asked.answer.plan.setting
    if setting is not None and setting.native:
        table.add_row("carried by", f"{setting.control} = {setting.value}: {setting.why}")
    table.add_row("answer", _tokens(asked.ledger, "reason"))
    table.add_row("estimator", _tokens(asked.ledger, "estimate"))
    table.add_row("time", f"{asked.seconds:.1f} s")
    table.add_row("events", events_text(asked.answer.events, detailed=True))
    return table


def side_by_side(ways: Sequence[Asked], baseline: Asked, *, width: int, timed: bool = True) -> Table:
    """Return several ways of asking one question as columns; times only where they can be compared."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", style="dim", no_wrap=True)
    for asked in ways:
        table.add_column(asked.way, overflow="fold")
    column = max(10, (width - _LABEL_WIDTH) // len(ways) - _BORDERS)
    answers = [shorten(asked.answer.reply.text, column * _ANSWER_LINES) for asked in ways]
    table.add_row("answer", *(Text(answer) for answer in answers), end_section=True)
    table.add_row("strategy", *(asked.answer.plan.strategy for asked in ways))
    table.add_row("budget", *(_budget(asked, with_strategy=False) for asked in ways))
    table.add_row("answer tokens", *(output_text(asked.ledger, "reason") for asked in ways), style="bold")
    table.add_row("estimator tokens", *(output_text(asked.ledger, "estimate") for asked in ways))
    table.add_row("input tokens", *(_input_text(asked.ledger) for asked in ways))
    if timed:
        table.add_row("time", *(f"{asked.seconds:.1f} s" for asked in ways))
    table.add_row("events", *(events_text(asked.answer.events) for asked in ways))
    table.add_row("net savings", *(savings_text(asked, baseline) for asked in ways), style="bold")
    return table


def savings_text(asked: Asked, baseline: Asked) -> Text:
    """Return the share of the baseline's output tokens that a way saved, net of its estimator."""
    if asked is baseline:
        return Text("baseline", style="dim")
    share = asked.against(baseline).net_ratio
    return Text(f"{share:+.0%}", style="green" if share > 0 else "red")


def events_text(events: Sequence[ElasticityEvent], *, detailed: bool = False) -> Text:
    """Return events by kind, in words."""
    if not events:
        return Text("none" if detailed else NOTHING, style="dim")
    if detailed:
        return Text("\n".join(_event_line(event) for event in events), style="yellow")
    kinds = Counter(event.kind.value for event in events)
    words = [kind if count == 1 else f"{count} {kind}" for kind, count in kinds.items()]
    return Text(", ".join(words), style="yellow")


def output_text(ledger: Ledger, role: Role) -> str:
    """Return the output tokens of a role, with a ``~`` where a tokenizer counted some of them."""
    if not ledger.count(role):
        return NOTHING
    measured, estimated = (ledger.totals(role, source=source) for source in ("measured", "estimated"))
    mark = "~" if ledger.count(role, source="estimated") else ""
    return f"{mark}{measured.output_tokens + estimated.output_tokens}"


def shorten(text: str, most: int) -> str:
    """Return a text of at most so many characters: its start, and more of its end, where the result stands."""
    plain = " ".join(text.split())
    if len(plain) <= most:
        return plain
    start = int((most - len(_GAP)) * _START_SHARE)
    return plain[:start] + _GAP + plain[-(most - len(_GAP) - start) :]


def _event_line(event: ElasticityEvent) -> str:
    facts = [
        f"{name} {value}"
        for name, value in (("estimate", event.estimate), ("budget", event.budget), ("actual", event.actual))
        if value is not None
    ]
    details = [event.detail] if event.detail else []
    return f"{event.kind.value}: {', '.join([*details, *facts])}"


def _budget(asked: Asked, *, with_strategy: bool = True) -> str:
    budget = asked.answer.plan.budget
    words = "none" if budget.tokens is None else f"{budget.tokens} ({budget.source})"
    return f"{words}, strategy {asked.answer.plan.strategy}" if with_strategy else words


def _tokens(ledger: Ledger, role: Role) -> str:
    count = ledger.count(role)
    if not count:
        return "not asked"
    thinking = sum(call.usage.reasoning_tokens or 0 for call in ledger.calls if call.role == role)
    calls = f" in {count} calls" if count > 1 else ""
    thought = f", {thinking} of them thinking" if thinking else ""
    return f"{output_text(ledger, role)} output tokens{thought}, {_input_text(ledger, role)} input{calls}"


def _input_text(ledger: Ledger, role: Role | None = None) -> str:
    measured, estimated = (ledger.totals(role, source=source) for source in ("measured", "estimated"))
    mark = "~" if ledger.count(role, source="estimated") else ""
    return f"{mark}{measured.input_tokens + estimated.input_tokens}"
