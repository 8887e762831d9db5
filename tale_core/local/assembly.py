"""Putting the weights together once, from installed packages or the Hugging Face hub."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tale_core.errors import CorruptWeightsError, LocalModelError, MissingExtraError, StoreError, TaleError
from tale_core.files import replace_file
from tale_core.local._progress import progress
from tale_core.local.catalogue import PATH_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tale_core.local.catalogue import EmbeddedModel

_CHUNK = 4 * 1024 * 1024
_TRUTHY = {"1", "on", "true", "yes"}
_SHOWN = 3


def piece_paths(model: EmbeddedModel) -> list[Path | None]:
    """Return where each piece of a model lies, None for those that are not installed."""
    return [_package_file(piece.package, piece.file) for piece in model.pieces]


def _package_file(package: str, file: str) -> Path | None:
    """Locate a file of a package without importing it: its own requirements may be missing."""
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or []) if spec else []:
        path = Path(root) / file
        if path.is_file():
            return path
    return None


def from_packages(model: EmbeddedModel, target: Path) -> str | None:
    """Assemble the weights from installed packages; return what stands in the way, if anything does."""
    found = piece_paths(model)
    missing = [piece.distribution for piece, path in zip(model.pieces, found, strict=True) if path is None]
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        return f"{len(missing)} of {len(found)} packages with the weights are not installed ({shown})"
    parts = [path for path in found if path is not None]

    def assemble(part_file: Path) -> None:
        with progress(f"Assembling {model.title} (once)", model.size) as advance:
            digest = _copy(parts, part_file, advance)
        _check_digest(digest, model, f"reinstall the packages: {model.install} --force-reinstall")

    try:
        _provide(model, target, assemble)
    except OSError as exc:
        raise LocalModelError(
            f"cannot write the weights to {target.parent}: {exc.strerror or exc}; "
            f"change that, or set {PATH_VARIABLE} to weights elsewhere"
        ) from exc
    return None


def from_hub(model: EmbeddedModel, target: Path) -> str | None:
    """Download the weights; return what stands in the way, if anything does."""
    if model.hub is None:
        return "they are not on the Hugging Face hub"
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUTHY:
        return "the Hugging Face hub is turned off by HF_HUB_OFFLINE"
    try:
        from huggingface_hub import hf_hub_download  # noqa: PLC0415  # optional, never required
    except ImportError:
        return "the package huggingface_hub is not installed"
    repository, name = model.hub

    def download(part_file: Path) -> None:
        staging = part_file.with_suffix(".hub")
        file = Path(hf_hub_download(repository, name, local_dir=staging))
        check_file(file, model, f"delete {staging} and try again")
        file.replace(part_file)
        shutil.rmtree(staging, ignore_errors=True)

    try:
        _provide(model, target, download)
    except TaleError:
        raise
    except Exception as exc:  # noqa: BLE001  # errors of several libraries, which all mean: not from there
        return f"the Hugging Face hub did not serve {repository}/{name} ({type(exc).__name__})"
    return None


def check_file(path: Path, model: EmbeddedModel, remedy: str) -> None:
    """Compare a file with a model's digest.

    Args:
        path: The file.
        model: What it should be.
        remedy: What to do if it is not, for the message.

    Raises:
        CorruptWeightsError: It is something else.
    """
    with progress(f"Checking {model.title}", model.size) as advance:
        digest = _copy([path], None, advance)
    _check_digest(digest, model, remedy)


def is_model(path: Path, model: EmbeddedModel, notes: Path) -> bool:
    """Return whether a file that a caller named holds a model of the catalogue, by its digest.

    Args:
        path: The file; one of another size is not read.
        model: What it may be.
        notes: The folder in which to remember the answer. Not the file's own folder: who can put a stranger's
            file there can put a note beside it.
    """
    if path.stat().st_size != model.size:
        return False
    note = notes / f"{hashlib.sha256(str(path).encode(errors='surrogateescape')).hexdigest()}.checked"
    seen = _seen(path, model)
    with contextlib.suppress(OSError):
        if note.read_bytes() == seen:
            return True
    with progress(f"Checking whether this is {model.title} (once)", model.size) as advance:
        same = _copy([path], None, advance) == model.sha256
    if same:
        with contextlib.suppress(OSError, StoreError):  # where no note can be kept, the file is read every time
            notes.mkdir(parents=True, exist_ok=True)
            replace_file(note, seen)
    return same


def check_once(path: Path, model: EmbeddedModel, remedy: str) -> None:
    """Compare a file with a model's digest, unless that was done before and the file is as it was then.

    What was found is kept beside the file, with its size and time of change. Damage that leaves both as they
    are is found by `check_file` alone.

    Args:
        path: The file.
        model: What it should be.
        remedy: What to do if it is not, for the message.

    Raises:
        CorruptWeightsError: It is something else.
    """
    seen = _seen(path, model)
    try:
        known = _note_on(path).read_bytes()
    except OSError:
        known = b""
    if known != seen:
        check_file(path, model, remedy)
        _remember(path, seen)


def _seen(path: Path, model: EmbeddedModel) -> bytes:
    stat = path.stat()
    return f"sha256 {model.sha256}, {stat.st_size} bytes, changed at {stat.st_mtime_ns} ns\n".encode()


def _note_on(path: Path) -> Path:
    return path.with_suffix(".checked")


def _remember(path: Path, seen: bytes) -> None:
    with contextlib.suppress(StoreError):  # where the folder cannot be written, the file is checked every time
        replace_file(_note_on(path), seen)


def _provide(model: EmbeddedModel, target: Path, write: Callable[[Path], None]) -> None:
    """Let one process write and check weights beside their place and move them there when they are whole."""
    try:
        from filelock import FileLock  # noqa: PLC0415  # an extra
    except ImportError as exc:
        raise MissingExtraError("filelock", "local") from exc
    target.parent.mkdir(parents=True, exist_ok=True)
    part_file = target.with_suffix(".part")
    with FileLock(target.with_suffix(".lock")):
        if target.is_file():
            return  # another process was faster
        free = shutil.disk_usage(target.parent).free
        if free < model.size:
            raise LocalModelError(
                f"{model.title} needs {model.megabytes} in {target.parent}, but {free / 1e6:,.0f} MB are "
                f"free; make room, or set {PATH_VARIABLE} to weights elsewhere"
            )
        try:
            part_file.unlink(missing_ok=True)  # what an interrupted assembly left, or a link that somebody put
            write(part_file)
            part_file.replace(target)
            _remember(target, _seen(target, model))
        finally:
            part_file.unlink(missing_ok=True)


def _copy(sources: Sequence[Path], target: Path | None, advance: Callable[[int], None]) -> str:
    """Stream files into one, or nowhere, and return the SHA-256 of the whole."""
    digest = hashlib.sha256()
    # A new file, never one that is there: a link would be followed and its target overwritten.
    path, mode = (Path(os.devnull), "wb") if target is None else (target, "xb")
    with path.open(mode) as sink:
        for source in sources:
            with source.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    sink.write(chunk)
                    advance(len(chunk))
    return digest.hexdigest()


def _check_digest(digest: str, model: EmbeddedModel, remedy: str) -> None:
    if digest != model.sha256:
        raise CorruptWeightsError(
            f"the weights of {model.name} have sha256 {digest} instead of {model.sha256}; {remedy}"
        )
