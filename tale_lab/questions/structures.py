"""What a reference answer is: a number, a time, a date, a range, a list, a formula, or words.

Read too eagerly, ``12:30`` is 30 and ``H2O`` is 2. A reference is a number only when all of it is one, with a
unit at most; what has parts is compared part by part.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from tale_lab.questions.answer_extraction import is_spelled, marked_answer, read_number, starts_with_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    _Found: TypeAlias = tuple[str, tuple[object, ...]]
    """What was matched, and its parts."""


def _words(*lines: str) -> list[str]:
    return " ".join(lines).split()


_MONTHS = _words("january february march april may june july august september october november december")
_MONTH = rf"(?P<month>{'|'.join(f'{name[:3]}(?:{name[3:]})?' for name in _MONTHS)})\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>\d{4})"
_DATES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?<!\d){_YEAR}[-/.](?P<month>\d{{1,2}})[-/.]{_DAY}(?!\d)",
        rf"\b{_MONTH}\s{{1,3}}{_DAY}(?!\d)(?:,?\s{{1,3}}{_YEAR})?(?!\d)",
        rf"(?<!\d){_DAY}\s{{1,3}}(?:of\s{{1,3}})?{_MONTH}\b(?:,?\s{{1,3}}{_YEAR})?",
        rf"\b{_MONTH},?\s{{1,3}}{_YEAR}(?!\d)",
    )
)
_TIME = re.compile(
    r"(?<![\d:.])(?P<hour>[01]?\d|2[0-4])(?::(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?)?"
    r"(?:\s?(?P<half>[ap])\.?m\b\.?)?(?![\d:])",
    re.IGNORECASE,
)
_RATIO = re.compile(r"(?<![\d:.])\d{1,18}(?:\s?:\s?\d{1,18}){1,6}(?![\d:])")
_AMOUNT = r"[-−]?\$?\d{1,18}(?:,\d{3}){0,6}(?:\.\d{1,18})?%?"
_RANGE = re.compile(
    rf"(?<![\d\-–/.])(?P<low>{_AMOUNT})\s{{0,3}}(?:[-–—]|to|and|through)\s{{0,3}}(?P<high>{_AMOUNT})(?![\d\-–/])"
)
_AMOUNTS = re.compile(
    rf"(?<!\d){_AMOUNT}(?:\s{{0,3}},\s{{0,3}}(?:and\s{{1,3}})?{_AMOUNT}|\s{{1,3}}and\s{{1,3}}{_AMOUNT})+"
)
_ITEMS = re.compile(r"[^,;\n]{1,40}(?:,[^,;\n]{1,40}){1,19}")
_MOST_ITEM_WORDS = 3  # longer items are clauses of a sentence
_CODE = re.compile(r"(?<![\w.])(?=[A-Za-z()]{1,12}\d)[A-Za-z(][A-Za-z\d()]{1,40}[+-]?(?!\w)")
_TYPESETTING = re.compile(r"\\(?:text|mathrm|ce|mathbf)\b|[_{}$\\*]")
_NUMERAL = re.compile(r"(?<![\w.])[-−]?\d{1,18}(?:\.\d{1,18})?(?![\w.])")

_UNIT = re.compile(r"(?:[a-zµ°%²³]+\.?|[A-Za-z°µ%]{1,3}[²³]?|[A-Za-z]+/[A-Za-z]+[²³]?|[$€£¥])")
_UNITS = frozenset(
    _words(
        "m g s h l L N J W V A K C F °C °F Hz kHz MHz GHz kW kWh MW Wh Pa kPa MPa kJ MJ mL kN mV kV mA",
        "USD EUR GBP CNY JPY MB GB TB KB kB",
    )
)
# Short words that look like units, and variables that would make a formula a measure.
_NO_UNIT = frozenset(
    _words(
        "to or and of by vs am pm a.m. p.m. st nd rd th pi e i x y z n k d p q r t u w a b c",
        "sin cos tan log ln sqrt times plus minus o'clock",
    )
) | frozenset(part for name in _MONTHS for part in (name, name[:3]))
_MOST_UNIT_WORDS = 3  # "square meters each"; what is longer is a sentence about a number
_LATEX_UNITS = (
    (re.compile(r"\\(?:text|mathrm|textrm)\{([^{}]*)\}"), r" \1"),
    (re.compile(r"\^\{?\\circ\}?"), "°"),
    (re.compile(r"\\[ ,;!]|\\(?=[$%])|[$]"), " "),
)
_FUNCTIONS = frozenset(_words("sin cos tan sec csc cot log ln exp sqrt pi arcsin arccos arctan"))
_ALGEBRA = re.compile(r"[\w\s+\-*/^=().,<>≤≥√π∞−]+")
_OPERATION = re.compile(
    r"\b(?:sin|cos|tan|log|ln|exp|sqrt)\b|[+*^=<>≤≥√π∞]|\d[A-Za-z(]|\d\s*/\s*[A-Za-z(]|[A-Za-z)]\s*/\s*\d"
)
_BRACKETED = re.compile(r"[(\[{].*\d.*[)\]}]", re.DOTALL)
_NAME = re.compile(r"[^\W\d_]+")


class Structure(NamedTuple):
    """A reference answer with parts."""

    kind: str
    """What it is: ``time``, ``ratio``, ``date``, ``range``, ``list``, ``code``."""
    parts: tuple[object, ...]
    """Its parts, in a form that can be compared."""


def is_measure(reference: str) -> bool:
    """Return whether a reference is a number with at most a unit: ``18 dollars``, not ``12:30`` or ``H2O``."""
    plain = reference.strip()
    for pattern, simple in _LATEX_UNITS:
        plain = pattern.sub(simple, plain)
    rest = starts_with_number(plain.strip())
    if rest is None:
        return is_spelled(plain)
    words = rest.strip(" .}").split()
    return len(words) <= _MOST_UNIT_WORDS and all(map(_is_unit, words))


def _is_unit(word: str) -> bool:
    bare = word.strip("()")
    if bare in _UNITS:
        return True
    plain = unicodedata.normalize("NFKC", bare)
    return bare.lower() not in _NO_UNIT and plain.lower() not in _NO_UNIT and _UNIT.fullmatch(bare) is not None


def is_mathematical(reference: str) -> bool:
    """Return whether a reference is a formula, a tuple or a set, which only mathematics can compare."""
    plain = reference.strip()
    if re.search(r"\\[A-Za-z{]", plain):
        return True
    if plain[:1] in {"(", "{", "["} and _BRACKETED.fullmatch(plain):
        return True
    algebra = _ALGEBRA.fullmatch(plain) and _OPERATION.search(plain)
    return bool(algebra) and all(len(name) == 1 or name in _FUNCTIONS for name in _NAME.findall(plain))


def read_structure(reference: str) -> Structure | None:
    """Return a reference answer with parts; None where it has none."""
    plain = _plain(reference)
    if plain[:1] == "[" and plain[-1:] == "]":
        return Structure("list", (_canonical(plain),))
    function = any(name in _FUNCTIONS for name in _NAME.findall(plain))
    # In this order: 12:30 is a time before it is a ratio, and 2024-03-14 a date before it is a range.
    for kind in ("time", "date", "range", "ratio", *(() if function else ("code",))):
        for match, parts in _FOUND[kind](plain):
            if match == plain:
                return Structure(kind, parts)
    items = plain.split(",")
    if len(items) > 1 and not set(plain) & set("\\()[]{}") and _ITEMS.fullmatch(plain):
        short = all(item.strip() and len(item.split()) <= _MOST_ITEM_WORDS for item in items)
        if short and (all(read_number(item) for item in items) or not any(map(str.isdigit, plain))):
            return Structure("list", (_canonical(f"[{plain}]"),))
    return None


def find_structure(reference: Structure, text: str) -> Structure | None:
    """Return what a text gives of the reference's kind, the last of it; what is marked as the answer wins."""
    marked = marked_answer(text)
    whole = _plain(text)
    if reference.kind == "list":
        return _last_list(reference, whole, marked)
    for place in (marked and _plain(marked), whole):
        found = list(_FOUND[reference.kind](place)) if place else []
        if found:
            return Structure(reference.kind, found[-1][1])
    return None


