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
    r"|答案(?:是|为)?\s*[:：=]?\s*"
    r"|^[#* \t]+(?:final\s+)?answer[* \t]*\n\s*",
    re.IGNORECASE | re.MULTILINE,
)
# An answer that comes first and is explained afterwards.
_FIRST = re.compile(
    r"\A[\s*]*([-−]?\s*\$?\d[^\n]{0,30})\n[\s*#]*(?:explanation|reasoning|solution)\b", re.IGNORECASE
)
# Small models go on after their answer with questions of their own.
_NEXT_TURN = re.compile(r"^[ \t*#]*(?:Q|Question|Problem|Human|User)\s*\d*\s*[*]*:", re.MULTILINE)
_CLAUSE = re.compile(r"[^\n]*")

_DIGITS = r"\d{1,3}(?:[,'’\u00a0 ]\d{3})+(?![\d])|\d+"
_NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![\d\w)\]}}])\s*[-−–]\s*\$?\s*)?
    (?:
        (?P<mixed>\d+\s*)?\\[dt]?frac\s*\{{\s*(?P<top>\d+)\s*\}}\s*\{{\s*(?P<bottom>\d+)\s*\}}
      | (?P<whole>\d+)\s+(?P<over>\d+)\s*[/⁄]\s*(?P<under>\d+)(?![\d/])
      | (?P<digits>{_DIGITS})?(?P<decimals>\.\d+)?(?P<exponent>[eE][+-]?\d{{1,2}}\b)?
        (?:\s*[/⁄]\s*(?P<divisor>\d+)(?![\d/]))?
    )
    (?P<percent>\s*(?:\\?%|percent\b))?
    (?P<scale>\s*(?:thousand|million|billion)\b)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SPACED_MINUS = re.compile(r"[-−–]\s")
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_MOST_DIGITS = 40
# What may stand between "Answer:" and its number: currency, emphasis, brackets, "is", "about".
_DIRECT = re.compile(
    r"[\s$£€¥*_`~(\[{\\≈=:]*(?:(?:text|mathbf|approximately|about|is)\b[\s{$*]*)*", re.IGNORECASE
)

_VULGAR = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_BARE_FRACTION = re.compile(r"(\\[dt]?frac)\s*(\d)\s*(\d)")
_POWERS = str.maketrans({"²": "^2", "³": "^3"})
# The power of a unit, as in m^2, is no number of its own.
_UNIT_POWER = re.compile(r"(?<=[A-Za-z})])\^\{?[23]\}?")

_LETTER = re.compile(r"(?<![A-Za-z])[\(\[{*]*\s*(?!I\s+[a-z])([A-J])\s*(?:[\)\]}*.:,]|$|(?=\s))")
_ALONE = re.compile(r"\**([A-Ja-j])(?:[).:]|[).:]\s[^\n]*)?\**[.]?")
_ENCLOSED = re.compile(r"\(([A-J])\)")
_AROUND_LETTER = re.compile(
    r"\\(?:text|textbf|mathrm|mathbf)\b|[{}$*_\"'`\\]|^\s*(?:option|choice)\b", re.IGNORECASE
)
_CHOSEN = re.compile(
    r"(?i:\b(?:option|choice)\s+is:?)[\s*($]*([A-J])\b"
    r"|(?<![A-Za-z])([A-J])[)*.]*\s+(?i:is\s+(?:the\s+)?(?:correct|right|best|answer))\b"
    r"|(?i:\b(?:choose|pick|select)\s+(?:(?:option|choice)\s+)?)[*(]*([A-J])\b(?!(?<=[AI])\s+[a-z])"
)
_OPTION = re.compile(r"(?i:\b(?:option|choice)\s+)[*(]*([A-J])\b")


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
    "Answer:" or "the answer is", over a first line that is explained afterwards. What stands behind an answer
    and a further question is not looked at: the model asked that itself.

    Args:
        text: The model's answer.

    Returns:
        The marked text, or None when nothing is marked.
    """
    plain = _plain(text)
    further = _NEXT_TURN.search(plain)
    marked = _marked(plain[: further.start()]) if further else None
    return _marked(plain) if marked is None else marked


def _marked(plain: str) -> str | None:
    for found in (_BRACKETS.findall(plain), _boxed(plain), _TAGGED.findall(plain), _MARKED.findall(plain)):
        marked = [one.strip() for one in found if one.strip()]
        if marked:
            return str(marked[-1])
    first = _FIRST.match(plain)
    return _labelled(plain) or (first[1].strip() if first else None)


def read_number(text: str) -> Number | None:
    """Return the number that a text gives as its answer.

    A marked answer wins over whatever follows it; without one the last number counts.

    Args:
        text: The model's answer, or a reference answer.
    """
    marked = marked_answer(text)
    if marked is not None:
        number = _number_in_clause(_UNIT_POWER.sub("", marked))
        if number is not None:
            return number
    return _last(_numbers(_UNIT_POWER.sub("", _plain(text))))


def read_choice(text: str) -> str | None:
    """Return the letter (A to J) that a text gives as its answer.

    Args:
        text: The model's answer, or a reference answer.
    """
    marked = marked_answer(text)
    if marked is not None:
        bare = _AROUND_LETTER.sub("", marked).strip()
        if letter := _LETTER.match(bare.upper() if len(bare) == 1 else bare):
            return letter[1]
    plain = _plain(text if marked is None else marked).strip()
    for pattern in (_CHOSEN, _ENCLOSED, _OPTION):
        if found := [match[match.lastindex or 0] for match in pattern.finditer(plain)]:
            return found[-1]
    alone = _ALONE.fullmatch(_plain(text).strip())
    return alone[1].upper() if alone else None


def _plain(text: str) -> str:
    spaced = _VULGAR.sub(" ", strip_thinking(text)).translate(_POWERS)
    plain = unicodedata.normalize("NFKC", spaced).replace("{,}", ",")
    return _BARE_FRACTION.sub(r"\1{\2}{\3}", plain)


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
        value=-value if _negative(match) else value,
        percent=match["percent"] is not None,
        decimals=len(match["decimals"] or ".") - 1,
    )


def _negative(match: re.Match[str]) -> bool:
    """Return whether a minus belongs to the number: with space behind it, it may subtract or open a list."""
    sign = match["sign"] or ""
    if not _SPACED_MINUS.search(sign):
        return bool(sign)
    before = match.string[: match.start("sign") + len(sign) - len(sign.lstrip())]
    line = before.rpartition("\n")[2].rstrip()
    if not line:
        return "\n" not in before
    return not (line[-1].isalnum() or line[-1] in ")]}%")


def _magnitude(match: re.Match[str]) -> Fraction | None:
    try:
        if match["top"]:
            return int(match["mixed"] or 0) + Fraction(int(match["top"]), int(match["bottom"]))
        if match["whole"]:
            return int(match["whole"]) + Fraction(int(match["over"]), int(match["under"]))
        if not match["digits"] and not match["decimals"]:
            return None
        digits = re.sub(r"\D", "", match["digits"] or "0")
        value = Fraction(f"{digits}{match['decimals'] or ''}{match['exponent'] or ''}")
        return value / int(match["divisor"]) if match["divisor"] else value
    except ZeroDivisionError:
        return None
