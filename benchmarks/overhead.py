"""What TALE adds to two model calls, beside the same two calls written by hand in LCEL, and what importing it costs.

Both sides make the same two calls of one fake model that answers at once: an estimate, then the question with the
budget in it. The hand-written chain is the least that does it, ``lambda | model | lambda | model``: it parses the
budget with one regular expression and formats the two published prompts. It has no bounds, no fallback, no accounts,
no events, and knows its question from outside. No handler and no tracer is attached on either side.

Repeats alternate between the two, so that a busy machine slows both; a ratio is taken within each pair.

Run: ``python benchmarks/overhead.py`` (about a minute); ``--repeats`` for more.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda

from tale_langchain import TALERunnable

if TYPE_CHECKING:
    from collections.abc import Callable

QUESTION = "A tailor cuts 3 of 12 metres of cloth into 6 equal pieces. How long is a piece?"
BATCH = 100
AIM = 0.65


class InstantModel(BaseChatModel):
    """Answers at once, as an estimator or to a question, with a usage as a provider reports it."""

    @property
    def _llm_type(self) -> str:
        return "instant"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        estimates = str(messages[-1].content).startswith("Task:")
        text = "Budget: [[40]]" if estimates else "3 metres in 6 equal pieces are half a metre each: 0.5"
        usage = {"input_tokens": 50, "output_tokens": 6 if estimates else 38, "total_tokens": 88}
        metadata = {"finish_reason": "stop", "model_name": "instant"}
        message = AIMessage(text, usage_metadata=usage, response_metadata=metadata)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return self._generate(messages)


def handwritten(model: BaseChatModel) -> Runnable[str, AIMessage]:
    """Return the two steps as LCEL."""

    def ask_estimate(question: str) -> list[BaseMessage]:
        task = "Task: Analyze the given question and estimate the minimum number of tokens required ..."
        return [HumanMessage(f"{task}\n\nQuestion: {question}")]

    def ask_question(estimate: AIMessage) -> list[BaseMessage]:
        budget = int(re.findall(r"\[\[(\d+)\]\]", str(estimate.content))[0])
        wording = f"Let's think step by step and use less than {budget} tokens:"
        return [HumanMessage(f"{QUESTION}\n\n{wording}")]

    return RunnableLambda(ask_estimate) | model | RunnableLambda(ask_question) | model


def seconds(work: Callable[[], object], times: int) -> float:
    """Return the mean seconds of one call of ``work``."""
    started = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - started) / times


def compare(repeats: int) -> list[tuple[str, list[float], list[float]]]:
    """Time each way of asking, alternately; returns microseconds per question of both, by way."""
    model = InstantModel()
    pair = (handwritten(model), TALERunnable(model))
    loop = asyncio.new_event_loop()

    def asking(chain: Runnable[str, AIMessage]) -> dict[str, tuple[Callable[[], object], int, int]]:
        async def one_by_one() -> None:
            for _ in range(BATCH):
                await chain.ainvoke(QUESTION)

        questions = [QUESTION] * BATCH
        return {
            "invoke": (lambda: chain.invoke(QUESTION), BATCH, 1),
            "ainvoke": (lambda: loop.run_until_complete(one_by_one()), 1, BATCH),
            f"batch({BATCH})": (lambda: chain.batch(questions), 1, BATCH),
        }

    ways = [asking(chain) for chain in pair]
    results = []
    for way in ways[0]:
        times: tuple[list[float], list[float]] = ([], [])
        for repeat in range(repeats + 1):
            for side in (0, 1):
                work, calls, questions = ways[side][way]
                took = seconds(work, calls) / questions * 1e6
                if repeat:  # the first pair warms up
                    times[side].append(took)
        results.append((way, *times))
    loop.close()
    return results


def import_seconds(statement: str, repeats: int) -> list[float]:
    """Return the seconds that a fresh interpreter spends on an import."""
    script = f"import time; s = time.perf_counter(); {statement}; print(time.perf_counter() - s)"
    return [
        float(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)  # noqa: S603
        for _ in range(repeats)
    ]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40, help="pairs of measurements per row")
    repeats = parser.parse_args().repeats

    print(f"{'':12} {'LCEL':>9} {'TALE':>9} {'ratio':>7}   middle half of {repeats} pairs (aim: {AIM} or below)")
    for way, lcel, tale in compare(repeats):
        ratios = [ours / theirs for theirs, ours in zip(lcel, tale, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        row = f"{statistics.median(lcel):6.0f} us {statistics.median(tale):6.0f} us {middle:7.2f}"
        print(f"{way:12} {row}   {low:.2f} to {high:.2f}")

    base = "import langchain_core, langchain_core.language_models.chat_models"
    print(f"\n{'import':40} {'median':>9}")
    for name, statement in {
        "langchain_core and its chat model base": base,
        "tale_langchain": "import tale_langchain",
        "tale_langchain, on top of that base": f"{base}; s = time.perf_counter(); import tale_langchain",
    }.items():
        print(f"{name:40} {statistics.median(import_seconds(statement, 7)) * 1e3:6.0f} ms")


if __name__ == "__main__":
    main()
