"""The method: estimate a budget, ask under it, watch what the answer took (arXiv 2412.18547, section 4).

`TaleMethod` holds the choices (estimator, policy, strategy); `TaleMethod.begin` starts one question. An adapter
then either drives `QuestionRun.answer`, or drives `QuestionRun.plan`, makes the visible call itself (to stream
it, say) and hands the reply to `QuestionRun.settle`. Both ways record the same events. `MethodOptions` are the
options that every wrapper of the adapters takes.
"""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING, Any, TypedDict

from tale_core.errors import InvalidValueError
from tale_core.method.policy import BudgetPolicy
from tale_core.method.question import QuestionRun
from tale_core.prompts.strategies import get_strategy
from tale_core.protocols import Estimator, Learner

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from tale_core.method.calibration import Calibration
    from tale_core.models.reasoning_controls import ReasoningControl
    from tale_core.protocols import Strategy
    from tale_core.types import ChooseControl

_FORMER = {"style": "strategy", "profile": "calibration", "knobs": "reasoning_control"}
_SILENT = {"style"}  # stays for good: the research writes both words
_OURS = ("tale_core.", "tale_lab.", "tale_langchain.", "tale_llamaindex.")
_MEANT = {"budget": "estimator", "max_tokens": "estimator", "tokens": "estimator", "model_name": "model"}


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
                f"{owner}: the argument {given!r} is now called {name!r}",
                DeprecationWarning,
                stacklevel=_callers_level(),
            )
        current[name] = value
    return current


def _callers_level() -> int:
    """Return the ``stacklevel`` of the line outside our packages, however many of our frames are between."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_OURS):
        frame, level = frame.f_back, level + 1
    return level


class TaleMethod:
    """How to ask under a budget.

    Args:
        estimator: An estimator, a number of output tokens, or None for the calibration's or else the zero-shot
            estimator.
        policy: Bounds and reactions; None for the calibration's or else the defaults.
        strategy: A strategy or its name; None for the calibration's or else ``"tale"``.
        language: Language of the prompt, or ``"auto"`` to follow the question's script.
        calibration: What was measured about the model, or the path of it; fills in what is None above. None for
            the one shipped for ``model_name``, if any.
        model_name: The name of the model that will be asked, as far as it is known.
        **former: Options under their former names; see `MethodOptions`.

    Raises:
        UnknownStrategyError: No strategy of that name.
        InvalidValueError: The estimator is neither an estimator nor a number of at least 1, or the calibration
            was measured on another model or cannot be read.
    """

    def __init__(
        self,
        *,
        estimator: Estimator | int | None = None,
        policy: BudgetPolicy | None = None,
        strategy: str | Strategy | None = None,
        language: str = "auto",
        calibration: Calibration | str | Path | None = None,
        model_name: str | None = None,
        **former: Any,
    ) -> None:
        if former:  # style=, profile=
            renamed = current_options(former, owner="TaleMethod")
            strategy = renamed.get("strategy", strategy)
            calibration = renamed.get("calibration", calibration)
        found = _calibration(calibration, model_name)
        if estimator is None and found is not None:
            estimator = _measured_estimator(found)
        if policy is None and found is not None:
            policy = found.policy
        if strategy is None:
            strategy = "tale" if found is None else found.prompt_strategy()
        self.estimator = as_estimator(estimator)
        self.policy = _checked_policy(policy)
        self.strategy = get_strategy(strategy)
        self.language = language
        self.curve = () if found is None else found.curve
        self.learner = self.estimator if isinstance(self.estimator, Learner) else None
        self.strategy.frame("", self.policy.floor, language=language)  # an unknown language fails here

    def begin(
        self,
        question: str,
        *,
        question_id: str = "",
        shown: str | None = None,
        context: str | None = None,
        control: ChooseControl | None = None,
        record_events: bool = True,
    ) -> QuestionRun:
        """Start one question.

        Args:
            question: What the strategy looks at; empty when there is nothing to estimate (an image alone, a
                message that only returns tool results), which asks without a budget and without added text.
            question_id: The framework's run id, copied into every event.
            shown: The text that the prompt goes around, where it is more than the question.
            context: The text that the estimator sees, where it is more than the question.
            control: Decides what carries the budget; None for the prompt. A reasoning control replaces the
                prompt's text as a whole.
            record_events: Whether anybody will `QuestionRun.drain` the events; if not, budget and usage events
                are not even built.
        """
        return QuestionRun(
            self,
            question,
            question_id=question_id,
            shown=shown,
            context=context,
            control=control,
            record_events=record_events,
        )


def as_estimator(estimator: Estimator | int | None) -> Estimator:
    """Return the estimator that the caller's argument stands for.

    Args:
        estimator: An estimator, a number of output tokens, or None for the zero-shot estimator.

    Raises:
        InvalidValueError: Neither of these, or a number below 1.
    """
    # A class has the members of its instances, and not every caller runs a type checker.
    if isinstance(estimator, Estimator) and not isinstance(estimator, type):
        return estimator
    if estimator is None or isinstance(estimator, int | float):
        from tale_core.estimators.basic import FixedEstimator, ZeroShotEstimator  # noqa: PLC0415  # as needed

        return (
            ZeroShotEstimator() if estimator is None else FixedEstimator(estimator)
        )  # which checks the number
    raise InvalidValueError(
        "an estimator has a name and an estimate(question) method that returns a flow; "
        f"got {_in_words(estimator)}; pass one such as ZeroShotEstimator(), a number of output tokens, or None"
    )


def _calibration(calibration: Calibration | str | Path | None, model_name: str | None) -> Calibration | None:
    if calibration is None and model_name is None:
        return None
    from tale_core.method.calibration import find_calibration  # noqa: PLC0415  # reads those that are shipped

    return find_calibration(calibration, model_name=model_name)


def _measured_estimator(calibration: Calibration) -> Estimator | int | None:
    if calibration.estimator is None:
        return calibration.budget
    from tale_core.estimators.regression import RegressionEstimator  # noqa: PLC0415  # few calibrations have one

    return RegressionEstimator.load(calibration.estimator)


def _checked_policy(policy: BudgetPolicy | None) -> BudgetPolicy:
    if policy is None:
        return BudgetPolicy()
    if isinstance(policy, BudgetPolicy):
        return policy
    raise InvalidValueError(
        f"a policy is a BudgetPolicy, got {_in_words(policy)}; build one: BudgetPolicy(floor=30, ceiling=800)"
    )


def _in_words(given: object) -> str:
    """Return a wrong value for a message; an object by its type alone, since models carry keys."""
    if isinstance(given, type):
        return f"the class {given.__name__}"
    return repr(given) if isinstance(given, str | dict) else type(given).__name__
