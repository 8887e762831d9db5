"""The two drivers of a flow, and the bounded scheduler of many.

A flow is a generator (see `tale_core.types.Flow`). It knows no framework, no network and no event loop: what
differs between sync and async is in this file and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from tale_core.errors import InvalidValueError
from tale_core.types import ACall, Call, Flow, ModelCall, ModelReply, T

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator


@dataclass(frozen=True, slots=True)
class _Returned(Generic[T]):
    value: T


def _step(flow: Flow[T], outcome: ModelReply | Exception | None) -> ModelCall | _Returned[T]:
    """Hand one outcome to the flow (None starts it) and return its next call, or its result."""
    try:
        if isinstance(outcome, Exception):
            return flow.throw(outcome)
        return flow.send(outcome)  # type: ignore[arg-type]  # None starts a generator
    except StopIteration as stop:
        return _Returned(stop.value)


# In both drivers the model call stands outside the try that catches StopIteration (in `_step`): an exhausted
# fake must fail loudly instead of ending the flow with None. A failed call goes into the flow, which may
# recover (an estimator's fallback) or let it pass to the caller unchanged.


def run(flow: Flow[T], call: Call) -> T:
    """Drive a flow to its end, synchronously.

    Args:
        flow: The flow to run.
        call: Answers one `ModelCall`; what it raises is thrown into the flow.

    Returns:
        The flow's result.
    """
    with closing(flow):
        step = _step(flow, None)
        while not isinstance(step, _Returned):
            outcome: ModelReply | Exception
            try:
                outcome = call(step)
            except Exception as exc:  # noqa: BLE001  # handed to the flow, which lets through what it cannot use
                outcome = exc
            step = _step(flow, outcome)
        return step.value


async def arun(flow: Flow[T], acall: ACall) -> T:
    """Drive a flow to its end, asynchronously.

    Args:
        flow: The flow to run.
        acall: Answers one `ModelCall`; what it raises is thrown into the flow.

    Returns:
        The flow's result.
    """
    with closing(flow):
        step = _step(flow, None)
        while not isinstance(step, _Returned):
            outcome: ModelReply | Exception
            try:
                outcome = await acall(step)
            except Exception as exc:  # noqa: BLE001  # as in `run`
                outcome = exc
            step = _step(flow, outcome)
        return step.value


def observed(
    flow: Flow[T],
    note: Callable[[ModelCall, ModelReply], None],
    *,
    recall: Callable[[ModelCall], ModelReply | None] | None = None,
) -> Flow[T]:
    """Return the same flow, telling ``note`` of every call that was answered.

    Args:
        flow: The flow to pass through.
        note: Receives each call with its reply, before the flow goes on.
        recall: Answers what is known already, so that the driver never sees that call, nor ``note``.
    """
    with closing(flow):
        step = _step(flow, None)
        while not isinstance(step, _Returned):
            outcome: ModelReply | Exception | None = None if recall is None else recall(step)
            if outcome is None:
                outcome = yield from _passed_on(step)
                if not isinstance(outcome, Exception):
                    note(step, outcome)
            step = _step(flow, outcome)
        return step.value


def adjusted(flow: Flow[T], change: Callable[[ModelCall], ModelCall]) -> Flow[T]:
    """Return the same flow with every call changed before it is made.

    Args:
        flow: The flow to pass through.
        change: Returns the call to make in place of the one that it is given.
    """
    with closing(flow):
        step = _step(flow, None)
        while not isinstance(step, _Returned):
            step = _step(flow, (yield from _passed_on(change(step))))
        return step.value


def resumed(flow: Flow[T], call: ModelCall) -> Flow[T]:
    """Return the rest of a flow that was started by hand and stands at its first call.

    Args:
        flow: The flow.
        call: What it yielded last.
    """
    with closing(flow):
        step: ModelCall | _Returned[T] = call
        while not isinstance(step, _Returned):
            step = _step(flow, (yield from _passed_on(step)))
        return step.value


def _passed_on(call: ModelCall) -> Generator[ModelCall, ModelReply, ModelReply | Exception]:
    """Hand a call to the driver; what it raises is an outcome too, since the inner flow may recover from it."""
    try:
        return (yield call)
    except Exception as exc:  # noqa: BLE001  # the inner flow decides
        return exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[T]):
    """How one of many flows ended."""

    index: int
    """The flow's position in the input."""
    value: T | None = None
    """The flow's result, when it has one."""
    error: Exception | None = None
    """What ended the flow, when it failed."""

    def unwrap(self) -> T:
        """Return the result, or raise what ended the flow."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # no error means the flow returned


def run_many(
    flows: Iterable[Flow[T]], call: Call, *, concurrency: int = 8
) -> Generator[Outcome[T], None, None]:
    """Drive many flows on a bounded number of threads and yield each outcome as it comes.

    The input is read lazily, never more than ``concurrency`` flows ahead, so it may be endless. A flow that
    fails costs only itself. Leaving the iteration early starts no further flow and no further call, and waits
    for the calls under way.
    Calls see the context variables of the caller, as they do on an event loop.

    Args:
        flows: The flows to run.
        call: Answers one `ModelCall`; called from several threads at once.
        concurrency: How many flows are under way at a time, at least 1.

    Raises:
        InvalidValueError: ``concurrency`` is below 1.
    """
    _check_concurrency(concurrency)
    left = threading.Event()

    def unless_left(one: ModelCall) -> ModelReply:
        if left.is_set():
            raise _LeftEarly
        return call(one)

    def drive(index: int, flow: Flow[T]) -> Outcome[T]:
        try:
            return Outcome(index=index, value=run(flow, unless_left))
        except Exception as exc:  # noqa: BLE001  # reported with the flow it belongs to
            return Outcome(index=index, error=exc)

    numbered = enumerate(flows)
    # The pool waits for its threads when it is left: they must learn of it first.
    with ThreadPoolExecutor(concurrency, thread_name_prefix="tale-flow") as pool, _setting(left):

        def start(free: int) -> set[Future[Outcome[T]]]:
            return {
                pool.submit(contextvars.copy_context().run, drive, index, flow)
                for index, flow in itertools.islice(numbered, free)
            }

        pending = start(concurrency)
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                outcome = future.result()
                pending |= start(1)  # before the consumer has its turn: the model shall not wait for that
                yield outcome


class _LeftEarly(BaseException):
    """Ends a flow whose outcome nobody will read; a BaseException, so that no flow recovers from it."""


@contextmanager
def _setting(event: threading.Event) -> Iterator[None]:
    try:
        yield
    finally:
        event.set()


async def arun_many(
    flows: Iterable[Flow[T]], acall: ACall, *, concurrency: int = 8
) -> AsyncIterator[Outcome[T]]:
    """Drive many flows on one event loop; the asynchronous form of `run_many`.

    Leaving the iteration early (``aclose``), or cancelling it, cancels the flows under way and waits for them.

    Args:
        flows: The flows to run.
        acall: Answers one `ModelCall`.
        concurrency: How many flows are under way at a time, at least 1.

    Raises:
        InvalidValueError: ``concurrency`` is below 1.
    """
    _check_concurrency(concurrency)

    async def drive(index: int, flow: Flow[T]) -> Outcome[T]:
        try:
            return Outcome(index=index, value=await arun(flow, acall))
        except Exception as exc:  # noqa: BLE001  # reported with the flow it belongs to
            return Outcome(index=index, error=exc)

    def start(free: int) -> set[asyncio.Task[Outcome[T]]]:
        return {asyncio.create_task(drive(*item)) for item in itertools.islice(numbered, free)}

    numbered = enumerate(flows)
    pending: set[asyncio.Task[Outcome[T]]] = set()
    try:
        pending |= start(concurrency)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                outcome = task.result()
                pending |= start(1)  # as in `run_many`
                yield outcome
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


def _check_concurrency(concurrency: int) -> None:
    if concurrency < 1:
        raise InvalidValueError(f"concurrency must be at least 1, got {concurrency}")
