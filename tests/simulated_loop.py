"""An event loop on which no test has to wait: its time is simulated, and its work is counted."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS_A_CALL = 1e-6
"""What a function call counts for where a program asks how long it has computed."""


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Skips the time in which nothing happens, and counts the function calls between two turns.

    Neither depends on how fast the machine is or on what else it does. What a coroutine hands to a thread is
    done at once and counts for nothing: the loop would be free meanwhile.
    """

    now = 0.0
    """The simulated time in seconds. Sleeping takes time; computing takes none."""
    calls = 0
    """Function calls made on the loop so far, those of built-in functions included."""
    most_calls = 0
    """The most calls within one turn: for so long the loop did nothing else."""

    def time(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        """Return the seconds computed, by the count of calls; stands in for the function of `time`."""
        return self.calls * SECONDS_A_CALL

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0].when())
        before = self.calls
        sys.setprofile(self._count)
        try:
            super()._run_once()
        finally:
            sys.setprofile(None)
        self.most_calls = max(self.most_calls, self.calls - before)

    def _count(self, _frame: Any, event: str, _argument: Any) -> None:
        if event in {"call", "c_call"}:
            self.calls += 1

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        future = self.create_future()
        sys.setprofile(None)
        try:
            self.call_soon(future.set_result, func(*args))
        except Exception as exc:  # noqa: BLE001  # raised where the result is awaited
            self.call_soon(future.set_exception, exc)
        finally:
            sys.setprofile(self._count)
        return future
