"""Model text to budget."""

from __future__ import annotations

import math
import re
import unicodedata

_THINKING = re.compile(r"<(think|thinking|reasoning)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_BRACKETS = re.compile(r"[\[【]{2}(.*?)[\]】]{2}", re.DOTALL)

# A sign only counts as one when no digit stands before it: "10-20" is a range. Thousands may be grouped by
# commas, apostrophes, underscores or single spaces (NFKC has already turned narrow spaces into plain ones).
_NUMBER = (
    r"(?P<sign>(?<!\d)[-−])?"
    r"(?P<digits>\d{1,3}(?:[,'’_ ]\d{3})+(?!\d)|\d+)"
    r"(?P<fraction>\.\d+)?"
    r"(?P<kilo>\s?[kK]\b)?"
)
_ANY_NUMBER = re.compile(_NUMBER)
_LABELLED = re.compile(
    rf"(?:budget|预算|預算)\D{{0,12}}?{_NUMBER}"
    rf"|{_NUMBER.replace('?P<', '?P<u_')}\s*(?:output\s+)?(?:tokens?\b|个?令牌|個?權杖)",
    re.IGNORECASE,
)
_MOST_DIGITS = 18


def strip_thinking(text: str) -> str:
    """Return the text without thinking blocks, closed or cut off."""
    return _THINKING.sub(" ", text)


def parse_budget(text: str) -> int | None:
    """Read a token budget from an estimator's reply.

    A number in double brackets, the published format, wins; without brackets a number that is called a budget
    or counted in tokens; without either the only number there is. Of several of the same kind the last one
    counts, since models correct themselves. Thousands separators, full-width digits, decimals (rounded up),
    ``1.2k``, ranges (their upper end) and thinking blocks are understood.

    Args:
        text: The model's reply; any text at all.

    Returns:
        A budget of at least 1 output token, or None when the reply holds no usable number. Bounds beyond that
        are the policy's business.
    """
    plain = unicodedata.normalize("NFKC", strip_thinking(text))
    for inside in reversed(_BRACKETS.findall(plain)):
        numbers = list(_ANY_NUMBER.finditer(inside))
        if numbers:
            return _tokens(numbers[-1])
    labelled = list(_LABELLED.finditer(plain))
    if labelled:
        match = labelled[-1]
        return _tokens(match, prefix="" if match["digits"] else "u_")
    numbers = list(_ANY_NUMBER.finditer(plain))
    return _tokens(numbers[0]) if len(numbers) == 1 else None


def _tokens(match: re.Match[str], *, prefix: str = "") -> int | None:
    sign, digits, fraction, kilo = (match[prefix + part] for part in ("sign", "digits", "fraction", "kilo"))
    digits = "".join(re.findall(r"\d", digits))
    if sign:
        return None
    # Beyond this many digits the value no longer matters and Python may refuse the conversion.
    whole = int(digits) if len(digits) <= _MOST_DIGITS else 10**_MOST_DIGITS
    value = whole + (float("0" + fraction) if fraction and len(fraction) <= _MOST_DIGITS else 0)
    tokens = math.ceil(value * 1000 if kilo else value)
    return tokens if tokens >= 1 else None
