"""One call on a wrapped LLM: where its question stands, whose user turn it is, how the budget gets in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock
from llama_index.core.prompts import ChatPromptTemplate

from tale_core.models.providers import forces_tool
from tale_llamaindex._convert import to_messages
from tale_llamaindex._setup import Request
from tale_llamaindex._tracking import Plans, asked_here, current_span

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from llama_index.core.llms import LLM

    from tale_core.method.plan import Answer, Plan
    from tale_core.types import Flow, Framing, ModelCall
    from tale_llamaindex._setup import Setup
    from tale_llamaindex._tracking import Question, Span

_SENTINEL = "\0"
# ReActAgent and CodeActAgent put what a tool or their code returned into a user message after the model's own.
_RESULTS = ("Observation:", "Result of executing the code given:")
FORCED = "tale_forced_tool"
"""Marks the options of a call that must answer with a tool call; taken out before the call is made."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt, and where in it the question stands."""

    messages: Sequence[ChatMessage] | None
    """Chat messages; None for a prompt of plain text."""
    text: str
    """The text that the framing goes around: the last user message, or the whole prompt."""
    at: int = 0
    """Position of the last user message."""
    suffix: str = ""
    """The end of a plain prompt's template, which stays at the end."""
    continues: bool = False
    """Whether the model goes on with a turn: the last message is a tool's, say, not the user's."""

    @classmethod
    def of_messages(cls, messages: Sequence[ChatMessage]) -> Conversation | None:
        """Read chat messages; None where no user asks anything."""
        at = next((index for index in reversed(range(len(messages))) if _asks(messages, index)), None)
        if at is None:
            return None
        return cls(messages, messages[at].content or "", at, continues=at < len(messages) - 1)

    @classmethod
    def of_prompt(cls, llm: LLM, prompt: str, *, formatted: bool) -> Conversation:
        """Read a plain prompt; a formatted one may end in the tail of a template."""
        suffix = _template_end(llm, prompt) if formatted else ""
        return cls(None, prompt.removesuffix(suffix), suffix=suffix)

    def key(self, query: str | None) -> Hashable:
        """Return what identifies this user turn: the query of the template, or else the messages so far."""
        if query:
            return query
        before = (self.messages or ())[: self.at]
        return hash((tuple((one.role, one.content) for one in before), self.text))

    def framed(self, framing: Framing) -> str | list[ChatMessage]:
        """Return the prompt with the framing in it; the messages given stay as they are."""
        if self.messages is None:
            return framing.inline().apply(self.text) + self.suffix
        asked = _framed_message(self.messages[self.at], framing)
        before, after = self.messages[: self.at], self.messages[self.at + 1 :]
        return [*before, *to_messages(framing.examples), asked, *after]


@dataclass(slots=True)
class BudgetedCall:
    """One call on a wrapped LLM that is made under a budget."""

    setup: Setup
    question: Question
    conversation: Conversation
    endpoint: str
    kwargs: dict[str, Any]
    key: Hashable
    """Identifies the user turn."""
    plan: Plan | None = None
    """How the user turn was asked before; None when it begins."""

    def answering(self) -> Flow[Answer]:
        """Plan and ask; a user turn that goes on is not estimated again."""
        if self.plan is None:
            return (yield from self.question.run.answer())
        answer = self.question.run.settle(self.plan, (yield self.plan.call()))
        self.question.run.enforce(answer)
        return answer

    def planning(self) -> Flow[Plan]:
        """Plan up to the answer, which is streamed."""
        return self.plan or (yield from self.question.run.plan())

    def request(self, call: ModelCall) -> Request:
        """Return the request that answers a call of the flow."""
        if call.role != "reason" or call.framing is None:
            return self.setup.quiet_request(call)
        llm, kwargs = self.setup.reasoner.asked(call.setting, self.kwargs)
        return Request(llm, self.endpoint, self.conversation.framed(call.framing), kwargs)

    def structured(self, plan: Plan) -> tuple[LLM, ChatPromptTemplate, dict[str, Any]]:
        """Return the LLM, the template and the options of a structured prediction."""
        llm, kwargs = self.setup.reasoner.asked(plan.setting, self.kwargs)
        framed = self.conversation.framed(plan.framing)
        assert not isinstance(framed, str)  # noqa: S101  # structured predictions are asked with messages
        return llm, ChatPromptTemplate(message_templates=framed), kwargs


