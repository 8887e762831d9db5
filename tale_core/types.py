"""The data that flows exchange with whoever runs them.

All data is frozen and keyword-only. Token counts are *output tokens as the provider counts them* unless a
field says otherwise, and every count knows whether it was measured or estimated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Literal, TypeAlias, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from tale_core.errors import InvalidValueError

T = TypeVar("T")


class Record(BaseModel):
    """Base of all data here: frozen, keyword-only, JSON both ways, and with errors of our own tree."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), populate_by_name=True)

    def __init__(self, /, **data: Any) -> None:
        try:
            # What BaseModel.__init__ does, without its frame: a question makes some twenty records.
            self.__pydantic_validator__.validate_python(data, self_instance=self)
        except ValidationError as exc:
            raise InvalidValueError.from_validation(type(self).__name__, exc) from exc


STORED_STRATEGY = AliasChoices("strategy", "style")
"""Reads a stored strategy, also from files that were written when it was called a style."""

Role: TypeAlias = Literal["estimate", "reason", "judge", "reference"]
"""What a model call is for: guessing the budget, answering the question, grading an answer, or repeating a
call whose cost is counted elsewhere, to compare with it."""

CountSource: TypeAlias = Literal["measured", "estimated"]
"""``measured``: the provider reported it. ``estimated``: a tokenizer of ours guessed it."""

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "closed"]
"""Why the model stopped, in one spelling for all providers; ``closed``: the caller left the stream early."""


class Usage(Record):
    """Tokens of one call, or of several calls of the same kind of count."""

    input_tokens: int = Field(default=0, ge=0)
    """Prompt tokens."""
    output_tokens: int = Field(default=0, ge=0)
    """Completion tokens, reasoning tokens included."""
    reasoning_tokens: int | None = Field(default=None, ge=0)
    """The part of ``output_tokens`` spent thinking; None means unknown, which is not 0."""
    source: CountSource = "measured"
    """Whether the provider measured these counts or a tokenizer estimated them."""

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        """Add counts of the same source.

        Raises:
            InvalidValueError: One side is measured and the other estimated: a sum would be neither.
        """
        if self.source != other.source:
            raise InvalidValueError(
                f"cannot add {self.source} and {other.source} token counts; total them apart"
            )
        mine, others = self.reasoning_tokens, other.reasoning_tokens
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=None if mine is None or others is None else mine + others,
            source=self.source,
        )


class Budget(Record):
    """How many output tokens a prompt asks for, and where that number came from."""

    tokens: int | None = Field(default=None, ge=1)
    """Output tokens; None means no budget (vanilla chain of thought). Never 0, never negative."""
    source: str = "none"
    """Who chose it: an estimator's name, ``fallback``, ``none``, ..."""
    estimate: int | None = None
    """The estimate before the policy's multiplier and bounds, in output tokens."""


class Estimate(Record):
    """An estimator's answer to one question."""

    tokens: int | None = Field(default=None, ge=1)
    """Estimated output tokens; None when the estimator has no usable answer."""
    source: str
    """The estimator's name."""
    exact: bool = False
    """Whether the user chose this number, so that no multiplier and no bound applies to it."""
    calibrated: bool = False
    """Whether the number was learned from answers under this policy, so that the multiplier is in it already;
    the bounds still apply."""
    detail: str = ""
    """Why there is no number, for the event; never prompt text."""


class Message(Record):
    """One chat message as a flow writes it; adapters turn it into their framework's own."""

    role: Literal["system", "user", "assistant"]
    content: str


