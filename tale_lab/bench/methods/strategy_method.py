"""Methods that are ways of asking of `TaleMethod`."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tale_core.estimators import AdaptiveEstimator, FixedEstimator, RegressionEstimator
from tale_core.types import Record
from tale_lab.bench.methods.base import Method, Said

if TYPE_CHECKING:
    from tale_core.method.method import TaleMethod
    from tale_core.protocols import Estimator
    from tale_core.types import Flow


class StrategyMethod(Method):
    """A method that is a way of asking of `TaleMethod`."""

    @abstractmethod
    def tale(self) -> TaleMethod:
        """Return the way of asking; called once."""

    @cached_property
    def asking(self) -> TaleMethod:
        """The way of asking."""
        return self.tale()

    @property
    def most_calls(self) -> int:
        """An estimate, an answer, and as often as the policy asks again; see `Method.most_calls`."""
        return 1 + int(estimates(self.asking)) + self.asking.policy.most_retries

    def answer(self, question: str) -> Flow[Said]:
        """Plan the answer; see `Method.answer`."""
        answer = yield from self.asking.begin(question, record_events=False).answer()
        return Said(text=answer.reply.text, events=answer.events)

    def settings(self) -> dict[str, Any]:
        """Return the fields, and what the way of asking makes of them; see `Method.settings`."""
        return {**self.model_dump(mode="json", exclude={"calibration"}), "asking": asking_facts(self.asking)}


def estimates(asking: TaleMethod) -> bool:
    """Return whether a way of asking may make a call to estimate the budget."""
    return asking.strategy.budgeted and not isinstance(asking.estimator, FixedEstimator | RegressionEstimator)


def asking_facts(asking: TaleMethod) -> dict[str, Any]:
    """Return what decides the calls of a way of asking, JSON-ready."""
    strategy = asking.strategy
    return {
        "strategy": strategy.model_dump(mode="json", exclude={"measured_on"})
        if isinstance(strategy, Record)
        else strategy.name,
        # Looking for arithmetic errors without acting on them changes no call, so it is no part of the key.
        "policy": {
            **asking.policy.model_dump(mode="json"),
            "on_slip": asking.policy.reactions["on_slip"],
        },
        "estimator": _estimator_facts(asking.estimator) if strategy.budgeted else None,
        "curve": [point.model_dump(mode="json") for point in asking.curve],
    }


def _estimator_facts(estimator: Estimator) -> Any:
    """Return what tells an estimator from others of its kind, and stays the same while it learns."""
    if isinstance(estimator, RegressionEstimator):
        return estimator.facts.model_dump(mode="json", exclude={"digests"})  # a set, in any order
    if isinstance(estimator, AdaptiveEstimator):
        start = _estimator_facts(estimator.start)
        return [
            estimator.name,
            start,
            estimator.quantile,
            estimator.window,
            estimator.explore,
            estimator.memory,
        ]
    return f"{estimator.name}: {estimator!r}"
