"""The accounts of a run: every call in a ledger, and a limit on what all of them together may take."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from tale_core.accounts.ledger import Ledger
from tale_core.errors import InvalidValueError, SpendingLimitError
from tale_core.events import UsageEvent
from tale_core.tokens import usage_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tale_core.types import Call, ModelCall, ModelReply, Usage


def usage_event(call: ModelCall, reply: ModelReply, *, question_id: str = "") -> UsageEvent:
    """Return what a call took, as a ledger records it.

    Args:
        call: The call.
        reply: Its answer; without a usage, a tokenizer counts.
        question_id: The question that the call was made for.
    """
    return UsageEvent(
        question_id=question_id,
        role=call.role,
        usage=usage_of(call, reply),
        budget=call.budget,
        model=reply.model,
        finish_reason=reply.finish_reason,
        seconds=reply.seconds,
    )


class Account:
    """What a run spends, and the limit at which it ends; safe under threads.

    Calls under way when the limit is reached are finished and kept, so a run may exceed it by as many calls as
    are made at a time.

    Args:
        max_tokens: Input and output tokens that the run may take; None for no limit.
        max_cost: What the run may cost, in the currency of ``price``; None for no limit.
        price: The price of one call's usage; needed for ``max_cost``.
        max_seconds: Seconds that the run may take; None for no limit.

    Raises:
        InvalidValueError: A cost limit without a price.

    Example:
        >>> from tale_core import Message, ModelCall
        >>> from tale_core.testing import ScriptedModel
        >>> account = Account()
        >>> ask = account.paying(ScriptedModel("3 + 4 = 7"))
        >>> _ = ask(ModelCall(role="reason", messages=(Message(role="user", content="3 + 4?"),)))
        >>> account.spent
        {'calls': 1, 'failed': 0, 'input_tokens': 3, 'output_tokens': 5, 'estimated': 0}
    """

    def __init__(
        self,
        *,
        max_tokens: int | None = None,
        max_cost: float | None = None,
        price: Callable[[Usage], float] | None = None,
        max_seconds: float | None = None,
    ) -> None:
        if max_cost is not None and price is None:
            raise InvalidValueError(
                f"a cost limit of {max_cost:g} needs the model's price, which is unknown; limit the tokens"
            )
        self.ledger = Ledger(keep=1)
        self._max_tokens = max_tokens
        self._max_cost = max_cost
        self._price = price
        self._max_seconds = max_seconds
        self.ends_at = None if max_seconds is None else time.monotonic() + max_seconds
        """When the run ends, on the clock of `time.monotonic`; None for no limit."""
        self._lock = threading.Lock()
        self._failed = 0
        self._cost = 0.0

    @property
    def spent(self) -> dict[str, int]:
        """Calls, failed calls, tokens, and how many of the calls a tokenizer counted."""
        measured, estimated = self._totals()
        return {
            "calls": self.ledger.count(),
            "failed": self._failed,
            "input_tokens": measured.input_tokens + estimated.input_tokens,
            "output_tokens": measured.output_tokens + estimated.output_tokens,
            "estimated": self.ledger.count(source="estimated"),
        }

    def paying(self, call: Call) -> Call:
        """Return the same call, recorded here and refused once the limit is reached.

        Args:
            call: Answers one `ModelCall`.
        """

        def paid(asked: ModelCall) -> ModelReply:
            self._check()
            try:
                reply = call(asked)
            except Exception:
                self._book(asked, None)
                raise
            self._book(asked, reply)
            return reply

        return paid

    def book(self, call: ModelCall, reply: ModelReply | None) -> None:
        """Record a call that was made in another process.

        Args:
            call: The call.
            reply: Its answer; None when it failed.

        Raises:
            SpendingLimitError: The limit is reached.
        """
        self._book(call, reply)
        self._check()

    def _book(self, call: ModelCall, reply: ModelReply | None) -> None:
        if reply is None:
            with self._lock:
                self._failed += 1
            return
        event = usage_event(call, reply)
        self.ledger.record(event)
        if self._price is not None:
            with self._lock:
                self._cost += self._price(event.usage)

    def _check(self) -> None:
        if self.ends_at is not None and time.monotonic() >= self.ends_at:
            raise SpendingLimitError(f"the limit of {self._max_seconds:g} seconds is reached")
        tokens = sum(usage.total_tokens for usage in self._totals())
        if self._max_tokens is not None and tokens >= self._max_tokens:
            raise SpendingLimitError(
                f"the limit of {self._max_tokens:,} tokens is reached: {tokens:,} are spent"
            )
        if self._max_cost is not None and self._cost >= self._max_cost:
            raise SpendingLimitError(f"the limit of {self._max_cost:g} is reached: {self._cost:.4g} is spent")

    def _totals(self) -> tuple[Usage, Usage]:
        return self.ledger.totals(), self.ledger.totals(source="estimated")
