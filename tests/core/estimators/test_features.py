"""Questions become numbers, whatever they say."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tale_core.estimators.features import FEATURES, text_features

YOGA = (
    "Peyton's mother does yoga for one hour. The cooking class takes nine times as long, the museum tour "
    "half as long as that. If errands take 2 hours and $3.50, how long is she away, each day?"
)


def counted(question: str) -> dict[str, int]:
    """The counts themselves, by name."""
    return {
        name: round(math.expm1(value))
        for name, value in zip(FEATURES, text_features(question), strict=True)
        if value
    }


def test_a_question_is_counted_by_what_makes_its_answer_long() -> None:
    assert counted(YOGA) == {
        "words": 35,
        "sentences": 3,
        "numbers": 2,
        "longest number": 4,
        "decimals": 1,
        "money": 1,
        "questions": 1,
        "quantities in words": 2,
        "fractions in words": 1,
        "comparisons in words": 1,
        "rates in words": 1,
        "conditions in words": 1,
        "reasons in words": 1,
    }


def test_a_chinese_question_is_counted_too() -> None:
    counts = counted("小明每天吃3个苹果，小红吃的是他的两倍。如果一周后还剩下5个，一共有多少个苹果？")
    assert counts["numbers"] == 2
    assert counts["sentences"] == 2
    assert counts["rates in words"] == 2
    assert counts["comparisons in words"] == 1
    assert counts["conditions in words"] == 1
    assert counts["words"] > 10


@given(st.text())
def test_any_text_has_finite_features(question: str) -> None:
    features = text_features(question)
    assert len(features) == len(FEATURES)
    assert all(math.isfinite(value) and value >= 0 for value in features)
