"""The same budget for every question."""

from __future__ import annotations

from tale_core.errors import InvalidValueError
from tale_core.types import Estimate, Flow


class FixedEstimator:
    """Answers every question with the same budget, without a model call.

    Args:
        tokens: The budget in output tokens, at least 1. It is taken at its word: the policy's multiplier and
            bounds are for guesses.

    Raises:
        InvalidValueError: ``tokens`` is no whole number, or below 1.
    """

    def __init__(self, tokens: int) -> None:
        if type(tokens) is not int or tokens < 1:  # True is an int, and no budget
            raise InvalidValueError(
                f"a token budget is a whole number of at least 1, got {tokens!r}; "
                "for no budget at all use strategy='vanilla'"
            )
        self.tokens = tokens

    @property
    def name(self) -> str:
        """``"fixed"``."""
        return "fixed"

    def estimate(self, question: str) -> Flow[Estimate]:
        """Return the fixed budget; see `Estimator.estimate`."""
        del question
        yield from ()  # a flow is a generator, even one that needs no call
        return Estimate(tokens=self.tokens, source=self.name, exact=True)

    def __repr__(self) -> str:
        return f"FixedEstimator({self.tokens})"
