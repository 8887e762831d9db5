"""TALELLM: what it sends, what it returns, and that it is otherwise the LLM inside."""

from __future__ import annotations

import copy
import logging
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler, TokenCountingHandler
from llama_index.core.llms import MockLLM
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.rate_limiter import BaseRateLimiter
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel
from scripted_llm import ScriptedLLM

from tale_core import (
    BudgetOverrunError,
    BudgetPolicy,
    InvalidValueError,
    ModelReply,
    NotAChatModelError,
    TruncatedAnswerError,
    UnexpectedReplyError,
    Usage,
)
from tale_core.testing import ScriptedModel
from tale_llamaindex import TALELLM, TALECallbackHandler, TALEEventHandler, TALEPlainLLM, TALEQueryTransform

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

QUESTION = "How old is Ann?"
SENTENCE = "Let's think step by step and use less than 40 tokens:"
FRAMED = f"{QUESTION}\n\n{SENTENCE}"
ANSWER = "Ann was born in 1990 and it is 2026 so she is 36 years old now."  # 16 words


@pytest.fixture
def wrapped(llm: ScriptedLLM) -> TALELLM:
    return TALELLM(llm)


def user(text: str = QUESTION) -> ChatMessage:
    return ChatMessage(role="user", content=text)


async def drained(stream: Any) -> list[Any]:
    return [chunk async for chunk in stream]


# What is sent


def test_the_budget_goes_to_the_end_of_the_last_user_message(wrapped: TALELLM, llm: ScriptedLLM) -> None:
    history = [
        ChatMessage(role="system", content="Be kind."),
        user("Hi"),
        ChatMessage(role="assistant", content="Hi."),
    ]
    wrapped.chat([*history, user()])
    estimate, reason = llm.sent
    assert estimate.messages == (("user", estimate.text),)
    assert "Be kind." not in estimate.text
    assert reason.messages == (("system", "Be kind."), ("user", "Hi"), ("assistant", "Hi."), ("user", FRAMED))


def test_the_users_messages_are_never_changed(wrapped: TALELLM, llm: ScriptedLLM) -> None:
    picture = ImageBlock(url="https://example.org/ann.png")
    message = ChatMessage(
        role="user", blocks=[TextBlock(text=QUESTION), picture], additional_kwargs={"name": "Bob"}
    )
    before = message.model_copy(deep=True)
    asked: list[Any] = []

    class Keeping(ScriptedLLM):
        def chat(self, messages: Any, **kwargs: Any) -> Any:
            asked.append(messages[-1])
            return super().chat(messages, **kwargs)

    TALELLM(Keeping(ScriptedModel(reason="36")), estimator=40).chat([message])
    assert message == before
    assert [type(block).__name__ for block in asked[0].blocks] == ["TextBlock", "ImageBlock", "TextBlock"]
    assert asked[0].blocks[2].text == SENTENCE
    assert asked[0].additional_kwargs == {"name": "Bob"}


def test_worked_examples_are_turns_before_the_question(llm: ScriptedLLM) -> None:
    TALELLM(llm, estimator=100, strategy="exemplars").chat(
        [user("Hi"), ChatMessage(role="assistant", content="Hi."), user()]
    )
    roles = [role for role, _ in llm.sent[0].messages]
    assert roles[:2] == ["user", "assistant"]
    assert len(roles) > 3
    assert llm.sent[0].messages[-1][1].startswith(QUESTION)


async def test_all_eight_endpoints_ask_under_the_budget(wrapped: TALELLM, llm: ScriptedLLM) -> None:
    wrapped.chat([user()])
    await wrapped.achat([user()])
    wrapped.complete(QUESTION)
    await wrapped.acomplete(QUESTION)
    list(wrapped.stream_chat([user()]))
    await drained(await wrapped.astream_chat([user()]))
    list(wrapped.stream_complete(QUESTION))
    await drained(await wrapped.astream_complete(QUESTION))
    reasons = [sent for sent in llm.sent if not sent.estimates]
    assert [sent.endpoint for sent in reasons] == [
        *["chat"] * 2,
        *["complete"] * 2,
        *["stream_chat"] * 2,
        *["stream_complete"] * 2,
    ]
    assert {sent.text for sent in reasons} == {FRAMED}


