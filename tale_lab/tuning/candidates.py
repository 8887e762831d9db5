"""Who takes part in a race: methods that differ in strategy, budget, examples and retry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from pydantic import Field

from tale_core.method.calibration import Calibration
from tale_core.method.method import TaleMethod
from tale_core.method.policy import BudgetPolicy
from tale_core.prompts.strategies import Exemplar, get_strategy
from tale_lab.bench.methods.tale import StrategyMethod, asking_facts

if TYPE_CHECKING:
    from collections.abc import Sequence

Levels: TypeAlias = dict[int, tuple[Exemplar, ...]]
"""Worked examples by the length of their solutions, in output tokens."""


class Candidate(StrategyMethod):
    """A method in a race. It asks through the very calibration that is saved when it wins."""

    name: ClassVar[str] = "candidate"
    source: ClassVar[str] = "this project: tale tune"

    strategy: str
    """Name of a registered prompt strategy."""
    budget: int | None = Field(default=None, ge=1)
    """One budget for every question, in output tokens; None leaves it to the estimator."""
    multiplier: float = Field(default=1.0, gt=0)
    """What the estimator's number is multiplied by; of no effect with a fixed budget."""
    estimator: str | None = None
    """File of a fitted estimator; None is the zero-shot estimator."""
    exemplars: Levels = Field(default_factory=dict)
    """Worked examples taken from searched answers; empty for those of the strategy."""
    retry: bool = False
    """Whether a question is asked again after an arithmetic error in the answer."""

    @property
    def label(self) -> str:
        """A short name, such as ``tale x2`` or ``exemplars @100, retry``."""
        strategy = f"{self.strategy} (searched)" if self.exemplars else self.strategy
        retry = ", retry" if self.retry else ""
        if self.budget is not None:
            return f"{strategy} @{self.budget}{retry}"
        fitted = "" if self.estimator is None else f" fitted by {Path(self.estimator).name}"
        multiplied = "" if self.multiplier == 1 else f" x{self.multiplier:g}"
        return f"{strategy}{fitted}{multiplied}{retry}"

    def calibration(self, model: str) -> Calibration:
        """Return the candidate as a calibration, with nothing measured yet."""
        return Calibration(
            model=model,
            strategy=self.strategy,
            budget=self.budget,
            estimator=self.estimator,
            exemplars=self.exemplars,
            policy=BudgetPolicy(multiplier=self.multiplier, on_slip="retry" if self.retry else "record"),
        )

    def tale(self) -> TaleMethod:
        """Return how to ask."""
        # The model's name changes no call, and is known only when the calibration is saved.
        return TaleMethod(calibration=self.calibration("any"))

    def settings(self) -> dict[str, Any]:
        """Return what decides the calls; a fitted estimator counts by its content, not its path."""
        return {"asking": asking_facts(self.asking)}


BASELINE = Candidate(strategy="vanilla")
"""Chain of thought without a budget: what is written when no candidate is better."""

STRATEGIES = ("draft", "self-budget", "tale", "essential", "words", "steps", "exemplars")
"""What races by default."""


def candidates_of(
    strategies: Sequence[str] | None = None,
    *,
    budgets: Sequence[int] = (25, 50, 100, 200),
    multipliers: Sequence[float] = (1.0, 2.0),
    estimators: Sequence[str] = (),
    exemplars: Levels | None = None,
    retry: bool = False,
) -> tuple[Candidate, ...]:
    """Return every combination of strategies with budgets, and with estimators times multipliers.

    Args:
        strategies: Names of prompt strategies; one that carries no budget takes part once. None is
            `STRATEGIES`, where only ``tale`` is tried with the zero-shot estimator: each such candidate costs a
            call more per question.
        budgets: Fixed budgets, in output tokens.
        multipliers: What to multiply estimates by.
        estimators: Files of fitted estimators.
        exemplars: Worked examples taken from searched answers, tried under each fixed budget.
        retry: Whether candidates ask again after an arithmetic error.

    Raises:
        UnknownStrategyError: No strategy of one of these names.
    """
    # An estimate is a call more per question, so only the published strategy is tried with it by default.
    zero_shot = ("tale",) if strategies is None else strategies
    field: list[Candidate] = []
    for strategy in STRATEGIES if strategies is None else strategies:
        if not get_strategy(strategy).budgeted:
            field.append(Candidate(strategy=strategy, retry=retry))
            continue
        asked = (None,) if strategy in zero_shot else ()
        field += [Candidate(strategy=strategy, budget=budget, retry=retry) for budget in budgets]
        field += [
            Candidate(strategy=strategy, multiplier=multiplier, estimator=estimator, retry=retry)
            for estimator in (*asked, *estimators)
            for multiplier in multipliers
        ]
    if exemplars:
        shown = Candidate(strategy="exemplars", exemplars=exemplars, retry=retry)
        field += [shown.model_copy(update={"budget": budget}) for budget in budgets]
    return tuple(field)
