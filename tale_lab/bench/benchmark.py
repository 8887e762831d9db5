"""A benchmark: many methods on the same questions, every answer graded and accounted for."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from tale_core.accounts.tokens import usage_of
from tale_core.errors import InvalidValueError, SpendingLimitError
from tale_core.events import ElasticityEvent
from tale_core.flows import adjusted, observed
from tale_core.search.graded_call import answer_text, graded
from tale_core.types import FinishReason, ModelReply, Record, Role, Usage, Verdict
from tale_lab.questions.graders import get_grader, grader_name, preflight
from tale_lab.results.store import result_key
from tale_lab.runs.runner import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tale_core.types import Call, Flow, Grade, ModelCall
    from tale_lab.bench.methods import Method
    from tale_lab.questions.datasets import Dataset, Question
    from tale_lab.questions.graders import Grader

KIND = "attempt"
"""The kind under which a store keeps the results of a benchmark."""

_SETUP_DIGITS = 24
_UNCOUNTED = frozenset({"judge", "reference"})


class Sampling(Record):
    """What applies to every call of a benchmark that does not decide it by itself."""

    temperature: float | None = Field(default=None, ge=0)
    """Sampling temperature; None leaves the model's own."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Hard output cap of an answer; None leaves the model's own."""

    def applied(self, call: ModelCall) -> ModelCall:
        """Return a call under these conditions."""
        missing = {
            name: value
            for name, value in (("temperature", self.temperature), ("max_tokens", self.max_tokens))
            if value is not None and getattr(call, name) is None
        }
        return call.model_copy(update=missing) if missing else call


class CallCost(Record):
    """What one call of a method took."""

    role: Role
    """What the call was for."""
    usage: Usage
    """Its tokens."""
    budget: int | None = None
    """The budget it was made under, in output tokens."""
    finish_reason: FinishReason | None = None
    """Why the model stopped."""
    seconds: float | None = None
    """Wall-clock seconds of the call; None when nobody measured it."""


class Attempt(Record):
    """One method's answer to one question."""

    method: str
    """The method's label."""
    question_id: str
    """Identifies the question within its data."""
    question: str
    """The question as it was asked."""
    reference: str
    """The answer that is known to be right."""
    data: str
    """Names the questions."""
    setup: str = ""
    """A digest of model, method, sampling and grader; see `setup_of`."""
    verdict: Verdict
    """How the answer was graded."""
    text: str
    """The answer."""
    calls: tuple[CallCost, ...]
    """Every call that counts, in order."""
    events: tuple[ElasticityEvent, ...] = ()
    """What departed from the plan, for methods that work under a budget."""

    @property
    def correct(self) -> bool:
        """Whether the answer is right; one that holds nothing to compare is not."""
        return self.verdict == "correct"

    @property
    def net_tokens(self) -> int:
        """Output tokens of everything that this answer took."""
        return self.output_tokens()

    @property
    def input_tokens(self) -> int:
        """Prompt tokens of everything that this answer took."""
        return sum(call.usage.input_tokens for call in self.calls)

    @property
    def seconds(self) -> float | None:
        """Seconds of its calls, one after the other; None when one of them was not timed."""
        times = [call.seconds for call in self.calls]
        return None if None in times else sum(time for time in times if time is not None)

    @property
    def estimated(self) -> bool:
        """Whether a tokenizer counted any of the calls, in place of the provider."""
        return any(call.usage.source == "estimated" for call in self.calls)

    def output_tokens(self, role: Role | None = None) -> int:
        """Return the completion tokens of the calls of a role; None for all."""
        return sum(call.usage.output_tokens for call in self.calls if role in {None, call.role})


def bench_jobs(
    dataset: Dataset,
    methods: Sequence[Method],
    *,
    model: str,
    sampling: Sampling | None = None,
    grader: str | Grader = "auto",
) -> list[Job[Attempt]]:
    """Return one job for every method and question, interleaved so that drift hits all methods alike.

    The methods take turns question by question, and each question starts with another one of them.

    Args:
        dataset: The questions.
        methods: What to compare.
        model: Names the model; part of every key.
        sampling: What applies to every call.
        grader: How to grade: a name or a grader.

    Raises:
        DataError: The grader cannot read a reference answer.
        InvalidValueError: There are no methods, or two have the same label.
    """
    labels = [method.label for method in methods]
    twins = sorted({label for label in labels if labels.count(label) > 1})
    if not labels or twins:
        raise InvalidValueError(
            f"these methods are named twice: {', '.join(twins)}"
            if twins
            else "a benchmark needs methods, got none"
        )
    preflight(dataset.questions, grader)
    asked = Sampling() if sampling is None else sampling
    name = grader_name(grader)
    setups = {method.label: setup_of(method, asked, model=model, grader=name) for method in methods}
    return [
        _job(question, method, asked, data=dataset.source, grader=grader, setup=setups[method.label])
        for number, question in enumerate(dataset.questions)
        for method in _rotated(methods, number)
    ]


def _rotated(methods: Sequence[Method], by: int) -> list[Method]:
    start = by % len(methods)
    return [*methods[start:], *methods[:start]]