async def test_sync_and_async_send_identical_calls() -> None:
    sync, other = (ScriptedLLM(ScriptedModel(estimate="[[40]]", reason="36")) for _ in range(2))
    TALELLM(sync).chat([user()], stop=["."])
    list(TALELLM(sync).stream_complete(QUESTION))
    await TALELLM(other).achat([user()], stop=["."])
    await drained(await TALELLM(other).astream_complete(QUESTION))
    assert sync.sent == other.sent
    assert sync.sent[1].kwargs == {"stop": ["."]}


def test_the_estimator_sees_the_query_of_a_template_without_its_context(
    wrapped: TALELLM, llm: ScriptedLLM
) -> None:
    prompt = PromptTemplate("Context: {context_str}\nQuery: {query_str}\nAnswer: ")
    wrapped.predict(prompt, context_str="Ann was born in 1990.", query_str=QUESTION)
    estimate, reason = llm.sent
    assert estimate.text.endswith(f"Question: {QUESTION}")
    assert reason.text.endswith(f"Answer: \n\n{SENTENCE}")


async def test_templates_stream_under_the_budget_of_their_query(wrapped: TALELLM, llm: ScriptedLLM) -> None:
    prompt = PromptTemplate("Context: {context_str}\nQuery: {query_str}")
    context = {"context_str": "Ann was born in 1990.", "query_str": QUESTION}
    assert "".join(wrapped.stream(prompt, **context)) == ANSWER
    assert "".join(await drained(await wrapped.astream(prompt, **context))) == ANSWER
    assert [sent.text.endswith(f"Question: {QUESTION}") for sent in llm.sent] == [True, False, True, False]


def test_a_template_of_the_llm_stays_around_the_budget() -> None:
    inner = ScriptedLLM(
        ScriptedModel(reason="36"),
        is_chat_model=False,
        completion_to_prompt=lambda text: f"<|user|>{text}<|end|>",
    )
    TALELLM(inner, estimator=40).predict(PromptTemplate("{query_str}"), query_str=QUESTION)
    assert inner.sent[0].text == f"<|user|>{FRAMED}<|end|>"


def test_the_budget_is_injected_once_whoever_else_injects_it(llm: ScriptedLLM, index: VectorStoreIndex) -> None:
    wrapped = TALELLM(TALELLM(llm))
    bundle = TALEQueryTransform(wrapped).run(QUESTION)
    wrapped.complete(bundle.query_str)
    assert [sent.estimates for sent in llm.sent] == [True, False]
    assert llm.sent[1].text == FRAMED


@pytest.mark.parametrize("messages", [[], [ChatMessage(role="system", content="Be kind.")], [user("  ")]])
def test_where_nobody_asks_the_call_is_made_as_it_is(wrapped: TALELLM, llm: ScriptedLLM, messages: Any) -> None:
    wrapped.chat(messages)
    assert [sent.messages for sent in llm.sent] == [tuple((one.role.value, one.content) for one in messages)]


# What comes back


def test_the_response_is_the_models_own_with_the_accounts_beside(wrapped: TALELLM, llm: ScriptedLLM) -> None:
    response = wrapped.chat([user()])
    assert response.message.content == ANSWER
    assert response.raw == llm.chat([user(FRAMED)]).raw
    tale = response.additional_kwargs["tale"]
    assert (tale["budget"], tale["source"], tale["reason_usage"]["output_tokens"]) == (40, "zero-shot", 16)


def test_a_stream_is_the_models_own_with_the_accounts_at_the_end(wrapped: TALELLM, llm: ScriptedLLM) -> None:
    *chunks, last = wrapped.stream_chat([user()])
    assert chunks == list(llm.stream_chat([user(FRAMED)]))
    assert (last.delta, last.message.content) == ("", ANSWER)
    assert last.additional_kwargs["tale"]["reason_usage"]["output_tokens"] == 16


