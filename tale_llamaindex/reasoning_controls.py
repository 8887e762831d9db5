"""Reasoning controls in LlamaIndex: which control carries a budget to an LLM, and how the LLM is asked so."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from tale_core.errors import InvalidValueError
from tale_core.models.providers import (
    base_controls,
    claude_controls,
    claude_thinking,
    forces_tool,
    gemini_controls,
    named_server,
    openai_controls,
    server_body,
    server_controls,
)
from tale_core.models.reasoning_controls import ReasoningControl, check_reasoning_control, choose, quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llama_index.core.llms import LLM

    from tale_core.models.model_families import Provider
    from tale_core.models.providers import Server
    from tale_core.models.reasoning_controls import NativeControls
    from tale_core.types import ChooseControl, ControlSetting, ModelCall


class ModelControls:
    """The reasoning controls of an LLM; the LLM itself is never touched.

    Known are `OpenAI`, `OpenAIResponses`, `OpenAILike`, `Anthropic` and `GoogleGenAI`, and their subclasses.

    Raises:
        InvalidValueError: An unknown choice, or one that this LLM cannot keep.
    """

    def __init__(self, llm: LLM, reasoning_control: str = "auto") -> None:
        self.llm = llm
        self._reasoning_control: ReasoningControl = check_reasoning_control(reasoning_control)
        self._params = params_of(llm, named_server(self._reasoning_control))
        check_reasoning_control(reasoning_control, self._params.read(ConfiguredLLM(llm, {})))
        self._copies: dict[str, LLM] = {}

    def control(self, arguments: Mapping[str, Any]) -> ChooseControl:
        """Return what decides about the control of a call with these arguments."""
        controls = self._params.read(ConfiguredLLM(self.llm, arguments))

        def decide(budget: int) -> ControlSetting:
            return choose(budget, controls, self._reasoning_control)

        return decide

    def asked(self, setting: ControlSetting | None, arguments: Mapping[str, Any]) -> tuple[LLM, dict[str, Any]]:
        """Return the LLM and the arguments to ask with; no setting means no budget."""
        if setting is None or not setting.native:
            return self.llm, dict(arguments)
        return self._with(Wanted(setting), arguments)

    def quieted(self, call: ModelCall) -> tuple[LLM, dict[str, Any]]:
        """Return the LLM and the arguments for a call that needs no thinking: cold and short."""
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


# How each class spells its reasoning controls: one reader and one writer.

_NAMELESS = "unknown"  # what LlamaIndex calls the model of an LLM that names none


class ConfiguredLLM(NamedTuple):
    """An LLM and the arguments of one call."""

    llm: LLM
    arguments: Mapping[str, Any]

    def base(self, provider: Provider | None) -> NativeControls:
        """Return what is known about the model's defaults, asked with a provider's parameters."""
        name = self.llm.metadata.model_name
        return base_controls(type(self.llm).__name__ if name == _NAMELESS else name, provider)

    def get(self, name: str, field: str | None = None) -> Any:
        """Return an argument, or else the LLM's extra argument of that name, or its field."""
        extra = getattr(self.llm, "additional_kwargs", None) or {}
        default = getattr(self.llm, name if field is None else field, None)
        return self.arguments.get(name, extra.get(name, default))


class Wanted(NamedTuple):
    """What a call is to be made with."""

    setting: ControlSetting
    """The control."""
    cap: int | None = None
    """Output cap; None leaves the LLM's own."""
    temperature: float | None = None
    """Temperature; None leaves the LLM's own."""

    def plain(self, cap: str = "max_tokens") -> dict[str, Any]:
        """Return the cap, under its name, and the temperature, where there are any."""
        named = {cap: self.cap, "temperature": self.temperature}
        return {name: value for name, value in named.items() if value is not None}


Written: TypeAlias = tuple[dict[str, Any], dict[str, Any]]
"""Fields to change in a copy of the LLM, because they would override the arguments; and the arguments."""


class ProviderParams(NamedTuple):
    """The reasoning controls of one kind of class."""

    read: Callable[[ConfiguredLLM], NativeControls]
    """Returns the facts about a request."""
    write: Callable[[ConfiguredLLM, Wanted], Written]
    """Returns what to ask the LLM with."""


def params_of(llm: LLM, server: Server | None = None) -> ProviderParams:
    """Return how a class spells its reasoning controls.

    Raises:
        InvalidValueError: A server was named, and the class sends no ``extra_body``.
    """
    names = [base.__name__ for base in type(llm).__mro__ if base.__module__.startswith("llama_index.llms.")]
    if server is None:
        return next((_BY_CLASS[name] for name in names if name in _BY_CLASS), _UNKNOWN)
    if "OpenAI" not in names:
        raise InvalidValueError(
            f"reasoning_control={server!r} needs a class that speaks to an OpenAI-compatible server, such as "
            f"OpenAILike; got {type(llm).__name__}"
        )
    return ProviderParams(_read_server, partial(_write_server, server))


# Classes without a known reasoning control: a temperature and a cap are passed where the class has fields of
# these names.


