"""Finding a model's reasoning controls behind LangChain's wrappers; no request is made here."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_openai import ChatOpenAI

from tale_core import InvalidValueError
from tale_langchain import TALERunnable
from tale_langchain.reasoning_controls import ModelControls

BUDGET = 300


@pytest.fixture
def gpt(loopback: str) -> ChatOpenAI:  # its client looks at sockets while it is built
    return ChatOpenAI(model="gpt-5", api_key="none")


def opus(**fields: Any) -> ChatAnthropic:
    return ChatAnthropic(model="claude-opus-5", api_key="none", **fields)


def test_retries_and_bindings_do_not_hide_the_model(gpt: ChatOpenAI) -> None:
    wrapped = gpt.with_retry().bind(stop=["."])
    reasoning_control = ModelControls(wrapped)
    setting = reasoning_control.control({})(BUDGET)
    model, _ = reasoning_control.asked(setting, {})
    assert (setting.control, setting.value) == ("effort", "low")
    assert type(model) is type(wrapped)
    assert type(model.bound) is type(wrapped.bound)
    assert model.kwargs == {"stop": ["."]}
    assert model.bound.bound.reasoning_effort == "low"


def test_the_callers_wrappers_and_model_stay_as_they_are(gpt: ChatOpenAI) -> None:
    wrapped = gpt.bind(reasoning_effort="medium")
    reasoning_control = ModelControls(wrapped)
    reasoning_control.asked(reasoning_control.control({})(BUDGET), {})
    assert (wrapped.kwargs, gpt.reasoning_effort) == ({"reasoning_effort": "medium"}, None)


def test_fallbacks_that_share_a_control_are_all_set(gpt: ChatOpenAI) -> None:
    reasoning_control = ModelControls(gpt.with_fallbacks([opus()]))
    setting = reasoning_control.control({})(BUDGET)
    model, _ = reasoning_control.asked(setting, {})
    assert (setting.control, setting.value) == ("effort", "low")
    assert model.runnable.reasoning_effort == "low"
    assert model.fallbacks[0].output_config == {"effort": "low"}


def test_a_fallback_without_the_same_control_leaves_the_budget_to_the_prompt(gpt: ChatOpenAI) -> None:
    reasoning_control = ModelControls(gpt.with_fallbacks([FakeListChatModel(responses=["48"])]))
    setting = reasoning_control.control({})(BUDGET)
    assert setting.control == "prompt"
    assert "fallbacks do not share a reasoning control" in setting.why


def test_a_model_chosen_at_run_time_is_unknown(gpt: ChatOpenAI) -> None:
    configurable = gpt.configurable_fields(model_name=ConfigurableField(id="model"))
    setting = ModelControls(configurable).control({})(BUDGET)
    assert setting.control == "prompt"
    assert "RunnableConfigurableFields" in setting.why


def test_a_runnable_that_is_no_chat_model_is_unknown() -> None:
    function = RunnableLambda(lambda messages: AIMessage("48"))
    assert ModelControls(function).control({})(BUDGET).control == "prompt"  # type: ignore[arg-type]


def test_arguments_without_a_control_reach_the_model_unchanged(gpt: ChatOpenAI) -> None:
    reasoning_control = ModelControls(gpt)
    arguments = {"stop": ["."], "seed": 7}
    assert reasoning_control.asked(reasoning_control.control(arguments)(BUDGET), arguments)[1] == arguments


def test_a_control_passed_with_the_call_does_not_overrule_the_budget(gpt: ChatOpenAI) -> None:
    reasoning_control = ModelControls(gpt)
    arguments = {"reasoning_effort": "high", "seed": 7}
    model, rest = reasoning_control.asked(reasoning_control.control(arguments)(BUDGET), arguments)
    assert (model.reasoning_effort, rest) == ("low", {"seed": 7})  # type: ignore[attr-defined]


def test_the_same_setting_asks_the_same_copy(gpt: ChatOpenAI) -> None:
    reasoning_control = ModelControls(gpt)
    one, _ = reasoning_control.asked(reasoning_control.control({})(300), {})
    other, _ = reasoning_control.asked(reasoning_control.control({})(310), {})
    assert one is other


@pytest.mark.parametrize("reasoning_control", ["vllm", "sglang", "llama.cpp"])
def test_a_server_needs_a_class_that_can_carry_its_parameters(reasoning_control: Any) -> None:
    with pytest.raises(
        InvalidValueError,
        match=f"reasoning_control='{reasoning_control}' needs a class that sends extra_body.*ChatAnthropic",
    ):
        TALERunnable(opus(), reasoning_control=reasoning_control)


def test_native_is_refused_for_a_class_without_a_known_control() -> None:
    with pytest.raises(InvalidValueError, match="no reasoning control is known for"):
        TALERunnable(FakeListChatModel(responses=["48"]), reasoning_control="native")


def test_an_unknown_choice_of_controls_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"reasoning_control.*got 'maximum'"):
        TALERunnable(FakeListChatModel(responses=["48"]), reasoning_control="maximum")  # type: ignore[arg-type]


def test_the_choice_of_controls_survives_binding_tools(gpt: ChatOpenAI) -> None:
    assert TALERunnable(gpt, reasoning_control="native").bind_tools([]).reasoning_control == "native"
