"""Votes: which of several answers to one question agree."""

from __future__ import annotations

import re

from tale_lab.questions.answer_extraction import marked_answer, read_choice, read_number

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
