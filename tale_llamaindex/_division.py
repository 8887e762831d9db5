"""How a question's budget is divided over the calls of a response mode.

Every call carries the whole text of the budget, so a budget of B becomes N x B where a mode makes N calls. What
is asked stands here as generators: they yield the calls to make, all that can be made at once, and are sent
nothing back, since what came back stands on the calls themselves.
"""

# ruff: noqa: SLF001  # what a synthesizer is made of has no public names

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.response_synthesizers import Accumulate, TreeSummarize
from llama_index.core.response_synthesizers.compact_and_accumulate import CompactAndAccumulate
from pydantic import BaseModel

from tale_llamaindex._tracking import Asking, framed_text

if TYPE_CHECKING:
    from llama_index.core.response_synthesizers import BaseSynthesizer

    from tale_llamaindex._tracking import Question

Chunks: TypeAlias = Sequence[str] | Sequence[ChatMessage]
"""The context: texts, or messages where it is multimodal."""


@dataclass(slots=True)
class Ask:
    """One use of a synthesizer under one budget."""

    synthesizer: BaseSynthesizer
    asking: Asking
    chunks: Any
    response: Any = None
    """What came back."""

    @property
    def query(self) -> str:
        """The framed question."""
        return framed_text(self.asking.plan)

    @property
    def spent(self) -> int:
        """Output tokens that came back."""
        return sum(answer.reason_usage.output_tokens for answer in self.asking.answers)


Division: TypeAlias = Generator[list[Ask], None, Any]
"""Yields what can be asked at once, and returns the answer."""


def divide(synthesizer: BaseSynthesizer, question: Question, chunks: Chunks, share: float = 1.0) -> Division:
    """Divide a budget by the synthesizer's response mode.

    Refining rewrites the whole answer in each call, so each may take the whole budget. Accumulated answers
    stand one after the other and share it. In a tree the root writes the answer with the whole budget, and the
    leaves, which only feed it, share as much among themselves.

    Args:
        synthesizer: The synthesizer.
        question: The question, planned.
        chunks: The context.
        share: What there is to divide, as a part of the question's budget.
    """
    if isinstance(synthesizer, Accumulate):
        return _accumulate(synthesizer, question, chunks, share)
    if isinstance(synthesizer, TreeSummarize):
        return _tree(synthesizer, question, chunks, share)
    return _each(synthesizer, question, chunks, share)


def _each(synthesizer: BaseSynthesizer, question: Question, chunks: Chunks, share: float) -> Division:
    """Let each call have the same share."""
    ask = Ask(synthesizer, portion(question, share), chunks)
    yield [ask]
    return ask.response


def portion(question: Question, share: float) -> Asking:
    """Return the question as it is asked with a share of its budget."""
    if question.plan is None:
        raise AssertionError("a question is planned before it is asked")
    plan = question.plan if share == 1 else question.run.portion(question.plan, share)
    return Asking(question, plan)


def without_streaming(synthesizer: BaseSynthesizer) -> BaseSynthesizer:
    """Return the synthesizer for answers that nobody reads as they come."""
    quiet = copy.copy(synthesizer)
    quiet._streaming = False
    return quiet


def _accumulate(synthesizer: Accumulate, question: Question, chunks: Chunks, share: float) -> Division:
    prompts = ("text_qa_template", "chat_content_qa_template")
    if isinstance(synthesizer, CompactAndAccumulate):
        chunks = _packed(synthesizer, question, chunks, *prompts)
    calls = 0
    for chunk in chunks:
        calls += len(_packed(synthesizer, question, [chunk], *prompts))
    return (yield from _each(synthesizer, question, chunks, share / max(1, calls)))


def _tree(synthesizer: TreeSummarize, question: Question, chunks: Chunks, share: float) -> Division:
    prompts = ("summary_template", "chat_summary_template")
    packed = _packed(synthesizer, question, chunks, *prompts)
    while len(packed) > 1:
        leaf = without_streaming(synthesizer)
        asks = [Ask(leaf, portion(question, share / len(packed)), [chunk]) for chunk in packed]
        yield asks
        packed = _packed(synthesizer, question, [_as_text(ask.response) for ask in asks], *prompts)
    return (yield from _each(synthesizer, question, packed, share))


def _packed(synthesizer: BaseSynthesizer, question: Question, chunks: Any, text: str, chat: str) -> Any:
    """Fit chunks into the context window around a prompt, as the synthesizer itself does.

    Args:
        synthesizer: The synthesizer.
        question: The question, with its framing.
        chunks: The context.
        text: Name of the prompt for texts.
        chat: Name of the prompt for messages.
    """
    messages = bool(chunks) and isinstance(chunks[0], ChatMessage)
    helper: Any = synthesizer._chat_prompt_helper if messages else synthesizer._prompt_helper
    template = synthesizer._get_prompts()[chat if messages else text]
    framed = template.partial_format(query_str=framed_text(portion(question, 1).plan))
    return helper.repack(framed, chunks, llm=synthesizer._llm)


def _as_text(response: Any) -> str:
    return response.model_dump_json() if isinstance(response, BaseModel) else str(response)