def setup_of(method: Method, sampling: Sampling, *, model: str, grader: str) -> str:
    """Return a digest of everything but the question that decides an answer and its grade.

    The keys of a benchmark's results begin with it, so that a results file that holds several benchmarks can
    tell them apart, failures included.

    Args:
        method: How to answer.
        sampling: What applies to every call.
        model: Names the model.
        grader: Names the grader.
    """
    return result_key(
        kind=KIND,
        model=model,
        method=method.label,
        settings=method.settings(),
        sampling=sampling.model_dump(mode="json"),
        grader=grader,
    )[:_SETUP_DIGITS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempting:
    """Makes the flow of one method and one question; picklable, so that it can be made in another process."""

    method: Method
    """How to answer."""
    question: Question
    """The question."""
    grader: str | Grader
    """How to grade: a name or a grader."""
    sampling: Sampling
    """What applies to every call."""
    data: str
    """Names the questions."""
    setup: str
    """The digest of `setup_of`."""

    def __call__(self) -> Flow[Attempt]:
        """Return the flow."""
        grade = get_grader(self.grader)(self.question)
        return attempt(
            self.method, self.question, grade, sampling=self.sampling, data=self.data, setup=self.setup
        )


def _job(
    question: Question, method: Method, sampling: Sampling, *, data: str, grader: str | Grader, setup: str
) -> Job[Attempt]:
    return Job(
        question=question,
        key=f"{setup}.{result_key(question=question.id, text=question.question)}",
        kind=KIND,
        record=Attempt,
        flow=Attempting(
            method=method, question=question, grader=grader, sampling=sampling, data=data, setup=setup
        ),
        label=method.label,
    )


def attempt(
    method: Method,
    question: Question,
    grade: Grade,
    *,
    sampling: Sampling,
    data: str = "",
    setup: str = "",
) -> Flow[Attempt]:
    """Answer one question with one method, and grade the answer.

    Args:
        method: How to answer.
        question: The question.
        grade: Decides whether an answer is right.
        sampling: What applies to every call.
        data: Names the questions.
        setup: The digest of `setup_of`.

    Raises:
        EmptyAnswerError: The model answered nothing, so that there is nothing to measure.
    """
    calls: list[CallCost] = []
    replies: list[ModelReply] = []

    def note(call: ModelCall, reply: ModelReply) -> None:
        replies.append(reply)
        if call.role not in _UNCOUNTED:
            calls.append(_cost(call, reply))

    said = yield from observed(adjusted(method.answer(question.question), sampling.applied), note)
    if not said.text.strip() and replies:
        answer_text(replies[-1].model_copy(update={"text": said.text}))
    verdict = yield from graded(grade, said.text)
    return Attempt(
        method=method.label,
        question_id=question.id,
        question=question.question,
        reference=question.answer,
        data=data,
        setup=setup,
        verdict=verdict,
        text=said.text,
        calls=tuple(calls),
        events=said.events,
    )


def _cost(call: ModelCall, reply: ModelReply) -> CallCost:
    return CallCost(
        role=call.role,
        usage=usage_of(call, reply),
        budget=call.budget,
        finish_reason=reply.finish_reason,
        seconds=reply.seconds,
    )


class SpendingLimit:
    """A call that ends the run once a sum is spent; safe under threads.

    Calls already under way when the limit is reached come to their end and are kept, so that a run may exceed
    it by as many calls as are made at a time.

    Args:
        call: Answers the calls.
        max_tokens: Input and output tokens that the run may take; None for no limit.
        max_cost: What the run may cost, in the currency of ``price``; None for no limit.
        price: The price of one call's usage; needed for ``max_cost``.

    Raises:
        InvalidValueError: A cost is limited, and nobody says what a call costs.
    """

    def __init__(
        self,
        call: Call,
        *,
        max_tokens: int | None = None,
        max_cost: float | None = None,
        price: Callable[[Usage], float] | None = None,
    ) -> None:
        if max_cost is not None and price is None:
            raise InvalidValueError(
                f"a cost limit of {max_cost:g} needs the model's price, which is unknown; limit the tokens"
            )
        self._call = call
        self._max_tokens = max_tokens
        self._max_cost = max_cost
        self._price = price
        self._lock = threading.Lock()
        self._tokens = 0
        self._cost = 0.0

    def __call__(self, call: ModelCall) -> ModelReply:
        """Answer one call, unless the limit is reached.

        Raises:
            SpendingLimitError: It is.
        """
        self._check()
        reply = self._call(call)
        usage = usage_of(call, reply)
        with self._lock:
            self._tokens += usage.total_tokens
            self._cost += 0.0 if self._price is None else self._price(usage)
        return reply

    def _check(self) -> None:
        with self._lock:
            tokens, cost = self._tokens, self._cost
        if self._max_tokens is not None and tokens >= self._max_tokens:
            raise SpendingLimitError(
                f"the limit of {self._max_tokens:,} tokens is reached: {tokens:,} are spent"
            )
        if self._max_cost is not None and cost >= self._max_cost:
            raise SpendingLimitError(f"the limit of {self._max_cost:g} is reached: {cost:.4g} is spent")
