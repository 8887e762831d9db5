"""Public names that cost nothing until they are used (PEP 562), told from the package's stub."""

from __future__ import annotations

import ast
import functools
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def lazy_names(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__``.

    Type checkers read the stub beside the package's file (``__init__.pyi``); so does this, and nobody has to
    keep a second list.

    Args:
        package: The package's name.
        file: Its ``__file__``.
    """

    @functools.cache
    def places() -> dict[str, str]:
        stub = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
        return {
            alias.asname or alias.name: node.module or ""
            for node in stub.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }

    def get(name: str) -> Any:
        module = importlib.import_module(package)
        if name == "__all__":
            value: Any = sorted(places(), key=_in_order)
        elif name in places():
            value = getattr(importlib.import_module(places()[name]), name)
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(module, name, value)  # the next time it is an ordinary attribute
        return value

    def names() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *places()})

    return get, names


def _in_order(name: str) -> tuple[int, str]:
    """Sort as ruff sorts ``__all__``: constants, then classes, then functions."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2), name
