"""What training programs read: TRL's conversational datasets, and OpenAI's fine-tuning files.

Every format is a function from an example to its lines; OpenAI's are checked against models of their form
(platform.openai.com, supervised and preference fine-tuning) before anything is uploaded.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tale_core.types import Strategy
    from tale_lab.questions.datasets import Question
    from tale_lab.training.examples import Answer, Example

Format: TypeAlias = Literal["sft", "dpo", "openai-sft", "openai-dpo", "reward"]
"""``sft``, ``dpo``, ``reward``: for TRL. ``openai-sft``, ``openai-dpo``: files to upload to OpenAI."""

Pairing: TypeAlias = Literal["vanilla", "wrong", "both"]
"""What an answer is preferred to: ``vanilla``, the answer without a budget; ``wrong``, a wrong answer that is
no longer; ``both`` makes a pair of each."""

Line: TypeAlias = dict[str, Any]
"""One JSON object of a file."""

OPENAI_FEWEST = 10
"""Lines that OpenAI wants at least."""


def prompt_of(question: str, strategy: Strategy) -> list[dict[str, str]]:
    """Return the conversation before the answer: the question as it will be asked, without a budget.

    Args:
        question: The question, unframed.
        strategy: How it will be asked.
    """
    return [message.model_dump() for message in strategy.frame(question, None).messages(question)]


def sft_lines(example: Example, prompt: list[dict[str, str]]) -> list[Line]:
    """Return the line of TRL's prompt-completion format."""
    return [{"prompt": prompt, "completion": _said(example.concise)}]


def dpo_lines(example: Example, prompt: list[dict[str, str]], pairing: Pairing) -> list[Line]:
    """Return the lines of TRL's preference format, one a pair."""
    chosen = _said(example.concise)
    return [{"prompt": prompt, "chosen": chosen, "rejected": _said(one)} for one in rejected(example, pairing)]


def openai_sft_lines(example: Example, prompt: list[dict[str, str]]) -> list[Line]:
    """Return the line of OpenAI's supervised format."""
    return [{"messages": [*prompt, *_said(example.concise)]}]


def openai_dpo_lines(example: Example, prompt: list[dict[str, str]], pairing: Pairing) -> list[Line]:
    """Return the lines of OpenAI's preference format, one a pair."""
    return [
        {
            "input": {"messages": prompt, "tools": [], "parallel_tool_calls": True},
            "preferred_output": _said(example.concise),
            "non_preferred_output": _said(one),
        }
        for one in rejected(example, pairing)
    ]


def reward_line(example: Example, prompt: list[dict[str, str]], question: Question, grader: str) -> Line:
    """Return the line of TRL's prompt-only format, with the columns that our reward functions read.

    Args:
        example: Says the question's own budget.
        prompt: The conversation before the answer.
        question: The reference answer, and what its grader needs.
        grader: Name of the grader.
    """
    return {
        "prompt": prompt,
        "question": question.question,
        "answer": question.answer,
        "grader": grader if grader != "auto" or question.grader is None else question.grader,
        "meta": json.dumps(question.meta, ensure_ascii=False),  # one type for all lines, whatever is in it
        "budget": example.concise.budget or example.concise.tokens,
        "baseline_tokens": example.vanilla.tokens,
    }


def rejected(example: Example, pairing: Pairing) -> list[Answer]:
    """Return what the concise answer is preferred to, by the pairing rule."""
    others = []
    if pairing in {"vanilla", "both"} and example.vanilla.text != example.concise.text:
        others.append(example.vanilla)
    if pairing in {"wrong", "both"} and example.wrong is not None:
        others.append(example.wrong)
    return [one for one in others if one.text]


def _said(answer: Answer) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": answer.text}]


def writer(file_format: Format, pairing: Pairing) -> Callable[[Example, list[dict[str, str]]], list[Line]]:
    """Return the function that makes the lines of an example; ``reward`` has one of its own.

    Args:
        file_format: The format.
        pairing: The pairing rule, for the formats of pairs.
    """
    known: dict[Format, Callable[[Example, list[dict[str, str]]], list[Line]]] = {
        "sft": sft_lines,
        "openai-sft": openai_sft_lines,
        "dpo": lambda example, prompt: dpo_lines(example, prompt, pairing),
        "openai-dpo": lambda example, prompt: openai_dpo_lines(example, prompt, pairing),
    }
    return known[file_format]


def as_jsonl(lines: Sequence[Line]) -> str:
    """Return the text of a file of these lines."""
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
