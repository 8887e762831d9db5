"""Reasoning controls: which control carries a budget, and what it is set to.

A model that thinks before it answers does not keep "use less than N tokens": asked so, it may cost more than
when it is simply asked (o3-mini: 678 output tokens against 602, at about the same accuracy, arXiv 2412.18547).
What works is its own reasoning control: an effort level, or a thinking budget in tokens. This file chooses the
`ControlSetting` from the facts about a model (`NativeControls`) and a budget. Adapters gather the facts and
write the setting into the parameters of a class.

One rule holds everywhere: thinking is only ever turned down. A model that does not think as it is set up is
never made to, and a level or budget that the caller chose, or the provider's default, is a ceiling.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

from pydantic import Field

from tale_core.errors import InvalidValueError
from tale_core.types import ControlSetting, Record

ReasoningControl: TypeAlias = Literal["auto", "prompt", "native", "vllm", "sglang", "llama.cpp"]
"""How a budget may reach the model. ``auto``: the reasoning control where the model is known to think, else the
prompt. ``prompt``: always the prompt. ``native``: the reasoning control, or an error where there is none. A
server's name: the same for an OpenAI-compatible server of that kind, which cannot be told from its address."""

LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Effort levels by rising effort, over all providers; each model accepts some of them."""

# Google documents what its levels stand for in thinking tokens: low 1,024, medium 8,192, high 24,576 ("OpenAI
# compatibility", Gemini API documentation, 2026-11); no other provider gives figures. "minimal" up to a quarter
# of low is our choice: so much a model without thinking writes in a worked answer.
_LEVEL_UP_TO = ((256, "minimal"), (1024, "low"), (8192, "medium"))

THINKING_HEADROOM = 8192
"""Output tokens added to the cap of a call whose thinking can be turned down but not off: the cap covers
thinking and answer together (OpenAI's reference of ``max_completion_tokens``, 2026-11), so one that fits the
answer alone returns nothing. Only what is used is paid for."""


class NativeControls(Record):
    """What is known about one model's thinking, as the model is set up for one request."""

    model: str = "this model"
    """The model's name, for messages."""
    thinks: bool | None = None
    """Whether it thinks when nothing is changed; None means unknown."""
    levels: tuple[str, ...] = ()
    """Effort levels that it accepts."""
    level: str | None = None
    """The effort in force: what the caller set, or else the documented default. Never exceeded."""
    minimum: int | None = Field(default=None, ge=0)
    """Smallest thinking budget in tokens that it accepts; None when it takes none."""
    limit: int | None = Field(default=None, ge=0)
    """Largest thinking budget in tokens: what the caller set, or else the documented maximum."""
    stops: bool = False
    """Whether thinking can be switched off other than by the level ``none``."""
    temperature: Literal["always", "quiet", "never"] = "always"
    """Whether it accepts a temperature: ``quiet`` means only while it does not think."""
    obstacle: str = ""
    """Why the reasoning control cannot be used in this request."""


def prompt_control(budget: int) -> ControlSetting:
    """Let the prompt carry the budget, whatever the model; see `tale_core.types.ChooseControl`."""
    del budget
    return ControlSetting(control="prompt")


def choose(
    budget: int, controls: NativeControls, reasoning_control: ReasoningControl = "auto"
) -> ControlSetting:
    """Decide which control carries a budget in output tokens, within what the caller allows.

    The control is ``prompt`` where no reasoning control serves, and ``why`` says why.
    """
    obstacle = _obstacle(controls, reasoning_control)
    if obstacle:
        return ControlSetting(control="prompt", why=obstacle)
    if controls.minimum is not None:
        tokens = max(budget, controls.minimum)
        tokens = tokens if controls.limit is None else min(tokens, controls.limit)
        return ControlSetting(
            control="thinking_budget", value=tokens, why=_why_tokens(budget, tokens, controls)
        )
    wanted = next((level for most, level in _LEVEL_UP_TO if budget <= most), "high")
    level = _accepted(wanted, controls)
    why = f"a budget of {budget} tokens asks for effort {wanted!r}"
    if level != wanted:
        why += f"; {level!r} is the nearest that {controls.model} accepts"
    return ControlSetting(control="effort", value=level, why=why)


def quiet(controls: NativeControls, cap: int | None) -> ControlSetting:
    """Decide how a call that needs no thinking, the estimator's, keeps the model from it.

    ``cap`` is the output tokens that the answer itself needs. The setting's cap is the one to send: the same
    where thinking is off, with head-room where it is only low.
    """
    setting = ControlSetting(
        control="prompt",
        why=f"{controls.model} is not known to think",
        cap=cap,
        temperature=controls.temperature != "never",
    )
    if controls.thinks is False:
        return setting
    if controls.stops:
        off = {"control": "thinking_budget", "value": 0, "why": "thinking switched off"}
        return setting.model_copy(update=off)
    if "none" in controls.levels:
        return setting.model_copy(update={"control": "effort", "value": "none", "why": "thinking switched off"})
    if not controls.thinks and not controls.levels and controls.minimum is None:
        return setting
    return setting.model_copy(
        update={
            **_lowest(controls),
            "cap": None if cap is None else cap + THINKING_HEADROOM + (controls.minimum or 0),
            "temperature": controls.temperature == "always",
        }
    )


def _lowest(controls: NativeControls) -> dict[str, Any]:
    if controls.minimum is not None:
        lowest = {"control": "thinking_budget", "value": controls.minimum}
    elif set(controls.levels) & set(LEVELS):
        lowest = {"control": "effort", "value": _accepted(LEVELS[0], controls)}
    else:
        return {"why": f"{controls.model} thinks, and no reasoning control for it is known"}
    return {**lowest, "why": f"thinking turned down as far as {controls.model} accepts"}


def check_reasoning_control(reasoning_control: str, controls: NativeControls | None = None) -> ReasoningControl:
    """Return the choice of reasoning_control, after checking what can be known before any request.

    Without the facts about a model the word alone is checked.

    Raises:
        InvalidValueError: No such choice, or ``native`` for a model without a reasoning control in force.
    """
    if reasoning_control not in get_args(ReasoningControl):
        raise InvalidValueError(
            f"reasoning_control must be one of {', '.join(get_args(ReasoningControl))}; "
            f"got {reasoning_control!r}"
        )
    choice: ReasoningControl = reasoning_control  # type: ignore[assignment]  # just checked
    if choice != "native" or controls is None:
        return choice
    obstacle = _obstacle(controls, choice)
    if obstacle:
        raise InvalidValueError(
            f"reasoning_control='native' cannot be kept: {obstacle}; use reasoning_control='auto' "
            "to put the budget into the prompt instead, or name the server: 'vllm', 'sglang' or 'llama.cpp'"
        )
    return choice


def _obstacle(controls: NativeControls, reasoning_control: ReasoningControl) -> str:
    """Return why the prompt must carry the budget, or an empty string."""
    if reasoning_control == "prompt":
        return "the caller chose the prompt"
    if controls.obstacle:
        return controls.obstacle
    if controls.thinks is False:
        return f"{controls.model} does not think as it is set up"
    if controls.minimum is None and not set(controls.levels) & set(LEVELS[1:]):
        return f"no reasoning control is known for {controls.model}"
    if controls.thinks is None and reasoning_control == "auto":
        return f"it is not known whether {controls.model} thinks"
    return ""


def _accepted(wanted: str, controls: NativeControls) -> str:
    """Return the highest accepted level up to the wanted one and the one in force, else the lowest of all."""
    levels = [level for level in LEVELS[1:] if level in controls.levels]
    most = LEVELS.index(wanted)
    if controls.level in LEVELS:
        most = min(most, LEVELS.index(controls.level))
    return next((level for level in reversed(levels) if LEVELS.index(level) <= most), levels[0])


def _why_tokens(budget: int, tokens: int, controls: NativeControls) -> str:
    if tokens > budget:
        return f"a budget of {budget} tokens; {controls.model} accepts no thinking budget below {tokens}"
    if tokens < budget:
        return f"a budget of {budget} tokens; {controls.model} thinks with at most {tokens}"
    return f"a budget of {budget} tokens"
