"""Opening what a user gives as a model: an object is checked, a string is looked up."""

from __future__ import annotations

import typing
from types import UnionType
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable
from pydantic import SecretStr, ValidationError

from tale_core.errors import InvalidValueError, MissingExtraError, NotAChatModelError, UnknownModelError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from tale_langchain._models import ChatRunnable

_KNOWN_STRINGS = (
    "'provider:model' (such as 'openai:gpt-4o-mini'), 'local', 'local:NAME' or the URL of a server "
    "(with #NAME where it has several models)"
)


def open_model(model: object) -> ChatRunnable:
    """Return the runnable that a user means.

    Args:
        model: A chat model, a runnable that answers like one, or a string: ``"provider:model"`` or one of
            `tale_core.models.model_strings.FORMS`.

    Raises:
        NotAChatModelError: Something that cannot answer messages with a message.
        UnknownModelError: A string that names nothing.
        InvalidValueError: The provider refuses, mostly for want of a key.
        LocalModelError: The embedded model cannot be served, or nobody answers at the URL.
        MissingExtraError: The string needs a package that is not installed.
    """
    if isinstance(model, str):
        if not model or model.endswith(":"):  # LangChain would leave the choice to run time
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
    from tale_core.models.model_strings import ModelString  # noqa: PLC0415  # of no use to who brings an object

    try:
        kind = ModelString.read(model).kind
    except UnknownModelError:  # LangChain knows many providers more
        return _from_provider(model)
    return _from_provider(model) if kind == "openai" else _openai_compatible(model)


def _from_provider(model: str) -> BaseChatModel:
    try:
        from langchain.chat_models import init_chat_model  # noqa: PLC0415  # slow, and an extra
    except ImportError as exc:
        raise MissingExtraError("langchain", "langchain") from exc
    from tale_core.models.model_strings import resolve_model  # noqa: PLC0415

    if model.startswith("openai:"):
        resolve_model(model)  # says so when there is no key
    try:
        return init_chat_model(model)
    except ImportError as exc:
        if (exc.name or "").startswith("langchain_openai"):
            raise MissingExtraError("langchain_openai", "langchain") from exc
        raise UnknownModelError(f"cannot open {model!r}: {exc}") from exc
    except ValidationError as exc:
        # Its own text shows what was given, which may be a key.
        raise _refused(model, "; ".join(str(item["msg"]) for item in exc.errors(include_input=False))) from exc
    except ValueError as exc:
        reason = str(exc).splitlines()[0]
        raise UnknownModelError(f"no model {model!r}: {reason} Known are {_KNOWN_STRINGS}") from exc
    except Exception as exc:  # each provider's package has its own way to say that the key is missing
        raise _refused(model, str(exc)) from exc


def _refused(model: str, reason: str) -> InvalidValueError:
    said = reason.removeprefix("Value error, ").rstrip(".")
    return InvalidValueError(f"cannot open {model!r}: {said}; or use the model 'local', which needs no key")


def _openai_compatible(model: str) -> BaseChatModel:
    try:
        from langchain_openai import ChatOpenAI  # noqa: PLC0415  # slow, and an extra
    except ImportError as exc:
        raise MissingExtraError("langchain_openai", "langchain") from exc
    from tale_core.models.client import only_model  # noqa: PLC0415
    from tale_core.models.model_strings import resolve_model  # noqa: PLC0415

    found = resolve_model(model)
    return ChatOpenAI(
        base_url=found.base_url,
        # Never the key of the environment: that is meant for OpenAI.
        api_key=SecretStr(found.api_key),
        model=found.model or only_model(found),
        temperature=found.temperature,
        stream_usage=True,  # off by default behind a base_url, and then streams would go unmeasured
    )


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
