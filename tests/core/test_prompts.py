"""A strategy puts text around a question, never into it, and carries the budget exactly once."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale_core import (
    Exemplar,
    ExemplarStrategy,
    Framing,
    InvalidValueError,
    Message,
    Strategy,
    Template,
    TemplateStrategy,
    UnknownStrategyError,
    get_strategy,
    register_strategy,
    strategy_names,
)
from tale_core.prompts import strategies
from tale_core.prompts.strategies import detect_language

ENGLISH = "A baker bakes 12 loaves an hour. How many in 3 hours?"
CHINESE = "面包师每小时烤12个面包，三小时烤多少个？"
SHIPPED = ("direct", "draft", "essential", "exemplars", "internalised", "steps", "tale", "vanilla", "words")
# Shares no digits with the questions and the shipped texts, in tokens, in words (0.75) and in steps (0.05).
BUDGET = 98_760
AMOUNTS = {"98760", "74070", "4938"}


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test register strategies that are gone afterwards."""
    known = dict(strategies._strategies())
    monkeypatch.setattr(strategies, "_strategies", lambda: known)


def terse(name: str = "terse", **changes: object) -> TemplateStrategy:
    template = Template(budgeted="At most {budget} tokens.", unbudgeted="Be terse.")
    return TemplateStrategy(**{"name": name, "templates": {"en": template}} | changes)


def numbers(text: str) -> list[str]:
    return [number for number in re.findall(r"\d+", text) if number in AMOUNTS]


# every registered strategy


def test_the_shipped_strategies_are_registered() -> None:
    assert set(SHIPPED) <= set(strategy_names())
    assert list(strategy_names()) == sorted(strategy_names())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_strategy_is_found_by_its_name_and_satisfies_the_protocol(name: str) -> None:
    strategy = get_strategy(name)
    assert strategy.name == name
    assert isinstance(strategy, Strategy)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("question", [ENGLISH, CHINESE])
@pytest.mark.parametrize("language", ["auto", "en"])
def test_a_strategy_carries_a_budget_exactly_once_if_it_carries_one(
    name: str, question: str, language: str
) -> None:
    strategy = get_strategy(name)
    budgeted = strategy.frame(question, BUDGET, language=language)
    without = strategy.frame(question, None, language=language)
    assert len(numbers(budgeted.apply(question))) == (1 if strategy.budgeted else 0)
    assert numbers(budgeted.before) == []  # what stands before the question is a prefix that servers cache
    assert numbers(without.apply(question)) == []
    assert strategy.budgeted or budgeted == without
    for framing in (budgeted, without):
        assert "{" not in framing.apply(question)


@pytest.mark.parametrize("language", ["auto", "en", "zh"])
def test_the_internalised_strategy_asks_the_plain_question(language: str) -> None:
    strategy = get_strategy("internalised")
    assert strategy.frame(ENGLISH, 50, language=language).messages(ENGLISH) == (
        Message(role="user", content=ENGLISH),
    )
    assert not strategy.budgeted  # so that no estimator is run
    assert strategy.reasons


@pytest.mark.parametrize("name", strategy_names())
@given(question=st.text(), budget=st.none() | st.integers(1, 10**9))
def test_no_strategy_alters_the_question(name: str, question: str, budget: int | None) -> None:
    framing = get_strategy(name).frame(question, budget)
    assert framing.apply(question) == framing.before + question + framing.after
    assert framing.messages(question)[-1] == Message(role="user", content=framing.apply(question))


@pytest.mark.parametrize("name", ["tale", "essential", "words", "steps"])
@pytest.mark.parametrize("trap", ["Use less than {budget} tokens?", "%s {0} {} {words} {steps}", "{question}"])
def test_a_question_that_looks_like_a_template_is_left_alone(name: str, trap: str) -> None:
    assert get_strategy(name).frame(trap, BUDGET).apply(trap).startswith(trap)


@pytest.mark.parametrize(
    ("name", "language", "sentence"),
    [
        ("tale", "en", "Let's think step by step and use less than 50 tokens:"),
        ("tale", "zh", "让我们一步一步思考并使用少于 50 tokens:"),
        ("vanilla", "en", "Let's think step by step:"),
        ("vanilla", "zh", "让我们一步一步思考:"),
        ("words", "en", "Let's think step by step and use less than 38 words:"),
        ("steps", "en", "Let's think in at most 2 short steps, then give the answer:"),
    ],
)
def test_the_published_sentences_stand_at_the_end_word_for_word(
    name: str, language: str, sentence: str
) -> None:
    framing = get_strategy(name).frame(ENGLISH, 50, language=language)
    assert framing == Framing(after=f"\n\n{sentence}")


