"""Model text to budget."""

from __future__ import annotations

import collections
import itertools
import math
import re
import unicodedata
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_THINKING = re.compile(r"<(think|thinking|reasoning)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
# Where the chat template opens the block itself, the reply only holds its end.
_THINKING_END = re.compile(r"\A.*</(?:think|thinking|reasoning)>", re.DOTALL | re.IGNORECASE)
_BRACKETS = re.compile(r"[\[【]{2}([^\[\]【】]*)[\]】]{2}")

_NUMBER = re.compile(
    r"""
    (?P<sign> (?<!\d) [-‐−–] )?              # "10-20" is a range, not a negative number
    (?<! \d)
    (?:
        (?P<base> \d+ ) \s? (?: \^ | \*\* ) \s? (?P<power> \d+ ) (?! \w )             # 10^3
        |
        (?P<mantissa> \d+ (?: \.\d+ )? ) [eE] (?P<exponent> [-+−]? \d+ ) (?! \w )      # 1.2e3
        |
        (?P<digits>
            (?!0) \d{1,3} (?P<comma> [,.'’_ ] ) \d{3} (?: (?P=comma) \d{3} )* (?! \d )    # 1,200 or 1.200
            | \d+
        )
        (?P<fraction> \.\d+ )?
        (?P<kilo> \s? [kK] \b )?
    )
    """,
    re.VERBOSE,
)
_LABEL_BEFORE = re.compile(
    r"(?: (?:budget|预算|預算) \D{0,12} | (?<!\d)(?<!\d\s) tokens?\b \D{0,12} [:=] \W{0,4} ) \Z",
    re.IGNORECASE | re.VERBOSE,
)
_LABEL_AFTER = re.compile(
    r"[\s\]】)*-]{0,24}(?:output\s{1,8})?[个個]?\s{0,8}(?:tokens?(?![a-z])|令牌|權杖)", re.IGNORECASE
)
_LONGEST_LABEL = 24
_MOST_DIGITS = 18
# Beyond this the value no longer matters, and Python may refuse the conversion.
_HUGE = Decimal(10) ** _MOST_DIGITS
_KILO = 1000


def strip_thinking(text: str) -> str:
    """Return the text without thinking blocks, closed, cut off, or opened by the chat template."""
    return _THINKING_END.sub(" ", _THINKING.sub(" ", text)) if "<" in text else text


def parse_budget(text: str) -> int | None:
    """Read a token budget from an estimator's reply.

    A number in double brackets, the published format, wins; without brackets a number that is called a budget
    or counted in tokens; without either the only number there is. Of several of the same kind the last one
    counts, since models correct themselves. Thousands separators, full-width digits, decimals (rounded up),
    ``1.2k``, ``1.2e3``, ``10^3``, ranges (their upper end) and thinking blocks are understood.

    Args:
        text: The model's reply; any text at all.

    Returns:
        A budget of at least 1 output token, or None when the reply holds no usable number. Bounds beyond that
        are the policy's business.
    """
    plain = unicodedata.normalize("NFKC", strip_thinking(text))
    for inside in reversed(_BRACKETS.findall(plain)):
        number = next(_last(_NUMBER.finditer(inside)), None)
        if number is not None:
            return _tokens(number)
    numbers = list(itertools.islice(_NUMBER.finditer(plain), 2))
    labelled = next(_last(number for number in _NUMBER.finditer(plain) if _is_labelled(number)), None)
    if labelled is not None:
        return _tokens(labelled)
    return _tokens(numbers[0]) if len(numbers) == 1 else None


def _last(numbers: Iterable[re.Match[str]]) -> Iterator[re.Match[str]]:
    """Yield the last of many, which are not kept."""
    yield from collections.deque(numbers, maxlen=1)


def _is_labelled(number: re.Match[str]) -> bool:
    """Return whether the words around a number call it a budget or tokens."""
    start, end = number.span()
    before = number.string[max(0, start - _LONGEST_LABEL) : start]
    return bool(_LABEL_BEFORE.search(before) or _LABEL_AFTER.match(number.string, end))


def _tokens(number: re.Match[str]) -> int | None:
    return None if number["sign"] else math.ceil(_value(number)) or None  # 0 is no budget


def _value(number: re.Match[str]) -> Decimal:
    if number["base"]:
        times = int(min(Decimal(number["power"]), Decimal(_MOST_DIGITS)))
        # Decimal calls 0^0 undefined.
        return min(_HUGE, min(_HUGE, Decimal(number["base"])) ** times) if times else Decimal(1)
    if number["mantissa"]:
        power = Decimal(number["exponent"].replace("−", "-"))
        shift = int(max(Decimal(-_MOST_DIGITS), min(power, Decimal(_MOST_DIGITS))))
        return min(_HUGE, min(_HUGE, Decimal(number["mantissa"])) * Decimal(10) ** shift)
    digits = "".join(character for character in number["digits"] if character.isdigit())
    if len(digits) > _MOST_DIGITS:
        return _HUGE
    value = Decimal(digits + (number["fraction"] or ""))
    return value * _KILO if number["kilo"] else value
