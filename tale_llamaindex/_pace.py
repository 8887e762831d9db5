"""Keeping the event loop free: many questions at once take turns at what each has to compute."""

from __future__ import annotations

import asyncio
import weakref

_turnstiles: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()


async def turn() -> None:
    """Wait until the loop has turned since the last one passed here.

    A hundred answers that arrive together would otherwise be worked on in one go, and nothing else on the loop
    would run meanwhile.
    """
    loop = asyncio.get_running_loop()
    lock = _turnstiles.get(loop)
    if lock is None:
        lock = _turnstiles[loop] = asyncio.Lock()
    async with lock:
        await asyncio.sleep(0)
