"""LoggingSink: a ledger's records as log lines. Without one, TALE logs only that a sink failed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeAlias

from tale_core.accounts.ledger import LOGGER
from tale_core.events import BudgetEvent, ElasticityEvent, ElasticityKind, UsageEvent

if TYPE_CHECKING:
    from tale_core.events import Event

_Line: TypeAlias = tuple[int, str, tuple[Any, ...]]
"""Level, message and its arguments: apart, so that tools can group lines by their message."""

# These mean a doubtful answer or a wasted estimate; the others only cost or save tokens.
_WARNINGS = {
    ElasticityKind.COLLAPSE,
    ElasticityKind.TRUNCATED,
    ElasticityKind.SLIP,
    ElasticityKind.UNPARSABLE,
}


class LoggingSink:
    """Writes budgets and calls at DEBUG, and elasticity at INFO or, where an answer is doubtful, at WARNING.

    Records hold no prompts, answers or keys, so neither does the log. Each line carries its whole record as
    plain data in ``extra["tale"]``, for formatters that write JSON.

    Args:
        logger: Where to write; None for the logger ``tale``.

    Example:
        >>> from tale_core import Ledger, LoggingSink
        >>> ledger = Ledger(sinks=[LoggingSink()])  # as in TALECallbackHandler(ledger=ledger)
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = LOGGER if logger is None else logger

    def record(self, event: Event) -> None:
        """Write one record, if its level is on."""
        level, message, values = _line(event)
        if self._logger.isEnabledFor(level):
            data = {"event": event.name, **event.model_dump(mode="json")}
            self._logger.log(level, message, *values, extra={"tale": data})


def _line(event: Event) -> _Line:
    if isinstance(event, BudgetEvent):
        return _budget_line(event)
    return _usage_line(event) if isinstance(event, UsageEvent) else _elasticity_line(event)


def _budget_line(event: BudgetEvent) -> _Line:
    message = "question %s: budget %s from %s, estimate %s, strategy %s, control %s"
    values = (event.question_id, event.budget, event.source, event.estimate, event.strategy, event.control)
    return logging.DEBUG, message, values


def _usage_line(event: UsageEvent) -> _Line:
    usage = event.usage
    message = "question %s: %s by %s took %d input and %d output tokens (%s), budget %s, finish %s"
    values = (
        event.question_id,
        event.role,
        event.model,
        usage.input_tokens,
        usage.output_tokens,
        usage.source,
        event.budget,
        event.finish_reason,
    )
    return logging.DEBUG, message, values


def _elasticity_line(event: ElasticityEvent) -> _Line:
    level = logging.WARNING if event.kind in _WARNINGS else logging.INFO
    message = "question %s: %s, budget %s, actual %s, estimate %s; %s"
    values = (event.question_id, event.kind, event.budget, event.actual, event.estimate, event.detail or "-")
    return level, message, values
