"""TALESynthesizer: what each response mode is asked with, and what it costs."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from llama_index.core import PromptTemplate, Settings
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import MockLLM
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import BaseModel
from scripted_llm import ScriptedLLM

from tale_core import BudgetOverrunError, BudgetPolicy, InvalidValueError
from tale_core.testing import ScriptedModel
from tale_llamaindex import TALELLM, TALEEventHandler, TALEQueryTransform, TALESynthesizer

QUESTION = "How old is Ann?"
ANSWER = "word " * 20
# Four of these do not fit into the small context window below at once.
NODES = [NodeWithScore(node=TextNode(text=f"Fact {number}. " + "filler " * 500)) for number in range(4)]


@pytest.fixture
def llm() -> ScriptedLLM:
    return ScriptedLLM(ScriptedModel(estimate="[[90]]", reason=ANSWER), context_window=1600, max_tokens=256)


def synthesizer(llm: ScriptedLLM, mode: str = "compact", **options: Any) -> TALESynthesizer:
    policy = options.pop("policy", None)
    return TALESynthesizer(
        get_response_synthesizer(llm=llm, response_mode=ResponseMode(mode), **options), policy=policy
    )


def budgets(llm: ScriptedLLM) -> list[int]:
    """Return the budget that each answer was asked under, in order."""
    return [
        int(sent.text.rsplit("less than ", 1)[1].split(" tokens", 1)[0])
        for sent in llm.sent
        if not sent.estimates
    ]


@pytest.mark.parametrize(
    ("mode", "calls", "budget"),
    [
        ("refine", 4, 90),
        ("compact", 3, 90),
        ("simple_summarize", 1, 90),
        ("generation", 1, 90),
        ("accumulate", 4, round(90 / 4)),
        ("compact_accumulate", 2, 90 // 2),
    ],
)
async def test_the_budget_is_divided_by_response_mode(
    llm: ScriptedLLM, handler: TALEEventHandler, mode: str, calls: int, budget: int
) -> None:
    synthesizer(llm, mode).synthesize(QUESTION, NODES)
    assert budgets(llm) == [budget] * calls
    assert [sent.estimates for sent in llm.sent].count(True) == 1
    assert [call.budget for call in handler.ledger.calls if call.role == "reason"] == budgets(llm)
    assert len({call.question_id for call in handler.ledger.calls}) == 1
    sync = llm.sent
    llm._sent.clear()
    await synthesizer(llm, mode).asynthesize(QUESTION, NODES)
    assert llm.sent == sync, "sync and async send identical calls"


@pytest.mark.parametrize("use_async", [False, True])
async def test_the_root_of_a_tree_has_the_whole_and_the_leaves_less(llm: ScriptedLLM, use_async: bool) -> None:
    synthesizer(llm, "tree_summarize", use_async=use_async).synthesize(QUESTION, NODES)
    *leaves, root = budgets(llm)
    assert root == 90
    assert len(leaves) > 1
    assert set(leaves) == {round(90 / len(leaves))}
    sync = llm.sent
    llm._sent.clear()
    await synthesizer(llm, "tree_summarize").asynthesize(QUESTION, NODES)
    assert sorted(sent.text for sent in llm.sent) == sorted(sent.text for sent in sync)


def test_a_tree_of_one_leaf_is_its_root(llm: ScriptedLLM) -> None:
    synthesizer(llm, "tree_summarize").synthesize(QUESTION, NODES[:1])
    assert budgets(llm) == [90]


def test_a_share_never_falls_below_the_floor(llm: ScriptedLLM) -> None:
    synthesizer(llm, "accumulate", policy=BudgetPolicy(floor=50)).synthesize(QUESTION, NODES)
    assert set(budgets(llm)) == {50}


@pytest.mark.parametrize("mode", ["no_text", "context_only"])
def test_modes_that_ask_no_model_are_not_estimated(llm: ScriptedLLM, mode: str) -> None:
    Settings.llm = llm  # these two take no LLM
    synthesizer(llm, mode).synthesize(QUESTION, NODES)
    assert llm.sent == ()


def test_without_nodes_nothing_is_asked_but_by_generation(llm: ScriptedLLM) -> None:
    assert str(synthesizer(llm).synthesize(QUESTION, [])) == "Empty Response"
    assert llm.sent == ()
    assert str(synthesizer(llm, "generation").synthesize(QUESTION, [])) == ANSWER
    assert budgets(llm) == [90]


@pytest.mark.parametrize("mode", ["compact", "tree_summarize", "simple_summarize"])
async def test_streams_are_handed_on_and_recorded(
    llm: ScriptedLLM, handler: TALEEventHandler, mode: str
) -> None:
    response: Any = synthesizer(llm, mode, streaming=True).synthesize(QUESTION, NODES)
    assert response.get_response().response == ANSWER
    plain = len(handler.ledger.calls)
    response = await synthesizer(llm, mode, streaming=True).asynthesize(QUESTION, NODES)
    assert "".join([text async for text in response.async_response_gen()]) == ANSWER
    assert len(handler.ledger.calls) == 2 * plain
    assert {call.usage.source for call in handler.ledger.calls} == {"measured"}
    assert all(call.budget for call in handler.ledger.calls if call.role == "reason")


@pytest.mark.parametrize("mode", ["compact", "accumulate", "tree_summarize"])
async def test_messages_with_images_are_asked_under_the_budget(llm: ScriptedLLM, mode: str) -> None:
    synthesizer(llm, mode, multimodal=True).synthesize(QUESTION, NODES[:2])
    assert budgets(llm)
    sync = sorted(sent.text for sent in llm.sent)
    llm._sent.clear()
    await synthesizer(llm, mode, multimodal=True).asynthesize(QUESTION, NODES[:2])
    assert sorted(sent.text for sent in llm.sent) == sync


def test_a_callback_manager_set_on_it_reaches_the_llm(llm: ScriptedLLM) -> None:
    wrapped = synthesizer(llm)
    wrapped.callback_manager = manager = CallbackManager([])
    assert wrapped.callback_manager is llm.callback_manager is manager


class Age(BaseModel):
    """Somebody's age."""

    years: int


