"""The common step of every measurement: ask a question whose answer is known, and grade the reply."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from pydantic import Field

from tale_core.errors import EmptyAnswerError, InvalidValueError
from tale_core.search.curves import Probe
from tale_core.tokens import usage_of
from tale_core.types import STORED_STRATEGY, Flow, ModelCall, ModelReply, Record, Verdict

if TYPE_CHECKING:
    from tale_core.protocols import Strategy
    from tale_core.types import Grade


class Asking(Record):
    """How questions are put to a model in a measurement."""

    strategy: str = Field(default="tale", validation_alias=STORED_STRATEGY)
    """Name of the prompt strategy that carries the budget."""
    samples: int = Field(default=1, ge=1)
    """Answers per budget; their majority decides. More than one for models that are not deterministic."""
    language: str = "auto"
    """Language of the framing."""
    temperature: float | None = Field(default=None, ge=0)
    """Sampling temperature; None leaves the model's own."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Hard output cap of every answer; None leaves the model's own."""

    def call(self, question: str, strategy: Strategy, budget: int | None, sample: int) -> ModelCall:
        """Return the call that asks a question under a budget; None asks without one."""
        framing = strategy.frame(question, budget, language=self.language)
        return ModelCall(
            role="reason",
            messages=framing.messages(question),
            framing=framing,
            budget=budget,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            sample=sample,
        )


def check_budgeted(strategy: Strategy) -> None:
    """Refuse a strategy that carries no budget: there is nothing to measure."""
    if not strategy.budgeted:
        raise InvalidValueError(
            f"strategy {strategy.name!r} carries no budget, so there is none to measure; use 'tale' or another "
            "budgeted strategy"
        )


def probe(call: ModelCall, grade: Grade) -> Flow[Probe]:
    """Make one call and grade the text of its answer."""
    reply = yield call
    verdict = yield from graded(grade, answer_text(reply))
    usage = usage_of(call, reply)
    return Probe(
        budget=call.budget,
        sample=call.sample,
        usage=usage,
        verdict=verdict,
        finish_reason=reply.finish_reason,
        text=reply.text,
        seconds=reply.seconds,
        model=reply.model,
    )


def answer_text(reply: ModelReply) -> str:
    """Return the text of an answer that is to be graded.

    Raises:
        EmptyAnswerError: The model stopped without writing anything.
    """
    # Cut before the first visible word is a result (the budget went into thinking); stopping there is a fault.
    if not reply.text.strip() and reply.finish_reason != "length":
        raise EmptyAnswerError(
            f"the model answered nothing (finish reason {reply.finish_reason!r}); run again to retry"
        )
    return reply.text


def graded(grade: Grade, text: str) -> Flow[Verdict]:
    """Grade one answer, with the model calls that the grader needs, if any."""
    outcome = grade(text)
    if isinstance(outcome, Generator):
        return (yield from outcome)
    if isinstance(outcome, bool):
        return "correct" if outcome else "wrong"
    return outcome
