"""Reasoning controls in LangChain: which control carries a budget to a model, and the model set so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tale_core.models.providers import named_server
from tale_core.models.reasoning_controls import (
    NativeControls,
    ReasoningControl,
    check_reasoning_control,
    choose,
)
from tale_core.types import ControlSetting
from tale_langchain._models import rebuilt, requests_of
from tale_langchain._provider_params import controls_of, dialect_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tale_core.types import ChooseControl
    from tale_langchain._models import ChatRunnable

# Further arguments that decide whether a reasoning control may be used.
_CIRCUMSTANCES = ("tools", "tool_choice", "max_tokens")


class ModelControls:
    """The reasoning controls of a model, however it is wrapped; the model itself is never touched.

    Args:
        model: A chat model, possibly bound, with retries or with fallbacks.
        reasoning_control: What may carry a budget; see `tale_core.models.reasoning_controls.ReasoningControl`.

    Raises:
        InvalidValueError: An unknown choice, or one that this model cannot keep.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> reasoning_control = ModelControls(FakeListChatModel(responses=["48"]))
        >>> setting = reasoning_control.control({})(60)  # for a gpt-5-mini: effort, minimal
        >>> setting.control, setting.why
        ('prompt', 'no reasoning control is known for this model')
        >>> model, arguments = reasoning_control.asked(setting, {"stop": ["."]})
        >>> model.invoke("How many eggs are in four dozen?", **arguments).text
        '48'
    """

    def __init__(self, model: ChatRunnable, reasoning_control: str = "auto") -> None:
        self._model = model
        self._reasoning_control: ReasoningControl = check_reasoning_control(reasoning_control)
        self._server = named_server(self._reasoning_control)
        self._controls = self._read({})
        for controls in self._controls:
            check_reasoning_control(reasoning_control, controls)
        self._set: dict[tuple[str, Any], ChatRunnable] = {}

    def control(self, arguments: Mapping[str, Any]) -> ChooseControl:
        """Return what decides about the control of a call.

        Args:
            arguments: What the caller passes to the model with this call.
        """
        controls = self._read(arguments) if self._matters(arguments) else self._controls

        def decide(budget: int) -> ControlSetting:
            first, *others = (choose(budget, one, self._reasoning_control) for one in controls)
            if all((other.control, other.value) == (first.control, first.value) for other in others):
                return first
            return ControlSetting(
                control="prompt", why="the model and its fallbacks do not share a reasoning control"
            )

        return decide

    def asked(
        self, setting: ControlSetting | None, arguments: Mapping[str, Any]
    ) -> tuple[ChatRunnable, dict[str, Any]]:
        """Return the model to ask and the arguments to ask it with.

        Args:
            setting: The control of the call; None where there is no budget.
            arguments: What the caller passes to the model with this call.
        """
        if setting is None or not setting.native:
            return self._model, dict(arguments)
        if self._matters(arguments):
            return self._with(setting, arguments), self._without_controls(arguments)
        key = (setting.control, setting.value)
        if key not in self._set:
            self._set[key] = self._with(setting, {})
        return self._set[key], dict(arguments)

    def _read(self, arguments: Mapping[str, Any]) -> list[NativeControls]:
        return [controls_of(request, self._server) for request in requests_of(self._model, arguments)]

    def _matters(self, arguments: Mapping[str, Any]) -> bool:
        return bool(arguments) and not {*self._names(), *_CIRCUMSTANCES}.isdisjoint(arguments)

    def _names(self) -> set[str]:
        """Return all call arguments that steer the thinking of a model in here."""
        dialects = (dialect_of(request.model, self._server) for request in requests_of(self._model))
        return {name for dialect in dialects if dialect is not None for name in dialect.names}

    def _without_controls(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        names = self._names()
        return {name: value for name, value in arguments.items() if name not in names}

    def _with(self, setting: ControlSetting, arguments: Mapping[str, Any]) -> ChatRunnable:
        fields = {
            id(request.model): dialect.write(request, setting)
            for request in requests_of(self._model, arguments)
            if (dialect := dialect_of(request.model, self._server)) is not None
        }

        def change(model: Any) -> Any:
            return model.model_copy(update=fields[id(model)]) if id(model) in fields else model

        return rebuilt(self._model, change, bound=lambda binding: self._without_controls(binding.kwargs))
