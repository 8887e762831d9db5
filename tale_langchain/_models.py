"""Looking into a user's model, and rebuilding it: for the estimator, with tools, with structured output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableParallel, RunnableSequence, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable, RunnableConfigurableAlternatives

from tale_core.errors import NotAChatModelError
from tale_langchain._provider_params import Request, quieted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tale_core.models.providers import Server
    from tale_core.types import ModelCall

ChatRunnable: TypeAlias = Runnable[LanguageModelInput, AIMessage]
"""Anything that takes messages and answers with an AIMessage."""

# Fields under which chat models keep their output limit.
_LIMITS = ("max_tokens", "max_output_tokens", "max_completion_tokens", "num_predict")
# Bound arguments that shape an answer; an estimate must come as plain text, without much thought.
_ANSWER_SHAPING = frozenset(
    {
        *("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "tool_config"),
        *("response_format", "ls_structured_output_format", "structured_output_format", "strict", "format"),
        *("response_schema", "response_json_schema", "response_mime_type", "output_config", "output_format"),
        *("stop", "stop_sequences", "n", "logprobs", "top_logprobs", "modalities", "audio", "prediction"),
        *("stream", "stream_options", "stream_usage", "thinking"),
    }
)


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


def requests_of(model: Runnable[Any, Any], arguments: Mapping[str, Any] | None = None) -> Iterator[Request]:
    """Find every model inside the wrappers, each with the arguments that reach it.

    Args:
        model: A model, possibly wrapped.
        arguments: What it is called with.
    """
    called_with = arguments or {}
    if isinstance(model, RunnableBindingBase):
        yield from requests_of(model.bound, {**model.kwargs, **called_with})
    elif isinstance(model, RunnableWithFallbacks):
        for one in (model.runnable, *model.fallbacks):
            yield from requests_of(one, called_with)
    elif isinstance(model, RunnableSequence):
        yield from requests_of(model.last)  # call arguments stop at a sequence's first step
    else:
        yield Request(model, called_with)


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


class EstimatorModel:
    """A model as the estimator asks it: without tools and formats, cold and short where it can be set.

    The user's own model is asked with its retries and fallbacks, but never touched: settings go into copies.

    Args:
        model: The user's model, possibly wrapped.
        server: The kind of OpenAI-compatible server behind it, if the user named one.
    """

    def __init__(self, model: Runnable[Any, Any], *, server: Server | None = None) -> None:
        self._model = model
        self._server = server
        self._tuned: dict[tuple[float | None, int | None], ChatRunnable] = {}

    def for_call(self, call: ModelCall) -> ChatRunnable:
        """Return the model with the settings that a call asks for."""
        key = (call.temperature, call.max_tokens)
        if key not in self._tuned:
            self._tuned[key] = _tuned(self._model, call, self._server)
        return self._tuned[key]


def _tuned(model: Runnable[Any, Any], call: ModelCall, server: Server | None) -> ChatRunnable:
    found = {id(one.model): _settings(one, call, server) for one in requests_of(model)}

    def settings_of(one: Runnable[Any, Any]) -> dict[str, Any]:
        # A model that is only chosen at run time is asked as if nothing were bound to it.
        return found.get(id(one)) or _settings(Request(one, {}), call, server)

    def plain(binding: RunnableBindingBase[Any, Any]) -> dict[str, Any]:
        settings = settings_of(chat_model_of(binding) or binding.bound)
        bound = {name: settings.get(name, value) for name, value in _plain(binding.kwargs).items()}
        return {name: value for name, value in bound.items() if value is not None}

    def tuned(one: Runnable[Any, Any]) -> Runnable[Any, Any]:
        if not isinstance(one, BaseChatModel):
            return one
        known = {name: value for name, value in settings_of(one).items() if name in type(one).model_fields}
        # Without streaming no handler sees the estimator's tokens one by one.
        return one.model_copy(update={**known, "disable_streaming": True}) if known else one

    return rebuilt(model, tuned, bound=plain)


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in _ANSWER_SHAPING}


def _settings(request: Request, call: ModelCall, server: Server | None) -> dict[str, Any]:
    """Return what to set for an estimate, as far as the model is known to allow it."""
    setting, settings = quieted(Request(request.model, _plain(request.arguments)), call.max_tokens, server)
    if call.temperature is not None and setting.temperature:
        settings["temperature"] = call.temperature
    if setting.cap is not None:
        settings.update(dict.fromkeys(_LIMITS, setting.cap))
    if getattr(request.model, "thinking", None):
        settings.setdefault("thinking", None)  # of a class whose reasoning controls are not known
    return settings
