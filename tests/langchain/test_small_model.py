"""A real model over HTTP: the whole way, with real usage and real streaming. It is too small to be right."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

from tale_core import ZeroShotEstimator
from tale_langchain import TALECallbackHandler, TALERunnable

if TYPE_CHECKING:
    from tale_core.local import LocalServer

pytestmark = pytest.mark.model

# The model's own calibration names a budget, so that nothing would be estimated.
AS_PUBLISHED: dict[str, Any] = {"estimator": ZeroShotEstimator(), "strategy": "tale"}

Ask = Callable[..., Awaitable[AIMessage]]

QUESTION = "How much is 3 + 4?"


@pytest.fixture
def chat(small_model: LocalServer) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=small_model.base_url,
        api_key=small_model.api_key,
        model=small_model.model,
        stream_usage=True,
        temperature=0,
        max_tokens=48,
    )


async def test_every_way_of_asking_is_measured_by_role(
    ask: Ask, chat: ChatOpenAI, handler: TALECallbackHandler
) -> None:
    answer = await ask(TALERunnable(chat, **AS_PUBLISHED), QUESTION, {"callbacks": [handler]})
    assert answer.text.strip()
    estimate, reason = handler.ledger.calls
    assert (estimate.role, reason.role) == ("estimate", "reason")
    assert estimate.usage.source == reason.usage.source == "measured"
    assert 0 < estimate.usage.output_tokens <= 64
    assert answer.usage_metadata is not None
    assert reason.usage.output_tokens == answer.usage_metadata["output_tokens"] <= 48
    assert reason.finish_reason in {"stop", "length"}
    assert reason.seconds is not None
    assert reason.seconds > 0


def test_a_batch_keeps_questions_apart(chat: ChatOpenAI, handler: TALECallbackHandler) -> None:
    questions = [f"How much is {n} + 4?" for n in range(4)]
    answers = TALERunnable(chat, estimator=30).batch(questions, {"callbacks": [handler]})
    assert [answer.response_metadata["tale"]["budget"] for answer in answers] == [30] * 4
    assert len({call.question_id for call in handler.ledger.calls}) == 4
    assert handler.ledger.totals("reason").output_tokens == sum(
        answer.usage_metadata["output_tokens"] for answer in answers if answer.usage_metadata
    )


def test_its_address_and_its_key_are_enough(small_model: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALE_API_KEY", small_model.api_key)
    tale = TALERunnable(small_model.base_url, strategy="direct")
    answer = tale.bind(max_tokens=16).invoke([SystemMessage("Be brief."), HumanMessage(QUESTION)])
    assert answer.text.strip()
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] <= 16


def test_a_stream_may_be_left_and_the_next_question_asked(
    chat: ChatOpenAI, handler: TALECallbackHandler
) -> None:
    tale = TALERunnable(chat, estimator=30)
    stream = tale.stream(QUESTION, {"callbacks": [handler]})
    while not next(stream).text:
        pass
    stream.close()
    assert tale.invoke(QUESTION, {"callbacks": [handler]}).text.strip()
    assert [call.finish_reason == "closed" for call in handler.ledger.calls] == [True, False]
