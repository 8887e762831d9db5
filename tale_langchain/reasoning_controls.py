"""Native knobs in LangChain: which lever carries a budget to a model, and the model set so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tale_core.models.providers import named_server
from tale_core.models.reasoning_controls import Knobs, NativeControls, check_knobs, choose
from tale_core.types import KnobSetting
from tale_langchain._models import rebuilt, requests_of
from tale_langchain._provider_params import controls_of, dialect_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tale_core.types import ChooseLever
    from tale_langchain._models import ChatRunnable

# Further arguments that decide whether a knob may be used.
_CIRCUMSTANCES = ("tools", "tool_choice", "max_tokens")


class NativeKnobs:
    """The knobs of a model, however it is wrapped; the model itself is never touched.

    Args:
        model: A chat model, possibly bound, with retries or with fallbacks.
        knobs: What may carry a budget; see `tale_core.models.reasoning_controls.Knobs`.

    Raises:
        InvalidValueError: An unknown choice, or one that this model cannot keep.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> knobs = NativeKnobs(FakeListChatModel(responses=["48"]))
        >>> setting = knobs.lever({})(60)  # for a gpt-5-mini: effort, minimal
        >>> setting.lever, setting.why
        ('prompt', 'no native knob is known for this model')
        >>> model, arguments = knobs.asked(setting, {"stop": ["."]})
        >>> model.invoke("How many eggs are in four dozen?", **arguments).text
        '48'
    """

    def __init__(self, model: ChatRunnable, knobs: str = "auto") -> None:
        self._model = model
        self._knobs: Knobs = check_knobs(knobs)
        self._server = named_server(self._knobs)
        self._controls = self._read({})
        for controls in self._controls:
            check_knobs(knobs, controls)
        self._set: dict[tuple[str, Any], ChatRunnable] = {}

    def lever(self, arguments: Mapping[str, Any]) -> ChooseLever:
        """Return what decides about the lever of a call.

        Args:
            arguments: What the caller passes to the model with this call.
        """
        controls = self._read(arguments) if self._matters(arguments) else self._controls

        def decide(budget: int) -> KnobSetting:
            first, *others = (choose(budget, one, self._knobs) for one in controls)
            if all((other.lever, other.value) == (first.lever, first.value) for other in others):
                return first
            return KnobSetting(lever="prompt", why="the model and its fallbacks do not share a native knob")

        return decide

    def asked(
        self, setting: KnobSetting | None, arguments: Mapping[str, Any]
    ) -> tuple[ChatRunnable, dict[str, Any]]:
        """Return the model to ask and the arguments to ask it with.

        Args:
            setting: The lever of the call; None where there is no budget.
            arguments: What the caller passes to the model with this call.
        """
        if setting is None or not setting.native:
            return self._model, dict(arguments)
        if self._matters(arguments):
            return self._with(setting, arguments), self._without_knobs(arguments)
        key = (setting.lever, setting.value)
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

    def _without_knobs(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        names = self._names()
        return {name: value for name, value in arguments.items() if name not in names}

    def _with(self, setting: KnobSetting, arguments: Mapping[str, Any]) -> ChatRunnable:
        fields = {
            id(request.model): dialect.write(request, setting)
            for request in requests_of(self._model, arguments)
            if (dialect := dialect_of(request.model, self._server)) is not None
        }

        def change(model: Any) -> Any:
            return model.model_copy(update=fields[id(model)]) if id(model) in fields else model

        return rebuilt(self._model, change, bound=lambda binding: self._without_knobs(binding.kwargs))
