"""``tale internalise``: a model that is concise by itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tale_lab.cli._shared import JsonOption, err, out, print_json
from tale_lab.training import TrainingSettings
from tale_lab.training import internalise as train_model
from tale_lab.training.settings import Method  # noqa: TC001  # typer reads it

if TYPE_CHECKING:
    from collections.abc import Callable

    from tale_lab.training import Standing, Training

_SECONDS_BETWEEN_LINES = 5.0
_TOLD = ("loss", "eval_loss", "reward", "completions/mean_length", "rewards/accuracies")


def internalise(
    *,
    model: Annotated[
        str,
        typer.Option("--model", "-m", metavar="MODEL", help="Folder, Hugging Face name, or .gguf file."),
    ],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Folder that tale export wrote.")] = Path(
        "training-data"
    ),
    method: Annotated[
        Method,
        typer.Option(help="sft learns the concise answers, dpo prefers them, grpo is rewarded for them."),
    ] = "sft",
    written: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for the result; a stopped training there is resumed."),
    ] = Path("internalised"),
    merge: Annotated[
        bool, typer.Option("--merge", help="Also write the model with the adapter merged in.")
    ] = False,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data; the paper's by default.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after this many optimizer steps.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Examples per optimizer step (answers with grpo).")] = 16,
    micro_batch: Annotated[
        int | None, typer.Option(min=1, help="Examples in memory at a time; 4 if that divides the batch.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The paper's by default.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="The paper's by default.")] = None,
    rank: Annotated[int, typer.Option(min=1, help="Rank of the adapter (LoRA's r).")] = 8,
    alpha: Annotated[int, typer.Option(min=1, help="Scale of the adapter (LoRA's alpha).")] = 32,
    beta: Annotated[float, typer.Option(help="With dpo: how close the model is kept to its base.")] = 0.5,
    generations: Annotated[int, typer.Option(min=2, help="With grpo: answers per question.")] = 8,
    max_tokens: Annotated[int, typer.Option(min=1, help="With grpo: hard cap of an answer.")] = 256,
    context: Annotated[
        int | None, typer.Option(min=1, help="Longest question and answer, in tokens; the model's by default.")
    ] = None,
    skip_long: Annotated[
        bool, typer.Option("--skip-long", help="Skip examples longer than the context.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the first weights, the order and the samples.")] = 1024,
    checkpoint_steps: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 20,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or mps; by default the best available.")] = None,
    no_memory_check: Annotated[
        bool, typer.Option("--no-memory-check", help="Start even if the memory seems too small.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model to be concise by itself: no budget in the prompt, no estimator, no extra call.

    Trains an adapter (LoRA) on data from tale export. If it is stopped, the same command resumes from the
    last checkpoint. Needs the extra train.
    """
    settings = TrainingSettings.of(
        method,
        epochs=epochs,
        max_steps=max_steps,
        batch=batch,
        micro_batch=micro_batch,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        rank=rank,
        alpha=alpha,
        beta=beta,
        generations=generations,
        max_tokens=max_tokens,
        context=context,
        skip_long=skip_long,
        seed=seed,
        checkpoint_steps=checkpoint_steps,
    )
    training = train_model(
        model,
        data,
        written,
        settings,
        device=device,
        merge=merge,
        check_memory=not no_memory_check,
        tell=lambda text: err.print(text, soft_wrap=True),
        show=_shown(),
    )
    if as_json:
        print_json({**training.model_dump(mode="json"), "written": str(written)})
    else:
        _print(training, written)


def _shown() -> Callable[[Standing], None]:
    """Return a function that prints the progress every few seconds, and at the end."""
    said = began = time.monotonic()

    def show(standing: Standing) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said < _SECONDS_BETWEEN_LINES and standing.step < standing.steps:
            return
        said = now
        figures = [
            f"{name.rpartition('/')[2]} {standing.figures[name]:.3g}" for name in _told(standing.figures)
        ]
        took = f"{(now - began) / 60:.1f} minutes"
        err.print(f"step {standing.step} of {standing.steps}, {took}: {', '.join(figures)}", soft_wrap=True)

    return show


def _told(figures: dict[str, Any]) -> list[str]:
    return [name for name in _TOLD if name in figures]


def _print(training: Training, written: Path) -> None:
    settings = training.settings
    out.print(
        f"{settings.method} of {training.base}: {training.steps} steps on {training.device} in "
        f"{training.seconds / 60:.1f} minutes",
        soft_wrap=True,
    )
    err.print(f"written: {written}/adapter and {written}/calibration.json", soft_wrap=True)
    err.print(
        "ask it with strategy='internalised': the plain question, no budget and no estimator", soft_wrap=True
    )
