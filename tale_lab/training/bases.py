"""The model that is trained: loaded, its memory estimated, and the trained adapter merged into it.

Needs the extra ``train``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import gguf
import numpy as np
import peft
import psutil
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

from tale_core.errors import InvalidValueError, TrainingError, UnknownModelError
from tale_core.types import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tale_lab.training.settings import TrainingSettings

_GIB = 1 << 30
# Bytes of activations a token and layer in units of the hidden size, for numbers of 2 bytes, without the part
# that attention kernels never write down (Korthikanti et al., arXiv 2205.05198, section 4.1).
_ACTIVATIONS = 34
_ADAPTER_BYTES = 16  # weight, gradient and two moments, each of 4 bytes
_ROTATED = ("llama", "mistral")  # architectures whose attention llama.cpp stores in another order
_BLOCK = 32  # numbers that share a scale
_LOGIT_COPIES = 3  # the logits, their gradient, and one in between


def source(model: str) -> dict[str, str]:
    """Return how transformers names a model: a GGUF file is a folder and a file in it."""
    path = Path(model)
    if path.suffix == ".gguf":
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    return {"pretrained_model_name_or_path": model}


def digest(model: str) -> str:
    """Return the SHA-256 of a GGUF file, or the commit of a model on the hub; empty for a folder."""
    path = Path(model)
    if path.is_file():
        return file_digest(path)
    return "" if path.is_dir() else str(getattr(_config(model), "_commit_hash", None) or "")


def choose_device(wanted: str | None) -> str:
    """Return the device to train on."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted is None:
        return next(name for name, is_there in there.items() if is_there)
    if not there.get(wanted, False):
        known = ", ".join(name for name, is_there in there.items() if is_there)
        raise InvalidValueError(f"no device {wanted!r} on this machine; available: {known}")
    return wanted


def is_mixed(device: str) -> bool:
    """Return whether a device trains in mixed precision (bfloat16 and float32)."""
    return device == "cuda" and bool(torch.cuda.is_bf16_supported())


def number_type(device: str) -> Any:
    """Return the dtype in which a device holds a model."""
    return torch.bfloat16 if is_mixed(device) else torch.float32


def load_tokenizer(model: str) -> Any:
    """Return the tokenizer of a chat model."""
    tokenizer = _loaded(AutoTokenizer, model)
    if not tokenizer.chat_template:
        raise TrainingError(
            f"{model!r} has no chat template, so it is not a chat model: train its instruct version, or put a "
            "chat_template.jinja into its folder"
        )
    if tokenizer.pad_token is None:  # batches of texts of different lengths need one
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(model: str, device: str) -> Any:
    """Load the weights in the dtype that the device trains in."""
    if not model.endswith(".gguf"):
        return _loaded(AutoModelForCausalLM, model, dtype=number_type(device))
    config = GgufConfig(dequantize=True)
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar without a switch
        unpacked = _loaded(AutoModelForCausalLM, model, dtype=number_type(device), quantization_config=config)
    # The weights are plain now, but the model still claims to be quantized, and those are not trained.
    unpacked.hf_quantizer, unpacked.is_quantized = None, False
    return unpacked


def context_of(model: str, settings: TrainingSettings) -> int:
    """Return the longest text that the model is trained on, in tokens."""
    own = int(getattr(_text_config(model), "max_position_embeddings", 0) or 0)
    if settings.context is None:
        return own or 2048
    if own and settings.context > own:
        raise InvalidValueError(f"the context of {model!r} is {own} tokens, got context={settings.context}")
    return settings.context


