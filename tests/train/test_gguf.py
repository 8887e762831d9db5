"""A base that is a GGUF file: trained like any other, and merged into a file of the same kind."""

from __future__ import annotations

import hashlib

import pytest

from tale_core import Calibration
from tale_core.errors import TrainingError
from tale_lab.training import TrainingSettings, internalise


def test_a_gguf_file_is_trained_and_merged_into_a_gguf_file(gguf_base, data, tmp_path) -> None:
    import gguf
    import torch
    from peft import PeftModel

    from tale_lab.training import bases

    settings = TrainingSettings.of("sft", batch=4, max_steps=2, learning_rate=1e-2)
    internalise(str(gguf_base), data("sft"), tmp_path, settings, device="cpu", merge=True)
    ids = torch.arange(20).reshape(1, 20)
    plain = bases.load_model(str(gguf_base), "cpu")
    untrained = plain(ids).logits
    trained = PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))(ids).logits
    merged = bases.load_model(str(tmp_path / "merged.gguf"), "cpu")(ids).logits
    change = float((trained - untrained).abs().mean())
    assert float((merged - trained).abs().mean()) < change / 10  # eight bits are not exact

    before, after = (gguf.GGUFReader(str(path)) for path in (gguf_base, tmp_path / "merged.gguf"))
    assert [one.name for one in after.tensors] == [one.name for one in before.tensors]
    for name, field in before.fields.items():
        if not name.startswith("GGUF."):
            assert after.fields[name].contents() == field.contents(), name
    trained_facts = Calibration.load(tmp_path / "calibration.json").trained
    assert trained_facts is not None
    assert trained_facts.base_digest == hashlib.sha256(gguf_base.read_bytes()).hexdigest()


def test_a_gguf_model_reads_as_the_folder_it_was_made_from(base, gguf_base) -> None:
    import torch

    from tale_lab.training import bases

    ids = torch.arange(20).reshape(1, 20)
    folder, file = (bases.load_model(str(path), "cpu")(ids).logits for path in (base, gguf_base))
    assert torch.allclose(folder, file, atol=1e-4)
    asked = [{"role": "user", "content": "3 + 1?"}]
    texts = [
        bases.load_tokenizer(str(path)).apply_chat_template(asked, tokenize=False) for path in (base, gguf_base)
    ]
    assert texts[0] == texts[1]


def test_an_architecture_without_known_names_is_refused(gguf_base, data, tmp_path, monkeypatch) -> None:
    import gguf

    from tale_lab.training import bases

    settings = TrainingSettings.of("sft", batch=4, max_steps=1)
    internalise(str(gguf_base), data("sft"), tmp_path, settings, device="cpu")
    monkeypatch.setattr(gguf, "MODEL_ARCH_NAMES", {})
    with pytest.raises(TrainingError, match="of architecture 'llama' cannot be merged into"):
        bases.merge(str(gguf_base), tmp_path)
