"""Many questions at once leave the event loop room for others."""

from __future__ import annotations

import asyncio

import pytest

from tale_core import flows
from tale_core.flows import AT_A_STRETCH, turn

STEP = 0.001
CROWD = 100


class Clock:
    """Shows the time that was computed, and no other."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(flows, "time", clock)
    return clock


async def rounds_beside(clock: Clock, *, paced: bool) -> int:
    """Return how often the loop went round while a crowd computed."""
    done = 0

    async def question() -> None:
        nonlocal done
        if paced:
            await turn()
        clock.now += STEP
        done += 1

    questions = [asyncio.create_task(question()) for _ in range(CROWD)]
    rounds = 0
    while done < CROWD:
        await asyncio.sleep(0)
        rounds += 1
    await asyncio.gather(*questions)
    return rounds


async def test_a_crowd_takes_several_rounds_of_the_loop(clock: Clock) -> None:
    assert await rounds_beside(clock, paced=False) <= 2
    # At most this many steps fit into one round.
    assert await rounds_beside(clock, paced=True) >= CROWD / (AT_A_STRETCH / STEP + 1) - 1


async def test_where_there_is_no_crowd_nothing_is_waited_for() -> None:
    await asyncio.sleep(0)
    step = turn()
    try:
        step.send(None)
    except StopIteration:
        return
    raise AssertionError("the loop was asked to go round")


async def test_each_loop_has_rounds_of_its_own() -> None:
    await turn()
    await asyncio.to_thread(asyncio.run, turn())
