from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core import QueryBundle, VectorStoreIndex
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import MultiStepQueryEngine, TransformQueryEngine
from scripted_llm import ScriptedLLM

from tale_core import (
    BudgetPolicy,
    Calibration,
    ElasticityKind,
    InvalidValueError,
    UnknownModelError,
    UnknownStrategyError,
    strategy_names,
)
from tale_core.models.reasoning_controls import THINKING_HEADROOM
from tale_core.testing import ScriptedModel
from tale_llamaindex import TALEEventHandler, TALEQueryTransform

if TYPE_CHECKING:
    from simulated_loop import SimulatedLoop

QUESTION = "How old is Ann?"
FRAMED = f"{QUESTION}\n\nLet's think step by step and use less than 40 tokens:"

Engine = Callable[..., TransformQueryEngine]


def test_the_budget_reaches_synthesis(make_engine: Engine, llm: ScriptedLLM) -> None:
    make_engine().query(QUESTION)
    estimate, answer = llm.sent
    assert QUESTION in estimate.text
    assert FRAMED in answer.text


def test_embedding_stays_on_the_original_question(make_engine: Engine, embedding: Any) -> None:
    make_engine().query(QUESTION)
    assert embedding.queries == [QUESTION]


def test_the_estimator_sees_the_question_only(make_engine: Engine, llm: ScriptedLLM) -> None:
    make_engine().query(QUESTION)
    assert "1990" not in llm.sent[0].text
    assert "1990" in llm.sent[1].text


def test_the_estimator_is_asked_coldly_and_briefly(make_engine: Engine, llm: ScriptedLLM) -> None:
    make_engine().query(QUESTION)
    assert llm.sent[0].kwargs == {"temperature": 0.0, "max_tokens": 64}


def test_options_that_an_llm_does_not_declare_are_not_sent() -> None:
    class Strict(ScriptedLLM):
        def chat(self, messages: Any) -> Any:  # takes no options at all
            return super().chat(messages)

    Strict.model_fields.pop("temperature")
    Strict.model_fields.pop("max_tokens")
    bundle = TALEQueryTransform(Strict(ScriptedModel(estimate="[[40]]", reason="."))).run(QUESTION)
    assert bundle.query_str == FRAMED


def test_a_model_that_thinks_is_asked_without_temperature_and_with_head_room() -> None:
    llm = ScriptedLLM(ScriptedModel(estimate="[[40]]"), model_name="o3-mini")
    TALEQueryTransform(llm).run(QUESTION)
    assert llm.sent[0].kwargs == {"max_tokens": 64 + THINKING_HEADROOM}


def test_models_without_chat_are_asked_to_complete() -> None:
    llm = ScriptedLLM(ScriptedModel(estimate="[[40]]"), is_chat_model=False)
    assert TALEQueryTransform(llm).run(QUESTION).query_str == FRAMED
    assert [sent.endpoint for sent in llm.sent] == ["complete"]


def test_what_else_a_bundle_carries_is_kept() -> None:
    bundle = QueryBundle(
        QUESTION, image_path="ann.png", custom_embedding_strs=["Ann's age"], embedding=[0.5, 0.5]
    )
    transformed = TALEQueryTransform(MockLLM(), estimator=40).run(bundle)
    assert transformed == QueryBundle(
        FRAMED, image_path="ann.png", custom_embedding_strs=["Ann's age"], embedding=[0.5, 0.5]
    )
    assert bundle.query_str == QUESTION


async def test_sync_and_async_send_identical_calls(index: VectorStoreIndex) -> None:
    script = {"estimate": "[[40]]", "reason": "36"}
    sync, other = (ScriptedLLM(ScriptedModel(**script)) for _ in range(2))
    TransformQueryEngine(index.as_query_engine(llm=sync), TALEQueryTransform(sync)).query(QUESTION)
    bundle = await TALEQueryTransform(other).arun(QUESTION)
    await index.as_query_engine(llm=other).aquery(bundle)
    assert sync.sent == other.sent


def test_arun_leaves_the_loop_to_others(simulated_loop: SimulatedLoop) -> None:
    llm = ScriptedLLM(ScriptedModel(estimate="[[40]]"), latency=0.05)
    transform = TALEQueryTransform(llm)

    async def ask_all() -> None:
        await asyncio.gather(*(transform.arun(f"{number} + 1?") for number in range(20)))

    simulated_loop.run_until_complete(ask_all())
    assert simulated_loop.now == pytest.approx(0.05), "all wait at the same time, and none outside the loop"


