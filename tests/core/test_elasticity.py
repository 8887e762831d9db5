"""What one answer shows about its budget."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale_core import BudgetPolicy, ElasticityEvent, ElasticityKind, ModelReply, Usage, observe

POLICY = BudgetPolicy(tolerance=0.5, underrun_below=0.25, collapse_below=10)


def shown(
    tokens: int,
    budget: int | None,
    *,
    text: str = "some text",
    finish_reason: str = "stop",
    reasons: bool = True,
    policy: BudgetPolicy = POLICY,
) -> list[str]:
    reply = ModelReply(text=text, finish_reason=finish_reason)
    usage = Usage(output_tokens=tokens)
    return [str(event.kind) for event in observe(reply, usage, budget=budget, policy=policy, reasons=reasons)]


@pytest.mark.parametrize(
    ("tokens", "budget", "kinds"),
    [
        (100, 100, []),
        (150, 100, []),  # on the edge of the tolerance
        (151, 100, ["overrun"]),
        (25, 100, []),
        (24, 100, ["underrun"]),
        (10, 100, ["underrun"]),
        (9, 100, ["collapse"]),  # a bare answer, not a thrifty one
        (1, 100, ["collapse"]),
        (5, 5, []),  # as long as it was asked to be
        (4, 5, ["collapse"]),
        (1000, None, []),
        (1, None, []),
    ],
)
def test_the_length_of_an_answer_is_judged_against_its_budget(
    tokens: int, budget: int | None, kinds: list[str]
) -> None:
    assert shown(tokens, budget) == kinds


def test_a_short_answer_is_no_collapse_where_no_reasoning_was_asked_for() -> None:
    assert shown(5, 100, reasons=False) == ["underrun"]


def test_collapse_can_be_turned_off() -> None:
    assert shown(5, 100, policy=BudgetPolicy(collapse_below=0)) == ["underrun"]


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_answer_is_truncated_whatever_it_cost(text: str) -> None:
    assert shown(0, 100, text=text) == ["truncated"]
    assert shown(0, None, text=text) == ["truncated"]
    assert shown(200, 100, text=text) == ["truncated", "overrun"]  # all of it spent thinking


def test_a_cut_answer_is_truncated_and_may_have_overrun() -> None:
    assert shown(100, 100, finish_reason="length") == ["truncated"]
    assert shown(400, 100, finish_reason="length") == ["truncated", "overrun"]
    assert shown(400, None, finish_reason="length") == ["truncated"]


@pytest.mark.parametrize("finish_reason", ["tool_calls", "closed"])
@pytest.mark.parametrize("text", ["", "some text"])
def test_an_unfinished_answer_can_only_have_overrun(finish_reason: str, text: str) -> None:
    assert shown(1, 100, text=text, finish_reason=finish_reason) == []
    assert shown(400, 100, text=text, finish_reason=finish_reason) == ["overrun"]


def test_an_event_says_whose_it_is_what_was_counted_and_by_whom() -> None:
    reply = ModelReply(text="long", finish_reason="stop")
    usage = Usage(output_tokens=400, source="estimated")
    (event,) = observe(reply, usage, budget=100, policy=POLICY, question_id="run-1")
    assert event == ElasticityEvent(
        question_id="run-1", kind=ElasticityKind.OVERRUN, budget=100, actual=400, counted="estimated"
    )


ANSWERS = st.fixed_dictionaries(
    {
        "tokens": st.integers(0, 10**9),
        "budget": st.none() | st.integers(1, 10**9),
        "text": st.sampled_from(["", "x"]),
        "finish_reason": st.sampled_from([None, "stop", "length", "tool_calls", "content_filter", "closed"]),
        "reasons": st.booleans(),
        "policy": st.builds(BudgetPolicy, tolerance=st.floats(0, 100), collapse_below=st.integers(0, 100)),
    }
)


@given(ANSWERS)
def test_no_answer_is_at_once_too_long_and_too_short(answer: dict[str, Any]) -> None:
    kinds = shown(**answer)
    assert len(kinds) == len(set(kinds)) <= 2
    assert not ("overrun" in kinds and {"underrun", "collapse"} & set(kinds))
    assert answer["budget"] is not None or set(kinds) <= {"truncated"}
