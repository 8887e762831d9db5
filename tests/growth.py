"""How the work of a function grows with its input, whatever else the machine does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = 4
LINEAR = 2 * TIMES
"""Work that grows with its input stays near `TIMES`, quadratic work comes near ``TIMES ** 2``."""


def growth(work: Callable[[int], Any], size: int) -> float:
    """Return how many times as much this thread computes for a size as for a quarter of it.

    Processor time leaves out what other programs take. What is more than `LINEAR` is measured again, and of
    all tries those that were disturbed the least count.

    Args:
        work: Does the work for a size.
        size: The larger size.
    """
    small, large = [], []
    for _ in range(5):
        small.append(_computed(work, size // TIMES))
        large.append(_computed(work, size))
        if min(large) < LINEAR * min(small):
            break
    return min(large) / min(small)


def _computed(work: Callable[[int], Any], size: int) -> int:
    started = time.thread_time_ns()
    work(size)
    return time.thread_time_ns() - started
