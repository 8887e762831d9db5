"""The source tree keeps its shape: sizes, directions, and what an import loads; see benchmarks/structure.py."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]
MOST = {
    "lines of the packages": 26_900,
    "core modules loaded by `import tale_langchain`": 20,
    "core lines loaded by `import tale_langchain`": 3_000,
    "core modules loaded by `from tale_langchain import TALERunnable`": 20,
    "core lines loaded by `from tale_langchain import TALERunnable`": 3_000,
}
"""The most that there may be of each. A limit is raised only with a reason in the commit message."""
NOT_YET: set[str] = set()
"""Those that are above their limit at 42528ed; each goes from here once it is not."""
NOT_FOR_HELP = {"plotly", "matplotlib", "sklearn", "scipy", "openai"}
"""What ``tale --help`` does not load."""


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


structure: Any = _load(ROOT / "benchmarks" / "structure.py")
TREE = structure.Tree(ROOT)
EVERYWHERE = ("module", "typing", "function")


@functools.cache
def loaded(statement: str) -> dict[str, Any]:
    found: dict[str, Any] = TREE.loaded(statement)
    return found


def figure(name: str) -> int:
    if name == "lines of the packages":
        return int(TREE.sizes()["lines"])
    what, _, statement = name.strip("`").partition(" loaded by `")
    return int(loaded(statement)[what.removeprefix("core ")])


def limit(name: str) -> Any:
    marks = [pytest.mark.xfail(strict=True, reason="above its limit")] if name in NOT_YET else []
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", map(limit, MOST))
def test_there_is_no_more_than(name: str) -> None:
    assert figure(name) <= MOST[name]


@pytest.mark.parametrize("statement", structure.STATEMENTS)
def test_an_import_loads_no_lab(statement: str) -> None:
    assert loaded(statement)["lab"] == []


def test_help_loads_no_heavy_package() -> None:
    assert set(structure.HEAVY) >= NOT_FOR_HELP  # those are looked for
    assert NOT_FOR_HELP & set(TREE.loaded_by_help()["heavy"]) == set()


def test_no_modules_import_each_other_when_they_are_loaded() -> None:
    assert TREE.circles(["module"]) == []


def test_no_modules_name_each_other_in_lazy_or_typing_imports_either() -> None:
    assert TREE.circles(EVERYWHERE) == []


def test_no_import_goes_against_the_direction() -> None:
    assert TREE.arrows() == []


# That the checks would see it, on trees made for the purpose:


def tree_of(folder: Path, **files: str) -> Any:
    """Return a tree of files, named as ``package__module``."""
    for name, text in files.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    return structure.Tree(folder)


LAZY = "def f():\n    {}\n"
TYPING = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {}\n"


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("{}", "module"),
        ("try:\n    {}\nexcept ImportError:\n    pass\n", "module"),
        ("class A:\n    {}\n", "module"),
        (TYPING, "typing"),
        (LAZY, "function"),
    ],
)
@pytest.mark.parametrize(
    "statement",
    [
        "from tale_lab.b import x",
        "from tale_lab import b",
        "import tale_lab.b",
        "import importlib; importlib.import_module('tale_lab.b')",
    ],
)
def test_every_import_against_the_direction_is_seen(
    tmp_path: Path, statement: str, way: str, kind: str
) -> None:
    tree = tree_of(tmp_path, tale_core__a=way.format(statement), tale_lab__b="from tale_core import a")
    assert tree.arrows() == [f"tale_core.a -> tale_lab.b ({kind})"]
    assert tree.circles(EVERYWHERE) == [["tale_core.a", "tale_lab.b"]]
    assert bool(tree.circles(["module"])) == (kind == "module")


def test_adapters_do_not_import_each_other_nor_the_lab(tmp_path: Path) -> None:
    tree = tree_of(
        tmp_path,
        tale_core__a="",
        tale_lab__b="from tale_core.a import x",
        tale_langchain__c="from tale_core.a import x\nfrom tale_lab.b import y",
        tale_llamaindex__d="from . import e\nfrom tale_langchain.c import z",
        tale_llamaindex__e="",
    )
    assert tree.arrows() == [
        "tale_langchain.c -> tale_lab.b (module)",
        "tale_llamaindex.d -> tale_langchain.c (module)",
    ]
    assert tree.circles(EVERYWHERE) == []


def test_a_module_that_was_of_the_lab_before_there_was_one_counts_as_lab(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, tale_core__a="import tale_core.tuning", tale_core__tuning="")
    assert tree.arrows() == ["tale_core.a -> tale_core.tuning (module)"]


def test_sizes_are_counted(tmp_path: Path) -> None:
    text = "# why\n\ndef f():\n    x = '# no'  # because\n    return x\n"
    sizes = tree_of(tmp_path, tale_core__a=text).sizes()
    assert sizes["tale_core, files"] == sizes["files"] == 2
    assert sizes["lines"] == sizes["lines of a file, most"] == 5
    assert sizes["lines of a function, most"] == 3
    assert sizes["lines with a comment, %"] == 40
