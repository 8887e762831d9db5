"""Names that are imported when they are first used (PEP 562), and modules that have moved."""

from __future__ import annotations

import ast
import functools
import importlib
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_MOVED = {
    **dict.fromkeys(("arithmetic", "policy", "question"), "tale_core.method.{}"),
    **dict.fromkeys(("ledger", "telemetry"), "tale_core.accounts.{}"),
    **dict.fromkeys(("client", "model_families", "model_strings", "providers"), "tale_core.models.{}"),
    **dict.fromkeys(("cli", "training"), "tale_lab.{}"),
    "candidates": "tale_lab.tuning.candidates",
    "curves": "tale_core.search.curves",
    "elasticity": "tale_core.method.plan",
    "engines": "tale_lab.runs.engines",
    "evaluation": "from tale_lab (questions, results, runs, bench, curves)",
    "exemplars": "tale_core.prompts.exemplars",
    "harvest": "tale_lab.tuning.exemplar_mining",
    "logs": "tale_core.accounts.ledger",
    "knobs": "tale_core.models.reasoning_controls",
    "pace": "tale_core.flows",
    "probing": "tale_core.search.graded_call",
    "profile": "tale_core.method.calibration",
    "tuning": "tale_lab.tuning.race",
}
_GONE = {
    "tale_langchain.testing": "use a fake of LangChain's, such as FakeListChatModel",
    "tale_llamaindex.testing": "use LlamaIndex's MockLLM",
}


def lazy_names(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of the package whose ``__file__`` is ``file``.

    The names are those of the stub beside it (``__init__.pyi``), which type checkers read too: one list.
    """

    @functools.cache
    def places() -> dict[str, str]:
        # Read when a name is first asked for: most imports name a module.
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


class MovedModules(MetaPathFinder):
    """Answers an import of a former place with a sentence that names the present one.

    Comes last on ``sys.meta_path``, so it sees only what no other finder has found.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname in _GONE:
            raise ModuleNotFoundError(f"{fullname} is gone: {_GONE[fullname]} instead", name=fullname)
        package, _, rest = fullname.partition(".")
        if package != "tale_core" or not rest:
            return None
        name = rest.partition(".")[0]
        if name not in _MOVED:
            return None
        raise ModuleNotFoundError(
            f"{fullname} has moved: import {_MOVED[name].format(name)} instead", name=fullname
        )
