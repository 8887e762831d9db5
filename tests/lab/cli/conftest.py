"""The command line with a scripted model in place of a real one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from tale_core.models.client import ChatClient
from tale_core.models.reasoning_controls import prompt_control
from tale_lab.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from click.testing import Result

    from tale_core.testing import ScriptedModel
    from tale_core.types import ModelCall, ModelReply


class FakeClient:
    """A `ChatClient` that answers from a script; streams word by word."""

    address = "http://scripted/v1"
    control = staticmethod(prompt_control)

    def __init__(self, script: ScriptedModel, model: str = "scripted") -> None:
        self.script = script
        self.model = model

    def __call__(self, call: ModelCall) -> ModelReply:
        return self.script(call)

    def stream(self, call: ModelCall) -> Iterator[str | ModelReply]:
        reply = self.script(call)
        yield from re.findall(r"\S+\s*", reply.text)
        yield reply


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[Any, ...]]]:
    """Give commands a scripted model; the list holds what each asked to open."""

    def use(script: ScriptedModel, model: str = "scripted") -> list[tuple[Any, ...]]:
        asked: list[tuple[Any, ...]] = []

        def fake_open(*arguments: Any, **options: Any) -> FakeClient:
            asked.append((*arguments, {name: value for name, value in options.items() if value is not None}))
            return FakeClient(script, model)

        monkeypatch.setattr(ChatClient, "open", fake_open)
        return asked

    return use


@pytest.fixture
def tale() -> Callable[..., Result]:
    """Run the command line."""

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin)

    return run
