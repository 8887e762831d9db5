"""How a model is trained; the defaults are the paper's (arXiv 2412.18547, section 5.2)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from tale_core.errors import InvalidValueError
from tale_core.types import Record

if TYPE_CHECKING:
    from typing_extensions import Self

Method: TypeAlias = Literal["sft", "dpo", "grpo"]
"""``sft``: learn the concise answers. ``dpo``: prefer them. ``grpo``: be rewarded for right and short ones."""

_PAPER: dict[Method, dict[str, Any]] = {
    "sft": {"epochs": 3, "learning_rate": 1e-4, "weight_decay": 0.01},
    "dpo": {"epochs": 2, "learning_rate": 3e-5, "weight_decay": 0.001},
    # The paper has no reward; these are usual for adapters.
    "grpo": {"epochs": 1, "learning_rate": 2e-5, "weight_decay": 0.0},
}


_MICRO_BATCH = 4


class TrainingSettings(Record):
    """How a model is trained; together with the model and the data it decides the result."""

    method: Method = "sft"
    epochs: float = Field(default=3, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this many optimizer steps; None runs all epochs."""
    batch: int = Field(default=16, ge=1)
    """Examples per optimizer step; answers with ``grpo``."""
    micro_batch: int = Field(default=_MICRO_BATCH, ge=1)
    """Examples at a time in memory; divides the batch."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak of the learning rate, which then falls linearly to 0."""
    weight_decay: float = Field(default=0.01, ge=0)
    rank: int = Field(default=8, ge=1)
    """Rank of the adapter (LoRA's r)."""
    alpha: int = Field(default=32, ge=1)
    """Scale of the adapter (LoRA's alpha)."""
    beta: float = Field(default=0.5, gt=0)
    """With ``dpo``: how strongly the model is kept close to its base."""
    generations: int = Field(default=8, ge=2)
    """With ``grpo``: answers per question; rewards are compared among them."""
    max_tokens: int = Field(default=256, ge=1)
    """With ``grpo``: hard cap of an answer while training, in tokens."""
    temperature: float = Field(default=1.0, gt=0)
    """With ``grpo``: sampling temperature while training."""
    context: int | None = Field(default=None, ge=1)
    """Longest question and answer together, in tokens; None takes the model's own context."""
    skip_long: bool = False
    """Whether to skip longer examples instead of stopping."""
    seed: int = 1024
    """Seeds the adapter's weights, the order of the data, and what ``grpo`` samples."""
    checkpoint_steps: int = Field(default=20, ge=1)
    """Optimizer steps between two checkpoints."""

    @classmethod
    def of(cls, method: Method, **changes: Any) -> Self:
        """Return the paper's settings of a method.

        Args:
            method: What is trained.
            **changes: Fields that differ; None keeps the paper's value.

        Example:
            >>> TrainingSettings.of("dpo", epochs=1).learning_rate
            3e-05
        """
        named = {name: value for name, value in changes.items() if value is not None}
        if "batch" in named:
            # The largest that divides the batch: the result depends on the batch alone.
            named.setdefault("micro_batch", math.gcd(named["batch"], _MICRO_BATCH))
        return cls(**{"method": method, **_PAPER[method], **named})

    @model_validator(mode="after")
    def _batches_come_out_even(self) -> Self:
        if self.batch % self.micro_batch:
            raise InvalidValueError(
                f"micro_batch must divide batch, got {self.micro_batch} and {self.batch}; the memory depends "
                "on micro_batch, the result on batch"
            )
        if self.method == "grpo" and self.batch % self.generations:
            raise InvalidValueError(
                f"generations must divide batch, got {self.generations} and {self.batch}: a step compares all "
                "answers to a question"
            )
        return self

    @property
    def decisive(self) -> dict[str, Any]:
        """What decides the result; the rest may differ when a training is resumed."""
        return self.model_dump(mode="json", exclude={"checkpoint_steps"})


class Standing(Record):
    """Progress of a training."""

    step: int
    steps: int
    figures: dict[str, float]
    """Metrics of the step: ``loss``, ``reward``, ``mean_length``, ..."""


class Training(Record):
    """What is trained, on what data, and how far it is."""

    base: str
    """The model that is trained: a folder, a name on the hub, or a GGUF file."""
    base_digest: str = ""
    """SHA-256 of the GGUF file, or the commit on the hub, where there is one."""
    data: str
    """The folder of the training data."""
    facts: dict[str, Any]
    """What that folder holds; see `Facts`."""
    settings: TrainingSettings
    version: str
    """Version of this package, and its commit."""
    device: str = ""
    steps: int = Field(default=0, ge=0)
    """Optimizer steps done; 0 until it is finished."""
    skipped: int = Field(default=0, ge=0)
    """Examples skipped because they are longer than the context."""
    seconds: float = 0.0
    """Wall-clock seconds of the last run."""
    history: tuple[dict[str, float], ...] = ()
    """The metrics of every logged step."""

    @property
    def finished(self) -> bool:
        """Whether it has finished."""
        return self.steps > 0