class Framing(Record):
    """What a strategy puts around a question; the question itself is never rewritten."""

    examples: tuple[Message, ...] = ()
    """Worked examples as user and assistant messages by turns, right before the question: chat models imitate
    their own messages far better than examples inside one. Constant per budget."""
    before: str = ""
    """Text before the question: constant per budget, so that servers can reuse the cached prefix."""
    after: str = ""
    """Text after the question, at the very end of the last user message; carries the budget."""

    def apply(self, question: str) -> str:
        """Return the question with the text around it, without the examples."""
        return f"{self.before}{question}{self.after}"

    def messages(self, question: str) -> tuple[Message, ...]:
        """Return the examples and the framed question as a conversation."""
        return (*self.examples, Message(role="user", content=self.apply(question)))

    def inline(self) -> Framing:
        """Return the same framing with the examples written into ``before``, for completion models."""
        if not self.examples:
            return self
        shown = "\n\n".join(example.content for example in self.examples)
        return Framing(before=f"{shown}\n\n{self.before}", after=self.after)


Control: TypeAlias = Literal["prompt", "effort", "thinking_budget"]
"""What carries a budget: words in the prompt, the model's effort level, or its thinking budget in tokens."""


class ControlSetting(Record):
    """How a budget reaches the model, or how thinking is kept out of a call that needs none."""

    control: Control
    """What carries the budget; ``prompt`` means that no native parameter is sent."""
    value: str | int | None = None
    """The effort level, or the thinking budget in tokens (0 switches thinking off); None for ``prompt``."""
    why: str = ""
    """Why this control and this value were chosen, for people."""
    cap: int | None = Field(default=None, ge=1)
    """Output cap to send, with head-room for thinking; None leaves the model's own."""
    temperature: bool = True
    """Whether the model accepts a temperature under this setting."""

    @property
    def native(self) -> bool:
        """Whether a parameter of the provider carries the budget."""
        return self.control != "prompt"


ChooseControl: TypeAlias = Callable[[int], ControlSetting]
"""Decides which control carries a budget, in output tokens."""


class ModelCall(Record):
    """One model call that a flow asks its driver to make."""

    role: Role
    messages: tuple[Message, ...]
    """The whole prompt, for drivers without a conversation of their own."""
    framing: Framing | None = None
    """On ``reason`` calls: the framing alone, for adapters that inject it into native messages."""
    budget: int | None = None
    """The budget that the call is made under, in output tokens."""
    setting: ControlSetting | None = None
    """On ``reason`` calls: the control that carries the budget; None without a budget."""
    temperature: float | None = None
    """Sampling temperature; None leaves the model's own."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Hard output cap; None leaves the model's own."""
    sample: int = Field(default=0, ge=0)
    """Which of several independent answers to the same prompt this is; drivers may seed with it from 1 on."""


class ModelReply(Record):
    """A model's answer as a flow receives it."""

    text: str
    """The visible answer, without thinking blocks."""
    usage: Usage | None = None
    """What the call cost; None when the provider reported nothing."""
    finish_reason: FinishReason | None = None
    """Why the model stopped; None when the provider did not say."""
    model: str | None = None
    """The model's name as the provider gives it."""
    seconds: float | None = None
    """Wall-clock seconds of the call."""
    cached: bool = False
    """Whether the answer came from a cache: then its usage is that of the answer's first time, and not paid."""
    native: Any = Field(default=None, exclude=True, repr=False)
    """The framework's own message, for the adapter that made the call."""

    @property
    def complete(self) -> bool:
        """Whether this is a whole answer: neither a tool call nor a stream that the caller left early."""
        return self.finish_reason not in {"tool_calls", "closed"}


Flow: TypeAlias = Generator[ModelCall, ModelReply, T]
"""A step of the method: yields the calls it needs, receives the replies, returns a result."""

Call: TypeAlias = Callable[[ModelCall], ModelReply]
"""How a synchronous driver reaches a model."""

ACall: TypeAlias = Callable[[ModelCall], Awaitable[ModelReply]]
"""How an asynchronous driver reaches a model."""


Verdict: TypeAlias = Literal["correct", "wrong", "unreadable"]
"""How an answer was graded; ``unreadable``: it holds no answer that could be compared."""

Grade: TypeAlias = Callable[[str], "Verdict | bool | Flow[Verdict]"]
"""Grades the text of one answer to one known question; a flow where grading takes model calls."""
