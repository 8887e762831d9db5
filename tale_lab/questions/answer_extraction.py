"""From a model's prose to the answer it gives: the marked answer, the number, the letter, the vote.

Nothing here raises: a text that holds no answer reads as None.
"""

from __future__ import annotations

import collections
import re
import unicodedata
from fractions import Fraction
from typing import TYPE_CHECKING

from tale_core.parsing import strip_thinking
from tale_core.types import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

# Runs of space are bounded wherever a search may start at each of them: reading stays linear in the text.
_S = r"[^\S\r\n]{0,3}"

_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_MARKED = re.compile(r"####\s*(.+)")
_BOX_OR_BRACE = re.compile(r"\\(?:boxed|fbox)\s{0,3}\{|[{}]")
_LABEL = re.compile(
    r"\banswer(?:\s{1,3}to\b[^.:\n]{0,80}?)?(?:\s{1,3}(?:is|was)\b\s{0,3}:?|[\s*_})]{0,8}[:：=])[\s*_]*"
    r"|答案(?:是|为)?\s{0,3}[:：=]?\s{0,3}"
    r"|^[#* \t]+(?:final[ \t]{1,3})?answer[* \t]*\n\s*",
    re.IGNORECASE | re.MULTILINE,
)
# An answer that comes first and is explained afterwards.
_FIRST = re.compile(
    r"([-−]?\s{0,3}\$?\d[^\n]{0,30})\n[\s*#]*(?:explanation|reasoning|solution)\b", re.IGNORECASE
)
# Small models go on after their answer with questions of their own.
_NEXT_TURN = re.compile(r"^[ \t*#]*(?:Q|Question|Problem|Human|User)(?:[ \t]*\d+)?[ \t]{0,3}\**:", re.MULTILINE)
_CLAUSE = re.compile(r"[^\n]*")

