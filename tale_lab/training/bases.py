"""The model that is trained: where it is, what it can do, and what it takes to hold it.

Needs the extra ``train``.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

from tale_core.errors import InvalidValueError, TrainingError, UnknownModelError
from tale_core.types import Record
from tale_lab.training.internalise import file_digest

if TYPE_CHECKING:
    from tale_lab.training.settings import TrainingSettings

_GIB = 1 << 30
# Bytes of activations a token and layer in units of the hidden size, for numbers of 2 bytes, without the part
# that attention kernels never write down (Korthikanti et al., arXiv 2205.05198, section 4.1).
_ACTIVATIONS = 34
_ADAPTER_BYTES = 16  # weight, gradient and two moments, each of 4 bytes
_LOGIT_COPIES = 3  # the logits, their gradient, and one in between


def source(model: str) -> dict[str, str]:
    """Return how transformers names a model: a GGUF file is a folder and a file in it."""
    path = Path(model)
    if path.suffix == ".gguf":
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    return {"pretrained_model_name_or_path": model}


def digest(model: str) -> str:
    """Return the SHA-256 of a GGUF file, or the commit of a model on the hub; empty for a folder.

    Args:
        model: A folder, a name on the hub, or a GGUF file.

    Raises:
        UnknownModelError: There is no such model.
    """
    path = Path(model)
    if path.is_file():
        return file_digest(path)
    return "" if path.is_dir() else str(getattr(_config(model), "_commit_hash", None) or "")


def choose_device(wanted: str | None) -> str:
    """Return the device to train on.

    Args:
        wanted: ``"cpu"``, ``"cuda"`` or ``"mps"``; None takes the best there is.

    Raises:
        InvalidValueError: That one is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted is None:
        return next(name for name, is_there in there.items() if is_there)
    if not there.get(wanted, False):
        known = ", ".join(name for name, is_there in there.items() if is_there)
        raise InvalidValueError(f"there is no device {wanted!r} here; there is: {known}")
    return wanted


def is_mixed(device: str) -> bool:
    """Return whether a device trains in numbers of 16 bits beside those of 32."""
    return device == "cuda" and bool(torch.cuda.is_bf16_supported())


def number_type(device: str) -> Any:
    """Return the type of numbers that a device holds a model in."""
    return torch.bfloat16 if is_mixed(device) else torch.float32


def load_tokenizer(model: str) -> Any:
    """Return the tokenizer of a chat model.

    Args:
        model: A folder, a name on the hub, or a GGUF file.

    Raises:
        UnknownModelError: There is no such model.
        TrainingError: It has no chat template.
    """
    tokenizer = _loaded(AutoTokenizer, model)
    if not tokenizer.chat_template:
        raise TrainingError(
            f"{model!r} has no chat template, so it is no chat model: train its instruct version, or put a "
            "chat_template.jinja into its folder"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(model: str, device: str) -> Any:
    """Return the weights, in the numbers that the device trains in.

    Raises:
        UnknownModelError: There is no such model.
    """
    if not model.endswith(".gguf"):
        return _loaded(AutoModelForCausalLM, model, dtype=number_type(device))
    with contextlib.redirect_stderr(io.StringIO()):  # a bar that listens to no switch
        unpacked = _loaded(
            AutoModelForCausalLM,
            model,
            dtype=number_type(device),
            quantization_config=GgufConfig(dequantize=True),
        )
    # Plain weights from here on, but it still says that they are packed, which cannot be trained.
    unpacked.hf_quantizer, unpacked.is_quantized = None, False
    return unpacked


def context_of(model: str, settings: TrainingSettings) -> int:
    """Return the longest text that the model is trained on, in tokens.

    Raises:
        UnknownModelError: There is no such model.
        InvalidValueError: More was asked for than the model can read.
    """
    own = int(getattr(_text_config(model), "max_position_embeddings", 0) or 0)
    if settings.context is None:
        return own or 2048
    if own and settings.context > own:
        raise InvalidValueError(f"the context of {model!r} is {own} tokens, got context={settings.context}")
    return settings.context


class Memory(Record):
    """What a training takes at its peak, in bytes: an estimate, so that a refusal names figures."""

    weights: int
    """The model."""
    adapter: int
    """The adapter, its gradients and the optimizer's moments."""
    activations: int
    """What the longest examples of a micro batch leave behind for the backward pass."""
    available: int
    """What is free on the device."""

    @property
    def needed(self) -> int:
        """All of it."""
        return self.weights + self.adapter + self.activations

    def __str__(self) -> str:
        """Return one line."""
        return (
            f"memory: about {self.needed / _GIB:.1f} GiB needed (model {self.weights / _GIB:.1f}, adapter "
            f"{self.adapter / _GIB:.1f}, activations {self.activations / _GIB:.1f}), "
            f"{self.available / _GIB:.1f} GiB free"
        )


def memory(model: str, settings: TrainingSettings, *, longest: int, device: str) -> Memory:
    """Estimate the memory of a training without loading the model.

    Args:
        model: A folder, a name on the hub, or a GGUF file.
        settings: How it is trained.
        longest: The longest question and answer, in tokens.
        device: Where it is trained.
    """
    config = _text_config(model)
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(_config(model))
    size = torch.finfo(number_type(device)).bits // 8
    parameters = sum(one.numel() for one in empty.parameters())
    layers = [one for one in empty.modules() if isinstance(one, torch.nn.Linear)]
    adapter = settings.rank * sum(one.in_features + one.out_features for one in layers)
    texts = settings.micro_batch * (2 if settings.method == "dpo" else 1)
    per_layer = config.hidden_size * _ACTIVATIONS * size // 2
    # With checkpointing only the border of each layer is kept, and one layer is done again at a time.
    kept = config.num_hidden_layers * config.hidden_size * size + per_layer
    per_token = config.num_hidden_layers * per_layer if device == "cpu" else kept
    return Memory(
        # A GGUF file is unpacked in the processor's memory beside the model.
        weights=parameters * size * (2 if model.endswith(".gguf") and device == "cpu" else 1),
        adapter=adapter * _ADAPTER_BYTES,
        activations=texts * longest * (per_token + config.vocab_size * 4 * _LOGIT_COPIES),
        available=_available(device),
    )


def _available(device: str) -> int:
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    if device == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return int(psutil.virtual_memory().available)


def _config(model: str) -> Any:
    return _loaded(AutoConfig, model)


def _text_config(model: str) -> Any:
    return _config(model).get_text_config()


def _loaded(kind: Any, model: str, **options: Any) -> Any:
    """Load a part of a model, with errors of our own tree."""
    path = Path(model)
    if path.suffix == ".gguf" and not path.is_file():
        raise UnknownModelError(f"there is no file {model!r}")
    try:
        return kind.from_pretrained(**source(model), **options)
    except (OSError, ValueError, KeyError) as exc:
        raise UnknownModelError(
            f"cannot load {model!r}: {str(exc).strip().splitlines()[0]}; give a folder, a name on the Hugging "
            "Face hub, or a .gguf file"
        ) from exc
