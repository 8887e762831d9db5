"""ChatTALE is the chat model inside it, but for cost."""

from __future__ import annotations

import copy
import pickle
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableBinding
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from scripted_chat_model import ScriptedChatModel

from tale_core import BudgetPolicy, FixedEstimator, InvalidValueError, NotAChatModelError
from tale_core.errors import BudgetOverrunError
from tale_core.testing import ScriptedModel
from tale_core.types import ModelReply, Usage
from tale_langchain import ChatTALE, TALECallbackHandler, TALERunnable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Ask = Callable[..., Awaitable[AIMessage]]

QUESTION = "How many eggs are in four dozen?"
ANSWER = (
    "Four dozen are four times twelve eggs which makes forty eight eggs in all so the answer is 48"  # 19 words
)


class Heard(BaseCallbackHandler):
    """Keeps what any handler of a user hears."""

    def __init__(self) -> None:
        self.starts: list[str] = []
        self.tokens: list[str] = []
        self.ends: list[AIMessage] = []
        self.errors: list[BaseException] = []
        self.custom: list[str] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.starts.append(messages[0][-1].text)

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.ends.append(response.generations[0][0].message)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.errors.append(error)

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        self.custom.append(name)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def chat(model: ScriptedChatModel) -> ChatTALE:
    return ChatTALE(model)


async def test_the_question_is_asked_under_the_estimate(
    ask: Ask, chat: ChatTALE, model: ScriptedChatModel
) -> None:
    answer = await ask(chat, QUESTION)
    assert answer.text == ANSWER
    assert answer.response_metadata["tale"]["budget"] == 40
    assert [sent.estimates for sent in model.sent] == [True, False]
    assert model.sent[-1].text == f"{QUESTION}\n\nLet's think step by step and use less than 40 tokens:"


async def test_callbacks_hear_of_one_run_with_the_usage_of_the_answer(
    ask: Ask, chat: ChatTALE, heard: Heard
) -> None:
    answer = await ask(chat, QUESTION, {"callbacks": [heard]})
    assert heard.starts == [QUESTION]
    assert [end.usage_metadata for end in heard.ends] == [answer.usage_metadata]
    assert heard.errors == []
    assert "".join(heard.tokens) in {"", ANSWER}


async def test_the_ledger_tells_the_roles_apart(ask: Ask, chat: ChatTALE, handler: TALECallbackHandler) -> None:
    answer = await ask(chat, QUESTION, {"callbacks": [handler]})
    assert [call.role for call in handler.ledger.calls] == ["estimate", "reason"]
    assert handler.ledger.totals("reason").output_tokens == answer.usage_metadata["output_tokens"] == 19
    assert [budget.budget for budget in handler.ledger.budgets] == [40]
    assert len({call.question_id for call in handler.ledger.calls}) == 1


def test_an_ambient_usage_callback_counts_every_token_once(chat: ChatTALE) -> None:
    with get_usage_metadata_callback() as usage:
        answer = chat.invoke(QUESTION)
    assert usage.usage_metadata["scripted"]["output_tokens"] == answer.usage_metadata["output_tokens"]


def test_handlers_of_the_model_itself_hear_of_the_events(model: ScriptedChatModel) -> None:
    handler, heard = TALECallbackHandler(), Heard()
    ChatTALE(model, callbacks=[handler, heard]).invoke(QUESTION)
    assert handler.ledger.count() == 2
    assert heard.starts == [QUESTION]


async def test_events_arrive_within_the_run(chat: ChatTALE) -> None:
    events = [(event["event"], event["run_id"]) async for event in chat.astream_events(QUESTION, version="v2")]
    names = [name for name, _ in events]
    assert names[:3] == ["on_chat_model_start", "on_custom_event", "on_custom_event"]
    assert names[-1] == "on_chat_model_end"
    assert len({run_id for _, run_id in events}) == 1


async def test_protocol_events_assemble_the_answer_with_its_accounts(
    chat: ChatTALE, handler: TALECallbackHandler
) -> None:
    stream = await chat.astream_events(QUESTION, {"callbacks": [handler]}, version="v3")
    kinds = [event["event"] async for event in stream]
    message = await stream.output
    assert kinds.count("message-start") == 1
    assert message.text == ANSWER
    assert message.response_metadata["tale"]["budget"] == 40
    assert handler.ledger.count() == 2
    assert chat.stream_events(QUESTION, version="v3").output.text == ANSWER


