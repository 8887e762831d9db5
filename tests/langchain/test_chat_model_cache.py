"""Whole answers are cached, apart for every way of asking; every request waits for its turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.rate_limiters import BaseRateLimiter
from scripted_chat_model import ScriptedChatModel

from tale_core import AdaptiveEstimator, BudgetPolicy, ZeroShotEstimator
from tale_core.testing import ScriptedModel
from tale_langchain import ChatTALE, TALECallbackHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

QUESTION = "How many eggs are in four dozen?"
ANSWER = "Four times twelve eggs are forty eight eggs in all so 48"


@pytest.fixture
def everywhere() -> Iterator[InMemoryCache]:
    cache = InMemoryCache()
    set_llm_cache(cache)
    yield cache
    set_llm_cache(None)


def scripted(**fields: Any) -> ScriptedChatModel:
    return ScriptedChatModel(ScriptedModel(estimate="[[40]]", reason=ANSWER), **fields)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_answer_from_the_cache_costs_nothing_and_records_nothing(
    everywhere: InMemoryCache, handler: TALECallbackHandler, asynchronous: bool
) -> None:
    model = scripted()
    chat = ChatTALE(model)
    config: Any = {"callbacks": [handler]}
    first, again = (
        [await chat.ainvoke(QUESTION, config), await chat.ainvoke(QUESTION, config)]
        if asynchronous
        else [chat.invoke(QUESTION, config), chat.invoke(QUESTION, config)]
    )
    assert again.text == first.text
    assert again.response_metadata["tale"]["budget"] == 40
    assert len(model.sent) == 2
    assert handler.ledger.count() == 2


@pytest.mark.parametrize(
    "other",
    [
        {"estimator": 60},
        {"estimator": AdaptiveEstimator(ZeroShotEstimator())},
        {"estimator": scripted(temperature=0.5)},
        {"estimator": 40, "strategy": "vanilla"},
        {"estimator": 40, "policy": BudgetPolicy(on_overrun="retry")},
        {"estimator": 40, "language": "zh"},
    ],
    ids=str,
)
def test_no_entry_is_shared_by_two_ways_of_asking(everywhere: InMemoryCache, other: dict[str, Any]) -> None:
    model = scripted()
    chat, different = ChatTALE(model, estimator=40), ChatTALE(model, **other)
    assert chat._get_llm_string() != different._get_llm_string()
    chat.invoke(QUESTION)
    before = len(model.sent)
    different.invoke(QUESTION)
    assert len(model.sent) > before


def test_the_same_way_of_asking_shares_its_entries(everywhere: InMemoryCache) -> None:
    model = scripted()
    ChatTALE(model).invoke(QUESTION)
    ChatTALE(model).invoke(QUESTION)
    assert len(model.sent) == 2


def test_neither_is_an_entry_shared_with_the_model_alone(everywhere: InMemoryCache) -> None:
    model = scripted()
    assert model.invoke(QUESTION).text == ANSWER
    ChatTALE(model, estimator=40).invoke(QUESTION)
    model.invoke(QUESTION)
    assert ["less than 40" in sent.text for sent in model.sent] == [False, True]


def test_models_of_other_settings_and_other_arguments_share_none(everywhere: InMemoryCache) -> None:
    chat = ChatTALE(scripted(), estimator=40)
    assert chat._get_llm_string() != chat._get_llm_string(stop=["."])
    assert chat._get_llm_string() != chat._get_llm_string(tools=[{"name": "lookup"}])
    assert chat._get_llm_string() != ChatTALE(scripted().bind(stop=["."]), estimator=40)._get_llm_string()


def test_the_models_own_cache_keeps_whole_answers() -> None:
    model = scripted(cache=InMemoryCache())
    chat = ChatTALE(model)
    assert [chat.invoke(QUESTION).text, chat.invoke(QUESTION).text] == [ANSWER, ANSWER]
    assert len(model.sent) == 2


def test_a_cache_can_be_given_or_refused(everywhere: InMemoryCache) -> None:
    cached, uncached = scripted(), scripted()
    kept, fresh = ChatTALE(cached, cache=InMemoryCache()), ChatTALE(uncached, cache=False)
    for _ in range(2):
        kept.invoke(QUESTION)
        fresh.invoke(QUESTION)
    assert (len(cached.sent), len(uncached.sent)) == (2, 4)
    assert everywhere._cache == {}


class Counting(BaseRateLimiter):
    """Lets everything through and counts it."""

    def __init__(self) -> None:
        self.passed = 0

    def acquire(self, *, blocking: bool = True) -> bool:
        self.passed += 1
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        return self.acquire()


async def test_every_request_waits_for_the_models_rate_limiter() -> None:
    limiter = Counting()
    chat = ChatTALE(scripted(rate_limiter=limiter))
    chat.invoke(QUESTION)
    await chat.ainvoke(QUESTION)
    assert limiter.passed == 4
    list(chat.stream(QUESTION))
    assert [chunk async for chunk in chat.astream(QUESTION)]
    assert limiter.passed == 8


def test_a_rate_limiter_of_its_own_holds_back_questions() -> None:
    limiter = Counting()
    ChatTALE(scripted(), rate_limiter=limiter).invoke(QUESTION)
    assert limiter.passed == 1
