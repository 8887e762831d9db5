"""How the work of a function grows with its input, whatever else the machine does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = 4
LINEAR = 2 * TIMES
"""Work that grows with its input stays near `TIMES`, quadratic work comes near ``TIMES ** 2``."""


def growth(work: Callable[[int], Any], size: int, *, tries: int = 5) -> float:
    """Return how many times as much this thread computes for a size as for a quarter of it.

    Processor time leaves out what other programs take; of several tries, what disturbed the least counts.

    Args:
        work: Does the work for a size.
        size: The larger size.
        tries: How often to measure each.
    """
    best = []
    for one in (size // TIMES, size):
        taken = []
        for _ in range(tries):
            started = time.thread_time_ns()
            work(one)
            taken.append(time.thread_time_ns() - started)
        best.append(min(taken))
    return best[1] / best[0]
