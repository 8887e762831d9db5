"""Finding the embedded model's weights, and putting them together once.

They are looked for in this order: a path named by the caller, the environment variable ``TALE_MODEL_PATH``,
the user's cache, installed packages that carry them whole or in parts, the Hugging Face hub.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tale_core.errors import CorruptWeightsError, LocalModelError, MissingExtraError, WeightsNotFoundError
from tale_core.local._progress import progress
from tale_core.local.catalogue import CATALOGUE, DEFAULT_MODEL, EmbeddedModel, WeightsFile, embedded_model
from tale_core.types import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PATH_VARIABLE = "TALE_MODEL_PATH"
"""Environment variable with the path of the weights to use."""

_MAGIC = b"GGUF"
_CHUNK = 4 * 1024 * 1024
_TRUTHY = {"1", "on", "true", "yes"}


class Weights(Record):
    """Weights that lie ready on this disk."""

    model: str
    """The model's name."""
    path: Path
    """The file."""
    origin: str
    """How it was found, in words."""


def cache_folder() -> Path:
    """Return the folder of the user's cache that holds assembled weights.

    Raises:
        MissingExtraError: ``platformdirs`` is not installed.
    """
    try:
        from platformdirs import user_cache_path  # noqa: PLC0415  # an extra
    except ImportError as exc:
        raise MissingExtraError("platformdirs", "local") from exc
    return user_cache_path("tale-reasoning", appauthor=False) / "models"


def find_weights(model: str | None = None, *, path: WeightsFile | None = None) -> Weights:
    """Find the weights of a model, assembling or downloading them where needed.

    Args:
        model: A name of the catalogue; None for whatever ``TALE_MODEL_PATH`` names, or else the default. With
            ``path`` any name: it is what the server will call the model.
        path: A GGUF file to use as it is.

    Returns:
        Where they are.

    Raises:
        WeightsNotFoundError: They are nowhere; the message lists every way to get them.
        CorruptWeightsError: They are there, but are not what they should be.
        UnknownModelError: No such name in the catalogue.
        MissingExtraError: A package of the extra ``local`` is not installed.
        LocalModelError: The disk has no room for them.
    """
    ready = locate_weights(model, path=path)
    if ready is not None:
        return ready
    known = embedded_model(model or DEFAULT_MODEL)
    target = cached_path(known)
    problems: list[str] = []
    for provide in (_from_packages, _from_hub):
        problem = provide(known, target)
        if problem is None:
            return Weights(model=known.name, path=target, origin="the user's cache")
        problems.append(problem)
    raise WeightsNotFoundError(_all_ways(known, target, problems))


def locate_weights(model: str | None = None, *, path: WeightsFile | None = None) -> Weights | None:
    """Find weights that could be used at once, without assembling or downloading anything.

    Args:
        model: As in `find_weights`.
        path: As in `find_weights`.

    Returns:
        Where they are, or None when they would have to be assembled or downloaded.

    Raises:
        WeightsNotFoundError: The path that was named does not exist.
        CorruptWeightsError: The file is not what it should be.
        UnknownModelError: No such name in the catalogue.
    """
    if path is not None:
        return _named_file(Path(path), model, origin="the path given")
    variable = os.environ.get(PATH_VARIABLE)
    if variable:
        named = _named_file(Path(variable), None, origin=f"the environment variable {PATH_VARIABLE}")
        if model in {None, named.model}:
            return named
    known = embedded_model(model or DEFAULT_MODEL)
    if len(known.pieces) == 1:
        lying = piece_paths(known)[0]
        if lying is not None:
            _check_size(lying, known)
            return Weights(model=known.name, path=lying, origin=f"the package {known.pieces[0].package}")
        return None
    cached = cached_path(known)
    if not cached.is_file():
        return None
    _check_size(cached, known)
    return Weights(model=known.name, path=cached, origin="the user's cache")


def cached_path(model: EmbeddedModel) -> Path:
    """Return where a model's weights lie in the user's cache, once they do."""
    return cache_folder() / f"{model.name}.gguf"


def piece_paths(model: EmbeddedModel) -> list[Path | None]:
    """Return where each piece of a model lies, None for those that are not installed."""
    return [_package_file(piece.package, piece.file) for piece in model.pieces]


