"""What a user may give as ``llm``: an LLM, a string that names one, or nothing for ``Settings.llm``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms import LLM
from llama_index.core.settings import Settings

from tale_core.errors import MissingExtraError, NotAChatModelError, TaleError, UnknownModelError

if TYPE_CHECKING:
    from collections.abc import Callable

LLMLike: TypeAlias = LLM | str | None
"""An LLM; ``"local"``, ``"openai:<model>"`` or the URL of an OpenAI-compatible server; None takes
``Settings.llm``."""

_WAYS = (
    'pass an LLM object, "local" for the embedded model, "openai:<model>", or the URL of an '
    "OpenAI-compatible server such as http://127.0.0.1:8000/v1"
)
# Without it streams report no usage, and every streamed call would be an estimate.
_STREAM_USAGE = {"stream_options": {"include_usage": True}}


def open_llm(llm: LLMLike) -> LLM:
    """Return the LLM that a caller meant.

    Args:
        llm: See `LLMLike`.

    Raises:
        UnknownModelError: A string that names no model.
        NotAChatModelError: Neither an LLM nor a string.
        MissingExtraError: The integration that the string asks for is not installed.
    """
    if llm is None:
        return Settings.llm
    if isinstance(llm, LLM):
        return llm
    if not isinstance(llm, str):
        raise NotAChatModelError(f"expected an LLM, got {type(llm).__name__}; {_WAYS}")
    scheme = llm.partition(":")[0]
    opener = _OPENERS.get(scheme)
    if opener is None:
        raise UnknownModelError(f"no model is known as {llm!r}; {_WAYS}")
    return opener(llm)


def name_of(llm: LLM) -> str | None:
    """Return the model's name; None where the LLM does not tell it."""
    name = llm.metadata.model_name
    return None if name == LLMMetadata.model_fields["model_name"].default else name


def _open_local(name: str) -> LLM:
    if name != "local":
        raise UnknownModelError(f"no model is known as {name!r}; {_WAYS}")
    try:
        from tale_core.local import serve  # noqa: PLC0415  # an extra of its own
    except ImportError as exc:
        if isinstance(exc, TaleError):
            raise
        raise MissingExtraError(exc.name or "xllamacpp", "local") from exc
    server = serve()
    return _open_like(server.base_url, server.model, context=server.settings.context)


def _open_openai(name: str) -> LLM:
    model = name.partition(":")[2]
    if not model:
        raise UnknownModelError(f"{name!r} names no model; write for example 'openai:gpt-4o-mini'")
    try:
        from llama_index.llms.openai import OpenAI  # noqa: PLC0415  # an extra of its own
    except ImportError as exc:
        raise MissingExtraError("llama_index.llms.openai", "llamaindex") from exc
    try:
        llm = OpenAI(model=model, additional_kwargs=_STREAM_USAGE)
        llm.metadata  # noqa: B018  # looks the model up
    except ValueError as exc:
        raise UnknownModelError(
            f"llama-index-llms-openai does not know {model!r}; check the name, or pass an LLM object"
        ) from exc
    return llm


def _open_url(url: str) -> LLM:
    return _open_like(url, _first_model(url))


def _open_like(url: str, model: str, *, context: int = DEFAULT_CONTEXT_WINDOW) -> LLM:
    try:
        from llama_index.llms.openai_like import OpenAILike  # noqa: PLC0415  # an extra of its own
    except ImportError as exc:
        raise MissingExtraError("llama_index.llms.openai_like", "llamaindex") from exc
    llm: LLM = OpenAILike(
        model=model,
        api_base=url,
        api_key="local",
        is_chat_model=True,
        context_window=context,
        timeout=600.0,  # seconds; a model on a CPU takes its time
        additional_kwargs=_STREAM_USAGE,
    )
    return llm


def _first_model(url: str) -> str:
    """Ask a server which model it serves."""
    try:
        import openai  # noqa: PLC0415  # slow to import
    except ImportError as exc:
        raise MissingExtraError("openai", "llamaindex") from exc
    try:
        with openai.OpenAI(base_url=url, api_key="local", max_retries=0, timeout=10.0) as client:
            models: Any = client.models.list().data
    except openai.OpenAIError as exc:
        raise UnknownModelError(
            f"no OpenAI-compatible server answers at {url!r} ({type(exc).__name__}); start it, or check the "
            "address: it usually ends in /v1"
        ) from exc
    if not models:
        raise UnknownModelError(f"the server at {url!r} serves no model; load one into it")
    return str(models[0].id)


_OPENERS: dict[str, Callable[[str], LLM]] = {
    "local": _open_local,
    "openai": _open_openai,
    "http": _open_url,
    "https": _open_url,
}
