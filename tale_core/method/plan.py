"""The records of one question: how it is asked, what came back, and what that shows about the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tale_core.errors import (
    BudgetOverrunError,
    CollapsedAnswerError,
    PolicyViolationError,
    SlippedAnswerError,
    TruncatedAnswerError,
)
from tale_core.events import ElasticityEvent, ElasticityKind
from tale_core.types import Budget, ControlSetting, Framing, ModelCall, ModelReply, Record, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_core.method.calibration import CalibrationPoint
    from tale_core.method.policy import BudgetPolicy

SELF = "self"
"""The source of a budget that the model itself states in its answer."""


class Plan(Record):
    """One question with its budget: all that the visible call needs."""

    question: str
    """The question, without the text around it."""
    budget: Budget
    """The budget that the prompt or a reasoning control carries."""
    framing: Framing
    """What goes around the question."""
    strategy: str
    """Name of the prompt strategy."""
    reasons: bool = True
    """Whether the prompt asks for reasoning."""
    setting: ControlSetting | None = None
    """The control that carries the budget; None without a budget."""
    attempt: int = 1
    """1 for the first call, 2 for the first retry, ..."""

    @property
    def left_to_model(self) -> bool:
        """Whether the model is to state the budget itself and has not done so yet."""
        return self.budget.tokens is None and self.budget.source == SELF

    def call(self) -> ModelCall:
        """Return the model call, for drivers that have no conversation of their own."""
        return ModelCall(
            role="reason",
            messages=self.framing.messages(self.question),
            framing=self.framing,
            budget=self.budget.tokens,
            setting=self.setting,
        )


class Answer(Record):
    """An answer and what it cost."""

    plan: Plan
    """How the question was asked, the last time it was."""
    reply: ModelReply
    """The model's reply."""
    reason_usage: Usage
    """What this reply cost; earlier attempts are in the ledger."""
    estimate_usage: Usage | None
    """What estimating cost; None when no call was made."""
    observed: tuple[ElasticityEvent, ...]
    """What this reply alone showed."""
    events: tuple[ElasticityEvent, ...]
    """Everything that departed from the plan, estimate and earlier attempts included, in order."""

    def summary(self) -> dict[str, Any]:
        """Return what adapters attach to their own message: plain, JSON-ready data."""
        budget, estimate = self.plan.budget, self.estimate_usage
        setting = self.plan.setting
        control, value, why = (setting.control, setting.value, setting.why) if setting else (None, None, "")
        return {
            "budget": budget.tokens,
            "source": budget.source,
            "estimate": budget.estimate,
            "strategy": self.plan.strategy,
            "style": self.plan.strategy,  # the former names stay: keys are only ever added
            "reasoning_control": control,
            "reasoning_control_value": value,
            "reasoning_control_why": why,
            "lever": control,
            "lever_value": value,
            "lever_why": why,
            "attempts": self.plan.attempt,
            "estimate_usage": None if estimate is None else dict(vars(estimate)),
            "reason_usage": dict(vars(self.reason_usage)),
            "events": [
                event.model_dump(mode="json", exclude={"question_id"}, exclude_defaults=True)
                for event in self.events
            ],
        }

    def violation(self, kind: ElasticityKind) -> PolicyViolationError:
        """Return the error for a policy that says ``raise`` for an event of this answer."""
        error, message, field = _VIOLATIONS[kind]
        said = message.format(took=self.reason_usage.output_tokens, budget=self.plan.budget.tokens)
        return error(f"{said}, or set {field}='retry' or 'record'", text=self.reply.text)


_VIOLATIONS: dict[ElasticityKind, tuple[type[PolicyViolationError], str, str]] = {
    ElasticityKind.TRUNCATED: (
        TruncatedAnswerError,
        (
            "the answer was cut or is empty after {took} output tokens (budget {budget}); "
            "raise the model's own output limit"
        ),
        "on_truncation",
    ),
    ElasticityKind.COLLAPSE: (
        CollapsedAnswerError,
        "the answer is bare: {took} output tokens with a budget of {budget}; raise the policy's floor",
        "on_collapse",
    ),
    ElasticityKind.SLIP: (
        SlippedAnswerError,
        (
            "a calculation in the answer does not come out ({took} output tokens, budget {budget}); "
            "raise the budget"
        ),
        "on_slip",
    ),
    ElasticityKind.OVERRUN: (
        BudgetOverrunError,
        "the answer took {took} output tokens with a budget of {budget}; raise the budget or the tolerance",
        "on_overrun",
    ),
}


def observe(
    reply: ModelReply,
    usage: Usage,
    *,
    budget: int | None,
    policy: BudgetPolicy,
    reasons: bool = True,
    question_id: str = "",
    curve: Sequence[CalibrationPoint] = (),
) -> tuple[ElasticityEvent, ...]:
    """Return the events that one answer shows (token elasticity, arXiv 2412.18547, section 3.2).

    An answer that calls tools, or whose stream the caller left, says nothing about the budget, except that it
    may have overrun it already.

    Args:
        reply: The answer.
        usage: What it cost.
        budget: The budget that the prompt named, in output tokens; None when it named none.
        policy: The thresholds.
        reasons: Whether the prompt asked for reasoning.
        question_id: Copied into the events.
        curve: What budgets usually take on this model, from its calibration; without one a rebound cannot be
            seen.
    """
    # The first group excludes each other: an answer that was cut is neither bare nor short on purpose.
    actual = usage.output_tokens
    kinds: list[tuple[ElasticityKind, str]] = []
    if reply.finish_reason == "length":
        kinds.append((ElasticityKind.TRUNCATED, "the provider's output limit was reached"))
    elif reply.complete and not reply.text.strip():
        kinds.append((ElasticityKind.TRUNCATED, "the answer is empty"))
    elif reply.complete and reasons and budget is not None and actual < min(policy.collapse_below, budget):
        kinds.append((ElasticityKind.COLLAPSE, f"fewer than {policy.collapse_below} tokens of reasoning"))
    elif reply.complete and budget is not None and actual < budget * policy.underrun_below:
        kinds.append((ElasticityKind.UNDERRUN, ""))
    if budget is not None and actual > budget * (1 + policy.tolerance):
        kinds.append((ElasticityKind.OVERRUN, ""))
    cheaper = _cheapest_above(curve, budget) if curve else None
    if reply.complete and cheaper is not None and actual > cheaper.tokens.value * (1 + policy.tolerance):
        usual = f"a budget of {cheaper.budget} usually takes {cheaper.tokens.value:.0f} tokens"
        kinds.append((ElasticityKind.REBOUND, usual))
    if policy.on_slip != "ignore" and reply.complete:
        # Looked for last: it takes longer than all checks above.
        from tale_core.method.arithmetic import find_slips  # noqa: PLC0415  # few policies ask for it

        slips = len(find_slips(reply.text))
        if slips:
            kinds.append((ElasticityKind.SLIP, f"calculations that do not come out: {slips}"))
    return tuple(
        ElasticityEvent(
            question_id=question_id,
            kind=kind,
            budget=budget,
            actual=actual,
            counted=usage.source,
            detail=detail,
        )
        for kind, detail in kinds
    )


def _cheapest_above(curve: Sequence[CalibrationPoint], budget: int | None) -> CalibrationPoint | None:
    """Return what usually takes the fewest tokens of all larger budgets."""
    larger = [
        point for point in curve if budget is not None and point.budget is not None and point.budget > budget
    ]
    return min(larger, key=lambda point: point.tokens.value, default=None)
