"""Two hundred questions at once: the server is the bottleneck, the loop never stands still, nothing is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import PrivateAttr
from scripted_chat_model import ScriptedChatModel

from tale_core.testing import ScriptedModel
from tale_langchain import ChatTALE, TALECallbackHandler

if TYPE_CHECKING:
    from simulated_loop import SimulatedLoop

QUESTIONS = 200
SLOTS = 20
LATENCY = 0.1
MOST_CALLS = 30_000
"""Function calls within one turn of the loop: 15,000; 100,000 if no question waited for its turn."""


class LimitedServer(ScriptedChatModel):
    """Answers so many requests at a time, each after a while."""

    _slots: asyncio.Semaphore = PrivateAttr(default_factory=lambda: asyncio.Semaphore(SLOTS))

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        async with self._slots:
            return await super()._agenerate(messages, stop, run_manager, **kwargs)


def test_two_hundred_questions_at_once_wait_for_the_server_alone(simulated_loop: SimulatedLoop) -> None:
    script = ScriptedModel(estimate="[[40]]", reason="Four times twelve eggs are forty eight eggs in all so 48")
    chat, handler = ChatTALE(LimitedServer(script, latency=LATENCY)), TALECallbackHandler()

    async def ask_all() -> float:
        await chat.ainvoke("Is everything imported?")
        simulated_loop.most_calls, started = 0, simulated_loop.now
        questions = (
            chat.ainvoke(f"How many eggs are in {n} dozen?", {"callbacks": [handler]}) for n in range(QUESTIONS)
        )
        assert len(await asyncio.gather(*questions)) == QUESTIONS
        return simulated_loop.now - started

    took = simulated_loop.run_until_complete(ask_all())
    assert took == pytest.approx(2 * QUESTIONS / SLOTS * LATENCY), "the server never waits for a question"
    assert simulated_loop.most_calls < MOST_CALLS
    ledger = handler.ledger
    assert (ledger.count("estimate"), ledger.count("reason")) == (QUESTIONS, QUESTIONS)
    assert ledger.totals("estimate").output_tokens == QUESTIONS
    assert ledger.totals("reason").output_tokens == QUESTIONS * 12
    assert len({call.question_id for call in ledger.calls}) == QUESTIONS
