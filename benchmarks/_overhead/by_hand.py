"""Fitting texts into a context budget as one would write it for oneself: BM25, then sentences, then stop."""

from __future__ import annotations

import math
import re
from collections import Counter

_TOPICS = ("tailor", "cloth", "ship", "market", "garden", "metres", "piece", "winter", "letter", "bridge")
PASSAGES = [
    f"The {topic} of passage {number} is old. It was made in {1900 + number} by a {topic} maker. Nobody knows "
    f"how long the {other} took. A {topic} is worth more than it costs."
    for number, (topic, other) in enumerate(zip(_TOPICS, _TOPICS[3:] + _TOPICS[:3], strict=True))
]
"""What is retrieved for a question."""
ROOM = 120
"""Words that the passages may have."""


def words(text: str) -> int:
    """Count the words of a text: both sides count alike, and cheaply."""
    return len(text.split())


def fitted_by_hand(question: str, texts: list[str], room: int) -> list[tuple[int, str]]:
    """Return the texts that bear on a question and fit, the last one cut to its best sentences."""
    kept: list[tuple[int, str]] = []
    scores = _bm25(question, texts)
    for at in sorted(range(len(texts)), key=lambda one: -scores[one]):
        text = texts[at]
        if scores[at] > 0 and words(text) > room:
            text = _cut(question, text, room)
        if scores[at] > 0 and text:
            kept.append((at, text))
            room -= words(text)
    return sorted(kept)


def _bm25(question: str, texts: list[str]) -> list[float]:
    documents = [Counter(re.findall(r"\w+", text.lower())) for text in texts]
    mean = sum(map(Counter.total, documents)) / len(documents)
    asked = {term: sum(term in one for one in documents) for term in re.findall(r"\w+", question.lower())}
    scores = []
    for one in documents:
        damping = 1.5 * (0.25 + 0.75 * one.total() / mean)
        scores.append(
            sum(
                math.log(1 + (len(texts) - held + 0.5) / (held + 0.5)) * one[term] * 2.5 / (one[term] + damping)
                for term, held in asked.items()
            )
        )
    return scores


def _cut(question: str, text: str, room: int) -> str:
    parts = re.split(r"(?<=[.!?])\s+", text)
    scores = _bm25(question, parts)
    kept = []
    for at in sorted(range(len(parts)), key=lambda one: -scores[one]):
        if scores[at] > 0 and words(parts[at]) <= room:
            kept.append(at)
            room -= words(parts[at])
    return " ".join(parts[at] for at in sorted(kept))
