from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import reduce
from operator import add
from typing import Any, TypeAlias

import pytest
from langchain_core.messages import AIMessage
from scripted_chat_model import ScriptedChatModel

from tale_core.testing import ScriptedModel
from tale_langchain import TALECallbackHandler, TALERunnable

Ask: TypeAlias = Callable[..., Awaitable[AIMessage]]

ANSWER = (
    "Four dozen are four times twelve eggs which makes forty eight eggs in all so the answer is 48"  # 19 words
)
WAYS = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch")


async def _ask(way: str, runnable: Any, given: Any, config: Any = None, **kwargs: Any) -> AIMessage:
    """Ask one question in one of the ways that a runnable has, and return the whole answer."""
    if way == "invoke":
        return runnable.invoke(given, config, **kwargs)
    if way == "ainvoke":
        return await runnable.ainvoke(given, config, **kwargs)
    if way == "stream":
        return reduce(add, runnable.stream(given, config, **kwargs))
    if way == "astream":
        return reduce(add, [chunk async for chunk in runnable.astream(given, config, **kwargs)])
    if way == "batch":
        return runnable.batch([given], config, **kwargs)[0]
    return (await runnable.abatch([given], config, **kwargs))[0]


@pytest.fixture(params=WAYS)
def ask(request: pytest.FixtureRequest) -> Ask:
    """Ask in every way that a runnable has: a test with this fixture runs once per way."""

    async def one(runnable: Any, given: Any, config: Any = None, **kwargs: Any) -> AIMessage:
        return await _ask(request.param, runnable, given, config, **kwargs)

    return one


@pytest.fixture
def every_way() -> dict[str, Ask]:
    """The ways to ask, by name."""

    def way(name: str) -> Ask:
        async def one(runnable: Any, given: Any, config: Any = None, **kwargs: Any) -> AIMessage:
            return await _ask(name, runnable, given, config, **kwargs)

        return one

    return {name: way(name) for name in WAYS}


@pytest.fixture
def model() -> ScriptedChatModel:
    return ScriptedChatModel(ScriptedModel(estimate="Budget: [[40]]", reason=ANSWER))


@pytest.fixture
def tale(model: ScriptedChatModel) -> TALERunnable:
    return TALERunnable(model)


@pytest.fixture
def handler() -> TALECallbackHandler:
    return TALECallbackHandler()
