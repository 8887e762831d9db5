"""How a model call finds its question: the chain of spans around it, and the text that carries its question.

A query engine asks the model far away from where the budget was chosen: in another method, task or thread, or
when a stream is read at last. docs/design/llamaindex.md explains what runs where.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llama_index.core.instrumentation.span import active_span_id

from tale_core.events import ElasticityEvent, UsageEvent
from tale_core.types import Framing, Usage
from tale_llamaindex.events import dispatch, heard, hears_events

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Hashable, Iterator

    from tale_core.accounts.ledger import Ledger
    from tale_core.events import ElasticityKind, Event
    from tale_core.method.plan import Answer, Plan
    from tale_core.method.question import QuestionRun
    from tale_core.types import ModelReply, T
    from tale_llamaindex._convert import Gathering

_END: Any = object()
_KEPT = 256
"""User turns kept in one place; far above what an agent or a query has under way."""


class QuestionText(str):  # noqa: SLOT000  # it has attributes
    """The text of a query, which knows its question wherever LlamaIndex takes it."""

    question: Question

    @classmethod
    def of(cls, text: str, question: Question) -> QuestionText:
        """Return the text with its question."""
        made = cls(text)
        made.question = question
        return made

    def __deepcopy__(self, _: Any) -> QuestionText:
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)  # a question belongs to its process


# A text that is given to a model by hand, in another context, arrives as a plain string: it is looked up as a
# whole. Questions stay here as long as they are referenced elsewhere.
_BY_TEXT: weakref.WeakValueDictionary[str, Question] = weakref.WeakValueDictionary()


class Plans(OrderedDict["Hashable", "tuple[Question, Plan]"]):
    """How user turns under way were asked, by key; the oldest are forgotten."""

    def keep(self, key: Hashable, value: tuple[Question, Plan]) -> None:
        """Remember how a turn was asked."""
        self[key] = value
        self.move_to_end(key)
        if len(self) > _KEPT:
            self.popitem(last=False)


@dataclass(slots=True, eq=False)
class Span:
    """One of LlamaIndex's spans, with notes that hold for every model call inside; the nearest note counts."""

    id: str | None
    """None where no span is active: the outermost level of a context."""
    parent: Span | None = None
    over: bool = False
    flow: Question | None = None
    """The question whose flow makes the calls, and accounts for them."""
    asking: Asking | None = None
    """What the calls ask, where we entered the code that makes them."""
    question: Question | None = None
    """The question that a query transform framed here."""
    query: str | None = None
    """The query of the template that is predicted here."""
    call: OpenCall | None = None
    """The LLM call that this span is."""
    plans: Plans | None = None
    """How the user turns that began inside were asked."""


HERE: ContextVar[Span | None] = ContextVar("tale_here", default=None)
"""The innermost span that this context has entered."""


def current_span() -> Span:
    """Return the span that this code runs in."""
    active = active_span_id.get()
    span = HERE.get()
    while span is not None and span.id != active:
        span = span.parent
    if span is None:
        span = Span(active)
        HERE.set(span)
    return span


@contextmanager
def noted(*, flow: Question | None = None, asking: Asking | None = None) -> Iterator[None]:
    """Make a note that holds for what is called inside, and for nothing else in the span."""
    span = current_span()
    token = HERE.set(Span(span.id, span, flow=flow, asking=asking))
    try:
        yield
    finally:
        HERE.reset(token)


class Question:
    """One question under way: its run in the core, how it was asked, and the ledgers that follow it."""

    def __init__(self, run: QuestionRun) -> None:
        self.run = run
        self.plan: Plan | None = None
        self.framed = ""
        """The question with its framing, as it stands in prompts; empty while there is no framing."""
        # Reentrant, since settling emits; calls of one question may come back on several threads.
        self._lock = threading.RLock()
        self._before_asking: list[Event] = []
        self._asked = False
        self._ledgers: list[Ledger] = []

    @property
    def id(self) -> str:
        """The question's run id."""
        return self.run.question_id

    def planned(self, plan: Plan) -> None:
        """Note how the question will be asked."""
        self.plan = plan
        if plan.framing != Framing():
            self.framed = QuestionText.of(framed_text(plan), self)
            _BY_TEXT[self.framed] = self

    def announce(self) -> None:
        """Let calls around the current span, which the transform is, be recognised by the framed text."""
        span = current_span()
        if span.parent is None:
            span.parent = Span(None)
        span.parent.question = self

    def settle(self, plan: Plan, reply: ModelReply) -> Answer:
        """Account for one answer, judge it against the budget, and send out what was recorded."""
        with self._lock:
            answer = self.run.settle(plan, reply)
            self.emit()
        return answer

    def emit(self) -> None:
        """Send what the run has recorded to the event handlers and to the ledgers that follow the question."""
        with self._lock:
            for record in self.run.drain():
                self._asked = self._asked or (isinstance(record, UsageEvent) and record.role == "reason")
                # Kept for ledgers that start to follow later: they need the budget and the estimate, too.
                if not self._asked:
                    self._before_asking.append(record)
                dispatch(record)
                for ledger in self._ledgers:
                    ledger.record(record)

    def note(self, kind: ElasticityKind, detail: str) -> None:
        """Record an event that the run cannot see."""
        budget = None if self.plan is None else self.plan.budget.tokens
        event = ElasticityEvent(question_id=self.id, kind=kind, budget=budget, detail=detail)
        with self._lock:
            self.run.events.append(event)
            self.emit()

    def follow(self, ledger: Ledger) -> None:
        """Send records to a ledger as well, starting with what was recorded before the question was asked."""
        with self._lock:
            # Its handler hears of every record anyway, and would count each twice.
            if ledger in self._ledgers or hears_events(ledger):
                return
            self._ledgers.append(ledger)
            ledger.record_all(self._before_asking)


