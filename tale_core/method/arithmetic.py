"""Arithmetic errors: calculations in an answer whose stated result is wrong.

A terse answer spells out fewer steps, and a model errs more often in one long sum than in several short ones.
An arithmetic error is the one kind of mistake that a program can see without knowing the answer or calling a
model. What is doubtful is skipped: a calculation that is reported as wrong must be wrong.
"""

from __future__ import annotations

import ast
import itertools
import operator
import re
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_MOST_UNIT_WORDS = 3
_MOST_TERMS = 40
# Models copy results of binary floating point, such as 0.30000000000000004.
_FLOAT_DECIMALS = 8
_MANY_DECIMALS = 3
_FLOAT_NOISE = Fraction(1, 10**12)

_TOKEN = re.compile(
    r"""
    (?P<bullet> ^\s* (?: [-*•] | \d+[.)] ) \s+ )
  | (?P<number> (?: \d{1,3}(?:,\d{3})+ | \d+ ) (?:\.\d+)? %?
                (?: (?=x\s*[\d(]) | (?! \w | [.,:]\d | \s*\^ ) ) )
  | (?P<sign>   [-+*/] | x(?=\s*[\d(]) )
  | (?P<equals> = )
  | (?P<open>   \( )
  | (?P<close>  \) )
  | (?P<word>   [^\W\d_]+ (?: [/'][^\W\d_]+ ){0,4} (?![\w^(]) )
  | (?P<odd>    [\w^%] [\w.,:^%]* )
  | (?P<space>  \s+ )
  | (?P<end>    . )
    """,
    re.VERBOSE,
)
_LATEX = (
    (re.compile(r"\\d?frac\{([^{}]*)\}\{([^{}]*)\}"), r"(\1)/(\2)"),
    (re.compile(r"\\(?:text|mathrm|textbf)\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\(?:times|cdot)(?![a-z])"), "*"),
    (re.compile(r"\\div(?![a-z])"), "/"),
    (re.compile(r"\\(?:left|right|quad)(?![a-z])|\\[()\[\],;! ]"), " "),
    (re.compile(r"\\(?=[%$])"), ""),
)
_SIGNS_OF_PRINT = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "$": "", "`": ""})
_BOLD = re.compile(r"(?<!\w)\*\*|\*\*(?!\w)")
_SHARE = re.compile(r"%|\d/\d+\Z")
# Before a calculation or inside it, these make it a part of a larger one that cannot be read.
_SPELLED_OUT = frozenset({"of", "times", "plus", "minus", "by", "half", "twice", "double", "triple"})
_MEASURES = re.compile(
    "second|sec|minute|min|hour|hr|day|week|month|year|dollar|inch|feet|foot|ft|yard|mile|meter|metre|km|cm|mm|"
    "kilo|gram|kg|ounce|oz|pound|lb|ton|lit|ml|gallon|pint|cup",
)
_SCALES = re.compile("cent|penn|quarter|dime|nickel|dozen|pair|hundred|thousand|million|billion|percent")
_CONVERSIONS = frozenset({7, 10, 12, 16, 24, 30, 36, 52, 60, 100, 365, 1000, 1440, 3600})


class Slip(NamedTuple):
    """A calculation with a wrong result."""

    calculation: str
    """What is to be calculated, as the answer has it, without units: ``"3 + 9 + 16"``."""
    stated: str
    """What the answer says it makes: ``"38"``."""
    value: Fraction
    """What it makes."""

    def put_right(self) -> str:
        """Return the calculation with its value, to four decimals: ``"3 + 9 + 16 = 28"``."""
        rounded = round(self.value, 4)
        return f"{self.calculation} = {Decimal(rounded.numerator) / Decimal(rounded.denominator):f}"


def find_slips(text: str) -> tuple[Slip, ...]:
    """Return the wrong calculations of a text, each once.

    Calculations with a variable or of mixed measures, values that are rounded, and what can be read in two
    ways of which one is right, are not reported.

    Args:
        text: An answer; of LaTeX, what chat models use in plain answers is understood.

    Example:
        >>> [slip.put_right() for slip in find_slips("3 apples + 9 + 16 = 38, and 2 x 14 = 28.")]
        ['3 + 9 + 16 = 28']
    """
    if "=" not in text:
        return ()
    return tuple(dict.fromkeys(itertools.chain.from_iterable(map(_slips, text.splitlines()))))


