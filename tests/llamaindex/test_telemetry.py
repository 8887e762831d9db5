"""What LlamaIndex's calls cost reaches OpenTelemetry and the log through the handlers' ledger, once each."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tale_core import Ledger, LoggingSink, OpenTelemetrySink
from tale_llamaindex import TALECallbackHandler, TALEEventHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_index.core.query_engine import TransformQueryEngine

QUESTION = "How old is the famous Ann?"


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def sink(reader: InMemoryMetricReader) -> OpenTelemetrySink:
    return OpenTelemetrySink(meter_provider=MeterProvider([reader]))


def counted(reader: InMemoryMetricReader) -> dict[tuple[str, str], int]:
    """Total the tokens exported, by role and by type."""
    data = reader.get_metrics_data()
    assert data is not None
    metrics = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    points: list[Any] = list(metrics["gen_ai.client.token.usage"].data.data_points)
    return {
        (point.attributes["tale.role"], point.attributes["gen_ai.token.type"]): point.sum for point in points
    }


def in_ledger(ledger: Ledger) -> dict[tuple[str, str], int]:
    return {
        (role, kind): getattr(ledger.totals(role), f"{kind}_tokens")
        for role in ("estimate", "reason")
        for kind in ("input", "output")
    }


async def test_each_call_is_exported_once_with_both_kinds_of_handler_on_one_ledger(
    make_engine: Callable[..., TransformQueryEngine], reader: InMemoryMetricReader, sink: OpenTelemetrySink
) -> None:
    ledger = Ledger(sinks=[sink])
    with TALEEventHandler(ledger=ledger), TALECallbackHandler(ledger=ledger):
        engine = make_engine()
        engine.query(QUESTION)
        await engine.aquery(QUESTION)
    assert (ledger.count("estimate"), ledger.count("reason")) == (2, 2)
    assert ledger.totals("reason").output_tokens == 2 * 16
    assert counted(reader) == in_ledger(ledger)


def test_a_callback_handler_alone_exports_too(
    make_engine: Callable[..., TransformQueryEngine], reader: InMemoryMetricReader, sink: OpenTelemetrySink
) -> None:
    with TALECallbackHandler(ledger=Ledger(sinks=[sink])) as handler:
        make_engine().query(QUESTION)
    assert handler.ledger.count("reason") == 1
    assert counted(reader) == in_ledger(handler.ledger)


async def test_the_span_around_a_query_tells_of_it(
    make_engine: Callable[..., TransformQueryEngine], sink: OpenTelemetrySink
) -> None:
    spans, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    with TALEEventHandler(ledger=Ledger(sinks=[sink])):
        for asynchronous in (False, True):
            with tracers.get_tracer("app").start_as_current_span("request"):
                engine = make_engine()
                _ = await engine.aquery(QUESTION) if asynchronous else engine.query(QUESTION)
    for span in spans.get_finished_spans():
        assert [event.name for event in span.events] == ["tale.usage", "tale.budget", "tale.usage"]
        usage = dict(span.events[-1].attributes or {})
        assert (usage["tale.role"], usage["tale.budget.tokens"]) == ("reason", 40)
    assert len(spans.get_finished_spans()) == 2


def test_a_broken_sink_costs_nobody_an_answer(
    make_engine: Callable[..., TransformQueryEngine], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def record(self, event: object) -> None:
            raise ConnectionError(QUESTION)

    with TALEEventHandler(ledger=Ledger(sinks=[Broken()])) as handler:
        answer = make_engine().query(QUESTION)
    assert "36" in str(answer)
    assert handler.ledger.count() == 2
    assert [line.name for line in caplog.records if line.levelname == "WARNING"] == ["tale"]


def test_the_log_names_budgets_and_costs_but_no_question_and_no_answer(
    make_engine: Callable[..., TransformQueryEngine], caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.DEBUG, logger="tale"),
        TALEEventHandler(ledger=Ledger(sinks=[LoggingSink()])),
    ):
        make_engine().query(QUESTION)
    ours = [line for line in caplog.records if line.name == "tale"]
    assert [line.tale["event"] for line in ours] == ["tale_usage", "tale_budget", "tale_usage"]
    written = "\n".join(f"{line.getMessage()} {line.__dict__}" for line in ours)
    for secret in (QUESTION, "famous", "born in 1990", "tokens:"):
        assert secret not in written
