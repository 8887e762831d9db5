"""Counting tokens without a network: always an estimate, and marked as one.

What a call cost is what its provider reports. Where nothing is reported (a stream left early, a server
without usage) text is counted here, with tiktoken when one of its vocabularies lies on this disk, otherwise
by a rule of thumb. Nothing is ever downloaded.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import math
import os
import re
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tale_core.types import Message, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import tiktoken

    from tale_core.types import ModelCall, ModelReply

_CACHE_VARIABLE = "TIKTOKEN_CACHE_DIR"
_ENCODING = "o200k_base"
_WIDE = re.compile(r"[\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHARACTERS_PER_TOKEN = 4
# Role and separator tokens around each message, as in the chat formats of common models.
_TOKENS_PER_MESSAGE = 4
_environment = threading.Lock()


def count_tokens(text: str) -> int:
    """Estimate how many tokens a text has.

    Args:
        text: Any text.

    Returns:
        A number of tokens, 0 only for the empty text. Models tokenise differently: never present it as
        measured.
    """
    if not text:
        return 0
    encoding = _offline_encoding()
    if encoding is not None:
        return len(encoding.encode(text, disallowed_special=()))
    wide = len(_WIDE.findall(text))
    return max(1, wide + math.ceil((len(text) - wide) / _CHARACTERS_PER_TOKEN))


def counting_method() -> str:
    """Return how `count_tokens` counts here: ``"tiktoken o200k_base"`` or ``"4 characters a token"``."""
    return f"tiktoken {_ENCODING}" if _offline_encoding() else f"{_CHARACTERS_PER_TOKEN} characters a token"


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
    """Return what a call cost: as the provider reported it, or else as a tokenizer counts it.

    Args:
        call: The call.
        reply: Its answer.
    """
    return estimate_usage(call.messages, reply.text) if reply.usage is None else reply.usage


@functools.cache
def _offline_encoding() -> tiktoken.Encoding | None:
    """Load the vocabulary from a folder on this disk; None where there is none."""
    import tiktoken  # noqa: PLC0415  # slow to import, and most programs never count
    from tiktoken_ext import openai_public  # noqa: PLC0415

    address, digest = _vocabulary(openai_public)
    name = hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()  # tiktoken's own cache key
    for folder in _cache_folders():
        if _has_digest(folder / name, digest):
            # tiktoken reads its cache folder from the environment only. What it misses there, or finds with
            # another digest, it downloads (and deletes the file): hence the check before.
            with _environment:
                before = os.environ.get(_CACHE_VARIABLE)
                os.environ[_CACHE_VARIABLE] = str(folder)
                try:
                    return tiktoken.get_encoding(_ENCODING)
                finally:
                    if before is None:
                        del os.environ[_CACHE_VARIABLE]
                    else:
                        os.environ[_CACHE_VARIABLE] = before
    return None


def _vocabulary(module: object) -> tuple[str, str]:
    """Return the address that tiktoken would load the vocabulary from, and the digest it expects.

    Both stand in the code of its constructor alone; empty where a future version keeps them elsewhere.
    """
    code = getattr(getattr(module, _ENCODING, None), "__code__", None)
    texts = [one for one in getattr(code, "co_consts", ()) if isinstance(one, str)]
    address = next((one for one in texts if one.endswith(f"/{_ENCODING}.tiktoken")), "")
    digest = next((one for one in texts if _SHA256.fullmatch(one)), "")
    return address, digest


def _has_digest(path: Path, digest: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except OSError:
        return False


def _cache_folders() -> Iterator[Path]:
    """Yield the folders where a vocabulary may lie, tiktoken's own first."""
    for variable in (_CACHE_VARIABLE, "DATA_GYM_CACHE_DIR"):
        if os.environ.get(variable):
            yield Path(os.environ[variable])
    yield Path(tempfile.gettempdir()) / "data-gym-cache"
    # llama-index-core ships the common vocabularies; found without importing it.
    spec = importlib.util.find_spec("llama_index")
    for root in (spec.submodule_search_locations or []) if spec else []:
        yield Path(root) / "core" / "_static" / "tiktoken_cache"
