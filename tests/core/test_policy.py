"""A policy turns any estimate into a budget that can be asked for, or into its fallback."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tale_core import BudgetPolicy, ElasticityKind, Estimate, InvalidValueError

ESTIMATES = st.builds(
    Estimate, tokens=st.none() | st.integers(1, 10**30), source=st.just("any"), exact=st.booleans()
)


@st.composite
def policies(draw: st.DrawFn) -> BudgetPolicy:
    floor = draw(st.integers(1, 10**6))
    return BudgetPolicy(
        floor=floor,
        ceiling=draw(st.integers(floor, 10**7)),
        multiplier=draw(st.floats(1e-300, 1e300)),
        fallback=draw(st.none() | st.integers(1, 10**6)),
    )


def guess(tokens: int | None) -> Estimate:
    return Estimate(tokens=tokens, source="zero-shot")


@settings(deadline=None)
@given(policies(), ESTIMATES)
def test_no_estimate_leads_to_a_budget_below_one_or_outside_the_bounds(
    policy: BudgetPolicy, estimate: Estimate
) -> None:
    budget, kind = policy.decide(estimate)
    assert budget.estimate == estimate.tokens
    if estimate.tokens is None:
        assert (budget.tokens, budget.source, kind) == (
            policy.fallback,
            "fallback",
            ElasticityKind.UNPARSABLE,
        )
    elif estimate.exact:
        assert (budget.tokens, kind) == (estimate.tokens, None)
    else:
        assert budget.tokens is not None
        assert policy.floor <= budget.tokens <= policy.ceiling


@settings(deadline=None)
@given(policies(), st.integers(1, 10**9), st.integers(1, 100))
def test_an_estimate_is_called_clamped_exactly_when_a_bound_changed_it(
    policy: BudgetPolicy, tokens: int, multiplier: int
) -> None:
    policy = policy.model_copy(update={"multiplier": float(multiplier)})
    budget, kind = policy.decide(guess(tokens))
    wanted = tokens * multiplier
    if policy.floor <= wanted <= policy.ceiling:
        assert (budget.tokens, kind) == (wanted, None)
    else:
        assert kind is ElasticityKind.CLAMPED
        assert budget.tokens == (policy.floor if wanted < policy.floor else policy.ceiling)


@pytest.mark.parametrize(
    ("tokens", "budget", "kind"),
    [
        (1, 16, "clamped"),
        (15, 16, "clamped"),
        (16, 16, None),
        (4096, 4096, None),
        (4097, 4096, "clamped"),
        (10**30, 4096, "clamped"),
    ],
)
def test_the_bounds_belong_to_the_allowed_range(tokens: int, budget: int, kind: str | None) -> None:
    decided, event = BudgetPolicy().decide(guess(tokens))
    assert decided.tokens == budget
    assert event == kind


def test_the_multiplier_is_taken_as_it_is_written() -> None:
    decided, _ = BudgetPolicy(floor=1, multiplier=1.1).decide(guess(10))
    assert decided.tokens == 11  # in binary floats 10 x 1.1 is more than 11


def test_a_calibrated_estimate_is_bounded_but_not_multiplied() -> None:
    policy = BudgetPolicy(floor=20, ceiling=50, multiplier=2)
    budgets = [
        policy.decide(Estimate(tokens=tokens, source="learned", calibrated=True))[0].tokens
        for tokens in (10, 30, 60)
    ]
    assert budgets == [20, 30, 50]


def test_a_fallback_budget_is_not_held_to_the_bounds_of_estimates() -> None:
    decided, _ = BudgetPolicy(floor=50, fallback=20).decide(guess(None))
    assert decided.tokens == 20


def test_overrun_collapse_truncation_and_slip_can_ask_for_more_than_a_record() -> None:
    policy = BudgetPolicy(on_overrun="retry", on_collapse="retry", on_truncation="raise", on_slip="retry")
    actions = {kind.value: policy.action(kind) for kind in ElasticityKind}
    assert {kind: action for kind, action in actions.items() if action != "record"} == {
        "overrun": "retry",
        "collapse": "retry",
        "truncated": "raise",
        "slip": "retry",
    }
    assert {BudgetPolicy().action(kind) for kind in ElasticityKind} == {"record"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"floor": 0}, r"BudgetPolicy\.floor: .*greater than or equal to 1, got 0"),
        ({"floor": 100, "ceiling": 50}, "floor 100 is above ceiling 50; lower the floor or raise the ceiling"),
        ({"ceiling": -1}, r"BudgetPolicy\.ceiling: .*got -1"),
        ({"fallback": 0}, r"BudgetPolicy\.fallback: .*got 0"),
        ({"multiplier": 0}, r"BudgetPolicy\.multiplier: .*got 0"),
        ({"multiplier": math.inf}, r"BudgetPolicy\.multiplier: .*finite.*got inf"),
        ({"multiplier": math.nan}, r"BudgetPolicy\.multiplier: .*got nan"),
        ({"tolerance": math.inf}, r"BudgetPolicy\.tolerance: .*finite.*got inf"),
        ({"tolerance": -0.1}, r"BudgetPolicy\.tolerance: .*got -0\.1"),
        ({"underrun_below": 1}, r"BudgetPolicy\.underrun_below: .*got 1"),
        ({"retries": 11}, r"BudgetPolicy\.retries: .*got 11"),
        ({"on_overrun": "panic"}, r"BudgetPolicy\.on_overrun: .*'record', 'retry' or 'raise', got 'panic'"),
        ({"celling": 50}, r"BudgetPolicy\.celling: no such field"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_with_its_value(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message):
        BudgetPolicy(**fields)


@pytest.mark.parametrize("field", ["on_overrun", "on_collapse", "on_truncation", "on_slip"])
def test_a_policy_asks_again_only_where_one_of_its_actions_says_so(field: str) -> None:
    assert BudgetPolicy(retries=3).most_retries == 0
    assert BudgetPolicy(retries=3, **{field: "raise"}).most_retries == 0
    assert BudgetPolicy(retries=3, **{field: "retry"}).most_retries == 3


def test_a_policy_survives_json() -> None:
    policy = BudgetPolicy(floor=60, fallback=100, on_truncation="retry")
    assert BudgetPolicy.model_validate_json(policy.model_dump_json()) == policy


def test_values_without_a_name_are_answered_with_how_to_name_them() -> None:
    with pytest.raises(InvalidValueError, match=r"by name, got 30; write BudgetPolicy\(floor=30"):
        BudgetPolicy(30)
