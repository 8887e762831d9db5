"""Memory over thousands of model calls, each kind of wrapper in a process of its own."""

from __future__ import annotations

import gc
import multiprocessing
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from _overhead.figures import Table
from _overhead.sides import QUESTION
from tale_core import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

Ask: TypeAlias = Callable[[], object]

KEPT = 500
_THOUSANDS = 5
_FIRST = 2
"""The thousand after which nothing may grow any more."""
_ENDS = ["thousand 1", *map(str, range(2, _THOUSANDS + 1))]
_COLUMNS = {
    "wrapper": "",
    "ledger keeps": "",
    **dict.fromkeys(_ENDS, ",.0f"),
    "bytes per question": ",.1f",
    "resident 2 to 5": ",.0f",
}
_SAYS = (
    "Kilobytes of Python objects (tracemalloc) after each thousand model calls ({questions} questions), "
    "less those before the first; their growth from the end of the 2nd to the end of the 5th thousand in bytes "
    "per question; growth of the resident memory over the same stretch in kilobytes, without tracemalloc."
)


def langchain_runnable(keep: int | None, *, observed: bool) -> Ask:
    """Return one question to `TALERunnable`."""
    from _overhead.langchain import InstantModel  # noqa: PLC0415  # each process imports what it measures
    from tale_langchain import TALECallbackHandler, TALERunnable  # noqa: PLC0415

    wrapper = TALERunnable(InstantModel())
    config = {"callbacks": [TALECallbackHandler(Ledger(keep=keep))]} if observed else None
    return lambda: wrapper.invoke(QUESTION, config)


def langchain_model(keep: int | None, *, observed: bool) -> Ask:
    """Return one question to `ChatTALE`."""
    from _overhead.langchain import InstantModel  # noqa: PLC0415
    from tale_langchain import ChatTALE, TALECallbackHandler  # noqa: PLC0415

    wrapper = ChatTALE(InstantModel())
    config = {"callbacks": [TALECallbackHandler(Ledger(keep=keep))]} if observed else None
    return lambda: wrapper.invoke(QUESTION, config)


def llamaindex_llm(keep: int | None, *, observed: bool) -> Ask:
    """Return one question to `TALELLM`."""
    from _overhead.instant_llm import Stand  # noqa: PLC0415
    from tale_llamaindex import TALELLM, TALECallbackHandler  # noqa: PLC0415

    handler = TALECallbackHandler(ledger=Ledger(keep=keep)) if observed else None
    wrapper = TALELLM(Stand.under(handler).llm)
    return lambda: wrapper.complete(QUESTION)


def llamaindex_engine(keep: int | None, *, observed: bool) -> Ask:
    """Return one question to `TALEQueryEngine`."""
    from _overhead.instant_llm import Stand  # noqa: PLC0415
    from tale_llamaindex import TALECallbackHandler, TALEQueryEngine  # noqa: PLC0415

    handler = TALECallbackHandler(ledger=Ledger(keep=keep)) if observed else None
    wrapper = TALEQueryEngine(Stand.under(handler).engine())
    return lambda: wrapper.query(QUESTION)


_WRAPPERS = {
    "TALERunnable": langchain_runnable,
    "ChatTALE": langchain_model,
    "TALELLM": llamaindex_llm,
    "TALEQueryEngine": llamaindex_engine,
}
_NOTHING, _SOME, _ALL = "no handler", f"{KEPT}", "everything"
_LEDGERS: dict[str, tuple[int | None, bool]] = {
    _NOTHING: (None, False),
    _SOME: (KEPT, True),
    _ALL: (None, True),
}
_KINDS = [("TALERunnable", _ALL), *((wrapper, ledger) for ledger in (_NOTHING, _SOME) for wrapper in _WRAPPERS)]


def measure(*, thousand: int, kinds: int) -> Table:
    """Make thousands of model calls.

    Args:
        thousand: How many questions make a thousand calls: 500, since each is estimated and answered; fewer for
            a trial.
        kinds: How many kinds of wrapper and ledger.
    """
    table = Table("Memory", _SAYS.format(questions=thousand), _COLUMNS)
    for wrapper, ledger in _KINDS[:kinds]:
        resident, traced = _in_own_process(wrapper, ledger, thousand)
        between = (_THOUSANDS - _FIRST) * thousand
        table.rows.append(
            {
                "wrapper": wrapper,
                "ledger keeps": ledger,
                **dict(zip(_ENDS, [one / 1e3 for one in traced], strict=True)),
                "bytes per question": (traced[-1] - traced[_FIRST - 1]) / between,
                "resident 2 to 5": (resident[-1] - resident[_FIRST - 1]) / 1e3 if any(resident) else None,
            }
        )
    return table


def _in_own_process(wrapper: str, ledger: str, thousand: int) -> tuple[list[int], list[int]]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_grown, wrapper, ledger, thousand).result()


def _grown(wrapper: str, ledger: str, thousand: int) -> tuple[list[int], list[int]]:
    """Return the bytes after each thousand: of this process, and then once more of Python objects alone."""
    keep, observed = _LEDGERS[ledger]
    resident = [_resident() for _ in _thousands(_WRAPPERS[wrapper](keep, observed=observed), thousand)]
    ask = _WRAPPERS[wrapper](keep, observed=observed)
    ask()  # what is made at the first question is no growth
    gc.collect()
    tracemalloc.start()
    return resident, [tracemalloc.get_traced_memory()[0] for _ in _thousands(ask, thousand)]


def _thousands(ask: Ask, thousand: int) -> Iterator[None]:
    for _ in range(_THOUSANDS):
        for _ in range(thousand):
            ask()
        gc.collect()
        yield


def _resident() -> int:
    """Return the bytes of this process in memory; 0 where the system does not say so in a file."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), 0)
