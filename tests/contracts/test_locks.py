"""The locks, the ranges in pyproject.toml, the workflows and the Makefile agree with each other."""

from __future__ import annotations

import re
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
