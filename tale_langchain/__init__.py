"""Token-budget-aware reasoning for LangChain: wrap a chat model in one line, and see what it saved."""

from __future__ import annotations

import importlib as _importlib
import typing as _typing

from tale_core.errors import MissingExtraError as _MissingExtraError

try:
    import langchain_core as _langchain_core  # noqa: F401
except ImportError as exc:
    raise _MissingExtraError("langchain_core", "langchain") from exc

from tale_langchain.chat_model import ChatTALE
from tale_langchain.runnable import TALERunnable

if _typing.TYPE_CHECKING:
    from tale_langchain.callbacks import TALECallbackHandler
    from tale_langchain.compressor import TALEDocumentCompressor
    from tale_langchain.middleware import TALEMiddleware
    from tale_langchain.token_limit import TokenLimitMiddleware

__all__ = [
    "ChatTALE",
    "TALECallbackHandler",
    "TALEDocumentCompressor",
    "TALEMiddleware",
    "TALERunnable",
    "TokenLimitMiddleware",
]

# A chain needs none of these, and agents import LangGraph, which is slow.
_LAZY = {
    "TALECallbackHandler": "tale_langchain.callbacks",
    "TALEDocumentCompressor": "tale_langchain.compressor",
    "TALEMiddleware": "tale_langchain.middleware",
    "TokenLimitMiddleware": "tale_langchain.token_limit",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = _importlib.import_module(_LAZY[name])
    except ModuleNotFoundError as exc:
        raise _MissingExtraError(exc.name or "langchain", "langchain") from exc
    return getattr(module, name)


def __dir__() -> list[str]:
    return __all__
