"""The two drivers of a flow, what changes a flow on its way to them, and fairness to an event loop.

A flow is a generator (see `tale_core.types.Flow`). It knows no framework, no network and no event loop: `run`
and `arun` are the only place where sync and async differ. `tale_core.concurrency` drives many flows at a time.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from tale_core.types import ACall, Call, Flow, ModelCall, ModelReply, T

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


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


# In both drivers the model call is outside the try that catches StopIteration (in `_step`): an exhausted fake
# must fail loudly instead of ending the flow with None. A failed call goes into the flow, which may recover (an
# estimator's fallback) or let it pass to the caller unchanged.


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
            except Exception as exc:  # noqa: BLE001  # handed to the flow, which raises what it cannot handle
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
    note: Callable[[ModelCall, ModelReply], ModelReply | None],
    *,
    recall: Callable[[ModelCall], ModelReply | None] | None = None,
) -> Flow[T]:
    """Return the same flow, telling ``note`` of every call that was answered.

    Args:
        flow: The flow to pass through.
        note: Receives each call with its reply, before the flow goes on; what it returns, if anything, is used
            in place of the reply.
        recall: Answers calls whose reply is already known; neither the driver nor ``note`` sees those.
    """
    with closing(flow):
        step = _step(flow, None)
        while not isinstance(step, _Returned):
            outcome: ModelReply | Exception | None = None if recall is None else recall(step)
            if outcome is None:
                outcome = yield from _passed_on(step)
                if not isinstance(outcome, Exception):
                    outcome = note(step, outcome) or outcome
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
    """Return the rest of a flow that was started with ``next`` and waits at its first call.

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
    """Hand a call to the driver; an exception is an outcome too, since the inner flow may recover from it."""
    try:
        return (yield call)
    except Exception as exc:  # noqa: BLE001  # the inner flow decides
        return exc


AT_A_STRETCH = 0.005
"""Seconds that questions may compute before the event loop runs what else is waiting."""

_begun: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, float] = weakref.WeakKeyDictionary()


async def turn() -> None:
    """Let the event loop run what else is waiting, if questions have kept it for a while already.

    A hundred answers that arrive together would otherwise be processed in one go, and nothing else on the loop
    would run meanwhile. With few questions this returns at once.
    """
    loop = asyncio.get_running_loop()
    while loop in _begun and time.perf_counter() - _begun[loop] > AT_A_STRETCH:  # noqa: ASYNC110
        await asyncio.sleep(0)  # one pass of the loop is what is waited for
    if loop not in _begun:
        _begun[loop] = time.perf_counter()
        loop.call_soon(_begun.pop, loop, None)  # runs at the next pass
