"""Finding the embedded model's weights.

They are looked for in this order: a path named by the caller, the environment variable ``TALE_MODEL_PATH``,
the user's cache, installed packages that carry them whole or in parts, the Hugging Face hub.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tale_core.errors import CorruptWeightsError, MissingExtraError, WeightsNotFoundError
from tale_core.local.assembly import check_file, check_once, from_hub, from_packages, is_model, piece_paths
from tale_core.local.catalogue import (
    CATALOGUE,
    DEFAULT_MODEL,
    PATH_VARIABLE,
    EmbeddedModel,
    WeightsFile,
    embedded_model,
)
from tale_core.types import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAGIC = b"GGUF"
_CACHE = "the user's cache"


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

    What lies in the user's cache is compared with the published digest on first use, and again when it has
    changed.

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
        if ready.origin == _CACHE:
            check_once(ready.path, embedded_model(ready.model), _provide_again(ready.path))
        return ready
    known = embedded_model(model or DEFAULT_MODEL)
    target = cached_path(known)
    problems: list[str] = []
    for provide in (from_packages, from_hub):
        problem = provide(known, target)
        if problem is None:
            return Weights(model=known.name, path=target, origin=_CACHE)
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
    return Weights(model=known.name, path=cached, origin=_CACHE)


def cached_path(model: EmbeddedModel) -> Path:
    """Return where a model's weights lie in the user's cache, once they do."""
    return cache_folder() / f"{model.name}.gguf"


def verify_weights(weights: Weights) -> None:
    """Compare the digest of a catalogue model's file with the published one; other files pass.

    Raises:
        CorruptWeightsError: It differs.
    """
    known = CATALOGUE.get(weights.model)
    if known is None:
        return
    check_file(weights.path, known, _provide_again(weights.path))


def _provide_again(path: Path) -> str:
    return f"delete {path} and provide the weights again"


def _named_file(path: Path, model: str | None, *, origin: str) -> Weights:
    """Take a file that the caller named; it has a catalogue model's name where it has that model's digest."""
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
    path = path.resolve()
    if model is None:
        known = (one.name for one in CATALOGUE.values() if is_model(path, one, _notes()))
        # Under a catalogue model's name, a file of another content would be given that model's calibration.
        model = next(known, f"{path.stem}-unverified" if path.stem in CATALOGUE else path.stem)
    return Weights(model=model, path=path, origin=origin)


def _notes() -> Path:
    """Return where to remember whose weights a named file holds."""
    try:
        return cache_folder()
    except MissingExtraError:  # which serving needs, but a file can be named without it
        return Path(os.devnull)


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