class Memory(Record):
    """Estimated peak memory of a training, in bytes."""

    weights: int
    """The model."""
    adapter: int
    """The adapter, its gradients and the optimizer's moments."""
    activations: int
    """What a micro batch of the longest examples keeps for the backward pass."""
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
    """Estimate the memory of a training without loading the model."""
    config = _text_config(model)
    with torch.device("meta"):  # shapes without weights
        empty = AutoModelForCausalLM.from_config(_config(model))
    size = torch.finfo(number_type(device)).bits // 8
    parameters = sum(one.numel() for one in empty.parameters())
    layers = [one for one in empty.modules() if isinstance(one, torch.nn.Linear)]
    adapter = settings.rank * sum(one.in_features + one.out_features for one in layers)
    # dpo holds the preferred and the rejected answer of each example.
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
    """Load a part of a model; failures become errors of ours."""
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


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, empty where it cannot be read."""
    digest = hashlib.sha256()
    with contextlib.suppress(OSError), path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
        return digest.hexdigest()
    return ""


def merge(model: str, folder: Path) -> Path:
    """Merge the adapter into its base and write the result.

    Returns:
        ``merged.gguf`` for a GGUF file, otherwise the folder ``merged``.
    """
    reader = gguf.GGUFReader(model) if model.endswith(".gguf") else None
    names = None if reader is None else _tensor_names(reader)
    with quiet():
        base = load_model(model, "cpu")  # in float32: bfloat16 would round small changes away
        trained = peft.PeftModel.from_pretrained(base, str(folder / "adapter"))
    if reader is not None:
        written = folder / "merged.gguf"
        _write_gguf(reader, written, _named(reader, names, _changes(trained)))
        return written
    written = folder / "merged"
    trained.merge_and_unload().save_pretrained(str(written))
    load_tokenizer(model).save_pretrained(str(written))
    return written


def _changes(trained: Any) -> dict[str, Any]:
    """Return what the adapter adds to each weight, by the weight's name in the base."""
    return {
        name.removeprefix("base_model.model.") + ".weight": module.get_delta_weight("default").float().numpy()
        for name, module in trained.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }


def _write_gguf(reader: Any, written: Path, changes: dict[str, Any]) -> None:
    """Copy a GGUF file with the changed weights in it; what is not changed is copied as it is."""
    fresh = written.with_suffix(".part")
    writer = gguf.GGUFWriter(str(fresh), _architecture(reader))
    _copy_fields(reader, writer)
    with torch.inference_mode():
        for tensor in reader.tensors:
            _add(writer, tensor, changes.get(tensor.name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    fresh.replace(written)


def _architecture(reader: Any) -> str:
    return str(reader.fields["general.architecture"].contents())


def _tensor_names(reader: Any) -> Any:
    """Return the map from the names of transformers to those of the file."""
    architecture = _architecture(reader)
    kind = next((key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture), None)
    if kind is None:
        raise TrainingError(
            f"GGUF files of architecture {architecture!r} cannot be merged into; use the adapter with the "
            "model's folder of transformers"
        )
    return gguf.get_tensor_name_map(kind, int(reader.fields[f"{architecture}.block_count"].contents()))


def _named(reader: Any, names: Any, changes: dict[str, Any]) -> dict[str, Any]:
    """Name the changes as the file names its weights, in the order in which it stores them."""
    architecture = _architecture(reader)
    heads = int(reader.fields[f"{architecture}.attention.head_count"].contents())
    shared = reader.fields.get(f"{architecture}.attention.head_count_kv")
    turned: dict[str, Callable[[Any], Any]] = {}
    if architecture in _ROTATED:
        groups = heads if shared is None else int(shared.contents())
        turned = {"q_proj": lambda one: _rotated(one, heads), "k_proj": lambda one: _rotated(one, groups)}
    found = {}
    for name, change in changes.items():
        part = name.removesuffix(".weight").rpartition(".")[2]
        found[str(names.get_name(name, try_suffixes=(".weight",)))] = turned.get(part, lambda one: one)(change)
    return found


def _rotated(weight: Any, heads: int) -> Any:
    """Reorder the rows of each head as llama.cpp's conversion does for rotary embeddings."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _copy_fields(reader: Any, writer: Any) -> None:
    for name, field in reader.fields.items():
        # The writer makes these itself.
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=inner)


def _add(writer: Any, tensor: Any, change: Any) -> None:
    if change is None:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        return
    weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type) + change
    # Eight bits where the rows allow it: an adapter's change is finer than the steps of four.
    even = weight.shape[-1] % _BLOCK == 0
    kind = gguf.GGMLQuantizationType.Q8_0 if even else gguf.GGMLQuantizationType.F16
    writer.add_tensor(tensor.name, gguf.quants.quantize(weight.astype(np.float32), kind), raw_dtype=kind)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries' own progress bars, warnings and logs."""
    before = transformers.logging.get_verbosity(), logging.getLogger("trl").level
    bars = datasets.are_progress_bars_disabled(), transformers.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    logging.getLogger("trl").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(before[0])
        logging.getLogger("trl").setLevel(before[1])
        if not bars[0]:
            datasets.enable_progress_bars()
        if bars[1]:
            transformers.utils.logging.enable_progress_bar()
