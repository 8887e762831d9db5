"""The trained adapter put into its base: a folder for transformers, a GGUF file where the base is one.

Needs the extra ``train``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import peft
import torch

from tale_core.errors import TrainingError
from tale_lab.training import bases
from tale_lab.training.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_ROTATED = ("llama", "mistral")  # architectures whose attention llama.cpp stores in another order
_BLOCK = 32  # numbers that share a scale


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
    reader = gguf.GGUFReader(model) if model.endswith(".gguf") else None
    names = None if reader is None else _tensor_names(reader)
    with quiet():
        base = bases.load_model(model, "cpu")
        trained = peft.PeftModel.from_pretrained(base, str(folder / "adapter"))
    if reader is not None:
        written = folder / "merged.gguf"
        _write_gguf(reader, written, _named(reader, names, _changes(trained)))
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
    # Eight bits where the rows allow it: an adapter's change is finer than the steps of four.
    even = weight.shape[-1] % _BLOCK == 0
    kind = gguf.GGMLQuantizationType.Q8_0 if even else gguf.GGMLQuantizationType.F16
    writer.add_tensor(tensor.name, gguf.quants.quantize(weight.astype(np.float32), kind), raw_dtype=kind)