def test_direct_speaks_of_the_question_that_follows() -> None:
    sentence = (
        "Please answer the following question and give the answer directly without any reasoning process."
    )
    asked = get_strategy("direct").frame(ENGLISH, None).apply(ENGLISH)
    assert asked == f"{sentence}\n\n{ENGLISH}"


@pytest.mark.parametrize("name", ["tale", "essential", "words", "steps", "exemplars"])
def test_without_a_budget_a_budgeted_strategy_still_asks_for_reasoning(name: str) -> None:
    after = get_strategy(name).frame(ENGLISH, None).after
    assert after.startswith("\n\nLet's think step by step")


def test_a_tiny_budget_is_never_asked_for_as_nothing() -> None:
    assert "less than 1 words" in get_strategy("words").frame(ENGLISH, 1).after
    assert "at most 1 short steps" in get_strategy("steps").frame(ENGLISH, 1).after


# languages


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH, "en"),
        (CHINESE, "zh"),
        ("麵包師每小時烤12個麵包，三小時烤多少個？", "zh"),
        ("用 Python 写一个函数，计算 Fibonacci 数列的第 n 项", "zh"),
        ("请解释 LangChain 和 LlamaIndex 的区别", "zh"),
        ("What does the Chinese word 你好 mean in English?", "en"),
        ("パン屋は1時間に12個のパンを焼きます。3時間で何個ですか？", "en"),
        ("빵집은 시간당 12개의 빵을 굽습니다.", "en"),
        ("Wie viele Brote backt der Bäcker in 3 Stunden?", "en"),
        ("你好 abcdefgh", "zh"),  # one Han character weighs as much as four letters
        ("你好 abcdefghi", "en"),
        ("12 * 3 = ?", "en"),
        ("", "en"),
    ],
)
def test_the_language_follows_the_script_most_of_the_question_is_in(text: str, language: str) -> None:
    assert detect_language(text) == language


def test_a_named_language_wins_over_the_questions_script() -> None:
    tale = get_strategy("tale")
    assert tale.frame(CHINESE, 50).after == tale.frame(ENGLISH, 50, language="zh").after
    assert tale.frame(CHINESE, 50, language="en").after == tale.frame(ENGLISH, 50).after


def test_a_strategy_without_the_questions_language_falls_back_to_english() -> None:
    assert terse().frame(CHINESE, 20).after == "\n\nAt most 20 tokens."


def test_a_language_that_was_named_and_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"no template in language 'fr'; available: en, zh, or 'auto'"):
        get_strategy("tale").frame(ENGLISH, 50, language="fr")


# worked examples


def exemplars(**changes: object) -> ExemplarStrategy:
    levels = {
        length: (Exemplar(question=f"short {length}?", solution=f"solution of {length}"),)
        for length in (200, 25, 75)
    }
    template = Template(budgeted="Less than {budget} tokens:", unbudgeted="Step by step:")
    return ExemplarStrategy(**{"name": "mine", "levels": levels, "template": template} | changes)


@pytest.mark.parametrize(
    ("budget", "level"),
    [(1, 25), (33, 25), (34, 25), (99, 25), (100, 75), (266, 75), (267, 200), (10**9, 200)],
)
def test_the_longest_examples_that_fit_the_budget_are_shown(budget: int, level: int) -> None:
    strategy = exemplars()
    assert strategy.level(budget) == level
    question, solution = strategy.frame(ENGLISH, budget).examples
    assert (question.role, solution.role) == ("user", "assistant")
    assert question.content.startswith(f"short {level}?")
    assert solution.content == f"solution of {level}"


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_larger_budget_never_shows_shorter_examples(one: int, other: int) -> None:
    for strategy in (exemplars(), get_strategy("exemplars")):
        assert strategy.level(min(one, other)) <= strategy.level(max(one, other))


def test_examples_depend_on_the_budget_alone_so_that_servers_can_cache_them() -> None:
    strategy = exemplars()
    assert strategy.frame(ENGLISH, 100).examples == strategy.frame(CHINESE, 100).examples


