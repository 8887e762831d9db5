"""What is recorded reaches OpenTelemetry and the log: all of it, once, and never a prompt, answer or key."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tale_core import (
    BudgetEvent,
    ElasticityEvent,
    ElasticityKind,
    InvalidValueError,
    Ledger,
    LoggingSink,
    MissingExtraError,
    OpenTelemetrySink,
    TaleMethod,
    Usage,
    UsageEvent,
    run,
)
from tale_core.testing import ScriptedModel

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

QUESTION = "How many eggs does the secret farm of Ann have?"
ANSWER = "The hidden answer is forty two"
KEY = "sk-live-0123456789"

BUDGET = BudgetEvent(
    question_id="q1",
    budget=40,
    source="zero_shot",
    estimate=40,
    strategy="tale",
    control="effort",
    control_value="low",
)
ESTIMATED = UsageEvent(
    question_id="q1", role="estimate", usage=Usage(input_tokens=30, output_tokens=5), model="m-1", seconds=0.5
)
REASONED = UsageEvent(
    question_id="q1",
    role="reason",
    usage=Usage(input_tokens=20, output_tokens=60, reasoning_tokens=12),
    budget=40,
    strategy="tale",
    model="m-1",
    finish_reason="stop",
    seconds=2.0,
)
OVERRUN = ElasticityEvent(
    question_id="q1", kind=ElasticityKind.OVERRUN, budget=40, actual=60, counted="measured"
)
RECORDS = (ESTIMATED, BUDGET, REASONED, OVERRUN)


class Backend:
    """Where OpenTelemetry's data ends up, in memory."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._exporter = InMemorySpanExporter()
        self.meters = MeterProvider([self._reader])
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))

    def sink(self, **options: Any) -> OpenTelemetrySink:
        return OpenTelemetrySink(meter_provider=self.meters, **options)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def points(self, name: str) -> list[Any]:
        data = self._reader.get_metrics_data()
        scopes = (
            [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        )
        assert {scope.scope.name for scope in scopes} <= {"tale"}
        metrics = [metric for scope in scopes for metric in scope.metrics if metric.name == name]
        return [point for metric in metrics for point in metric.data.data_points]

    def sums(self, name: str, *by: str) -> dict[Any, float]:
        """Total a metric by the attributes named: a histogram's sum, or a counter's value."""
        totals: dict[Any, float] = {}
        for point in self.points(name):
            key = tuple(point.attributes.get(one) for one in by)
            amount = point.sum if hasattr(point, "sum") else point.value
            totals[key[0] if len(by) == 1 else key] = totals.get(key, 0) + amount
        return totals


@pytest.fixture
def backend() -> Backend:
    return Backend()


def test_tokens_are_counted_by_role_under_the_conventions_name(backend: Backend) -> None:
    Ledger(sinks=[backend.sink(attributes={"gen_ai.provider.name": "openai"})]).record_all(RECORDS)
    assert backend.sums("gen_ai.client.token.usage", "tale.role", "gen_ai.token.type") == {
        ("estimate", "input"): 30,
        ("estimate", "output"): 5,
        ("reason", "input"): 20,
        ("reason", "output"): 60,
    }
    for point in backend.points("gen_ai.client.token.usage"):
        required = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai"}
        assert required.items() <= dict(point.attributes).items()
        assert point.attributes["gen_ai.response.model"] == "m-1"
        assert point.explicit_bounds[:4] == (1, 4, 16, 64)


def test_durations_budgets_thinking_and_elasticity_are_metrics(backend: Backend) -> None:
    Ledger(sinks=[backend.sink()]).record_all(RECORDS)
    assert backend.sums("gen_ai.client.operation.duration", "tale.role") == {"estimate": 0.5, "reason": 2.0}
    assert backend.sums("tale.budget.tokens", "tale.budget.source", "tale.control.name") == {
        ("zero_shot", "effort"): 40
    }
    assert backend.sums("tale.budget.utilization", "tale.strategy") == {"tale": 1.5}
    assert backend.sums("tale.reasoning.tokens", "tale.role") == {"reason": 12}
    assert backend.sums("tale.elasticity.events", "tale.elasticity.kind") == {"overrun": 1}


def test_unknown_is_not_zero(backend: Backend) -> None:
    """No thinking tokens reported, no budget, no duration: nothing is recorded in their place."""
    bare = UsageEvent(question_id="q", role="reason", usage=Usage(output_tokens=9))
    backend.sink().record(bare)
    backend.sink().record(BudgetEvent(question_id="q", budget=None, source="none", strategy="vanilla"))
    for metric in ("tale.reasoning.tokens", "tale.budget.utilization", "tale.budget.tokens"):
        assert backend.points(metric) == []
    assert backend.points("gen_ai.client.operation.duration") == []
    assert backend.sums("gen_ai.client.token.usage", "gen_ai.provider.name") == {"unknown": 9}


def test_estimated_counts_are_left_out_unless_asked_for_and_then_marked(backend: Backend) -> None:
    guessed = REASONED.model_copy(update={"usage": Usage(output_tokens=50, source="estimated")})
    strict, lenient = backend, Backend()
    strict.sink().record(guessed)
    lenient.sink(count_estimates=True).record(guessed)
    assert strict.points("gen_ai.client.token.usage") == []
    assert strict.points("tale.budget.utilization") == []
    assert lenient.sums("gen_ai.client.token.usage", "tale.counted") == {"estimated": 50}


def test_no_number_or_id_of_a_question_is_an_attribute_of_a_metric(backend: Backend) -> None:
    ledger = Ledger(sinks=[backend.sink()])
    for n in range(1, 20):
        ledger.record(BUDGET.model_copy(update={"budget": n, "question_id": str(n)}))
        ledger.record(REASONED.model_copy(update={"budget": n, "question_id": str(n), "seconds": n / 10}))
        ledger.record(OVERRUN.model_copy(update={"budget": n, "question_id": str(n), "actual": 2 * n}))
    assert len(backend.points("gen_ai.client.token.usage")) == 2  # input and output
    assert len(backend.points("tale.budget.tokens")) == 1
    assert len(backend.points("tale.elasticity.events")) == 1


def test_the_span_under_way_gets_an_event_per_record_and_no_attribute_that_backends_sum(
    backend: Backend,
) -> None:
    with backend.tracers.get_tracer("app").start_as_current_span("request"):
        Ledger(sinks=[backend.sink()]).record_all(RECORDS)
    (span,) = backend.spans
    assert [event.name for event in span.events] == [
        "tale.usage",
        "tale.budget",
        "tale.usage",
        "tale.elasticity",
    ]
    _, budget, usage, elasticity = (dict(event.attributes or {}) for event in span.events)
    assert (budget["tale.budget.tokens"], budget["tale.control.value"]) == (40, "low")
    assert (usage["gen_ai.usage.output_tokens"], usage["tale.role"]) == (60, "reason")
    assert usage["gen_ai.usage.reasoning.output_tokens"] == 12
    assert (elasticity["tale.elasticity.kind"], elasticity["tale.elasticity.actual"]) == ("overrun", 60)
    assert {event.attributes["tale.question.id"] for event in span.events if event.attributes} == {"q1"}
    assert dict(span.attributes or {}) == {}


def test_without_a_span_the_metrics_tell_it_alone(backend: Backend) -> None:
    Ledger(sinks=[backend.sink()]).record_all(RECORDS)
    assert backend.spans == ()
    assert backend.points("tale.elasticity.events")


def test_many_threads_report_everything_once(backend: Backend) -> None:
    ledger = Ledger(sinks=[backend.sink()])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: ledger.record_all(RECORDS), range(200)))
    assert backend.sums("gen_ai.client.token.usage", "tale.role", "gen_ai.token.type") == {
        (role, kind): getattr(ledger.totals(role), f"{kind}_tokens")
        for role in ("estimate", "reason")
        for kind in ("input", "output")
    }
    assert ledger.totals("reason").output_tokens == 200 * 60


