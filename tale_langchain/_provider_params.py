"""How LangChain's chat models spell their reasoning controls: one reader and one writer per class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.language_models import BaseChatModel

from tale_core.errors import InvalidValueError
from tale_core.models.providers import (
    SERVERS,
    at_effort,
    base_controls,
    claude_controls,
    claude_thinking,
    forces_tool,
    gemini_controls,
    openai_controls,
    server_body,
    server_controls,
)
from tale_core.models.reasoning_controls import NativeControls, quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from langchain_core.runnables import Runnable

    from tale_core.models.model_families import Provider
    from tale_core.models.providers import Server
    from tale_core.types import ControlSetting


class ConfiguredModel(NamedTuple):
    """A model without its wrappers, and the arguments that reach it, those of its bindings included."""

    model: Runnable[Any, Any]
    arguments: Mapping[str, Any]

    def get(self, name: str) -> Any:
        """Return an argument, or else the field of that name."""
        return self.arguments[name] if name in self.arguments else getattr(self.model, name, None)

    def base(self, provider: Provider | None = None) -> NativeControls:
        """Return what is known about the model's defaults, asked with a provider's parameters."""
        if not isinstance(self.model, BaseChatModel):
            return NativeControls(model=type(self.model).__name__)
        names = (getattr(self.model, field, None) for field in ("model_name", "model"))
        name = next((one for one in names if isinstance(one, str)), None)
        return base_controls(name, provider, self.model.profile)


class ProviderParams(NamedTuple):
    """The reasoning controls of one kind of class."""

    fields: tuple[str, ...]
    """The fields that steer thinking."""
    aliases: tuple[str, ...]
    """Further call arguments that do."""
    read: Callable[[ConfiguredModel], NativeControls]
    """Returns the facts about a request."""
    write: Callable[[ConfiguredModel, ControlSetting], dict[str, Any]]
    """Returns what all ``fields`` are to be set to; call arguments of these names go away."""

    @property
    def names(self) -> tuple[str, ...]:
        """All call arguments that steer thinking, and would take precedence over the fields."""
        return (*self.fields, *self.aliases)


def params_of(model: Runnable[Any, Any], server: Server | None = None) -> ProviderParams | None:
    """Return how a class spells its reasoning controls; None for classes without any that is known.

    Raises:
        InvalidValueError: A server was named, and the class sends no ``extra_body``.
    """
    fields = type(model).model_fields if isinstance(model, BaseChatModel) else {}
    if server is not None:
        if "extra_body" in fields:
            return _SERVERS[server]
        raise InvalidValueError(
            f"reasoning_control={server!r} needs a class that sends extra_body to an OpenAI-compatible server, "
            f"such as ChatOpenAI; got {type(model).__name__}"
        )
    packages = {base.__module__.partition(".")[0] for base in type(model).__mro__}
    params = next((found for package, found in _BY_PACKAGE.items() if package in packages), _EFFORT)
    return params if {*params.fields} <= {*fields} else None


def controls_of(request: ConfiguredModel, server: Server | None = None) -> NativeControls:
    """Return the facts about a request's thinking; see `params_of`."""
    params = params_of(request.model, server)
    return request.base() if params is None else params.read(request)


def quieted(
    request: ConfiguredModel, cap: int | None, server: Server | None = None
) -> tuple[ControlSetting, dict[str, Any]]:
    """Return how to keep a model from thinking in a call that needs none: the setting, and its fields.

    ``cap`` is the output tokens that the answer itself needs; the setting's cap is the one to send.
    """
    setting = quiet(controls_of(request, server), cap)
    params = params_of(request.model, server)
    return setting, params.write(request, setting) if params is not None and setting.native else {}


# OpenAI, and every class with LangChain's standard argument `reasoning_effort`.


def _read_effort(request: ConfiguredModel) -> NativeControls:
    return at_effort(request.base(), request.get("reasoning_effort"))


def _read_openai(request: ConfiguredModel) -> NativeControls:
    # `reasoning` is the Responses API's form; beside it, `reasoning_effort` is not sent in that API's place.
    reasoning = request.get("reasoning")
    routed = getattr(request.model, "_use_responses_api", None)
    return openai_controls(
        request.base("openai"),
        effort=reasoning.get("effort") if reasoning else request.get("reasoning_effort"),
        tools=bool(request.arguments.get("tools")),
        responses=routed is None or bool(routed(dict(request.arguments))),
    )