_DIGITS = r"\d{1,3}(?:[,'’\u00a0 ]\d{3})+(?!\d)|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)|\d+"
_TIMES_TEN = (
    rf"{_S}(?:×|x|\*|·|\\times|\\cdot){_S}10{_S}(?:\^|\*\*){_S}\{{?{_S}(?P<ten>[-−]?\d{{1,3}})(?!\d){_S}\}}?"
)
_NUMBER = re.compile(
    rf"""
    (?<!\^)(?<!\^\{{)
    (?P<sign>(?<![\d\w)\]}}])[-−–]{_S}\$?{_S} | \b(?:negative|minus)[ ] )?
    (?:
        (?:(?P<mixed>\d+){_S})?\\[dt]?frac{_S}\{{{_S}(?P<minus>[-−])?{_S}(?P<top>\d+){_S}\}}{_S}\{{{_S}(?P<bottom>\d+){_S}\}}
      | (?P<whole>\d+)[^\S\r\n]{{1,3}}(?P<over>\d+){_S}[/⁄]{_S}(?P<under>\d+)(?![\d/])
      | (?P<base>\d+)(?:{_S}\^{_S}\{{?{_S}|\*\*)(?P<power>[-−]?\d{{1,3}})(?!\d){_S}\}}?
      | (?P<european>\d{{1,3}}(?:\.\d{{3}})+,\d{{1,2}})(?!\d)
      | (?=\.?\d)(?P<digits>{_DIGITS})?(?P<decimals>\.\d+)?(?P<exponent>[eE][+-]?\d{{1,2}}\b)?
        (?:{_TIMES_TEN}|{_S}[/⁄]{_S}(?P<divisor>\d+)(?![\d/]))?
    )
    (?P<percent>{_S}(?:\\?%|percent\b))?
    (?P<scale>{_S}(?:hundred|thousand|million|billion|trillion)\b|(?<=\d)(?-i:k)\b)?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SPACED_MINUS = re.compile(r"[-−–]\s")
_SCALES = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "k": 1000
}  # fmt: skip
_MOST_DIGITS = 40  # longer runs of digits are loops of a small model, and slow to compute with
# What may stand between "Answer:" and its number: currency, emphasis, brackets, "is", "about".
_DIRECT = re.compile(
    r"[\s$£€¥*_`~(\[{\\≈=:]*(?:(?:text|mathbf|approximately|about|is)\b[\s{$*]*)*", re.IGNORECASE
)
_PLAIN_NUMBER = r"[-−]?\$?\d+(?:[,.]\d+)*(?![,.]?\d)"
# "3 to 4", "5 apples or 6 apples", "10, 12": the reader is left to choose, which is no answer.
_EITHER = re.compile(
    rf"{_PLAIN_NUMBER}(?:{_S}(?:to|or|[-–+]){_S}{_PLAIN_NUMBER}(?![^\n]*=)"
    rf"|[ ](?P<unit>[^\W\d]+)[ ](?:to|or)[ ]{_PLAIN_NUMBER}[ ](?P=unit)\b)",
    re.IGNORECASE,
)
_LISTED = re.compile(
    rf"{_PLAIN_NUMBER}(?:,?{_S}(?:,|and|or){_S}{_PLAIN_NUMBER})+[\s.*_$\])}}]*\Z", re.IGNORECASE
)
_TO_OR = re.compile(r"\s{0,3}(?:(?P<unit>[^\W\d]+)\s{1,3})?(?:to|or)\s{0,3}\$?", re.IGNORECASE)
_OF_THE = re.compile(
    r"\s{0,3}(?:[^\W\d]+\s{1,3})?(?:out\s{1,3})?of(?:\s{1,3}(?:the|all|these|those))?\s{1,3}\$?"
)
# The same once more in other units: "145 minutes, which is 2 hours and 25 minutes".
_RESTATED = re.compile(
    r"(?<=[A-Za-z])(?:,? (?:which is|which equals|that is|i\.e\.,?|or) | \()\d+ "
    r"(?:hours?|minutes?|days?|weeks?|years?|feet|foot|dollars?|pounds?|kilometers?|meters?|h|hrs?|min)"
    r",? (?:and )?\d+ [a-z]+\)?"
)
_REFUSAL = re.compile(
    r"\bI\s{1,3}(?:can\s?not|can[’']t|could not|couldn[’']t|am (?:not able|unable) to|do(?:n[’']t| not) know)\b"
    r"|\b(?:cannot|can[’']t|can not) be (?:determined|answered|solved)\b|\bnot enough information\b",
    re.IGNORECASE,
)
# A number that is only ruled out: "not 18", "less than 18".
_RULED_OUT = re.compile(
    r"\b(?:not|isn[’']t|less than|more than|fewer than|greater than)[\s*$]{0,4}\Z", re.IGNORECASE
)
_LONGEST_RULING = 20  # characters; a window keeps the search linear in the text
# What explains a number is no number of the answer: "3 bolts (2 blue and 1 white)".
_ASIDE = re.compile(r"(?<=\s)\([^()\n]{1,80}\)[\s.!*$]*\Z")
_SENTENCE_END = re.compile(r"[.!?]\s|\n")

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SPELLED = {word: value for value, word in enumerate(_SMALL.split())} | {
    word: 10 * value for value, word in enumerate(_TENS.split(), 2)
}
_MOST_WORDS_BEHIND = 3  # "twenty-five apples" is an answer, a sentence that begins with "one" is not

# 2½ becomes 2 1/2 under NFKC only with a space before it.
_VULGAR = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_BARE_FRACTION = re.compile(r"(\\[dt]?frac)\s{0,3}(\d)\s{0,3}(\d)")
_SUPERSCRIPT = re.compile(r"[⁻⁰¹²³⁴-⁹]+")
# The power of a unit, as in m^2 and cm2, is no number of its own.
_UNIT_POWER = re.compile(r"(?<=[A-Za-z})])\^\{?([23])\}?|(?:(?<=[ \dck]m)|(?<= in)|(?<= ft))([23])\b")
_UNIT = re.compile(
    rf"{_S}(?:\\[ ,])?(?:\\(?:text|mathrm)\{{)?{_S}(?P<unit>°?[^\W\d_]+(?:/[^\W\d_]+)?\}}?[²³]?|[°€£¥])"
)

_LETTER = re.compile(
    r"(?<![A-Za-z])[\(\[{*]*\s{0,3}(?![AI]\s+(?!because|since|as\b|is\b)[a-z])([A-J])\s*(?:[\)\]}*.:,]|$|(?=\s))"
)
_ALONE = re.compile(r"\**([A-Ja-j])(?:[).:]?\**[.]?|[).:]\s[^\n]*)")
_ENCLOSED = re.compile(r"\(([A-J])\)")
_AROUND_LETTER = re.compile(
    r"\\(?:text|textbf|mathrm|mathbf)\b|[{}$*_\"'`\\]|^\s*(?:option|choice)\b", re.IGNORECASE
)
_NO_ARTICLE = r"(?![A-Za-z])(?!(?<=[AI])\s{1,3}[a-z])"
_CHOSEN = re.compile(
    r"(?i:\b(?:option|choice)\s{1,3}is:?)[\s*($]{0,8}([A-J])\b"
    r"|(?<![A-Za-z])([A-J])[)*.]{0,8}\s{1,3}(?i:is\s{1,3}(?:the\s{1,3})?(?:correct|right|best|answer))\b"
    r"|(?i:\b(?:choose|pick|select|go with|but|so|it[’']s|it is|(?:would|must|should) be)\s{1,3}"
    r"(?:(?:option|choice)\s{1,3})?)"
    rf"[*(]{{0,4}}([A-J]){_NO_ARTICLE}"
    rf"|[选選][择擇项項]?\s{{0,3}}[:：]?\s{{0,3}}([A-J])(?![A-Za-z])"
)
_REJECTED = re.compile(r"(?i:\b(?:not|isn[’']t)\s{1,3}(?:(?:option|choice)\s{1,3})?)[*(]{0,4}[A-J]\b[)*]{0,4}")
_OPTION = re.compile(r"(?i:\b(?:option|choice)\s{1,3})[*(]{0,4}([A-J])\b")


class Number(Record):
    """A number as a text gives it."""

    value: Fraction
    """The value as written: 25% is 25."""
    percent: bool = False
    """Whether a percent sign follows."""
    decimals: int = 0
    """Digits after the decimal point."""
    unit: str = ""
    """The unit or the currency that stands with it, as written; empty when there is none."""

    def matches(self, other: Number, *, tolerance: float = 0.0) -> bool:
        """Return whether both are the same number, at the precision of this one.

        A percentage equals its plain number and its share: 25% is 25 and 0.25. A fraction without a finite
        decimal form, such as 1/3, equals what it rounds to at two decimals or more. ``tolerance``
        is how far the other may be off, as a share of this number.
        """
        if self.percent == other.percent:
            return self._close(self.value, other, other.value, tolerance)
        # Exactly one of them is a percentage, which may be meant as its plain number or as the share.
        mine, theirs = ((one.value, one.value / 100 if one.percent else one.value) for one in (self, other))
        return any(self._close(one, other, another, tolerance) for one in mine for another in theirs)

    def _close(self, mine: Fraction, other: Number, theirs: Fraction, tolerance: float) -> bool:
        off = abs(mine - theirs)
        if off == 0 or off <= abs(mine) * Fraction(tolerance):
            return True
        decimals = self.decimals if _is_finite(mine) else other.decimals
        # 33.33 stands for a third; 0.5 is exact
        return decimals >= _FEWEST_ROUNDED and off <= Fraction(1, 2 * 10**decimals)


_FEWEST_ROUNDED = 2  # at one decimal too many wrong answers would round to the right one


def _is_finite(value: Fraction) -> bool:
    """Return whether a value has a finite decimal form: no prime but 2 and 5 divides its denominator."""
    return pow(10, value.denominator.bit_length(), value.denominator) == 0


def marked_answer(text: str) -> str | None:
    r"""Return the text that is marked as the answer, the last of its kind.

    ``[[...]]`` wins over ``\boxed{...}``, over ``<answer>...</answer>``, over ``#### ...``, over what follows
    "Answer:" or "the answer is", over a first line that is explained afterwards. What stands behind an answer
    and a further question is not looked at: the model asked that itself.

    Returns:
        The marked text, or None when nothing is marked.
    """
    plain = _plain(text)
    # Only where an answer stands before the further question: some models begin with "Question:".
    further = _NEXT_TURN.search(plain)
    marked = _marked(plain[: further.start()]) if further else None
    return _marked(plain) if marked is None else marked


def _marked(plain: str) -> str | None:
    for found in (_bracketed(plain), _boxed(plain), _TAGGED.findall(plain), _MARKED.findall(plain)):
        for one in reversed(found):
            if marked := one.strip():
                return str(marked)
    # Stripped first: a search for the number behind any run of spaces and asterisks would be quadratic.
    first = _FIRST.match(plain.lstrip("* \t\r\n\f\v"))
    return _labelled(plain) or (first[1].strip() if first else None)


def read_number(text: str) -> Number | None:
    """Return the number that a text gives as its answer.

    A marked answer wins over whatever follows it; without one the last number counts. A text that leaves the
    choice between numbers ("3 to 4", "10 or 12"), or that says it cannot tell, gives none.
    """
    marked = marked_answer(text)
    if marked is not None:
        clause = _cleaned(marked)
        if _leaves_open(clause, _EITHER, _LISTED):
            return None
        number = _number_in_clause(clause) or _spelled(clause)
        if number is not None:  # else what is marked is prose, and the text around it may hold the number
            return number
    plain = _cleaned(_plain(text)).rstrip()
    if _leaves_open(plain.rpartition("\n")[2], _LISTED):
        return None
    return _last_number(plain) or _spelled(plain)


def _leaves_open(clause: str, *patterns: re.Pattern[str]) -> bool:
    """Return whether a clause begins with several numbers to choose from."""
    direct = _DIRECT.match(clause)
    return any(pattern.match(clause, direct.end() if direct else 0) for pattern in patterns)


def starts_with_number(text: str) -> str | None:
    """Return what follows the number that a text starts with; None where it starts with something else."""
    plain = _cleaned(_plain(text))
    direct = _DIRECT.match(plain)
    at = direct.end() if direct and not plain.startswith(("(", "[", "{", "\\")) else 0
    match = _NUMBER.match(plain, at)
    return None if match is None or _number(match) is None else plain[match.end() :]


def is_spelled(text: str) -> bool:
    """Return whether a text is a number in words, and nothing else: "twenty-five"."""
    words = text.lower().replace("-", " ").split()
    return bool(words) and all(word in _SPELLED or word in _SCALES for word in words) and words[0] in _SPELLED


def read_choice(text: str) -> str | None:
    """Return the letter (A to J) that a text gives as its answer."""
    marked = marked_answer(text)
    if marked is not None:
        bare = _AROUND_LETTER.sub("", marked).strip()
        inner = bare.strip("()[]. ")
        if letter := _LETTER.match(inner.upper() if len(inner) == 1 else bare):
            return letter[1]
    plain = _REJECTED.sub(" ", _plain(text if marked is None else marked)).strip()
    for pattern in (_CHOSEN, _ENCLOSED, _OPTION):
        if found := [match[match.lastindex or 0] for match in pattern.finditer(plain)]:
            return found[-1]
    alone = _ALONE.fullmatch(_plain(text).strip())
    return alone[1].upper() if alone else None


def _plain(text: str) -> str:
    spaced = _SUPERSCRIPT.sub(lambda found: f"^{found[0]}", _VULGAR.sub(" ", strip_thinking(text)))
    plain = unicodedata.normalize("NFKC", spaced).replace("{,}", ",")
    return _BARE_FRACTION.sub(r"\1{\2}{\3}", plain)


def _cleaned(text: str) -> str:
    raised = _UNIT_POWER.sub(lambda power: _RAISED[power[1] or power[2]], text)
    return _RESTATED.sub("", raised)


_RAISED = {"2": "²", "3": "³"}


def _bracketed(text: str) -> list[str]:
    """Return what stands in each pair of double brackets."""
    even = text.translate(_ASCII_BRACKETS)
    found = []
    start = even.find("[[")
    while start >= 0 and (end := even.find("]]", start + 2)) >= 0:
        found.append(text[start + 2 : end])
        start = even.find("[[", end + 2)
    return found


_ASCII_BRACKETS = str.maketrans("【】", "[]")


def _boxed(text: str) -> list[str]:
    """Return what stands in the last box that is closed and not empty, braces matched."""
    opened: list[int | None] = []  # where the content of each open brace begins; None for one that is no box
    boxes: list[tuple[int, int]] = []
    for match in _BOX_OR_BRACE.finditer(text):
        if match[0] == "}":
            start = opened.pop() if opened else None
            if start is not None:
                boxes.append((start, match.start()))
        elif match[0] == "{":
            opened.append(None)
        else:
            opened.append(match.end())
    # Boxes inside one another share their text: only one of them is cut out.
    for start, end in sorted(boxes, reverse=True):
        if content := text[start:end].strip():
            return [content]
    return []


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
    if _REFUSAL.search(clause):
        return None
    if "=" not in clause:
        return _last(clause)
    # "3 * 4 = 12 apples for 5 friends": the result comes right after the sign.
    return _first(clause.rpartition("=")[2]) or _first(clause)


def _first(text: str) -> Number | None:
    return next((number for match in _NUMBER.finditer(text) if (number := _number(match))), None)


def _last(text: str) -> Number | None:
    last = next((match for match in _last_matches(text) if _number(match)), None)
    return None if last is None or _is_ruled_out(last) else _number(last)


def _last_matches(text: str) -> Iterator[re.Match[str]]:
    """Return the last numbers of a text, the last first: a long one may hold half a million."""
    return reversed(collections.deque(_NUMBER.finditer(text), maxlen=_MOST_LOOKED_AT))


_MOST_LOOKED_AT = 256  # the answer stands near the end


def _last_number(text: str) -> Number | None:
    """Return the last number, unless the words around it say that it is not the answer."""
    plain = _ASIDE.sub("", text)
    if plain != text and _last(_SENTENCE_END.split(plain.rstrip(), maxsplit=0)[-1]):
        text = plain
    matches = (match for match in _last_matches(text) if _number(match))
    last, before = next(matches, None), next(matches, None)
    if last is None or _is_ruled_out(last):
        return None
    sentence = max((end.end() for end in _SENTENCE_END.finditer(text, 0, last.start())), default=0)
    if _REFUSAL.search(text, sentence) or (before is not None and _either(before, last)):
        return None
    # "5 of the 12 apples" answers 5.
    of_them = before is not None and _OF_THE.fullmatch(text, before.end(), last.start())
    return _number(before if before is not None and of_them else last)


def _is_ruled_out(match: re.Match[str]) -> bool:
    start = match.start()
    return _RULED_OUT.search(match.string[max(0, start - _LONGEST_RULING) : start]) is not None


def _either(one: re.Match[str], other: re.Match[str]) -> bool:
    """Return whether a text leaves the choice between two numbers: "3 to 4", but not "from 3 to 4"."""
    text = one.string
    joined = _TO_OR.fullmatch(text, one.end(), other.start())
    # "from 3 to 4" tells a change, whose end is the answer.
    if joined is None or text.endswith("from ", 0, one.start()):
        return False
    return joined["unit"] is None or text.startswith(f" {joined['unit']}", other.end())


def _spelled(text: str) -> Number | None:
    """Return the number that a short text spells out at its start: "Answer: twenty-five apples"."""
    direct = _DIRECT.match(text)
    words = text[direct.end() if direct else 0 :][:_LONGEST_SPELLED].lower().replace("-", " ").split()
    sign = -1 if words and words[0] in {"negative", "minus"} else 1
    words = words[sign < 0 :]
    value, used = 0, 0
    for word in (word.strip(".,;:!*_)}]$") for word in words):
        if word in _SPELLED:
            value += _SPELLED[word]
        elif word in _SCALES and used:
            value = value * _SCALES[word]
        elif not (word == "and" and used):
            break
        used += 1
    behind = len(words) - used
    if not used or behind > (_MOST_WORDS_BEHIND if value != 1 else 1):
        return None
    return Number(value=Fraction(sign * value))


_LONGEST_SPELLED = 80  # characters; no spelled number is longer


def _number(match: re.Match[str]) -> Number | None:
    if len(match[0]) > _MOST_DIGITS or _is_part(match.string, *match.span()):
        return None
    value = _magnitude(match)
    if value is None:
        return None
    if match["scale"]:
        value *= _SCALES[match["scale"].strip().lower()]
    unit = _UNIT.match(match.string, match.end())
    return Number(
        value=-value if _negative(match) else value,
        percent=match["percent"] is not None,
        decimals=len(match["decimals"] or ".") - 1,
        unit=unit["unit"].replace("}", "") if unit else _currency(match),
    )


def _currency(match: re.Match[str]) -> str:
    before = match.string[max(0, match.start() - 1) : match.end()].lstrip("-−–( ")
    return before[0] if before and before[0] in "$£€¥" else ""


def _is_part(text: str, start: int, end: int) -> bool:
    """Return whether a number is a piece of a time, a date, a range or a list: 12:30, 2024-03-14, 1,2."""
    after, before = text[end : end + 2], text[max(0, start - 2) : start]
    return bool(_GOES_ON.fullmatch(after) or _GOES_ON.fullmatch(before[::-1]))


_GOES_ON = re.compile(r"[-–:/,]\d")


def _negative(match: re.Match[str]) -> bool:
    """Return whether a minus belongs to the number: with space behind it, it may subtract or open a list."""
    sign = match["sign"] or ""
    if not _SPACED_MINUS.search(sign):
        return bool(sign)
    text, at = match.string, match.start("sign") - 1
    while at >= 0 and text[at].isspace() and text[at] != "\n":
        at -= 1
    if at < 0 or text[at] == "\n":
        return at < 0
    return not (text[at].isalnum() or text[at] in ")]}%")


def _magnitude(match: re.Match[str]) -> Fraction | None:
    try:
        if match["top"]:
            value = int(match["mixed"] or 0) + Fraction(int(match["top"]), int(match["bottom"]))
            return -value if match["minus"] else value
        if match["whole"]:
            return int(match["whole"]) + Fraction(int(match["over"]), int(match["under"]))
        if match["base"]:
            return _power(int(match["base"]), match["power"])
        if match["european"]:
            value = Fraction(match["european"].replace(".", "").replace(",", "."))
        else:
            digits = re.sub(r"\D", "", match["digits"] or "0")
            value = Fraction(f"{digits}{match['decimals'] or ''}{match['exponent'] or ''}")
        if match["ten"]:
            return value * _power(10, match["ten"])
        return value / int(match["divisor"]) if match["divisor"] else value
    except (ZeroDivisionError, OverflowError):
        return None


def _power(base: int, exponent: str) -> Fraction:
    """Return a power.

    Raises:
        OverflowError: It has more digits than an answer that is meant to be read.
    """
    power = int(exponent.replace("−", "-"))
    if abs(power) * len(str(base)) > _MOST_POWER_DIGITS:
        raise OverflowError
    return Fraction(base) ** power


_MOST_POWER_DIGITS = 400  # 9^9^9 would take the memory of the machine


_OPTIONS = re.compile(r"(?:^|\s|\()A[).:].*?(?:\s|\()B[).:]", re.DOTALL)


def vote(text: str, question: str = "") -> str | None:
    """Return what an answer says, the same for answers that agree; None where it cannot be read."""
    if _OPTIONS.search(question):  # a number in such an answer belongs to an option's text
        return read_choice(text)
    marked = marked_answer(text)
    number = read_number(text if marked is None else marked)
    if number is not None:
        return f"{number.value}{'%' * number.percent}"
    return " ".join((marked or "").casefold().split()).strip(" .*$`!") or None
