"""What TALE adds to two model calls, beside the same two calls written by hand; and what importing it costs.

Both sides make the same two calls of one fake model that answers at once: an estimate, then the question with
the budget in it. The hand-written chain is the least that does it in LCEL, ``lambda | model | lambda | model``:
one regular expression reads the budget, and the published prompts are formatted. It has no bounds, no fallback,
no accounts and no events, and it knows its question from outside. No handler and no tracer is attached to
either side.

Measurements alternate between the two, so that a busy machine slows both, and a ratio is taken within each
pair. Run ``python benchmarks/overhead.py`` on an otherwise idle machine; it takes about a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda

from tale_langchain import TALERunnable

if TYPE_CHECKING:
    from collections.abc import Callable

Chain: TypeAlias = Runnable[Any, AIMessage]

QUESTION = "A tailor cuts 3 of 12 metres of cloth into 6 equal pieces. How long is a piece?"
QUESTIONS = [QUESTION] * 100
AIM = 0.65
BASE = "import langchain_core, langchain_core.language_models.chat_models"
IMPORTS = {
    "langchain_core with its chat model base": ("", BASE),
    "tale_langchain": ("", "import tale_langchain"),
    "tale_langchain, after that base": (BASE, "import tale_langchain"),
}


class InstantModel(BaseChatModel):
    """Answers at once, with a usage as a provider reports it."""

    @property
    def _llm_type(self) -> str:
        return "instant"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        estimates = str(messages[-1].content).startswith("Task:")
        text = "Budget: [[40]]" if estimates else "3 metres in 6 equal pieces are half a metre each: 0.5"
        message = AIMessage(
            text,
            usage_metadata={"input_tokens": 50, "output_tokens": 38, "total_tokens": 88},
            response_metadata={"finish_reason": "stop", "model_name": "instant"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return self._generate(messages)


def handwritten(model: BaseChatModel) -> Chain:
    """Return the two steps as LCEL."""

    def ask_for_budget(question: str) -> list[BaseMessage]:
        task = "Task: Analyze the given question and estimate the minimum number of tokens required ..."
        return [HumanMessage(f"{task}\n\nQuestion: {question}")]

    def ask_under_budget(estimate: AIMessage) -> list[BaseMessage]:
        budget = int(re.findall(r"\[\[(\d+)\]\]", str(estimate.content))[0])
        wording = f"Let's think step by step and use less than {budget} tokens:"
        return [HumanMessage(f"{QUESTION}\n\n{wording}")]

    return RunnableLambda(ask_for_budget) | model | RunnableLambda(ask_under_budget) | model


def invoke(chain: Chain) -> None:
    """Ask one question after the other."""
    for question in QUESTIONS:
        chain.invoke(question)


def ainvoke(chain: Chain) -> None:
    """Ask one question after the other on an event loop."""

    async def ask() -> None:
        for question in QUESTIONS:
            await chain.ainvoke(question)

    asyncio.run(ask())


def batch(chain: Chain) -> None:
    """Ask all questions at once."""
    chain.batch(QUESTIONS)


def microseconds(way: Callable[[Chain], None], chain: Chain) -> float:
    """Return the time of one question, asked in one way."""
    started = time.perf_counter()
    way(chain)
    return (time.perf_counter() - started) / len(QUESTIONS) * 1e6


def import_milliseconds(before: str, statement: str) -> float:
    """Return the time that a fresh interpreter spends on an import."""
    script = f"import time\n{before}\nt = time.perf_counter()\n{statement}\nprint(time.perf_counter() - t)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)  # noqa: S603
    return float(ran.stdout) * 1e3


def print_calls(pairs: int) -> None:
    """Print the time of a question on both sides, and their ratio."""
    model = InstantModel()
    lcel, tale = handwritten(model), TALERunnable(model)
    print(f"per question    LCEL     TALE    ratio   (middle half of {pairs} pairs; aim: {AIM} or below)")
    for way in (invoke, ainvoke, batch):
        microseconds(way, lcel), microseconds(way, tale)  # the first pair warms up
        times = [(microseconds(way, lcel), microseconds(way, tale)) for _ in range(pairs)]
        low, middle, high = statistics.quantiles([ours / theirs for theirs, ours in times], n=4)
        theirs, ours = (statistics.median(side) for side in zip(*times, strict=True))
        name = f"batch({len(QUESTIONS)})" if way is batch else way.__name__
        print(f"{name:12} {theirs:5.0f} us {ours:5.0f} us {middle:8.2f}   ({low:.2f} to {high:.2f})")


def print_imports(repeats: int) -> None:
    """Print what importing takes."""
    print("\nimport")
    for name, statements in IMPORTS.items():
        median = statistics.median(import_milliseconds(*statements) for _ in range(repeats))
        print(f"{name:40} {median:5.0f} ms")


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40, help="measurements of each side, per way of asking")
    parser.add_argument("--imports", type=int, default=7, help="fresh interpreters per import")
    chosen = parser.parse_args()
    print_calls(chosen.pairs)
    print_imports(chosen.imports)


if __name__ == "__main__":
    main()
