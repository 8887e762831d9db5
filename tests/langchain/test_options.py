"""All wrappers take the same options, under their present and their former names."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolCall
from langchain_core.runnables import ConfigurableField
from pydantic import BaseModel
from scripted_chat_model import ScriptedChatModel

from tale_core import InvalidValueError
from tale_core.errors import UnknownModelError
from tale_core.method.calibration import Calibration
from tale_core.testing import ScriptedModel
from tale_core.types import ModelReply
from tale_langchain import ChatTALE, TALEMiddleware, TALERunnable

QUESTION = "How many eggs are in four dozen?"
MEASURED = Calibration(model="scripted", strategy="tale", budget=70)

wrappers = pytest.mark.parametrize("wrapper", [TALERunnable, ChatTALE, TALEMiddleware])


def asked(wrapper: Any, model: ScriptedChatModel, **options: Any) -> dict[str, Any]:
    """Return the accounts of one question asked with these options."""
    if wrapper is TALEMiddleware:
        agent = create_agent(model, middleware=[TALEMiddleware(**options)])
        return agent.invoke({"messages": [("user", QUESTION)]})["messages"][-1].response_metadata["tale"]  # type: ignore[no-any-return]
    return wrapper(model, **options).invoke(QUESTION).response_metadata["tale"]  # type: ignore[no-any-return]


@wrappers
@pytest.mark.parametrize(
    ("former", "accounts"),
    [
        ({"profile": MEASURED}, {"budget": 70}),
        ({"knobs": "prompt", "estimator": 40}, {"reasoning_control_why": "the caller chose the prompt"}),
    ],
)
def test_a_former_name_still_works_and_names_the_present_one(
    wrapper: Any, former: dict[str, Any], accounts: dict[str, Any], model: ScriptedChatModel
) -> None:
    with pytest.warns(DeprecationWarning, match=f"{next(iter(former))!r} is now called") as told:
        found = asked(wrapper, model, **former)
    assert accounts.items() <= found.items()
    assert {one.filename for one in told if "is now called" in str(one.message)} == {__file__}


@wrappers
def test_a_style_is_a_strategy(wrapper: Any, model: ScriptedChatModel) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        assert asked(wrapper, model, style="words", estimator=40)["strategy"] == "words"


@wrappers
@pytest.mark.parametrize("name", ["budget", "max_tokens"])
def test_an_unknown_option_is_answered_with_what_was_probably_meant(
    wrapper: Any, name: str, model: ScriptedChatModel
) -> None:
    with pytest.raises(InvalidValueError, match=rf"takes no argument '{name}'; .*estimator=50"):
        wrapper(model, **{name: 50})


@wrappers
def test_the_name_of_an_estimator_is_answered_with_how_to_pass_one(
    wrapper: Any, model: ScriptedChatModel
) -> None:
    with pytest.raises(UnknownModelError, match=r"estimator='zero-shot': .*leave it out for the zero-shot"):
        wrapper(model, estimator="zero-shot")


def test_langchains_own_profile_of_a_model_is_kept(model: ScriptedChatModel) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        chat = ChatTALE(model, estimator=40, profile={"max_input_tokens": 4096})
        again: Any = chat.bind_tools([])
    assert chat.profile == again.bound.profile == {"max_input_tokens": 4096}
    assert chat.calibration is None


def test_options_can_be_configured_at_run_time(model: ScriptedChatModel) -> None:
    for wrapper in (TALERunnable, ChatTALE):
        chain: Any = wrapper(model, estimator=40, name="asker").configurable_fields(
            estimator=ConfigurableField("estimator"), calibration=ConfigurableField("calibration")
        )
        budgets = [
            chain.invoke(QUESTION, {"configurable": chosen}).response_metadata["tale"]["budget"]
            for chosen in ({}, {"estimator": 60}, {"estimator": None, "calibration": MEASURED})
        ]
        assert budgets == [40, 60, 70]


def test_a_middleware_shows_what_it_was_given_and_no_key(model: ScriptedChatModel) -> None:
    shown = repr(TALEMiddleware(model, strategy="words", estimator=40, divide=True))
    assert shown == "TALEMiddleware(model='scripted', strategy='words', estimator=40, divide=True)"


class Eggs(BaseModel):
    """A number of eggs."""

    count: int


def test_an_agent_finds_the_models_name_when_it_answers_in_a_form() -> None:
    call: ToolCall = {"name": "Eggs", "args": {"count": 48}, "id": "1", "type": "tool_call"}
    reply = ModelReply(text="", native=AIMessage("", tool_calls=[call]))
    agent: Any = create_agent(
        ChatTALE(ScriptedChatModel(ScriptedModel(reply)), estimator=40), response_format=Eggs
    )
    assert agent.invoke({"messages": [("user", QUESTION)]})["structured_response"] == Eggs(count=48)


def test_the_models_name_is_that_of_the_model_inside(model: ScriptedChatModel) -> None:
    assert ChatTALE(model.bind(stop=["."]), estimator=40).model_name == "scripted"
