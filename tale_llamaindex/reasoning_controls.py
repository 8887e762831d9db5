"""Native knobs in LlamaIndex: which lever carries a budget to an LLM, and how the LLM is asked so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tale_core.models.providers import named_server
from tale_core.models.reasoning_controls import Knobs, check_knobs, choose, quiet
from tale_llamaindex._provider_params import Request, Wanted, dialect_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_index.core.llms import LLM

    from tale_core.types import ChooseLever, KnobSetting, ModelCall


class NativeKnobs:
    """The knobs of an LLM; the LLM itself is never touched.

    Known are `OpenAI`, `OpenAIResponses`, `OpenAILike`, `Anthropic` and `GoogleGenAI`, and their subclasses.

    Args:
        llm: The LLM.
        knobs: What may carry a budget; see `tale_core.models.reasoning_controls.Knobs`.

    Raises:
        InvalidValueError: An unknown choice, or one that this LLM cannot keep.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> knobs = NativeKnobs(MockLLM())
        >>> setting = knobs.lever({})(60)  # for a gpt-5-mini: effort, minimal
        >>> setting.lever, setting.why
        ('prompt', 'no native knob is known for MockLLM')
        >>> llm, arguments = knobs.asked(setting, {"stop": ["."]})
        >>> llm.complete("How many eggs are in four dozen?", **arguments).text
        'How many eggs are in four dozen?'
    """

    def __init__(self, llm: LLM, knobs: str = "auto") -> None:
        self.llm = llm
        self._knobs: Knobs = check_knobs(knobs)
        self._dialect = dialect_of(llm, named_server(self._knobs))
        check_knobs(knobs, self._dialect.read(Request(llm, {})))
        self._copies: dict[str, LLM] = {}

    def lever(self, arguments: Mapping[str, Any]) -> ChooseLever:
        """Return what decides about the lever of a call.

        Args:
            arguments: What the caller passes to the LLM with this call.
        """
        controls = self._dialect.read(Request(self.llm, arguments))

        def decide(budget: int) -> KnobSetting:
            return choose(budget, controls, self._knobs)

        return decide

    def asked(self, setting: KnobSetting | None, arguments: Mapping[str, Any]) -> tuple[LLM, dict[str, Any]]:
        """Return the LLM to ask and the arguments to ask it with.

        Args:
            setting: The lever of the call; None where there is no budget.
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
        setting = quiet(self._dialect.read(Request(self.llm, {})), call.max_tokens)
        return self._with(Wanted(setting, setting.cap, call.temperature if setting.temperature else None), {})

    def _with(self, wanted: Wanted, arguments: Mapping[str, Any]) -> tuple[LLM, dict[str, Any]]:
        fields, new_arguments = self._dialect.write(Request(self.llm, arguments), wanted)
        if not fields:
            return self.llm, new_arguments
        # A copy may open a client of its own, so it is kept; it is known by what is changed in it.
        key = repr(fields)
        if key not in self._copies:
            self._copies[key] = self.llm.model_copy(update=fields)
        return self._copies[key], new_arguments
