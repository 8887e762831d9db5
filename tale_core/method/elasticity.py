"""Token elasticity: what one answer shows about its budget (arXiv 2412.18547, section 3.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tale_core.events import ElasticityEvent, ElasticityKind
from tale_core.method.arithmetic import find_slips

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_core.method.calibration import CalibrationPoint
    from tale_core.method.policy import BudgetPolicy
    from tale_core.types import ModelReply, Usage


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
    """Return the events that one answer shows.

    An answer that calls tools or whose stream the caller left is no measure of the budget, except that it may
    have overrun it already.

    Args:
        reply: The answer.
        usage: What it cost.
        budget: The budget that the prompt named, in output tokens; None when it named none.
        policy: The thresholds.
        reasons: Whether the prompt asked for reasoning.
        question_id: Copied into the events.
        curve: What budgets usually take on this model, from its calibration; without one no rebound can be
            told.
    """
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
    slips = len(find_slips(reply.text)) if reply.complete else 0
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
