"""What may be given as a model: opened, refused with a reason, and rebuilt for the estimator."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel, FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, Runnable, RunnableLambda, RunnablePassthrough
from pydantic import BaseModel
from scripted_chat_model import ScriptedChatModel

import tale_core.local
from tale_core import (
    InvalidValueError,
    MissingExtraError,
    NotAChatModelError,
    UnexpectedReplyError,
    UnknownModelError,
)
from tale_core.testing import ScriptedModel
from tale_core.types import ModelReply, Usage
from tale_langchain import TALECallbackHandler, TALERunnable

QUESTION = "How many eggs are in four dozen?"

Ask = Callable[..., Awaitable[AIMessage]]


def count(number: int) -> int:
    """Count something."""
    return number


def failing() -> ScriptedChatModel:
    return ScriptedChatModel(ScriptedModel(estimate=ConnectionError("down"), reason=ConnectionError("down")))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: model.bind(stop=["END"]),
        lambda model: model.with_config(tags=["mine"]),
        lambda model: model.with_retry(stop_after_attempt=2),
        lambda model: failing().with_fallbacks([model]),
        lambda model: model.bind(stop=["END"]).with_retry().with_fallbacks([failing()]),
        lambda model: model.configurable_fields(temperature=ConfigurableField(id="temperature")),
        lambda model: (
            failing()
            .configurable_alternatives(ConfigurableField(id="which"), default_key="down", up=model)
            .with_config(configurable={"which": "up"})
        ),
        lambda model: RunnableLambda(model.invoke),
        lambda model: RunnablePassthrough() | model,
    ],
    ids=[
        "bind",
        "config",
        "retry",
        "fallbacks",
        "nested",
        "fields",
        "alternatives",
        "lambda",
        "sequence",
    ],
)
async def test_any_runnable_that_answers_like_a_chat_model_will_do(
    ask: Ask, model: ScriptedChatModel, wrap: Callable[[Any], Runnable[Any, Any]], handler: TALECallbackHandler
) -> None:
    tale = TALERunnable(wrap(model), estimator=40)
    answer = await ask(tale, QUESTION, {"callbacks": [handler]})
    assert answer.text.startswith("Four dozen")
    assert answer.response_metadata["tale"]["budget"] == 40
    assert "use less than 40 tokens" in model.sent[-1].text


async def test_the_estimator_keeps_retries_and_fallbacks(ask: Ask, model: ScriptedChatModel) -> None:
    answer = await ask(TALERunnable(failing().with_fallbacks([model])), QUESTION)
    assert answer.response_metadata["tale"]["source"] == "zero-shot"
    assert [sent.estimates for sent in model.sent] == [True, False]


def test_a_retry_of_the_model_retries_the_estimate_too() -> None:
    model = ScriptedChatModel(
        ScriptedModel(ConnectionError("once"), "[[40]]", ConnectionError("once"), "48 eggs")
    )
    tale = TALERunnable(model.with_retry(wait_exponential_jitter=False))
    assert tale.invoke(QUESTION).response_metadata["tale"]["budget"] == 40
    assert len(model.sent) == 4


def test_the_estimator_sees_no_tool_and_no_form_of_the_answer(model: ScriptedChatModel) -> None:
    bound = model.bind_tools([count], tool_choice="any").bind(stop=["END"], response_format={}, user="ann")
    TALERunnable(bound).invoke(QUESTION)
    estimate, reason = model.sent
    assert estimate.kwargs == {"user": "ann"}
    assert set(reason.kwargs) == {"tools", "tool_choice", "stop", "response_format", "user"}


def test_the_estimator_is_cold_and_short_and_the_users_model_untouched() -> None:
    model = ScriptedChatModel(ScriptedModel(estimate="[[40]]", reason="48"), temperature=0.9, max_tokens=700)
    TALERunnable(model.bind(temperature=0.8)).invoke(QUESTION)
    estimate, reason = model.sent
    assert estimate.settings == {"temperature": 0.0, "max_tokens": 64}
    assert estimate.kwargs == {"temperature": 0.0}
    assert reason.settings == {"temperature": 0.9, "max_tokens": 700}
    assert reason.kwargs == {"temperature": 0.8}


def test_a_model_without_such_settings_estimates_as_it_is() -> None:
    tale = TALERunnable(FakeListChatModel(responses=["[[40]]", "48"]))
    assert tale.invoke(QUESTION).text == "48"


def test_tools_are_bound_to_the_model_alone(model: ScriptedChatModel, handler: TALECallbackHandler) -> None:
    tale = TALERunnable(model.with_retry(), strategy="essential").bind_tools([count])
    answer = tale.invoke(QUESTION, {"callbacks": [handler]})
    assert [list(sent.kwargs) for sent in model.sent] == [[], ["tools"]]
    assert answer.response_metadata["tale"]["strategy"] == "essential"


def test_an_answer_that_calls_a_tool_is_no_measure_of_the_budget(handler: TALECallbackHandler) -> None:
    call = AIMessage("", tool_calls=[{"name": "count", "args": {"number": 4}, "id": "1"}])
    usage = Usage(input_tokens=5, output_tokens=4)
    reply = ModelReply(text="", usage=usage, native=call)
    tale = TALERunnable(ScriptedChatModel(ScriptedModel(estimate="[[40]]", reason=reply))).bind_tools([count])
    answer = tale.invoke(QUESTION, {"callbacks": [handler]})
    assert answer.tool_calls == call.tool_calls
    assert handler.ledger.calls[-1].finish_reason == "tool_calls"
    assert handler.ledger.events == ()


class Eggs(BaseModel):
    """How many eggs."""

    number: int


def eggs() -> ScriptedChatModel:
    call = AIMessage("", tool_calls=[{"name": "Eggs", "args": {"number": 48}, "id": "1"}])
    return ScriptedChatModel(ScriptedModel(estimate="[[40]]", reason=ModelReply(text="", native=call)))


async def test_structured_output_is_asked_for_under_a_budget(ask: Ask, handler: TALECallbackHandler) -> None:
    model = eggs()
    structured = TALERunnable(model).with_structured_output(Eggs)
    assert await ask(structured, QUESTION, {"callbacks": [handler]}) == Eggs(number=48)
    assert [sent.estimates for sent in model.sent] == [True, False]
    assert model.sent[-1].text.endswith("use less than 40 tokens:")
    assert handler.ledger.count("reason") == 1


def test_structured_output_keeps_the_raw_message_with_its_accounts() -> None:
    structured = TALERunnable(eggs()).with_structured_output(Eggs, include_raw=True)
    result = structured.invoke(QUESTION)
    assert result["parsed"] == Eggs(number=48)
    assert result["raw"].response_metadata["tale"]["budget"] == 40


def test_structured_output_falls_back_as_the_model_does() -> None:
    structured = TALERunnable(failing().with_fallbacks([eggs()])).with_structured_output(Eggs)
    assert structured.invoke(QUESTION) == Eggs(number=48)


def test_a_model_that_binds_no_tools_says_so() -> None:
    tale = TALERunnable(RunnableLambda(lambda _: AIMessage("48")))
    with pytest.raises(NotAChatModelError, match="RunnableLambda has no bind_tools"):
        tale.bind_tools([count])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (object(), r"got object; pass a LangChain chat model"),
        (None, r"got NoneType"),
        (FakeListLLM(responses=["48"]), r"FakeListLLM answers with str"),
        (FakeListLLM(responses=["48"]).bind(stop=["x"]), r"FakeListLLM answers with str"),
        (ChatPromptTemplate.from_template("{q}"), r"ChatPromptTemplate answers with"),
        (FakeListChatModel(responses=["48"]) | StrOutputParser(), r"prompt \| TALERunnable\(model\) \| parser"),
        (ChatPromptTemplate.from_template("{q}") | FakeListChatModel(responses=["48"]), r"takes a dict; leave"),
    ],
    ids=["object", "None", "completion", "bound completion", "prompt", "model and parser", "prompt and model"],
)
def test_what_is_no_chat_model_is_refused_with_what_to_do(model: Any, message: str) -> None:
    with pytest.raises(NotAChatModelError, match=message):
        TALERunnable(model)


async def test_an_answer_that_is_no_message_is_an_error_that_says_what_to_do(ask: Ask) -> None:
    tale = TALERunnable(RunnableLambda(lambda _: "48"), estimator=40)
    with pytest.raises(UnexpectedReplyError, match=r"got str; .* TALERunnable\(model\) \| parser"):
        await ask(tale, QUESTION)


async def test_an_estimate_that_is_no_message_falls_back(ask: Ask, model: ScriptedChatModel) -> None:
    answer = await ask(TALERunnable(model, estimator=RunnableLambda(lambda _: "[[40]]")), QUESTION)
    assert answer.response_metadata["tale"]["source"] == "fallback"


def test_a_model_may_be_named(monkeypatch: pytest.MonkeyPatch, loopback: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    tale = TALERunnable("openai:gpt-4o-mini", estimator="openai:gpt-4.1-nano")
    assert repr(tale) == "TALERunnable(model='gpt-4o-mini', estimator='zero-shot', strategy='tale')"


@pytest.mark.parametrize("name", ["nonsense", "nobody:gpt-4o-mini", "openai:", ""])
def test_an_unknown_name_is_answered_with_the_known_kinds(name: str) -> None:
    with pytest.raises(UnknownModelError, match=rf"no model '{name}'.*'provider:model'.*'local'.*URL"):
        TALERunnable(name)


@pytest.mark.parametrize("name", ["openai:gpt-4o-mini", "gpt-4o-mini", "google_genai:gemini-2.5-flash"])
def test_a_provider_without_its_key_is_answered_with_the_variable(
    monkeypatch: pytest.MonkeyPatch, loopback: str, name: str
) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(InvalidValueError, match=rf"'{name}'.*_API_KEY.*'local'"):
        TALERunnable(name)


def test_an_embedded_model_that_does_not_exist_is_answered_with_those_that_do() -> None:
    with pytest.raises(UnknownModelError, match=r"'nope'.*smollm2-135m-instruct-q4_1"):
        TALERunnable("local:nope")


def test_one_of_the_models_of_a_server_may_be_named(monkeypatch: pytest.MonkeyPatch, loopback: str) -> None:
    monkeypatch.setenv("TALE_API_KEY", "sk-server")
    chat: Any = TALERunnable("http://127.0.0.1:9#meta/llama").model
    assert (chat.openai_api_base, chat.model_name) == ("http://127.0.0.1:9/v1", "meta/llama")
    assert chat.openai_api_key.get_secret_value() == "sk-server"


def test_a_provider_without_its_package_is_answered_with_the_package() -> None:
    with pytest.raises(UnknownModelError, match=r"cannot open 'upstage:solar'.*pip install langchain-upstage"):
        TALERunnable("upstage:solar")


@pytest.mark.parametrize(
    ("missing", "model"), [("langchain.chat_models", "openai:gpt-4o-mini"), ("langchain_openai", "http://x/v1")]
)
def test_a_missing_extra_is_answered_with_its_command(
    monkeypatch: pytest.MonkeyPatch, missing: str, model: str
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith(missing):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, missing, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'tale-reasoning\[langchain\]'"):
        TALERunnable(model)


def test_local_is_the_embedded_model(monkeypatch: pytest.MonkeyPatch, loopback: str) -> None:
    class Server:
        base_url = "http://127.0.0.1:9/v1"
        model = "qwen2.5-coder-1.5b-instruct-q4_k_m"
        api_key = "of this server"

    monkeypatch.setattr(tale_core.local, "serve", lambda *_, **__: Server)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    tale = TALERunnable("local")
    chat: Any = tale.model
    assert (chat.openai_api_base, chat.model_name, chat.stream_usage) == (Server.base_url, Server.model, True)
    assert chat.openai_api_key.get_secret_value() == "of this server"
    assert "of this server" not in repr(tale) + repr(chat)
    assert "estimator='fixed'" in repr(tale)


def test_history_as_one_message_is_still_a_list(tale: TALERunnable) -> None:
    assert tale.invoke([HumanMessage(QUESTION)]).text.startswith("Four dozen")