@pytest.mark.parametrize("again", [lambda bundle: bundle, lambda bundle: bundle.query_str])
def test_a_transformed_query_is_not_transformed_again(again: Callable[[QueryBundle], Any]) -> None:
    llm = ScriptedLLM(ScriptedModel(estimate="[[40]]"))
    transform = TALEQueryTransform(llm)
    once = transform.run(QUESTION)
    assert transform.run(again(once)) == once
    assert TALEQueryTransform(llm, strategy="essential").run(again(once)) == once
    assert len(llm.sent) == 1


def test_nested_engines_inject_the_budget_once(make_engine: Engine, llm: ScriptedLLM) -> None:
    inner = make_engine()
    TransformQueryEngine(inner, TALEQueryTransform(llm)).query(QUESTION)
    assert [sent.estimates for sent in llm.sent] == [True, False]
    assert llm.sent[1].text.count("use less than") == 1


def test_hyde_and_tale_work_together(make_engine: Engine, llm: ScriptedLLM, embedding: Any) -> None:
    TransformQueryEngine(make_engine(), HyDEQueryTransform(llm)).query(QUESTION)
    assert FRAMED in llm.sent[-1].text
    assert QUESTION in embedding.queries


def test_multi_step_does_not_take_the_budget_for_none(index: VectorStoreIndex) -> None:
    llm = ScriptedLLM(ScriptedModel(estimate="[[40]]", reason="36"))
    engine = MultiStepQueryEngine(
        index.as_query_engine(llm=llm),
        query_transform=TALEQueryTransform(llm),
        response_synthesizer=index.as_query_engine(llm=llm)._response_synthesizer,
        num_steps=2,
    )
    response = engine.query(QUESTION)
    assert len(response.metadata["sub_qa"]) == 2


@pytest.mark.parametrize("strategy", strategy_names())
@pytest.mark.parametrize("question", [QUESTION, "安多大了？"])
def test_no_strategy_says_none(strategy: str, question: str) -> None:
    bundle = TALEQueryTransform(MockLLM(), estimator=40, strategy=strategy).run(question)
    assert "none" not in bundle.query_str.lower()
    assert question in bundle.query_str


def test_a_chinese_question_is_framed_in_chinese() -> None:
    assert "少于 40" in TALEQueryTransform(MockLLM(), estimator=40).run("安多大了？").query_str


def test_braces_in_a_question_are_no_template(make_engine: Engine, llm: ScriptedLLM) -> None:
    make_engine().query("What is {x} in {}?")
    assert "What is {x} in {}?" in llm.sent[1].text


def test_an_empty_question_is_left_alone() -> None:
    llm = ScriptedLLM(ScriptedModel(estimate="[[40]]"))
    bundle = QueryBundle("", image_path="ann.png")
    assert TALEQueryTransform(llm).run(bundle) == bundle
    assert llm.sent == ()


def test_an_llm_as_estimator_estimates(handler: TALEEventHandler) -> None:
    small = ScriptedLLM(ScriptedModel(estimate="[[70]]"), model_name="small")
    bundle = TALEQueryTransform(MockLLM(), estimator=small).run(QUESTION)
    assert "less than 70 tokens" in bundle.query_str
    assert [call.model for call in handler.ledger.calls] == ["small"]


def test_a_calibration_fills_in_what_was_not_named() -> None:
    calibration = Calibration(model="any", strategy="essential", budget=80)
    assert (
        "(at most 80 tokens)" in TALEQueryTransform(MockLLM(), calibration=calibration).run(QUESTION).query_str
    )
    named = TALEQueryTransform(MockLLM(), calibration=calibration, strategy="tale", estimator=40)
    assert named.run(QUESTION).query_str == FRAMED


def test_the_embedded_model_brings_its_calibration() -> None:
    llm = ScriptedLLM(ScriptedModel(reason="."), model_name="qwen2.5-coder-1.5b-instruct-q4_k_m")
    assert "strategy='exemplars'" in repr(TALEQueryTransform(llm))


def test_worked_examples_are_part_of_the_query() -> None:
    bundle = TALEQueryTransform(MockLLM(), estimator=100, strategy="exemplars").run(QUESTION)
    before, _, after = bundle.query_str.partition(QUESTION)
    assert "less than 100 tokens" in after
    assert len(before) > 100