def test_a_sink_without_the_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tale-reasoning\[otel\]'"):
        OpenTelemetrySink()


def test_without_an_sdk_a_sink_does_nothing_and_costs_nobody_an_answer() -> None:
    ledger = Ledger(sinks=[OpenTelemetrySink()])
    ledger.record_all(RECORDS)
    assert ledger.count() == 2


class Broken:
    """A sink that fails with what it was about to send."""

    def __init__(self) -> None:
        self.asked = 0

    def record(self, event: Any) -> None:
        self.asked += 1
        raise ConnectionError(f"cannot send with key {KEY}")


def test_a_sink_that_fails_loses_no_record_and_disturbs_no_other_and_is_reported_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken, other = Broken(), Ledger()
    ledger = Ledger(sinks=[broken, other])
    with caplog.at_level(logging.DEBUG):
        ledger.record_all(RECORDS)
    assert (ledger.count(), other.count(), broken.asked) == (2, 2, 4)
    (line,) = caplog.records
    assert (line.name, line.levelname) == ("tale", "WARNING")
    assert "Broken" in line.getMessage()
    assert "ConnectionError" in line.getMessage()
    assert KEY not in line.getMessage()


def test_a_sink_is_asked_outside_the_lock_and_may_read_the_ledger() -> None:
    seen: list[int] = []

    class Reader:
        def record(self, event: Any) -> None:
            with ThreadPoolExecutor(1) as pool:
                seen.append(pool.submit(ledger.count).result(timeout=60))

    ledger = Ledger(sinks=[Reader()])
    ledger.record_all(RECORDS)
    assert seen == [1, 1, 2, 2]


