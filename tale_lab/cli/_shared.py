"""What commands share: consoles, options, JSON output and error handling.

A command is a plain function with typer annotations; `tale_lab.cli.app` lists it, wrapped in `guarded`.
Results go to ``out`` (stdout), everything about them to ``err`` (stderr), so that pipes carry results alone.
"""

from __future__ import annotations

import errno
import functools
import inspect
import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import typer
from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from tale_core.errors import InvalidValueError, TaleError
from tale_core.shown import printable, printable_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import ConsoleOptions, RenderableType
    from rich.status import Status

T = TypeVar("T")


class SafeConsole(Console):
    """A console on which nothing that came from outside reaches the terminal as an escape sequence.

    Everything that rich draws passes through `render`, tables and progress included, so no command has to think
    of it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a string printable before it is laid out, so that columns keep their widths."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Make printable what is drawn, but for the console's own control sequences."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
                continue
            # A link is an escape sequence too, and we show none.
            style = segment.style.update_link(None) if segment.style and segment.style.link else segment.style
            yield Segment(printable(segment.text), style)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """Show an activity; its text is no markup, which rich would read it as."""
        return super().status(Text(printable(status)) if isinstance(status, str) else status, **options)

    def write(self, piece: str) -> None:
        """Write a piece of an answer as it comes, without layout."""
        self.file.write(printable(piece))
        self.file.flush()


out = SafeConsole()
"""For results."""
err = SafeConsole(stderr=True)
"""For everything else: notes, progress, errors."""

FAILED = 1
"""Exit status of a command that failed."""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

ModelOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="local, local:NAME, openai:NAME, or the address of an OpenAI-compatible server "
        "(http://HOST:PORT/v1, with #NAME where it has several models).",
    ),
]
ModelPathOption: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="GGUF file to serve instead of the local model's own.")
]
CalibrationOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Calibration file that tale tune wrote, instead of the shipped one."),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
DebugOption: TypeAlias = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def check_writable(*paths: Path | None) -> None:
    """Fail before the first call where a file could not be written after the last one.

    Raises:
        InvalidValueError: The folder of a path is missing, or neither it nor the file can be written.
    """
    for path in filter(None, paths):
        folder = path.resolve().parent
        if not folder.is_dir():
            raise InvalidValueError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")
        if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
            raise InvalidValueError(
                f"cannot write {str(path)!r}: name a file in a folder that you may write to"
            )


def print_json(data: Any) -> None:
    """Print data as JSON on stdout, the same on a terminal and in a pipe."""
    # Escapes, not replacements: what reads the JSON gets every character.
    typer.echo(printable_json(json.dumps(_with_former_keys(data), ensure_ascii=False, indent=2)))


_FORMER_KEYS = {"strategy": "style", "calibration": "profile"}


def _with_former_keys(data: Any) -> Any:
    """Return JSON data with the former names of its keys added: keys are only ever added to."""
    if isinstance(data, dict):
        named = {key: _with_former_keys(value) for key, value in data.items()}
        former = {old: named[new] for new, old in _FORMER_KEYS.items() if new in named}
        return {**former, **named}
    return [_with_former_keys(one) for one in data] if isinstance(data, list | tuple) else data


def guarded(command: Callable[..., T]) -> Callable[..., T]:
    """Return the command with an option ``--debug``, and with errors that are one line."""

    @functools.wraps(command)
    def run(*, debug: bool = False, **arguments: Any) -> T:
        try:
            return command(**arguments)
        except KeyboardInterrupt:
            err.print("\nstopped", style="yellow")
            raise typer.Exit(INTERRUPTED) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as exc:
            if isinstance(exc, OSError) and exc.errno == errno.EPIPE:
                raise  # typer ends quietly on a closed pipe
            if debug:
                err.print("".join(traceback.format_exception(exc)), soft_wrap=True)
                raise typer.Exit(FAILED) from None
            err.print(f"error: {_in_words(exc)}", style="bold red", soft_wrap=True)
            raise typer.Exit(FAILED) from None

    # Typer reads the options from the signature.
    signature = inspect.signature(command, eval_str=True)
    option = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=DebugOption)
    parameters = {**signature.parameters, "debug": option}
    run.__signature__ = signature.replace(parameters=list(parameters.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: one.annotation for name, one in parameters.items()}
    return run


def _in_words(exc: Exception) -> str:
    """Return an error for people: ours and the provider's say it themselves, others are named."""
    openai = sys.modules.get("openai")
    if isinstance(exc, TaleError):
        return str(exc)
    if openai is not None and isinstance(exc, openai.OpenAIError):
        return f"the model's server says: {exc}"
    return f"unexpected {type(exc).__name__}: {exc} (--debug shows where)"
