"""Worked examples are taken from what the model itself wrote when it was right and brief."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale_core import Exemplar, InvalidValueError, SearchTrace, Usage
from tale_core.search.budget_search import SearchSettings
from tale_core.search.curves import Probe
from tale_lab.tuning.exemplar_mining import harvest


def probe(tokens: int, *, budget: int | None = 50, correct: bool = True, cut: bool = False) -> Probe:
    return Probe(
        budget=budget,
        usage=Usage(output_tokens=tokens),
        verdict="correct" if correct else "wrong",
        finish_reason="length" if cut else "stop",
        text=f"{tokens} tokens",
    )


def trace(name: str, *probes: Probe) -> SearchTrace:
    return SearchTrace(
        question=name,
        settings=SearchSettings(),
        probes=(probe(300, budget=None), *probes),
        chosen=None,
        ideal=None,
        stopped="rejected",
    )


def test_each_level_shows_answers_of_about_its_length() -> None:
    traces = [trace(f"question {tokens}", probe(tokens)) for tokens in range(20, 140, 10)]
    found = harvest(traces, levels=3, examples=2)
    assert found == {
        35: (
            Exemplar(question="question 30", solution="30 tokens"),
            Exemplar(question="question 40", solution="40 tokens"),
        ),
        75: (
            Exemplar(question="question 70", solution="70 tokens"),
            Exemplar(question="question 80", solution="80 tokens"),
        ),
        115: (
            Exemplar(question="question 110", solution="110 tokens"),
            Exemplar(question="question 120", solution="120 tokens"),
        ),
    }


def test_only_complete_correct_answers_under_a_budget_that_reason_are_shown() -> None:
    good = [trace(f"good {number}", probe(60 + number), probe(90)) for number in range(3)]
    bad = [
        trace("wrong", probe(60, correct=False)),
        trace("cut", probe(60, cut=True)),
        trace("bare", probe(5)),
        trace("without a budget", probe(60, budget=None)),
    ]
    (level,) = harvest([*bad, *good], levels=3, examples=3).values()
    assert [one.question for one in level] == ["good 0", "good 1", "good 2"]
    assert [one.solution for one in level] == ["60 tokens", "61 tokens", "62 tokens"]


def test_too_few_answers_are_counted_in_the_error() -> None:
    with pytest.raises(InvalidValueError, match=r"1 questions have a correct answer .* 5 are needed"):
        harvest([trace("only", probe(60))])
    with pytest.raises(InvalidValueError, match="at least 1, got 0 and 5"):
        harvest([], levels=0)


@given(st.lists(st.integers(15, 400), min_size=4, max_size=60), st.integers(1, 5), st.integers(1, 4))
def test_no_question_is_shown_twice_and_every_level_is_full(
    lengths: list[int], levels: int, examples: int
) -> None:
    found = harvest(
        [trace(f"{number}", probe(tokens)) for number, tokens in enumerate(lengths)],
        levels=levels,
        examples=examples,
    )
    shown = [one.question for level in found.values() for one in level]
    assert 1 <= len(found) <= levels
    assert len(set(shown)) == len(shown)
    assert all(len(level) == examples for level in found.values())
