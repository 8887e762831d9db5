"""What single answers show against a model's measured curve, and what the policy does about it."""

from __future__ import annotations

import pytest

from tale_core import (
    BudgetPolicy,
    Calibration,
    CollapsedAnswerError,
    ElasticityKind,
    ModelReply,
    TaleMethod,
    Usage,
    observe,
    run,
)
from tale_core.method.calibration import CalibrationPoint, Measured
from tale_core.testing import ScriptedModel


def point(budget: int | None, tokens: float) -> CalibrationPoint:
    return CalibrationPoint(
        budget=budget,
        tokens=Measured(value=tokens, low=tokens, high=tokens),
        accuracy=Measured(value=1, low=1, high=1),
    )


CURVE = (point(None, 258), point(10, 157), point(50, 86), point(200, 190))


def answer(tokens: int, text: str = "so 7") -> ModelReply:
    return ModelReply(text=text, usage=Usage(output_tokens=tokens), finish_reason="stop")


def kinds(tokens: int, budget: int | None, **options: object) -> set[ElasticityKind]:
    reply = answer(tokens)
    assert reply.usage is not None
    events = observe(reply, reply.usage, budget=budget, policy=BudgetPolicy(), **options)  # type: ignore[arg-type]
    return {event.kind for event in events}


def test_an_answer_that_costs_more_than_a_larger_budget_would_is_a_rebound() -> None:
    assert ElasticityKind.REBOUND in kinds(157, 10, curve=CURVE)
    assert ElasticityKind.REBOUND not in kinds(120, 10, curve=CURVE), "within the tolerance of 86"


def test_nothing_is_a_rebound_at_the_largest_budget_without_a_budget_or_without_a_curve() -> None:
    assert ElasticityKind.REBOUND not in kinds(900, 200, curve=CURVE)
    assert ElasticityKind.REBOUND not in kinds(900, None, curve=CURVE)
    assert ElasticityKind.REBOUND not in kinds(900, 10)


def test_a_rebound_says_which_budget_would_have_been_cheaper() -> None:
    calibration = Calibration(model="m", strategy="tale", budget=20, curve=CURVE)
    found = run(TaleMethod(calibration=calibration).begin("3 + 4?").answer(), ScriptedModel(reason=answer(300)))
    rebound = next(event for event in found.events if event.kind is ElasticityKind.REBOUND)
    assert (rebound.budget, rebound.actual) == (20, 300)
    assert rebound.detail == "a budget of 50 usually takes 86 tokens"


def test_a_collapse_is_recorded_and_the_answer_kept_by_default() -> None:
    found = run(TaleMethod(estimator=50).begin("3 + 4?").answer(), ScriptedModel(reason=answer(2)))
    assert [event.kind for event in found.events] == [ElasticityKind.COLLAPSE]


def test_a_collapse_can_be_asked_again_without_a_budget_and_only_so_often() -> None:
    model = ScriptedModel(answer(2), answer(300), answer(2))
    method = TaleMethod(estimator=50, policy=BudgetPolicy(on_collapse="retry"))
    found = run(method.begin("3 + 4?").answer(), model)
    assert [call.budget for call in model.calls] == [50, None]
    assert found.reason_usage.output_tokens == 300

    never = TaleMethod(estimator=50, policy=BudgetPolicy(on_collapse="retry", retries=0))
    assert run(never.begin("3 + 4?").answer(), ScriptedModel(answer(2))).reason_usage.output_tokens == 2


def test_a_collapse_can_be_an_error_that_keeps_the_answer() -> None:
    method = TaleMethod(estimator=50, policy=BudgetPolicy(on_collapse="raise"))
    with pytest.raises(
        CollapsedAnswerError, match="2 output tokens with a budget of 50; raise the policy's floor"
    ) as raised:
        run(method.begin("3 + 4?").answer(), ScriptedModel(answer(2, "it is 7")))
    assert raised.value.text == "it is 7"
