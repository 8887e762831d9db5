"""TALERunnable: what goes to the model, and what comes back."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField
from scripted_chat_model import ScriptedChatModel

from tale_core import (
    BudgetPolicy,
    Calibration,
    ChainEstimator,
    FixedEstimator,
    InvalidValueError,
    UnknownStrategyError,
    find_calibration,
)
from tale_core.testing import ScriptedModel
from tale_langchain import TALECallbackHandler, TALERunnable

QUESTION = "How many eggs are in four dozen?"
FRAMED = f"{QUESTION}\n\nLet's think step by step and use less than 40 tokens:"
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}

Ask = Callable[..., Awaitable[AIMessage]]


def reasoned(model: ScriptedChatModel) -> list[str]:
    """Return the texts of the prompts that were meant to be answered."""
    return [sent.text for sent in model.sent if not sent.estimates]


async def test_the_model_is_asked_for_a_budget_and_then_under_it(ask: Ask, model: ScriptedChatModel) -> None:
    answer = await ask(TALERunnable(model), QUESTION)
    estimate, reason = model.sent
    assert estimate.text.endswith(f"Question: {QUESTION}")
    assert reason.text == FRAMED
    assert answer.text.startswith("Four dozen")


async def test_the_accounts_are_in_the_metadata_of_the_models_own_message(ask: Ask, tale: TALERunnable) -> None:
    answer = await ask(tale, QUESTION)
    accounts = answer.response_metadata["tale"]
    assert answer.response_metadata["finish_reason"] == "stop"
    assert (accounts["budget"], accounts["source"], accounts["strategy"]) == (40, "zero-shot", "tale")
    assert accounts["estimate_usage"]["output_tokens"] == 2
    assert accounts["reason_usage"]["output_tokens"] == 19
    assert accounts["events"] == []


async def test_the_usage_is_what_the_provider_said_of_the_answer_alone(ask: Ask, tale: TALERunnable) -> None:
    answer = await ask(tale, QUESTION)
    prompt = len(FRAMED.split())
    assert answer.usage_metadata == {"input_tokens": prompt, "output_tokens": 19, "total_tokens": prompt + 19}


async def test_all_ways_of_asking_send_identical_calls(
    every_way: dict[str, Ask], model: ScriptedChatModel
) -> None:
    tale = TALERunnable(model, policy=BudgetPolicy(on_estimator_error="raise"))
    sent = {}
    for way, ask in every_way.items():
        await ask(tale, [SystemMessage("Be kind."), HumanMessage(QUESTION)], stop=["END"])
        sent[way] = [(one.messages, one.kwargs, one.settings, one.estimates) for one in model.sent]
        model._sent.clear()
    assert [len(calls) for calls in sent.values()] == [2] * len(sent)
    assert all(calls == sent["invoke"] for calls in sent.values())


async def test_the_users_messages_are_never_changed(ask: Ask, tale: TALERunnable) -> None:
    messages = [
        SystemMessage("Be kind."),
        HumanMessage([{"type": "text", "text": QUESTION}, copy.deepcopy(IMAGE)], id="q"),
    ]
    before = copy.deepcopy(messages)
    await ask(tale, messages)
    assert messages == before


def test_system_prompt_and_history_pass_through(tale: TALERunnable, model: ScriptedChatModel) -> None:
    history = [SystemMessage("Be kind."), HumanMessage("Hello"), AIMessage("Hello!"), HumanMessage(QUESTION)]
    tale.invoke(history)
    *before, question = model.sent[-1].messages
    assert before == history[:-1]
    assert question.text == FRAMED
    assert "Hello" not in model.sent[0].text


def test_images_stay_and_the_budget_comes_after_them(tale: TALERunnable, model: ScriptedChatModel) -> None:
    tale.invoke([HumanMessage([{"type": "text", "text": QUESTION}, IMAGE])])
    first, image, last = model.sent[-1].messages[-1].content
    assert (first, image) == ({"type": "text", "text": QUESTION}, IMAGE)
    assert last["text"].endswith("use less than 40 tokens:")
    assert isinstance(model.sent[0].messages[-1].content, str)


def test_an_image_without_text_is_asked_as_it_is(tale: TALERunnable, model: ScriptedChatModel) -> None:
    answer = tale.invoke([HumanMessage([IMAGE])])
    assert [sent.messages[-1].content for sent in model.sent] == [[IMAGE]]
    assert answer.response_metadata["tale"]["budget"] is None


@pytest.mark.parametrize(
    "ending",
    [
        [
            AIMessage("", tool_calls=[{"name": "count", "args": {}, "id": "1"}]),
            ToolMessage("48", tool_call_id="1"),
        ],
        [AIMessage("The answer is")],
    ],
    ids=["tool result", "own words"],
)
def test_a_turn_without_a_new_question_is_neither_estimated_nor_framed(
    tale: TALERunnable, model: ScriptedChatModel, ending: list[Any]
) -> None:
    messages = [HumanMessage(QUESTION), *ending]
    answer = tale.invoke(messages)
    assert [list(sent.messages) for sent in model.sent] == [messages]
    assert answer.response_metadata["tale"]["estimate_usage"] is None


def test_a_system_message_behind_the_question_does_not_hide_it(
    tale: TALERunnable, model: ScriptedChatModel
) -> None:
    tale.invoke([HumanMessage(QUESTION), SystemMessage("Be kind.")])
    assert [message.text for message in model.sent[-1].messages] == [FRAMED, "Be kind."]


@pytest.mark.parametrize(
    ("question", "wording"),
    [
        (QUESTION, "use less than 40 tokens:"),
        ("四打鸡蛋一共有多少个？", "使用少于 40 tokens:"),
        ("Let's think step by step and use less than 7 tokens: what is 3 + 4?", "use less than 40 tokens:"),
        ("", ""),
    ],
)
def test_the_budget_is_put_in_once_whatever_the_wording(
    tale: TALERunnable, model: ScriptedChatModel, question: str, wording: str
) -> None:
    tale.invoke(question)
    (prompt,) = reasoned(model)
    assert prompt.startswith(question)
    assert prompt.endswith(wording)
    assert prompt.count("40 tokens") == bool(wording)


def test_worked_examples_go_right_before_the_question(model: ScriptedChatModel) -> None:
    TALERunnable(model, strategy="exemplars", estimator=100).invoke(
        [SystemMessage("Be kind."), HumanMessage("Hello"), AIMessage("Hello!"), HumanMessage(QUESTION)]
    )
    kinds = [message.type for message in model.sent[-1].messages]
    assert kinds[:3] == ["system", "human", "ai"]
    assert len(kinds) > 5
    assert kinds[3:] == ["human", "ai"] * ((len(kinds) - 4) // 2) + ["human"]
    assert model.sent[-1].text.startswith(QUESTION)


@pytest.mark.parametrize(
    "given",
    [
        QUESTION,
        [HumanMessage(QUESTION)],
        [("user", QUESTION)],
        [{"role": "user", "content": QUESTION}],
        ChatPromptTemplate.from_messages([("user", "{q}")]).invoke({"q": QUESTION}),
    ],
    ids=["str", "message", "tuple", "dict", "prompt value"],
)
def test_a_question_comes_in_every_form_that_a_chat_model_takes(
    tale: TALERunnable, model: ScriptedChatModel, given: Any
) -> None:
    tale.invoke(given)
    assert reasoned(model) == [FRAMED]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"question": QUESTION}, r"got dict \{.*\}; put a prompt before the model"),
        (None, r"got NoneType None; put a prompt before the model"),
        (3, r"got int 3; put a prompt before the model"),
        (b"How much?", r"got b'How much\?'; pass a list of these"),
        ([3], r"got \[3\]; pass a list of these"),
        ([b"How much?"], r"got \[b'How much\?'\]; pass a list of these"),
        ([HumanMessage("Hi"), None], r"got \[HumanMessage.*None\]; pass a list of these"),
        ([("nobody", "Hi")], r"got \[\('nobody', 'Hi'\)\]; pass a list of these"),
        ([{"role": "user"}], r"got \[\{'role': 'user'\}\]; pass a list of these"),
        ([{"role": "tool", "content": "48"}], r"got .*; pass a list of these"),
        ([("human", 3)], r"got \[\('human', 3\)\]; pass a list of these"),
    ],
)
async def test_what_is_no_question_is_shown_and_no_model_is_asked(
    tale: TALERunnable, model: ScriptedChatModel, given: Any, message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message):
        tale.invoke(given)
    with pytest.raises(InvalidValueError, match=message):
        await tale.ainvoke(given)
    with pytest.raises(InvalidValueError, match=message):
        list(tale.stream(given))
    assert not model.sent


async def test_it_is_a_link_of_a_chain(ask: Ask, tale: TALERunnable) -> None:
    chain = (
        ChatPromptTemplate.from_messages([("system", "Be kind."), ("user", "{q}")]) | tale | StrOutputParser()
    )
    assert (await ask(chain, {"q": QUESTION})).startswith("Four dozen")


def test_the_callers_arguments_reach_the_answer_and_not_the_estimate(
    tale: TALERunnable, model: ScriptedChatModel
) -> None:
    tale.invoke(QUESTION, stop=["END"], top_k=3)
    assert [sent.kwargs for sent in model.sent] == [{}, {"stop": ["END"], "top_k": 3}]


def test_a_fixed_budget_asks_once(model: ScriptedChatModel) -> None:
    answer = TALERunnable(model, estimator=25).invoke(QUESTION)
    assert [sent.estimates for sent in model.sent] == [False]
    assert answer.response_metadata["tale"]["source"] == "fixed"


def test_another_model_may_estimate(model: ScriptedChatModel) -> None:
    small = ScriptedChatModel(ScriptedModel("[[77]]"))
    answer = TALERunnable(model, estimator=small).invoke(QUESTION)
    assert (len(small.sent), len(model.sent)) == (1, 1)
    assert answer.response_metadata["tale"]["budget"] == 77


def test_estimators_of_the_core_serve(model: ScriptedChatModel) -> None:
    answer = TALERunnable(model, estimator=ChainEstimator(FixedEstimator(33))).invoke(QUESTION)
    assert answer.response_metadata["tale"]["budget"] == 33


def test_the_estimator_may_see_the_whole_conversation(model: ScriptedChatModel) -> None:
    tale = TALERunnable(model, estimator_sees="conversation")
    tale.invoke([SystemMessage("Eggs come by the dozen."), HumanMessage("Hello"), HumanMessage(QUESTION)])
    assert "System: Eggs come by the dozen.\n\nUser: Hello\n\nUser: How many eggs" in model.sent[0].text
    assert model.sent[1].text == FRAMED


def test_the_language_may_be_named(model: ScriptedChatModel) -> None:
    TALERunnable(model, language="zh").invoke(QUESTION)
    assert reasoned(model)[0].endswith("使用少于 40 tokens:")


def test_a_strategy_without_a_budget_is_not_estimated(model: ScriptedChatModel) -> None:
    answer = TALERunnable(model, strategy="vanilla").invoke(QUESTION)
    assert reasoned(model) == [f"{QUESTION}\n\nLet's think step by step:"]
    assert len(model.sent) == 1
    assert answer.response_metadata["tale"]["budget"] is None


def test_a_calibration_fills_in_what_is_not_named(model: ScriptedChatModel) -> None:
    calibration = Calibration(model="scripted", strategy="essential", budget=120)
    assert (
        TALERunnable(model, calibration=calibration).invoke(QUESTION).response_metadata["tale"]["budget"] == 120
    )
    named = TALERunnable(model, calibration=calibration, strategy="tale", estimator=30).invoke(QUESTION)
    assert named.response_metadata["tale"]["budget"] == 30
    assert reasoned(model)[1].endswith("use less than 30 tokens:")


def test_a_calibration_may_be_a_file(model: ScriptedChatModel, tmp_path: Any) -> None:
    Calibration(model="scripted", strategy="vanilla").save(tmp_path / "calibration.json")
    TALERunnable(model, calibration=tmp_path / "calibration.json").invoke(QUESTION)
    assert len(model.sent) == 1


def test_a_model_of_a_known_name_gets_its_shipped_calibration() -> None:
    name = "qwen2.5-coder-1.5b-instruct-q4_k_m"
    shipped = find_calibration(None, model_name=name)
    assert shipped is not None
    model = ScriptedChatModel(ScriptedModel(estimate="[[40]]", reason="48"), model_name=name)
    answer = TALERunnable(model.bind(stop=["x"]).with_retry()).invoke(QUESTION)
    assert answer.response_metadata["tale"]["budget"] == shipped.budget


def test_a_cached_message_does_not_carry_the_accounts() -> None:
    model = ScriptedChatModel(ScriptedModel(estimate="[[40]]", reason="48 eggs"), cache=InMemoryCache())
    TALERunnable(model, estimator=40).invoke(QUESTION)
    assert "tale" not in model.invoke(FRAMED).response_metadata
    assert len(model.sent) == 1


def test_choices_can_be_changed_at_run_time(model: ScriptedChatModel) -> None:
    tale = TALERunnable(model, estimator=20).configurable_fields(
        estimator=ConfigurableField(id="budget"), strategy=ConfigurableField(id="strategy")
    )
    tale.with_config(configurable={"budget": 80}).invoke(QUESTION)
    tale.invoke(QUESTION, {"configurable": {"strategy": "vanilla"}})
    tale.invoke(QUESTION)
    assert [prompt.rsplit("\n", 1)[-1] for prompt in reasoned(model)] == [
        "Let's think step by step and use less than 80 tokens:",
        "Let's think step by step:",
        "Let's think step by step and use less than 20 tokens:",
    ]


def test_it_does_not_change_once_made(tale: TALERunnable) -> None:
    with pytest.raises(ValueError, match="frozen"):
        tale.strategy = "vanilla"  # type: ignore[misc]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])  # noqa: S301
def test_it_and_its_handler_can_be_copied_and_pickled(copied: Callable[[Any], Any]) -> None:
    tale, handler = TALERunnable(FakeListChatModel(responses=["[[40]]", "48"])), TALECallbackHandler()
    assert tale.invoke(QUESTION, {"callbacks": [handler]}).text == "48"
    again = copied(tale).invoke(QUESTION, {"callbacks": [copied(handler)]})
    assert again.response_metadata["tale"]["budget"] == 40
    assert (handler.ledger.count(), copied(handler).ledger.count()) == (2, 2)


def test_its_repr_names_the_choices_and_no_secret(loopback: str) -> None:
    from langchain_openai import ChatOpenAI

    tale = TALERunnable(ChatOpenAI(model="gpt-4o-mini", api_key="sk-secret", base_url="https://u:pw@host/v1"))
    assert repr(tale) == "TALERunnable(model='gpt-4o-mini', estimator='zero-shot', strategy='tale')"
    assert "secret" not in f"{tale} {tale!r}"
    assert "pw@" not in f"{tale} {tale!r}"


def test_schemas_and_graph_can_be_drawn(tale: TALERunnable) -> None:
    assert tale.get_input_jsonschema()
    assert tale.get_output_jsonschema()
    assert "TALERunnable" in [node.name for node in (tale | StrOutputParser()).get_graph().nodes.values()]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"estimator": 0}, r"at least 1, got 0"),
        ({"estimator": object()}, r"got object"),
        ({"estimator_sees": "everything"}, r"estimator_sees.*'everything'"),
        ({"language": "fr"}, r"'fr'; available: en"),
        ({"policy": "strict"}, r"policy.*'strict'"),
        ({"calibration": "/nowhere/calibration.json"}, r"/nowhere/calibration.json"),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_shows_it(
    model: ScriptedChatModel, choices: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message):
        TALERunnable(model, **choices)


def test_an_unknown_strategy_is_answered_with_the_known_ones(model: ScriptedChatModel) -> None:
    with pytest.raises(UnknownStrategyError, match="did you mean 'vanilla'"):
        TALERunnable(model, strategy="vanila")


def test_a_floor_above_the_ceiling_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="floor 50 is above ceiling 20"):
        BudgetPolicy(floor=50, ceiling=20)