def _write_openai(request: ConfiguredModel, setting: ControlSetting) -> dict[str, Any]:
    reasoning = request.get("reasoning")
    if reasoning:
        return {"reasoning": {**reasoning, "effort": setting.value}, "reasoning_effort": None}
    return {"reasoning": None, "reasoning_effort": setting.value}


def _write_effort(request: ConfiguredModel, setting: ControlSetting) -> dict[str, Any]:
    del request
    return {"reasoning_effort": setting.value}


# Anthropic. A `thinking` field overrides the argument of that name; an effort in `reasoning_effort` starts
# adaptive thinking on models that have it, one in `output_config` does not.


def _thinking(request: ConfiguredModel) -> Mapping[str, Any] | None:
    set_up: Mapping[str, Any] | None = getattr(request.model, "thinking", None)
    return request.arguments.get("thinking") if set_up is None else set_up


def _short_effort(request: ConfiguredModel) -> str | None:
    effort: str | None = request.arguments.get("effort") or request.get("reasoning_effort")
    return effort


def _output_config(request: ConfiguredModel) -> dict[str, Any]:
    set_up = getattr(request.model, "output_config", None) or {}
    return {**set_up, **(request.arguments.get("output_config") or {})}


def _read_claude(request: ConfiguredModel) -> NativeControls:
    base, thinking, effort = request.base("anthropic"), _thinking(request), _short_effort(request)
    if thinking is None and effort is not None and "xhigh" in base.levels:
        thinking = {"type": "adaptive"}
    return claude_controls(
        base,
        thinking=thinking,
        effort=effort or _output_config(request).get("effort"),
        max_tokens=request.get("max_tokens"),
        forced_tool=forces_tool(request.arguments),
    )


def _write_claude(request: ConfiguredModel, setting: ControlSetting) -> dict[str, Any]:
    thinking, effort, config = _thinking(request), _short_effort(request), _output_config(request)
    if setting.control == "thinking_budget":
        tokens = int(setting.value or 0)
        thinking = claude_thinking(thinking, tokens)
        if tokens == 0:
            effort = None
            config.pop("effort", None)
    elif effort is None:
        config["effort"] = setting.value
    else:
        effort = str(setting.value)
    return {"thinking": thinking, "reasoning_effort": effort, "output_config": config or None}


# Google. The level's field has two names, and a raw `thinking_config` may carry what the flat fields carry.


def _read_gemini(request: ConfiguredModel) -> NativeControls:
    raw = request.get("thinking_config") or {}
    level = request.arguments.get("thinking_level") or request.get("reasoning_effort")
    tokens = request.get("thinking_budget")
    return gemini_controls(
        request.base("google"),
        level=level or raw.get("thinking_level"),
        tokens=raw.get("thinking_budget") if tokens is None else tokens,
    )


def _write_gemini(request: ConfiguredModel, setting: ControlSetting) -> dict[str, Any]:
    raw = request.get("thinking_config") or {}
    kept = {name: value for name, value in raw.items() if name not in {"thinking_level", "thinking_budget"}}
    budget = setting.control == "thinking_budget"
    return {
        "thinking_budget": setting.value if budget else None,
        "reasoning_effort": None if budget else setting.value,
        "thinking_config": kept or None,
    }


_EFFORT = ProviderParams(("reasoning_effort",), (), _read_effort, _write_effort)
_BY_PACKAGE = {
    "langchain_openai": ProviderParams(("reasoning_effort", "reasoning"), (), _read_openai, _write_openai),
    "langchain_anthropic": ProviderParams(
        ("thinking", "reasoning_effort", "output_config"), ("effort",), _read_claude, _write_claude
    ),
    "langchain_google_genai": ProviderParams(
        ("reasoning_effort", "thinking_budget", "thinking_config"),
        ("thinking_level",),
        _read_gemini,
        _write_gemini,
    ),
}


def _server_params(server: Server) -> ProviderParams:
    def read(request: ConfiguredModel) -> NativeControls:
        return server_controls(request.base().model)

    def write(request: ConfiguredModel, setting: ControlSetting) -> dict[str, Any]:
        return {"extra_body": server_body(server, request.get("extra_body"), setting)}

    return ProviderParams(("extra_body",), (), read, write)


_SERVERS = {server: _server_params(server) for server in SERVERS}
