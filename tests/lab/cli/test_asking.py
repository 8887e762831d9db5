"""Asking in several ways at once."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tale_core.models.reasoning_controls import prompt_control
from tale_lab.cli._asking import ask_at_once, baselines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tale_core.types import ModelCall, ModelReply


class Endless:
    """Fails when asked directly, and otherwise never stops."""

    model = "endless"
    control = staticmethod(prompt_control)

    def __call__(self, call: ModelCall) -> ModelReply:
        raise AssertionError("nothing here is estimated")

    def stream(self, call: ModelCall) -> Iterator[str | ModelReply]:
        if "directly" in call.messages[-1].content:
            raise ConnectionError("gone")
        yield from itertools.repeat("word ")


def test_when_one_way_fails_the_others_stop() -> None:
    def ignore(piece: str) -> None:
        del piece

    with pytest.raises(ConnectionError, match="gone"):
        ask_at_once(Endless(), baselines("auto"), "How much is 3 + 4?", shows=[ignore, ignore])
