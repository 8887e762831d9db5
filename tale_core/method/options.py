"""The options that every wrapper takes, in one place: their names, their meaning, and their former names."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, TypedDict

from tale_core.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from tale_core.method.calibration import Calibration
    from tale_core.method.policy import BudgetPolicy
    from tale_core.models.reasoning_controls import ReasoningControl
    from tale_core.types import Strategy


class MethodOptions(TypedDict, total=False):
    """How to ask under a budget; what is left out comes from the calibration, or else is the default.

    The adapters add ``estimator``, which may be a model of their framework as well.
    """

    policy: BudgetPolicy | None
    """Bounds of the budget, and what to do when an answer does not keep it."""
    strategy: str | Strategy | None
    """A strategy or its name; ``"tale"`` where neither this nor a calibration names one."""
    language: str
    """Language of the prompt, or ``"auto"`` to follow the question's script."""
    calibration: Calibration | str | Path | None
    """What was measured about the model, or the path of it; None for the one shipped for this model, if any."""
    reasoning_control: ReasoningControl
    """What may carry the budget: ``"auto"`` for the model's own effort level or thinking budget where it is
    known to think, and then the question is sent as it is, else words in the prompt; ``"prompt"`` or
    ``"native"`` for the one or the other; ``"vllm"``, ``"sglang"`` or ``"llama.cpp"`` for the thinking budget
    of such a server. The accounts say which control was used, and why."""
    style: str | Strategy | None
    """Another name of ``strategy``."""
    profile: Calibration | str | Path | Mapping[str, Any] | None
    """The former name of ``calibration``."""
    knobs: ReasoningControl
    """The former name of ``reasoning_control``."""


_FORMER = {"style": "strategy", "profile": "calibration", "knobs": "reasoning_control"}
_SILENT = {"style"}  # stays for good: the research writes both words
_MEANT = {"budget": "estimator", "max_tokens": "estimator", "tokens": "estimator", "model_name": "model"}


def current_options(options: Mapping[str, Any], *, owner: str, also: Collection[str] = ()) -> dict[str, Any]:
    """Return options under their present names.

    Args:
        options: What a caller passed by keyword.
        owner: The class that was called, for messages.
        also: Names that the class takes besides those of `MethodOptions`.

    Raises:
        InvalidValueError: An option is unknown, or is given under both its names.
    """
    known = [*also, *(name for name in MethodOptions.__annotations__ if name not in _FORMER)]
    current: dict[str, Any] = {}
    for given, value in options.items():
        name = _FORMER.get(given, given)
        if name not in known:
            hint = _MEANT.get(given)
            advice = (
                f"a fixed budget is {hint}={value!r}" if hint == "estimator" else f"known: {', '.join(known)}"
            )
            raise InvalidValueError(f"{owner} takes no argument {given!r}; {advice}")
        if name in current:
            raise InvalidValueError(
                f"{owner} got both {name!r} and its other name {given!r}; pass {name!r} alone"
            )
        if name != given and given not in _SILENT:
            warnings.warn(
                f"{owner}: the argument {given!r} is now called {name!r}", DeprecationWarning, stacklevel=3
            )
        current[name] = value
    return current
