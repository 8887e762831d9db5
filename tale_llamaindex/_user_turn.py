"""One call on a wrapped LLM: what is asked in it, and how the budget gets into it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock
from llama_index.core.prompts import ChatPromptTemplate

from tale_core.models.providers import forces_tool
from tale_llamaindex._calls import Request
from tale_llamaindex._convert import to_messages
from tale_llamaindex._observer import OBSERVER
from tale_llamaindex._tracking import asking_in, caller

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    from llama_index.core.llms import LLM
    from llama_index.core.prompts import BasePromptTemplate

    from tale_core.method.plan import Answer, Plan
    from tale_core.types import Flow, Framing, ModelCall
    from tale_llamaindex._setup import Setup
    from tale_llamaindex._tracking import Question

_KEPT = 256
_SENTINEL = "\0"
# ReAct agents put what a tool returned into a user message.
_OBSERVATION = "Observation:"
FORCED = "tale_forced_tool"
"""Marks the options of a call that must answer with a tool call; taken out before the call is made."""

_query: ContextVar[str | None] = ContextVar("tale_query", default=None)


@contextmanager
def predicting(prompt: BasePromptTemplate, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Note the query inside a prompt template, so that the estimator sees it without its context."""
    query = {**prompt.kwargs, **arguments}.get("query_str")
    token = _query.set(query if isinstance(query, str) else None)
    try:
        yield
    finally:
        _query.reset(token)


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
        at = next((index for index in reversed(range(len(messages))) if _asks(messages[index])), None)
        if at is None:
            return None
        return cls(messages, messages[at].content or "", at, continues=at < len(messages) - 1)

    @classmethod
    def of_prompt(cls, llm: LLM, prompt: str, *, formatted: bool) -> Conversation:
        """Read a plain prompt; a formatted one may end in the tail of a template."""
        suffix = _template_end(llm, prompt) if formatted else ""
        return cls(None, prompt.removesuffix(suffix), suffix=suffix)

    def key(self, query: str | None) -> Hashable:
        """Return what tells this user turn from others, however often the model is called in it.

        Args:
            query: The query of the prompt template, which stays while its context changes.
        """
        if query is not None:
            return OBSERVER.root(), query
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
class Turn:
    """One question on its way through a wrapped LLM."""

    setup: Setup
    question: Question
    conversation: Conversation
    endpoint: str
    kwargs: dict[str, Any]
    key: Hashable
    """What tells the user turn from others."""
    plan: Plan | None = None
    """How the turn was asked before; None when it begins."""

    def flow(self) -> Flow[Answer]:
        """Plan the whole turn; one that goes on is not estimated again."""
        return self.question.run.answer() if self.plan is None else self._resumed(self.plan)

    def planning(self) -> Flow[Plan]:
        """Plan up to the answer, which is streamed."""
        return self.question.run.plan() if self.plan is None else _same(self.plan)

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

    def _resumed(self, plan: Plan) -> Flow[Answer]:
        reply = yield plan.call()
        answer = self.question.run.settle(plan, reply)
        self.question.run.enforce(answer)
        return answer


class Turns:
    """The user turns under way on one LLM: an agent calls the model several times in each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: OrderedDict[Hashable, tuple[Question, Plan]] = OrderedDict()

    def begin(
        self, setup: Setup, conversation: Conversation | None, endpoint: str, kwargs: dict[str, Any]
    ) -> Turn | None:
        """Return the turn that a call belongs to.

        Args:
            setup: How to ask.
            conversation: The prompt.
            endpoint: The endpoint called.
            kwargs: Its options.

        Returns:
            The turn; None where the call is to be made as it is: nobody asks anything, a tool is forced, the
            budget is in the prompt already, or a turn goes on whose beginning was never seen.
        """
        forced = kwargs.pop(FORCED, False) or forces_tool(kwargs)
        if conversation is None or forced or not conversation.text.strip() or _asked_already(conversation):
            return None
        query = _query.get()
        key = conversation.key(query)
        with self._lock:
            known = self._turns.get(key) if conversation.continues or query is not None else None
        if known is not None:
            return Turn(setup, known[0], conversation, endpoint, kwargs, key, plan=known[1])
        if conversation.continues:
            return None
        control = setup.reasoner.control(kwargs)
        question = setup.begin(query or conversation.text, shown=conversation.text, control=control)
        return Turn(setup, question, conversation, endpoint, kwargs, key)

    def asked(self, turn: Turn, plan: Plan) -> None:
        """Remember how a turn was asked, for the calls in it that follow."""
        with self._lock:
            self._turns[turn.key] = (turn.question, plan)
            self._turns.move_to_end(turn.key)
            while len(self._turns) > _KEPT:
                self._turns.popitem(last=False)

    # Turns under way belong to this process and this LLM: a copy begins with none.
    def __reduce__(self) -> tuple[type[Turns], tuple[()]]:
        return Turns, ()


def _asks(message: ChatMessage) -> bool:
    return message.role == MessageRole.USER and not (message.content or "").startswith(_OBSERVATION)


def _asked_already(conversation: Conversation) -> bool:
    """Return whether somebody else asks this under a budget: a flow, a synthesizer, a query transform."""
    return caller() is not None or asking_in(conversation.text, None) is not None


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


def _same(plan: Plan) -> Flow[Plan]:
    yield from ()  # a flow is a generator, even one that needs no call
    return plan