class _Token(NamedTuple):
    kind: str
    text: str


class _Side(NamedTuple):
    """One side of an equation: a calculation, or a number alone."""

    bare: str
    """The calculation without units, with a space around each sign."""
    units: frozenset[str]
    """The words that stand with its numbers, in the singular."""
    terms: int
    """How many numbers it has."""


def _slips(line: str) -> Iterator[Slip]:
    if "=" not in line:
        return
    tokens = list(_tokens(_plain(line)))
    for at, token in enumerate(tokens):
        slip = _slip(tokens, at) if token.kind == "equals" else None
        if slip is not None:
            yield slip


def _plain(line: str) -> str:
    """Return a line without LaTeX, bold print and currency, and with the signs of a keyboard."""
    if "\\" in line:
        for pattern, plain in _LATEX:
            line = pattern.sub(plain, line)
    line = line.translate(_SIGNS_OF_PRINT)
    return _BOLD.sub("", line) if "**" in line else line


def _tokens(line: str) -> Iterator[_Token]:
    share = ""  # what was read of a percentage or a fraction, of which a part may be taken
    for found in _TOKEN.finditer(line):
        kind, text = str(found.lastgroup), found[0]
        if kind == "space":
            continue
        if text == "of" and _SHARE.search(share):
            kind, text = "sign", "*"
        elif text == "x" and kind == "sign":
            text = "*"
        elif kind == "word" and text.lower() in _SPELLED_OUT:
            kind = "odd"
        share = share[-20:] + text if kind in {"number", "sign"} else ""
        yield _Token(kind, text)


def _slip(tokens: Sequence[_Token], equals: int) -> Slip | None:
    """Return what is wrong with the equation around an equals sign; None when it holds or cannot be judged."""
    left, right = _left_of(tokens, equals), _right_of(tokens, equals)
    if left is None or right is None or left.terms == 1 or _mixes_measures(left, right):
        return None
    stated = right.bare.split(" ")[0]
    try:
        values = _readings(left.bare)
        claims = [claim for text in {stated, right.bare} for claim in _readings(text)]
    except (SyntaxError, ValueError, ZeroDivisionError, _AmbiguousError):
        return None
    pairs = itertools.product(values, claims)
    if any(_comes_out(value, claim, stated) or _converts(value, claim) for value, claim in pairs):
        return None
    return Slip(calculation=left.bare, stated=stated, value=values[0])


class _Reader:
    """Walks over tokens in one direction and keeps what it takes."""

    def __init__(self, tokens: Sequence[_Token], at: int, step: int) -> None:
        self._tokens = tokens
        self._at = at
        self._step = step
        self.taken: list[_Token] = []

    @property
    def kind(self) -> str:
        """The kind of the token that comes next."""
        return self._tokens[self._at].kind if 0 <= self._at < len(self._tokens) else "end"

    def take(self, kind: str, most: int = _MOST_TERMS) -> int:
        """Take tokens of one kind, and return how many there were."""
        taken = 0
        while taken < most and self.kind == kind:
            self.taken.append(self._tokens[self._at])
            self._at += self._step
            taken += 1
        return taken


def _left_of(tokens: Sequence[_Token], equals: int) -> _Side | None:
    """Read the calculation that ends before an equals sign; None where it cannot be read whole."""
    reader = _Reader(tokens, equals - 1, -1)
    for _ in range(_MOST_TERMS):
        reader.take("word", _MOST_UNIT_WORDS)
        reader.take("close")
        if not reader.take("number", 1):
            return None
        reader.take("open")
        if not reader.take("sign", 1):
            break
    return _side(reader.taken[::-1]) if reader.kind in {"word", "end", "equals", "bullet"} else None


