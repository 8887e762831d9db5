"""Several estimators, tried in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tale_core.errors import InvalidValueError
from tale_core.types import Estimator, Learner

if TYPE_CHECKING:
    from tale_core.events import ElasticityEvent
    from tale_core.types import Budget, Estimate, Flow, Usage


class ChainEstimator:
    """Asks several estimators in order; the first usable estimate counts.

    An estimator that fails is passed over. Only when none has an answer and the last one failed does its
    exception go on, to be handled by the policy like any estimator's.

    Args:
        *estimators: At least one.

    Raises:
        InvalidValueError: No estimator was given, or something that is none.
    """

    def __init__(self, *estimators: Estimator) -> None:
        if not estimators:
            raise InvalidValueError("a chain needs at least one estimator, got none")
        for one in estimators:
            if not isinstance(one, Estimator):
                raise InvalidValueError(
                    f"the links of a chain are estimators, got {one!r}; for a number use FixedEstimator"
                )
        self.estimators = estimators

    @property
    def name(self) -> str:
        """The names of the links, joined by ``>``."""
        return ">".join(one.name for one in self.estimators)

    def estimate(self, question: str) -> Flow[Estimate]:
        """Plan the estimate of one question; see `Estimator.estimate`."""
        *others, last = self.estimators
        for estimator in others:
            try:
                found = yield from estimator.estimate(question)
            except Exception:  # noqa: BLE001, S112  # the next link is the answer to a failed one
                continue
            if found.tokens is not None:
                return found
        return (yield from last.estimate(question))

    def learn(self, question: str, budget: Budget, usage: Usage, events: tuple[ElasticityEvent, ...]) -> None:
        """Pass one answer on to the links that learn; see `Learner.learn`."""
        for estimator in self.estimators:
            if isinstance(estimator, Learner):
                estimator.learn(question, budget, usage, events)

    def __repr__(self) -> str:
        return f"ChainEstimator({', '.join(repr(one) for one in self.estimators)})"
