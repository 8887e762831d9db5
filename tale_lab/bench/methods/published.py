"""The methods that the paper compares (arXiv 2412.18547, section 5), and its own in other strategies."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tale_core.errors import InvalidValueError
from tale_core.method.method import TaleMethod
from tale_core.method.policy import BudgetPolicy
from tale_core.prompts.strategies import get_strategy
from tale_core.search.graded_call import check_budgeted
from tale_lab.bench.methods.base import register_method
from tale_lab.bench.methods.strategy_method import StrategyMethod

if TYPE_CHECKING:
    from collections.abc import Callable

    from tale_lab.bench.methods.base import Method

_PAPER = "Han et al., arXiv 2412.18547"
_UNBOUNDED = BudgetPolicy(floor=1, ceiling=10**6)


@register_method
class Direct(StrategyMethod):
    """The answer without reasoning: the lower bound on tokens."""

    name: ClassVar[str] = "direct"
    source: ClassVar[str] = f"{_PAPER}; prompt as published"

    def tale(self) -> TaleMethod:
        """Return the way of asking."""
        return TaleMethod(strategy="direct")


@register_method
class Vanilla(StrategyMethod):
    """Chain of thought without a budget: the baseline."""

    name: ClassVar[str] = "vanilla"
    source: ClassVar[str] = f"Kojima et al., arXiv 2205.11916, as used by {_PAPER}; prompt as published"

    def tale(self) -> TaleMethod:
        """Return the way of asking."""
        return TaleMethod(strategy="vanilla")


@register_method
class TaleAsPublished(StrategyMethod):
    """The published estimator and the published prompt, with no bounds on the budget and no second try.

    With settings in its name it is a `TaleStrategy`: ``tale:words`` is the same in another strategy,
    ``tale:exemplars@120`` a strategy under one budget for all questions, without an estimator, and
    ``tale:internalised`` a strategy that carries none: the plain question, for a model that was trained.
    """

    name: ClassVar[str] = "tale"
    source: ClassVar[str] = f"{_PAPER}; both prompts as published"

    @classmethod
    def configured(cls, argument: str) -> type[Method]:
        """Return a `TaleStrategy` for ``STYLE`` or ``STYLE@BUDGET``; see `Method.configured`."""
        wanted, at, number = argument.partition("@")
        found = get_strategy(wanted)
        if at:
            check_budgeted(found)
        if at and not (number.isdecimal() and int(number)):
            raise InvalidValueError(
                f"after the @ stands a budget in output tokens, got {number!r}; write tale:{wanted}@120"
            )

        class Chosen(TaleStrategy):
            strategy: str = found.name
            budget: int | None = int(number) if at else None

        return Chosen

    def tale(self) -> TaleMethod:
        """Return the way of asking."""
        return TaleMethod(strategy="tale", policy=_UNBOUNDED)


class TaleStrategy(StrategyMethod):
    """The published method in another strategy, its budget estimated, or one for all questions."""

    name: ClassVar[str] = "tale"
    source: ClassVar[str] = f"{_PAPER}, in a strategy of this project"

    strategy: str
    """Name of the prompt strategy."""
    budget: int | None = Field(default=None, ge=1)
    """Output tokens for every question; None asks the model, as published."""

    @property
    def label(self) -> str:
        """The name that leads to it: ``tale:STYLE`` or ``tale:STYLE@BUDGET``."""
        return f"{self.name}:{self.strategy}" + ("" if self.budget is None else f"@{self.budget}")

    def tale(self) -> TaleMethod:
        """Return the way of asking."""
        return TaleMethod(strategy=self.strategy, estimator=self.budget, policy=_UNBOUNDED)

    def __reduce__(self) -> tuple[Callable[..., TaleStrategy], tuple[str, int | None]]:
        # The class that a name leads to is made on the spot, where another process does not find it.
        return _strategy, (self.strategy, self.budget)


def _strategy(strategy: str, budget: int | None) -> TaleStrategy:
    return TaleStrategy(strategy=strategy, budget=budget)
