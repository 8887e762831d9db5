"""What a user gives as a model: opened where it is a string, looked into, and rebuilt around changed models."""

from __future__ import annotations

import typing
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableParallel, RunnableSequence, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable, RunnableConfigurableAlternatives
from pydantic import SecretStr, ValidationError

from tale_core.errors import InvalidValueError, MissingExtraError, NotAChatModelError, UnknownModelError
from tale_langchain._provider_params import ConfiguredModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ChatRunnable: TypeAlias = Runnable[LanguageModelInput, AIMessage]
"""Anything that takes messages and answers with an AIMessage."""

_KNOWN_STRINGS = (
    "'provider:model' (such as 'openai:gpt-4o-mini'), 'local', 'local:NAME' or the URL of a server "
    "(with #NAME where it has several models)"
)


def rebuilt(
    model: Runnable[Any, Any],
    change: Callable[[Runnable[Any, Any]], Runnable[Any, Any]],
    *,
    bound: Callable[[RunnableBindingBase[Any, Any]], Mapping[str, Any]] | None = None,
) -> Runnable[Any, Any]:
    """Return the same wrappers (bindings, retries, fallbacks, configurables) around changed models.

    ``bound`` returns the arguments of a rebuilt binding; None keeps them.
    """

    def inside(runnable: Any) -> Any:
        return rebuilt(runnable, change, bound=bound) if isinstance(runnable, Runnable) else runnable

    update: dict[str, Any]
    if isinstance(model, RunnableBindingBase):
        kwargs = model.kwargs if bound is None else bound(model)
        update = {"bound": inside(model.bound), "kwargs": kwargs}
    elif isinstance(model, RunnableWithFallbacks):
        update = {"runnable": inside(model.runnable), "fallbacks": [*map(inside, model.fallbacks)]}
    elif isinstance(model, RunnableConfigurableAlternatives):
        others = {key: inside(other) for key, other in model.alternatives.items()}
        update = {"default": inside(model.default), "alternatives": others}
    elif isinstance(model, DynamicRunnable):
        update = {"default": inside(model.default)}
    elif isinstance(model, RunnableSequence):
        update = {"last": inside(model.last)}
    else:
        return change(model)
    copy: Runnable[Any, Any] = model.model_copy(update=update)
    return copy


def models_in(
    model: Runnable[Any, Any], arguments: Mapping[str, Any] | None = None
) -> Iterator[ConfiguredModel]:
    """Find every model inside the wrappers, each with the arguments that reach it."""
    called_with = arguments or {}
    if isinstance(model, RunnableBindingBase):
        yield from models_in(model.bound, {**model.kwargs, **called_with})
    elif isinstance(model, RunnableWithFallbacks):
        for one in (model.runnable, *model.fallbacks):
            yield from models_in(one, called_with)
    elif isinstance(model, RunnableSequence):
        yield from models_in(model.last)  # call arguments stop at a sequence's first step
    else:
        # Anything else is a model, or is only chosen at run time and cannot be looked into.
        yield ConfiguredModel(model, called_with)


def chat_model_of(model: Runnable[Any, Any]) -> BaseChatModel | None:
    """Return the chat model inside the wrappers; None when there is none that can be seen."""
    seen: list[Runnable[Any, Any]] = []

    def note(one: Runnable[Any, Any]) -> Runnable[Any, Any]:
        seen.append(one)
        return one

    rebuilt(model, note)
    return seen[0] if isinstance(seen[0], BaseChatModel) else None


def name_of(model: Runnable[Any, Any]) -> str | None:
    """Return the name of the chat model inside, as its provider knows it."""
    inner = chat_model_of(model)
    names = (getattr(inner, field, None) for field in ("model_name", "model", "model_id"))
    return next((name for name in names if isinstance(name, str)), None)


def at_head(structured: Runnable[Any, Any], change: Callable[[Any], Runnable[Any, Any]]) -> Runnable[Any, Any]:
    """Return what ``with_structured_output`` returned, with the model at its head changed.

    It is a sequence of model and parser; with ``include_raw`` the model is under ``raw``.
    """
    if isinstance(structured, RunnableSequence):
        return structured.model_copy(update={"first": at_head(structured.first, change)})
    if isinstance(structured, RunnableParallel):
        return RunnableParallel({**structured.steps__, "raw": change(structured.steps__["raw"])})
    return change(structured)


def calling(method: str, /, *args: Any, **kwargs: Any) -> Callable[[Any], Runnable[Any, Any]]:
    """Return a function that calls a method of a model; `NotAChatModelError` where the model has none."""

    def call(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
        try:
            bound = getattr(model, method)
        except AttributeError as exc:
            raise NotAChatModelError(
                f"{model.get_name()} has no {method}; wrap a chat model that has it"
            ) from exc
        result: Runnable[Any, Any] = bound(*args, **kwargs)
        return result

    return call


def open_model(model: object) -> ChatRunnable:
    """Return the runnable that a user means: a chat model, a runnable that answers like one, or a string.

    A string is ``"provider:model"`` or one of `tale_core.models.model_strings.FORMS`.
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
    from tale_core.models.model_strings import ModelString  # noqa: PLC0415  # only needed for strings

    # Our own forms come first: "local" names no provider of LangChain's.
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
    # A prompt takes a dict of variables, and would fail at the first question.
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
