"""A tiny random model and data to train it on, made here: nothing is downloaded.

The group runs only when it is asked for (``make test-train``): it needs the extra ``train``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tale_core import Usage
from tale_core.search.budget_search import SearchSettings, SearchTrace
from tale_core.search.curves import Probe
from tale_lab.questions.datasets import Question
from tale_lab.results.store import Store
from tale_lab.training import ExportSettings, export_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|pad|>"]
SUMS = 16
_left_out = pytest.StashKey[int]()


@pytest.hookimpl(tryfirst=True)  # before pytest selects by mark
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the group out of a run that did not ask for it by its mark."""
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.train)
    asked = config.getoption("markexpr")
    if ours and "train" not in asked:
        config.stash[_left_out] = len(ours)
        items[:] = [item for item in items if item not in ours]
        config.hook.pytest_deselected(items=ours)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if count := config.stash.get(_left_out, 0):
        terminalreporter.write_line(f"{count} tests of training were not run: make test-train", yellow=True)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Llama with a tokenizer of bytes and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
    vocabulary = {letter: n for n, letter in enumerate(letters)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")]))  # GGUF wants a merge
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(SPECIAL)
    special = {"eos_token": "<|end|>", "pad_token": "<|pad|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **special)
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(7)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )
    folder = tmp_path_factory.mktemp("base")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def searched(n: int) -> SearchTrace:
    def probe(text: str, tokens: int, budget: int | None) -> Probe:
        return Probe(text=text, usage=Usage(output_tokens=tokens), budget=budget, verdict="correct", model="m")

    return SearchTrace(
        question=f"{n} + 1?",
        question_id=str(n),
        settings=SearchSettings(),
        probes=(probe(f"We add one to {n}. Answer: {n + 1}", 30, None), probe(f"Answer: {n + 1}", 9, 9)),
        chosen=9,
        ideal=None,
        stopped="rejected",
    )


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Export the same searched sums in a format; more settings of the export can be named."""
    folder = tmp_path_factory.mktemp("data")

    def export(file_format: str, **settings: Any) -> Path:
        path = folder / "-".join([file_format, *settings])
        with Store(":memory:") as store:
            for n in range(SUMS):
                store.put(str(n), "search", searched(n), model="m", question_id=str(n))
                question = Question.of(f"{n} + 1?", str(n + 1))
                store.put(f"question {n}", "question", question, model="", question_id=question.id)
            export_run(store, path, ExportSettings(**{"format": file_format, "test_share": 0.2, **settings}))
        return path

    return export


@pytest.fixture(autouse=True)
def _third_party_warnings() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def gguf_base(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a GGUF file, written as llama.cpp's conversion writes a Llama."""
    import gguf
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    config = model.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = tokenizer.get_vocab()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.__getitem__))
    writer.add_token_types([1] * (len(vocabulary) - len(SPECIAL)) + [3] * len(SPECIAL))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        weight = tensor.float().numpy()
        if count := heads.get(name.split(".")[-2]):
            rows, columns = weight.shape
            halves = weight.reshape(count, 2, rows // count // 2, columns)
            weight = halves.swapaxes(1, 2).reshape(rows, columns)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), weight.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
