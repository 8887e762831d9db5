"""Drives the flows of many questions over one model, keeping every finished call and every finished result."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from tale_core.errors import GraderError, SpendingLimitError, StoreError
from tale_core.search.graded_call import answer_text
from tale_core.types import Record
from tale_lab.questions.graders import get_grader, grader_name, preflight
from tale_lab.results.store import result_key
from tale_lab.runs.engines import Engine, LocalEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from tale_core.types import Call, Flow, Grade
    from tale_lab.questions.datasets import Dataset, Question
    from tale_lab.questions.graders import Grader
    from tale_lab.results.store import Store, StoredMemory

R = TypeVar("R", bound=Record)

_FAILURES_IN_A_ROW = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Generic[R]):
    """One question to be worked on."""

    question: Question
    """The question."""
    key: str
    """Identifies the result; see `tale_lab.results.store.result_key`."""
    kind: str
    """What the result is: ``"search"``, ``"elasticity"``, ..."""
    record: type[R]
    """The class of the result."""
    flow: Callable[[], Flow[R]]
    """Makes the flow that leads to the result; picklable where the flow is to run in another process."""
    label: str = ""
    """What works on the question, where one question has several jobs."""
    most_calls: int = 1
    """Upper bound of the model calls that it takes, judging not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded(Generic[R]):
    """Makes the flow of one graded question; picklable, so that another process can make it."""

    begin: Callable[[Question, Grade], Flow[R]]
    """A function of a module, or a ``partial`` of one."""
    question: Question
    grader: str | Grader
    """The name of a grader, or a picklable grader."""

    def __call__(self) -> Flow[R]:
        """Return the flow."""
        return self.begin(self.question, get_grader(self.grader)(self.question))


def graded_jobs(
    dataset: Dataset,
    begin: Callable[[Question, Grade], Flow[R]],
    *,
    kind: str,
    record: type[R],
    settings: Record,
    model: str,
    grader: str | Grader,
    most_calls: int,
) -> list[Job[R]]:
    """Return one job per question, each kept under a key of question, model, settings and grader.

    Args:
        dataset: The questions.
        begin: Starts the flow of one question.
        kind: What the results are: ``"search"``, ``"elasticity"``, ...
        record: The class of the results.
        settings: How each question is worked on.
        model: Names the model.
        grader: A grader or its name.
        most_calls: Upper bound of the model calls per question.

    Raises:
        DataError: The grader cannot read a reference answer.
    """
    preflight(dataset.questions, grader)
    shared = {
        "model": model,
        "settings": settings.model_dump(mode="json"),
        "grader": grader_name(grader),
    }
    return [
        Job(
            question=question,
            key=result_key(kind=kind, question=question.id, **shared),
            kind=kind,
            record=record,
            flow=Graded(begin=begin, question=question, grader=grader),
            most_calls=most_calls,
        )
        for question in dataset.questions
    ]


@dataclass(frozen=True, slots=True)
class Whole(Generic[R]):
    """Makes a flow that fails with its first failed call or empty answer, however it would go on itself.

    In use, an estimator that fails leads to an answer without a budget. In a measurement that would be the
    answer of another method. And an empty answer is not kept, so no result may rest on one.
    """

    make: Callable[[], Flow[R]]
    """Makes the flow."""

    def __call__(self) -> Flow[R]:
        """Return the flow."""
        with closing(self.make()) as flow:
            try:
                call = next(flow)
                while True:
                    # An error that the driver throws in here passes by the inner flow.
                    reply = yield call
                    answer_text(reply)
                    call = flow.send(reply)
            except StopIteration as stop:
                return cast("R", stop.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Generic[R]):
    """How one job ended."""

    question: Question
    """The question."""
    result: R | None = None
    """The result, when there is one."""
    error: Exception | None = None
    """What ended the question, when it failed; a later run tries it again."""
    known: bool = False
    """Whether the result was there before this run."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a run is."""

    total: int
    """Questions in all."""
    known: int = 0
    """Questions that earlier runs finished."""
    finished: int = 0
    """Questions that this run finished."""
    failed: int = 0
    """Questions that failed in this run."""
    failed_in_a_row: int = 0
    """How many of them failed since the last one that was finished."""
    seconds: float = 0.0
    """Seconds since this run began."""

    @property
    def done(self) -> int:
        """Questions that need no more work in this run."""
        return self.known + self.finished + self.failed

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the seconds still needed; None before the first question is finished."""
        worked = self.finished + self.failed
        return (self.total - self.done) * self.seconds / worked if worked else None

    def count(self, done: Done[R]) -> None:
        """Count how one job ended."""
        if done.known:
            self.known += 1
        elif done.error is None:
            self.finished += 1
            self.failed_in_a_row = 0
        else:
            self.failed += 1
            # A grader that fails says nothing about the model.
            self.failed_in_a_row += not isinstance(done.error, GraderError)


def run_jobs(
    jobs: Sequence[Job[R]],
    store: Store,
    engine: Call | Engine,
    *,
    model: str,
    judge: str | None = None,
    concurrency: int = 4,
    on_progress: Callable[[Progress, Done[R]], None] | None = None,
) -> Generator[Done[R], None, None]:
    """Work on many questions at a bounded concurrency and yield each as it ends.

    Questions whose result is kept already come first and cost nothing. A question that fails does
    not affect the others, and the next run retries it.

    Args:
        jobs: What to do.
        store: Where calls and results are kept.
        engine: Where flows run; or what answers one `ModelCall`, called from several threads of this process.
        model: Names the model; part of every key.
        judge: Names the model that answers calls of role ``judge``, where it is another one.
        concurrency: How many questions are under way at a time, where ``engine`` does not say.
        on_progress: Told after every question, once the consumer has seen it, from this thread.

    Raises:
        StoreError: The results file cannot be written; what is in it is kept.
        SpendingLimitError: The spending limit is reached; what is there is kept.
        EngineError: Flows cannot run where they are to run.
        Exception: Many questions failed in a row, so the model is assumed unreachable; the last one's error.
    """
    if not isinstance(engine, Engine):
        engine = LocalEngine(engine, concurrency=concurrency)
    progress, began = Progress(total=len(jobs)), time.monotonic()
    # Closed at once when it is left, not when it is collected: the store may be closed by then.
    memory = store.memory(model=model, judge=judge)
    with closing(_ended(jobs, store, engine, memory, model=model)) as ended:
        for done in ended:
            progress.count(done)
            yield done
            if on_progress is not None:
                progress.seconds = time.monotonic() - began
                on_progress(progress, done)
            if done.error is not None and progress.failed_in_a_row >= max(
                _FAILURES_IN_A_ROW, 2 * engine.concurrency
            ):
                raise done.error


def _ended(
    jobs: Sequence[Job[R]], store: Store, engine: Engine, memory: StoredMemory, *, model: str
) -> Generator[Done[R], None, None]:
    pending: list[Job[R]] = []
    for job in jobs:
        result = store.get(job.key, job.record)
        if result is None:
            pending.append(job)
        else:
            yield Done(question=job.question, result=result, known=True)
    with closing(engine.drive((Whole(job.flow) for job in pending), memory)) as outcomes:
        for outcome in outcomes:
            job = pending[outcome.index]
            if isinstance(outcome.error, StoreError | SpendingLimitError):
                raise outcome.error
            if outcome.error is not None:
                store.note_failure(job.key, job.question.id, outcome.error, label=job.label)
            elif outcome.value is not None:
                store.put(job.key, job.kind, outcome.value, model=model, question_id=job.question.id)
            yield Done(question=job.question, result=outcome.value, error=outcome.error)