async def test_a_stream_comes_word_by_word_and_ends_with_the_accounts(chat: ChatTALE) -> None:
    chunks = [chunk async for chunk in chat.astream(QUESTION)]
    assert len(chunks) == 19 + 2
    assert [chunk.chunk_position for chunk in chunks[:-1]] == [None] * 20
    assert chunks[-1].chunk_position == "last"
    assert chunks[-1].response_metadata["tale"]["budget"] == 40
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_that_is_left_is_recorded_as_left(chat: ChatTALE, handler: TALECallbackHandler) -> None:
    stream = chat.stream(QUESTION, {"callbacks": [handler]})
    next(stream)
    stream.close()
    assert [call.finish_reason for call in handler.ledger.calls] == ["stop", "closed"]


def test_a_model_without_streaming_answers_in_one_piece() -> None:
    chat = ChatTALE(ScriptedChatModel(ScriptedModel(reason=ANSWER), disable_streaming=True), estimator=40)
    (only,) = chat.stream(QUESTION)
    assert only.text == ANSWER


def test_ids_are_the_runs_as_with_the_model_alone(chat: ChatTALE) -> None:
    class Runs(BaseCallbackHandler):
        def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: Any, **kwargs: Any) -> None:
            self.run_id = run_id

    runs = Runs()
    answer = chat.invoke(QUESTION, {"callbacks": [runs]})
    assert answer.id == f"lc_run--{runs.run_id}-0"
    assert reduce(add, chat.stream(QUESTION, {"callbacks": [runs]})).id == f"lc_run--{runs.run_id}"


async def test_what_the_model_raises_reaches_the_caller_and_the_callbacks(ask: Ask, heard: Heard) -> None:
    broken = ScriptedChatModel(ScriptedModel(estimate="[[40]]", reason=ConnectionError("gone")))
    with pytest.raises(ConnectionError, match="gone"):
        await ask(ChatTALE(broken), QUESTION, {"callbacks": [heard]})
    assert [str(error) for error in heard.errors] == ["gone"]


def test_a_broken_estimator_costs_no_answer() -> None:
    model = ScriptedChatModel(ScriptedModel(estimate=ConnectionError("gone"), reason=ANSWER))
    answer = ChatTALE(model).invoke(QUESTION)
    assert answer.text == ANSWER
    assert [event["kind"] for event in answer.response_metadata["tale"]["events"]] == ["unparsable"]


def test_the_policy_asks_again_within_one_run(heard: Heard, handler: TALECallbackHandler) -> None:
    model = ScriptedChatModel(ScriptedModel(ANSWER, ANSWER))
    chat = ChatTALE(model, estimator=10, policy=BudgetPolicy(on_overrun="retry"))
    answer = chat.invoke(QUESTION, {"callbacks": [heard, handler]})
    assert answer.response_metadata["tale"]["attempts"] == 2
    assert [call.budget for call in handler.ledger.calls] == [10, 20]
    assert len(heard.starts) == 1


async def test_the_policy_may_raise(ask: Ask, model: ScriptedChatModel, heard: Heard) -> None:
    chat = ChatTALE(model, estimator=10, policy=BudgetPolicy(on_overrun="raise"))
    with pytest.raises(BudgetOverrunError) as raised:
        await ask(chat, QUESTION, {"callbacks": [heard]})
    assert raised.value.text == ANSWER
    assert heard.errors == [raised.value]


def test_tools_reach_the_model_and_never_the_estimator(chat: ChatTALE, model: ScriptedChatModel) -> None:
    def lookup(name: str) -> str:
        """Look up a name."""
        return name

    bound = chat.bind_tools([lookup], tool_choice="any")
    assert isinstance(bound, RunnableBinding)
    assert bound.bound is chat
    bound.invoke(QUESTION)
    estimate, question = model.sent
    assert "tools" not in estimate.kwargs
    assert question.kwargs["tools"][0]["function"]["name"] == "lookup"
    assert question.kwargs["tool_choice"] == "any"


def test_a_structured_answer_is_asked_for_under_a_budget(heard: Heard) -> None:
    class Count(BaseModel):
        """A number of things."""

        number: int

    call = {"name": "Count", "args": {"number": 48}, "id": "1", "type": "tool_call"}
    reply = ModelReply(text="", native=AIMessage("", tool_calls=[call]))
    model = ScriptedChatModel(ScriptedModel(estimate="[[40]]", reason=reply))
    structured = ChatTALE(model).with_structured_output(Count)
    assert structured.invoke(QUESTION, {"callbacks": [heard]}) == Count(number=48)
    assert len(heard.starts) == 1
    assert "less than 40 tokens" in model.sent[-1].text
    raw = ChatTALE(model).with_structured_output(Count, include_raw=True).invoke(QUESTION)
    assert raw["parsed"] == Count(number=48)
    assert raw["raw"].response_metadata["tale"]["budget"] == 40


