"""The application: every command by its name, its module imported only when the command is used."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tale_core import __version__
from tale_lab.cli._shared import guarded, out

COMMANDS = (
    "ask",
    "doctor",
    "demo",
    "search",
    "elasticity",
    "fit",
    "tune",
    "bench",
    "report",
    "export",
    "internalise",
)
"""Each is a function of this name in a module of this name, in this package."""

_FORMER = {
    "profile": "calibration",
    "style": "strategy",
    "styles": "strategies",
    "second-try": "retry",
    "no-second-try": "no-retry",
}


class LazyGroup(TyperGroup):
    """Imports a command's module when the command is run or its own help is asked for, not to list it."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command's place in a list: its name and the first sentences of its help."""
        listed = super().get_command(ctx, cmd_name)
        if listed is not None and not listed.help:
            listed.help = summary(cmd_name)
        return listed

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command itself, which comes with its options and with everything it imports."""
        name, listed, rest = super().resolve_command(ctx, args)
        # While a shell completes, there may be no command yet.
        return name, None if listed is None else load(listed.name or ""), rest


def summary(name: str) -> str:
    """Return the first paragraph of a command's docstring, read from its file without importing it."""
    module = ast.parse(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))
    functions = (node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == name)
    text = next((ast.get_docstring(node) for node in functions), None)
    return " ".join((text or "").partition("\n\n")[0].split())


@functools.cache
def load(name: str) -> Any:
    """Return a command with its options."""
    command = getattr(importlib.import_module(f"tale_lab.cli.{name}"), name)
    # Typer keeps the line breaks of all paragraphs but the first, which no terminal has room for.
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    one = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    one.command(help="\n\n".join(" ".join(words.split()) for words in paragraphs))(guarded(command))
    return typer.main.get_command(one)


app = typer.Typer(
    name="tale",
    cls=LazyGroup,
    help="Token-budget-aware reasoning: shorter answers that stay right.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        # Former names of options, which the help does not show.
        "token_normalize_func": lambda name: _FORMER.get(name, name),
    },
)


def _placeholder() -> None: ...


for _name in COMMANDS:
    app.command(_name)(_placeholder)


def _show_version(*, wanted: bool) -> None:
    if wanted:
        out.print(f"tale-reasoning {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version  # its callback did everything
