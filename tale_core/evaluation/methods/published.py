"""The ways of answering that the paper compares (arXiv 2412.18547, section 5), and its own in other styles."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tale_core.errors import InvalidValueError
from tale_core.evaluation.methods.base import register_method
from tale_core.evaluation.methods.styled import Styled
from tale_core.method import TaleMethod
from tale_core.policy import BudgetPolicy
from tale_core.probing import check_budgeted
from tale_core.prompts import get_style

if TYPE_CHECKING:
    from collections.abc import Callable

    from tale_core.evaluation.methods.base import Method

_PAPER = "Han et al., arXiv 2412.18547"
_UNBOUNDED = BudgetPolicy(floor=1, ceiling=10**6)


@register_method
class Direct(Styled):
    """The answer without reasoning: the lower bound on tokens."""

    name: ClassVar[str] = "direct"
    source: ClassVar[str] = f"{_PAPER}; prompt as published"

    def tale(self) -> TaleMethod:
        """Return the way of asking."""
        return TaleMethod(style="direct")


@register_method
class Vanilla(Styled):
    """Chain of thought without a budget: the baseline."""

    name: ClassVar[str] = "vanilla"
    source: ClassVar[str] = f"Kojima et al., arXiv 2205.11916, as used by {_PAPER}; prompt as published"

    def tale(self) -> TaleMethod:
        """Return the way of asking."""
        return TaleMethod(style="vanilla")


@register_method
class TaleAsPublished(Styled):
    """The published estimator and the published prompt, with no bounds on the budget and no second try.

    With settings in its name it is a `TaleStyle`: ``tale:words`` is the same in another style,
    ``tale:exemplars@120`` a style under one budget for all questions, without an estimator, and
    ``tale:internalised`` a style that carries none: the plain question, for a model that was trained.
    """

    name: ClassVar[str] = "tale"
    source: ClassVar[str] = f"{_PAPER}; both prompts as published"

    @classmethod
    def configured(cls, argument: str) -> type[Method]:
        """Return a `TaleStyle` for ``STYLE`` or ``STYLE@BUDGET``; see `Method.configured`."""
        wanted, at, number = argument.partition("@")
        found = get_style(wanted)
        if at:
            check_budgeted(found)
        if at and not (number.isdecimal() and int(number)):
            raise InvalidValueError(
                f"after the @ stands a budget in output tokens, got {number!r}; write tale:{wanted}@120"
            )

        class Chosen(TaleStyle):
            style: str = found.name
            budget: int | None = int(number) if at else None

        return Chosen

    def tale(self) -> TaleMethod:
        """Return the way of asking."""
        return TaleMethod(style="tale", policy=_UNBOUNDED)


class TaleStyle(Styled):
    """The published method in another style, its budget estimated, or one for all questions."""

    name: ClassVar[str] = "tale"
    source: ClassVar[str] = f"{_PAPER}, in a style of this project"

    style: str
    """Name of the prompt style."""
    budget: int | None = Field(default=None, ge=1)
    """Output tokens for every question; None asks the model, as published."""

    @property
    def label(self) -> str:
        """The name that leads to it: ``tale:STYLE`` or ``tale:STYLE@BUDGET``."""
        return f"{self.name}:{self.style}" + ("" if self.budget is None else f"@{self.budget}")

    def tale(self) -> TaleMethod:
        """Return the way of asking."""
        return TaleMethod(style=self.style, estimator=self.budget, policy=_UNBOUNDED)

    def __reduce__(self) -> tuple[Callable[..., TaleStyle], tuple[str, int | None]]:
        # The class that a name leads to is made on the spot, where another process does not find it.
        return _style, (self.style, self.budget)


def _style(style: str, budget: int | None) -> TaleStyle:
    return TaleStyle(style=style, budget=budget)
