"""The training itself, on TRL and PEFT: imported by `tale_lab.training.internalise` when it is needed."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import datasets
import peft
import transformers
import trl

from tale_core.errors import DataError, TrainingError
from tale_lab.training import bases
from tale_lab.training.rewards import concise_reward
from tale_lab.training.settings import Standing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tale_lab.training.examples import Line
    from tale_lab.training.settings import TrainingSettings

_PATIENCE = 10  # steps without any reward before a training is given up
_SHOWN = 3  # examples named in an error


def train(
    model: str,
    lines: list[Line],
    held_out: list[Line],
    folder: Path,
    settings: TrainingSettings,
    *,
    device: str | None,
    check_memory: bool,
    tell: Callable[[str], None],
    show: Callable[[Standing], None],
) -> dict[str, Any]:
    """Train an adapter, resuming from the last checkpoint if there is one.

    Returns:
        The fields of `Training` that are known afterwards.
    """
    device = bases.choose_device(device)
    tokenizer = bases.load_tokenizer(model)
    context = bases.context_of(model, settings)
    kept, longest = _fitting(lines, tokenizer, context, settings)
    if len(kept) < len(lines):
        tell(f"{len(lines) - len(kept)} of {len(lines)} examples are longer than {context} tokens: skipped")
    need = bases.memory(model, settings, longest=longest, device=device)
    tell(f"{need}; {settings.method} on {device}, {len(kept)} examples of at most {longest} tokens")
    if check_memory and need.needed > need.available:
        raise TrainingError(
            f"not enough {need}; lower --micro-batch (now {settings.micro_batch}) or --context, take a smaller "
            "model, or try anyway with --no-memory-check"
        )
    tests = _fitting(held_out, tokenizer, context, settings.model_copy(update={"skip_long": True}))[0]
    with bases.quiet():
        trainer = _trainer(model, tokenizer, settings, lines=kept, held_out=tests, folder=folder, device=device)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.add_callback(_Shown(show))
        checkpoint = last_checkpoint(folder)
        if checkpoint is not None:
            tell(f"resuming from {checkpoint.name.replace('-', ' ')}")
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        trainer.save_model(str(folder / "adapter"))
    tokenizer.save_pretrained(str(folder / "adapter"))
    return {
        "device": device,
        "steps": trainer.state.global_step,
        "skipped": len(lines) - len(kept),
        "history": tuple(_figures(one) for one in trainer.state.log_history),
    }


def last_checkpoint(folder: Path) -> Path | None:
    """Return the last complete checkpoint: its state is the last file that is written."""
    whole: dict[int, Path] = {}
    for path in (folder / "checkpoints").glob("checkpoint-*"):
        with contextlib.suppress(OSError, ValueError):  # stopped while it was written
            if "global_step" in json.loads((path / "trainer_state.json").read_bytes()):
                whole[int(path.name.rpartition("-")[2])] = path
    return whole[max(whole)] if whole else None


def _fitting(
    lines: list[Line], tokenizer: Any, context: int, settings: TrainingSettings
) -> tuple[list[Line], int]:
    """Return the lines that fit the context, and the tokens of the longest."""
    room = settings.max_tokens if settings.method == "grpo" else 0
    measured = [(_length(line, tokenizer) + room, line) for line in lines]
    long = [(length, line) for length, line in measured if length > context]
    if long and not settings.skip_long:
        named = ", ".join(
            f"{line['prompt'][-1]['content'][:40]!r} ({size} tokens)" for size, line in long[:_SHOWN]
        )
        raise DataError(
            f"{len(long)} of {len(lines)} examples are longer than the context of {context} tokens, among them "
            f"{named}; skip them with --skip-long, or set a larger --context"
        )
    if lines and len(long) == len(lines):
        raise DataError(f"all {len(lines)} examples are longer than the context of {context} tokens")
    kept = [(length, line) for length, line in measured if length <= context]
    return [line for _, line in kept], max((length for length, _ in kept), default=0)


def _length(line: Line, tokenizer: Any) -> int:
    """Return the tokens of the longest conversation of a line."""
    answers = [line[name] for name in ("completion", "chosen", "rejected") if name in line]
    talks = [line["prompt"] + answer for answer in answers]
    if not talks:
        text = tokenizer.apply_chat_template(line["prompt"], tokenize=False, add_generation_prompt=True)
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])
    texts = [tokenizer.apply_chat_template(talk, tokenize=False) for talk in talks]
    return max(len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"])


def _trainer(
    model: str,
    tokenizer: Any,
    settings: TrainingSettings,
    *,
    lines: list[Line],
    held_out: list[Line],
    folder: Path,
    device: str,
) -> Any:
    common = _arguments(folder, settings, device, tests=bool(held_out))
    parts = {
        "model": bases.load_model(model, device),
        "processing_class": tokenizer,
        "train_dataset": datasets.Dataset.from_list(lines),
        "peft_config": peft.LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    }
    if settings.method == "grpo":
        return trl.GRPOTrainer(
            args=trl.GRPOConfig(
                **common,
                num_generations=settings.generations,
                max_completion_length=settings.max_tokens,
                temperature=settings.temperature,
            ),
            reward_funcs=concise_reward,
            **parts,
        )
    if held_out:
        parts["eval_dataset"] = datasets.Dataset.from_list(held_out)
    if settings.method == "dpo":
        return trl.DPOTrainer(args=trl.DPOConfig(**common, max_length=None, beta=settings.beta), **parts)
    # No max_length: examples that are too long were reported before, not cut.
    return trl.SFTTrainer(args=trl.SFTConfig(**common, max_length=None, completion_only_loss=True), **parts)


def _arguments(folder: Path, settings: TrainingSettings, device: str, *, tests: bool) -> dict[str, Any]:
    return {
        "output_dir": str(folder / "checkpoints"),
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.micro_batch,
        "per_device_eval_batch_size": settings.micro_batch,
        "gradient_accumulation_steps": settings.batch // settings.micro_batch,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "save_strategy": "steps",
        "save_steps": settings.checkpoint_steps,
        "save_total_limit": 2,
        "eval_strategy": "epoch" if tests and settings.method != "grpo" else "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "report_to": "none",
        "use_cpu": device == "cpu",
        "bf16": bases.is_mixed(device),
        # It trades time for memory, which a CPU has more of.
        "gradient_checkpointing": device != "cpu",
        "dataloader_pin_memory": device == "cuda",
    }


class _Shown(transformers.TrainerCallback):  # type: ignore[misc]  # the extra is not there for mypy
    """Shows every step, and stops a training that earns no reward."""

    def __init__(self, show: Callable[[Standing], None]) -> None:
        self._show = show
        self._unrewarded = 0

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Handle the metrics of a step."""
        del args, control
        figures = _figures(logs)
        if "reward" in figures:
            self._unrewarded = 0 if figures["reward"] else self._unrewarded + 1
        if self._unrewarded >= _PATIENCE:
            raise TrainingError(
                f"{_PATIENCE} steps in a row earned no reward, so there is nothing to learn from: the model "
                "answers none of these questions right; take easier questions, a larger --max-tokens, or train "
                "with sft first"
            )
        self._show(Standing(step=state.global_step, steps=state.max_steps, figures=figures))


def _figures(logs: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items() if isinstance(value, (int, float))}
