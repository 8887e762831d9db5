"""Finding a model's knobs behind the wrappers that LangChain users put around it; no request is made here."""

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
from tale_langchain.reasoning_controls import NativeKnobs

BUDGET = 300


@pytest.fixture
def gpt(loopback: str) -> ChatOpenAI:  # its client looks at sockets while it is built
    return ChatOpenAI(model="gpt-5", api_key="none")


def opus(**fields: Any) -> ChatAnthropic:
    return ChatAnthropic(model="claude-opus-5", api_key="none", **fields)


def test_retries_and_bindings_do_not_hide_the_model(gpt: ChatOpenAI) -> None:
    wrapped = gpt.with_retry().bind(stop=["."])
    knobs = NativeKnobs(wrapped)
    setting = knobs.lever({})(BUDGET)
    model, _ = knobs.asked(setting, {})
    assert (setting.lever, setting.value) == ("effort", "low")
    assert type(model) is type(wrapped)
    assert type(model.bound) is type(wrapped.bound)
    assert model.kwargs == {"stop": ["."]}
    assert model.bound.bound.reasoning_effort == "low"


def test_the_callers_wrappers_and_model_stay_as_they_are(gpt: ChatOpenAI) -> None:
    wrapped = gpt.bind(reasoning_effort="medium")
    knobs = NativeKnobs(wrapped)
    knobs.asked(knobs.lever({})(BUDGET), {})
    assert (wrapped.kwargs, gpt.reasoning_effort) == ({"reasoning_effort": "medium"}, None)


def test_fallbacks_that_share_a_lever_are_all_set(gpt: ChatOpenAI) -> None:
    knobs = NativeKnobs(gpt.with_fallbacks([opus()]))
    setting = knobs.lever({})(BUDGET)
    model, _ = knobs.asked(setting, {})
    assert (setting.lever, setting.value) == ("effort", "low")
    assert model.runnable.reasoning_effort == "low"
    assert model.fallbacks[0].output_config == {"effort": "low"}


def test_a_fallback_without_the_same_knob_leaves_the_budget_to_the_prompt(gpt: ChatOpenAI) -> None:
    knobs = NativeKnobs(gpt.with_fallbacks([FakeListChatModel(responses=["48"])]))
    setting = knobs.lever({})(BUDGET)
    assert setting.lever == "prompt"
    assert "fallbacks do not share a native knob" in setting.why


def test_a_model_chosen_at_run_time_is_unknown(gpt: ChatOpenAI) -> None:
    configurable = gpt.configurable_fields(model_name=ConfigurableField(id="model"))
    setting = NativeKnobs(configurable).lever({})(BUDGET)
    assert setting.lever == "prompt"
    assert "RunnableConfigurableFields" in setting.why


def test_a_runnable_that_is_no_chat_model_is_unknown() -> None:
    function = RunnableLambda(lambda messages: AIMessage("48"))
    assert NativeKnobs(function).lever({})(BUDGET).lever == "prompt"  # type: ignore[arg-type]


def test_arguments_without_a_knob_reach_the_model_unchanged(gpt: ChatOpenAI) -> None:
    knobs = NativeKnobs(gpt)
    arguments = {"stop": ["."], "seed": 7}
    assert knobs.asked(knobs.lever(arguments)(BUDGET), arguments)[1] == arguments


def test_a_knob_passed_with_the_call_does_not_overrule_the_budget(gpt: ChatOpenAI) -> None:
    knobs = NativeKnobs(gpt)
    arguments = {"reasoning_effort": "high", "seed": 7}
    model, rest = knobs.asked(knobs.lever(arguments)(BUDGET), arguments)
    assert (model.reasoning_effort, rest) == ("low", {"seed": 7})  # type: ignore[attr-defined]


def test_the_same_setting_asks_the_same_copy(gpt: ChatOpenAI) -> None:
    knobs = NativeKnobs(gpt)
    one, _ = knobs.asked(knobs.lever({})(300), {})
    other, _ = knobs.asked(knobs.lever({})(310), {})
    assert one is other


@pytest.mark.parametrize("knobs", ["vllm", "sglang", "llama.cpp"])
def test_a_server_needs_a_class_that_can_carry_its_parameters(knobs: Any) -> None:
    with pytest.raises(
        InvalidValueError, match=f"knobs='{knobs}' needs a class that sends extra_body.*ChatAnthropic"
    ):
        TALERunnable(opus(), knobs=knobs)


def test_native_is_refused_for_a_class_without_a_known_knob() -> None:
    with pytest.raises(InvalidValueError, match="no native knob is known for"):
        TALERunnable(FakeListChatModel(responses=["48"]), knobs="native")


def test_an_unknown_choice_of_knobs_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"knobs.*got 'maximum'"):
        TALERunnable(FakeListChatModel(responses=["48"]), knobs="maximum")  # type: ignore[arg-type]


def test_the_choice_of_knobs_survives_binding_tools(gpt: ChatOpenAI) -> None:
    assert TALERunnable(gpt, knobs="native").bind_tools([]).knobs == "native"
