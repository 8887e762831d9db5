"""The method: estimate a budget, ask under it, watch what the answer took (arXiv 2412.18547, section 4).

`TaleMethod` holds the choices (estimator, policy, strategy); `TaleMethod.begin` starts one question. An adapter
then either drives `QuestionRun.answer`, or drives `QuestionRun.plan`, makes the visible call itself (to stream
it, say) and hands the reply to `QuestionRun.settle`. Both ways record the same events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tale_core.errors import InvalidValueError
from tale_core.method.policy import BudgetPolicy
from tale_core.method.question import QuestionRun
from tale_core.prompts.strategies import get_strategy
from tale_core.protocols import Estimator, Learner

if TYPE_CHECKING:
    from tale_core.method.calibration import Calibration
    from tale_core.protocols import Strategy
    from tale_core.types import ChooseControl


class TaleMethod:
    """How to ask under a budget.

    Args:
        estimator: An estimator, a number of output tokens, or None for the calibration's or else the zero-shot
            estimator.
        policy: Bounds and reactions; None for the calibration's or else the defaults.
        strategy: A strategy or its name; None for the calibration's or else ``"tale"``.
        language: Language of the prompt, or ``"auto"`` to follow the question's script.
        calibration: What was measured about the model; fills in what is None above.

    Raises:
        UnknownStrategyError: No strategy of that name.
        InvalidValueError: The estimator is neither an estimator nor a number of at least 1.
    """

    def __init__(
        self,
        *,
        estimator: Estimator | int | None = None,
        policy: BudgetPolicy | None = None,
        strategy: str | Strategy | None = None,
        language: str = "auto",
        calibration: Calibration | None = None,
    ) -> None:
        if estimator is None and calibration is not None:
            estimator = _measured_estimator(calibration)
        if policy is None and calibration is not None:
            policy = calibration.policy
        if strategy is None:
            strategy = "tale" if calibration is None else calibration.prompt_strategy()
        self.estimator = as_estimator(estimator)
        self.policy = _checked_policy(policy)
        self.strategy = get_strategy(strategy)
        self.language = language
        self.curve = () if calibration is None else calibration.curve
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