class UserTurns:
    """The user turns under way on one LLM: an agent calls the model several times in each."""

    def __init__(self) -> None:
        self._elsewhere = Plans()
        """Those that began outside any span."""

    def begin(
        self,
        setup: Setup,
        conversation: Conversation | None,
        endpoint: str,
        kwargs: dict[str, Any],
        query: str | None = None,
    ) -> BudgetedCall | None:
        """Return the call as it is made under a budget.

        None where it stays as it is: there is no question, a tool is forced, the budget is in the prompt
        already, or the call goes on with a turn whose beginning was not seen.
        """
        forced = kwargs.pop(FORCED, False) or forces_tool(kwargs)
        if conversation is None or forced or not conversation.text.strip():
            return None
        if asked_here(conversation.text) is not None:
            return None
        span: Span | None = current_span()
        while span is not None and query is None:
            query, span = span.query, span.parent
        key = conversation.key(query)
        known = self._known(key) if conversation.continues or query else None
        if known is not None:
            return BudgetedCall(setup, known[0], conversation, endpoint, kwargs, key, plan=known[1])
        if conversation.continues:
            return None
        control = setup.reasoner.control(kwargs)
        question = setup.begin(query or conversation.text, shown=conversation.text, control=control)
        return BudgetedCall(setup, question, conversation, endpoint, kwargs, key)

    def asked(self, call: BudgetedCall, plan: Plan) -> None:
        """Remember how a turn was asked, for the calls in it that follow."""
        known = call.question, plan
        span = current_span().parent
        if (span is None or span.id is None) and not isinstance(call.key, str):  # templates have a span around
            self._elsewhere.keep(call.key, known)
        # Which span around holds the whole turn is not known yet: the next call will find the nearest.
        while span is not None and span.id is not None:
            if span.plans is None:
                span.plans = Plans()
            span.plans.keep((self, call.key), known)
            span = span.parent

    def _known(self, key: Hashable) -> tuple[Question, Plan] | None:
        """Return how the turn was asked; of equal turns under way, the one nearest around this call."""
        span: Span | None = current_span()
        while span is not None:
            if span.plans is not None and (self, key) in span.plans:
                return span.plans[self, key]
            span = span.parent
        return self._elsewhere.get(key)

    # Turns under way belong to this process and this LLM: a copy begins with none.
    def __reduce__(self) -> tuple[type[UserTurns], tuple[()]]:
        return UserTurns, ()


def _asks(messages: Sequence[ChatMessage], index: int) -> bool:
    """Return whether a message is a user's own, and not a result that an agent returns in a user message."""
    if messages[index].role != MessageRole.USER:
        return False
    result = (messages[index].content or "").startswith(_RESULTS)
    return not (result and index > 0 and messages[index - 1].role == MessageRole.ASSISTANT)


def _template_end(llm: LLM, prompt: str) -> str:
    """Return what a prompt ends in that comes from the LLM's own template, such as ``<|assistant|>``."""
    formatted = []
    if llm.completion_to_prompt is not None:
        formatted.append(llm.completion_to_prompt(_SENTINEL))
    if llm.messages_to_prompt is not None:
        formatted.append(llm.messages_to_prompt([ChatMessage(_SENTINEL)]))
    ends = [text.rpartition(_SENTINEL)[2] for text in formatted]
    return max((end for end in ends if prompt.endswith(end)), key=len, default="")


def _framed_message(message: ChatMessage, framing: Framing) -> ChatMessage:
    """Return a copy with the framing around its text, whatever other blocks it has."""
    blocks = list(message.blocks)
    first = next(index for index, block in enumerate(blocks) if isinstance(block, TextBlock))
    blocks[first] = TextBlock(text=framing.before + blocks[first].text)  # type: ignore[union-attr]  # found above
    if isinstance(blocks[-1], TextBlock):
        blocks[-1] = TextBlock(text=blocks[-1].text + framing.after)
    else:
        blocks.append(TextBlock(text=framing.after.lstrip()))
    return message.model_copy(update={"blocks": blocks})
