"""Tracers see two model runs with a usage each, told apart by their labels; nothing else carries a usage."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
import requests
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tracers import LangChainTracer
from langsmith import Client
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tale_core import Ledger, OpenTelemetrySink
from tale_langchain import ChatTALE, TALECallbackHandler, TALERunnable

if TYPE_CHECKING:
    from scripted_chat_model import ScriptedChatModel

Ask = Callable[..., Awaitable[AIMessage]]

QUESTION = "How many eggs are in four dozen?"


class LangSmith(requests.Session):
    """LangSmith's server, as the client sees it; keeps the runs as they stand in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, dict[str, Any]] = {}

    def request(self, method: Any, url: Any, *args: Any, data: Any = None, **kwargs: Any) -> requests.Response:
        if "/runs" in url and data:
            sent = json.loads(data)
            run_id = sent.get("id") or url.rpartition("/")[2]
            self.runs.setdefault(run_id, {}).update({k: v for k, v in sent.items() if v is not None})
        response = requests.Response()
        response.status_code, response._content = 200, b"{}"
        return response

    def of_type(self, run_type: str) -> list[dict[str, Any]]:
        return [run for run in self.runs.values() if run["run_type"] == run_type]


def usage_of(run: dict[str, Any]) -> dict[str, Any] | None:
    """Read a run's usage where LangSmith reads it: in its metadata, or at the top of its outputs."""
    outputs, metadata = run.get("outputs") or {}, run.get("extra", {}).get("metadata") or {}
    return outputs.get("usage_metadata") or metadata.get("usage_metadata")


@pytest.fixture
def langsmith() -> LangSmith:
    return LangSmith()


@pytest.fixture
def tracer(langsmith: LangSmith) -> LangChainTracer:
    client = Client(
        api_url="http://langsmith.invalid", api_key="none", session=langsmith, auto_batch_tracing=False, info={}
    )
    return LangChainTracer(client=client, project_name="tests")


async def test_the_two_model_runs_alone_carry_a_usage_and_the_totals_are_not_doubled(
    ask: Ask, tale: TALERunnable, tracer: LangChainTracer, langsmith: LangSmith, handler: TALECallbackHandler
) -> None:
    chain = ChatPromptTemplate.from_template("{q}") | tale
    await ask(chain, {"q": QUESTION}, {"callbacks": [tracer, handler], "metadata": {"team": "a"}})
    used = {name: usage_of(run) for name, run in langsmith.runs.items() if usage_of(run)}
    assert sorted(used) == sorted(run["id"] for run in langsmith.of_type("llm"))
    assert len(used) == 2
    total = handler.ledger.totals()
    assert sum(usage["output_tokens"] for usage in used.values() if usage) == total.output_tokens
    assert sum(usage["input_tokens"] for usage in used.values() if usage) == total.input_tokens
    assert all(run["extra"]["metadata"]["team"] == "a" for run in langsmith.runs.values())


async def test_labels_tell_the_estimate_from_the_answer_and_name_the_budget(
    ask: Ask, tale: TALERunnable, tracer: LangChainTracer, langsmith: LangSmith
) -> None:
    await ask(tale, QUESTION, {"callbacks": [tracer]})
    runs = {run["extra"]["metadata"]["tale_role"]: run for run in langsmith.of_type("llm")}
    estimate, reason = runs["estimate"], runs["reason"]
    assert estimate["name"] == "tale_estimator"
    assert {"nostream", "tale:estimator"} <= set(estimate["tags"])
    assert estimate["extra"]["metadata"]["lc_source"] == "tale_estimator"
    assert "tale_budget" not in estimate["extra"]["metadata"]
    labels = {"tale_role": "reason", "tale_budget": 40, "tale_control": "prompt"}
    assert labels.items() <= reason["extra"]["metadata"].items()
    assert "tale:estimator" not in reason.get("tags", ())


async def test_the_runs_are_one_tree(
    ask: Ask, tale: TALERunnable, tracer: LangChainTracer, langsmith: LangSmith
) -> None:
    await ask(tale, QUESTION, {"callbacks": [tracer]})
    (root,) = langsmith.of_type("chain")
    assert {run["trace_id"] for run in langsmith.runs.values()} == {root["id"]}
    assert [run["parent_run_id"] for run in langsmith.of_type("llm")] == [root["id"], root["id"]]


async def test_a_chat_model_is_one_run_with_the_usage_of_the_answer(
    ask: Ask, model: ScriptedChatModel, tracer: LangChainTracer, langsmith: LangSmith
) -> None:
    answer = await ask(ChatTALE(model), QUESTION, {"callbacks": [tracer]})
    (run,) = langsmith.runs.values()
    usage = usage_of(run)
    assert run["run_type"] == "llm"
    assert usage is not None
    assert answer.usage_metadata is not None
    assert usage["output_tokens"] == answer.usage_metadata["output_tokens"]


async def test_opentelemetry_counts_each_call_once_whatever_the_way_to_ask(
    ask: Ask, tale: TALERunnable
) -> None:
    reader, spans, tracers = InMemoryMetricReader(), InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    sink = OpenTelemetrySink(meter_provider=MeterProvider([reader]))
    handler = TALECallbackHandler(Ledger(sinks=[sink]))
    with tracers.get_tracer("app").start_as_current_span("request"):
        await ask(tale, QUESTION, {"callbacks": [handler]})
    data = reader.get_metrics_data()
    assert data is not None
    metrics = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    counted = {
        (point.attributes["tale.role"], point.attributes["gen_ai.token.type"]): point.sum
        for point in metrics["gen_ai.client.token.usage"].data.data_points
    }
    for role in ("estimate", "reason"):
        total = handler.ledger.totals(role)
        assert (counted[role, "input"], counted[role, "output"]) == (total.input_tokens, total.output_tokens)
    (request,) = spans.get_finished_spans()
    assert [event.name for event in request.events] == ["tale.usage", "tale.budget", "tale.usage"]