def _read_unknown(request: ConfiguredLLM) -> NativeControls:
    return request.base(None)


def _write_unknown(request: ConfiguredLLM, wanted: Wanted) -> Written:
    fields = type(request.llm).model_fields
    plain = {name: value for name, value in wanted.plain().items() if name in fields}
    return {}, {**request.arguments, **plain}


# OpenAI. In chat completions, fields and extra arguments override the arguments of a call.


def _read_openai(request: ConfiguredLLM) -> NativeControls:
    return openai_controls(
        request.base("openai"),
        effort=getattr(request.llm, "reasoning_effort", None) or request.get("reasoning_effort"),
        tools=bool(request.arguments.get("tools")),
        responses=False,
    )


def _write_openai(request: ConfiguredLLM, wanted: Wanted) -> Written:
    ours = wanted.plain()
    if wanted.setting.native:
        ours["reasoning_effort"] = wanted.setting.value
    return _unblocked(request.llm, ours), {**request.arguments, **ours}


def _unblocked(llm: LLM, ours: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields to change so that our arguments are sent."""
    fields: dict[str, Any] = {
        name: None
        for name in ("reasoning_effort", "max_tokens")
        if name in ours and getattr(llm, name, None) is not None
    }
    extra = getattr(llm, "additional_kwargs", None) or {}
    if not extra.keys().isdisjoint(ours):
        fields["additional_kwargs"] = {name: value for name, value in extra.items() if name not in ours}
    return fields


def _read_responses(request: ConfiguredLLM) -> NativeControls:
    reasoning = request.get("reasoning", "reasoning_options") or {}
    return openai_controls(request.base("openai"), effort=reasoning.get("effort"), tools=False, responses=True)


def _write_responses(request: ConfiguredLLM, wanted: Wanted) -> Written:
    arguments = {**request.arguments, **wanted.plain("max_output_tokens")}
    if wanted.setting.native:
        reasoning = request.get("reasoning", "reasoning_options") or {}
        arguments["reasoning"] = {**reasoning, "effort": wanted.setting.value}
    return {}, arguments


# Anthropic.


def _read_claude(request: ConfiguredLLM) -> NativeControls:
    return claude_controls(
        request.base("anthropic"),
        thinking=request.get("thinking", "thinking_dict"),
        effort=(request.get("output_config") or {}).get("effort"),
        max_tokens=request.get("max_tokens"),
        forced_tool=forces_tool(request.arguments),
    )


def _write_claude(request: ConfiguredLLM, wanted: Wanted) -> Written:
    arguments = {**request.arguments, **wanted.plain()}
    if wanted.setting.control == "thinking_budget":
        thinking = request.get("thinking", "thinking_dict")
        arguments["thinking"] = claude_thinking(thinking, int(wanted.setting.value or 0))
    elif wanted.setting.native:
        config = request.get("output_config") or {}
        arguments["output_config"] = {**config, "effort": wanted.setting.value}
    return {}, arguments


# Google. Everything is in one generation config, whose parts replace those of the LLM's own.


def _config(request: ConfiguredLLM) -> dict[str, Any]:
    own = getattr(request.llm, "_generation_config", None) or {}
    return {**own, **(request.arguments.get("generation_config") or {})}


def _read_gemini(request: ConfiguredLLM) -> NativeControls:
    thinking = _config(request).get("thinking_config") or {}
    level = thinking.get("thinking_level")
    return gemini_controls(
        request.base("google"),
        level=None if level is None else str(getattr(level, "value", level)).lower(),
        tokens=thinking.get("thinking_budget"),
    )


def _write_gemini(request: ConfiguredLLM, wanted: Wanted) -> Written:
    config = {**(request.arguments.get("generation_config") or {}), **wanted.plain("max_output_tokens")}
    if wanted.setting.native:
        budget = wanted.setting.control == "thinking_budget"
        reasoning_control = {"thinking_budget" if budget else "thinking_level": wanted.setting.value}
        before = _config(request).get("thinking_config") or {}
        kept = {"include_thoughts": before.get("include_thoughts")}
        config["thinking_config"] = {
            name: value for name, value in {**kept, **reasoning_control}.items() if value is not None
        }
    return {}, {**request.arguments, "generation_config": config}


# Servers.


def _read_server(request: ConfiguredLLM) -> NativeControls:
    return server_controls(request.base(None).model)


def _write_server(server: Server, request: ConfiguredLLM, wanted: Wanted) -> Written:
    ours = wanted.plain()
    if wanted.setting.native:
        ours["extra_body"] = server_body(server, request.get("extra_body"), wanted.setting)
    return _unblocked(request.llm, ours), {**request.arguments, **ours}


_UNKNOWN = ProviderParams(_read_unknown, _write_unknown)
_BY_CLASS = {
    "OpenAI": ProviderParams(_read_openai, _write_openai),
    "OpenAIResponses": ProviderParams(_read_responses, _write_responses),
    "Anthropic": ProviderParams(_read_claude, _write_claude),
    "GoogleGenAI": ProviderParams(_read_gemini, _write_gemini),
}
