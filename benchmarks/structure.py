"""How the source tree is built: its size, what an import loads, who imports whom, and how far a call walks.

    python benchmarks/structure.py                        # this checkout, as Markdown, in under a minute
    python benchmarks/structure.py --root ../old .        # two checkouts side by side
    python benchmarks/structure.py --json

Everything is read from the files of that checkout, or measured in fresh processes that import from there.
`structure.md` says how each figure is counted, and keeps the ones of earlier commits.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import statistics
import subprocess
import sys
import tokenize
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

HERE = Path(__file__).resolve().parent
PACKAGES = ("tale_core", "tale_lab", "tale_langchain", "tale_llamaindex")
MAY_IMPORT = {name: {name, "tale_core"} for name in PACKAGES}
"""Directions: everything stands on the core, the core on nothing of ours."""
LAB_BEFORE = ("evaluation", "training", "engines", "cli", "tuning", "candidates", "harvest")
"""What was in tale_core before there was a tale_lab; counts as lab in a checkout without one."""
HEAVY = ("plotly", "matplotlib", "sklearn", "scipy", "openai", "ray", "torch")
"""Packages that help texts need not load."""
STATEMENTS = (
    "import tale_core",
    "import tale_langchain",
    "from tale_langchain import TALERunnable",
    "import tale_llamaindex",
)
RUNS = 7
"""Fresh processes for each processor time; the least counts, since other work can only add."""

Kind = Literal["module", "typing", "function"]
"""Where an import stands: it runs with the module, is there for type checkers, or runs within a function."""


@dataclass(frozen=True)
class Edge:
    """One module of ours that names another in an import."""

    source: str
    target: str
    kind: Kind


@dataclass(frozen=True)
class Source:
    """One file."""

    path: Path
    module: str

    @cached_property
    def text(self) -> str:
        """What the file holds."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """What Python reads in it."""
        return ast.parse(self.text)

    @property
    def package(self) -> str:
        """The top package."""
        return self.module.partition(".")[0]

    @property
    def lines(self) -> int:
        """The number of lines, empty ones and docstrings included."""
        return self.text.count("\n")

    @property
    def comments(self) -> int:
        """The number of lines that hold a comment."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return sum(token.type == tokenize.COMMENT for token in tokens)

    def functions(self) -> Iterator[int]:
        """Yield the lines of each function and method, from its ``def`` on."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield (node.end_lineno or node.lineno) - node.lineno + 1


class Tree:
    """The packages of a checkout.

    Args:
        root: The checkout.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.packages = [name for name in PACKAGES if (self.root / name / "__init__.py").is_file()]
        paths = [path for name in self.packages for path in sorted((self.root / name).rglob("*.py"))]
        self.sources = {
            source.module: source for source in (Source(path, self._module(path)) for path in paths)
        }

    @property
    def command(self) -> str:
        """The package of the command ``tale``."""
        return "tale_lab.cli" if "tale_lab" in self.packages else "tale_core.cli"

    def side(self, module: str) -> str:
        """Return the package that a module belongs to by the directions, the lab's old home included."""
        top, *rest = module.split(".")
        moved = "tale_lab" not in self.packages and top == "tale_core" and rest[:1] and rest[0] in LAB_BEFORE
        return "tale_lab" if moved else top

    def sizes(self) -> dict[str, Any]:
        """Return files and lines by package and in total, and how long files and functions are."""
        by_package = {
            name: [source for source in self.sources.values() if source.package == name]
            for name in self.packages
        }
        every = list(self.sources.values())
        lines = [source.lines for source in every]
        functions = sorted(length for source in every for length in source.functions())
        return {
            **{f"{name}, files": len(sources) for name, sources in by_package.items()},
            **{f"{name}, lines": sum(one.lines for one in sources) for name, sources in by_package.items()},
            "files": len(every),
            "lines": sum(lines),
            "lines of a file, median": round(statistics.median(lines)),
            "lines of a file, most": max(lines),
            "lines of a function, median": round(statistics.median(functions)),
            "lines of a function, 90th percentile": functions[len(functions) * 9 // 10],
            "lines of a function, most": functions[-1],
            "lines with a comment, %": round(100 * sum(one.comments for one in every) / sum(lines), 1),
        }

    def edges(self) -> set[Edge]:
        """Return every import of one module of ours by another, wherever it stands."""
        return {edge for source in self.sources.values() for edge in self._edges(source)}

    def circles(self, kinds: Iterable[Kind]) -> list[list[str]]:
        """Return the groups of modules that import each other, over imports of some kinds.

        An import of ``a.b`` counts as one of that module, not of ``a/__init__.py``, which Python runs first.
        """
        allowed = set(kinds)
        graph: dict[str, set[str]] = {name: set() for name in self.sources}
        for edge in self.edges():
            if edge.kind in allowed and edge.source != edge.target:
                graph[edge.source].add(edge.target)
        reached = {name: _reached(graph, name) for name in graph}
        groups = {
            tuple(sorted(other for other in reached[name] if name in reached[other]))
            for name in graph
            if name in reached[name]
        }
        return sorted(map(list, groups))

    def arrows(self) -> list[str]:
        """Return the imports against the direction, lazy ones and those for type checkers included."""
        found = {
            f"{edge.source} -> {edge.target} ({edge.kind})"
            for edge in self.edges()
            if self.side(edge.target) not in MAY_IMPORT[self.side(edge.source)]
        }
        return sorted(found)

    def loaded(self, statement: str) -> dict[str, Any]:
        """Return what a statement loads in a fresh process: our modules, and heavy packages."""
        script = f"{statement}\nimport json, sys; print(json.dumps([*sys.modules]))"
        names: list[str] = json.loads(self.run("-c", script).splitlines()[-1])
        core = [one for one in names if one in self.sources and self.side(one) == "tale_core"]
        return {
            "modules": len(core),
            "lines": sum(self.sources[one].lines for one in core),
            "lab": sorted(
                one for one in names if one.partition(".")[0] in PACKAGES and self.side(one) == "tale_lab"
            ),
            "heavy": sorted({one.partition(".")[0] for one in names} & {*HEAVY}),
        }

    def loaded_by_help(self) -> dict[str, Any]:
        """Return what ``tale --help`` loads."""
        return self.loaded(
            f"import sys; sys.argv = ['tale', '--help']\nfrom {self.command} import main\n"
            "try:\n    main()\nexcept SystemExit:\n    pass"
        )

    def seconds(self) -> dict[str, float]:
        """Return the processor time of imports and of ``tale --help``, each the least of several processes."""
        script = "import time\nimport pydantic\nfrom pydantic import BaseModel\nbegan = time.process_time()\n"
        script += "import tale_core\nprint(time.process_time() - began)"
        shown = f"import sys; sys.argv = ['tale', '--help']; from {self.command} import main; main()"
        return {
            "`import tale_core` after `import pydantic`": min(
                float(self.run("-c", script)) for _ in range(RUNS)
            ),
            "`tale --help`": min(self._processor_time("-c", shown) for _ in range(RUNS)),
        }

    def walks(self) -> dict[str, dict[str, int]]:
        """Return calls, files and depth of our functions on each trip."""
        printed = self.run(str(HERE / "_structure_walks.py"), str(self.root), self.command)
        found: dict[str, dict[str, int]] = json.loads(printed.splitlines()[-1])
        return found

    def run(self, *arguments: str) -> str:
        """Run Python with the packages of this checkout, and return what it prints."""
        ran = subprocess.run(  # noqa: S603  # this interpreter
            [sys.executable, *arguments],
            env=self._environment(),
            cwd=self.root,  # Python looks there first
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise SystemExit(f"{self.root}: {' '.join(arguments)[:200]}\n{ran.stderr}")
        return ran.stdout

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.root), "COLUMNS": "100"}

    def _processor_time(self, *arguments: str) -> float:
        command = [sys.executable, *arguments]
        with subprocess.Popen(  # noqa: S603  # this interpreter
            command, env=self._environment(), cwd=self.root, stdout=subprocess.DEVNULL
        ) as process:
            _, _, usage = os.wait4(process.pid, 0)
            process.returncode = 0  # waited for
        return usage.ru_utime + usage.ru_stime

    def _module(self, path: Path) -> str:
        parts = path.relative_to(self.root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def _edges(self, source: Source) -> Iterator[Edge]:
        for node, kind in _placed(source.tree, "module"):
            for target in self._targets(source, node):
                yield Edge(source.module, target, kind)

    def _targets(self, source: Source, node: ast.AST) -> Iterator[str]:
        """Yield the modules of ours that a statement imports."""
        named: list[str] = []
        match node:
            case ast.Import(names=names):
                named = [alias.name for alias in names]
            case ast.ImportFrom(module=module, names=names, level=level):
                base = source.module.split(".")
                base = base[: len(base) - level + (source.path.name == "__init__.py")] if level else []
                start = ".".join([*base, *([module] if module else [])])
                whole = (f"{start}.{alias.name}" for alias in names)
                named = [name if name in self.sources else start for name in whole]
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                named = [name]
        yield from (name for name in named if name in self.sources)


def _placed(node: ast.AST, kind: Kind) -> Iterator[tuple[ast.AST, Kind]]:
    """Yield every node below one, with the kind that an import there is."""
    for child in ast.iter_child_nodes(node):
        inner = kind
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inner = "function"
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            inner = "typing"
        yield child, inner
        yield from _placed(child, inner)


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    todo = [*graph[start]]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += graph[name]
    return found


def figures(tree: Tree) -> dict[str, Any]:
    """Return every figure by its name."""
    found = tree.sizes()
    for statement in STATEMENTS:
        loaded = tree.loaded(statement)
        found[f"`{statement}`: core modules"] = loaded["modules"]
        found[f"`{statement}`: core lines"] = loaded["lines"]
        found[f"`{statement}`: lab modules"] = len(loaded["lab"])
    found["heavy packages in `tale --help`"] = ", ".join(tree.loaded_by_help()["heavy"]) or "none"
    found |= {f"{name}, processor seconds": round(value, 3) for name, value in tree.seconds().items()}
    at_import, anywhere = tree.circles(["module"]), tree.circles(["module", "typing", "function"])
    found["import circles"] = len(at_import)
    found["import circles, typing and lazy imports included"] = len(anywhere)
    found["modules in them"] = sum(map(len, anywhere))
    found["arrows against the direction"] = len(tree.arrows())
    for name, walk in tree.walks().items():
        found[f"{name}: calls / files / depth"] = f"{walk['calls']} / {walk['files']} / {walk['depth']}"
    return found


def details(tree: Tree) -> dict[str, Sequence[Any]]:
    """Return what some figures count."""
    return {"circles": tree.circles(["module", "typing", "function"]), "arrows": tree.arrows()}


def commit(root: Path) -> str:
    """Return the commit of a checkout, or the name of its folder where git does not know."""
    command = ["git", "-C", str(root), "rev-parse", "--short=7", "HEAD"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return ran.stdout.strip() or root.resolve().name


def markdown(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table with one column of figures for each checkout."""
    names = dict.fromkeys(name for figures in columns.values() for name in figures)
    lines = [["figure", *columns], ["---", *("---:" for _ in columns)]]
    lines += [[name, *(_shown(figures.get(name)) for figures in columns.values())] for name in names]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(figure: Any) -> str:
    return "-" if figure is None else f"{figure:,}" if isinstance(figure, int | float) else str(figure)


def main() -> None:
    """Measure and print."""
    words = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=words)
    parser.add_argument(
        "--root", type=Path, nargs="+", default=[HERE.parent], help="the checkouts to look at, a column each"
    )
    parser.add_argument(
        "--json", action="store_true", help="print every figure, and what circles and arrows are"
    )
    chosen = parser.parse_args()
    trees = {commit(root): Tree(root) for root in chosen.root}
    found = {name: figures(tree) for name, tree in trees.items()}
    if chosen.json:
        every = {name: {"figures": found[name], **details(tree)} for name, tree in trees.items()}
        print(json.dumps(every, indent=2))
    else:
        print(markdown(found))


if __name__ == "__main__":
    main()