def test_streaming_and_not_streaming_give_the_same_ledger(wrapped: TALELLM, handler: TALEEventHandler) -> None:
    wrapped.chat([user()])
    plain = [(call.role, call.usage, call.budget) for call in handler.ledger.calls]
    handler.ledger.clear()
    list(wrapped.stream_chat([user()]))
    assert [(call.role, call.usage, call.budget) for call in handler.ledger.calls] == plain


def test_a_turn_whose_beginning_was_not_seen_goes_on_as_it_is(wrapped: TALELLM, llm: ScriptedLLM) -> None:
    wrapped.chat(
        [
            user(),
            ChatMessage(role="assistant", content="I look it up."),
            ChatMessage(role="tool", content="1990"),
        ]
    )
    assert [sent.messages[0] for sent in llm.sent] == [("user", QUESTION)]


def test_old_turns_are_forgotten() -> None:
    llm = TALELLM(MockLLM(), estimator=40)
    for number in range(300):
        llm.complete(f"How old is number {number}?")
    assert len(llm._turns._elsewhere) == 256


def test_a_stream_left_early_is_recorded(wrapped: TALELLM, handler: TALEEventHandler) -> None:
    stream = wrapped.stream_complete(QUESTION)
    next(stream)
    stream.close()
    assert [(call.role, call.finish_reason) for call in handler.ledger.calls] == [
        ("estimate", "stop"),
        ("reason", "closed"),
    ]
    assert handler.ledger.calls[1].usage.source == "estimated"


async def test_an_async_stream_left_early_is_recorded(wrapped: TALELLM, handler: TALEEventHandler) -> None:
    stream: Any = await wrapped.astream_chat([user()])
    await anext(stream)
    await stream.aclose()
    assert handler.ledger.calls[1].finish_reason == "closed"


@pytest.mark.parametrize("endpoint", ["chat", "stream_chat"])
async def test_llms_whose_async_calls_the_sync_ones_late_count_once(
    handler: TALEEventHandler, endpoint: str
) -> None:
    answer = await getattr(TALELLM(MockLLM(max_tokens=20), estimator=40), f"a{endpoint}")([user()])
    if endpoint == "stream_chat":
        await drained(answer)
    assert [call.role for call in handler.ledger.calls] == ["reason"]


def test_both_handlers_count_each_call_once(wrapped: TALELLM) -> None:
    with TALEEventHandler() as handler, TALECallbackHandler() as callbacks:
        Settings.llm = wrapped
        Settings.llm.complete(QUESTION)
    assert handler.ledger.calls == callbacks.ledger.calls
    assert [call.role for call in handler.ledger.calls] == ["estimate", "reason"]


# The policy


OVERRUN = "word " * 99


def test_an_overrun_is_asked_again_where_the_policy_says_so(handler: TALEEventHandler) -> None:
    llm = ScriptedLLM(ScriptedModel(OVERRUN, "word " * 50))
    response = TALELLM(llm, estimator=40, policy=BudgetPolicy(on_overrun="retry")).chat([user()])
    assert ["less than 40" in llm.sent[0].text, "less than 80" in llm.sent[1].text] == [True, True]
    assert response.additional_kwargs["tale"]["attempts"] == 2
    assert handler.ledger.totals("reason").output_tokens == 149


def test_a_slip_is_put_right_in_the_second_asking() -> None:
    llm = ScriptedLLM(ScriptedModel("48 + 12 = 50", "48 + 12 = 60"))
    response = TALELLM(llm, estimator=40, policy=BudgetPolicy(on_slip="retry")).chat([user()])
    assert response.message.content == "48 + 12 = 60"
    assert "Note that 48 + 12 = 60.\n\nLet's think" in llm.sent[-1].text


def test_an_overrun_raises_where_the_policy_says_so() -> None:
    llm = TALELLM(
        ScriptedLLM(ScriptedModel(reason=OVERRUN)), estimator=40, policy=BudgetPolicy(on_overrun="raise")
    )
    with pytest.raises(BudgetOverrunError, match="took 99 output tokens with a budget of 40"):
        llm.chat([user()])
    received = []
    with pytest.raises(BudgetOverrunError):
        received.extend(llm.stream_chat([user()]))
    with pytest.raises(BudgetOverrunError):
        received.extend(chunk for chunk in llm.stream_complete(QUESTION))


