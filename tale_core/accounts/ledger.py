"""Token accounting by role: what estimating cost, what answering cost, and what that saved; and its log."""

from __future__ import annotations

import copy
import functools
import logging
import operator
import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from tale_core.errors import InvalidValueError, UnmeasuredUsageError
from tale_core.events import BudgetEvent, ElasticityEvent, ElasticityKind, Event, UsageEvent
from tale_core.protocols import Sink
from tale_core.types import CountSource, Record, Role, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

LOGGER = logging.getLogger("tale")
"""The logger of this package. It is silent unless the application adds a handler."""
LOGGER.addHandler(logging.NullHandler())

# These mean a doubtful answer or a wasted estimate; the others only cost or save tokens.
_WARNINGS = {
    ElasticityKind.COLLAPSE,
    ElasticityKind.TRUNCATED,
    ElasticityKind.SLIP,
    ElasticityKind.UNPARSABLE,
}

_Key: TypeAlias = tuple[Role, CountSource]

_ROLES: tuple[Role, ...] = get_args(Role)
_SOURCES: tuple[CountSource, ...] = get_args(CountSource)
_COUNTED: dict[CountSource, str] = {"measured": "by the provider", "estimated": "by a tokenizer"}
_HEADER = ("role", "calls", "input", "output", "thinking", "counted")


class Savings(Record):
    """Output tokens against a baseline, net of every extra call."""

    baseline: int
    """Output tokens that the same questions took without TALE."""
    reason: int
    """Output tokens of the answers."""
    estimate: int
    """Output tokens of the estimator."""
    uncertain: int = 0
    """The part of these three that was counted by a tokenizer, not by the provider."""

    @property
    def net_tokens(self) -> int:
        """Output tokens saved: baseline - (reason + estimate); negative when TALE cost more."""
        return self.baseline - self.reason - self.estimate

    @property
    def net_ratio(self) -> float:
        """Share of the baseline's output tokens that was saved, net."""
        return self.net_tokens / self.baseline if self.baseline else 0.0

    def __str__(self) -> str:
        """Return one sentence."""
        word = "saved" if self.net_tokens >= 0 else "lost"
        about = f", of which {self.uncertain} are tokenizer estimates" if self.uncertain else ""
        return (
            f"{word} {abs(self.net_ratio):.0%} of output tokens net: {self.baseline} without a budget, "
            f"{self.reason} + {self.estimate} (answers + estimates) with it{about}"
        )


