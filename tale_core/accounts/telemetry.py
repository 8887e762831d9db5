"""Export of a ledger's records to OpenTelemetry: metrics, and events on the current span.

Names under ``gen_ai.`` are those of the semantic conventions 1.41.1, the last release that has them. They have
moved to open-telemetry/semantic-conventions-genai, which has released nothing yet (November 2026) and plans
counters in place of the histogram of tokens; backends read the histogram. What the conventions have no name
for is under ``tale.``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from tale_core.errors import MissingExtraError
from tale_core.events import BudgetEvent, UsageEvent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.metrics import Histogram, Meter, MeterProvider

    from tale_core.events import ElasticityEvent, Event

Attributes: TypeAlias = dict[str, Any]
"""OpenTelemetry attributes: strings, numbers, or lists of these."""

_SCOPE = "tale"
_SCHEMA = "https://opentelemetry.io/schemas/1.41.1"
_OPERATION = "chat"
_UNKNOWN_PROVIDER = "unknown"  # the attribute is required, and a reply does not name its provider

# The first two are the conventions' own.
_TOKEN_BOUNDS = tuple(4**power for power in range(14))
_SECOND_BOUNDS = tuple(0.01 * 2**power for power in range(14))
_SHARE_BOUNDS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)


class OpenTelemetrySink:
    """Reports budgets, usage by role and elasticity to OpenTelemetry.

    Metrics: ``gen_ai.client.token.usage`` and ``gen_ai.client.operation.duration``, with ``tale.role`` to tell
    estimates from answers; ``tale.reasoning.tokens``, where known; ``tale.budget.tokens``;
    ``tale.budget.utilization``, what an answer took as a share of its budget; and ``tale.elasticity.events`` by
    kind. No attribute of a metric differs from question to question.

    Each record is also an event on the current span, if there is one. Such events carry tokens, but the
    span gets no attribute of usage: an instrumentation of the model or the framework sets those, and backends
    sum them up. Where another instrumentation reports ``gen_ai.client.token.usage`` too, drop one of the two
    with a view on the meter ``tale``, or tell them apart by ``tale.role``. Prompts, answers and keys are in no
    record.

    Args:
        meter_provider: Where metrics go; None for the global provider.
        count_estimates: Whether tokens that no provider measured are in the metrics too, with
            ``tale.counted`` as ``"estimated"``.
        attributes: What to add to every metric, such as
            ``{"gen_ai.provider.name": "openai"}``.

    Raises:
        MissingExtraError: opentelemetry-api is not installed.

    Example:
        >>> from tale_core import Ledger, OpenTelemetrySink
        >>> ledger = Ledger(sinks=[OpenTelemetrySink()])  # as in TALECallbackHandler(ledger=ledger)
    """

    def __init__(
        self,
        *,
        meter_provider: MeterProvider | None = None,
        count_estimates: bool = False,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        try:
            from opentelemetry import metrics, trace  # noqa: PLC0415  # an extra
        except ImportError as exc:
            raise MissingExtraError("opentelemetry", "otel") from exc
        self._trace = trace
        self._count_estimates = count_estimates
        self._constant: Attributes = dict(attributes or {})
        self._instrument(metrics.get_meter(_SCOPE, meter_provider=meter_provider, schema_url=_SCHEMA))

    def record(self, event: Event) -> None:
        """Report one record."""
        if isinstance(event, BudgetEvent):
            self._budgeted(event)
        elif isinstance(event, UsageEvent):
            self._called(event)
        else:
            self._departed(event)

    def _instrument(self, meter: Meter) -> None:
        def histogram(name: str, unit: str, description: str, bounds: tuple[float, ...]) -> Histogram:
            return meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=bounds)

        used, took = "Number of input and output tokens used.", "GenAI operation duration."
        self._tokens = histogram("gen_ai.client.token.usage", "{token}", used, _TOKEN_BOUNDS)
        self._seconds = histogram("gen_ai.client.operation.duration", "s", took, _SECOND_BOUNDS)
        thinking = "Output tokens spent thinking, where known."
        self._reasoning = histogram("tale.reasoning.tokens", "{token}", thinking, _TOKEN_BOUNDS)
        budgets = "Output tokens that questions were asked under."
        self._budgets = histogram("tale.budget.tokens", "{token}", budgets, _TOKEN_BOUNDS)
        share = "Output tokens of an answer by its budget."
        self._utilization = histogram("tale.budget.utilization", "1", share, _SHARE_BOUNDS)
        self._departures = meter.create_counter(
            "tale.elasticity.events", "{event}", "Answers and estimates that departed from what budgets intend."
        )

    def _budgeted(self, event: BudgetEvent) -> None:
        chosen = {
            "tale.budget.source": event.source,
            "tale.strategy": event.strategy,
            "tale.control.name": event.control,
        }
        if event.budget is not None:
            self._budgets.record(event.budget, _present({**self._constant, **chosen}))
        # As text: an attribute must not be a number here and a word there.
        value = None if event.control_value is None else str(event.control_value)
        self._tell(
            "tale.budget",
            {
                "tale.question.id": event.question_id,
                **chosen,
                "tale.budget.tokens": event.budget,
                "tale.budget.estimate": event.estimate,
                "tale.control.value": value,
                "tale.control.why": event.control_why or None,
            },
        )

    def _called(self, event: UsageEvent) -> None:
        shared = _present({**self._constant, **_call_attributes(event)})
        # After the constants, which may name the provider.
        shared.setdefault("gen_ai.provider.name", _UNKNOWN_PROVIDER)
        if event.seconds is not None:
            self._seconds.record(event.seconds, shared)
        # Backends sum this up as a bill, so estimates go in only where asked for.
        if event.usage.source == "measured" or self._count_estimates:
            self._count(event, shared)
        self._tell("tale.usage", {**_call_attributes(event), **_usage_attributes(event)})

    def _count(self, event: UsageEvent, shared: Attributes) -> None:
        usage = event.usage
        self._tokens.record(usage.input_tokens, {**shared, "gen_ai.token.type": "input"})
        self._tokens.record(usage.output_tokens, {**shared, "gen_ai.token.type": "output"})
        if usage.reasoning_tokens is not None:
            self._reasoning.record(usage.reasoning_tokens, shared)
        if event.role == "reason" and event.budget is not None:
            self._utilization.record(usage.output_tokens / event.budget, shared)

    def _departed(self, event: ElasticityEvent) -> None:
        kind = {"tale.elasticity.kind": event.kind.value}
        self._departures.add(1, {**self._constant, **kind})
        self._tell(
            "tale.elasticity",
            {
                "tale.question.id": event.question_id,
                **kind,
                "tale.budget.tokens": event.budget,
                "tale.budget.estimate": event.estimate,
                "tale.elasticity.actual": event.actual,
                "tale.elasticity.detail": event.detail or None,
                "tale.counted": event.counted,
            },
        )

    def _tell(self, name: str, attributes: Attributes) -> None:
        """Add an event to the current span, if there is one."""
        span = self._trace.get_current_span()
        if span.is_recording():
            span.add_event(name, _present(attributes))


def _call_attributes(event: UsageEvent) -> Attributes:
    """Return what many calls have in common."""
    return {
        "gen_ai.operation.name": _OPERATION,
        "gen_ai.response.model": event.model,
        "tale.role": event.role,
        "tale.strategy": event.strategy,
        "tale.counted": event.usage.source,
    }


def _usage_attributes(event: UsageEvent) -> Attributes:
    """Return what differs from call to call."""
    finish = event.finish_reason
    return {
        "tale.question.id": event.question_id,
        "tale.budget.tokens": event.budget,
        "gen_ai.response.finish_reasons": None if finish is None else [finish],
        "gen_ai.usage.input_tokens": event.usage.input_tokens,
        "gen_ai.usage.output_tokens": event.usage.output_tokens,
        "gen_ai.usage.reasoning.output_tokens": event.usage.reasoning_tokens,
    }


def _present(attributes: Attributes) -> Attributes:
    """Leave out what is unknown: OpenTelemetry has no None."""
    return {name: value for name, value in attributes.items() if value is not None}
