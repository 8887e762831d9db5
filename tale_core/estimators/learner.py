"""What an adaptive estimator learns and when it is put in charge; no flow, no lock, no file."""

from __future__ import annotations

import math

from pydantic import Field

from tale_core.estimators.features import text_features
from tale_core.estimators.online import OnlineRegression, OnlineState
from tale_core.estimators.takeover_test import Contest, ContestState, pinball
from tale_core.types import Record


class ApprenticeState(Record):
    """All that an `Apprentice` knows."""

    in_charge: bool = False
    """Whether its predictions are used."""
    takeovers: int = Field(default=0, ge=0)
    """How often it was put in charge."""
    regression: OnlineState = OnlineState()
    """What it learned since it last began anew."""
    contest: ContestState = ContestState()
    """The last losses of both sides."""


class Apprentice:
    """Predicts what an answer costs, and is in charge while that goes better than the start's budgets.

    Args:
        quantile: The share of answers that its budgets are to cover.
        window: How many answers are compared.
        memory: After about this many answers an old one has lost most of its weight.
        state: What to begin with.
    """

    def __init__(
        self, *, quantile: float, window: int, memory: float, state: ApprenticeState | None = None
    ) -> None:
        state = ApprenticeState() if state is None else state
        self.quantile = quantile
        self.window = window
        self.memory = memory
        self.in_charge = state.in_charge
        self.takeovers = state.takeovers
        self.regression = OnlineRegression(quantile=quantile, memory=memory, state=state.regression)
        self.contest = Contest(window, state.contest)

    @property
    def state(self) -> ApprenticeState:
        """All it knows, to be kept and begun with again."""
        return ApprenticeState(
            in_charge=self.in_charge,
            takeovers=self.takeovers,
            regression=self.regression.state,
            contest=self.contest.state,
        )

    def turn(self, draw: float, explore: float) -> bool:
        """Return whether the next question is given a budget of its own.

        Args:
            draw: A random number from 0 up to 1.
            explore: Share of the questions that go to the side not in charge; the apprentice is tried only once
                there is something to try.
        """
        return draw >= explore if self.in_charge else self.contest.open and draw < explore

    def predict(self, question: str) -> int | None:
        """Return a budget in output tokens; None while too little was learned."""
        value = self.regression.predict(text_features(question))
        return None if value is None else max(1, math.ceil(math.exp(value)))

    def note_own(self, budget: int, cost: int) -> None:
        """Take in how an answer under a budget of its own went: watched, never learned from.

        Args:
            budget: Output tokens asked for.
            cost: Output tokens taken.
        """
        self.contest.note_own(self._loss(budget, cost))
        if self.in_charge and self.contest.lost():
            self._begin_anew()

    def note_start(self, question: str, budget: int, cost: int, *, measure: bool) -> None:
        """Take in how an answer under the start's budget went.

        Args:
            question: The question.
            budget: Output tokens asked for.
            cost: Output tokens taken.
            measure: Whether the cost says what the question takes; if not, nothing is learned from it.
        """
        loss = self._loss(budget, cost)
        self.contest.note_start(loss)
        if measure:
            self._learn(text_features(question), math.log(cost), loss)
        if self.in_charge and self.contest.lost():
            self._begin_anew()
        elif not self.in_charge and self.contest.won():
            self.in_charge = True
            self.takeovers += 1
            self.contest.begin()

    def _learn(self, features: tuple[float, ...], cost: float, start_loss: float) -> None:
        expected = self.regression.predict(features)
        if expected is not None:
            self.contest.compare(pinball(cost, expected, self.quantile), start_loss)
        self.regression.learn(features, cost)

    def _loss(self, budget: int, cost: int) -> float:
        return pinball(math.log(cost), math.log(budget), self.quantile)

    def _begin_anew(self) -> None:
        """Hand back, and forget: what was known was wrong, or is so no longer."""
        self.in_charge = False
        self.regression = OnlineRegression(quantile=self.quantile, memory=self.memory)
        self.contest = Contest(self.window)
