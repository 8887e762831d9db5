"""What can be counted in a question, for the estimators that learn budgets from its text.

Plain Python on purpose: it runs for every question, and takes some 30 microseconds.
"""

from __future__ import annotations

import math
import re
from collections import Counter

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_NUMBER = re.compile(r"\d+(?:[,.]\d+)*")
_SENTENCE = re.compile(r"[.!?;。！？；\n]+(?=\s|$|[\u3400-\u9fff])")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_OPTION = re.compile(r"^\s*\(?[A-Fa-f][).:、]\s", re.MULTILINE)
# Two Chinese characters carry about as much as one English word.
_HAN_PER_WORD = 2
_ROUNDING = 1e-6

_VOCABULARY = {
    "quantities": (
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand "
        "million billion dozen pair couple"
    ),
    "fractions": (
        "half halves third thirds quarter quarters fourth fourths fifth fifths percent percentage ratio"
    ),
    "comparisons": (
        "more less fewer than twice double triple times most least greater larger smaller longer shorter older "
        "younger bigger faster slower higher lower same equal difference compared both"
    ),
    "rates": (
        "each every per daily weekly monthly yearly hourly average rate speed cost costs price "
        "total altogether sum combined"
    ),
    "order": (
        "then after before first second next last finally later until remaining remains rest left "
        "again now initially"
    ),
    "conditions": "if unless suppose assume assuming given when whether otherwise only except not without",
    "reasons": "prove proof show explain why how derive justify describe discuss define compare calculate",
}
_HAN_VOCABULARY = {
    "quantities": re.compile(r"[一二三四五六七八九十百千万亿两]"),
    "fractions": re.compile(r"一半|半|分之|百分|比例"),
    "comparisons": re.compile(r"比|倍|更|最|相同|相等|多于|少于|差"),
    "rates": re.compile(r"每|各|平均|速度|价格|单价|总共|一共|合计|共"),
    "order": re.compile(r"然后|之后|之前|首先|接着|最后|剩下|剩余|后来|再"),
    "conditions": re.compile(r"如果|假设|若|当|除非|否则|不|没有|只"),
    "reasons": re.compile(r"证明|解释|为什么|如何|怎样|说明|推导|比较|计算"),
}
_KIND = {word: kind for kind, words in _VOCABULARY.items() for word in words.split()}

FEATURES: tuple[str, ...] = (
    "words",
    "sentences",
    "numbers",
    "longest number",
    "decimals",
    "percentages",
    "money",
    "operators",
    "symbols",
    "questions",
    "options",
    *(f"{kind} in words" for kind in _VOCABULARY),
)
"""What `text_features` counts, in its order; learned files carry it, so that a change is noticed."""


def text_features(question: str) -> tuple[float, ...]:
    """Count what makes an answer long: log(1 + count) for each name in `FEATURES`.

    Logarithms, because what an answer costs grows by factors, and one odd question must not outweigh the
    others.
    """
    words = [word.lower() for word in _WORD.findall(question)]
    numbers = _NUMBER.findall(question)
    kinds = Counter(_KIND[word] for word in words if word in _KIND)
    han = len(_HAN.findall(question))
    if han:
        kinds.update({kind: len(found.findall(question)) for kind, found in _HAN_VOCABULARY.items()})
    characters = Counter(question)
    counts = (
        len(words) + han / _HAN_PER_WORD,
        len(_SENTENCE.findall(question)),
        len(numbers),
        max((len(number) for number in numbers), default=0),
        sum("." in number for number in numbers),
        _count(characters, "%％"),
        _count(characters, "$€£¥￥"),
        _count(characters, "+-−*×÷/=^<>≤≥√∑∫"),
        _count(characters, "\\{}[]()_`|&@#"),
        _count(characters, "?？"),
        len(_OPTION.findall(question)),
        *(kinds[kind] for kind in _VOCABULARY),
    )
    return tuple(math.log1p(count) for count in counts)


def tokens_of(logarithm: float, lowest: int, highest: int) -> int:
    """Return the budget whose natural logarithm is given, within two bounds, in output tokens."""
    if logarithm >= math.log(highest):  # compared as logarithms: far outside, the budget would overflow
        return int(highest)
    # A fit passes through some of its examples, whose whole numbers come back slightly above or below.
    return max(int(lowest), math.ceil(math.exp(logarithm) - _ROUNDING))


def _count(characters: Counter[str], wanted: str) -> int:
    return sum(characters[character] for character in wanted)
