r"""Methods that are one call: Concise CoT, Chain of Draft, Sketch-of-Thought, and native effort levels.

Sketch-of-Thought (Aytes et al., arXiv 2503.05179) has three strategies, each a system prompt with examples. The
authors' router chooses among them by question; here each is a method of its own. The instructions restate
those of the paper's appendix B in fewer words, with its steps, rules and notation; the examples are the
authors'. Their ``<think>`` tags, added for their own evaluation, are left out: chat templates and clients take
the text between them for hidden reasoning and drop it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeAlias

from tale_core.errors import InvalidValueError
from tale_core.prompts.builtin import DRAFT_WORDS
from tale_core.types import ControlSetting
from tale_lab.bench.methods import published_examples
from tale_lab.bench.methods.base import Conditions, Method, Said, ask, register_method

if TYPE_CHECKING:
    from typing_extensions import Self

    from tale_core.types import Flow

_SOURCE = (
    "Aytes et al., arXiv 2503.05179, {}; examples as published, instructions restated from its appendix B, "
    "without the tags around the reasoning"
)
_FORMAT = (
    "Give the shorthand reasoning first, then the final answer on a line of its own, boxed: \\boxed{answer}. "
    "For a multiple-choice question, box the letter of the right option. Use minimal words."
)

Examples: TypeAlias = tuple[tuple[str, str], ...]
"""Worked examples, each a question and its answer."""


class Worded(Method):
    """A method that asks every question once, in the same words; they are its settings."""

    system: str = ""
    """The system message; empty for none."""
    examples: Examples = ()
    """Worked examples, each a question and its answer."""
    before: str = ""
    after: str = ""

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


@register_method
class SketchSymbolism(Worded):
    """Chunked Symbolism: variables and equations, one computation a line."""

    name: ClassVar[str] = "sketch-symbolism"
    source: ClassVar[str] = _SOURCE.format("Chunked Symbolism")

    system: str = (
        "You are a reasoning expert in Chunked Symbolism: you organise numerical reasoning into small "
        "structured steps, as equations, variables and step-by-step arithmetic, with minimal words.\n"
        "1. Identify variables: extract the relevant values and define a variable for each.\n"
        "2. Write equations: state the solution as explicit formulas.\n"
        "3. Compute step by step: one computation a line.\n"
        "4. Label units, the same way throughout.\n"
        "Do not restate the problem; go straight to the calculations, with context only where it is needed.\n"
        + _FORMAT
    )
    examples: Examples = published_examples.SYMBOLISM


@register_method
class SketchChaining(Worded):
    """Conceptual Chaining: key terms linked by arrows."""

    name: ClassVar[str] = "sketch-chaining"
    source: ClassVar[str] = _SOURCE.format("Conceptual Chaining")

    system: str = (
        "You are a reasoning expert in structured concept linking: you connect the essential ideas in a "
        "logical sequence, as clear stepwise chains, with minimal explanation.\n"
        "1. Extract the key concepts: the most relevant words or entities.\n"
        "2. Use minimal words: each step concise and direct.\n"
        "3. Link the steps in sequence: arrows (→) show what depends on what.\n"
        "4. Avoid full sentences: connect keywords.\n"
        "Do not restate the question. Each step must follow from the one before and add to the reasoning.\n"
        + _FORMAT
    )
    examples: Examples = published_examples.CHAINING


@register_method
class SketchLexicons(Worded):
    """Expert Lexicons: the shorthand and notation of a field."""

    name: ClassVar[str] = "sketch-lexicons"
    source: ClassVar[str] = _SOURCE.format("Expert Lexicons")

    system: str = (
        "You are a reasoning expert in Expert Lexicons: you reason in the shorthand, technical symbols "
        "and jargon of a field, compact and dense, and keep it accurate and clear.\n"
        "1. Use technical symbols in place of common terms: ∑, ∴, ∝, Δ, →; mol, J, Hz, pH; CHF, PID, dB.\n"
        "2. Use the abbreviations of the field.\n"
        "3. Include only what the reasoning needs.\n"
        "4. Follow the standard notation of the field.\n"
        "No full sentences, and no restating of the question: express the solution directly.\n" + _FORMAT
    )
    examples: Examples = published_examples.LEXICONS


class Effort(Method):
    """The plain question at one effort level: a model that thinks by itself is not told to think as well."""

    source: ClassVar[str] = "the provider's reasoning effort"

    @classmethod
    def under(cls, conditions: Conditions) -> Self:
        """Return the method, if the run's model has the level; see `Method.under`."""
        if cls.level() not in conditions.efforts:
            known = ", ".join(conditions.efforts) or "none"
            raise InvalidValueError(
                f"{cls.name} needs a model that accepts the effort level {cls.level()!r}; known for this one: "
                f"{known}; leave the method out"
            )
        return cls()

    @classmethod
    def level(cls) -> str:
        """Return the level as the provider spells it."""
        return cls.name.removeprefix("effort-")

    def answer(self, question: str) -> Flow[Said]:
        """Plan the answer; see `Method.answer`."""
        # Models with effort levels refuse a temperature, most of them at every level.
        why = f"method {self.name}"
        setting = ControlSetting(control="effort", value=self.level(), why=why, temperature=False)
        reply = yield ask(question).model_copy(update={"setting": setting})
        return Said(text=reply.text)


class EffortNone(Effort):
    """No thinking."""

    name: ClassVar[str] = "effort-none"


class EffortLow(Effort):
    """Low effort."""

    name: ClassVar[str] = "effort-low"


class EffortMedium(Effort):
    """Medium effort."""

    name: ClassVar[str] = "effort-medium"


class EffortHigh(Effort):
    """High effort."""

    name: ClassVar[str] = "effort-high"
