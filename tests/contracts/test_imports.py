"""Imports go one way, and importing costs little and reaches nothing."""

from __future__ import annotations

import ast
import functools
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
LANGCHAIN = ("langchain", "langgraph", "langsmith")
LLAMAINDEX = ("llama_index", "llama_cloud", "workflows")
FORBIDDEN = {
    "tale_core": (*LANGCHAIN, *LLAMAINDEX, "tale_langchain", "tale_llamaindex", "tale_lab"),
    "tale_lab": (*LANGCHAIN, *LLAMAINDEX, "tale_langchain", "tale_llamaindex"),
    "tale_langchain": (*LLAMAINDEX, "tale_llamaindex", "tale_lab"),
    "tale_llamaindex": (*LANGCHAIN, "tale_langchain", "tale_lab"),
}
PACKAGES = [name for name in FORBIDDEN if (ROOT / name / "__init__.py").is_file()]
MODULES = [path for name in FORBIDDEN for path in sorted((ROOT / name).rglob("*.py"))]

# Runs in a fresh interpreter: imports a package under an audit hook that counts everything done with sockets.
PROBE = """
import json, sys, time

before = set(sys.modules)
reached = []
sys.addaudithook(lambda event, args: reached.append(event) if event.startswith("socket.") else None)
start = time.process_time()
__import__(sys.argv[1])
seconds = time.process_time() - start
added = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
added = sorted(name for name in added if not name.startswith("_sysconfigdata"))  # the standard library's, too
print(json.dumps({"added": added, "reached": reached, "seconds": seconds}))
"""


def imported(path: Path) -> Iterator[str]:
    """Yield every module that a file names in an import, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module


def belongs(module: str, families: tuple[str, ...]) -> bool:
    top = module.partition(".")[0]
    return any(top == family or top.startswith(f"{family}_") for family in families)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_imports_against_the_direction_not_even_lazily(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert [module for module in imported(path) if belongs(module, FORBIDDEN[package])] == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import langchain_core.messages", ["langchain_core.messages"]),
        ("def f():\n    from llama_index.core import Settings", ["llama_index.core"]),
        ("import importlib\nimportlib.import_module('langchain')", ["importlib", "langchain"]),
        ("__import__('langgraph')", ["langgraph"]),
        ("from . import sibling", []),
    ],
)
def test_the_check_sees_every_way_to_import(tmp_path: Path, source: str, found: list[str]) -> None:
    path = tmp_path / "module.py"
    path.write_text(source)
    assert list(imported(path)) == found
    assert belongs("langchain_core.messages", LANGCHAIN)
    assert not belongs("langchainish", LANGCHAIN)


@functools.cache
def probe(package: str) -> dict[str, Any]:
    ran = subprocess.run(  # noqa: S603  # this interpreter, a constant script
        [sys.executable, "-c", PROBE, package], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    result: dict[str, Any] = json.loads(ran.stdout)  # nothing else was printed
    return result


def test_importing_the_core_opens_no_socket_and_loads_pydantic_alone() -> None:
    result = probe("tale_core")
    pydantic = {"annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection"}
    assert set(result["added"]) - pydantic == {"tale_core"}
    assert result["reached"] == []
    assert result["seconds"] < 1.5  # processor time; about 0.2 on a laptop


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_reaches_no_network_and_loads_no_other_framework(package: str) -> None:
    result = probe(package)
    # urllib3, which both frameworks import, binds a socket of this machine to see whether it speaks IPv6.
    assert set(result["reached"]) <= {"socket.__new__", "socket.bind"}
    assert [module for module in result["added"] if belongs(module, FORBIDDEN[package])] == []


@pytest.mark.parametrize(
    ("package", "framework", "extra"),
    [("tale_langchain", "langchain_core", "langchain"), ("tale_llamaindex", "llama_index", "llamaindex")],
)
def test_importing_a_package_without_its_framework_names_the_extra(
    package: str, framework: str, extra: str
) -> None:
    script = f"import sys; sys.modules[{framework!r}] = None; import {package}"
    ran = subprocess.run(  # noqa: S603  # this interpreter, a constant script
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert f"MissingExtraError: '{framework}" in ran.stderr
    assert f"pip install 'tale-reasoning[{extra}]'" in ran.stderr


@pytest.mark.parametrize("package", ["langchain", "langgraph"])
@pytest.mark.parametrize("name", ["TALEMiddleware", "TokenLimitMiddleware"])
def test_importing_a_middleware_without_what_it_needs_names_the_extra(name: str, package: str) -> None:
    script = f"import sys; sys.modules[{package!r}] = None; import tale_langchain; tale_langchain.{name}"
    ran = subprocess.run(  # noqa: S603  # this interpreter, a constant script
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT
    )
    last = ran.stderr.splitlines()[-1]
    assert f"MissingExtraError: '{package}" in last
    assert "is not installed; run: pip install 'tale-reasoning[langchain]'" in last


@pytest.mark.parametrize(
    ("former", "place"),
    [
        ("tale_core.evaluation", "from tale_lab"),
        ("tale_core.evaluation.store", "from tale_lab"),
        ("tale_core.profile", "tale_core.method.calibration"),
        ("tale_core.cli", "tale_lab.cli"),
        ("tale_core.ledger", "tale_core.accounts.ledger"),
    ],
)
def test_an_import_of_a_moved_module_says_where_it_is_now(former: str, place: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=re.escape(f"has moved: import {place}")):
        importlib.import_module(former)


@pytest.mark.parametrize("former", ["tale_langchain.testing", "tale_llamaindex.testing"])
def test_an_import_of_the_former_fakes_names_those_of_the_framework(former: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"is gone: use .*(FakeListChatModel|MockLLM) instead"):
        importlib.import_module(former)


def test_a_module_that_never_was_is_not_found_in_the_ordinary_way() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'tale_core\.nothing'"):
        importlib.import_module("tale_core.nothing")
