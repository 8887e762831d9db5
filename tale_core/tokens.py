"""Counting tokens without a network: always an estimate, and marked as one.

What a call cost is what its provider reports. Where nothing is reported (a stream left early, a server without
usage) text is counted here: with tiktoken where its vocabulary is on this disk (in tiktoken's cache folder, or
in llama-index-core), else at four characters a token. Nothing is ever downloaded.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import math
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tale_core.types import Message, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import tiktoken

    from tale_core.types import ModelCall, ModelReply

_ENCODING = "o200k_base"
# What tiktoken calls the vocabulary in its cache folder (the SHA-1 of its address), and the file's SHA-256.
_FILE = "fb374d419588a4632f3f557e76b4b70aebbca790"
_DIGEST = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
# How the encoding splits a text into words, as in tiktoken_ext.openai_public.
_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
)
_WIDE = re.compile(r"[\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_CHARACTERS_PER_TOKEN = 4
# Role and separator tokens around each message, as in the chat formats of common models.
_TOKENS_PER_MESSAGE = 4


def count_tokens(text: str) -> int:
    """Estimate how many tokens a text has; 0 only for the empty text.

    Models tokenise differently: never present the number as measured.
    """
    if not text:
        return 0
    encoding = _offline_encoding()
    if encoding is not None:
        return len(encoding.encode(text, disallowed_special=()))
    wide = len(_WIDE.findall(text))
    return max(1, wide + math.ceil((len(text) - wide) / _CHARACTERS_PER_TOKEN))


def estimate_usage(messages: Sequence[Message] | Sequence[str], answer: str) -> Usage:
    """Estimate the usage of a call that its provider did not report.

    Args:
        messages: The prompt: messages, or their texts.
        answer: What the model wrote.

    Returns:
        A usage with ``source="estimated"``.
    """
    texts = [message.content if isinstance(message, Message) else message for message in messages]
    return Usage(
        input_tokens=sum(count_tokens(text) + _TOKENS_PER_MESSAGE for text in texts),
        output_tokens=count_tokens(answer),
        source="estimated",
    )


def usage_of(call: ModelCall, reply: ModelReply) -> Usage:
    """Return what a call cost: as the provider reported it, or else as a tokenizer counts it."""
    return estimate_usage(call.messages, reply.text) if reply.usage is None else reply.usage


@functools.cache
def _offline_encoding() -> tiktoken.Encoding | None:
    """Load the vocabulary from a folder on this disk; None where there is none."""
    for folder in _cache_folders():
        try:
            content = (folder / _FILE).read_bytes()
        except OSError:
            continue
        # A file that was cut short would count wrongly without a word.
        if hashlib.sha256(content).hexdigest() == _DIGEST:
            return _encoding(content)
    return None


def _encoding(content: bytes) -> tiktoken.Encoding:
    """Build the encoding from its file. tiktoken.get_encoding would download what it does not find."""
    import tiktoken  # noqa: PLC0415  # slow to import, and most programs never count

    pairs = (line.split() for line in content.splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
    return tiktoken.Encoding(_ENCODING, pat_str="|".join(_WORDS), mergeable_ranks=ranks, special_tokens={})


def _cache_folders() -> Iterator[Path]:
    """Yield the folders where a vocabulary may be, tiktoken's own first."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if os.environ.get(variable):
            yield Path(os.environ[variable])
    yield Path(tempfile.gettempdir()) / "data-gym-cache"
    # llama-index-core ships the common vocabularies; found without importing it.
    spec = importlib.util.find_spec("llama_index")
    for root in (spec.submodule_search_locations or []) if spec else []:
        yield Path(root) / "core" / "_static" / "tiktoken_cache"
