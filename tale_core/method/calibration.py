"""Calibration: how best to ask one model, and the evidence for it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, ValidationError

from tale_core.errors import InvalidValueError
from tale_core.estimators.training import MOST_BYTES
from tale_core.files import read_file, replace_file
from tale_core.method.policy import BudgetPolicy
from tale_core.prompts.strategies import Exemplar, ExemplarStrategy, get_strategy
from tale_core.types import STORED_STRATEGY, Record

if TYPE_CHECKING:
    from tale_core.protocols import Strategy

_MOST_BYTES = 1_000_000
_MOST_CHARACTERS = 100_000
"""Of all worked examples together: four times what fits into the context of the embedded model."""
_MOST_TOKENS = 1_000_000_000
"""Far above what any model can write; a budget beyond it is a mistake or an attack."""
_MOST_RETRIES = 3


class Measured(Record):
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float


class Evidence(Record):
    """What a calibration's choice rests on: the calibrated strategy and vanilla, on the same questions."""

    data: str
    """The questions, with the slice that was used; none of them had a part in the choice."""
    questions: int = Field(ge=1)
    """How many questions both answered."""
    accuracy: Measured
    """Share of correct answers with the calibration."""
    baseline_accuracy: Measured
    """Share of correct answers with vanilla chain of thought."""
    accuracy_change: Measured
    """Paired change of the share of correct answers, calibration minus vanilla."""
    net_tokens: float
    """Mean output tokens a question with the calibration, estimator included."""
    baseline_tokens: float
    """Mean output tokens a question with vanilla chain of thought."""
    token_ratio: Measured
    """Net output tokens as a share of vanilla chain of thought's, paired."""

    def __str__(self) -> str:
        """Return one sentence."""
        ratio, change = self.token_ratio, self.accuracy_change
        return (
            f"{self.data}, n = {self.questions}: {ratio.value:.0%} of vanilla's output tokens net "
            f"({ratio.low:.0%} to {ratio.high:.0%}); accuracy {self.accuracy.value:.0%} against "
            f"{self.baseline_accuracy.value:.0%}, paired change {change.value * 100:+.0f} points "
            f"({change.low * 100:+.0f} to {change.high * 100:+.0f})"
        )


class CalibrationPoint(Record):
    """One point of a model's elasticity curve."""

    budget: int | None
    """Output tokens asked for; None is vanilla chain of thought."""
    tokens: Measured
    """Mean output tokens of the answers."""
    accuracy: Measured
    """Share of correct answers."""


class Trained(Record):
    """What a model was trained from (``tale internalise``)."""

    base: str
    """The model before training: a folder, a name on the hub, or a GGUF file."""
    base_digest: str = ""
    """SHA-256 of that file, or the commit on the hub, where there is one."""
    method: str
    """``sft``, ``dpo`` or ``grpo``."""
    data_digest: str
    """SHA-256 of the lines it was trained on, as on the data's card."""
    examples: int = Field(ge=0)
    """How many lines those are."""