def test_examples_are_asked_for_as_the_question_is() -> None:
    framing = exemplars().frame(ENGLISH, 100)
    shown, _, asked = framing.messages(ENGLISH)
    assert shown.content.removeprefix("short 75?") == asked.content.removeprefix(ENGLISH)


def test_without_a_budget_no_examples_are_shown() -> None:
    assert exemplars().frame(ENGLISH, None) == Framing(after="\n\nStep by step:")


def test_examples_can_be_written_into_plain_text_before_the_question() -> None:
    framing = exemplars().frame(ENGLISH, 100)
    inline = framing.inline()
    assert inline.examples == ()
    text = inline.apply(ENGLISH)
    positions = [text.index(part) for part in ("short 75?", "solution of 75", ENGLISH)]
    assert positions == sorted(positions)
    assert text.endswith(framing.after)
    assert Framing(after="x").inline() == Framing(after="x")


@pytest.mark.parametrize("levels", [{}, {25: ()}, {0: (Exemplar(question="q", solution="s"),)}])
def test_levels_without_an_example_or_a_length_are_refused(levels: object) -> None:
    with pytest.raises(InvalidValueError, match=r"ExemplarStrategy\.levels"):
        exemplars(levels=levels)


# the registry


@pytest.mark.usefixtures("registry")
def test_a_registered_strategy_is_found_by_name() -> None:
    strategy = register_strategy(terse())
    assert get_strategy("terse") is strategy
    assert "terse" in strategy_names()


@pytest.mark.usefixtures("registry")
def test_a_name_is_taken_over_only_on_purpose() -> None:
    first, second = terse(), terse(measured_on=("a model",))
    register_strategy(first)
    with pytest.raises(InvalidValueError, match="a strategy named 'terse' exists; pass replace=True"):
        register_strategy(second)
    assert get_strategy("terse") is first
    register_strategy(second, replace=True)
    assert get_strategy("terse") is second


def test_a_strategy_object_needs_no_registration() -> None:
    strategy = terse()
    assert get_strategy(strategy) is strategy
    assert "terse" not in strategy_names()


@pytest.mark.parametrize(("name", "hint"), [("tael", "did you mean 'tale'?"), ("Vanila", "'vanilla'?")])
def test_a_misspelled_strategy_is_answered_with_the_nearest_name(name: str, hint: str) -> None:
    with pytest.raises(UnknownStrategyError, match=re.escape(hint)) as caught:
        get_strategy(name)
    assert repr(name) in str(caught.value)


def test_an_unknown_strategy_is_answered_with_all_names_and_the_way_to_add_one() -> None:
    with pytest.raises(
        UnknownStrategyError, match=r"no prompt strategy named 'zzz'; known: direct, .*vanilla"
    ) as caught:
        get_strategy("zzz")
    assert "tale_core.register_strategy" in str(caught.value)


@pytest.mark.parametrize("thing", [None, 5, object()])
def test_what_is_no_strategy_is_refused(thing: object) -> None:
    with pytest.raises(InvalidValueError, match="a strategy has a name, budgeted, reasons and frame"):
        get_strategy(thing)
    with pytest.raises(InvalidValueError, match="a strategy has a name, budgeted, reasons and frame"):
        register_strategy(thing)


# strategies that cannot be meant


def test_a_budgeted_strategy_that_would_drop_the_budget_is_refused() -> None:
    template = Template(budgeted="Be short.", unbudgeted="Be short.")
    with pytest.raises(InvalidValueError, match=r"'Be short\.' \(en\) holds none of \{budget\}, \{words\}"):
        terse(templates={"en": template})
    assert terse(templates={"en": template}, budgeted=False).frame(ENGLISH, 50).after == "\n\nBe short."


def test_a_sentence_without_a_budget_cannot_name_one() -> None:
    with pytest.raises(InvalidValueError, match=r"no budget to put into 'At most \{budget\}'"):
        Template(budgeted="{budget}", unbudgeted="At most {budget}")


def test_a_strategy_needs_english_and_a_name() -> None:
    template = Template(budgeted="{budget}", unbudgeted="")
    with pytest.raises(InvalidValueError, match="needs a template for 'en', got zh"):
        terse(templates={"zh": template})
    with pytest.raises(InvalidValueError, match=r"TemplateStrategy\.name"):
        terse(name="")
