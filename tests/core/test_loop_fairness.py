"""Many questions at once leave the event loop room for others."""

from __future__ import annotations

import asyncio
import time

from tale_core.flows import AT_A_STRETCH, turn

STEP = 0.001
CROWD = 100


def compute() -> None:
    until = time.perf_counter() + STEP
    while time.perf_counter() < until:
        pass


async def rounds_beside(*, paced: bool) -> int:
    """Return how often the loop went round while a crowd computed."""
    done = 0

    async def question() -> None:
        nonlocal done
        if paced:
            await turn()
        compute()
        done += 1

    questions = [asyncio.create_task(question()) for _ in range(CROWD)]
    rounds = 0
    while done < CROWD:
        await asyncio.sleep(0)
        rounds += 1
    await asyncio.gather(*questions)
    return rounds


async def test_a_crowd_takes_several_rounds_of_the_loop() -> None:
    assert await rounds_beside(paced=False) <= 2
    # At most this many steps fit into one round, and a machine that is busy makes it fewer.
    assert await rounds_beside(paced=True) >= CROWD / (AT_A_STRETCH / STEP + 1) - 1


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
