"""Role-aware token accounting: what estimating cost, what answering cost, and what that saved."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from tale_core.errors import InvalidValueError, UnmeasuredUsageError
from tale_core.events import BudgetEvent, ElasticityEvent, Event, UsageEvent
from tale_core.types import CountSource, Record, Role, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

_ROLES: tuple[Role, ...] = ("estimate", "reason")
_SOURCES: tuple[CountSource, ...] = ("measured", "estimated")


class Savings(Record):
    """Output tokens against a baseline, net of every extra call."""

    baseline: int
    """Output tokens that the same questions took without TALE."""
    reason: int
    """Output tokens of the answers."""
    estimate: int
    """Output tokens of the estimator."""
    uncertain: int = 0
    """The part of ``reason`` and ``estimate`` that was counted by a tokenizer, not by the provider."""

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

    Raises:
        InvalidValueError: ``keep`` is below 1.
    """

    def __init__(self, *, keep: int | None = None) -> None:
        if keep is not None and keep < 1:
            raise InvalidValueError(f"keep must be at least 1, or None to keep everything; got {keep}")
        self._keep = keep
        self._lock = threading.RLock()
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._calls: deque[UsageEvent] = deque(maxlen=self._keep)
            self._events: deque[ElasticityEvent] = deque(maxlen=self._keep)
            self._budgets: deque[BudgetEvent] = deque(maxlen=self._keep)
            self._totals: dict[tuple[Role, CountSource], Usage] = {}
            self._counts: dict[tuple[Role, CountSource], int] = {}

    def record(self, event: Event) -> None:
        """Add one event of any of the three kinds."""
        with self._lock:
            if isinstance(event, UsageEvent):
                self._calls.append(event)
                key = (event.role, event.usage.source)
                before = self._totals.get(key)
                self._totals[key] = event.usage if before is None else before + event.usage
                self._counts[key] = self._counts.get(key, 0) + 1
            elif isinstance(event, ElasticityEvent):
                self._events.append(event)
            else:
                self._budgets.append(event)

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
        """Return how many calls were recorded, of one role and one source of counts, or of all."""
        with self._lock:
            return sum(
                count
                for (one_role, one_source), count in self._counts.items()
                if role in {None, one_role} and source in {None, one_source}
            )

    def totals(self, role: Role | None = None, *, source: CountSource = "measured") -> Usage:
        """Return the tokens of all calls of a role.

        Args:
            role: ``"estimate"``, ``"reason"`` or None for both.
            source: Which counts to total: those the provider measured, or those a tokenizer estimated.

        Raises:
            InvalidValueError: No such role or source.
        """
        if role not in {None, *_ROLES}:
            raise InvalidValueError(f"role must be one of {_ROLES} or None, got {role!r}")
        if source not in _SOURCES:
            raise InvalidValueError(f"source must be one of {_SOURCES}, got {source!r}")
        with self._lock:
            parts = [
                usage
                for (one_role, one_source), usage in self._totals.items()
                if one_source == source and role in {None, one_role}
            ]
        if not parts:
            return Usage(source=source)
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def savings(self, baseline: int | Usage | Ledger, *, count_estimates: bool = False) -> Savings:
        """Compare with what the same questions took without TALE, net of the estimator.

        Args:
            baseline: Output tokens without TALE: a number, a usage, or the ledger of a vanilla run.
            count_estimates: Whether calls that no provider measured may count with a tokenizer's estimate;
                the result then says how much of it is uncertain.

        Raises:
            UnmeasuredUsageError: Some calls were not measured and ``count_estimates`` is False.
            InvalidValueError: The baseline is negative.
        """
        unmeasured = self.count(source="estimated")
        if isinstance(baseline, Ledger):
            unmeasured += baseline.count(source="estimated")
            baseline = baseline.totals().output_tokens + baseline.totals(source="estimated").output_tokens
        elif isinstance(baseline, Usage):
            baseline = baseline.output_tokens
        if baseline < 0:
            raise InvalidValueError(f"a baseline is a number of output tokens, at least 0; got {baseline}")
        if unmeasured and not count_estimates:
            raise UnmeasuredUsageError(
                f"{unmeasured} calls carry no usage from the provider, so a saving cannot be stated; "
                "make the provider report it (ChatOpenAI: stream_usage=True), or pass count_estimates=True"
            )
        spent = {role: [self.totals(role, source=source) for source in _SOURCES] for role in _ROLES}
        return Savings(
            baseline=baseline,
            reason=sum(usage.output_tokens for usage in spent["reason"]),
            estimate=sum(usage.output_tokens for usage in spent["estimate"]),
            uncertain=self.totals(source="estimated").output_tokens,
        )

    def __str__(self) -> str:
        """Return a table of tokens by role, and the events by kind."""
        rows = [("role", "calls", "input", "output", "thinking", "counted")]
        for role in _ROLES:
            for source in _SOURCES:
                calls = self.count(role, source=source)
                if calls:
                    total = self.totals(role, source=source)
                    thinking = "?" if total.reasoning_tokens is None else str(total.reasoning_tokens)
                    rows.append(
                        (
                            role,
                            str(calls),
                            str(total.input_tokens),
                            str(total.output_tokens),
                            thinking,
                            "by the provider" if source == "measured" else "by a tokenizer",
                        )
                    )
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if column in {0, len(row) - 1} else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        kinds = [event.kind.value for event in self.events]
        if kinds:
            counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
            lines.append(f"events: {counted}")
        return "\n".join(lines)

    # A lock cannot be pickled or deep-copied, and frameworks do both to what they carry.
    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()
