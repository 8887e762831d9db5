"""Rewards for a correct answer and for tokens saved, as plain functions that TRL's GRPO trainer can call.

Use them in a script of your own::

    from datasets import load_dataset
    from trl import GRPOTrainer
    from tale_lab.training import concise_reward

    data = load_dataset("json", data_files="DIR/train.jsonl", split="train")  # tale export --format reward
    GRPOTrainer(model, reward_funcs=concise_reward, train_dataset=data).train()

Each takes the columns of the ``reward`` format as lists, one entry a completion, and returns one reward each.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from tale_core.errors import GraderError, InvalidValueError
from tale_core.tokens import count_tokens
from tale_lab.questions.datasets import Question, check_grader
from tale_lab.questions.graders import get_grader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_core.types import Grade

_GRADERS_KEPT = 4096  # GRPO asks each question many times; binding a grader may start a process


def brevity(tokens: int, budget: int) -> float:
    """Return what an answer earns for its tokens, against the question's own budget.

    budget / (budget + tokens): falls with every token, 1/2 at the budget, near 0 far above it. It is bounded,
    so that no length outweighs a right answer.

    Args:
        tokens: Output tokens of the answer.
        budget: The question's own budget, in output tokens, at least 1.

    Raises:
        InvalidValueError: The budget or the token count is negative or 0.

    Example:
        >>> [round(brevity(tokens, 50), 2) for tokens in (10, 50, 450)]
        [0.83, 0.5, 0.1]
    """
    if budget < 1 or tokens < 0:
        raise InvalidValueError(f"a budget is at least 1 and tokens at least 0, got {budget} and {tokens}")
    return budget / (budget + tokens)


def reward(*, correct: bool, tokens: int, budget: int, weight: float = 0.5) -> float:
    """Return the reward of one answer: nothing for a wrong one, however short.

    Args:
        correct: Whether the answer is right.
        tokens: Output tokens of the answer.
        budget: The question's own budget, in output tokens.
        weight: What brevity is worth against correctness, from 0.

    Example:
        >>> reward(correct=True, tokens=50, budget=50), reward(correct=False, tokens=1, budget=50)
        (1.25, 0.0)
    """
    return 1.0 + weight * brevity(tokens, budget) if correct else 0.0


def correct_reward(
    completions: Sequence[Any],
    *,
    question: Sequence[str],
    answer: Sequence[str],
    grader: Sequence[str],
    meta: Sequence[str],
    **_: Any,
) -> list[float]:
    """Return 1 for every right completion and 0 for every other.

    Args:
        completions: Texts, or conversations with one message of the assistant.
        question: The plain questions.
        answer: The reference answers.
        grader: Names of the graders.
        meta: What else is known of the questions, as JSON.

    Raises:
        DataError: A row names a grader that data may not name, or its grader cannot read the reference answer.
        InvalidValueError: A grader asks a model.
    """
    # Files of others are trained on, too: a name in them must never lead to an import.
    for row, name in enumerate(grader, 1):
        check_grader(name, f"reward data, row {row}")
    asked = zip(completions, question, answer, grader, meta, strict=True)
    return [float(_is_right(_grade(*known), _text(given))) for given, *known in asked]


def _is_right(grade: Grade, text: str) -> bool:
    try:
        return grade(text) in {True, "correct"}
    except GraderError:  # one answer's failure earns nothing, and ends no training
        return False


def concise_reward(
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]] | None = None,
    *,
    budget: Sequence[int],
    **columns: Any,
) -> list[float]:
    """Return `reward` for every completion: right and short pays most, wrong pays nothing.

    Args:
        completions: Texts, or conversations with one message of the assistant.
        completion_ids: Their tokens; None counts the tokens of the texts, which is an estimate.
        budget: The questions' own budgets, in output tokens.
        **columns: The other columns, for `correct_reward`.

    Example:
        >>> concise_reward(
        ...     ["3 + 4 = 7", "7", "8"],
        ...     [[1] * 6, [1], [1]],
        ...     budget=[6, 6, 6],
        ...     question=["3 + 4?"] * 3,
        ...     answer=["7"] * 3,
        ...     grader=["numeric"] * 3,
        ...     meta=["{}"] * 3,
        ... )
        [1.25, 1.4285714285714286, 0.0]
    """
    right = correct_reward(completions, **columns)
    lengths = (
        [count_tokens(_text(one)) for one in completions]
        if completion_ids is None
        else [len(ids) for ids in completion_ids]
    )
    return [
        reward(correct=bool(one), tokens=tokens, budget=own)
        for one, tokens, own in zip(right, lengths, budget, strict=True)
    ]


@functools.lru_cache(maxsize=_GRADERS_KEPT)
def _grade(question: str, answer: str, grader: str, meta: str) -> Grade:
    known = Question.of(question, answer, grader=grader, meta=json.loads(meta))
    grade = get_grader(grader)(known)
    if isinstance(grade(answer), Generator):
        raise InvalidValueError(
            f"grader {grader!r} asks a model, which a reward cannot; export with --grader auto, numeric, "
            "exact, choice, structured, math or gym"
        )
    return grade


def _text(completion: Any) -> str:
    """Return the words of a completion, which are a text or the assistant's turn of a conversation."""
    return completion if isinstance(completion, str) else "".join(one["content"] or "" for one in completion)
