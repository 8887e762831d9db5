"""Gathering an answer from its chunks: usage and the reason to stop come late, and not in the same chunk."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tale_core.models.replies import to_model_reply, visible
from tale_llamaindex._convert import calls_tools, checked, ending_of, model_of, raw_text_of, usage_of

if TYPE_CHECKING:
    from tale_core.models.replies import Ending
    from tale_core.types import ModelReply, Usage
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
    ending: Ending | None = None
    calls_tools: bool = False

    def take(self, response: Response) -> None:
        """Take in one chunk, or the whole response.

        Raises:
            UnexpectedReplyError: It is no response of LlamaIndex's.
        """
        self.last = checked(response)
        self.deltas.append(response.delta or "")
        self.usage = usage_of(response) or self.usage
        self.ending = ending_of(response) or self.ending
        self.calls_tools = self.calls_tools or calls_tools(response)

    def reply(self, *, closed: bool, failing: bool = True) -> ModelReply:
        """Return the answer, with an estimate of its usage where the provider reported none.

        Args:
            closed: Whether its reader left before the end.
            failing: Whether an answer that the provider broke off fails; observers only account for it.

        Raises:
            ServerError: The provider failed in the middle of the answer.
        """
        seconds = time.perf_counter() - self.started
        generated = "".join(self.deltas)
        if self.last is not None and not (closed and generated):
            generated = raw_text_of(self.last)
        broken_off = self.ending == "error" and not failing
        return to_model_reply(
            visible(generated),
            prompt=self.prompt,
            written=lambda: generated,
            ending=None if broken_off else self.ending,
            usage=self.usage,
            calls_tools=self.calls_tools,
            ended=not closed,
            model=None if self.last is None else model_of(self.last),
            seconds=seconds,
            native=self.last,
        )
