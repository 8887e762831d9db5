"""Training examples from measured answers, and the lines that training programs read.

An example is a question with the shortest answer that was found right: after a search, the one under the
optimal budget. Without reference answers, the answer that most agree on counts as right.
Lines are TRL's conversational datasets, or OpenAI's fine-tuning files.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field

from tale_core.search.budget_search import SearchTrace
from tale_core.types import CountSource, Record
from tale_lab.questions.answer_extraction import vote

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tale_core.protocols import Strategy
    from tale_core.search.curves import Probe
    from tale_lab.curves.elasticity import Measurement
    from tale_lab.questions.datasets import Question

Labels: TypeAlias = Literal["graded", "majority"]
"""Who says what is right: ``graded``, the grader of the search; ``majority``, the answer that most agree on."""

Format: TypeAlias = Literal["sft", "dpo", "openai-sft", "openai-dpo", "reward"]
"""``sft``, ``dpo``, ``reward``: for TRL. ``openai-sft``, ``openai-dpo``: files to upload to OpenAI."""

Pairing: TypeAlias = Literal["vanilla", "wrong", "both"]
"""What an answer is preferred to: ``vanilla``, the answer without a budget; ``wrong``, a wrong answer that is
no longer; ``both`` makes a pair of each."""

Line: TypeAlias = dict[str, Any]
"""One JSON object of a file."""

OPENAI_FEWEST = 10
"""The fewest lines that OpenAI accepts."""

FEWEST_VOTES = 3
"""Readable answers that a majority needs at least."""


class Answer(Record):
    """One answer, and what it cost."""

    text: str
    tokens: int = Field(ge=0)
    """Output tokens."""
    budget: int | None
    """The budget it was given under, in output tokens; None is vanilla chain of thought."""

    @classmethod
    def of(cls, probe: Probe) -> Answer:
        """Return the answer of one probe."""
        return cls(text=probe.text.strip(), tokens=probe.usage.output_tokens, budget=probe.budget)


class Example(Record):
    """What a model can learn from one question."""

    question: str
    question_id: str
    """The id that the search gave it."""
    concise: Answer
    vanilla: Answer
    """The answer without a budget: what the model would say."""
    wrong: Answer | None
    """A wrong answer that is no longer than the right one, where there is one."""
    strategy: str
    """Name of the prompt strategy that carried the budget."""
    model: str
    """The model that answered, as its provider names it."""
    source: CountSource
    """Whether the provider counted the tokens or a tokenizer estimated them."""


def examples_of(
    traces: Iterable[SearchTrace | Measurement],
    *,
    labels: Labels = "graded",
    min_tokens: int = 1,
    with_vanilla: bool = False,
) -> tuple[Example, ...]:
    """Return one example for every question that has a right answer shorter than its vanilla one.

    A question that was measured more than once (in two strategies, say) gives its shortest example.

    Args:
        traces: Searches, and measurements of the elasticity curve.
        labels: Who says what is right.
        min_tokens: Least output tokens of an answer to learn; bare answers teach a model to guess.
        with_vanilla: Whether a question that only its vanilla answer got right gives that one.
    """
    found: dict[str, Example] = {}
    for trace in traces:
        example = _example(trace, labels, min_tokens, with_vanilla=with_vanilla)
        if example is None:
            continue
        before = found.get(key := question_key(trace.question))
        if before is None or example.concise.tokens < before.concise.tokens:
            found[key] = example
    return tuple(found.values())


def question_key(question: str) -> str:
    """Return what makes two questions the same: their words, whatever the case and the spacing."""
    return " ".join(question.casefold().split())


def agreed_answer(texts: Iterable[str]) -> str | None:
    """Return the answer that more than half of the readable texts give, in one spelling.

    Returns:
        The answer; None when fewer than `FEWEST_VOTES` are readable, or no answer has a majority.
    """
    votes = Counter(vote for vote in map(vote, texts) if vote is not None)
    if votes.total() < FEWEST_VOTES:
        return None
    answer, count = votes.most_common(1)[0]
    return answer if 2 * count > votes.total() else None


def _example(
    trace: SearchTrace | Measurement, labels: Labels, min_tokens: int, *, with_vanilla: bool
) -> Example | None:
    right, wrong = _judged(trace.probes, labels)
    plain = [probe for probe in trace.probes if probe.budget is None]
    vanilla = min(plain, key=_tokens)
    wanted = _under_budget(trace, right, labels)
    concise = _shortest(wanted, min_tokens)
    if concise is not None and _tokens(concise) >= _tokens(vanilla):
        concise = None
    if concise is None and with_vanilla:
        concise = _shortest([probe for probe in right if probe.budget is None], min_tokens)
    if concise is None:
        return None
    # No longer than the right one: otherwise training could prefer it for its length alone.
    short = [probe for probe in wrong if probe.text.strip() and _tokens(probe) <= _tokens(concise)]
    return Example(
        question=trace.question,
        question_id=trace.question_id,
        concise=Answer.of(concise),
        vanilla=Answer.of(vanilla),
        wrong=Answer.of(max(short, key=_tokens)) if short else None,
        strategy=trace.settings.strategy,
        model=concise.model or "",
        source=concise.usage.source,
    )


def _judged(probes: Sequence[Probe], labels: Labels) -> tuple[list[Probe], list[Probe]]:
    """Split answers into right and wrong ones; nothing is wrong where no majority says what is right."""
    if labels == "graded":
        return [one for one in probes if one.correct], [one for one in probes if not one.correct]
    # A majority over all budgets: one budget alone has too few samples.
    agreed = agreed_answer(probe.text for probe in probes)
    if agreed is None:
        return [], []
    right = [probe for probe in probes if vote(probe.text) == agreed]
    return right, [probe for probe in probes if vote(probe.text) != agreed]


def _under_budget(trace: SearchTrace | Measurement, right: Sequence[Probe], labels: Labels) -> list[Probe]:
    """Return the right answers to choose from: those under the budget that a search chose by the grades."""
    budgeted = [probe for probe in right if probe.budget is not None]
    if isinstance(trace, SearchTrace) and labels == "graded":
        return [probe for probe in budgeted if probe.budget == trace.chosen]
    return budgeted


def _shortest(probes: Iterable[Probe], min_tokens: int) -> Probe | None:
    # A truncated answer would teach the model to stop midway.
    whole = (one for one in probes if one.finish_reason != "length" and one.text.strip())
    return min((one for one in whole if _tokens(one) >= min_tokens), key=_tokens, default=None)


def _tokens(probe: Probe) -> int:
    return probe.usage.output_tokens


def prompt_of(question: str, strategy: Strategy) -> list[dict[str, str]]:
    """Return the conversation before the answer: the question as it will be asked, without a budget."""
    return [message.model_dump() for message in strategy.frame(question, None).messages(question)]


def lines_of(
    example: Example, prompt: list[dict[str, str]], file_format: Format, pairing: Pairing = "vanilla"
) -> list[Line]:
    """Return the lines of an example: one, or in the formats of pairs one a pair."""
    chosen = _said(example.concise)
    others = [_said(one) for one in rejected(example, pairing)]
    if file_format == "sft":
        return [{"prompt": prompt, "completion": chosen}]
    if file_format == "openai-sft":
        return [{"messages": [*prompt, *chosen]}]
    if file_format == "dpo":
        return [{"prompt": prompt, "chosen": chosen, "rejected": other} for other in others]
    asked = {"messages": prompt, "tools": [], "parallel_tool_calls": True}
    return [{"input": asked, "preferred_output": chosen, "non_preferred_output": other} for other in others]


def reward_line(example: Example, prompt: list[dict[str, str]], question: Question, grader: str) -> Line:
    """Return the line of TRL's prompt-only format, with the columns that our reward functions read."""
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
    others = {"vanilla": example.vanilla, "wrong": example.wrong}
    found = [one for name, one in others.items() if one is not None and pairing in {name, "both"}]
    # A pair of equal texts teaches nothing, and an empty one cannot be sent.
    return [one for one in found if one.text not in {"", example.concise.text}]


def _said(answer: Answer) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": answer.text}]


def as_jsonl(lines: Sequence[Line]) -> str:
    """Return the text of a file of these lines."""
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
