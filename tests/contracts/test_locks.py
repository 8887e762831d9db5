"""The locks, the ranges in pyproject.toml, the workflows and the Makefile agree with each other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "lock.txt"
LOWEST = ROOT / "requirements" / "lowest.txt"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PYTHONS = [
    last
    for classifier in PROJECT["classifiers"]
    if re.fullmatch(r"3\.\d+", last := classifier.removeprefix("Programming Language :: Python :: "))
]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

PIN = re.compile(r"[a-z0-9][a-z0-9-]*==[0-9][a-z0-9.!+]*( ; [^#]+)?")


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def pins(path: Path, python: str) -> dict[str, Version]:
    """Return what a lock fixes for one version of Python on Linux."""
    found: dict[str, Version] = {}
    for line in lines(path):
        requirement = Requirement(line)
        if not holds(requirement.marker, python):
            continue
        assert requirement.name not in found, f"{requirement.name} is pinned twice for Python {python}"
        (exact,) = requirement.specifier
        found[requirement.name] = Version(exact.version)
    return found


def holds(marker: Marker | None, python: str) -> bool:
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
    }
    return marker is None or marker.evaluate({**default_environment(), **environment})


def requirements(extras: set[str], python: str) -> list[Requirement]:
    """Return what the base and these extras name directly for one version of Python."""
    named = [*PROJECT["dependencies"], *(one for extra in sorted(extras) for one in EXTRAS[extra])]
    found = [Requirement(one) for one in named]
    return [one for one in found if one.name != PROJECT["name"] and holds(one.marker, python)]


@pytest.mark.parametrize("path", [LOCK, LOWEST], ids=lambda path: path.name)
def test_a_lock_holds_exact_versions_and_no_addresses(path: Path) -> None:
    assert [line for line in lines(path) if not PIN.fullmatch(line)] == []
    assert "/" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("path", [LOCK, LOWEST], ids=lambda path: path.name)
def test_a_lock_fixes_every_direct_dependency_within_its_range(path: Path, python: str) -> None:
    fixed = pins(path, python)
    wrong = {
        str(one): str(fixed.get(canonicalize_name(one.name)))
        for one in requirements(set(EXTRAS), python)
        if (version := fixed.get(canonicalize_name(one.name))) is None or version not in one.specifier
    }
    assert wrong == {}, "run `make lock`"


@pytest.mark.parametrize("python", PYTHONS)
def test_lowest_fixes_what_users_install_at_its_lower_bound(python: str) -> None:
    fixed = pins(LOWEST, python)
    wrong = {
        str(one): str(fixed[canonicalize_name(one.name)])
        for one in requirements(set(EXTRAS) - {"dev"}, python)
        for bound in one.specifier
        if bound.operator in {">=", "=="} and fixed[canonicalize_name(one.name)] != Version(bound.version)
    }
    assert wrong == {}, "raise the bound in pyproject.toml to what was installed, or run `make lock`"


def test_the_tools_that_build_the_distribution_are_locked() -> None:
    system = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
    fixed = pins(LOCK, PYTHONS[0])
    assert {"editables", *(Requirement(one).name for one in system["requires"])} <= set(fixed)


def test_the_workflows_use_the_versions_of_python_that_the_classifiers_name() -> None:
    named = {path.name: set(re.findall(r'"(3\.\d+)"', path.read_text(encoding="utf-8"))) for path in WORKFLOWS}
    assert named["test.yml"] == set(PYTHONS)
    assert {name: versions - set(PYTHONS) for name, versions in named.items() if versions - set(PYTHONS)} == {}
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_the_make_targets_in_a_workflow_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    calls = re.findall(r"run: make (.+)", path.read_text(encoding="utf-8"))
    assert {word for call in calls for word in call.split() if not word.startswith("-")} <= targets


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_names_its_actions_by_commit_and_keeps_no_credentials(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    actions = re.findall(r"uses: (.+)", text)
    assert [one for one in actions if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", one)] == []
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")
    assert "\npermissions: {}\n" in text


def make_test(folder: Path, *, failing: str) -> subprocess.CompletedProcess[str]:
    """Run ``make test`` with tools that say their names, of which one fails."""
    (folder / "requirements").mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements/lock.txt"):
        shutil.copy(ROOT / name, folder / name)
    tools = folder / ".venv" / "bin"
    tools.mkdir(parents=True)
    for tool in ("python", "ruff", "mypy"):
        (tools / tool).write_text(
            f"#!/bin/sh\necho {tool} ran\nexit {int(tool == failing)}\n", encoding="utf-8"
        )
        (tools / tool).chmod(0o755)
    (folder / ".venv" / ".test").touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--silent", "test"],  # noqa: S607  # whichever make is on the path
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
@pytest.mark.parametrize(("failing", "part"), [("ruff", "lint"), ("mypy", "types"), ("python", "tests")])
def test_make_test_runs_every_part_and_names_the_one_that_failed(
    tmp_path: Path, failing: str, part: str
) -> None:
    done = make_test(tmp_path, failing=failing)
    assert done.returncode != 0
    assert [tool for tool in ("ruff", "mypy", "python") if f"{tool} ran" not in done.stdout] == []
    last = done.stdout.strip().splitlines()[-1]
    assert re.findall(r"(\w+): FAILED", last) == [part]


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_a_good_make_test_ends_with_the_line_of_the_tests(tmp_path: Path) -> None:
    done = make_test(tmp_path, failing="none")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-2:] == ["lint: passed. types: passed.", "python ran"]
