"""Many flows at a time on threads, never more than a given number."""

from __future__ import annotations

import contextvars
import itertools
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from tale_core.errors import InvalidValueError
from tale_core.flows import run
from tale_core.types import Call, Flow, ModelCall, ModelReply, T

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator


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
    flows: Iterable[Flow[T]], call: Call, *, concurrency: int = 8, left: threading.Event | None = None
) -> Generator[Outcome[T], None, None]:
    """Drive many flows on a bounded number of threads and yield each outcome as it comes.

    The input is read lazily, never more than ``concurrency`` flows ahead, so it may be endless. A flow that
    fails costs only itself. Leaving the iteration early starts no further flow and no further call, and waits
    for the calls under way. Calls see the context variables of the caller, as they do on an event loop.

    Args:
        flows: The flows to run.
        call: Answers one `ModelCall`; called from several threads at once.
        concurrency: How many flows are under way at a time, at least 1.
        left: Set when the iteration is left, before the calls under way are waited for.

    Raises:
        InvalidValueError: ``concurrency`` is below 1.
    """
    if concurrency < 1:
        raise InvalidValueError(f"concurrency must be at least 1, got {concurrency}")
    left = threading.Event() if left is None else left

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
                pending |= start(1)  # before the consumer sees it: the model need not wait for that
                yield outcome


class _LeftEarly(BaseException):
    """Ends a flow whose outcome nobody will read; a BaseException, so that no flow recovers from it."""


@contextmanager
def _setting(event: threading.Event) -> Iterator[None]:
    try:
        yield
    finally:
        event.set()
