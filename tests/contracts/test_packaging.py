"""What is written about the distribution agrees with what is in it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

import tale_core

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PACKAGES = ("tale_core", "tale_lab", "tale_langchain", "tale_llamaindex")


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_is_the_same_everywhere(pyproject: dict[str, Any]) -> None:
    assert pyproject["project"]["version"] == tale_core.__version__
    assert f"\n## {tale_core.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_wheel_holds_every_package_and_each_is_typed(pyproject: dict[str, Any]) -> None:
    assert pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == list(PACKAGES)
    assert [package for package in PACKAGES if not (ROOT / package / "py.typed").is_file()] == []


def test_the_base_install_brings_pydantic_and_tiktoken_alone(pyproject: dict[str, Any]) -> None:
    names = [requirement.partition(">")[0] for requirement in pyproject["project"]["dependencies"]]
    assert names == ["pydantic", "tiktoken"]


def test_every_extra_that_an_error_names_exists(pyproject: dict[str, Any]) -> None:
    extras = set(pyproject["project"]["optional-dependencies"])
    assert {"langchain", "llamaindex", "cli", "local", "dev", "all"} <= extras
    assert named_extras() <= extras


def named_extras() -> set[str]:
    """Find the second argument of every ``MissingExtraError(package, extra)`` in the code."""
    import ast

    calls = (
        node
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "MissingExtraError"
    )
    arguments = ([*call.args, *(one.value for one in call.keywords if one.arg == "extra")] for call in calls)
    return {last[-1].value for last in arguments if isinstance(last[-1], ast.Constant)}


def test_the_files_that_contributors_are_sent_to_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| .* \| `(tale_\w+/[\w/]+\.py)` \|$", text, re.MULTILINE)
    assert len(named) >= 10
    assert [name for name in named if not (ROOT / name).is_file()] == []
