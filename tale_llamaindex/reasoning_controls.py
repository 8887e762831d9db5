"""Reasoning controls in LlamaIndex: which control carries a budget to an LLM, and how the LLM is asked so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tale_core.models.providers import named_server
from tale_core.models.reasoning_controls import ReasoningControl, check_reasoning_control, choose, quiet
from tale_llamaindex._provider_params import ConfiguredLLM, Wanted, params_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_index.core.llms import LLM

    from tale_core.types import ChooseControl, ControlSetting, ModelCall


class ModelControls:
    """The reasoning controls of an LLM; the LLM itself is never touched.

    Known are `OpenAI`, `OpenAIResponses`, `OpenAILike`, `Anthropic` and `GoogleGenAI`, and their subclasses.

    Args:
        llm: The LLM.
        reasoning_control: What may carry a budget; see `tale_core.models.reasoning_controls.ReasoningControl`.

    Raises:
        InvalidValueError: An unknown choice, or one that this LLM cannot keep.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> reasoning_control = ModelControls(MockLLM())
        >>> setting = reasoning_control.control({})(60)  # for a gpt-5-mini: effort, minimal
        >>> setting.control, setting.why
        ('prompt', 'no reasoning control is known for MockLLM')
        >>> llm, arguments = reasoning_control.asked(setting, {"stop": ["."]})
        >>> llm.complete("How many eggs are in four dozen?", **arguments).text
        'How many eggs are in four dozen?'
    """

    def __init__(self, llm: LLM, reasoning_control: str = "auto") -> None:
        self.llm = llm
        self._reasoning_control: ReasoningControl = check_reasoning_control(reasoning_control)
        self._params = params_of(llm, named_server(self._reasoning_control))
        check_reasoning_control(reasoning_control, self._params.read(ConfiguredLLM(llm, {})))
        self._copies: dict[str, LLM] = {}

    def control(self, arguments: Mapping[str, Any]) -> ChooseControl:
        """Return what decides about the control of a call.

        Args:
            arguments: What the caller passes to the LLM with this call.
        """
        controls = self._params.read(ConfiguredLLM(self.llm, arguments))

        def decide(budget: int) -> ControlSetting:
            return choose(budget, controls, self._reasoning_control)

        return decide

    def asked(self, setting: ControlSetting | None, arguments: Mapping[str, Any]) -> tuple[LLM, dict[str, Any]]:
        """Return the LLM to ask and the arguments to ask it with.

        Args:
            setting: The control of the call; None where there is no budget.
            arguments: What the caller passes to the LLM with this call.
        """
        if setting is None or not setting.native:
            return self.llm, dict(arguments)
        return self._with(Wanted(setting), arguments)

    def quieted(self, call: ModelCall) -> tuple[LLM, dict[str, Any]]:
        """Return the LLM to ask, and the arguments, for a call that needs no thinking: cold and short.

        Args:
            call: The call; its temperature and its output cap are sent as far as the LLM takes them.
        """
        setting = quiet(self._params.read(ConfiguredLLM(self.llm, {})), call.max_tokens)
        return self._with(Wanted(setting, setting.cap, call.temperature if setting.temperature else None), {})

    def _with(self, wanted: Wanted, arguments: Mapping[str, Any]) -> tuple[LLM, dict[str, Any]]:
        fields, new_arguments = self._params.write(ConfiguredLLM(self.llm, arguments), wanted)
        if not fields:
            return self.llm, new_arguments
        # A copy may open a client of its own, so it is kept; it is known by what is changed in it.
        key = repr(fields)
        if key not in self._copies:
            self._copies[key] = self.llm.model_copy(update=fields)
        return self._copies[key], new_arguments
