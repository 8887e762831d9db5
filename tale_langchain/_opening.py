"""Opening what a user gives as a model: an object is checked, a string is looked up."""

from __future__ import annotations

import typing
from types import UnionType
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable
from pydantic import SecretStr

from tale_core.errors import MissingExtraError, NotAChatModelError, UnknownModelError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from tale_langchain._models import ChatRunnable

_KNOWN_STRINGS = "'provider:model' (such as 'openai:gpt-4o-mini'), 'local' or the URL of a server"
_TIMEOUT = 10.0
# A key of the environment is meant for OpenAI, not for whoever answers at another address.
_NO_KEY = "local"
# Servers of a single model take any name.
_ANY_MODEL = "default"


def open_model(model: object) -> ChatRunnable:
    """Return the runnable that a user means.

    Args:
        model: A chat model, a runnable that answers like one, or a string: ``"provider:model"``,
            ``"local"`` for the embedded model, or the URL of an OpenAI-compatible server.

    Raises:
        NotAChatModelError: Something that cannot answer messages with a message.
        UnknownModelError: A string that names nothing, or a server that does not answer.
        MissingExtraError: The string needs a package that is not installed.
    """
    if isinstance(model, str):
        if not model:  # LangChain would leave the choice to run time
            raise UnknownModelError(f"no model {model!r}: the name is empty. Known are {_KNOWN_STRINGS}")
        return _named(model)
    if not isinstance(model, Runnable):
        raise NotAChatModelError(
            f"TALE needs a chat model, got {type(model).__name__}; pass a LangChain chat model, a runnable "
            f"that answers with an AIMessage, or a string: {_KNOWN_STRINGS}"
        )
    _check_types(model)
    return model


def _named(model: str) -> BaseChatModel:
    if model == "local":
        from tale_core.local import serve  # noqa: PLC0415  # an extra

        server = serve()
        return _openai_compatible(server.base_url, server.model)
    if model.startswith(("http://", "https://")):
        return _openai_compatible(model, None)
    try:
        from langchain.chat_models import init_chat_model  # noqa: PLC0415  # slow, and an extra
    except ImportError as exc:
        raise MissingExtraError("langchain", "langchain") from exc
    try:
        return init_chat_model(model)
    except ImportError as exc:
        if (exc.name or "").startswith("langchain_openai"):
            raise MissingExtraError("langchain_openai", "langchain") from exc
        raise UnknownModelError(f"cannot open {model!r}: {exc}") from exc
    except ValueError as exc:
        reason = str(exc).splitlines()[0]
        raise UnknownModelError(f"no model {model!r}: {reason} Known are {_KNOWN_STRINGS}") from exc


def _openai_compatible(base_url: str, name: str | None) -> BaseChatModel:
    try:
        from langchain_openai import ChatOpenAI  # noqa: PLC0415  # slow, and an extra
    except ImportError as exc:
        raise MissingExtraError("langchain_openai", "langchain") from exc
    return ChatOpenAI(
        base_url=base_url,
        api_key=SecretStr(_NO_KEY),
        model=_served_by(base_url) if name is None else name,
        stream_usage=True,  # off by default behind a base_url, and then streams would go unmeasured
    )


def _served_by(base_url: str) -> str:
    """Return the name of the first model that a server lists."""
    import openai  # noqa: PLC0415  # comes with langchain_openai

    try:
        with openai.OpenAI(base_url=base_url, api_key=_NO_KEY, timeout=_TIMEOUT, max_retries=0) as client:
            listed = client.models.list().data
    except openai.APIConnectionError as exc:
        raise UnknownModelError(
            f"nothing answers at {base_url!r}; start the server, or check the address (it usually ends in /v1)"
        ) from exc
    except openai.APIStatusError as exc:
        raise UnknownModelError(
            f"the server at {base_url!r} lists no models (HTTP {exc.status_code}); check that the address ends "
            "in /v1, or pass a ChatOpenAI with its model and key"
        ) from exc
    return listed[0].id if listed else _ANY_MODEL


def _check_types(model: Runnable[Any, Any]) -> None:
    """Reject what says by its declared types that it is no chat model: prompts, parsers, completion LLMs."""
    try:
        takes, answers = model.InputType, model.OutputType
    except TypeError:  # a custom runnable need not declare its types
        return
    if not _may_be_message(answers):
        raise NotAChatModelError(
            f"TALE needs a model that answers with an AIMessage, but {model.get_name()} answers with "
            f"{getattr(answers, '__name__', answers)}; wrap the chat model alone and chain the rest around it: "
            "prompt | TALERunnable(model) | parser"
        )
    if takes is dict or typing.get_origin(takes) is dict:
        raise NotAChatModelError(
            f"TALE needs a model that takes messages, but {model.get_name()} takes a dict; leave the prompt "
            "outside: prompt | TALERunnable(model)"
        )


def _may_be_message(declared: Any) -> bool:
    if declared is Any or declared is object or isinstance(declared, typing.TypeVar):
        return True
    if typing.get_origin(declared) in {typing.Union, UnionType}:
        return any(map(_may_be_message, typing.get_args(declared)))
    if typing.get_origin(declared) is typing.Annotated:
        return _may_be_message(typing.get_args(declared)[0])
    if typing.get_origin(declared) is not None:
        return False
    # An annotation that is still a string may be anything.
    return not isinstance(declared, type) or issubclass(declared, BaseMessage)