@dataclass(slots=True)
class Asking:
    """A question on its way to the model under one plan, through code that makes the calls itself."""

    question: Question
    plan: Plan
    """How it is asked; its budget is what each answer is judged against."""
    answers: list[Answer] = field(default_factory=list)
    """What came back, call by call."""

    def stream(self, items: Generator[T, None, None]) -> Generator[T, None, None]:
        """Pass on a stream whose calls ask this, whenever they begin, and then enforce the policy."""
        while True:
            with noted(asking=self):
                item = next(items, _END)
            if item is _END:
                break
            yield item
        self.enforce()

    async def astream(self, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Hand on a stream, asynchronously; see `stream`."""
        while True:
            with noted(asking=self):
                item = await anext(items, _END)
            if item is _END:
                break
            yield item
        self.enforce()

    def enforce(self) -> None:
        """Raise what the policy raises for the answers that came back."""
        for answer in self.answers:
            self.question.run.enforce(answer)

    def settle(self, reply: ModelReply) -> None:
        """Account for one answer."""
        self.answers.append(self.question.settle(self.plan, reply))

    def attempts(self) -> Iterator[Asking]:
        """Yield how to ask, and how to ask again as long as the policy says retry; see `again`."""
        asking: Asking | None = self
        while asking is not None:
            yield asking
            asking = asking.again()

    def again(self) -> Asking | None:
        """Return how to ask again where the policy says retry; None when the last answer stands."""
        if not self.answers:
            return None
        # Several calls of one plan (a refined answer): only the last may be asked again.
        for answer in self.answers[:-1]:
            self.question.run.enforce(answer)
        plan = self.question.run.react(self.answers[-1])
        self.question.emit()
        return None if plan is None else Asking(self.question, plan)


@dataclass(slots=True)
class OpenCall:
    """One LLM call under way."""

    answer: Gathering
    asking: Asking | None
    """What the prompt asks, and under which budget the answer is judged; None for calls that carry none."""
    question_id: str
    """The run id of the question, or else of the outermost span around the call."""
    wraps: bool
    """Whether another call is made inside; that one is paid for, not this one."""
    ledgers: list[Ledger] = field(default_factory=list)
    """Ledgers that follow this call, apart from those that follow the question."""
    over: bool = False

    def follow(self, ledger: Ledger) -> None:
        """Record to this ledger as well, once."""
        if self.asking is not None:
            self.asking.question.follow(ledger)
        elif ledger not in self.ledgers and not hears_events(ledger):
            self.ledgers.append(ledger)

    def settle(self, *, closed: bool) -> None:
        """Account for the call, once it is over."""
        if self.wraps or not (self.asking or self.ledgers or heard()):
            return
        reply = self.answer.reply(closed=closed, failing=False)
        if self.asking is not None:
            self.asking.settle(reply)
            return
        record = UsageEvent(
            question_id=self.question_id,
            role="reason",
            usage=reply.usage or Usage(source="estimated"),
            model=reply.model,
            finish_reason=reply.finish_reason,
            seconds=reply.seconds,
        )
        dispatch(record)
        for ledger in self.ledgers:
            ledger.record(record)


def framed_text(plan: Plan) -> str:
    """Return the question with its framing as one text."""
    return plan.framing.inline().apply(plan.question)


def framed_before(text: str) -> Question | None:
    """Return the question that was framed to exactly this text, if one was."""
    question = text.question if isinstance(text, QuestionText) else None
    span = current_span() if question is None else None
    while span is not None and question is None:
        question, span = span.question, span.parent
    return question if question is not None and question.framed == text else None


def asked_here(prompt: str = "") -> Asking | Question | None:
    """Return what a call with this prompt asks under a budget, in this context.

    A question alone where its flow makes the call; None where no budget is known.
    """
    span: Span | None = current_span()
    while span is not None:
        found, question = span.flow or span.asking, span.question
        if found is not None:
            return found
        if question is not None and question.plan is not None and question.framed in prompt:
            return Asking(question, question.plan)
        span = span.parent
    question = _BY_TEXT.get(prompt)
    return None if question is None or question.plan is None else Asking(question, question.plan)