@pytest.mark.parametrize("sink", [print, "log", None, LoggingSink])
def test_what_takes_no_records_is_no_sink(sink: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"record\(event\)"):
        Ledger(sinks=[sink])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda ledger: pickle.loads(pickle.dumps(ledger))])  # noqa: S301
def test_copies_of_a_ledger_export_nothing_again(backend: Backend, duplicate: Any) -> None:
    ledger = Ledger(sinks=[backend.sink()])
    ledger.record_all(RECORDS)
    again = duplicate(ledger)
    again.record_all(RECORDS)
    assert (ledger.count(), again.count()) == (2, 4)
    assert backend.sums("tale.elasticity.events", "tale.elasticity.kind") == {"overrun": 1}


def test_budgets_and_calls_are_logged_at_debug_and_elasticity_above(caplog: pytest.LogCaptureFixture) -> None:
    collapse = OVERRUN.model_copy(update={"kind": ElasticityKind.COLLAPSE, "actual": 1})
    with caplog.at_level(logging.DEBUG, logger="tale"):
        Ledger(sinks=[LoggingSink()]).record_all([*RECORDS, collapse])
    assert [(line.name, line.levelname) for line in caplog.records] == [
        ("tale", "DEBUG"),
        ("tale", "DEBUG"),
        ("tale", "DEBUG"),
        ("tale", "INFO"),
        ("tale", "WARNING"),
    ]
    assert (
        caplog.messages[1]
        == "question q1: budget 40 from zero_shot, estimate 40, strategy tale, control effort"
    )
    assert caplog.messages[3] == "question q1: overrun, budget 40, actual 60, estimate None; -"
    assert caplog.records[2].tale["usage"]["output_tokens"] == 60  # type: ignore[attr-defined]
    assert json.dumps([line.tale for line in caplog.records])  # type: ignore[attr-defined]


def test_lines_below_the_level_are_not_even_built(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("tale.quiet")
    logger.setLevel(logging.WARNING)
    monkeypatch.setattr(UsageEvent, "model_dump", lambda *_, **__: pytest.fail("a record was serialised"))
    LoggingSink(logger).record(REASONED)


def test_importing_configures_no_logging_and_a_sink_writes_nothing_until_it_is_turned_on() -> None:
    script = """
import logging
import tale_core
from tale_core import ElasticityEvent, Ledger, LoggingSink
assert not logging.root.handlers and logging.root.level == logging.WARNING
assert [type(one) for one in logging.getLogger("tale").handlers] == [logging.NullHandler]
assert logging.getLogger("tale").level == logging.NOTSET
Ledger(sinks=[LoggingSink()]).record(ElasticityEvent(kind="collapse"))
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)  # noqa: S603
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "estimate",
    ["[[40]]", f"I cannot say, {QUESTION} is hard", PermissionError(f"no credit for {KEY} on {QUESTION}")],
)
def test_neither_prompts_nor_answers_nor_keys_leave_the_process(
    backend: Backend, caplog: pytest.LogCaptureFixture, estimate: Any
) -> None:
    ledger = Ledger(sinks=[backend.sink(), LoggingSink()])
    model = ScriptedModel(estimate=estimate, reason=ANSWER)
    with (
        caplog.at_level(logging.DEBUG),
        backend.tracers.get_tracer("app").start_as_current_span("request"),
    ):
        question = TaleMethod().begin(QUESTION, question_id="q1")
        run(question.answer(), model)
        ledger.record_all(question.drain())
    lines = [f"{line.getMessage()} {line.__dict__}" for line in caplog.records]
    spans = [span.to_json() for span in backend.spans]
    data = backend._reader.get_metrics_data()
    assert data is not None
    exported = "\n".join([*lines, *spans, data.to_json()])
    assert len(lines) >= 2
    assert "tale.role" in exported
    for secret in (QUESTION, "secret farm", ANSWER, "hidden answer", KEY, "step by step"):
        assert secret not in exported
