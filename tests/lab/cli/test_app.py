"""The application: its commands, its errors, and what happens without the extra."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import openai
import pytest

import tale_core
from tale_core.errors import ServerError
from tale_core.testing import ScriptedModel

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


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_the_extra_the_demo_run_as_a_module_names_the_command_too(package: str) -> None:
    block = f"import runpy, sys; sys.modules[{package!r}] = None"
    done = python("-c", f"{block}; runpy.run_module('tale_lab.cli.demo', run_name='__main__')")
    error, _, command = done.stderr.splitlines()[-1].rpartition("; run: ")
    assert error.endswith(f"MissingExtraError: '{package}' is not installed")
    assert command == "pip install 'tale-reasoning[cli]'"


HEAVY = [
    "numpy",
    "scipy",
    "sklearn",
    "plotly",
    "matplotlib",
    "openai",
    "xllamacpp",
    "langchain_core",
    "llama_index",
]


def test_commands_start_without_what_only_some_of_them_need() -> None:
    block = f"import sys; sys.modules.update(dict.fromkeys({HEAVY}))"
    done = python("-c", f"{block}; from tale_lab.cli import main; sys.argv = ['tale', '--help']; main()")
    assert done.returncode == 0, done.stderr
    assert "doctor" in done.stdout


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
    assert isinstance(result.exception, ServerError)


def test_a_wrong_model_string_fails_before_anything_is_loaded(tale: Tale) -> None:
    result = tale("ask", "How much is 3 + 4?", "--model", "gpt-4o-mini")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no model can be opened for 'gpt-4o-mini'; allowed: local,")
