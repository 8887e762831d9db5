"""LoggingSink: a ledger's records as log lines. Without one, TALE logs only that a sink failed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tale_core.accounts.ledger import LOGGER
from tale_core.events import BudgetEvent, ElasticityKind, UsageEvent

if TYPE_CHECKING:
    from tale_core.events import Event

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


def _line(event: Event) -> tuple[int, str, tuple[Any, ...]]:
    """Return the level, the message and its arguments: apart, so that tools can group lines by message."""
    if isinstance(event, BudgetEvent):
        message = "question %s: budget %s from %s, estimate %s, strategy %s, control %s"
        chosen = (event.budget, event.source, event.estimate)
        return logging.DEBUG, message, (event.question_id, *chosen, event.strategy, event.control)
    if isinstance(event, UsageEvent):
        usage = event.usage
        message = "question %s: %s by %s took %d input and %d output tokens (%s), budget %s, finish %s"
        counted = (usage.input_tokens, usage.output_tokens, usage.source)
        called = (event.question_id, event.role, event.model)
        return logging.DEBUG, message, (*called, *counted, event.budget, event.finish_reason)
    level = logging.WARNING if event.kind in _WARNINGS else logging.INFO
    message = "question %s: %s, budget %s, actual %s, estimate %s; %s"
    counts = (event.budget, event.actual, event.estimate)
    return level, message, (event.question_id, event.kind, *counts, event.detail or "-")
