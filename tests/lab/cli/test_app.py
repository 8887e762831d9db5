"""The application: its commands, its errors, and what happens without the extra."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import openai
import pytest

import tale_core
from tale_core.errors import ServerError
from tale_core.testing import ScriptedModel
from tale_lab.cli.app import COMMANDS, load, summary

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    Tale = Callable[..., Result]
    Opened = Callable[..., list[tuple[Any, ...]]]


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("command", ["ask", "demo", "doctor"])
def test_every_command_explains_itself(tale: Tale, command: str) -> None:
    assert command in tale("--help").stdout
    result = tale(command, "--help")
    assert result.exit_code == 0
    assert "--debug" in result.stdout
    assert "--model" in result.stdout


def test_the_version_can_be_asked_for(tale: Tale) -> None:
    assert tale("--version").stdout == f"tale-reasoning {tale_core.__version__}\n"


def test_the_package_runs_as_a_module() -> None:
    done = python("-m", "tale_lab.cli", "--version")
    assert (done.returncode, done.stdout) == (0, f"tale-reasoning {tale_core.__version__}\n")


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_the_extra_one_line_names_the_command_that_brings_it(package: str) -> None:
    done = python("-c", f"import sys; sys.modules[{package!r}] = None; from tale_lab.cli import main; main()")
    assert done.returncode == 1
    assert done.stderr == f"'{package}' is not installed; run: pip install 'tale-reasoning[cli]'\n"


def test_help_imports_no_command() -> None:
    block = "import sys; from tale_lab.cli import main; sys.argv = ['tale', '--help']"
    loaded = "print(*sys.modules, sep='\\n', file=sys.stderr)"
    done = python("-c", f"{block}\ntry:\n    main()\nfinally:\n    {loaded}")
    assert (done.returncode, "doctor" in done.stdout) == (0, True)
    ours = {name for name in done.stderr.split() if name.startswith("tale_lab")}
    assert ours == {"tale_lab", "tale_lab.cli", "tale_lab.cli.app", "tale_lab.cli._shared"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_each_command_what_its_own_help_begins_with(name: str) -> None:
    command = getattr(importlib.import_module(f"tale_lab.cli.{name}"), name)
    assert summary(name) == " ".join(inspect.getdoc(command).partition("\n\n")[0].split())
    assert load(name).help.startswith(summary(name))


def test_a_misspelt_command_is_answered_with_the_one_that_was_meant(tale: Tale) -> None:
    result = tale("serach")
    assert result.exit_code == 2
    assert "Did you mean 'search'?" in result.stderr


@pytest.mark.parametrize(("typed", "offered"), [("tale do", {"doctor"}), ("tale ask --str", {"--strategy"})])
def test_a_shell_completes_commands_and_their_options(typed: str, offered: set[str]) -> None:
    asked = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = python("-m", "tale_lab.cli", _TALE_COMPLETE="complete_bash", **asked)
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize(
    ("command", "former", "given"),
    [
        ("ask", "--style", ["ask", "How much is 3 + 4?", "--style", "direct"]),
        ("ask", "--profile", ["ask", "How much is 3 + 4?", "--profile", "missing.json"]),
        ("tune", "--styles", ["tune", "missing.jsonl", "--test", "missing.jsonl", "--styles", "tale"]),
    ],
)
def test_former_names_of_options_work_and_are_not_shown(
    opened: Opened, tale: Tale, command: str, former: str, given: list[str]
) -> None:
    opened(ScriptedModel("7"))
    assert tale(*given).exit_code != 2  # 2 is an option that there is not
    assert tale(command, "--no-such-option").exit_code == 2
    assert former not in tale(command, "--help").stdout.split()


def ask_with(opened: Opened, tale: Tale, error: Exception, *options: str) -> Result:
    opened(ScriptedModel(error))
    return tale("ask", "How much is 3 + 4?", "--strategy", "direct", *options)


def test_an_error_of_ours_is_one_line(opened: Opened, tale: Tale) -> None:
    result = ask_with(opened, tale, ServerError("http://here does not answer; start it"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: http://here does not answer; start it\n"


def test_an_error_of_the_models_server_is_one_line(opened: Opened, tale: Tale) -> None:
    result = ask_with(opened, tale, openai.OpenAIError("invalid key"))
    assert result.stderr == "error: the model's server says: invalid key\n"


def test_an_unexpected_error_is_one_line_that_says_how_to_see_more(opened: Opened, tale: Tale) -> None:
    result = ask_with(opened, tale, ZeroDivisionError("by zero"))
    assert result.exit_code == 1
    assert result.stderr == "error: unexpected ZeroDivisionError: by zero (--debug shows where)\n"


def test_debug_shows_the_traceback(opened: Opened, tale: Tale) -> None:
    result = ask_with(opened, tale, ServerError("gone"), "--debug")
    assert result.exit_code == 1
    assert result.stderr.startswith("Traceback")
    assert result.stderr.rstrip().endswith("ServerError: gone")


def test_a_wrong_model_string_fails_before_anything_is_loaded(tale: Tale) -> None:
    result = tale("ask", "How much is 3 + 4?", "--model", "gpt-4o-mini")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no model can be opened for 'gpt-4o-mini'; allowed: local,")