def test_a_cut_answer_raises_where_the_policy_says_so() -> None:
    cut = ModelReply(text="word", usage=Usage(output_tokens=30), finish_reason="length")
    llm = TALELLM(
        ScriptedLLM(ScriptedModel(reason=cut)), estimator=40, policy=BudgetPolicy(on_truncation="raise")
    )
    with pytest.raises(TruncatedAnswerError):
        llm.complete(QUESTION)


@pytest.mark.parametrize("stream", [False, True])
def test_the_models_exceptions_reach_the_caller_unchanged(stream: bool) -> None:
    llm = TALELLM(ScriptedLLM(ScriptedModel(estimate="[[40]]", reason=ConnectionError("down"))))
    with pytest.raises(ConnectionError, match="down"):
        list(llm.stream_chat([user()])) if stream else llm.chat([user()])


def test_an_answer_that_is_no_response_is_refused() -> None:
    class Odd(ScriptedLLM):
        def chat(self, messages: Any, **kwargs: Any) -> Any:
            return "36"

    with pytest.raises(UnexpectedReplyError, match="got str"):
        TALELLM(Odd(ScriptedModel(reason="36")), estimator=40).chat([user()])


# Tools and agents


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


TOOL = FunctionTool.from_defaults(add)


class Calculating(MockFunctionCallingLLM):
    """Estimates 40, calls the tool on a user's message, and answers on the tool's."""

    def __init__(self) -> None:
        super().__init__(is_chat_model=True)
        object.__setattr__(self, "asked", [])

    def _get_response_generator(self) -> Callable[..., Any]:
        def generate(messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
            self.__dict__["asked"].append((list(messages), kwargs))
            return _calculate(messages, **kwargs)

        return generate


def _calculate(messages: Sequence[ChatMessage], **kwargs: Any) -> ChatMessage | Any:
    from llama_index.core.base.llms.types import ToolCallBlock

    text = messages[-1].content or ""
    if "[[budget]]" in text:
        return ChatMessage(role="assistant", content="[[40]]")
    if messages[-1].role == "tool" or not kwargs.get("tools"):
        return ChatMessage(role="assistant", content="The sum of two and three is five, " * 4)
    block = ToolCallBlock(tool_call_id="1", tool_name="add", tool_kwargs={"a": 2, "b": 3})
    return ChatMessage(role="assistant", blocks=[block])


@pytest.mark.parametrize("streaming", [False, True])
async def test_an_agent_estimates_once_per_turn_and_keeps_the_budget(
    handler: TALEEventHandler, streaming: bool
) -> None:
    inner = Calculating()
    agent = FunctionAgent(tools=[TOOL], llm=TALELLM(inner), streaming=streaming)
    response = await agent.run("How much is 2 + 3?")
    assert "five" in str(response)
    estimate, first, second = inner.__dict__["asked"]
    assert "[[budget]]" in estimate[0][0].content
    assert "tools" not in estimate[1], "the estimator never sees tools"
    for messages, _ in (first, second):
        assert [one.content for one in messages if one.role == "user"] == [f"How much is 2 + 3?\n\n{SENTENCE}"]
    assert [call.role for call in handler.ledger.calls] == ["estimate", "reason", "reason"]
    assert len({call.question_id for call in handler.ledger.calls}) == 1
    assert [call.finish_reason for call in handler.ledger.calls][1] == "tool_calls"


async def test_an_agent_workflow_and_its_memory_never_see_the_budget() -> None:
    memory = ChatMemoryBuffer.from_defaults(token_limit=4000)
    workflow = AgentWorkflow.from_tools_or_functions([TOOL], llm=TALELLM(Calculating()))
    await workflow.run("How much is 2 + 3?", memory=memory)
    assert not any("use less than" in str(message) for message in memory.get_all())


async def test_a_react_agent_does_not_estimate_on_observations(handler: TALEEventHandler) -> None:
    steps = ['Thought: add.\nAction: add\nAction Input: {"a": 2, "b": 3}', "Thought: done.\nAnswer: five"]
    inner = ScriptedLLM(ScriptedModel(*steps, estimate="[[40]]"))
    response = await ReActAgent(tools=[TOOL], llm=TALELLM(inner), streaming=False).run("How much is 2 + 3?")
    assert "five" in str(response)
    assert [sent.estimates for sent in inner.sent] == [True, False, False]
    assert all(SENTENCE in sent.text for sent in inner.sent[1:])


def test_the_result_of_a_code_agents_code_belongs_to_its_turn(
    wrapped: TALELLM, llm: ScriptedLLM, handler: TALEEventHandler
) -> None:
    wrapped.chat([user()])
    code = ChatMessage(role="assistant", content="<execute>print(2026 - 1990)</execute>")
    wrapped.chat([user(), code, user("Result of executing the code given:\n\n36")])
    assert [sent.estimates for sent in llm.sent] == [True, False, False]
    assert {call.budget for call in handler.ledger.calls if call.role == "reason"} == {40}


def test_a_user_may_begin_with_the_word_of_an_agent(wrapped: TALELLM, llm: ScriptedLLM) -> None:
    wrapped.chat([user("Observation: Ann is 36. How old was she last year?")])
    assert [sent.estimates for sent in llm.sent] == [True, False]


@pytest.mark.parametrize(
    "forced",
    [
        {"tool_required": True},
        {"tool_choice": "required"},
        {"tool_choice": "add"},
        {"tool_choice": {"type": "function", "function": {"name": "add"}}},
        {"tool_choice": {"any": {}}},
    ],
)
def test_a_forced_tool_call_is_made_as_it_is(forced: dict[str, Any]) -> None:
    class Choosing(Calculating):
        def _prepare_chat_with_tools(
            self, *args: Any, tool_choice: Any = None, **kwargs: Any
        ) -> dict[str, Any]:
            prepared = super()._prepare_chat_with_tools(*args, **kwargs)
            return {**prepared, "tool_choice": tool_choice} if tool_choice else prepared

    inner = Choosing()
    TALELLM(inner).chat_with_tools([TOOL], user_msg="How much is 2 + 3?", **forced)
    ((messages, kwargs),) = inner.__dict__["asked"]
    assert messages[-1].content == "How much is 2 + 3?"
    assert "tale_forced_tool" not in kwargs


def test_tool_calls_are_read_as_the_llm_inside_reads_them() -> None:
    response = TALELLM(Calculating(), estimator=40).chat_with_tools([TOOL], user_msg="How much is 2 + 3?")
    (call,) = TALELLM(Calculating(), estimator=40).get_tool_calls_from_response(response)
    assert (call.tool_name, call.tool_kwargs) == ("add", {"a": 2, "b": 3})
    assert "5" in str(
        TALELLM(Calculating(), estimator=40).predict_and_call([TOOL], user_msg="How much is 2 + 3?")
    )


def test_an_llm_without_tools_says_so() -> None:
    assert not TALELLM(MockLLM()).metadata.is_function_calling_model
    with pytest.raises(NotAChatModelError, match="MockLLM cannot call tools"):
        TALELLM(MockLLM()).chat_with_tools([TOOL], user_msg="How much is 2 + 3?")
    assert not hasattr(TALEPlainLLM(MockLLM()), "chat_with_tools")


# Structured output


class Age(BaseModel):
    """Somebody's age."""

    years: int


class Native(ScriptedLLM):
    """Keeps its own way to structured output."""

    def structured_predict(
        self, output_cls: Any, prompt: Any, llm_kwargs: Any = None, **prompt_args: Any
    ) -> Any:
        messages = self._extend_messages(prompt.format_messages(**prompt_args))
        response = self.chat(messages, response_format="native", **(llm_kwargs or {}))
        return output_cls.model_validate_json(response.message.content)

    async def astructured_predict(
        self, output_cls: Any, prompt: Any, llm_kwargs: Any = None, **prompt_args: Any
    ) -> Any:
        messages = self._extend_messages(prompt.format_messages(**prompt_args))
        response = await self.achat(messages, response_format="native", **(llm_kwargs or {}))
        return output_cls.model_validate_json(response.message.content)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_structured_output_keeps_the_native_path(handler: TALEEventHandler, asynchronous: bool) -> None:
    inner = Native(ScriptedModel(estimate="[[40]]", reason='{"years": 36}'), system_prompt="Be exact.")
    llm, prompt = TALELLM(inner), PromptTemplate("Query: {query_str} {not_a_variable}")
    if asynchronous:
        age = await llm.astructured_predict(Age, prompt, query_str=QUESTION)
    else:
        age = llm.structured_predict(Age, prompt, query_str=QUESTION)
    assert age == Age(years=36)
    estimate, reason = inner.sent
    assert estimate.text.endswith(f"Question: {QUESTION}")
    assert reason.messages == (
        ("system", "Be exact."),
        ("user", f"Query: {QUESTION} {{not_a_variable}}\n\n{SENTENCE}"),
    )
    assert reason.kwargs == {"response_format": "native"}
    assert [(call.role, call.budget) for call in handler.ledger.calls] == [("estimate", None), ("reason", 40)]


def test_a_structured_llm_around_it_works_and_counts_once(handler: TALEEventHandler) -> None:
    llm = TALELLM(ScriptedLLM(ScriptedModel(estimate="[[40]]", reason='{"years": 36}')))
    assert llm.as_structured_llm(Age).chat([user()]).raw == Age(years=36)
    assert [call.role for call in handler.ledger.calls] == ["estimate", "reason"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_structured_streams_are_recorded(handler: TALEEventHandler, asynchronous: bool) -> None:
    llm = TALELLM(ScriptedLLM(ScriptedModel(estimate="[[40]]", reason='{"years": 36}')))
    prompt = PromptTemplate("{query_str}")
    if asynchronous:
        parts = await drained(await llm.astream_structured_predict(Age, prompt, query_str=QUESTION))
    else:
        parts = list(llm.stream_structured_predict(Age, prompt, query_str=QUESTION))
    assert parts[-1].years == 36
    assert [(call.role, call.budget) for call in handler.ledger.calls] == [("estimate", None), ("reason", 40)]


async def test_structured_output_of_a_query_with_a_budget_is_asked_as_it_is() -> None:
    inner = ScriptedLLM(ScriptedModel(estimate="[[40]]", reason='{"years": 36}'))
    llm, prompt = TALELLM(inner), PromptTemplate(TALEQueryTransform(inner).run(QUESTION).query_str)
    assert llm.structured_predict(Age, prompt) == Age(years=36)
    assert await llm.astructured_predict(Age, prompt) == Age(years=36)
    assert [*llm.stream_structured_predict(Age, prompt)][-1].years == 36
    assert (await drained(await llm.astream_structured_predict(Age, prompt)))[-1].years == 36
    assert [sent.estimates for sent in inner.sent] == [True, False, False, False, False]
    assert {sent.text.count("use less than") for sent in inner.sent[1:]} == {1}


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_structured_output_that_overruns_is_asked_again(asynchronous: bool) -> None:
    long = '{"years": 36}' + " " * 5 + "word " * 99
    inner = Native(ScriptedModel(long, '{"years": 36}'))
    inner_parse = Age.model_validate_json

    class Lenient(Age):
        @classmethod
        def model_validate_json(cls, json_data: Any, **kwargs: Any) -> Any:
            return inner_parse(json_data.partition("}")[0] + "}")

    llm = TALELLM(inner, estimator=40, policy=BudgetPolicy(on_overrun="retry"))
    if asynchronous:
        await llm.astructured_predict(Lenient, PromptTemplate(QUESTION))
    else:
        llm.structured_predict(Lenient, PromptTemplate(QUESTION))
    assert ["less than 40" in inner.sent[0].text, "less than 80" in inner.sent[1].text] == [True, True]


# In an engine, and in Settings


def test_an_engine_estimates_once_for_a_query_and_attributes_every_call(
    index: VectorStoreIndex, llm: ScriptedLLM, handler: TALEEventHandler
) -> None:
    engine = index.as_query_engine(llm=TALELLM(llm), response_mode="refine", similarity_top_k=3)
    engine.query(QUESTION)
    engine.query(QUESTION)
    assert [sent.estimates for sent in llm.sent] == [True, False, False, False] * 2
    assert len({call.question_id for call in handler.ledger.calls}) == 2


async def test_an_engine_streams(index: VectorStoreIndex, llm: ScriptedLLM) -> None:
    engine = index.as_query_engine(llm=TALELLM(llm), streaming=True)
    response: Any = await engine.aquery(QUESTION)
    assert "".join(await drained(response.async_response_gen())) == ANSWER


def test_one_event_per_call_and_upstream_counts_right(llm: ScriptedLLM, index: VectorStoreIndex) -> None:
    counter, debug = TokenCountingHandler(), LlamaDebugHandler(print_trace_on_end=False)
    Settings.callback_manager = CallbackManager([counter, debug])
    Settings.llm = TALELLM(llm)
    index.as_query_engine().query(QUESTION)
    assert len(debug.get_event_pairs(CBEventType.LLM)) == 2
    assert counter.completion_llm_token_count == 16 + 1


def test_what_is_set_on_the_wrapper_is_set_inside(wrapped: TALELLM, llm: ScriptedLLM) -> None:
    wrapped.callback_manager = manager = CallbackManager([])
    wrapped.system_prompt = "Be kind."
    assert llm.callback_manager is manager
    assert llm.system_prompt == "Be kind."


def test_the_system_prompt_inside_reaches_predictions() -> None:
    inner = ScriptedLLM(ScriptedModel(reason="36"), system_prompt="Be kind.")
    TALELLM(inner, estimator=40).predict(PromptTemplate("{query_str}"), query_str=QUESTION)
    assert inner.sent[0].messages == (("system", "Be kind."), ("user", FRAMED))


def test_a_rate_limiter_is_asked_once_per_call(llm: ScriptedLLM) -> None:
    class Counting(BaseRateLimiter):
        asked = 0

        def acquire(self, num_tokens: int = 0) -> None:
            self.asked += 1

        async def async_acquire(self, num_tokens: int = 0) -> None:
            self.asked += 1

    wrapped = TALELLM(llm)
    wrapped.rate_limiter = limiter = Counting()
    wrapped.chat([user()])
    assert limiter.asked == 2, "the estimate and the answer"


def test_it_shows_what_the_llm_inside_is(wrapped: TALELLM, llm: ScriptedLLM) -> None:
    assert wrapped.metadata == llm.metadata
    assert wrapped.temperature == 0.1
    assert wrapped.to_payload() == {**llm.to_payload(), "class_name": "TALELLM"}
    with pytest.raises(AttributeError, match="no_such_thing"):
        wrapped.no_such_thing  # noqa: B018


def test_it_can_be_copied_and_pickled(caplog: pytest.LogCaptureFixture) -> None:
    llm = TALELLM(MockLLM(), estimator=40)
    llm.complete("A turn is under way.")
    with caplog.at_level(logging.WARNING):
        for copied in (copy.deepcopy(llm), pickle.loads(pickle.dumps(llm)), copy.copy(llm)):  # noqa: S301
            assert copied.complete(QUESTION).text == FRAMED
    assert not caplog.records


def test_nothing_shows_the_key() -> None:
    inner = pytest.importorskip("llama_index.llms.openai").OpenAI(model="gpt-4o-mini", api_key="sk-secret")
    llm = TALELLM(inner)
    assert "sk-secret" not in f"{llm!r}{llm}{llm.to_payload()}"
    assert repr(llm) == "TALELLM(OpenAI('gpt-4o-mini'), estimator='zero-shot', strategy='tale')"


def test_a_calibration_is_found_by_the_name_inside() -> None:
    llm = ScriptedLLM(ScriptedModel(reason="."), model_name="qwen2.5-coder-1.5b-instruct-q4_k_m")
    assert "strategy='exemplars'" in repr(TALELLM(llm))


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"estimator": 0}, "at least 1, got 0"),
        ({"strategy": "tail"}, "'tail'"),
        ({"reasoning_control": "natve"}, "'natve'"),
    ],
)
def test_bad_values_fail_at_construction(options: dict[str, Any], shown: str) -> None:
    with pytest.raises(InvalidValueError, match=shown):
        TALELLM(MockLLM(), **options)