class Calibration(Record):
    """What was measured about one model: the strategy that suits it, a budget that works, its bounds.

    Anything the caller passes explicitly takes precedence.
    """

    model: str = Field(min_length=1)
    """The model's name, as its server reports it."""
    strategy: str = Field(validation_alias=STORED_STRATEGY)
    """Name of the prompt strategy that suits the model; ``"vanilla"`` when no budget was found to help."""
    budget: int | None = Field(default=None, ge=1, le=_MOST_TOKENS)
    """One budget for every question, in output tokens, where the model's own estimates are of no use; None
    leaves the estimate to the zero-shot estimator."""
    policy: BudgetPolicy = BudgetPolicy()
    """Floor, multiplier and thresholds that fit the model."""
    estimator: str | None = None
    """File of a fitted estimator (``tale fit``), where it predicts better than one number does; its path is
    relative to the calibration's file."""
    exemplars: dict[
        Annotated[int, Field(ge=1, le=_MOST_TOKENS)],
        Annotated[tuple[Exemplar, ...], Field(min_length=1, max_length=16)],
    ] = Field(default_factory=dict, max_length=32)
    """Worked examples by the length of their solutions, for the ``exemplars`` strategy; empty uses those that
    come with the strategy."""
    curve: tuple[CalibrationPoint, ...] = ()
    """The measured elasticity curve of the chosen strategy."""
    evidence: tuple[Evidence, ...] = ()
    """What was measured on questions that had no part in the choice."""
    chosen_on: str = ""
    """The questions used to choose, with their slice."""
    model_digest: str = ""
    """Digest of the model's weights, where it is known."""
    date: str = ""
    """Day of the measurement, as YYYY-MM-DD."""
    version: str = ""
    """Version of this package that did the measurement, and its commit where it is known."""
    trained: Trained | None = None
    """What the model was trained from, where it was trained to be concise by itself."""

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a calibration from a JSON file, which somebody else may have written.

        Its estimator's file must lie in its folder, so that it cannot have other files read, and so that both
        can be moved together. For one elsewhere, set ``estimator`` in code.

        Raises:
            InvalidValueError: The file is missing, is no calibration, or asks for more than one may.
        """
        content = read_file(path, "calibration", most=_MOST_BYTES, fix="make one with `tale tune`")
        try:
            found = cls.model_validate_json(content)
        except ValidationError as exc:
            raise InvalidValueError.from_validation(f"calibration {str(path)!r}", exc) from exc
        _check_limits(found, f"calibration {str(path)!r}")
        if found.estimator is None:
            return found
        folder = Path(path).resolve().parent
        try:
            file = (folder / found.estimator).resolve()
            inside = file.is_relative_to(folder) and file.is_file()
        except (OSError, RuntimeError, ValueError):  # a name that is too long, a loop of links, a zero byte
            inside = False
        if not inside:
            raise InvalidValueError(
                f"calibration {str(path)!r} names the estimator {found.estimator!r}, which is no file in its "
                "folder; put the file that `tale fit` wrote there"
            )
        return found.model_copy(update={"estimator": str(file)})

    def save(self, path: str | Path) -> None:
        """Write the calibration to a JSON file; its estimator's file is copied into the same folder.

        Raises:
            StoreError: The file cannot be written.
            InvalidValueError: The estimator's file cannot be read.
        """
        written = self
        if self.estimator is not None:
            beside = _beside(Path(self.estimator).resolve(), Path(path).resolve().parent)
            written = self.model_copy(update={"estimator": beside.as_posix()})
        replace_file(path, (written.model_dump_json(indent=2, exclude_defaults=True) + "\n").encode())

    def for_model(self, model: str) -> Calibration:
        """Return the same calibration for another model, at the caller's own risk.

        Args:
            model: The other model's name.
        """
        return self.model_copy(update={"model": model})

    def prompt_strategy(self) -> Strategy:
        """Return the strategy, with the calibration's own examples where it has some.

        Raises:
            UnknownStrategyError: No strategy of that name is registered.
        """
        strategy = get_strategy(self.strategy)
        if self.exemplars and isinstance(strategy, ExemplarStrategy):
            return strategy.model_copy(update={"levels": self.exemplars})
        return strategy


def _check_limits(calibration: Calibration, name: str) -> None:
    """Refuse what a file may not ask for, though code may.

    Raises:
        InvalidValueError: It asks for too much.
    """
    examples = [one for level in calibration.exemplars.values() for one in level]
    characters = sum(len(one.question) + len(one.solution) for one in examples)
    bounds = max(calibration.policy.ceiling, calibration.policy.fallback or 0)
    for what, asked, most in (
        ("worked examples, in characters,", characters, _MOST_CHARACTERS),
        ("policy.ceiling or policy.fallback", bounds, _MOST_TOKENS),
        ("policy.retries", calibration.policy.retries, _MOST_RETRIES),
    ):
        if asked > most:
            shown = f"{asked:,}" if asked < 10**12 else "more than 10^12"
            raise InvalidValueError(f"{what} of {name} may be at most {most:,}, got {shown}")


def _beside(file: Path, folder: Path) -> Path:
    """Return a file's path relative to a folder, with a copy made there where it lies elsewhere."""
    if not file.is_relative_to(folder):
        content = read_file(file, "estimator", most=MOST_BYTES, fix="make one with `tale fit`")
        # Named by what it holds, so that no other calibration's estimator is overwritten.
        digest = hashlib.sha256(content).hexdigest()[:12]
        file = folder / f"{file.stem}-{digest}{file.suffix}"
        replace_file(file, content)
    return file.relative_to(folder)


def find_calibration(
    calibration: Calibration | str | Path | None, *, model_name: str | None = None
) -> Calibration | None:
    """Return the calibration to use.

    Args:
        calibration: A calibration, the path of one, or None to look for a shipped one.
        model_name: The name of the model that will be asked, as far as it is known.

    Returns:
        The calibration, or None when none was named and none is shipped for the model.

    Raises:
        InvalidValueError: The calibration was measured on another model, or cannot be read.
    """
    if calibration is None:
        return SHIPPED.get(model_name.lower()) if model_name else None
    found = calibration if isinstance(calibration, Calibration) else Calibration.load(calibration)
    # What suits one model misleads another: budgets that one keeps make another collapse.
    if model_name and found.model.lower() != model_name.lower():
        raise InvalidValueError(
            f"this calibration was measured on {found.model!r}, not on {model_name!r}; measure one with "
            f"`tale tune`, or use it anyway: calibration.for_model({model_name!r})"
        )
    return found


def _read_shipped() -> dict[str, Calibration]:
    folder = Path(__file__).parent / "calibrations"
    return {
        calibration.model.lower(): calibration
        for calibration in map(Calibration.load, sorted(folder.glob("*.json")))
    }


SHIPPED: dict[str, Calibration] = _read_shipped()
"""Measured calibrations of the models that can be embedded, by model name in lower case."""