@pytest.mark.parametrize(("reply", "kind"), [("no idea", "unparsable"), ("[[3]]", "clamped")])
def test_what_happens_to_an_estimate_is_an_event(handler: TALEEventHandler, reply: str, kind: str) -> None:
    TALEQueryTransform(ScriptedLLM(ScriptedModel(estimate=reply))).run(QUESTION)
    assert [event.kind for event in handler.ledger.events] == [ElasticityKind(kind)]


def test_an_estimator_that_fails_leaves_the_question_without_a_budget(handler: TALEEventHandler) -> None:
    broken = ScriptedLLM(ScriptedModel(estimate=ConnectionError("down")))
    bundle = TALEQueryTransform(broken).run(QUESTION)
    assert bundle.query_str == f"{QUESTION}\n\nLet's think step by step:"
    assert handler.ledger.events[0].detail == "the estimator raised ConnectionError"


def test_an_estimators_exception_passes_where_the_policy_says_raise() -> None:
    broken = ScriptedLLM(ScriptedModel(estimate=ConnectionError("down")))
    with pytest.raises(ConnectionError, match="down"):
        TALEQueryTransform(broken, policy=BudgetPolicy(on_estimator_error="raise")).run(QUESTION)


def test_a_models_exception_reaches_the_caller_unchanged(index: VectorStoreIndex) -> None:
    llm = ScriptedLLM(ScriptedModel(estimate="[[40]]", reason=ConnectionError("down")))
    with pytest.raises(ConnectionError, match="down"):
        TransformQueryEngine(index.as_query_engine(llm=llm), TALEQueryTransform(llm)).query(QUESTION)


@pytest.mark.parametrize("field", ["on_overrun", "on_collapse", "on_truncation", "on_slip"])
@pytest.mark.parametrize("action", ["retry", "raise"])
def test_a_policy_that_a_transform_cannot_keep_is_refused(field: str, action: str) -> None:
    with pytest.raises(InvalidValueError, match=f"{field}='{action}' cannot be kept; use TALEQueryEngine"):
        TALEQueryTransform(MockLLM(), policy=BudgetPolicy(**{field: action}))


def test_a_calibration_that_would_ask_again_serves_a_transform_without_its_second_try() -> None:
    again = Calibration(model="m", strategy="tale", budget=40, policy=BudgetPolicy(on_slip="retry"))
    bundle = TALEQueryTransform(MockLLM(), calibration=again).run(QUESTION)
    assert "40 tokens" in bundle.query_str
    strict = again.model_copy(update={"policy": BudgetPolicy(on_slip="raise")})
    with pytest.raises(InvalidValueError, match="on_slip='raise' cannot be kept"):
        TALEQueryTransform(MockLLM(), calibration=strict)


@pytest.mark.parametrize("given", [None, 3, b"How old?", QueryBundle(None)])
async def test_what_is_no_query_is_shown_and_no_llm_is_asked(given: Any, llm: ScriptedLLM) -> None:
    transform = TALEQueryTransform(llm)
    message = r"a query is a str or a QueryBundle around one, got .*; pass the question as text"
    with pytest.raises(InvalidValueError, match=message):
        transform.run(given)
    with pytest.raises(InvalidValueError, match=message):
        await transform.arun(given)
    assert not llm.sent


@pytest.mark.parametrize(
    ("options", "error", "shown"),
    [
        ({"strategy": "tail"}, UnknownStrategyError, "'tail'; did you mean 'tale'"),
        ({"estimator": 0}, InvalidValueError, "at least 1, got 0"),
        ({"estimator": "zero-shot"}, UnknownModelError, "'zero-shot'"),
        ({"language": "fr"}, InvalidValueError, "'fr'"),
    ],
)
def test_bad_values_fail_at_construction(options: dict[str, Any], error: type[Exception], shown: str) -> None:
    with pytest.raises(error, match=shown):
        TALEQueryTransform(MockLLM(), **options)


def test_a_transform_can_be_copied_and_pickled() -> None:
    transform = TALEQueryTransform(MockLLM(), estimator=40)
    for copied in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):  # noqa: S301
        assert copied.run(QUESTION).query_str == FRAMED


def test_the_representation_shows_no_key() -> None:
    llm = pytest.importorskip("llama_index.llms.openai").OpenAI(model="gpt-4o-mini", api_key="sk-secret")
    shown = repr(TALEQueryTransform(llm))
    assert shown == "TALEQueryTransform(OpenAI('gpt-4o-mini'), estimator='zero-shot', strategy='tale')"
