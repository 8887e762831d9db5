"""A real model over real HTTP: what no fake can promise about usage, streams and requests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.query_engine import TransformQueryEngine
from llama_index.llms.openai_like import OpenAILike

from tale_core import ZeroShotEstimator
from tale_llamaindex import TALELLM, TALEEventHandler, TALEQueryEngine, TALEQueryTransform
from tale_llamaindex._setup import open_llm

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

    from tale_core.local import LocalServer

pytestmark = pytest.mark.model

# The model's own calibration names a budget, so that nothing would be estimated.
AS_PUBLISHED: dict[str, Any] = {"estimator": ZeroShotEstimator(), "strategy": "tale"}


@pytest.fixture(scope="module")
def real(small_model: LocalServer) -> LLM:
    return OpenAILike(
        model=small_model.model,
        api_base=small_model.base_url,
        api_key=small_model.api_key,
        is_chat_model=True,
        context_window=2048,
        temperature=0.0,
        max_tokens=12,
        timeout=300.0,
        additional_kwargs={"stream_options": {"include_usage": True}},
    )


def engine(llm: LLM, **options: Any) -> TransformQueryEngine:
    index = VectorStoreIndex.from_documents(
        [Document(text="Ann was born in 1990.")], embed_model=MockEmbedding(8)
    )
    return TransformQueryEngine(
        index.as_query_engine(llm=llm, **options), TALEQueryTransform(llm, **AS_PUBLISHED)
    )


def test_a_query_is_measured_by_the_server(real: LLM, handler: TALEEventHandler) -> None:
    assert str(engine(real).query("When was Ann born?")).strip()
    estimate, reason = handler.ledger.calls
    assert (estimate.role, reason.role) == ("estimate", "reason")
    for call in (estimate, reason):
        assert call.usage.source == "measured"
        assert call.usage.output_tokens > 0
        assert call.model
    assert estimate.usage.input_tokens < reason.usage.input_tokens


def test_a_stream_costs_what_its_answer_costs(real: LLM, handler: TALEEventHandler) -> None:
    plain = str(engine(real).query("When was Ann born?"))
    streamed = "".join(engine(real, streaming=True).query("When was Ann born?").response_gen)
    first, second = (call for call in handler.ledger.calls if call.role == "reason")
    assert second.usage.source == "measured"
    assert (streamed == plain) == (second.usage.output_tokens == first.usage.output_tokens)
    assert second.finish_reason in {"stop", "length"}


def test_a_stream_left_early_is_an_estimate(real: LLM, handler: TALEEventHandler) -> None:
    stream: Any = engine(real, streaming=True).query("When was Ann born?").response_gen
    next(stream)
    stream.close()
    call = handler.ledger.calls[-1]
    assert (call.usage.source, call.finish_reason) == ("estimated", "closed")


async def test_concurrent_questions_keep_their_calls(real: LLM, handler: TALEEventHandler) -> None:
    transform = TALEQueryTransform(real, **AS_PUBLISHED)
    bundles = await asyncio.gather(*(transform.arun(f"How much is {n} + 1?") for n in range(3)))
    await asyncio.gather(*(real.acomplete(bundle.query_str) for bundle in bundles))
    by_question: dict[str, list[str]] = {}
    for call in handler.ledger.calls:
        by_question.setdefault(call.question_id, []).append(call.role)
    assert list(by_question.values()) == [["estimate", "reason"]] * 3


def test_a_url_opens_the_model_behind_it(small_model: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALE_API_KEY", small_model.api_key)
    llm = open_llm(small_model.base_url)
    assert llm.metadata.model_name
    assert "How old?" in TALEQueryTransform(llm).run("How old?").query_str


async def test_a_wrapped_llm_asks_streams_and_is_measured(real: LLM, handler: TALEEventHandler) -> None:
    llm = TALELLM(real, estimator=40)
    response = await llm.acomplete("How much is 2 + 3?")
    assert response.additional_kwargs["tale"]["budget"] == 40
    *_, last = llm.stream_complete("How much is 2 + 3?")
    assert last.additional_kwargs["tale"]["reason_usage"]["source"] == "measured"
    assert [(call.role, call.usage.source) for call in handler.ledger.calls] == [("reason", "measured")] * 2


async def test_an_engine_estimates_and_answers(real: LLM, handler: TALEEventHandler) -> None:
    index = VectorStoreIndex.from_documents(
        [Document(text="Ann was born in 1990.")], embed_model=MockEmbedding(8)
    )
    response = await TALEQueryEngine(index.as_query_engine(llm=real), **AS_PUBLISHED).aquery(
        "When was Ann born?"
    )
    assert str(response).strip()
    assert [(call.role, call.usage.source) for call in handler.ledger.calls] == [
        ("estimate", "measured"),
        ("reason", "measured"),
    ]
