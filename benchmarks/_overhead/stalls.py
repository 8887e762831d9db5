"""How long an event loop is kept from everything else while many questions run on it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from _overhead import langchain, llamaindex
from _overhead.figures import Spread, Table
from _overhead.instant_llm import Stand
from _overhead.sides import QUESTION
from tale_langchain import ChatTALE, TALEMiddleware, TALERunnable
from tale_llamaindex import TALELLM, TALEQueryEngine, TALESynthesizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _overhead.sides import Side

_LATENCY = 0.02


def measure(*, questions: int, runs: int) -> Table:
    """Ask many questions at once and watch the loop.

    Args:
        questions: How many at once.
        runs: How often.
    """
    says = (
        f"The longest time in milliseconds for which the loop did nothing but answer {questions} questions "
        f"asked at once; the model takes {_LATENCY * 1e3:.0f} ms for a call. The middle half of {runs} runs."
    )
    table = Table("Event loop", says, {"wrapper": "", "bare": ".1f", "by hand": ".1f", "TALE": ".1f"})
    for wrapper, sides in _sides():
        longest: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(runs + 1):  # the first warms up
            for name, side in sides.items():
                with side.around():
                    longest[name].append(asyncio.run(_longest_stall(side, questions)) * 1e3)
        table.rows.append({"wrapper": wrapper, **{name: Spread.of(all_[1:]) for name, all_ in longest.items()}})
    return table


async def _longest_stall(side: Side, questions: int) -> float:
    assert side.abatch is not None
    longest = 0.0
    answering = asyncio.ensure_future(side.abatch([QUESTION] * questions))
    while not answering.done():
        began = time.perf_counter()
        await asyncio.sleep(0)  # everything else that is ready has its turn
        longest = max(longest, time.perf_counter() - began)
    await answering
    return longest


def _sides() -> Iterator[tuple[str, dict[str, Side]]]:
    model = langchain.InstantModel(latency=_LATENCY)
    bare, by_hand = langchain.side(model), langchain.side(langchain.handwritten(model))
    for wrapper in (TALERunnable(model), ChatTALE(model)):
        yield (
            type(wrapper).__name__,
            {"bare": bare, "by hand": by_hand, "TALE": langchain.side(wrapper)},
        )
    agents: dict[str, Any] = {
        "bare": langchain.agent(model),
        "by hand": langchain.agent(model, langchain.HandwrittenMiddleware()),
        "TALE": langchain.agent(model, TALEMiddleware()),
    }
    yield (
        "TALEMiddleware",
        {name: langchain.side(one, given=langchain.conversation) for name, one in agents.items()},
    )
    yield from _llamaindex()


def _llamaindex() -> Iterator[tuple[str, dict[str, Side]]]:
    stand = Stand.under(None, latency=_LATENCY)
    engine, synthesizer = stand.engine(), stand.synthesizer()
    yield (
        "TALELLM",
        {
            "bare": llamaindex.llm_side(stand.llm),
            "by hand": llamaindex.llm_by_hand(stand.llm),
            "TALE": llamaindex.llm_side(TALELLM(stand.llm)),
        },
    )
    yield (
        "TALEQueryEngine",
        {
            "bare": llamaindex.engine_side(engine, None),
            "by hand": llamaindex.engine_by_hand(engine, None, stand.llm),
            "TALE": llamaindex.engine_side(TALEQueryEngine(engine), None),
        },
    )
    yield (
        "TALESynthesizer",
        {
            "bare": llamaindex.synthesizer_side(synthesizer, None),
            "by hand": llamaindex.synthesizer_by_hand(synthesizer, None, stand.llm),
            "TALE": llamaindex.synthesizer_side(TALESynthesizer(synthesizer), None),
        },
    )
