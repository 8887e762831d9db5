"""What the OpenAI integration sends when a TALELLM is around it, and what it makes of the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI
from pydantic import BaseModel
from recording import Recorder, chat_completion

from tale_core import BudgetPolicy, Usage
from tale_llamaindex import TALELLM, TALEEventHandler

if TYPE_CHECKING:
    from pytest_httpserver import HTTPServer

QUESTION = "How many eggs are in four dozen?"
FRAMED = f"{QUESTION}\n\nLet's think step by step and use less than 60 tokens:"


@pytest.fixture
def server(httpserver: HTTPServer, loopback: str) -> Recorder:
    return Recorder(httpserver)


def openai(server: Recorder, name: str = "gpt-4o-mini", **fields: Any) -> OpenAI:
    return OpenAI(model=name, api_base=server.url, api_key="none", max_retries=0, **fields)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_two_requests_and_a_measured_ledger(
    server: Recorder, handler: TALEEventHandler, asynchronous: bool
) -> None:
    server.will_answer(chat_completion("[[60]]", output=9), chat_completion("4 x 12 = 48. " * 5, output=40))
    llm = TALELLM(openai(server, temperature=0.7, max_tokens=500))
    messages = [ChatMessage(QUESTION)]
    response = await llm.achat(messages) if asynchronous else llm.chat(messages)
    assert "48" in (response.message.content or "")
    assert (server.estimate["temperature"], server.estimate["max_tokens"]) == (0.0, 64)
    assert (server.reason["temperature"], server.reason["max_tokens"]) == (0.7, 500)
    assert server.reason["messages"] == [{"role": "user", "content": FRAMED}]
    assert [call.usage for call in handler.ledger.calls] == [
        Usage(input_tokens=30, output_tokens=9),
        Usage(input_tokens=30, output_tokens=40),
    ]


def test_a_model_that_thinks_gets_its_own_control_and_the_question_alone(
    server: Recorder, handler: TALEEventHandler
) -> None:
    server.will_answer(chat_completion("[[60]]", output=9), chat_completion("48", output=90, thinking=64))
    response = TALELLM(openai(server, "gpt-5-mini")).chat([ChatMessage(QUESTION)])
    assert server.reason["reasoning_effort"] == "minimal"
    assert server.reason["messages"] == [{"role": "user", "content": QUESTION}]
    assert response.additional_kwargs["tale"]["reasoning_control"] == "effort"
    assert handler.ledger.calls[1].usage.reasoning_tokens == 64
    assert handler.ledger.budgets[0].control == "effort"


class Eggs(BaseModel):
    """How many."""

    count: int


def test_structured_output_goes_by_response_format(server: Recorder, handler: TALEEventHandler) -> None:
    server.will_answer(chat_completion("[[60]]", output=9), chat_completion('{"count": 48}', output=12))
    llm = TALELLM(openai(server), policy=BudgetPolicy(collapse_below=0))
    assert llm.structured_predict(Eggs, PromptTemplate("{query_str}"), query_str=QUESTION) == Eggs(count=48)
    assert server.reason["response_format"]["type"] == "json_schema"
    assert server.reason["messages"] == [{"role": "user", "content": FRAMED}]
    assert [(call.role, call.budget) for call in handler.ledger.calls] == [("estimate", None), ("reason", 60)]


def test_tools_are_sent_as_the_integration_sends_them(server: Recorder) -> None:
    server.will_answer(chat_completion("[[60]]", output=9), chat_completion("48", output=40))
    tool = FunctionTool.from_defaults(lambda dozens: 12 * dozens, name="eggs", description="Counts eggs.")
    TALELLM(openai(server)).chat_with_tools([tool], user_msg=QUESTION)
    assert "tools" not in server.estimate
    assert server.reason["tools"][0]["function"]["name"] == "eggs"
    assert server.reason["messages"] == [{"role": "user", "content": FRAMED}]


def test_a_forced_tool_call_is_one_request_as_it_is(server: Recorder) -> None:
    server.will_answer(chat_completion("48", output=40))
    tool = FunctionTool.from_defaults(lambda dozens: 12 * dozens, name="eggs", description="Counts eggs.")
    TALELLM(openai(server)).chat_with_tools([tool], user_msg=QUESTION, tool_required=True)
    assert server.reason["tool_choice"] == "required"
    assert server.reason["messages"] == [{"role": "user", "content": QUESTION}]
