"""Whatever an estimator writes is read as a budget of at least 1, or as no budget."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from growth import LINEAR, growth
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tale_core import BudgetPolicy, ElasticityKind, parse_budget
from tale_core.parsing import strip_thinking
from tale_core.types import Estimate

# Surrogates included: a model's bytes may have been decoded leniently.
ANY_TEXT = st.text(st.characters())
# Text made of what the parser looks at, where its mistakes would be.
PIECES = (
    "[[ ]] [ 【【 】】 - − – . , ' 0 1 9 200 000 １ ٣ ½ k K e e+ 1e9 e-99999 : = budget tokens token "
    "预算 个 令牌 <think> </think> </reasoning>"
)
NEAR_MISSES = st.lists(st.sampled_from([*PIECES.split(), " ", "\n", "output "]), max_size=24).map("".join)


@pytest.mark.parametrize(
    ("reply", "budget"),
    [
        ("[[12]]", 12),
        ("[[ 12 ]]", 12),
        ("[[1,200]]", 1200),
        ("Budget: [[80 tokens]]", 80),
        ("about 60 tokens", 60),
        ("[[99999999999]]", 99_999_999_999),
        ("9" * 30, 10**18),  # far beyond any ceiling, the exact value no longer matters
        ("[[１２０]]", 120),
        ("[[٣٠]]", 30),
        ("【【80】】", 80),
        ("［［80］］", 80),
        ("预算：80", 80),
        ("共3步，大约需要50个token", 50),
        ("<think>3 + 4 needs [[5]] or so</think>\nBudget: [[40]]", 40),
        ("<THINK>[[5]]</THINK> [[40]]", 40),
        ("<reasoning>[[5]]</reasoning> [[40]]", 40),
        ("[[5]] seems low.</think>So about 40 tokens", 40),
        ("[[10]] ... no, [[25]]", 25),
        ("I need 3 steps and 50 tokens.", 50),
        ("3 items, so tokens needed: 50", 50),
        ("50 tokens: 3 items", 50),
        ("a 50-token answer in 3 steps", 50),
        ("The budget for 3 steps is [[50] tokens", 50),
        ("Budget: **50**, in 3 steps", 50),
        ("3 steps, **50** tokens", 50),
        ("The answer is 50", 50),
        ("[[12.5]]", 13),
        ("[[0.5]]", 1),
        ("[[1.2k]]", 1200),
        ("[[10^3]]", 1000),
        ("[[0^0]]", 1),
        ("[[0^2]]", None),
        ("Budget: [[2 ** 7]]", 128),
        ("[[2 K]]", 2000),
        ("50 km", 50),
        ("[[1e9]]", 10**9),
        ("[[1.5E+3]]", 1500),
        ("[[5e-1]]", 1),
        ("[[1e−1]]", 1),
        ("about 2e2 tokens", 200),
        ("[[1e99999]]", 10**18),
        ("[[1e2 to 2e2]]", 200),
        ("[[1e9x]]", 9),  # no number that anybody writes
        ("[[1.200]]", 1200),
        ("[[0.500]]", 1),
        ("[[1'200]]", 1200),
        ("[[1 200]]", 1200),
        ("[[1\u202f200]]", 1200),
        ("[[1,200.5]]", 1201),
        ("We need 1,200.", 1200),
        ("[[10-20]]", 20),
        ("50 to 60 tokens", 60),
        ("50–60 tokens", 60),
        ("50 – 60 tokens", 60),
        ("\\boxed{50}", 50),
        ("[[budget]] is 50", 50),
        ("[[about 50]]", 50),
    ],
)
def test_a_budget_is_read_however_it_is_written(reply: str, budget: int) -> None:
    assert parse_budget(reply) == budget


@pytest.mark.parametrize(
    "reply",
    [
        "[[-5]]",
        "[[−5]]",
        "[[–5]]",
        "[[－5]]",
        "-5 tokens",
        "[[0]]",
        "[[0.0]]",
        "[[0e9]]",
        "[[-1e9]]",
        "[[000]]",
        "",
        " \n ",
        "I cannot say.",
        "[[fifty]]",
        "[[budget]]",
        "5 or 6",
        "<think>about 40 tokens",
        "<think>[[40]]</think>",
        "[[40]]</think>",
    ],
)
def test_a_reply_without_a_usable_number_is_no_budget(reply: str) -> None:
    assert parse_budget(reply) is None


@settings(deadline=None, max_examples=300)
@given(ANY_TEXT | NEAR_MISSES)
@example("9" * 10_000)
@example("[[" + "9" * 10_000 + "]]")
@example("0." + "0" * 10_000 + "1")
@example("1" + ",000" * 3_000)
@example("[[1.2.3.4k]]")
@example("[[1e" + "9" * 10_000 + "]]")
@example("[[1e-" + "9" * 10_000 + "]]")
@example("[[" + "9" * 10_000 + "e9]]")
def test_no_text_at_all_leads_to_a_budget_below_one_or_to_an_exception(reply: str) -> None:
    budget = parse_budget(reply)
    assert budget is None or (type(budget) is int and budget >= 1)


# Well-formed replies: the number written is the number read.

WRITTEN = st.integers(1, 10**15).flatmap(
    lambda number: st.sampled_from(
        [
            (str(number), number),
            (f"{number:,}", number),
            (f"{number:_}", number),
            (f"{number:,}".replace(",", " "), number),
            (f"{number:,}".replace(",", "."), number),
            (str(number).translate({ord(str(digit)): 0xFF10 + digit for digit in range(10)}), number),
            (f"{number}k", number * 1000),
            (f"{number}e3", number * 1000),
            (f"{Decimal(number):.20E}", number),
        ]
    )
)
LABELS = [
    "[[{}]]",
    "[[ {} ]]",
    "Budget: [[{}]]",
    "[[budget: {}]]",
    "[[{} tokens]]",
    "Budget: {}",
    "预算：{}",
    "about {} tokens",
    "Tokens needed: {}",
    "{}",
    "**{}**",
]


@settings(deadline=None, max_examples=200)
@given(WRITTEN, st.sampled_from(LABELS))
def test_the_number_written_is_the_number_read(written: tuple[str, int], label: str) -> None:
    text, number = written
    assert parse_budget(label.format(text)) == number


@settings(deadline=None)
@given(WRITTEN, st.sampled_from(LABELS[:5]), st.text(st.sampled_from("abc 3457.,\n步"), max_size=30))
def test_brackets_win_over_any_other_number(written: tuple[str, int], label: str, around: str) -> None:
    text, number = written
    assert parse_budget(f"{around} {label.format(text)} {around}") == number


@settings(deadline=None)
@given(WRITTEN, st.sampled_from(LABELS), st.text(st.sampled_from("abc [[12]] 34 budget: 5\n"), max_size=60))
def test_numbers_inside_a_thinking_block_do_not_count(
    written: tuple[str, int], label: str, thought: str
) -> None:
    text, number = written
    assert parse_budget(f"<think>{thought}</think>\n{label.format(text)}") == number
    assert parse_budget(f"{thought}</think>\n{label.format(text)}") == number


@settings(deadline=None)
@given(st.decimals(min_value=Decimal("0.01"), max_value=10**6, places=2))
def test_decimals_are_rounded_up(number: Decimal) -> None:
    assert parse_budget(f"[[{number}]]") == parse_budget(f"[[{number:e}]]") == math.ceil(number)


@settings(deadline=None)
@given(st.integers(1, 9999), st.integers(-30, 30))
def test_a_number_with_an_exponent_is_never_read_as_a_small_budget_when_it_is_large(
    digits: int, exponent: int
) -> None:
    tokens = parse_budget(f"[[{digits}e{exponent}]]")
    assert tokens is not None
    assert tokens == math.ceil(digits * Decimal(10) ** exponent) or tokens >= 10**18
    budget, event = BudgetPolicy().decide(Estimate(tokens=tokens, source="zero-shot"))
    assert budget.tokens == min(max(tokens, 16), 4096)
    assert (event is ElasticityKind.CLAMPED) == (not 16 <= tokens <= 4096)


@pytest.mark.parametrize(
    "hostile",
    ["[", "1", "1 ", "1,000", "budget ", "tokens:", "<think>", "</think>", "[[1", "-", " ", "1.1", "1e1", "1e"],
)
def test_a_hostile_reply_is_read_in_linear_time(hostile: str) -> None:
    assert growth(lambda times: parse_budget(hostile * times), 8_000 // len(hostile)) < LINEAR


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("<think>a</think>b", "b"),
        ("<think>a</think>b<think>c</think>d", "b d"),
        ("b<think>a", "b"),
        ("a</think>b", "b"),
        ("no block", "no block"),
        ("1 < 2 and <b>bold</b>", "1 < 2 and <b>bold</b>"),
    ],
)
def test_thinking_blocks_are_taken_out_and_nothing_else(text: str, visible: str) -> None:
    assert " ".join(strip_thinking(text).split()) == visible
