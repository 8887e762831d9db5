"""What providers document about the thinking of their models, for classes that carry no profile of the model.

Read in November 2026 from: the API reference of ``reasoning_effort`` (OpenAI; Microsoft's copy lists the
defaults by model, Vercel's page "OpenAI Reasoning" those of 5.2 and 5.4); the references of ``thinking`` and
``output_config`` in anthropic 2.12, and "Adaptive thinking" (Amazon Bedrock); "Gemini thinking" (Google AI);
and the model profiles and docstrings of langchain-openai 1.7, langchain-anthropic 1.7, langchain-google-genai
4.4. A name that is not here is unknown, and for an unknown model the prompt carries the budget.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from tale_core.models.reasoning_controls import NativeControls

_THREE = ("low", "medium", "high")
_FOUR = ("minimal", *_THREE)
_CLAUDE = (*_THREE, "xhigh", "max")

Provider: TypeAlias = Literal["openai", "anthropic", "google"]
"""Whose models, and so whose parameters."""

Family: TypeAlias = tuple[str, NativeControls]
"""A pattern of model names, and the facts about such a model in its default set-up."""


def _thinker(levels: tuple[str, ...], level: str | None = None, *, stops: bool = False) -> NativeControls:
    """Return the facts about a model that thinks unless it is told otherwise, and takes no temperature."""
    return NativeControls(thinks=True, levels=levels, level=level, stops=stops, temperature="never")


def _quiet(**facts: Any) -> NativeControls:
    """Return the facts about a model that thinks only when it is told to, and then takes no temperature."""
    return NativeControls(**{"thinks": False, "temperature": "quiet", **facts})


# OpenAI: gpt-5.1 to 5.4 default to "none" and do not think; all before 5.1 default to medium and take no
# "none". A temperature is accepted only where the effort is none, and from 5.5 on not at all.
_OPENAI: tuple[Family, ...] = (
    (r"o1|o1-pro|o3|o3-mini|o3-pro|o4-mini", _thinker(_THREE, "medium")),
    (r"gpt-5|gpt-5-mini|gpt-5-nano", _thinker(_FOUR, "medium")),
    (r"gpt-5\.1", _quiet(levels=("none", *_THREE), level="none")),
    (r"gpt-5\.[24]|gpt-5\.4-(mini|nano)", _quiet(levels=("none", *_THREE, "xhigh"), level="none")),
    (r"gpt-5\.5", _thinker(("none", *_THREE, "xhigh"), "medium")),
    (r"gpt-5\.6(-luna|-sol|-terra)?|gpt-6-(luna|sol)", _thinker(("none", *_CLAUDE), "medium")),
    (r"gpt-6-astra", _thinker(_CLAUDE)),
)

# Anthropic: budget_tokens is at least 1024. Thinking is off unless asked for up to 4.8, on from 5 on, and
# cannot be switched off from 5.5 on, nor on Fable and Mythos. It excludes a temperature; from 4.7 on there
# is none at all.
_ANTHROPIC: tuple[Family, ...] = (
    (
        r"claude-(3-7-sonnet|(opus|sonnet)-4(-[01])?|4-(opus|sonnet)|(opus|sonnet|haiku)-4-5)",
        _quiet(minimum=1024, stops=True),
    ),
    (r"claude-(opus|sonnet)-4-6", _quiet(levels=(*_THREE, "max"), level="high", minimum=1024, stops=True)),
    (r"claude-opus-4-[78]", _quiet(levels=_CLAUDE, level="high", stops=True, temperature="never")),
    (r"claude-haiku-5-5", NativeControls(temperature="never")),
    (r"claude-(opus|sonnet)-5", _thinker(_CLAUDE, "high", stops=True)),
    (r"claude-opus-5-5", _thinker(_CLAUDE, "medium")),
    (r"claude-sonnet-5-5|claude-(fable|mythos)-5(-1)?", _thinker(_CLAUDE, "high")),
)

# Google: 2.5 takes a budget in tokens. From 3 on it is a level, thinking cannot be switched off, and the
# temperature is best left alone: lowered, answers degrade and loop.
_GOOGLE: tuple[Family, ...] = (
    (r"gemini-2\.5-pro", NativeControls(thinks=True, minimum=128, limit=32768)),
    (r"gemini-2\.5-flash", NativeControls(thinks=True, minimum=1, limit=24576, stops=True)),
    (r"gemini-2\.5-flash-lite", NativeControls(thinks=False, minimum=512, limit=24576, stops=True)),
    (r"gemini-3-pro", _thinker(("low", "high"), "high")),
    (r"gemini-3\.1-pro", _thinker(_THREE, "high")),
    (r"gemini-3-flash", _thinker(_FOUR, "high")),
    (r"gemini-3\.[15]-flash-lite", _thinker(_FOUR, "minimal")),
    (r"gemini-3\.[56]-flash", _thinker(_FOUR, "medium")),
    (r"gemini-4-argon", _thinker(_THREE, "medium")),
)

# Names come with a gateway's prefix ("openai/o3", "us.anthropic.claude-...") and with a date, a revision or
# "preview"/"latest" behind them.
_NAME = (
    r"(?:.*[/.])?(?:{})"
    r"(?:[-@](?:\d{{3,8}}|\d{{4}}-\d\d-\d\d|latest|preview(?:-\d[\d-]*)?))?(?:-v\d+(?::\d+)?)?"
)
_FAMILIES: dict[Provider, tuple[Family, ...]] = {"openai": _OPENAI, "anthropic": _ANTHROPIC, "google": _GOOGLE}
_COMPILED = {
    provider: [(re.compile(_NAME.format(pattern)), controls) for pattern, controls in families]
    for provider, families in _FAMILIES.items()
}


@lru_cache(maxsize=256)
def documented_controls(model: str, provider: Provider | None) -> NativeControls | None:
    """Return what is documented about a model in its default set-up; None for a name that is not known.

    A model asked with another provider's parameters (Claude behind OpenAI's protocol) thinks as it does,
    and has no reasoning controls.

    Example:
        >>> documented_controls("o3-mini-2025-01-31", "openai").levels
        ('low', 'medium', 'high')
        >>> documented_controls("openai/o3-mini", None).levels
        ()
        >>> documented_controls("gpt-4o", "openai") is None
        True
    """
    for owner, families in _COMPILED.items():
        for pattern, controls in families:
            if pattern.fullmatch(model.lower()):
                reasoning_control = {} if owner == provider else {"levels": (), "minimum": None, "stops": False}
                return controls.model_copy(update={"model": model, **reasoning_control})
    return None