def _right_of(tokens: Sequence[_Token], equals: int) -> _Side | None:
    """Read the calculation or the number that follows an equals sign; None where it cannot be read whole."""
    reader = _Reader(tokens, equals + 1, 1)
    if reader.take("sign", 1) and reader.taken[0].text != "-":
        return None
    for _ in range(_MOST_TERMS):
        reader.take("open")
        if not reader.take("number", 1):
            return None
        reader.take("close")
        if reader.kind in {"number", "open", "odd"}:
            return None
        reader.take("word", _MOST_UNIT_WORDS)
        if not reader.take("sign", 1):
            return _side(reader.taken)
    return None


def _side(tokens: Sequence[_Token]) -> _Side:
    units = [token.text.lower().rstrip("s") for token in tokens if token.kind == "word"]
    written = [
        f" {token.text} " if token.kind == "sign" else token.text for token in tokens if token.kind != "word"
    ]
    terms = sum(token.kind == "number" for token in tokens)
    return _Side(bare=_balanced("".join(written)), units=frozenset(units), terms=terms)


def _balanced(calculation: str) -> str:
    """Return a calculation without the brackets of the sentence that it stands in, and its sign unspaced."""
    calculation = re.sub(r"\A - ", "-", calculation)
    while calculation.startswith("(") and calculation.count("(") > calculation.count(")"):
        calculation = calculation[1:]
    while calculation.endswith(")") and calculation.count(")") > calculation.count("("):
        calculation = calculation[:-1]
    return calculation


def _mixes_measures(left: _Side, right: _Side) -> bool:
    """Return whether a sum adds unlike measures, such as hours and minutes, or turns one into another."""
    if " + " not in left.bare and " - " not in left.bare:
        return False
    units = left.units | right.units
    return any(map(_SCALES.match, units)) or (len(units) > 1 and any(map(_MEASURES.match, units)))


def _readings(calculation: str) -> list[Fraction]:
    """Return what a calculation may make, by the book first.

    Some answers count in the order of writing, and name 20% as 20 or as 0.2.
    """
    readings = [_value(calculation)]
    if "%" in calculation:
        readings.append(_value(calculation.replace("%", "")))
    elif "(" not in calculation and calculation.count(" ") > 2:  # noqa: PLR2004  # one sign has one order
        first, *rest = calculation.split(" ")
        in_order = "(" * (len(rest) // 2) + first
        for sign, number in zip(rest[::2], rest[1::2], strict=False):
            in_order += f" {sign} {number})"
        readings.append(_value(in_order))
    return readings


def _comes_out(value: Fraction, claim: Fraction, stated: str) -> bool:
    """Return whether a value is what is claimed.

    A value that needs more decimals than are shown may be rounded either way; the last of many decimals may be
    off because what went in was rounded.
    """
    decimals = len(stated.strip("()%").partition(".")[2])
    off = abs(value - claim)
    if decimals > _FLOAT_DECIMALS and off <= abs(value) * _FLOAT_NOISE:
        return True
    unit = Fraction(1, 10**decimals)
    exact = (value / unit).denominator == 1 and decimals < _MANY_DECIMALS
    return off == 0 if exact else off <= unit


def _converts(value: Fraction, claim: Fraction) -> bool:
    """Return whether a claim may be the same value in another unit, such as hours for minutes."""
    return bool(value and claim) and not _CONVERSIONS.isdisjoint({value / claim, claim / value})


class _AmbiguousError(Exception):
    """A calculation can be read in more than one way."""


_BINARY: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def _value(calculation: str) -> Fraction:
    if calculation.isdecimal():  # most are: parsing is what takes the time
        return Fraction(calculation)
    python = re.sub(r"([\d.]+)", r"'\1'", calculation.replace(",", ""))  # as text: floats would lose digits
    python = re.sub(r"('[\d.]+')%", r"share(\1)", python)
    return _evaluated(ast.parse(python, mode="eval").body)


def _evaluated(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=str() as number):
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluated(operand)
        case ast.Call(args=[share]):
            return _evaluated(share) / 100
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
            if isinstance(sign, ast.Add | ast.Sub) and _is_share(left) != _is_share(right):
                raise _AmbiguousError
            return _BINARY[type(sign)](_evaluated(left), _evaluated(right))
    raise SyntaxError


def _is_share(node: ast.expr) -> bool:
    """Return whether an expression is made of percentages alone, added up."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        return _is_share(node.left) and _is_share(node.right)
    return isinstance(node, ast.Call)
