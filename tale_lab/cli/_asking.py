"""Asking a question in several ways, and keeping the accounts of each."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tale_core.accounts.ledger import Ledger
from tale_core.flows import run
from tale_core.method.method import TaleMethod
from tale_core.types import ModelReply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tale_core.accounts.ledger import Savings
    from tale_core.method.calibration import Calibration
    from tale_core.method.plan import Answer
    from tale_core.types import ControlSetting, ModelCall

DIRECT = "direct"
VANILLA = "vanilla CoT"
TALE = "TALE"


class Model(Protocol):
    """What commands need of a model; `tale_core.models.client.ChatClient` is one."""

    model: str

    def __call__(self, call: ModelCall) -> ModelReply:
        """Answer one call."""

    def stream(self, call: ModelCall) -> Iterator[str | ModelReply]:
        """Answer one call in pieces, the whole reply at last."""

    def control(self, budget: int) -> ControlSetting:
        """Decide what carries a budget."""


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
    model: Model,
    method: TaleMethod,
    question: str,
    *,
    way: str = TALE,
    show: Callable[[str], None] = lambda _: None,
) -> Asked:
    """Estimate, ask with the answer streamed, and ask again where the policy says so.

    Args:
        model: Answers the calls.
        method: How to ask.
        question: The question.
        way: The name for this way of asking.
        show: Receives the answer in pieces as they come.
    """
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
    model: Model,
    methods: Mapping[str, TaleMethod],
    question: str,
    *,
    shows: Sequence[Callable[[str], None]],
) -> dict[str, Asked]:
    """Ask a question in several ways at the same time.

    Args:
        model: Answers the calls, from several threads at once.
        methods: How to ask, by way.
        question: The question.
        shows: For each way, receives its answer in pieces.
    """
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
        # A daemon: Ctrl-C shall not wait until a busy model has come to its next word.
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
    """Return how to ask, and the calibration if it had a say.

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


def read_question(question: str, standard_input: Callable[[], str]) -> str:
    """Return the question; ``-`` stands for standard input."""
    return (standard_input() if question == "-" else question).strip()


def _streamed(model: Model, call: ModelCall, show: Callable[[str], None]) -> ModelReply:
    for piece in model.stream(call):
        if isinstance(piece, ModelReply):
            return piece
        show(piece)
    raise AssertionError("a stream ends with its reply")
