"""Which question a model call belongs to.

A query engine asks the model far away from where the budget was chosen: in another method, task or thread,
or when a stream is read at last. `Question` goes with each question; `asking_in` finds it again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llama_index_instrumentation import root_dispatcher

from tale_core.events import ElasticityEvent, UsageEvent
from tale_core.types import Framing
from tale_llamaindex.events import dispatch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator

    from tale_core.accounts.ledger import Ledger
    from tale_core.events import ElasticityKind, Event
    from tale_core.method.plan import Answer, Plan
    from tale_core.method.question import QuestionRun
    from tale_core.types import ModelReply, T

_KEPT = 512
_END: Any = object()

_calling: ContextVar[Question | None] = ContextVar("tale_calling", default=None)
_asking: ContextVar[Asking | None] = ContextVar("tale_asking", default=None)
_latest: ContextVar[Question | None] = ContextVar("tale_latest", default=None)


class Question:
    """One question under way: its run in the core, how it was asked, and the ledgers that follow it.

    Args:
        run: The question's run.
    """

    def __init__(self, run: QuestionRun) -> None:
        self.run = run
        self.plan: Plan | None = None
        self.framed = ""
        """The question with its framing, as it stands in prompts; empty while there is no framing."""
        self._lock = threading.RLock()
        self._before_asking: list[Event] = []
        self._asked = False
        self._ledgers: list[Ledger] = []

    @property
    def id(self) -> str:
        """The question's run id."""
        return self.run.question_id

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Mark the calls made inside as made for this question by a flow, which accounts for them itself."""
        token = _calling.set(self)
        try:
            yield
        finally:
            _calling.reset(token)

    def planned(self, plan: Plan) -> None:
        """Note how the question will be asked."""
        self.plan = plan
        if plan.framing != Framing():
            self.framed = framed_text(plan)

    def announce(self) -> None:
        """Let `asking_in` know the framed text: code that we do not see carries it to the model."""
        if self.framed:
            _latest.set(self)
            _known.add(self)

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
                if not self._asked:
                    self._before_asking.append(record)
                dispatch(record)
                for ledger in self._ledgers:
                    ledger.record(record)

    def note(self, kind: ElasticityKind, detail: str) -> None:
        """Record something that the run cannot know of."""
        budget = None if self.plan is None else self.plan.budget.tokens
        event = ElasticityEvent(question_id=self.id, kind=kind, budget=budget, detail=detail)
        with self._lock:
            self.run.events.append(event)
            self.emit()

    def follow(self, ledger: Ledger) -> None:
        """Send records to a ledger as well, starting with what was recorded before the question was asked."""
        with self._lock:
            if any(ledger is one for one in self._ledgers) or hears_events(ledger):
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

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Mark the calls made inside as asking under this plan."""
        token = _asking.set(self)
        try:
            yield
        finally:
            _asking.reset(token)

    def stream(self, items: Generator[T, None, None]) -> Generator[T, None, None]:
        """Hand on a stream whose calls ask this, whenever they begin.

        Raises:
            PolicyViolationError: The policy says raise for what the whole answer did.
        """
        while True:
            with self.under_way():
                item = next(items, _END)
            if item is _END:
                break
            yield item
        self.enforce()

    async def astream(self, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Hand on a stream, asynchronously; see `stream`."""
        while True:
            with self.under_way():
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

    def again(self) -> Asking | None:
        """Return how to ask again where the policy says retry; None when the last answer stands.

        Raises:
            PolicyViolationError: The policy says raise for what an answer did.
        """
        if not self.answers:
            return None
        for answer in self.answers[:-1]:
            self.question.run.enforce(answer)
        plan = self.question.run.react(self.answers[-1])
        self.question.emit()
        return None if plan is None else Asking(self.question, plan)


class _Known:
    """The last questions by their framed text; those that a caller never finishes age out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._questions: OrderedDict[str, Question] = OrderedDict()

    def add(self, question: Question) -> None:
        with self._lock:
            self._questions[question.framed] = question
            self._questions.move_to_end(question.framed)
            while len(self._questions) > _KEPT:
                self._questions.popitem(last=False)

    def named(self, framed: str) -> Question | None:
        with self._lock:
            return self._questions.get(framed)

    def inside(self, prompt: str) -> Question | None:
        """Return the question whose framed text stands in the prompt; the longest, which may hold others."""
        with self._lock:
            found = [question for framed, question in self._questions.items() if framed in prompt]
        return max(found, key=lambda question: len(question.framed), default=None)


_known = _Known()


def framed_text(plan: Plan) -> str:
    """Return the question with its framing as one text."""
    return plan.framing.inline().apply(plan.question)


def framed_before(text: str) -> Question | None:
    """Return the question that was framed to exactly this text, if one was."""
    return _known.named(text)


def caller() -> Question | None:
    """Return the question whose flow makes the call under way in this context, if one does."""
    return _calling.get()


def current_asking() -> Asking | None:
    """Return what is being asked in this context, if it is known."""
    return _asking.get()


def asking_in(prompt: str, scope: Question | None) -> Asking | None:
    """Return what a prompt asks.

    Args:
        prompt: The whole prompt.
        scope: The question planned in the span around the call, if any.

    Returns:
        What is asked in this context. Where that is not known, the question whose framed text the prompt holds:
        this context's latest or the scope's if it is theirs, since texts may repeat, otherwise any.
    """
    asking = current_asking()
    if asking is not None:
        return asking
    for question in (_latest.get(), scope):
        if question is not None and question.framed and question.framed in prompt:
            return _asked(question)
    return _asked(_known.inside(prompt))


def _asked(question: Question | None) -> Asking | None:
    return None if question is None or question.plan is None else Asking(question, question.plan)


def hears_events(ledger: Ledger) -> bool:
    """Return whether an attached event handler owns the ledger, so that it hears of every record anyway."""
    return any(getattr(handler, "ledger", None) is ledger for handler in root_dispatcher.event_handlers)