def test_tool_results_are_returned_without_a_budget(chat: ChatTALE, model: ScriptedChatModel) -> None:
    call = {"name": "lookup", "args": {}, "id": "1", "type": "tool_call"}
    turn = [HumanMessage(QUESTION), AIMessage("", tool_calls=[call]), ToolMessage("48", tool_call_id="1")]
    answer = chat.invoke(turn)
    assert answer.response_metadata["tale"]["budget"] is None
    assert [sent.messages for sent in model.sent] == [tuple(turn)]


def test_pictures_stay_where_they_are(chat: ChatTALE, model: ScriptedChatModel) -> None:
    picture = {"type": "image", "base64": "aGVs", "mime_type": "image/png"}
    asked = HumanMessage([{"type": "text", "text": QUESTION}, picture])
    chat.invoke([SystemMessage("Be kind."), asked])
    estimate, question = model.sent
    assert "aGVs" not in str(estimate.messages)
    assert question.messages[0] == SystemMessage("Be kind.")
    assert question.messages[1].content[:2] == asked.content
    assert "less than 40 tokens" in question.messages[1].content[2]["text"]
    assert len(asked.content) == 2


def test_it_is_a_link_of_a_chain(chat: ChatTALE) -> None:
    chain = ChatPromptTemplate.from_template("How many {what} are in four dozen?") | chat | StrOutputParser()
    assert chain.invoke({"what": "eggs"}) == ANSWER
    assert chain.batch([{"what": "eggs"}] * 3) == [ANSWER] * 3


def test_bound_arguments_retries_and_fallbacks_of_the_model_work(heard: Heard) -> None:
    flaky = ScriptedChatModel(ScriptedModel(ConnectionError("gone"), ANSWER))
    retried = flaky.bind(stop=["."]).with_retry(wait_exponential_jitter=False)
    assert ChatTALE(retried, estimator=40).invoke(QUESTION, {"callbacks": [heard]}).text == ANSWER
    assert [sent.kwargs["stop"] for sent in flaky.sent] == [["."]] * 2
    assert len(heard.starts) == 1
    broken = ScriptedChatModel(ScriptedModel(reason=ConnectionError("gone")))
    spare = ScriptedChatModel(ScriptedModel(reason=ANSWER))
    answer = ChatTALE(broken.with_fallbacks([spare]), estimator=40).invoke(QUESTION)
    assert answer.text == ANSWER
    assert "less than 40 tokens" in spare.sent[-1].text


def test_it_may_be_retried_and_fallen_back_from_itself(model: ScriptedChatModel) -> None:
    flaky = ScriptedChatModel(ScriptedModel(ConnectionError("gone"), ANSWER))
    retried = ChatTALE(flaky, estimator=40).with_retry(wait_exponential_jitter=False)
    assert retried.invoke(QUESTION).text == ANSWER
    broken = ScriptedChatModel(ScriptedModel(reason=ConnectionError("gone")))
    fallen = ChatTALE(broken, estimator=40).with_fallbacks([ChatTALE(model, estimator=60)])
    assert fallen.invoke(QUESTION).response_metadata["tale"]["budget"] == 60


@pytest.mark.parametrize("wrap", [ChatTALE, TALERunnable])
def test_the_budget_the_strategy_and_the_policy_can_be_chosen_at_run_time(
    wrap: Any, model: ScriptedChatModel
) -> None:
    chosen = wrap(model).configurable_fields(
        estimator=ConfigurableField("budget"),
        strategy=ConfigurableField("strategy"),
        policy=ConfigurableField("policy"),
    )
    by_default = chosen.invoke(QUESTION).response_metadata["tale"]
    at_run_time = chosen.invoke(QUESTION, {"configurable": {"budget": 60}}).response_metadata["tale"]
    assert (by_default["budget"], at_run_time["budget"], at_run_time["source"]) == (40, 60, "fixed")
    config = {"configurable": {"strategy": "vanilla"}}
    assert chosen.invoke(QUESTION, config).response_metadata["tale"]["strategy"] == "vanilla"
    config = {"configurable": {"policy": BudgetPolicy(floor=100)}}
    assert chosen.with_config(config).invoke(QUESTION).response_metadata["tale"]["budget"] == 100
    with pytest.raises(InvalidValueError, match="0"):
        chosen.invoke(QUESTION, {"configurable": {"budget": 0}})


@pytest.mark.parametrize("wrap", [ChatTALE, TALERunnable])
def test_a_graph_shows_one_node(wrap: Any, model: ScriptedChatModel) -> None:
    names = [node.name for node in wrap(model).get_graph().nodes.values()]
    assert len(names) == 3
    assert names[1] == wrap.__name__


