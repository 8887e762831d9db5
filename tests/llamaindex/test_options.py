"""The options that all wrappers share: one set of names, former names, and clear answers to what is unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms import MockLLM
from llama_index.core.response_synthesizers import get_response_synthesizer
from scripted_llm import ScriptedLLM

from tale_core import BudgetPolicy, InvalidValueError
from tale_core.testing import ScriptedModel
from tale_llamaindex import (
    TALELLM,
    TALEHierarchicalSynthesizer,
    TALENodePostprocessor,
    TALEPlainLLM,
    TALEQueryEngine,
    TALEQueryTransform,
    TALESynthesizer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_index.core import VectorStoreIndex

QUESTION = "How old is Ann?"


@pytest.fixture(
    params=[
        TALELLM,
        TALEPlainLLM,
        TALEQueryTransform,
        TALESynthesizer,
        TALEHierarchicalSynthesizer,
        TALEQueryEngine,
    ]
)
def make(request: pytest.FixtureRequest, mock_index: VectorStoreIndex) -> Callable[..., Any]:
    def make(**options: Any) -> Any:
        if request.param is TALEQueryEngine:
            return TALEQueryEngine(mock_index.as_query_engine(llm=MockLLM()), **options)
        return request.param(llm=MockLLM(), **options)

    return make


def test_a_budget_is_told_by_its_right_name(make: Callable[..., Any]) -> None:
    with pytest.raises(InvalidValueError, match="takes no argument 'budget'; a fixed budget is estimator=60"):
        make(budget=60)


def test_an_unknown_option_is_shown_with_those_that_are_known(make: Callable[..., Any]) -> None:
    with pytest.raises(InvalidValueError, match="takes no argument 'max_retries'; known: estimator, policy"):
        make(max_retries=3)


def test_former_names_are_understood(make: Callable[..., Any]) -> None:
    assert "strategy='essential'" in repr(make(style="essential", estimator=40))
    with pytest.warns(DeprecationWarning, match="'profile' is now called 'calibration'") as profile:
        make(profile=None)
    with pytest.warns(DeprecationWarning, match="'knobs' is now called 'reasoning_control'") as knobs:
        make(knobs="prompt")
    assert {one.filename for one in [*profile, *knobs]} == {__file__}  # the line to change


@pytest.mark.parametrize("control", ["native", "vllm"])
def test_who_leaves_the_call_to_others_refuses_a_control_that_it_cannot_set(
    control: str, mock_index: VectorStoreIndex
) -> None:
    message = f"puts budgets into the prompt, got reasoning_control='{control}'; wrap the LLM in TALELLM"
    options: Any = {"reasoning_control": control}
    with pytest.raises(InvalidValueError, match=f"TALEQueryTransform {message}"):
        TALEQueryTransform(MockLLM(), **options)
    with pytest.raises(InvalidValueError, match=f"TALESynthesizer {message}"):
        TALEQueryEngine(mock_index.as_query_engine(llm=MockLLM()), **options)


def test_an_llm_in_the_place_of_a_synthesizer_is_told_its_place() -> None:
    thing: Any = MockLLM()
    with pytest.raises(
        InvalidValueError,
        match=r"TALESynthesizer takes a response synthesizer first, got MockLLM; an LLM is given as "
        r"TALESynthesizer\(llm=\.\.\.\)",
    ):
        TALESynthesizer(thing)
    TALESynthesizer(get_response_synthesizer(llm=MockLLM()), estimator=40)


@pytest.mark.parametrize("budget", ["many", 0, 1.5, True, None])
def test_a_context_budget_is_a_number(budget: Any) -> None:
    with pytest.raises(InvalidValueError, match="a number of tokens of at least 1, got"):
        TALENodePostprocessor(budget)


# What others do with a budgeted LLM


@pytest.mark.parametrize(
    "other",
    [
        {"estimator": 41},
        {"estimator": 40, "strategy": "essential"},
        {"estimator": 40, "policy": BudgetPolicy(floor=30)},
        {"estimator": ScriptedLLM(ScriptedModel(reason="."), model_name="small")},
    ],
)
def test_caches_tell_two_budgets_apart(other: Any) -> None:
    assert TALELLM(MockLLM(), estimator=40).to_dict() == TALELLM(MockLLM(), estimator=40).to_dict()
    assert TALELLM(MockLLM(), estimator=40).to_dict() != TALELLM(MockLLM(), **other).to_dict()


def test_a_dict_is_no_way_back_and_says_so() -> None:
    with pytest.raises(
        InvalidValueError, match=r"a TALELLM cannot be made from a dict.*write TALELLM\(llm, ...\)"
    ):
        TALELLM.from_dict(TALELLM(MockLLM(), estimator=40).to_dict())


@pytest.mark.parametrize("endpoint", ["stream_chat", "stream_complete"])
def test_the_usage_of_a_stream_is_told_once(llm: ScriptedLLM, endpoint: str) -> None:
    def usage(chunks: Any) -> list[Any]:
        return [chunk.raw["usage"] for chunk in chunks if chunk.raw and chunk.raw["usage"]]

    prompt: Any = QUESTION if endpoint == "stream_complete" else [ChatMessage(role="user", content=QUESTION)]
    *chunks, last = getattr(TALELLM(llm, estimator=40), endpoint)(prompt)
    assert len(usage([*chunks, last])) == len(usage(getattr(llm, endpoint)(prompt))) == 1
    assert last.additional_kwargs["tale"]["reason_usage"]["output_tokens"] == 16
