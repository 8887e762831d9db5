"""Looking into a user's model, however it is wrapped, and rebuilding the wrappers around a changed model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableParallel, RunnableSequence, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable, RunnableConfigurableAlternatives

from tale_core.errors import NotAChatModelError
from tale_langchain._provider_params import ConfiguredModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ChatRunnable: TypeAlias = Runnable[LanguageModelInput, AIMessage]
"""Anything that takes messages and answers with an AIMessage."""


def rebuilt(
    model: Runnable[Any, Any],
    change: Callable[[Runnable[Any, Any]], Runnable[Any, Any]],
    *,
    bound: Callable[[RunnableBindingBase[Any, Any]], Mapping[str, Any]] | None = None,
) -> Runnable[Any, Any]:
    """Return the same wrappers (bindings, retries, fallbacks, configurables) around changed models.

    Args:
        model: A model, possibly wrapped.
        change: Applied to every model inside the wrappers.
        bound: Returns the arguments of a rebuilt binding; None keeps them.
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
    """Find every model inside the wrappers, each with the arguments that reach it.

    Args:
        model: A model, possibly wrapped.
        arguments: What it is called with.
    """
    called_with = arguments or {}
    if isinstance(model, RunnableBindingBase):
        yield from models_in(model.bound, {**model.kwargs, **called_with})
    elif isinstance(model, RunnableWithFallbacks):
        for one in (model.runnable, *model.fallbacks):
            yield from models_in(one, called_with)
    elif isinstance(model, RunnableSequence):
        yield from models_in(model.last)  # call arguments stop at a sequence's first step
    else:
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
    """Return what a model's ``with_structured_output`` returned, with the model at its head changed.

    Args:
        structured: The model and its parser as a sequence; with ``include_raw`` the model stands under ``raw``.
        change: Applied to the model.
    """
    if isinstance(structured, RunnableSequence):
        return structured.model_copy(update={"first": at_head(structured.first, change)})
    if isinstance(structured, RunnableParallel):
        return RunnableParallel({**structured.steps__, "raw": change(structured.steps__["raw"])})
    return change(structured)


def calling(method: str, /, *args: Any, **kwargs: Any) -> Callable[[Any], Runnable[Any, Any]]:
    """Return a function that calls a method of a model.

    Raises:
        NotAChatModelError: When it is called with a model that has no such method.
    """

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