def test_whoever_asks_about_the_model_is_told_of_the_one_inside() -> None:
    inside = ChatOpenAI(model="gpt-4o-mini", api_key="sk-secret", temperature=0.5)
    chat = ChatTALE(inside)
    assert chat._get_ls_params() == inside._get_ls_params()
    assert chat._get_ls_params(model="gpt-4o")["ls_model_name"] == "gpt-4o"
    assert chat.profile == inside.profile
    assert {**inside._identifying_params, "tale": chat._identifying_params["tale"]} == chat._identifying_params
    scripted = ScriptedChatModel(ScriptedModel(reason="7"), custom_get_token_ids=lambda text: [1] * len(text))
    assert ChatTALE(scripted).get_num_tokens("abc") == 3


def test_no_secret_is_shown() -> None:
    chat = ChatTALE(
        ChatOpenAI(model="gpt-4o-mini", api_key="sk-secret", base_url="http://user:pw@127.0.0.1/v1")
    )
    shown = f"{chat!r} {chat} {chat._identifying_params} {chat._get_invocation_params()} {chat._serialized}"
    assert "sk-secret" not in shown
    assert "pw@" not in shown
    assert repr(chat) == "ChatTALE(model='gpt-4o-mini', estimator='zero-shot', strategy='tale')"


def pickled(chat: ChatTALE) -> ChatTALE:
    return pickle.loads(pickle.dumps(chat))  # noqa: S301  # our own


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled])
def test_copies_work_like_the_original(duplicate: Any) -> None:
    original = ChatTALE(FakeListChatModel(responses=["[[40]]", ANSWER]), policy=BudgetPolicy(floor=50))
    answer = duplicate(original).invoke(QUESTION)
    assert answer.text == ANSWER
    assert answer.response_metadata["tale"]["budget"] == 50


@pytest.mark.parametrize(
    ("build", "error", "said"),
    [
        (lambda model: ChatTALE(model, budget=40), InvalidValueError, "a fixed budget is estimator=40"),
        (lambda model: ChatTALE(model, estimator=0), InvalidValueError, "0"),
        (lambda model: ChatTALE(model, strategy="tail"), InvalidValueError, "did you mean 'tale'"),
        (
            lambda model: ChatTALE(model, reasoning_control="native"),
            InvalidValueError,
            "reasoning_control='native' cannot be kept",
        ),
        (lambda model: ChatTALE(model, estimator_sees="all"), InvalidValueError, "estimator_sees"),
        (lambda model: ChatTALE(ChatTALE(model)), InvalidValueError, "under a budget already"),
        (lambda model: TALERunnable(ChatTALE(model)), InvalidValueError, "under a budget already"),
        (lambda model: TALERunnable(TALERunnable(model)), InvalidValueError, "under a budget already"),
        (lambda model: ChatTALE(model, estimator=ChatTALE(model)), InvalidValueError, "under a budget already"),
        (lambda model: ChatTALE(TALERunnable(model)), NotAChatModelError, "TALERunnable"),
        (lambda model: ChatTALE(object()), NotAChatModelError, "object"),
        (lambda model: ChatTALE(model | StrOutputParser()), NotAChatModelError, "str"),
        (
            lambda model: ChatTALE(model.configurable_fields(temperature=ConfigurableField("heat"))),
            NotAChatModelError,
            "chosen at run time",
        ),
    ],
)
def test_what_cannot_be_meant_fails_at_once(
    build: Any, error: type[Exception], said: str, model: ScriptedChatModel
) -> None:
    with pytest.raises(error, match=said):
        build(model)


def test_the_choices_cannot_be_changed_behind_its_back(chat: ChatTALE) -> None:
    with pytest.raises(ValueError, match="frozen"):
        chat.estimator = 60


def test_all_that_a_provider_tells_beside_the_message_is_kept() -> None:
    chat = ChatTALE(FakeListChatModel(responses=[ANSWER]), estimator=FixedEstimator(40))
    result = chat.generate([[HumanMessage(QUESTION)], [HumanMessage(QUESTION)]])
    assert [one[0].text for one in result.generations] == [ANSWER, ANSWER]


def test_usage_details_reach_the_ledger(handler: TALECallbackHandler) -> None:
    usage = Usage(input_tokens=10, output_tokens=30, reasoning_tokens=20)
    model = ScriptedChatModel(ScriptedModel(reason=ModelReply(text=ANSWER, usage=usage, finish_reason="stop")))
    ChatTALE(model, estimator=40).invoke(QUESTION, {"callbacks": [handler]})
    assert handler.ledger.totals("reason").reasoning_tokens == 20
