"""Copies of a user's model: with its reasoning control set for an answer, or cold and short for an estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel

from tale_core.models.providers import named_server
from tale_core.models.reasoning_controls import (
    NativeControls,
    ReasoningControl,
    check_reasoning_control,
    choose,
)
from tale_core.types import ControlSetting
from tale_langchain._models import chat_model_of, models_in, rebuilt
from tale_langchain._provider_params import ConfiguredModel, controls_of, params_of, quieted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langchain_core.runnables import Runnable
    from langchain_core.runnables.base import RunnableBindingBase

    from tale_core.models.providers import Server
    from tale_core.types import ChooseControl, ModelCall
    from tale_langchain._models import ChatRunnable

# Further arguments that decide whether a reasoning control may be used.
_CIRCUMSTANCES = ("tools", "tool_choice", "max_tokens")
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


class ModelControls:
    """The reasoning controls of a model, however it is wrapped; the model itself is never touched.

    Raises:
        InvalidValueError: An unknown choice, or one that this model cannot keep.
    """

    def __init__(self, model: ChatRunnable, reasoning_control: str = "auto") -> None:
        self._model = model
        self._reasoning_control: ReasoningControl = check_reasoning_control(reasoning_control)
        self._server = named_server(self._reasoning_control)
        # Read once: most calls pass no arguments that matter.
        self._controls = self._read({})
        for controls in self._controls:
            check_reasoning_control(reasoning_control, controls)
        self._set: dict[tuple[str, Any], ChatRunnable] = {}

    def control(self, arguments: Mapping[str, Any]) -> ChooseControl:
        """Return what decides about the control of a call with these arguments."""
        controls = self._read(arguments) if arguments and self._matters(arguments) else self._controls

        def decide(budget: int) -> ControlSetting:
            first, *others = [choose(budget, one, self._reasoning_control) for one in controls]
            # A fallback gets the same request, so one setting must do for all of them.
            if not others or {(first.control, first.value)} >= {(one.control, one.value) for one in others}:
                return first
            return ControlSetting(
                control="prompt", why="the model and its fallbacks do not share a reasoning control"
            )

        return decide

    def asked(
        self, setting: ControlSetting | None, arguments: Mapping[str, Any]
    ) -> tuple[ChatRunnable, dict[str, Any]]:
        """Return the model and the arguments to ask with; no setting means no budget."""
        if setting is None or not setting.native:
            return self._model, dict(arguments)
        if arguments and self._matters(arguments):
            return self._with(setting, arguments), self._without_controls(arguments)
        # Copies are kept by setting: there are few, and no question need make its own.
        key = (setting.control, setting.value)
        if key not in self._set:
            self._set[key] = self._with(setting, {})
        return self._set[key], dict(arguments)

    def _read(self, arguments: Mapping[str, Any]) -> list[NativeControls]:
        return [controls_of(inside, self._server) for inside in models_in(self._model, arguments)]

    def _matters(self, arguments: Mapping[str, Any]) -> bool:
        return not {*self._names(), *_CIRCUMSTANCES}.isdisjoint(arguments)

    def _names(self) -> set[str]:
        """Return all call arguments that steer the thinking of a model in here."""
        found = (params_of(inside.model, self._server) for inside in models_in(self._model))
        return {name for params in found if params is not None for name in params.names}

    def _without_controls(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        names = self._names()
        return {name: value for name, value in arguments.items() if name not in names}

    def _with(self, setting: ControlSetting, arguments: Mapping[str, Any]) -> ChatRunnable:
        fields = {
            id(inside.model): params.write(inside, setting)
            for inside in models_in(self._model, arguments)
            if (params := params_of(inside.model, self._server)) is not None
        }

        def change(model: Any) -> Any:
            return model.model_copy(update=fields[id(model)]) if id(model) in fields else model

        return rebuilt(self._model, change, bound=lambda binding: self._without_controls(binding.kwargs))


class EstimatorModel:
    """A model as the estimator asks it: without tools and formats, cold and short where it can be set.

    The user's own model is asked with its retries and fallbacks, but never touched: settings go into copies.
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
    # By identity, since models compare by their fields and copies would be mixed up.
    found = {id(one.model): _settings(one, call, server) for one in models_in(model)}

    def settings_of(one: Runnable[Any, Any]) -> dict[str, Any]:
        # A model that is only chosen at run time is asked as if nothing were bound to it.
        return found.get(id(one)) or _settings(ConfiguredModel(one, {}), call, server)

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


def _settings(given: ConfiguredModel, call: ModelCall, server: Server | None) -> dict[str, Any]:
    """Return what to set for an estimate, as far as the model is known to allow it."""
    setting, settings = quieted(ConfiguredModel(given.model, _plain(given.arguments)), call.max_tokens, server)
    if call.temperature is not None and setting.temperature:
        settings["temperature"] = call.temperature
    if setting.cap is not None:
        settings.update(dict.fromkeys(_LIMITS, setting.cap))
    if getattr(given.model, "thinking", None):
        settings.setdefault("thinking", None)  # of a class whose reasoning controls are not known
    return settings
