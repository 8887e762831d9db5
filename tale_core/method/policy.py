"""BudgetPolicy: from an estimate to a budget, and what to do when an answer does not keep it."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from tale_core.errors import InvalidValueError
from tale_core.events import ElasticityKind
from tale_core.types import Budget, Estimate, Record

if TYPE_CHECKING:
    from typing_extensions import Self

_REACTIONS = {
    ElasticityKind.OVERRUN: "on_overrun",
    ElasticityKind.COLLAPSE: "on_collapse",
    ElasticityKind.TRUNCATED: "on_truncation",
    ElasticityKind.SLIP: "on_slip",
}

Action: TypeAlias = Literal["record", "retry", "raise"]
"""``record``: keep the answer and the event. ``retry``: ask again, within ``retries``. ``raise``: an error."""

SlipAction: TypeAlias = Literal["ignore", "record", "retry", "raise"]
"""As `Action`; ``ignore``: do not look for arithmetic errors at all."""


class BudgetPolicy(Record):
    """The bounds of a budget, and what to do about answers that do not keep it.

    Example:
        >>> policy = BudgetPolicy(floor=30, multiplier=2)
        >>> budget, event = policy.decide(Estimate(tokens=12, source="zero-shot"))
        >>> budget.tokens, event
        (30, <ElasticityKind.CLAMPED: 'clamped'>)
    """

    floor: int = Field(default=16, ge=1)
    """Smallest budget an estimate may lead to, in output tokens. Estimators tend to guess too low, and below
    a model's floor the answer collapses or grows again (arXiv 2412.18547, section 3.2)."""
    ceiling: int = Field(default=4096, ge=1)
    """Largest budget an estimate may lead to, in output tokens."""
    multiplier: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """What estimates are multiplied by before the bounds apply."""
    fallback: int | None = Field(default=None, ge=1)
    """Budget when the estimate is unusable, in output tokens; None asks without a budget."""
    tolerance: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    """An answer overruns above budget x (1 + tolerance): models follow a budget only roughly."""
    underrun_below: float = Field(default=0.25, ge=0, lt=1)
    """An answer underruns below this share of the budget."""
    collapse_below: int = Field(default=10, ge=0)
    """Fewer output tokens than this, where reasoning was asked for, are a bare answer; 0 turns it off."""
    on_overrun: Action = "record"
    """On ``retry`` the question is asked again with twice the budget: a budget below the model's elastic
    range costs more than a larger one."""
    on_collapse: Action = "record"
    """On ``retry`` the question is asked again without a budget: under this one the reasoning collapsed."""
    on_truncation: Action = "record"
    """On ``retry`` the question is asked again without a budget."""
    on_slip: SlipAction = "ignore"
    """What to do about arithmetic errors, which are looked for on request only: reading every calculation in an
    answer takes longer than everything else TALE does with it. On ``retry`` the question is asked again under
    the same budget, with the calculations corrected: an answer with such an error is almost always wrong."""
    on_estimator_error: Literal["fallback", "raise"] = "fallback"
    """What an exception of the estimator leads to; ``raise`` passes it on unchanged."""
    retries: int = Field(default=1, ge=0, le=10)
    """How often one question may be asked again."""

    def __init__(self, /, *unnamed: Any, **fields: Any) -> None:
        if unnamed:  # the most natural guess, BudgetPolicy(30), deserves more than Python's own message
            raise InvalidValueError(
                f"BudgetPolicy takes its values by name, got {unnamed[0]!r}; write BudgetPolicy(floor=30, "
                "ceiling=800), or pass a fixed budget as estimator="
            )
        super().__init__(**fields)

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.floor > self.ceiling:
            raise InvalidValueError(
                f"floor {self.floor} is above ceiling {self.ceiling}; lower the floor or raise the ceiling"
            )
        return self

    def decide(self, estimate: Estimate) -> tuple[Budget, ElasticityKind | None]:
        """Return the budget for an estimate, at least 1 token or none, and what happened to the estimate."""
        if estimate.tokens is None:
            return Budget(tokens=self.fallback, source="fallback"), ElasticityKind.UNPARSABLE
        # The user's own number is not a guess: neither multiplier nor bounds apply.
        if estimate.exact:
            return Budget(tokens=estimate.tokens, source=estimate.source, estimate=estimate.tokens), None
        # As the multiplier is written: in floats 10 x 1.1 is more than 11, and a large product overflows.
        plain = estimate.calibrated or self.multiplier == 1
        multiplier = 1 if plain else Fraction(str(self.multiplier))
        wanted = math.ceil(estimate.tokens * multiplier)
        tokens = min(max(wanted, self.floor), self.ceiling)
        budget = Budget(tokens=tokens, source=estimate.source, estimate=estimate.tokens)
        return budget, None if tokens == wanted else ElasticityKind.CLAMPED

    def action(self, kind: ElasticityKind) -> Action:
        """Return what to do about an event of an answer."""
        field = _REACTIONS.get(kind)
        return "record" if field is None else self.reactions[field]

    @property
    def reactions(self) -> dict[str, Action]:
        """What to do about each kind of event that can be acted on, by the name of its field."""
        chosen = {field: getattr(self, field) for field in _REACTIONS.values()}
        return {field: "record" if action == "ignore" else action for field, action in chosen.items()}

    @property
    def most_retries(self) -> int:
        """How often one question may be asked again, in the worst case."""
        return self.retries if "retry" in self.reactions.values() else 0
