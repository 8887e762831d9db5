"""From what a caller set on a model to the facts about its thinking, one provider after the other; pure.

Each adapter reads its own classes and writes their parameters; what the values mean is the same in all
frameworks, and is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from tale_core.models.model_families import documented_controls
from tale_core.models.reasoning_controls import NativeControls

if TYPE_CHECKING:
    from tale_core.models.model_families import Provider
    from tale_core.types import ControlSetting

Server: TypeAlias = Literal["vllm", "sglang", "llama.cpp"]
"""OpenAI-compatible servers whose parameters are known."""

SERVERS: tuple[Server, ...] = get_args(Server)

_CLAUDE_MINIMUM = (
    1024  # reference of thinking.budget_tokens, Anthropic, 2026-11: "at least 1024, below max_tokens"
)
_FREE = ("", "auto", "none")  # tool choices that leave the model free to answer in words
# From gpt-5.2 on, chat completions answer "Function tools with reasoning_effort are not supported ... use
# /v1/responses" (openai/openai-openapi issue 541; LibreChat issue 14231; 2026).
_TOOLS_EXCLUDE_EFFORT = re.compile(r"(?:.*/)?gpt-(?:5\.[2-9]|[6-9]).*")


def named_server(reasoning_control: str) -> Server | None:
    """Return the server that a choice of reasoning controls names, if it names one."""
    return next((server for server in SERVERS if server == reasoning_control), None)


def base_controls(
    model: str | None, provider: Provider | None, calibration: Mapping[str, Any] | None = None
) -> NativeControls:
    """Return what is known about a model in its default set-up.

    LangChain's own profile of the model, where given as ``calibration``, wins over what is documented here.
    """
    name = model or "this model"
    known = documented_controls(name, provider) or NativeControls(model=name)
    if not calibration:
        return known
    levels = tuple(calibration.get("reasoning_effort_levels") or known.levels)
    default = calibration.get("reasoning_effort_default") or known.level
    thinks = known.thinks
    if thinks is None:
        thinks = _thinks(calibration, levels, default)
    temperature = known.temperature if calibration.get("temperature", True) else "never"
    return known.model_copy(
        update={"levels": levels, "level": default, "thinks": thinks, "temperature": temperature}
    )


def _thinks(calibration: Mapping[str, Any], levels: tuple[str, ...], default: str | None) -> bool | None:
    if default is not None:
        return default != "none"
    if "none" in levels:  # then thinking may well be off by default
        return None
    return True if levels else calibration.get("reasoning_output")


def forces_tool(arguments: Mapping[str, Any]) -> bool:
    """Return whether a request's arguments make the model call a tool, in any provider's spelling."""
    choice = arguments.get("tool_choice")
    if choice is None:
        choice = arguments.get("function_call")
    if isinstance(choice, Mapping):  # {"type": "auto"}, or Bedrock's {"auto": {}}
        choice = choice.get("type") or next(iter(choice), None)
    return choice is not None and choice is not False and choice not in _FREE


def at_effort(controls: NativeControls, effort: str | None) -> NativeControls:
    """Return the facts under an effort level that the caller set; None leaves them."""
    if effort is None:
        return controls
    return controls.model_copy(update={"level": effort, "thinks": effort != "none"})


def openai_controls(
    base: NativeControls, *, effort: str | None, tools: bool, responses: bool
) -> NativeControls:
    """Return the facts about an OpenAI model under the caller's effort level, tools and API."""
    controls = at_effort(base, effort)
    if tools and not responses and _TOOLS_EXCLUDE_EFFORT.fullmatch(base.model.lower()):
        why = f"{base.model} takes no effort with tools in chat completions, only in the Responses API"
        return controls.model_copy(update={"obstacle": why})
    return controls


def claude_controls(
    base: NativeControls,
    *,
    thinking: Mapping[str, Any] | None,
    effort: str | None,
    max_tokens: int | None,
    forced_tool: bool,
) -> NativeControls:
    """Return the facts about a Claude model under the caller's own parameters."""
    kind = (thinking or {}).get("type")
    level = base.level if effort is None else effort
    # Budgets in tokens exist only beside enabled thinking; adaptive thinking takes an effort.
    if kind != "enabled":
        # Effort alone does not start thinking, so it says nothing about whether the model thinks.
        thinks = base.thinks if kind is None else kind == "adaptive"
        return base.model_copy(update={"level": level, "thinks": thinks, "minimum": None, "limit": None})
    obstacle = ""
    if forced_tool:
        obstacle = f"{base.model} cannot think when a tool is forced"
    elif max_tokens is not None and max_tokens <= _CLAUDE_MINIMUM:
        obstacle = f"max_tokens={max_tokens} leaves no room for the least thinking, {_CLAUDE_MINIMUM} tokens"
    limit = (thinking or {}).get("budget_tokens")
    facts = {"thinks": True, "minimum": _CLAUDE_MINIMUM, "limit": limit, "stops": True, "obstacle": obstacle}
    return base.model_copy(update=facts)


def claude_thinking(thinking: Mapping[str, Any] | None, tokens: int) -> dict[str, Any]:
    """Return the ``thinking`` parameter for a budget in tokens; 0 switches thinking off."""
    return {"type": "disabled"} if tokens == 0 else {**(thinking or {}), "budget_tokens": tokens}


def gemini_controls(base: NativeControls, *, level: str | None, tokens: int | None) -> NativeControls:
    """Return the facts about a Gemini model under the caller's level or budget (0 for none, -1 for dynamic)."""
    controls = at_effort(base, level)
    if tokens is None:
        return controls
    # From Gemini 3 on a level takes the place of the budget, so a budget that is set is left alone.
    if controls.minimum is None:
        return controls.model_copy(update={"obstacle": f"thinking_budget={tokens} is set on {base.model}"})
    limit = controls.limit if tokens < 0 else tokens
    return controls.model_copy(update={"thinks": tokens != 0, "limit": limit})


def server_controls(model: str | None) -> NativeControls:
    """Return the facts about a model behind a server that was named: it takes any thinking budget in tokens."""
    return NativeControls(model=model or "this model", minimum=1, stops=True)


def server_body(server: Server, body: Mapping[str, Any] | None, setting: ControlSetting) -> dict[str, Any]:
    """Return the caller's ``extra_body`` with a thinking budget in tokens added; 0 switches thinking off."""
    merged = dict(body or {})
    for name, value in _server_parameters(server, int(setting.value or 0)).items():
        before = merged.get(name)
        merged[name] = {**before, **value} if isinstance(before, Mapping) else value
    return merged


def _server_parameters(server: Server, tokens: int) -> dict[str, Any]:
    if tokens == 0:  # a hint to the chat template, understood by all three; other templates leave it unread
        return {"chat_template_kwargs": {"enable_thinking": False}}
    if server == "vllm":  # "Reasoning Outputs: Thinking Budget Control", vLLM documentation, 2026-11
        return {"thinking_token_budget": tokens}
    if server == "llama.cpp":  # llama.cpp pull requests 20297 and 23673; present in xllamacpp 2026.10
        return {"thinking_budget_tokens": tokens}
    # "Thinking Budget", SGLang documentation, 2026-11: the first is enforced, the second hints the template.
    return {"custom_params": {"thinking_budget": tokens}, "chat_template_kwargs": {"thinking_budget": tokens}}
