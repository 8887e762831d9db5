"""Fitting texts into a context budget by their relevance to a question, without a model call.

Context is paid for on every call, and what is irrelevant to the question only distracts. Relevance is BM25
(Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, section 3), over the
given texts; any other scorer can be used instead.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from tale_core.errors import InvalidValueError
from tale_core.tokens import count_tokens

Scorer: TypeAlias = Callable[[str, Sequence[str]], Sequence[float]]
"""How relevant each text is to a question; larger is more, 0 is not at all."""

Fitted: TypeAlias = tuple[int, str]
"""The position of a text that was kept, and the text: whole, or its most relevant sentences with ``...`` where
others were left out."""

_WORD = re.compile(r"[^\W_]+")
# Scripts without spaces between words are compared by pairs of characters.
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
# A sentence ends after its punctuation and white space, after full-width punctuation, or at a line break.
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|(?<=[。！？])|\n+")
# In a handful of texts these may happen to be rare, and would then count like the question's own words.
_FUNCTION_WORDS = frozenset(
    _WORD.findall(
        "a an and are as at be been but by can could did do does for from had has have he her his how i if in "
        "is it its me my of on or our she should so that the their them then there they this to was we were "
        "what when where which who whom whose why will with would you your"
    )
)
_SATURATION = 1.5  # k1: how soon repeating a word stops mattering
_LENGTH_SHARE = 0.75  # b: how much long texts are penalised
_GAP = " ... "


def fit_context(
    question: str,
    texts: Sequence[str],
    budget: int,
    *,
    count: Callable[[str], int] = count_tokens,
    scorer: Scorer | None = None,
) -> list[Fitted]:
    """Choose the texts, and the sentences of texts, that are most relevant to a question and fit into a budget.

    Texts are taken whole in order of relevance while they fit; one that does not fit is cut down to its most
    relevant sentences. What shares no word with the question is left out, unless that is everything: then the
    first texts and sentences are kept, since they may be in order of relevance already.

    Args:
        question: What the texts are to answer.
        texts: The texts, in the order in which they are to be read.
        budget: Tokens that all kept texts together may have, as ``count`` counts them.
        count: Counts the tokens of a text; the default is an estimate.
        scorer: Scores texts, and sentences of texts; None for BM25.

    Returns:
        What was kept, in the order of ``texts``. Empty when not even one relevant sentence fits.

    Raises:
        InvalidValueError: The budget is below 1, or the scorer does not score every text.

    Example:
        >>> texts = ["Bob sails. He is tired.", "Ann was born in 1990. She likes tea and old maps."]
        >>> fit_context("When was Ann born?", texts, 8, count=lambda text: len(text.split()))
        [(1, 'Ann was born in 1990.')]
    """
    if budget < 1:
        raise InvalidValueError(f"a context budget is a number of tokens of at least 1, got {budget}")
    costs = [count(text) for text in texts]
    # Everything fits, so nothing is judged irrelevant.
    if sum(costs) <= budget:
        return list(enumerate(texts))
    score = bm25 if scorer is None else scorer
    kept: list[Fitted] = []
    left = budget
    for index in _relevant(_scores(score, question, texts)):
        text = texts[index]
        if costs[index] > left:
            text = _best_sentences(question, text, left, count, score)
        if text:
            kept.append((index, text))
            left -= count(text)
    return sorted(kept)


def bm25(question: str, texts: Sequence[str]) -> list[float]:
    """Score texts by the question's words in them; rare words count for more, long texts for less.

    The texts themselves decide what is rare. A text that shares no word with the question scores 0.
    """
    documents = [Counter(_terms(text)) for text in texts]
    mean = sum(map(Counter.total, documents)) / max(1, len(documents)) or 1.0
    asked = set(_terms(question))
    # A question of function words alone still has to find something.
    wanted = {
        term: sum(term in document for document in documents) for term in asked - _FUNCTION_WORDS or asked
    }
    scores = []
    for document in documents:
        damping = _SATURATION * (1 - _LENGTH_SHARE + _LENGTH_SHARE * document.total() / mean)
        scores.append(
            sum(
                _rarity(holders, len(documents))
                * document[term]
                * (_SATURATION + 1)
                / (document[term] + damping)
                for term, holders in wanted.items()
                if term in document
            )
        )
    return scores


def sentences(text: str) -> list[str]:
    """Split a text into sentences, at punctuation and line breaks; none is empty."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def _rarity(holders: int, total: int) -> float:
    return math.log(1 + (total - holders + 0.5) / (holders + 0.5))


def _terms(text: str) -> list[str]:
    terms = []
    for word in _WORD.findall(text.lower()):
        if _UNSPACED.search(word):
            terms += [word[start : start + 2] for start in range(max(1, len(word) - 1))]
        else:
            terms.append(word)
    return terms


def _scores(scorer: Scorer, question: str, texts: Sequence[str]) -> Sequence[float]:
    scores = scorer(question, texts)
    if len(scores) != len(texts):
        raise InvalidValueError(
            f"the scorer returned {len(scores)} scores for {len(texts)} texts; return one each"
        )
    return scores


def _relevant(scores: Sequence[float]) -> list[int]:
    """Return the positions of all scores above 0, the highest first; all positions if there is none."""
    positive = [index for index, score in enumerate(scores) if score > 0]
    return sorted(positive, key=lambda index: -scores[index]) or list(range(len(scores)))


def _best_sentences(question: str, text: str, budget: int, count: Callable[[str], int], scorer: Scorer) -> str:
    """Return the most relevant sentences of a text that fit, in their order; empty when none does."""
    parts = sentences(text)
    chosen: list[int] = []
    for index in _relevant(_scores(scorer, question, parts)):
        wider = sorted([*chosen, index])
        if count(_joined(parts, wider)) <= budget:
            chosen = wider
    return _joined(parts, chosen)


def _joined(parts: Sequence[str], chosen: Sequence[int]) -> str:
    text = ""
    for position, index in enumerate(chosen):
        if position:
            text += " " if index == chosen[position - 1] + 1 else _GAP
        text += parts[index]
    return text
