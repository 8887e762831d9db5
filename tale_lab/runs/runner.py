"""Drives the flows of many questions over one model, keeping every finished call and every finished result."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from pydantic import Field

from tale_core.errors import GraderError, SpendingLimitError, StoreError
from tale_core.types import Record
from tale_lab.runs.engines import Engine, LocalEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from tale_core.types import Call, Flow
    from tale_lab.questions.datasets import Question
    from tale_lab.results.store import Store

R = TypeVar("R", bound=Record)

_FAILURES_IN_A_ROW = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Generic[R]):
    """One question to be worked on."""

    question: Question
    """The question."""
    key: str
    """What makes the result what it is; see `tale_core.evaluation.result_key`."""
    kind: str
    """What the result is: ``"search"``, ``"elasticity"``, ..."""
    record: type[R]
    """The class of the result."""
    flow: Callable[[], Flow[R]]
    """Makes the flow that leads to the result; picklable where the flow is to run in another process."""
    label: str = ""
    """What works on the question, where one question has several jobs."""


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


class Progress(Record):
    """Where a run stands."""

    total: int = Field(ge=0)
    """Questions in all."""
    known: int = 0
    """Questions that earlier runs finished."""
    finished: int = 0
    """Questions that this run finished."""
    failed: int = 0
    """Questions that failed in this run."""
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


@dataclass(slots=True)
class _Tally:
    total: int
    known: int = 0
    finished: int = 0
    failed: int = 0
    in_a_row: int = 0
    began: float = field(default_factory=time.monotonic)

    def count(self, done: Done[R]) -> None:
        if done.known:
            self.known += 1
        elif done.error is None:
            self.finished += 1
            self.in_a_row = 0
        else:
            self.failed += 1
            # A grader that fails says nothing about the model.
            self.in_a_row += not isinstance(done.error, GraderError)

    def progress(self) -> Progress:
        return Progress(
            total=self.total,
            known=self.known,
            finished=self.finished,
            failed=self.failed,
            seconds=time.monotonic() - self.began,
        )


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

    Questions whose result is kept already come first and cost nothing. A question that fails costs only
    itself and is tried again by the next run.

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
        SpendingLimitError: What may be spent is spent; what is there is kept.
        EngineError: Flows cannot run where they are to run.
        Exception: The error of the last of so many questions that failed in a row that the model must be gone.
    """
    if not isinstance(engine, Engine):
        engine = LocalEngine(engine, concurrency=concurrency)
    tally = _Tally(total=len(jobs))
    # Closed at once when it is left, not when it is collected: the store may be closed by then.
    with closing(_ended(jobs, store, engine, model=model, judge=judge)) as ended:
        for done in ended:
            tally.count(done)
            yield done
            if on_progress is not None:
                on_progress(tally.progress(), done)
            if done.error is not None and tally.in_a_row >= max(_FAILURES_IN_A_ROW, 2 * engine.concurrency):
                raise done.error


def _ended(
    jobs: Sequence[Job[R]], store: Store, engine: Engine, *, model: str, judge: str | None
) -> Generator[Done[R], None, None]:
    pending: list[Job[R]] = []
    for job in jobs:
        result = store.get(job.key, job.record)
        if result is None:
            pending.append(job)
        else:
            yield Done(question=job.question, result=result, known=True)
    memory = store.memory(model=model, judge=judge)
    with closing(engine.drive((job.flow for job in pending), memory)) as outcomes:
        for outcome in outcomes:
            job = pending[outcome.index]
            if isinstance(outcome.error, StoreError | SpendingLimitError):
                raise outcome.error
            if outcome.error is not None:
                store.note_failure(job.key, job.question.id, outcome.error, label=job.label)
            elif outcome.value is not None:
                store.put(job.key, job.kind, outcome.value, model=model, question_id=job.question.id)
            yield Done(question=job.question, result=outcome.value, error=outcome.error)
