"""Keeping an event loop free while many questions at once have something to compute."""

from __future__ import annotations

import asyncio
import time
import weakref

AT_A_STRETCH = 0.005
"""Seconds that questions may compute before the loop goes round."""

_begun: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, float] = weakref.WeakKeyDictionary()


async def turn() -> None:
    """Wait until the loop has gone round, if questions have kept it for a while already.

    A hundred answers that arrive together would otherwise be worked on in one go, and nothing else on the loop
    would run meanwhile. Where there is no crowd, nothing is waited for.
    """
    loop = asyncio.get_running_loop()
    while loop in _begun and time.perf_counter() - _begun[loop] > AT_A_STRETCH:  # noqa: ASYNC110
        await asyncio.sleep(0)  # one round of the loop is what is waited for
    if loop not in _begun:
        _begun[loop] = time.perf_counter()
        loop.call_soon(_begun.pop, loop, None)  # runs when the loop has come round
