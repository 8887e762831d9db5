"""Meter: counts what a run really takes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tale_core.tokens import usage_of
from tale_core.types import Record

if TYPE_CHECKING:
    from tale_core.types import Call, ModelCall, ModelReply


class Spent(Record):
    """What a run took."""

    calls: int = 0
    """Answered calls."""
    failed: int = 0
    """Calls that raised."""
    input_tokens: int = 0
    """Prompt tokens."""
    output_tokens: int = 0
    """Completion tokens."""
    estimated: int = 0
    """How many of the calls were counted by a tokenizer, not by the provider."""


class Meter:
    """A call that counts: calls, failures and tokens of everything that goes through it; safe under threads.

    Args:
        call: Answers the calls.

    Example:
        >>> from tale_core import Message, ModelCall
        >>> from tale_core.testing import ScriptedModel
        >>> meter = Meter(ScriptedModel("3 + 4 = 7"))
        >>> _ = meter(ModelCall(role="reason", messages=(Message(role="user", content="3 + 4?"),)))
        >>> meter.spent
        Spent(calls=1, failed=0, input_tokens=3, output_tokens=5, estimated=0)
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._spent = Spent()

    @property
    def spent(self) -> Spent:
        """What was counted so far."""
        with self._lock:
            return self._spent

    def __call__(self, call: ModelCall) -> ModelReply:
        """Answer one call, and count it."""
        try:
            reply = self._call(call)
        except Exception:
            self.count(call, None)
            raise
        self.count(call, reply)
        return reply

    def count(self, call: ModelCall, reply: ModelReply | None) -> None:
        """Count one call that was made elsewhere.

        Args:
            call: The call.
            reply: Its answer; None when it failed.
        """
        if reply is None:
            self._add(failed=1)
            return
        usage = usage_of(call, reply)
        self._add(
            calls=1,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            estimated=int(usage.source == "estimated"),
        )

    def _add(self, **counts: int) -> None:
        with self._lock:
            old = self._spent
            self._spent = old.model_copy(
                update={name: getattr(old, name) + count for name, count in counts.items()}
            )