def same(reference: Structure, given: Structure) -> bool:
    """Return whether both are the same; what the reference leaves open (a year, am or pm) may be given."""
    if reference.kind == "date":
        return all(one in {None, other} for one, other in zip(reference.parts, given.parts, strict=True))
    if reference.kind == "time":
        (hour, *rest, half), (other, *others, other_half) = reference.parts, given.parts
        return rest == others and bool(_hours(hour, half, other_half) & _hours(other, other_half, half))
    return reference.parts == given.parts


def _hours(hour: object, half: object, other: object) -> set[int]:
    """Return the hours of the day that an hour may mean, beside another that says am or pm or does not."""
    number = int(str(hour))
    if half is not None:
        return {number % 12 + (12 if half == "p" else 0)}
    return {number} if other is None or number > 12 else {number % 12, number % 12 + 12}  # noqa: PLR2004


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip().rstrip(".").strip()


def _times(text: str) -> Iterator[_Found]:
    for match in _TIME.finditer(text):
        if match["minute"] or match["half"]:
            half = match["half"].lower() if match["half"] else None
            parts = (int(match["hour"]), int(match["minute"] or 0), int(match["second"] or 0), half)
            yield match[0].rstrip("."), parts


def _dates(text: str) -> Iterator[_Found]:
    matches = [match for pattern in _DATES for match in pattern.finditer(text)]
    # The last to end is the last given; of two that end there, the longer one has the year.
    for match in sorted(matches, key=lambda match: (match.end(), -match.start())):
        named = match.groupdict()
        month = named["month"].lower()[:3]
        number = int(month) if month.isdigit() else [name[:3] for name in _MONTHS].index(month) + 1
        year, day = named.get("year"), named.get("day")
        yield match[0], (int(year) if year else None, number, int(day) if day else None)


