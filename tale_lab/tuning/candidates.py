"""Who takes part in a race: ways of asking, each a strategy with a budget."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pydantic import Field

from tale_core.estimators import RegressionEstimator
from tale_core.method.method import TaleMethod
from tale_core.method.policy import BudgetPolicy
from tale_core.prompts.strategies import Exemplar, ExemplarStrategy, get_strategy
from tale_core.types import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

Levels: TypeAlias = dict[int, tuple[Exemplar, ...]]
"""Worked examples by the length of their solutions, in output tokens."""


class Candidate(Record):
    """One way of asking: a strategy, and where its budget comes from."""

    strategy: str
    """Name of a registered prompt strategy."""
    budget: int | None = Field(default=None, ge=1)
    """One budget for every question, in output tokens; None leaves it to the estimator."""
    multiplier: float = Field(default=1.0, gt=0)
    """What the estimator's number is multiplied by; of no effect with a fixed budget."""
    estimator: str | None = None
    """File of a fitted estimator; None asks the zero-shot estimator."""
    searched: bool = False
    """Whether its worked examples are the race's own, taken from searched answers."""
    second_try: bool = False
    """Whether a question is asked again when a calculation in the answer does not come out."""

    @property
    def label(self) -> str:
        """A short name, such as ``tale x2`` or ``exemplars @100, second try``."""
        strategy = f"{self.strategy} (searched)" if self.searched else self.strategy
        second_try = ", second try" if self.second_try else ""
        if self.budget is not None:
            return f"{strategy} @{self.budget}{second_try}"
        fitted = "" if self.estimator is None else f" fitted by {Path(self.estimator).name}"
        multiplied = "" if self.multiplier == 1 else f" x{self.multiplier:g}"
        return f"{strategy}{fitted}{multiplied}{second_try}"

    def policy(self) -> BudgetPolicy:
        """Return the candidate's bounds and reactions."""
        return BudgetPolicy(multiplier=self.multiplier, on_slip="retry" if self.second_try else "record")

    def method(self, exemplars: Levels | None = None) -> TaleMethod:
        """Return the candidate as a way of asking.

        Args:
            exemplars: The race's own worked examples, for a candidate that shows them.
        """
        strategy = get_strategy(self.strategy)
        if self.searched and isinstance(strategy, ExemplarStrategy):
            strategy = strategy.model_copy(update={"levels": exemplars})
        fitted = None if self.estimator is None else _fitted(self.estimator)
        return TaleMethod(estimator=self.budget or fitted, strategy=strategy, policy=self.policy())


@functools.cache
def _fitted(path: str) -> RegressionEstimator:
    return RegressionEstimator.load(path)


BASELINE = Candidate(strategy="vanilla")
"""What every candidate is measured against: chain of thought without a budget."""


def default_candidates(
    budgets: Sequence[int] = (25, 50, 100, 200),
    multipliers: Sequence[float] = (1.0, 2.0),
    estimators: Sequence[str] = (),
) -> tuple[Candidate, ...]:
    """Return a broad field of candidates.

    Args:
        budgets: The fixed budgets to try with each strategy, in output tokens.
        multipliers: What to multiply estimates by.
        estimators: Files of fitted estimators.
    """
    return candidates_of(
        ("draft", "self-budget", "tale", "essential", "words", "steps", "exemplars"),
        budgets=budgets,
        multipliers=multipliers,
        estimators=estimators,
        zero_shot=("tale",),
    )


def candidates_of(
    strategies: Sequence[str],
    *,
    budgets: Sequence[int],
    multipliers: Sequence[float],
    estimators: Sequence[str] = (),
    zero_shot: Sequence[str] | None = None,
) -> tuple[Candidate, ...]:
    """Return every combination of strategies with budgets, and with estimators times multipliers.

    Args:
        strategies: Names of prompt strategies; one that carries no budget takes part once.
        budgets: Fixed budgets, in output tokens.
        multipliers: What to multiply estimates by.
        estimators: Files of fitted estimators.
        zero_shot: The strategies to try with the zero-shot estimator, each at the price of a call; None for
            all.

    Raises:
        UnknownStrategyError: No strategy of one of these names.
    """
    field: list[Candidate] = []
    for strategy in strategies:
        if not get_strategy(strategy).budgeted:
            field.append(Candidate(strategy=strategy))
            continue
        asked = (None,) if zero_shot is None or strategy in zero_shot else ()
        field += [Candidate(strategy=strategy, budget=budget) for budget in budgets]
        field += [
            Candidate(strategy=strategy, multiplier=multiplier, estimator=estimator)
            for estimator in (*asked, *estimators)
            for multiplier in multipliers
        ]
    return tuple(field)
