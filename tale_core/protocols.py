"""What can be replaced by an object of your own: estimators, strategies, and sinks of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from tale_core.events import ElasticityEvent, Event
    from tale_core.types import Budget, Estimate, Flow, Framing, Usage


@runtime_checkable
class Estimator(Protocol):
    """Estimates how many output tokens the answer to a question needs."""

    @property
    def name(self) -> str:
        """A short name, used as the budget's ``source``."""

    def estimate(self, question: str) -> Flow[Estimate]:
        """Plan the estimate of one question.

        Args:
            question: The question alone, as the user asked it.

        Returns:
            A flow that yields the model calls it needs (perhaps none) and returns an `Estimate`.
        """


@runtime_checkable
class Learner(Protocol):
    """An estimator that learns from what answers cost."""

    @property
    def name(self) -> str:
        """A short name, as of any estimator."""

    def learn(self, question: str, budget: Budget, usage: Usage, events: tuple[ElasticityEvent, ...]) -> None:
        """Learn from one complete answer. Called from several threads at once.

        Args:
            question: The text that was estimated.
            budget: The budget under which the question was asked; its ``source`` says who chose it.
            usage: What the answer cost.
            events: What the answer showed.
        """


@runtime_checkable
class Sink(Protocol):
    """Receives each record of a ledger as it comes: an exporter, a log, another ledger."""

    def record(self, event: Event) -> None:
        """Take one record. Called from several threads at once while a question waits, so it must not block.

        Args:
            event: A budget, a usage or an elasticity event.
        """


@runtime_checkable
class Strategy(Protocol):
    """A way to ask a question under a budget."""

    @property
    def name(self) -> str:
        """The name under which the strategy is registered."""

    @property
    def budgeted(self) -> bool:
        """Whether the prompt carries a budget; if not, no estimator is run."""

    @property
    def reasons(self) -> bool:
        """Whether the prompt asks for reasoning, so that a bare answer is a collapse."""

    def frame(self, question: str, budget: int | None, *, language: str = "auto") -> Framing:
        """Return what to put around the question.

        Args:
            question: The question, for strategies that look at it (its language, say).
            budget: Output tokens to ask for; None asks for reasoning without a budget.
            language: ``"en"``, ``"zh"``, ... or ``"auto"`` to follow the question's script.
        """


@runtime_checkable
class SelfBudgeting(Protocol):
    """A strategy under which the model states a budget itself, at the head of its answer."""

    def stated_budget(self, text: str) -> int | None:
        """Read the budget from an answer, in output tokens; None when the answer states none."""
