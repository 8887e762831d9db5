"""Gathering an answer from its chunks: usage and the reason to stop come late, and not in the same chunk."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tale_core.tokens import estimate_usage
from tale_core.types import FinishReason, ModelReply, Usage
from tale_llamaindex._convert import checked, finish_of, model_of, raw_text_of, usage_of, visible

if TYPE_CHECKING:
    from tale_llamaindex._convert import Response


@dataclass(slots=True)
class Gathering:
    """One answer on its way, whole or in chunks."""

    prompt: list[str]
    """The texts of the prompt, from which an unreported usage is estimated."""
    started: float = field(default_factory=time.perf_counter)
    last: Response | None = None
    """The latest chunk, or the whole response."""
    deltas: list[str] = field(default_factory=list)
    usage: Usage | None = None
    finish: FinishReason | None = None

    def take(self, response: Response) -> None:
        """Take in one chunk, or the whole response.

        Raises:
            UnexpectedReplyError: It is no response of LlamaIndex's.
        """
        self.last = checked(response)
        self.deltas.append(response.delta or "")
        self.usage = usage_of(response) or self.usage
        self.finish = finish_of(response) or self.finish

    def reply(self, *, closed: bool) -> ModelReply:
        """Return the answer, with an estimate of its usage where the provider reported none.

        Args:
            closed: Whether its reader left before the end.
        """
        seconds = time.perf_counter() - self.started
        generated = "".join(self.deltas)
        if self.last is not None and not (closed and generated):
            generated = raw_text_of(self.last)
        return ModelReply(
            text=visible(generated),
            usage=self.usage or estimate_usage(self.prompt, generated),
            finish_reason="closed" if closed else self.finish,
            model=None if self.last is None else model_of(self.last),
            seconds=seconds,
            native=self.last,
        )
