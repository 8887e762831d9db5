"""The ways of answering that this project adds: with a calibration, with other estimators, with none at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from tale_core.errors import InvalidValueError
from tale_core.estimators import AdaptiveEstimator, ZeroShotEstimator
from tale_core.method.calibration import Calibration  # noqa: TC001  # pydantic reads it
from tale_core.method.method import TaleMethod
from tale_core.method.policy import BudgetPolicy
from tale_lab.bench.methods.base import Conditions, register_method
from tale_lab.bench.methods.strategy_method import StrategyMethod

if TYPE_CHECKING:
    from typing_extensions import Self

_WINDOW = 20
_SEED = 1024


@register_method
class TaleCalibrated(StrategyMethod):
    """The way of asking that was measured to suit the model."""

    name: ClassVar[str] = "tale-calibration"
    source: ClassVar[str] = "this project: tale tune"

    calibration: Calibration

    @classmethod
    def under(cls, conditions: Conditions) -> Self:
        """Return the method with the run's calibration; see `Method.under`."""
        if conditions.calibration is None:
            raise InvalidValueError(
                "tale-calibration needs a calibration of this model: make one with `tale tune`, and name it "
                "with --calibration; or leave the method out"
            )
        return cls(calibration=conditions.calibration)

    def tale(self) -> TaleMethod:
        """Return the way of asking."""
        return TaleMethod(calibration=self.calibration)


@register_method
class VanillaSecondTry(StrategyMethod):
    """Chain of thought without a budget, asked again after a slip: what the second try does alone."""

    name: ClassVar[str] = "vanilla-second-try"
    source: ClassVar[str] = "this project: BudgetPolicy(on_slip='retry')"

    def tale(self) -> TaleMethod:
        """Return the way of asking."""
        return TaleMethod(strategy="vanilla", policy=BudgetPolicy(on_slip="retry"))


class _Estimated(StrategyMethod):
    calibration: Calibration | None = None
    """Gives the strategy and the policy; None leaves the published strategy."""
    estimator: Any = Field(exclude=True, repr=False)  # an `Estimator`; what tells it apart is in the settings
    """Chooses the budgets."""

    def tale(self) -> TaleMethod:
        """Return the way of asking."""
        return TaleMethod(estimator=self.estimator, calibration=self.calibration)


@register_method
class TaleFitted(_Estimated):
    """Budgets from an estimator fitted beforehand, in the calibration's strategy or else the published one."""

    name: ClassVar[str] = "tale-fitted"
    source: ClassVar[str] = (
        "Han et al., arXiv 2412.18547 (its regression estimator), as this project fits it: tale fit"
    )

    @classmethod
    def under(cls, conditions: Conditions) -> Self:
        """Return the method with the run's estimator; see `Method.under`."""
        if conditions.estimator is None:
            raise InvalidValueError(
                "tale-fitted needs an estimator that was fitted on other questions of this model: make one "
                "with `tale fit`, and name its file with --estimator; or leave the method out"
            )
        return cls(calibration=conditions.calibration, estimator=conditions.estimator)


@register_method
class TaleAdaptive(_Estimated):
    """Starts with the zero-shot estimator and learns during the run what answers cost.

    What it answers therefore depends on what came before: the order of the questions, how many are under way
    at a time, and where a run was stopped, since a run that goes on begins to learn anew. One question at a
    time, uninterrupted, it repeats itself exactly. It learns within one process: where every question goes to
    another (``--engine ray``), it is the zero-shot estimator. It may take over after 20 answers in place of the
    usual 50, since few benchmarks are long.
    """

    name: ClassVar[str] = "tale-adaptive"
    source: ClassVar[str] = "this project: AdaptiveEstimator over the zero-shot estimator"

    estimator: Any = Field(
        default_factory=lambda: AdaptiveEstimator(ZeroShotEstimator(), window=_WINDOW, seed=_SEED),
        exclude=True,
        repr=False,
    )

    @classmethod
    def under(cls, conditions: Conditions) -> Self:
        """Return the method, with the run's calibration where there is one; see `Method.under`."""
        return cls(calibration=conditions.calibration)


@register_method
class SelfBudgeted(StrategyMethod):
    """One call, in which the model states a budget and then keeps it."""

    name: ClassVar[str] = "self-budget"
    source: ClassVar[str] = "this project"

    def tale(self) -> TaleMethod:
        """Return the way of asking."""
        return TaleMethod(strategy="self-budget")