def test_structured_answers_are_asked_under_the_budget(handler: TALEEventHandler) -> None:
    llm = ScriptedLLM(ScriptedModel(estimate="[[90]]", reason='{"years": 36}'))
    response: Any = synthesizer(llm, output_cls=Age).synthesize(QUESTION, NODES[:1])
    assert response.response == Age(years=36)
    assert [call.budget for call in handler.ledger.calls] == [None, 90]


def test_a_structured_llm_inside_is_estimated_in_plain_text() -> None:
    llm = ScriptedLLM(ScriptedModel(estimate="[[90]]", reason='{"years": 36}'))
    response: Any = TALESynthesizer(get_response_synthesizer(llm=llm.as_structured_llm(Age))).synthesize(
        QUESTION, NODES[:1]
    )
    assert response.response == Age(years=36)
    assert budgets(llm) == [90]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_overrun_is_asked_again_where_the_policy_says_so(asynchronous: bool) -> None:
    llm = ScriptedLLM(ScriptedModel("word " * 200, ANSWER, estimate="[[90]]"))
    again = synthesizer(llm, policy=BudgetPolicy(on_overrun="retry"))
    if asynchronous:
        response = await again.asynthesize(QUESTION, NODES[:1])
    else:
        response = again.synthesize(QUESTION, NODES[:1])
    assert str(response) == ANSWER
    assert budgets(llm) == [90, 180]


@pytest.mark.parametrize("streaming", [False, True])
def test_an_overrun_raises_where_the_policy_says_so(streaming: bool) -> None:
    llm = ScriptedLLM(ScriptedModel(estimate="[[90]]", reason="word " * 200))
    strict = synthesizer(llm, policy=BudgetPolicy(on_overrun="raise"), streaming=streaming)
    with pytest.raises(BudgetOverrunError, match="200 output tokens"):
        str(strict.synthesize(QUESTION, NODES[:1]))


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_query_with_a_budget_gets_no_second_one(llm: ScriptedLLM, asynchronous: bool) -> None:
    bundle = TALEQueryTransform(llm).run(QUESTION)
    if asynchronous:
        await synthesizer(llm).asynthesize(bundle, NODES[:1])
    else:
        synthesizer(llm).synthesize(bundle, NODES[:1])
    assert [sent.estimates for sent in llm.sent] == [True, False]
    assert llm.sent[1].text.count("use less than") == 1


def test_an_llm_with_a_budget_of_its_own_gives_way(llm: ScriptedLLM) -> None:
    TALESynthesizer(get_response_synthesizer(llm=TALELLM(llm))).synthesize(QUESTION, NODES[:1])
    assert [sent.estimates for sent in llm.sent] == [True, False]
    assert llm.sent[1].text.count("use less than") == 1


def test_the_default_synthesizer_answers_with_the_llm_given(llm: ScriptedLLM) -> None:
    assert str(TALESynthesizer(llm=llm).synthesize(QUESTION, NODES[:1])) == ANSWER
    Settings.llm = llm
    assert str(TALESynthesizer().synthesize(QUESTION, NODES[:1])) == ANSWER


def test_prompts_are_those_inside(llm: ScriptedLLM) -> None:
    wrapped = synthesizer(llm)
    assert "text_qa_template" in wrapped.get_prompts()
    wrapped.update_prompts({"text_qa_template": PromptTemplate("Be brief. {context_str} {query_str}")})
    wrapped.synthesize(QUESTION, NODES[:1])
    assert llm.sent[1].text.startswith("Be brief. Fact 0.")


def test_response_methods_can_be_called_directly(llm: ScriptedLLM) -> None:
    assert synthesizer(llm).get_response(QUESTION, ["Ann is 36."]) == ANSWER
    assert (
        synthesizer(llm, multimodal=True).get_response_from_messages(QUESTION, [ChatMessage("Ann is 36.")])
        == ANSWER
    )
    assert budgets(llm) == [90, 90]


def test_it_can_be_copied_and_pickled() -> None:
    wrapped = TALESynthesizer(llm=MockLLM(), estimator=40)
    for copied in (copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped))):  # noqa: S301
        assert "less than 40 tokens" in copied.get_response(QUESTION, ["Ann is 36."])


def test_the_representation_shows_no_key() -> None:
    llm = pytest.importorskip("llama_index.llms.openai").OpenAI(model="gpt-4o-mini", api_key="sk-secret")
    shown = repr(TALESynthesizer(llm=llm))
    assert (
        shown
        == "TALESynthesizer(CompactAndRefine, OpenAI('gpt-4o-mini'), estimator='zero-shot', strategy='tale')"
    )


def test_bad_values_fail_at_construction(llm: ScriptedLLM) -> None:
    with pytest.raises(InvalidValueError, match="at least 1, got 0"):
        TALESynthesizer(llm=llm, estimator=0)
