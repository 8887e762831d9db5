"""The trained adapter put into its base: a folder for transformers, a GGUF file where the base is one.

Needs the extra ``train``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import peft
import torch

from tale_core.errors import TrainingError
from tale_core.training import bases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ROTATED = ("llama", "mistral")  # architectures whose attention llama.cpp stores in another order
_LAYER = "model.layers."


def merge(model: str, folder: Path) -> Path:
    """Write the base with the adapter in it.

    Args:
        model: The base: a folder, a name on the hub, or a GGUF file.
        folder: Where the training was written.

    Returns:
        ``merged.gguf`` for a GGUF file, otherwise the folder ``merged``.

    Raises:
        TrainingError: The GGUF file is of an architecture whose tensors have no names here.
    """
    base = bases.load_model(model, "cpu")
    trained = peft.PeftModel.from_pretrained(base, str(folder / "adapter"))
    if model.endswith(".gguf"):
        written = folder / "merged.gguf"
        _write_gguf(Path(model), written, _changes(trained))
        return written
    written = folder / "merged"
    trained.merge_and_unload().save_pretrained(str(written))
    bases.load_tokenizer(model).save_pretrained(str(written))
    return written


def _changes(trained: Any) -> dict[str, Any]:
    """Return what the adapter adds to each weight, by the weight's name in the base."""
    return {
        name.removeprefix("base_model.model.") + ".weight": module.get_delta_weight("default").float().numpy()
        for name, module in trained.named_modules()
        if isinstance(module, peft.tuners.lora.LoraLayer)
    }


def _write_gguf(base: Path, written: Path, changes: dict[str, Any]) -> None:
    """Copy a GGUF file with the changed weights in it; what is not changed is copied as it is."""
    reader = gguf.GGUFReader(str(base))
    architecture = str(reader.fields["general.architecture"].contents())
    named = _named(reader, architecture, changes)
    fresh = written.with_suffix(".part")
    writer = gguf.GGUFWriter(str(fresh), architecture)
    _copy_fields(reader, writer)
    with torch.inference_mode():
        for tensor in reader.tensors:
            _add(writer, tensor, named.get(tensor.name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    fresh.replace(written)


def _named(reader: Any, architecture: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Name the changes as the file names its weights, in the order in which it stores them."""
    kind = next((key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture), None)
    if kind is None:
        raise TrainingError(
            f"GGUF files of architecture {architecture!r} cannot be merged into; use the adapter with the "
            "model's folder of transformers"
        )
    count = int(reader.fields[f"{architecture}.block_count"].contents())
    names = gguf.get_tensor_name_map(kind, count)
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
    for name, field in _own_fields(reader):
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=inner)


def _own_fields(reader: Any) -> Iterator[tuple[str, Any]]:
    for name, field in reader.fields.items():
        # The writer makes these itself.
        if not name.startswith("GGUF.") and name != "general.architecture":
            yield name, field


def _add(writer: Any, tensor: Any, change: Any) -> None:
    if change is None:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        return
    weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type) + change
    # Eight bits: an adapter's change is finer than the steps of four.
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor(tensor.name, gguf.quants.quantize(weight.astype(np.float32), kind), raw_dtype=kind)
