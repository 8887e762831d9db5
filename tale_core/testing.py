"""Fakes for tests of code that uses TALE: no network, exact token counts."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, TypeAlias

from tale_core.errors import InvalidValueError
from tale_core.types import Message, ModelReply, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tale_core.types import ModelCall

Line: TypeAlias = str | ModelReply | Exception
"""What a scripted model does once: answer with a text or a whole reply, or fail."""


def word_usage(messages: Iterable[Message] | str, answer: str) -> Usage:
    """Return a measured usage that counts words, so that tests can state exact figures."""
    prompt = messages if isinstance(messages, str) else " ".join(one.content for one in messages)
    return Usage(input_tokens=len(prompt.split()), output_tokens=len(answer.split()))


class ScriptedModel:
    """Answers model calls from a script, and keeps them for inspection.

    Works with both drivers: pass the object to `run`, its ``acall`` to `arun`. Safe under threads.

    Args:
        *script: What to do, call by call: a text, a `ModelReply`, or an exception to raise. Texts get a
            usage that counts words.
        estimate: What to answer to every estimator call, in place of the script.
        reason: What to answer to every reasoning call, in place of the script: a line, or a function of the
            call.

    Example:
        >>> from tale_core import TaleMethod, run
        >>> model = ScriptedModel(estimate="[[40]]", reason="3 + 4 = 7")
        >>> run(TaleMethod().begin("How much is 3 + 4?").answer(), model).reply.text
        '3 + 4 = 7'
        >>> [call.role for call in model.calls]
        ['estimate', 'reason']

    Raises:
        InvalidValueError: Neither a script nor an answer for either role was given.
    """

    def __init__(
        self,
        *script: Line,
        estimate: Line | Callable[[ModelCall], Line] | None = None,
        reason: Line | Callable[[ModelCall], Line] | None = None,
    ) -> None:
        if not script and estimate is None and reason is None:
            raise InvalidValueError("give a script, or an answer for estimate= or reason=; got nothing")
        self.calls: list[ModelCall] = []
        self._script = iter(script)
        self._by_role: dict[str, Line | Callable[[ModelCall], Line] | None] = {
            "estimate": estimate,
            "reason": reason,
        }
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def __call__(self, call: ModelCall) -> ModelReply:
        """Answer one call.

        Raises:
            AssertionError: The script has no more lines.
        """
        with self._lock:
            self.calls.append(call)
            number = next(self._numbers)
            line = self._by_role.get(call.role)
            if line is None:
                line = next(self._script, None)
        if callable(line):
            line = line(call)
        if line is None:
            raise AssertionError(f"the script has no line for call {number} ({call.role})")
        if isinstance(line, Exception):
            raise line
        if isinstance(line, ModelReply):
            return line
        return ModelReply(
            text=line, usage=word_usage(call.messages, line), finish_reason="stop", model="scripted"
        )

    async def acall(self, call: ModelCall) -> ModelReply:
        """Answer one call, for asynchronous drivers."""
        return self(call)
