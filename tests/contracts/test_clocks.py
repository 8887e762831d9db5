"""No test judges by the clock of the machine that it runs on."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CLOCKS = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "time", "time_ns"}
"""What reads a clock on the wall, be it of the module `time` or of an event loop."""


def names(node: ast.AST) -> set[str]:
    """Return every name and attribute in a piece of a program."""
    return {
        one.id if isinstance(one, ast.Name) else one.attr
        for one in ast.walk(node)
        if isinstance(one, ast.Name | ast.Attribute)
    }


def reads_clock(node: ast.AST) -> bool:
    called = (one.func for one in ast.walk(node) if isinstance(one, ast.Call))
    return any(
        (func.id if isinstance(func, ast.Name) else func.attr) in CLOCKS
        for func in called
        if isinstance(func, ast.Name | ast.Attribute)
    )


def kept_in(target: ast.AST) -> set[str]:
    """Return the names, or last attributes, under which a value is kept."""
    match target:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return {name}
        case ast.Subscript(value=inner) | ast.Starred(value=inner):
            return kept_in(inner)
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return set().union(*map(kept_in, parts))
    return set()


def flows(tree: ast.AST) -> list[tuple[set[str], ast.AST]]:
    """Return what gets its value from what: assigned names, functions that return, lists that are added to."""
    found: list[tuple[set[str], ast.AST]] = []
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=value):
                found.append((set().union(*map(kept_in, targets)), value))
            case (
                ast.AugAssign(target=target, value=value)
                | ast.AnnAssign(target=target, value=ast.expr() as value)
                | ast.NamedExpr(target=target, value=value)
            ):
                found.append((kept_in(target), value))
            case ast.Call(func=ast.Attribute(attr="append" | "add" | "put", value=target), args=[value]):
                found.append((kept_in(target), value))
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                given = [one for one in ast.walk(node) if isinstance(one, ast.Return | ast.Yield)]
                found.extend(({name}, one) for one in given)
    return found


def judged_by_clock(source: str) -> list[int]:
    """Return the lines of assertions on something that, in this file, comes from a clock.

    It follows names and no values, so it may accuse two things of one name; it does not see what another file
    measured, nor a timeout.
    """
    tree = ast.parse(source)
    timed: set[str] = set()
    while True:
        more = set().union(
            *(targets for targets, value in flows(tree) if reads_clock(value) or names(value) & timed)
        )
        if more <= timed:
            break
        timed |= more
    checks = (node for node in ast.walk(tree) if isinstance(node, ast.Assert))
    return sorted(one.lineno for one in checks if reads_clock(one.test) or names(one.test) & timed)


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_assertion_is_about_the_time_on_the_wall(path: Path) -> None:
    assert judged_by_clock(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("assert time.perf_counter() - start < 1", [1]),
        ("start = perf_counter()\nwork()\nassert perf_counter() - start < 1", [3]),
        ("took = loop.time() - start\nlongest = max(longest, took)\nassert longest < 0.05", [3]),
        ("took.append(time.monotonic() - start)\nassert statistics.median(took) < 0.5", [2]),
        ("def seconds():\n    return time.time() - start\nassert 2 * seconds() < other", [3]),
        ("took = {}\ntook[1], other = time.monotonic() - start, 2\nassert took[1] < took[2]", [3]),
        ("self.longest = time.perf_counter()\nassert loop.longest < 1", [2]),
        ("took = time.process_time() - start\nassert took < 1", []),
        ("end = time.monotonic() + 60\nwhile time.monotonic() < end:\n    pass\nassert done", []),
    ],
)
def test_the_check_sees_what_comes_from_a_clock(source: str, lines: list[int]) -> None:
    assert judged_by_clock(source) == lines