def verify_weights(weights: Weights) -> None:
    """Compare the digest of a catalogue model's file with the published one; other files pass.

    Raises:
        CorruptWeightsError: It differs.
    """
    known = CATALOGUE.get(weights.model)
    if known is None:
        return
    with progress(f"Checking {known.title}", known.size) as advance:
        digest = _copy([weights.path], None, advance)
    _check_digest(digest, known, f"delete {weights.path} and provide the weights again")


def _named_file(path: Path, model: str | None, *, origin: str) -> Weights:
    """Take a file that the caller named; one of the exact size of a catalogue model is taken for it."""
    path = path.expanduser()
    if not path.is_file():
        raise WeightsNotFoundError(f"no weights file at {str(path)!r} ({origin}); give the path of a GGUF file")
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if start != _MAGIC:
        raise CorruptWeightsError(
            f"{str(path)!r} ({origin}) is no GGUF file: it starts with {start!r} instead of {_MAGIC!r}; "
            "give the path of a GGUF file"
        )
    size = path.stat().st_size
    known = next((one.name for one in CATALOGUE.values() if one.size == size), path.stem)
    return Weights(model=known if model is None else model, path=path.resolve(), origin=origin)


def _package_file(package: str, file: str) -> Path | None:
    """Locate a file of a package without importing it: its own requirements may be missing."""
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or []) if spec else []:
        path = Path(root) / file
        if path.is_file():
            return path
    return None


def _from_packages(model: EmbeddedModel, target: Path) -> str | None:
    """Assemble the weights from installed packages; return what stands in the way, if anything does."""
    found = piece_paths(model)
    missing = [piece.distribution for piece, path in zip(model.pieces, found, strict=True) if path is None]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")  # noqa: PLR2004
        return f"{len(missing)} of {len(found)} packages with the weights are not installed ({shown})"
    parts = [path for path in found if path is not None]

    def assemble(part_file: Path) -> None:
        with progress(f"Assembling {model.title} (once)", model.size) as advance:
            digest = _copy(parts, part_file, advance)
        _check_digest(digest, model, f"reinstall the packages: {model.install} --force-reinstall")

    _provide(model, target, assemble)
    return None


def _from_hub(model: EmbeddedModel, target: Path) -> str | None:
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
        with progress(f"Checking {model.title}", model.size) as advance:
            digest = _copy([file], None, advance)
        file.replace(part_file)
        shutil.rmtree(staging, ignore_errors=True)
        _check_digest(digest, model, "try again, or download the file by hand")

    try:
        _provide(model, target, download)
    except LocalModelError:
        raise
    except Exception as exc:  # noqa: BLE001  # the hub raises errors of several libraries; all mean: not from there
        return f"the Hugging Face hub did not serve {repository}/{name} ({type(exc).__name__})"
    return None


def _provide(model: EmbeddedModel, target: Path, write: Callable[[Path], None]) -> None:
    """Let one process write the weights beside their place and move them there when they are whole."""
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
            write(part_file)
            part_file.replace(target)
        finally:
            part_file.unlink(missing_ok=True)


def _copy(sources: Sequence[Path], target: Path | None, advance: Callable[[int], None]) -> str:
    """Stream files into one, or nowhere, and return the SHA-256 of the whole."""
    digest = hashlib.sha256()
    with Path(os.devnull if target is None else target).open("wb") as sink:
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


def _check_size(path: Path, model: EmbeddedModel) -> None:
    size = path.stat().st_size
    if size != model.size:
        raise CorruptWeightsError(
            f"{path} has {size:,} bytes, but the weights of {model.name} have {model.size:,}; "
            f"delete it and run: {model.install}"
        )


def _all_ways(model: EmbeddedModel, target: Path, problems: Sequence[str]) -> str:
    """Say what was tried and list every way to provide the weights."""
    ways = [
        f"install the packages that carry them: {model.install}",
        f"name a GGUF file: --model-path FILE, model_path=FILE, or {PATH_VARIABLE}=FILE",
        f"put the file at {target}",
    ]
    if model.hub is not None:
        repository, name = model.hub
        ways.append(
            f"where the network allows it: pip install huggingface_hub, and {name} is taken from {repository}"
        )
    listed = "\n".join(f"  - {way}" for way in ways)
    return (
        f"no weights of {model.name} ({model.megabytes}): {'; '.join(problems)}. "
        f"Any of these will do:\n{listed}"
    )