class Ledger:
    """Records calls and events, and totals them by role; safe to share between threads.

    Measured and estimated counts are kept apart: `totals` answers for one kind at a time.

    Args:
        keep: How many calls and events to keep one by one, each; None keeps all. Totals always cover
            everything ever recorded.
        sinks: What else receives each record, after the ledger: an `OpenTelemetrySink`, a `LoggingSink`,
            another ledger. A sink's exception is logged once and not raised. Copies and pickles have the
            records and no sinks, so that nothing is exported twice.

    Raises:
        InvalidValueError: ``keep`` is below 1, or a sink has no ``record`` method.
    """

    def __init__(self, *, keep: int | None = None, sinks: Iterable[Sink] = ()) -> None:
        if keep is not None and keep < 1:
            raise InvalidValueError(f"keep must be at least 1, or None to keep everything; got {keep}")
        self._keep = keep
        self._sinks = tuple(map(_checked, sinks))
        self._failed: set[int] = set()  # sinks whose failure was logged
        self._lock = threading.RLock()
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._calls: deque[UsageEvent] = deque(maxlen=self._keep)
            self._events: deque[ElasticityEvent] = deque(maxlen=self._keep)
            self._budgets: deque[BudgetEvent] = deque(maxlen=self._keep)
            self._totals: dict[_Key, Usage] = {}
            self._counts: Counter[_Key] = Counter()
            self._kinds: Counter[str] = Counter()

    def record(self, event: Event) -> None:
        """Add one event of any of the three kinds, and pass it on to the sinks."""
        with self._lock:
            self._add(event)
        # Outside the lock: a sink may be slow, or record to this ledger.
        for sink in self._sinks:
            self._hand_on(event, sink)

    def record_all(self, events: Iterable[Event]) -> None:
        """Add several events, in order."""
        for event in events:
            self.record(event)

    @property
    def calls(self) -> tuple[UsageEvent, ...]:
        """Every model call kept, in order of completion."""
        with self._lock:
            return tuple(self._calls)

    @property
    def events(self) -> tuple[ElasticityEvent, ...]:
        """Every elasticity event kept, in order."""
        with self._lock:
            return tuple(self._events)

    @property
    def budgets(self) -> tuple[BudgetEvent, ...]:
        """Every budget kept, in order."""
        with self._lock:
            return tuple(self._budgets)

    def count(self, role: Role | None = None, *, source: CountSource | None = None) -> int:
        """Return how many calls were recorded, of one role and one source of counts, or of all.

        Raises:
            InvalidValueError: No such role or source.
        """
        with self._lock:
            return sum(self._counts[key] for key in _keys(role, source))

    def totals(self, role: Role | None = None, *, source: CountSource = "measured") -> Usage:
        """Return the tokens of all calls of a role.

        Args:
            role: ``"estimate"``, ``"reason"``, ``"judge"`` or None for all.
            source: Which counts to total: those the provider measured, or those a tokenizer estimated.

        Raises:
            InvalidValueError: No such role or source.
        """
        with self._lock:
            parts = [self._totals[key] for key in _keys(role, source) if key in self._totals]
        return functools.reduce(operator.add, parts) if parts else Usage(source=source)

    def savings(self, baseline: int | Usage | Ledger, *, count_estimates: bool = False) -> Savings:
        """Compare with what the same questions took without TALE, net of the estimator.

        Grading answers (the role ``"judge"``) is not part of their cost, and left out on both sides.

        Args:
            baseline: Output tokens without TALE: a number, a usage, or the ledger of a vanilla run.
            count_estimates: Whether calls that no provider measured may count with a tokenizer's estimate;
                the result then says how much of it is uncertain.

        Raises:
            UnmeasuredUsageError: No answer was recorded, here or in the baseline; or some calls were not
                measured and ``count_estimates`` is False.
            InvalidValueError: The baseline is negative.
        """
        if isinstance(baseline, Ledger):
            _check_answered(baseline, "the baseline")
            before = [*_spent(baseline, "reason"), *_spent(baseline, "estimate")]
        else:
            before = [baseline if isinstance(baseline, Usage) else Usage(output_tokens=baseline)]
        _check_answered(self, "this ledger")
        reason, estimate = _spent(self, "reason"), _spent(self, "estimate")
        everything = [*before, *reason, *estimate]
        unmeasured = [usage for usage in everything if usage.source == "estimated"]
        if unmeasured and not count_estimates:
            raise UnmeasuredUsageError(
                f"{_output(unmeasured)} of {_output(everything)} output tokens were counted by a tokenizer and "
                "not by the provider, so a saving cannot be stated; make the provider report its usage "
                "(ChatOpenAI: stream_usage=True), or pass count_estimates=True"
            )
        return Savings(
            baseline=_output(before),
            reason=_output(reason),
            estimate=_output(estimate),
            uncertain=_output(unmeasured),
        )

    def __str__(self) -> str:
        """Return a table of tokens by role, and the events by kind."""
        with self._lock:
            rows = [_HEADER, *(self._row(key) for key in _keys(None, None) if key in self._totals)]
            kinds = ", ".join(f"{count} {kind}" for kind, count in self._kinds.items())
        return "\n".join([*_aligned(rows), *([f"events: {kinds}"] if kinds else [])])

    def _add(self, event: Event) -> None:
        if isinstance(event, UsageEvent):
            self._calls.append(event)
            key: _Key = (event.role, event.usage.source)
            before = self._totals.get(key)
            self._totals[key] = event.usage if before is None else before + event.usage
            self._counts[key] += 1
        elif isinstance(event, ElasticityEvent):
            self._events.append(event)
            self._kinds[event.kind.value] += 1
        else:
            self._budgets.append(event)

    def _hand_on(self, event: Event, sink: Sink) -> None:
        """Pass an event to a sink; a failed export must not fail the question."""
        try:
            sink.record(event)
        except Exception as exc:  # noqa: BLE001  # whatever a sink does
            with self._lock:
                known = id(sink) in self._failed
                self._failed.add(id(sink))
            if not known:
                # The type alone: the text may hold what was being sent, or the key it was sent with.
                LOGGER.warning(
                    "%s could not take a record (%s); the ledger has it. Further failures are not logged",
                    type(sink).__name__,
                    type(exc).__name__,
                )

    def _row(self, key: _Key) -> tuple[str, ...]:
        role, source = key
        total = self._totals[key]
        thinking = "?" if total.reasoning_tokens is None else str(total.reasoning_tokens)
        counts = (self._counts[key], total.input_tokens, total.output_tokens)
        return (role, *map(str, counts), thinking, _COUNTED[source])

    # A lock cannot be pickled or deep-copied, nor can the connections of most sinks, and frameworks do both to
    # what they carry. The containers are copied so that they do not change while pickle reads them.
    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = {name: copy.copy(value) for name, value in self.__dict__.items() if name != "_lock"}
        return {**state, "_sinks": (), "_failed": set()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()


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


def _checked(sink: object) -> Sink:
    if isinstance(sink, type) or not isinstance(sink, Sink):
        raise InvalidValueError(f"a sink is an object with a method record(event); got {sink!r}")
    return sink


def _keys(role: Role | None, source: CountSource | None) -> list[_Key]:
    """Return the keys that a choice of role and source stands for; None stands for all."""
    if role not in {None, *_ROLES}:
        raise InvalidValueError(f"role must be one of {_ROLES} or None, got {role!r}")
    if source not in {None, *_SOURCES}:
        raise InvalidValueError(f"source must be one of {_SOURCES}, got {source!r}")
    roles = _ROLES if role is None else (role,)
    sources = _SOURCES if source is None else (source,)
    return [(one_role, one_source) for one_role in roles for one_source in sources]


def _spent(ledger: Ledger, role: Role) -> list[Usage]:
    """Return what a role took, by source of the counts; empty when it made no call."""
    return [ledger.totals(role, source=source) for source in _SOURCES if ledger.count(role, source=source)]


def _check_answered(ledger: Ledger, name: str) -> None:
    if not ledger.count("reason"):
        raise UnmeasuredUsageError(
            f"{name} holds no answer ({ledger.count()} calls in all), so a saving cannot be stated; "
            "ask first, with the ledger or its handler attached"
        )


def _output(usages: Iterable[Usage]) -> int:
    return sum(usage.output_tokens for usage in usages)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Return the rows as lines of aligned columns: words to the left, the numbers between to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column in {0, len(row) - 1} else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
