"""The reward pays for being right and for tokens saved, and never for a short wrong answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale_core.errors import InvalidValueError
from tale_lab.training import concise_reward, correct_reward, reward

TOKENS, BUDGETS = st.integers(0, 10**6), st.integers(1, 10**5)


@given(tokens=TOKENS, budget=BUDGETS)
def test_a_wrong_answer_earns_nothing_at_any_length(tokens: int, budget: int) -> None:
    assert reward(correct=False, tokens=tokens, budget=budget) == 0


@given(tokens=TOKENS, more=st.integers(1, 10**6), budget=BUDGETS)
def test_every_token_saved_pays(tokens: int, more: int, budget: int) -> None:
    shorter = reward(correct=True, tokens=tokens, budget=budget)
    longer = reward(correct=True, tokens=tokens + more, budget=budget)
    assert 1 < longer < shorter <= 1.5


def test_the_same_length_pays_more_where_the_question_needs_more() -> None:
    assert reward(correct=True, tokens=100, budget=200) > reward(correct=True, tokens=100, budget=20)


@pytest.mark.parametrize(("tokens", "budget"), [(5, 0), (-1, 5)])
def test_counts_that_cannot_be_meant_are_refused(tokens: int, budget: int) -> None:
    with pytest.raises(InvalidValueError, match=f"{budget} and {tokens}"):
        reward(correct=True, tokens=tokens, budget=budget)


def columns(answer: str, count: int, grader: str = "auto") -> dict[str, list[str]]:
    row = {"question": "3 + 4?", "answer": answer, "grader": grader, "meta": "{}"}
    return {name: [value] * count for name, value in row.items()}


def test_trl_may_pass_texts_or_conversations_and_columns_of_its_own() -> None:
    said = ["It is 7", [{"role": "assistant", "content": "Answer: 7"}], "8", ""]
    assert correct_reward(said, **columns("7", 4), prompts=["?"] * 4, trainer_state=None) == [1, 1, 0, 0]


def test_tokens_are_counted_from_the_text_where_no_ids_are_given() -> None:
    short, long = concise_reward(["7", "We add three and four: 7"], budget=[5, 5], **columns("7", 2))
    assert 1 < long < short


def test_a_grader_that_asks_a_model_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="'judge' asks a model"):
        correct_reward(["7"], **columns("7", 1, grader="judge"))


def test_a_task_of_reasoning_gym_is_graded_by_its_own_scorer() -> None:
    import json

    import reasoning_gym

    entry = reasoning_gym.create_dataset("basic_arithmetic", size=1, seed=3)[0]
    meta = json.dumps({"task": "basic_arithmetic", "metadata": entry["metadata"]}, default=str)
    known = {"question": entry["question"], "answer": entry["answer"], "grader": "gym", "meta": meta}
    said = [f"Answer: {entry['answer']}", "Answer: 123456789"]
    assert correct_reward(said, **{name: [value] * 2 for name, value in known.items()}) == [1, 0]
