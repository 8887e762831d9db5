"""Methods that are TALE or one of its strategies: the published ones, and what this project adds."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from tale_core.errors import InvalidValueError
from tale_core.estimators import AdaptiveEstimator, FixedEstimator, RegressionEstimator, ZeroShotEstimator
from tale_core.method.calibration import Calibration  # noqa: TC001  # pydantic reads it
from tale_core.method.method import TaleMethod
from tale_core.method.policy import BudgetPolicy
from tale_core.prompts.strategies import get_strategy
from tale_core.search.graded_call import check_budgeted
from tale_core.types import Record
from tale_lab.bench.methods.base import Conditions, Method, Said, register_method

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from tale_core.protocols import Estimator
    from tale_core.types import Flow

_PAPER = "Han et al., arXiv 2412.18547"
# The paper bounds no budget; a policy of this project would.
_UNBOUNDED = BudgetPolicy(floor=1, ceiling=10**6)
_WINDOW = 20  # few benchmarks are as long as the usual 50 answers before an estimator may take over
_SEED = 1024


class StrategyMethod(Method):
    """A method that asks through a `TaleMethod`."""

    options: ClassVar[dict[str, Any]] = {}
    """The options of the `TaleMethod`, where they are the same for every run."""

    def tale(self) -> TaleMethod:
        """Return how to ask."""
        return TaleMethod(**self.options)

    # An adaptive estimator learns from one question to the next, so all of them share one `TaleMethod`.
    @cached_property
    def asking(self) -> TaleMethod:
        """How to ask, made once."""
        return self.tale()

    @property
    def most_calls(self) -> int:
        """An estimate, an answer, and as often as the policy asks again; see `Method.most_calls`."""
        return 1 + int(estimates(self.asking)) + self.asking.policy.most_retries

    def answer(self, question: str) -> Flow[Said]:
        """Plan the answer; see `Method.answer`."""
        answer = yield from self.asking.begin(question).answer()
        return Said(text=answer.reply.text, events=answer.events)

    def settings(self) -> dict[str, Any]:
        """Return the fields, and what decides the calls; see `Method.settings`."""
        return {**self.model_dump(mode="json", exclude={"calibration"}), "asking": asking_facts(self.asking)}


def estimates(asking: TaleMethod) -> bool:
    """Return whether a call may be made to estimate the budget."""
    return asking.strategy.budgeted and not isinstance(asking.estimator, FixedEstimator | RegressionEstimator)


def asking_facts(asking: TaleMethod) -> dict[str, Any]:
    """Return what decides the calls of a `TaleMethod`, JSON-ready."""
    strategy = asking.strategy
    return {
        "strategy": strategy.model_dump(mode="json", exclude={"measured_on"})
        if isinstance(strategy, Record)
        else strategy.name,
        # Looking for arithmetic errors without acting on them changes no call, so it is no part of the key.
        "policy": asking.policy.model_dump(mode="json") | {"on_slip": asking.policy.reactions["on_slip"]},
        "estimator": _estimator_facts(asking.estimator) if strategy.budgeted else None,
        "curve": [point.model_dump(mode="json") for point in asking.curve],
    }


def _estimator_facts(estimator: Estimator) -> Any:
    """Return what tells an estimator from others of its kind, and stays the same while it learns."""
    if isinstance(estimator, RegressionEstimator):
        return estimator.facts.model_dump(mode="json", exclude={"digests"})  # a set, in any order
    if isinstance(estimator, AdaptiveEstimator):
        own = [getattr(estimator, name) for name in ("quantile", "window", "explore", "memory")]
        return [estimator.name, _estimator_facts(estimator.start), *own]
    return f"{estimator.name}: {estimator!r}"


@register_method
class Direct(StrategyMethod):
    """The answer without reasoning: the lower bound on tokens."""

    name: ClassVar[str] = "direct"
    source: ClassVar[str] = f"{_PAPER}; prompt as published"
    options: ClassVar[dict[str, Any]] = {"strategy": "direct"}


@register_method
class Vanilla(StrategyMethod):
    """Chain of thought without a budget: the baseline."""

    name: ClassVar[str] = "vanilla"
    source: ClassVar[str] = f"Kojima et al., arXiv 2205.11916, as used by {_PAPER}; prompt as published"
    options: ClassVar[dict[str, Any]] = {"strategy": "vanilla"}


@register_method
class TaleAsPublished(StrategyMethod):
    """The published estimator and the published prompt, with no bounds on the budget and no retry.

    With settings in its name it is a `TaleStrategy`: ``tale:words`` is the same in another strategy,
    ``tale:exemplars@120`` a strategy under one budget for all questions, without an estimator, and
    ``tale:internalised`` a strategy that carries none: the plain question, for a model that was trained.
    """

    name: ClassVar[str] = "tale"
    source: ClassVar[str] = f"{_PAPER}; both prompts as published"

    @classmethod
    def configured(cls, argument: str) -> type[Method]:
        """Return a `TaleStrategy` for ``STRATEGY`` or ``STRATEGY@BUDGET``; see `Method.configured`."""
        wanted, at, number = argument.partition("@")
        found = get_strategy(wanted)
        if at:
            check_budgeted(found)
        if at and not (number.isdecimal() and int(number)):
            raise InvalidValueError(
                f"expected a budget in output tokens after the @, got {number!r}; write tale:{wanted}@120"
            )

        class Chosen(TaleStrategy):
            strategy: str = found.name
            budget: int | None = int(number) if at else None

        return Chosen

    options: ClassVar[dict[str, Any]] = {"strategy": "tale", "policy": _UNBOUNDED}


class TaleStrategy(StrategyMethod):
    """The published method in another strategy, its budget estimated, or one for all questions."""

    name: ClassVar[str] = "tale"
    source: ClassVar[str] = f"{_PAPER}, in a strategy of this project"

    strategy: str
    budget: int | None = Field(default=None, ge=1)
    """Output tokens for every question; None asks the model, as published."""

    @property
    def label(self) -> str:
        """The name that leads to it: ``tale:STRATEGY`` or ``tale:STRATEGY@BUDGET``."""
        return f"{self.name}:{self.strategy}" + ("" if self.budget is None else f"@{self.budget}")

    def tale(self) -> TaleMethod:
        """Return how to ask."""
        return TaleMethod(strategy=self.strategy, estimator=self.budget, policy=_UNBOUNDED)

    def __reduce__(self) -> tuple[Callable[[], TaleStrategy], tuple[()]]:
        # The class that a name leads to is made on the spot, where another process does not find it.
        return partial(TaleStrategy, strategy=self.strategy, budget=self.budget), ()


@register_method
class TaleCalibrated(StrategyMethod):
    """The strategy, budget and policy that `tale tune` found for the model."""

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
        """Return how to ask."""
        return TaleMethod(calibration=self.calibration)


@register_method
class VanillaRetry(StrategyMethod):
    """Chain of thought without a budget, asked again after an arithmetic error: what the retry does alone."""

    name: ClassVar[str] = "vanilla-retry"
    source: ClassVar[str] = "this project: BudgetPolicy(on_slip='retry')"
    options: ClassVar[dict[str, Any]] = {"strategy": "vanilla", "policy": BudgetPolicy(on_slip="retry")}


class _Estimated(StrategyMethod):
    calibration: Calibration | None = None
    """Gives the strategy and the policy; None leaves the published strategy."""
    estimator: Any = Field(exclude=True, repr=False)  # an `Estimator`; what tells it apart is in the settings
    """Chooses the budgets."""

    def tale(self) -> TaleMethod:
        """Return how to ask."""
        return TaleMethod(estimator=self.estimator, calibration=self.calibration)


@register_method
class TaleFitted(_Estimated):
    """Budgets from an estimator fitted beforehand, in the calibration's strategy or else the published one."""

    name: ClassVar[str] = "tale-fitted"
    source: ClassVar[str] = f"{_PAPER} (its regression estimator), as this project fits it: tale fit"

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
    another (``--engine ray``), it is the zero-shot estimator.
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
    options: ClassVar[dict[str, Any]] = {"strategy": "self-budget"}
