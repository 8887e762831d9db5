"""Train a model to be concise by itself, and record what it was trained on.

The folder that is written holds everything: ``training.json`` (what was trained, on what, and how far),
``checkpoints/``, ``adapter/`` (LoRA, for PEFT), ``merged/`` or ``merged.gguf`` on request,
``calibration.json``. The same call resumes a training that was stopped.
"""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tale_core.errors import DataError, InvalidValueError, MissingExtraError
from tale_core.files import replace_file
from tale_core.method.calibration import Calibration, Trained
from tale_lab.training.export import read_export
from tale_lab.training.rewards import correct_reward
from tale_lab.training.settings import Training, TrainingSettings
from tale_lab.tuning.calibrating import package_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from tale_lab.training.examples import Line
    from tale_lab.training.export import Facts
    from tale_lab.training.settings import Standing

STATE = "training.json"
"""The file that says what a folder trains, and how far it is."""
_FORMATS = {"sft": "sft", "dpo": "dpo", "grpo": "reward"}


def internalise(
    model: str,
    data: str | Path,
    out: str | Path,
    settings: TrainingSettings | None = None,
    *,
    device: str | None = None,
    merge: bool = False,
    check_memory: bool = True,
    tell: Callable[[str], None] = lambda _: None,
    show: Callable[[Standing], None] = lambda _: None,
) -> Training:
    """Train an adapter (LoRA) that makes a model concise by itself: TALE-PT (arXiv 2412.18547, section 5).

    Args:
        model: A folder, a name on the Hugging Face hub, or a ``.gguf`` file.
        data: A folder that ``tale export`` wrote.
        out: Where to write; an unfinished training there is resumed.
        settings: How to train; None for the paper's settings of ``sft``.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``; None takes the best one available.
        merge: Whether to write the merged model, too: a folder, or a GGUF file if the base is one.
        check_memory: Whether to refuse a training that seems too large for the memory.
        tell: Receives messages for the user.
        show: Receives the progress after every step.

    Returns:
        What was trained.

    Raises:
        MissingExtraError: TRL or another part of the extra ``train`` is not installed.
        DataError: The data is of another format, too little, too long, or unrewarded by its grader.
        UnknownModelError: The model cannot be loaded.
        TrainingError: The model has no chat template, the memory is too small, or nothing is rewarded.
        InvalidValueError: The folder holds another training.
    """
    settings = TrainingSettings.of("sft") if settings is None else settings
    facts, train, test = read_export(data)
    _check_data(settings, facts, train)  # before torch, which takes seconds to import
    work = _heavy()
    folder = Path(out)
    training = _resumed(
        folder,
        Training(
            base=model,
            base_digest=work.bases.digest(model),
            data=str(data),
            facts=facts.model_dump(mode="json"),
            settings=settings,
            version=package_version(),
        ),
    )
    if not training.finished:
        folder.mkdir(parents=True, exist_ok=True)
        _save(folder, training)  # first, so that a training that is stopped can be resumed
        began = time.monotonic()
        ran = work.train(
            model, train, test, folder, settings, device=device, check_memory=check_memory, tell=tell, show=show
        )
        training = training.model_copy(update={**ran, "seconds": time.monotonic() - began})
        _save(folder, training)
    _calibration(folder, training).save(folder / "calibration.json")
    if merge:
        tell(f"merged: {work.bases.merge(model, folder)}")
    return training


def _heavy() -> Any:
    """Import what only a training needs."""
    try:
        from tale_lab.training import _work  # noqa: PLC0415  # torch, transformers, TRL and PEFT
    except ImportError as exc:
        raise MissingExtraError(exc.name or "trl", "train") from exc
    return _work


def _check_data(settings: TrainingSettings, facts: Facts, train: list[Line]) -> None:
    """Check that the data fits the method, before anything heavy is loaded."""
    wanted, given = _FORMATS[settings.method], facts.settings["format"]
    if given != wanted:
        raise DataError(
            f"method {settings.method!r} needs data of format {wanted!r}, got {given!r}; make it with: "
            f"tale export {facts.results} --format {wanted} --out DIR"
        )
    each = settings.generations if settings.method == "grpo" else 1
    if len(train) * each < settings.batch:
        things = {"sft": "examples", "dpo": "pairs", "grpo": "questions"}[settings.method]
        raise DataError(
            f"{len(train)} {things} are too few for one step of {settings.batch // each}; search more "
            "questions, or set a smaller --batch"
        )
    if settings.method != "grpo":
        return
    # A grader that does not even reward the reference answers would make hours of training futile.
    columns = {name: [line[name] for line in train] for name in ("question", "answer", "grader", "meta")}
    if not any(correct_reward(columns["answer"], **columns)):
        raise DataError(
            f"the grader {columns['grader'][0]!r} rewards nothing: it grades none of the {len(train)} "
            "reference answers as right; export again with another --grader"
        )


def _resumed(folder: Path, wanted: Training) -> Training:
    """Return the training that a folder already holds, if it is the same one."""
    try:
        found = Training.model_validate_json((folder / STATE).read_bytes())
    except FileNotFoundError:
        return wanted
    except (OSError, ValidationError) as exc:
        raise InvalidValueError(f"cannot read {folder / STATE}: {exc}; name another folder") from exc
    mine, theirs = _identity(found), _identity(wanted)
    differing = [name for name in theirs if mine[name] != theirs[name]]
    if differing:
        raise InvalidValueError(
            f"{folder} holds another training: {', '.join(differing)} differ; name another folder, or train "
            "with the same settings to resume it"
        )
    return found


def _identity(training: Training) -> dict[str, Any]:
    """Return what must agree for a training to be resumed."""
    named = {"base": training.base, "base_digest": training.base_digest, "data": training.facts["digest"]}
    return named | training.settings.decisive


def _save(folder: Path, training: Training) -> None:
    replace_file(folder / STATE, f"{training.model_dump_json(indent=2)}\n".encode())


def _calibration(folder: Path, training: Training) -> Calibration:
    facts = training.facts
    return Calibration(
        model=folder.resolve().name,
        strategy=facts["settings"]["prompt_strategy"],
        chosen_on=", ".join(facts["data"]),
        date=dt.datetime.now(tz=dt.timezone.utc).date().isoformat(),
        version=training.version,
        trained=Trained(
            base=training.base,
            base_digest=training.base_digest,
            method=training.settings.method,
            data_digest=facts["digest"],
            examples=facts["train"] - training.skipped,
        ),
    )
