"""What a user may give as ``llm``: an LLM, a string that names one, or nothing for ``Settings.llm``."""

from __future__ import annotations

from typing import TypeAlias

from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.llms import LLM
from llama_index.core.settings import Settings

from tale_core.errors import MissingExtraError, NotAChatModelError, UnknownModelError
from tale_core.models.client import only_model
from tale_core.models.model_strings import FORMS, Endpoint, ModelString, resolve_model

LLMLike: TypeAlias = LLM | str | None
"""An LLM; a model string such as ``"local"``, ``"openai:gpt-4o-mini"`` or the URL of an OpenAI-compatible
server (see `tale_core.models.model_strings`); None takes ``Settings.llm``."""

# Without it streams report no usage, and every streamed call would be an estimate.
_STREAM_USAGE = {"stream_options": {"include_usage": True}}
_TIMEOUT = 600.0  # seconds for an answer; a model on a CPU takes its time


def open_llm(llm: LLMLike) -> LLM:
    """Return the LLM that a caller meant.

    Args:
        llm: See `LLMLike`.

    Raises:
        UnknownModelError: A string that names no model.
        NotAChatModelError: Neither an LLM nor a string.
        InvalidValueError: The model needs a key, and there is none.
        ServerError: Nobody answers at the URL.
        MissingExtraError: The integration that the string asks for is not installed.
    """
    if llm is None:
        return Settings.llm
    if isinstance(llm, LLM):
        return llm
    if not isinstance(llm, str):
        raise NotAChatModelError(
            f"expected an LLM, got {type(llm).__name__}; pass an LLM object or a string: {', '.join(FORMS)}"
        )
    endpoint = resolve_model(llm)
    if ModelString.read(llm).kind == "openai":
        return _open_openai(endpoint)
    return _open_server(endpoint)


def name_of(llm: LLM) -> str | None:
    """Return the model's name; None where the LLM does not tell it."""
    name = llm.metadata.model_name
    return None if name == LLMMetadata.model_fields["model_name"].default else name


def _open_openai(endpoint: Endpoint) -> LLM:
    try:
        from llama_index.llms.openai import OpenAI  # noqa: PLC0415  # an extra, and slow to import
    except ImportError as exc:
        raise MissingExtraError("llama_index.llms.openai", "llamaindex") from exc
    model = endpoint.model or ""
    try:
        llm = OpenAI(model=model, additional_kwargs=_STREAM_USAGE)
        llm.metadata  # noqa: B018  # looks the model up
    except ValueError as exc:
        raise UnknownModelError(
            f"llama-index-llms-openai does not know {model!r}; check the name, or pass an LLM object"
        ) from exc
    return llm


def _open_server(endpoint: Endpoint) -> LLM:
    try:
        from llama_index.llms.openai_like import OpenAILike  # noqa: PLC0415  # an extra, and slow to import
    except ImportError as exc:
        raise MissingExtraError("llama_index.llms.openai_like", "llamaindex") from exc
    temperature = {} if endpoint.temperature is None else {"temperature": endpoint.temperature}
    llm: LLM = OpenAILike(
        model=endpoint.model or only_model(endpoint),
        api_base=endpoint.base_url,
        api_key=endpoint.api_key,
        is_chat_model=True,
        timeout=_TIMEOUT,
        additional_kwargs=_STREAM_USAGE,
        **temperature,
    )
    return llm
