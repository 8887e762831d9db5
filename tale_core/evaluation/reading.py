"""From a model's prose to the answer it gives: the marked answer, the number, the letter.

Nothing here raises: a text that holds no answer reads as None.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from tale_core.parsing import strip_thinking
from tale_core.types import Record

_BRACKETS = re.compile(r"[\[【]{2}(.*?)[\]】]{2}", re.DOTALL)
_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_MARKED = re.compile(r"####\s*(.+)")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_LABEL = re.compile(
    r"\banswer(?:\s+to\b[^.:\n]{0,80}?)?(?:\s+(?:is|was)\b\s*:?|[\s*_})]*[:：=])[\s*_]*"
    r"|答案(?:是|为)?\s*[:：=]?\s*",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[^\n]*")

_DIGITS = r"\d{1,3}(?:[,'’\u00a0 ]\d{3})+(?![\d])|\d+"
_NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![\d\w)\]}}])\s*[-−–]\s*\$?\s*)?
    (?:
        \\[dt]?frac\s*\{{\s*(?P<top>\d+)\s*\}}\s*\{{\s*(?P<bottom>\d+)\s*\}}
      | (?P<whole>\d+)\s+(?P<over>\d+)\s*[/⁄]\s*(?P<under>\d+)(?![\d/])
      | (?P<digits>{_DIGITS})?(?P<decimals>\.\d+)?(?P<exponent>[eE][+-]?\d{{1,2}}\b)?
        (?:\s*[/⁄]\s*(?P<divisor>\d+)(?![\d/]))?
    )
    (?P<percent>\s*(?:\\?%|percent\b))?
    (?P<scale>\s*(?:thousand|million|billion)\b)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_MOST_DIGITS = 40
# What may stand between "Answer:" and its number: currency, emphasis, brackets, "is", "about".
_DIRECT = re.compile(
    r"[\s$£€¥*_`~(\[{\\≈=:]*(?:(?:text|mathbf|approximately|about|is)\b[\s{$*]*)*", re.IGNORECASE
)

_LETTER = re.compile(r"(?<![A-Za-z])[\(\[{*]*\s*([A-J])\s*(?:[\)\]}*.:,]|$|(?=\s))")
_ALONE = re.compile(r"([A-Ja-j])(?:[).:]|[).:]\s[^\n]*)?")
_ENCLOSED = re.compile(r"\(([A-J])\)")


class Number(Record):
    """A number as a text gives it."""

    value: Fraction
    """The value as written: 25% is 25."""
    percent: bool = False
    """Whether a percent sign follows."""
    decimals: int = 0
    """Digits after the decimal point."""

    def matches(self, other: Number) -> bool:
        """Return whether both are the same number, at the precision of this one.

        A percentage equals its plain number and its share: 25% is 25 and 0.25.

        Args:
            other: What is compared; rounded to as many decimals as this number has, from two on.
        """
        if self.percent == other.percent:
            return self._close(self.value, other.value)
        return any(self._close(mine, theirs) for mine in _readings(self) for theirs in _readings(other))

    def _close(self, mine: Fraction, theirs: Fraction) -> bool:
        if mine == theirs:
            return True
        rounded = self.decimals >= 2  # noqa: PLR2004  # 33.33 stands for a third; 0.5 is exact
        return rounded and abs(mine - theirs) <= Fraction(1, 2 * 10**self.decimals)


def _readings(number: Number) -> tuple[Fraction, ...]:
    return (number.value, number.value / 100) if number.percent else (number.value,)


def marked_answer(text: str) -> str | None:
    r"""Return the text that is marked as the answer, the last of its kind.

    ``[[...]]`` wins over ``\boxed{...}``, over ``<answer>...</answer>``, over ``#### ...``, over what follows
    "Answer:" or "the answer is".

    Args:
        text: The model's answer.

    Returns:
        The marked text, or None when nothing is marked.
    """
    plain = _plain(text)
    for found in (_BRACKETS.findall(plain), _boxed(plain), _TAGGED.findall(plain), _MARKED.findall(plain)):
        marked = [one.strip() for one in found if one.strip()]
        if marked:
            return str(marked[-1])
    return _labelled(plain)


def read_number(text: str) -> Number | None:
    """Return the number that a text gives as its answer.

    A marked answer wins over whatever follows it; without one the last number counts.

    Args:
        text: The model's answer, or a reference answer.
    """
    marked = marked_answer(text)
    if marked is not None:
        number = _number_in_clause(marked)
        if number is not None:
            return number
    return _last(_numbers(_plain(text)))


def read_choice(text: str) -> str | None:
    """Return the letter (A to J) that a text gives as its answer.

    Args:
        text: The model's answer, or a reference answer.
    """
    marked = marked_answer(text)
    if marked is not None and (letter := _LETTER.match(marked.upper() if len(marked) == 1 else marked)):
        return letter[1]
    plain = _plain(text).strip()
    enclosed = _ENCLOSED.findall(marked if marked is not None else plain)
    if enclosed:
        return str(enclosed[-1])
    alone = _ALONE.fullmatch(plain)
    return alone[1].upper() if alone else None


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", strip_thinking(text)).replace("{,}", ",")


def _boxed(text: str) -> list[str]:
    """Return what stands in each box, braces matched."""
    found = []
    for match in _BOXED.finditer(text):
        depth = 1
        for index in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[index], 0)
            if depth == 0:
                found.append(text[match.end() : index])
                break
    return found


def _labelled(text: str) -> str | None:
    """Return the line after the last label that has something after it."""
    for label in reversed(list(_LABEL.finditer(text))):
        clause = _CLAUSE.match(text, label.end())
        if clause and clause[0].strip(" *_`.:$"):
            return clause[0].strip()
    return None


def _number_in_clause(clause: str) -> Number | None:
    """Return the number right at the start, otherwise the one after the last "=", otherwise the last."""
    direct = _DIRECT.match(clause)
    tail = clause[direct.end() if direct else 0 :]
    head = _NUMBER.match(tail)
    if head and "=" not in tail[head.end() :] and (number := _number(head)):
        return number
    after = clause.rpartition("=")[2]
    numbers = _numbers(after) or _numbers(clause)
    if not numbers:
        return None
    return numbers[0] if "=" in clause else numbers[-1]


def _numbers(text: str) -> list[Number]:
    return [number for match in _NUMBER.finditer(text) if match[0].strip() and (number := _number(match))]


def _last(numbers: list[Number]) -> Number | None:
    return numbers[-1] if numbers else None


def _number(match: re.Match[str]) -> Number | None:
    if len(match[0]) > _MOST_DIGITS:
        return None
    value = _magnitude(match)
    if value is None:
        return None
    if match["scale"]:
        value *= _SCALES[match["scale"].strip().lower()]
    return Number(
        value=-value if match["sign"] else value,
        percent=match["percent"] is not None,
        decimals=len(match["decimals"] or ".") - 1,
    )


def _magnitude(match: re.Match[str]) -> Fraction | None:
    try:
        if match["top"]:
            return Fraction(int(match["top"]), int(match["bottom"]))
        if match["whole"]:
            return int(match["whole"]) + Fraction(int(match["over"]), int(match["under"]))
        if not match["digits"] and not match["decimals"]:
            return None
        digits = re.sub(r"\D", "", match["digits"] or "0")
        value = Fraction(f"{digits}{match['decimals'] or ''}{match['exponent'] or ''}")
        return value / int(match["divisor"]) if match["divisor"] else value
    except ZeroDivisionError:
        return None
