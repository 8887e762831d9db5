from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale_core import InvalidValueError
from tale_core.context import bm25, fit_context, sentences

QUESTION = "When was Ann born?"
BOB = "Bob sails every day. He is tired."
ANN = "Ann likes tea and old maps. Ann was born in 1990. She has two cats."
YEAR = "The year is 2026. Nobody was born today."


def words(text: str) -> int:
    return len(text.split())


def test_everything_is_kept_while_it_fits() -> None:
    assert fit_context(QUESTION, [BOB, ANN], 1000, count=words) == [(0, BOB), (1, ANN)]


def test_the_most_relevant_texts_are_kept_in_their_order() -> None:
    budget = words(ANN) + words(YEAR)
    assert fit_context(QUESTION, [YEAR, BOB, ANN], budget, count=words) == [(0, YEAR), (2, ANN)]


def test_a_text_that_does_not_fit_is_cut_to_its_relevant_sentences() -> None:
    assert fit_context(QUESTION, [BOB, ANN], 6, count=words) == [(1, "Ann was born in 1990.")]


def test_left_out_sentences_leave_a_mark() -> None:
    text = "Ann was born in 1990. Tea is nice and warm all day long. Ann was born in Rome."
    ((_, fitted),) = fit_context("When and where was Ann born?", [text], 11, count=words)
    assert fitted == "Ann was born in 1990. ... Ann was born in Rome."


def test_nothing_is_kept_where_not_even_a_sentence_fits() -> None:
    assert fit_context(QUESTION, [ANN], 2, count=words) == []


def test_irrelevant_texts_go_first() -> None:
    assert [index for index, _ in fit_context(QUESTION, [BOB, ANN], 15, count=words)] == [1]


def test_without_any_shared_word_the_given_order_counts() -> None:
    assert fit_context("Quand?", [BOB, ANN], 4, count=words) == [(0, "Bob sails every day.")]


def test_no_texts_fit_into_any_budget() -> None:
    assert fit_context(QUESTION, [], 1) == []


def test_another_scorer_takes_the_place_of_bm25() -> None:
    kept = fit_context(
        QUESTION, [BOB, ANN], 7, count=words, scorer=lambda _, texts: [len(texts), *[0] * (len(texts) - 1)]
    )
    assert kept == [(0, BOB)]


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_below_one_is_refused(budget: int) -> None:
    with pytest.raises(InvalidValueError, match=f"at least 1, got {budget}"):
        fit_context(QUESTION, [ANN], budget)


def test_a_scorer_that_forgets_texts_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="returned 0 scores for 2 texts"):
        fit_context(QUESTION, [ANN, BOB], 3, scorer=lambda *_: [])


def test_function_words_do_not_make_a_text_relevant() -> None:
    assert bm25("How old is Ann?", ["It is how it is.", "Ann sails."]) == [0, pytest.approx(1.0, abs=0.5)]
    assert bm25("What is it?", ["It is how it is."]) != [0], "where there is nothing else, they have to do"


def test_rare_words_decide() -> None:
    texts = ["was was was was", "was born", "was it"]
    scores = bm25("was born", texts)
    assert scores.index(max(scores)) == 1
    assert bm25("unheard of", texts) == [0, 0, 0]


def test_chinese_is_compared_without_spaces() -> None:
    first, second = bm25("安娜什么时候出生？", ["鲍勃每天航海。", "安娜出生于1990年。"])
    assert first < second


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("It is 3.5 metres. Yes.", ["It is 3.5 metres.", "Yes."]),
        ("一。二！三", ["一。", "二！", "三"]),
        ("a line\n\nanother", ["a line", "another"]),
        ("", []),
    ],
)
def test_sentences_end_where_readers_see_them_end(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@given(
    question=st.text(max_size=40),
    texts=st.lists(st.text(max_size=80), max_size=6),
    budget=st.integers(min_value=1, max_value=60),
)
def test_the_budget_is_kept_and_the_order_too(question: str, texts: list[str], budget: int) -> None:
    kept = fit_context(question, texts, budget, count=len)
    assert sum(len(text) for _, text in kept) <= budget
    assert [index for index, _ in kept] == sorted({index for index, _ in kept})
