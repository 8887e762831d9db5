"""Methods that are one call in a fixed wording: Concise CoT and Chain of Draft."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeAlias

from tale_core.prompts.builtin import DRAFT_WORDS
from tale_lab.bench.methods import published_examples
from tale_lab.bench.methods.base import Method, Said, ask, register_method

if TYPE_CHECKING:
    from tale_core.types import Flow


Examples: TypeAlias = tuple[tuple[str, str], ...]
"""Worked examples, each a question and its answer."""


class Worded(Method):
    """A method that asks every question once, in the same words; they are its settings."""

    system: str = ""
    """The system message; empty for none."""
    examples: Examples = ()
    """Worked examples, each a question and its answer."""
    before: str = ""
    """Text before the question."""
    after: str = ""
    """Text after the question."""

    def answer(self, question: str) -> Flow[Said]:
        """Plan the answer; see `Method.answer`."""
        words = {name: getattr(self, name) for name in Worded.model_fields}
        reply = yield ask(question, **words)
        return Said(text=reply.text)


@register_method
class Concise(Worded):
    """Concise CoT: think step by step, and be concise."""

    name: ClassVar[str] = "concise"
    source: ClassVar[str] = (
        "Renze and Guven, arXiv 2401.05618; the authors' sentences, without those on multiple choice "
        "and without their one multiple-choice example"
    )

    system: str = (
        "You are an intelligent assistant.\n"
        "Think step-by-step through the problem to ensure you have the correct answer.\n"
        "Then, answer the question.\n"
        "Be concise."
    )


@register_method
class Draft(Worded):
    """Chain of Draft without examples."""

    name: ClassVar[str] = "draft"
    source: ClassVar[str] = "Xu et al., arXiv 2502.18600, zero-shot; prompt as published"

    system: str = DRAFT_WORDS


@register_method
class DraftExamples(Worded):
    """Chain of Draft with the authors' examples for arithmetic."""

    name: ClassVar[str] = "draft-examples"
    source: ClassVar[str] = (
        "Xu et al., arXiv 2502.18600; prompt and GSM8K examples as published, shown as turns of a "
        "conversation in place of one text of Q: and A:"
    )

    system: str = DRAFT_WORDS
    examples: Examples = published_examples.DRAFT
