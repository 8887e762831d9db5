"""A benchmark: many methods on the same questions, every answer graded and accounted for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from tale_core.errors import InvalidValueError
from tale_core.events import ElasticityEvent, UsageEvent  # noqa: TC001  # pydantic reads them
from tale_core.flows import adjusted, observed
from tale_core.search.graded_call import answer_text, graded
from tale_core.types import ModelReply, Record, Role
from tale_lab.bench.methods.base import FIRST_NAMES, MethodName
from tale_lab.questions.graders import GradedAnswer, grader_name, preflight
from tale_lab.results.store import result_key
from tale_lab.runs.accounts import usage_event
from tale_lab.runs.runner import Graded, Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_core.types import Flow, Grade, ModelCall
    from tale_lab.bench.methods import Method
    from tale_lab.questions.datasets import Dataset, Question
    from tale_lab.questions.graders import Grader

KIND = "attempt"
"""The kind under which a store keeps the results of a benchmark."""

_SETUP_DIGITS = 24  # a prefix of every key, so it need not be a whole digest
# A judge is no part of answering; a reference is another method's call, counted there.
_UNCOUNTED = frozenset({"judge", "reference"})


class Sampling(Record):
    """Sampling settings of every call that does not set its own."""

    temperature: float | None = Field(default=None, ge=0)
    """Sampling temperature; None leaves the model's own."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Output limit of an answer, in tokens; None leaves the model's own."""

    def applied(self, call: ModelCall) -> ModelCall:
        """Return a call under these conditions."""
        missing = {name: value for name, value in self if value is not None and getattr(call, name) is None}
        return call.model_copy(update=missing) if missing else call


class Attempt(GradedAnswer):
    """One method's answer to one question, with everything that it took.

    `Probe`, in the search of the core, is less: one call under one budget, of which a search makes many.
    """

    method: MethodName
    question: str
    data: str
    """Names the questions."""
    setup: str = ""
    """A digest of model, method, sampling and grader; see `setup_of`."""
    calls: tuple[UsageEvent, ...]
    """Every call that counts towards the method's cost, in order."""
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
    if not methods:
        raise InvalidValueError("a benchmark needs methods, got none")
    labels = [method.label for method in methods]
    # A label is what tells answers apart in the report.
    if twins := sorted({label for label in labels if labels.count(label) > 1}):
        raise InvalidValueError(f"these methods are named twice: {', '.join(twins)}")
    preflight(dataset.questions, grader)  # before any call: what cannot be graded is not worth asking
    asked = Sampling() if sampling is None else sampling
    name = grader_name(grader)
    setups = {method.label: setup_of(method, asked, model=model, grader=name) for method in methods}

    def job(question: Question, method: Method) -> Job[Attempt]:
        setup = setups[method.label]
        answered = partial(attempt, method, sampling=asked, data=dataset.source, setup=setup)
        return Job(
            question=question,
            key=f"{setup}.{result_key(question=question.id, text=question.question)}",
            kind=KIND,
            record=Attempt,
            flow=Graded(begin=answered, question=question, grader=grader),
            label=method.label,
            most_calls=method.most_calls,
        )

    return [
        job(question, methods[(number + turn) % len(methods)])
        for number, question in enumerate(dataset.questions)
        for turn in range(len(methods))
    ]


def setup_of(method: Method, sampling: Sampling, *, model: str, grader: str) -> str:
    """Return a digest of everything but the question that decides an answer and its grade.

    The keys of a benchmark's results begin with it, so that a results file that holds several benchmarks can
    tell them apart, failures included.
    """
    return result_key(
        kind=KIND,
        model=model,
        method=FIRST_NAMES.get(method.label, method.label),  # or every kept answer would be asked for again
        settings=method.settings(),
        sampling=sampling.model_dump(mode="json"),
        grader=grader,
    )[:_SETUP_DIGITS]


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

    Raises:
        EmptyAnswerError: The model answered nothing, so that there is nothing to measure.
    """
    calls: list[UsageEvent] = []
    replies: list[ModelReply] = []

    def note(call: ModelCall, reply: ModelReply) -> None:
        replies.append(reply)
        if call.role not in _UNCOUNTED:
            calls.append(usage_event(call, reply))

    said = yield from observed(adjusted(method.answer(question.question), sampling.applied), note)
    # An empty answer may be a refusal or a cut before the first word: the last reply says which.
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
