"""What is recorded about a question: one frozen record per fact, the same in every framework."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, TypeAlias

from tale_core.types import Control, CountSource, FinishReason, Record, Role, Usage


class ElasticityKind(str, Enum):
    """How an answer or an estimate departed from its budget."""

    OVERRUN = "overrun"
    """The answer took more than budget x (1 + tolerance)."""
    UNDERRUN = "underrun"
    """The answer took far less than the budget: the estimate was too high."""
    REBOUND = "rebound"
    """A smaller budget cost at least as many real tokens as a larger one did for the same question."""
    COLLAPSE = "collapse"
    """A bare answer where reasoning was asked for."""
    TRUNCATED = "truncated"
    """The provider cut the answer, or it is empty."""
    SLIP = "slip"
    """A calculation in the answer is wrong, which terse answers show more often than long ones."""
    UNPARSABLE = "unparsable"
    """The estimator failed or gave no usable number; the fallback was used."""
    CLAMPED = "clamped"
    """The estimate was outside the policy's bounds."""

    __str__ = str.__str__  # "overrun" in logs and tables, in every Python version


class BudgetEvent(Record):
    """A budget was chosen for a question, before the question was asked."""

    name: ClassVar[str] = "tale_budget"

    question_id: str
    """The question's run id, as the framework gives it."""
    budget: int | None
    """Output tokens asked for; None means no budget."""
    source: str
    """Who chose it."""
    estimate: int | None = None
    """What the estimator said, in output tokens."""
    strategy: str
    """The prompt strategy in use."""
    control: Control | None = None
    """What carries the budget: the prompt or a reasoning control; None without a budget."""
    control_value: str | int | None = None
    """What the reasoning control is set to: an effort level, or a thinking budget in tokens."""
    control_why: str = ""
    """Why this control and this value were chosen, for people."""


class UsageEvent(Record):
    """A model call was paid for."""

    name: ClassVar[str] = "tale_usage"

    question_id: str = ""
    """The question's run id, as the framework gives it."""
    role: Role
    """What the call was for."""
    usage: Usage
    """What it cost; its ``source`` says who counted."""
    budget: int | None = None
    """The budget the prompt named, in output tokens; None on estimator calls and without a budget."""
    strategy: str | None = None
    """The prompt strategy, on ``reason`` calls."""
    model: str | None = None
    """The model's name as the provider gives it."""
    finish_reason: FinishReason | None = None
    """Why the model stopped."""
    seconds: float | None = None
    """Wall-clock seconds of the call."""


class ElasticityEvent(Record):
    """A budget or an answer did not behave as intended."""

    name: ClassVar[str] = "tale_elasticity"

    question_id: str = ""
    """The question's run id, as the framework gives it."""
    kind: ElasticityKind
    """What happened."""
    budget: int | None = None
    """The budget in force, in output tokens."""
    actual: int | None = None
    """Output tokens the answer really took; None when the event is about the estimate."""
    counted: CountSource | None = None
    """Whether ``actual`` was measured or estimated."""
    estimate: int | None = None
    """What the estimator said, in output tokens."""
    detail: str = ""
    """An explanation; never prompt text."""


Event: TypeAlias = BudgetEvent | UsageEvent | ElasticityEvent
"""Anything that is recorded about a question."""