def _codes(text: str) -> Iterator[_Found]:
    for match in _CODE.finditer(_TYPESETTING.sub("", text)):
        # Brackets around a whole formula say nothing; those of Ca(OH)2 are a part of it.
        yield match[0], ((match[0] if "(" in match[0][1:] else match[0].strip("()")).casefold(),)


_FOUND: dict[str, Callable[[str], Iterable[_Found]]] = {
    "time": _times,
    "date": _dates,
    "range": lambda text: ((one[0], (_amount(one[1]), _amount(one[2]))) for one in _RANGE.finditer(text)),
    "ratio": lambda text: (
        (one[0], tuple(one[0].replace(" ", "").split(":"))) for one in _RATIO.finditer(text)
    ),
    "code": _codes,
}


def _amount(text: str) -> str:
    number = Fraction(re.sub("[,$%]", "", text).replace("−", "-"))
    return f"{number}{'%' * text.endswith('%')}"


def _last_list(reference: Structure, whole: str, marked: str | None) -> Structure | None:
    group = last_group(whole)
    own = str(reference.parts[0])
    # Double brackets mark an answer, and are a list of lists, too.
    places = [] if group is None else [group]
    if marked is not None:
        bare = marked.strip(" .*$")
        places.append(f"[{bare.replace(' and ', ', ') if _AMOUNTS.fullmatch(bare) else bare}]")
    else:
        amounts = _AMOUNTS.findall(whole) if own[:1].isdecimal() or own[:1] in "-[" else []
        places += [f"[{amounts[-1].replace(' and ', ', ')}]"] if amounts else []
        places.append(f"[{whole.rpartition(chr(10))[2]}]")
    given = [Structure("list", (_canonical(place),)) for place in places]
    given = [one for one in given if "," in str(one.parts[0]) or "," not in own]
    return next((one for one in given if one == reference), given[0] if given else None)


def last_group(text: str) -> str | None:
    """Return what stands in the last brackets that are closed, the outermost of them, brackets included."""
    depth, start, found = 0, 0, None
    for match in re.finditer(r"[\[\]]", text):
        if match[0] == "[":
            start = match.start() if depth == 0 else start
            depth += 1
        elif depth:
            depth -= 1
            found = found if depth else (start, match.end())
    return None if found is None else text[slice(*found)]


def _canonical(group: str) -> str:
    """Return a list as text without spaces, quotes and outer brackets, its numbers in one form."""
    inner = group[1:-1]
    # [[1, 2]] is a marked list of two, but [[1], [2]] is a list of lists.
    while inner[:1] == "[" and inner[-1:] == "]" and "[" not in inner[1:-1]:
        inner = inner[1:-1]
    bare = re.sub(r"\s+", " ", inner.replace(", and ", ", ").replace('"', "").replace("'", "")).casefold()
    bare = re.sub(r"\s?([,\[\]()])\s?", r"\1", bare)
    return _NUMERAL.sub(lambda number: str(Fraction(number[0].replace("−", "-"))), bare).strip()
