"""Slips of arithmetic: what is seen, and above all what is passed over."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from growth import LINEAR, growth
from hypothesis import given
from hypothesis import strategies as st

from tale_core.method.arithmetic import find_slips


@pytest.mark.parametrize(
    ("text", "put_right"),
    [
        ("He has 3 + 9 + 16 = 38 in all.", "3 + 9 + 16 = 28"),
        ("$726 + $72.6 = $808.6", "726 + 72.6 = 798.6"),
        ("60 dogs + 120 cats + 68 rabbits = 258 pets", "60 + 120 + 68 = 248"),
        ("26 weeks x 1.75 feet/week = 45.25 feet", "26 * 1.75 = 45.5"),
        ("5x3 = 16", "5 * 3 = 15"),
        ("12 × 4 = 47", "12 * 4 = 48"),
        ("24 ÷ 6 − 1 = 4", "24 / 6 - 1 = 3"),
        (r"\( 3 \times 5 = 16 \)", "3 * 5 = 15"),
        (r"\[ \frac{3}{4} \times 8 \text{ apples} = 7 \]", "(3) / (4) * 8 = 6"),
        (r"\$3 \cdot 2 = \$7", "3 * 2 = 6"),
        ("1,200 + 300 = 1,600", "1,200 + 300 = 1500"),
        ("10% of 50 = 6", "10% * 50 = 5"),
        ("3/4 of 40 = 31", "3 / 4 * 40 = 30"),
        ("600 * 1.331 = 802.60", "600 * 1.331 = 798.6"),
        ("(57 + 69) / 2 = 123", "(57 + 69) / 2 = 63"),
        ("They need more (3 * 2 = 7).", "3 * 2 = 6"),
        ("**4 + 4 = 9**", "4 + 4 = 8"),
        ("- 5 + 3 = 9", "5 + 3 = 8"),
        ("1. 5 + 3 = 9", "5 + 3 = 8"),
        ("5 - 7 = 2", "5 - 7 = -2"),
        ("x = 4 + 3 = 8", "4 + 3 = 7"),
        ("4 * 3 = 12 + 5 = 18", "12 + 5 = 17"),
        ("100 / 7 = 16", "100 / 7 = 14.2857"),
        ("28 = 3 + 4 = 8", "3 + 4 = 7"),
        (f"{'9' * 400} * {'9' * 400} = 3", f"{'9' * 400} * {'9' * 400} = 1{'0' * 800}"),
    ],
)
def test_a_calculation_that_does_not_come_out_is_put_right(text: str, put_right: str) -> None:
    assert [slip.put_right() for slip in find_slips(text)] == [put_right]


@pytest.mark.parametrize(
    "text",
    [
        "3 + 9 + 16 = 28",
        "no calculation = none",
        "",
        "100 / 7 = 14",  # rounded down, up, or to decimals
        "100 / 7 = 15",
        "100 / 7 = 14.3",
        "100 / 7 = 14.28",
        "0.3333 * 2 = 0.6667",
        "0.1 + 0.2 = 0.30000000000000004",
        "5.8333333 + 0.5 = 6.333333300000001",
        "7 * 8 = 56.00",
        "1/3 + 1/3 = 2/3",
        "2 + 3 = 10 / 2",
        "4 * 3 = 12 + 5 = 17",
        "9 / 2 = 4 1/2",
        "5 + 3 * 2 = 16",  # counted in the order of writing
        "5 + 3 * 2 = 11",
        "5 / 20 = 25%",
        "20/100 * 100% = 20%",
        "100% - 20% = 80%",
        "50 - 10% = 45",  # of what?
        "50 + 10% = 55",
        "5 hours + 50 minutes = 5.83 hours",
        "2 dozen + 6 eggs = 30",
        "$3 + 50 cents = $3.50",
        "50 cents * 4 = $2.00",
        "30 minutes * 4 = 2 hours",
        "2L + 8 = 22",  # variables
        "10 + 5x = 30",
        "x + 3 + 4 = 10",
        "3(x) + 4 + 5 = 10",
        "2x + 15 - 5 = 2x + 10 = 110",
        "f(3 + 4) = 8",
        "2^3 + 1 = 9",
        "2**3 + 1 = 9",
        "1 + 2^3 = 9",
        "3 * 4 = 12x",
        "half of 30 + 2 = 17",
        "twice 3 + 4 = 10",
        "10:30 + 2 = 12:30",
        "5 - 7 = -2",
        "3 + 4) * 2 = 9",
        "3/4 of the 40 = 31",
        "7 / 0 = 7",
        "1,23 + 4 = 6",
        "3 + 4 >= 8",
        "3 + 4 == 8",
        "3 + 4 = ?",
        "1 1/2 + 1 = 2",
    ],
)
def test_what_comes_out_or_is_doubtful_is_no_slip(text: str) -> None:
    assert find_slips(text) == ()


def test_every_slip_of_an_answer_is_told_once_in_its_order() -> None:
    answer = "First 12 * 2.74 = 33.28.\nThen 9 * 1.87 = 17.03.\nAgain: 12 * 2.74 = 33.28\nTotal: 1 + 1 = 2"
    assert [(slip.stated, slip.value) for slip in find_slips(answer)] == [
        ("33.28", Fraction("32.88")),
        ("17.03", Fraction("16.83")),
    ]


NUMBERS = st.decimals(min_value=0, max_value=10**6, places=2) | st.integers(0, 10**6)
SUMS = st.lists(NUMBERS, min_size=2, max_size=4)


@given(SUMS, st.sampled_from("+-*"), st.sampled_from(["", " apples", " x of them"]))
def test_what_is_right_is_never_a_slip_and_a_wrong_value_always_is(
    numbers: list[Any], sign: str, unit: str
) -> None:
    total = Fraction(str(numbers[0]))
    for number in numbers[1:]:
        value = Fraction(str(number))
        total = total + value if sign == "+" else total - value if sign == "-" else total * value
    left = f" {sign} ".join(map(str, numbers))
    places = 2 * len(numbers)  # enough for the product of all
    whole, part = divmod(abs(int(total * 10**places)), 10**places)
    minus = "-" if total < 0 else ""
    assert find_slips(f"So {left} = {minus}{whole}.{part:0{places}}{unit}.") == ()
    slips = find_slips(f"So {left} = {minus}{whole + 1}.{part:0{places}}{unit}.")
    assert [slip.value for slip in slips] == [total]
    assert find_slips(slips[0].put_right()) == ()


@given(st.text(st.sampled_from("0123456789.,+-*/x=()%$ abof\n\\{}"), max_size=60))
def test_no_text_makes_it_fail(text: str) -> None:
    find_slips(text)


@pytest.mark.parametrize(
    ("before", "hostile", "most", "after"),
    [
        ("", "1", 50_000, " = 2"),
        ("", "9", 50_000, " + 1 = 2"),
        ("", "1 + ", 5_000, "1 = 3"),
        ("", "1 a b c ", 2_500, "= 3"),
        ("", "(", 10_000, "1 + 1 = 3"),
        ("", "1 + 1 = ", 800, "2"),
        ("", "1,111", 20_000, " + 1 = 2"),
        ("3 + ", "4 ", 8_000, "= 5"),
    ],
)
def test_a_hostile_text_is_checked_in_linear_time(before: str, hostile: str, most: int, after: str) -> None:
    assert growth(lambda times: find_slips(before + hostile * times + after), most) < LINEAR
