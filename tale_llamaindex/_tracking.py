"""Which question a model call belongs to.

A query engine asks the model far away from where the budget was chosen: in another method, task or thread,
or when a stream is read at last. `Question` goes with each question; `asked_in` finds it again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from llama_index_instrumentation import root_dispatcher

from tale_core.types import Framing
from tale_llamaindex.events import dispatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tale_core.events import Event
    from tale_core.ledger import Ledger
    from tale_core.method import Plan, QuestionRun
    from tale_core.types import ModelReply

_KEPT = 1024

_calling: ContextVar[Question | None] = ContextVar("tale_calling", default=None)
_latest: ContextVar[Question | None] = ContextVar("tale_latest", default=None)


class Question:
    """One question under way: its run in the core, how it was asked, and the ledgers that follow it.

    Args:
        run: The question's run.
        embedding_strs: What retrievers embed in place of the framed question.
    """

    def __init__(self, run: QuestionRun, *, embedding_strs: list[str] | None = None) -> None:
        self.run = run
        self.embedding_strs = embedding_strs
        self.plan: Plan | None = None
        self.framed = ""
        """The question with its framing, as it stands in prompts; empty while there is no framing."""
        self._lock = threading.RLock()
        self._before_asking: list[Event] = []
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
        """Note how the question will be asked, and make it known to `asked_in`."""
        self.plan = plan
        if plan.framing != Framing():
            self.framed = plan.framing.inline().apply(plan.question)
            _latest.set(self)
            _known.add(self)

    def settle(self, reply: ModelReply) -> None:
        """Account for one answer, judge it against the budget, and send out what was recorded."""
        if self.plan is None:
            raise AssertionError("a question is planned before it is answered")
        with self._lock:
            self.run.settle(self.plan, reply)
            self.emit()

    def emit(self) -> None:
        """Send what the run has recorded to the event handlers and to the ledgers that follow the question."""
        with self._lock:
            for record in self.run.drain():
                if self.plan is None:
                    self._before_asking.append(record)
                dispatch(record)
                for ledger in self._ledgers:
                    ledger.record(record)

    def follow(self, ledger: Ledger) -> None:
        """Send records to a ledger as well, starting with what was recorded before the question was asked."""
        with self._lock:
            if any(ledger is one for one in self._ledgers) or hears_events(ledger):
                return
            self._ledgers.append(ledger)
            ledger.record_all(self._before_asking)


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


def framed_before(text: str) -> Question | None:
    """Return the question that was framed to exactly this text, if one was."""
    return _known.named(text)


def caller() -> Question | None:
    """Return the question whose flow makes the call under way in this context, if one does."""
    return _calling.get()


def asked_in(prompt: str, scope: Question | None) -> Question | None:
    """Return the question that a prompt asks.

    Args:
        prompt: The whole prompt.
        scope: The question planned in the span around the call, if any.

    Returns:
        The question whose framed text the prompt holds: this context's latest or the scope's if it is theirs,
        since texts may repeat, otherwise any that is known.
    """
    for question in (_latest.get(), scope):
        if question is not None and question.framed and question.framed in prompt:
            return question
    return _known.inside(prompt)


def hears_events(ledger: Ledger) -> bool:
    """Return whether an attached event handler owns the ledger, so that it hears of every record anyway."""
    return any(getattr(handler, "ledger", None) is ledger for handler in root_dispatcher.event_handlers)
