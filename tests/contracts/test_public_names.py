"""What a package offers is what its ``__all__`` says, and all of it is documented."""

from __future__ import annotations
import __future__

import ast
import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).parents[2]
TOP = [
    name
    for name in ("tale_core", "tale_lab", "tale_langchain", "tale_llamaindex")
    if (ROOT / name / "__init__.py").is_file()
]
MODULES = sorted(path for name in TOP for path in (ROOT / name).rglob("*.py"))
# Every package that says what it offers, sub-packages too.
OFFERING = [
    ".".join(path.parent.relative_to(ROOT).parts)
    for path in MODULES
    if path.name == "__init__.py" and any(word in path.read_text("utf-8") for word in ("__all__", "lazy_names"))
]


def public_names(module: ModuleType) -> set[str]:
    return {
        name
        for name in dir(module)
        if not name.startswith("_")
        and not inspect.ismodule(getattr(module, name))
        and not isinstance(getattr(module, name), __future__._Feature)
    }


def in_order(name: str) -> tuple[int, str]:
    """Sort as ruff sorts ``__all__``: constants, then classes, then functions."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("package", TOP)
def test_each_package_says_what_it_offers(package: str) -> None:
    assert package in OFFERING


@pytest.mark.parametrize("package", OFFERING)
def test_all_is_sorted_and_names_everything_public(package: str) -> None:
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(set(module.__all__), key=in_order)
    assert set(module.__all__) == public_names(module)


def test_the_errors_are_all_offered_at_the_top() -> None:
    core, errors = importlib.import_module("tale_core"), importlib.import_module("tale_core.errors")
    raised = {name for name in public_names(errors) if name.endswith("Error") and name != "ValidationError"}
    assert raised <= set(core.__all__)


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Yield the public functions, classes and methods of a module that have no docstring."""
    waiting: list[tuple[str, ast.AST]] = [("", tree)]
    while waiting:
        prefix, parent = waiting.pop()
        for node in ast.iter_child_nodes(parent):
            match node:
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    if name.startswith("_"):
                        continue
                    if not ast.get_docstring(node) and not is_repeated(node):
                        yield prefix + name
                    if isinstance(node, ast.ClassDef):
                        waiting.append((f"{prefix}{name}.", node))


def is_repeated(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a definition is documented elsewhere: a setter, an overload, an override."""
    names = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    return bool(names & {"setter", "overload", "override"})


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    private = path.name.startswith("_") and path.name != "__init__.py"
    assert private or list(undocumented(tree)) == []
