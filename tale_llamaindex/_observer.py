"""Watches every LLM call in the process and says what it cost, and for which question.

LlamaIndex's dispatcher tells of calls and of spans. Spans say what runs inside what: wrappers that call
another LLM (a structured LLM, chat on top of complete) emit events of their own around the inner call's, and
only the innermost call is one that somebody pays for.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatInProgressEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionInProgressEvent,
    LLMCompletionStartEvent,
)
from llama_index.core.instrumentation.span import BaseSpan, active_span_id
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index_instrumentation import root_dispatcher

from tale_core.events import UsageEvent
from tale_core.types import Usage
from tale_llamaindex._answers import Gathering
from tale_llamaindex._tracking import asking_in, caller, hears_events
from tale_llamaindex.events import PassingOver, dispatch, heard

if TYPE_CHECKING:
    import inspect
    from collections.abc import Iterator

    from llama_index.core.instrumentation.events import BaseEvent

    from tale_core.accounts.ledger import Ledger
    from tale_llamaindex._tracking import Asking, Question

Start: TypeAlias = LLMChatStartEvent | LLMCompletionStartEvent
Chunk: TypeAlias = LLMChatInProgressEvent | LLMCompletionInProgressEvent
End: TypeAlias = LLMChatEndEvent | LLMCompletionEndEvent

_STRUCTURED = StructuredLLM.class_name()
# A stream that nobody ever reads never ends; far above any real concurrency the oldest is forgotten.
_MOST_OPEN = 10_000


@dataclass(slots=True)
class _OpenCall:
    """One LLM call under way."""

    answer: Gathering
    asking: Asking | None
    """What the prompt asks, and under which budget the answer is judged; None for calls that carry none."""
    question_id: str
    """The run id of the question, or else of the outermost span around the call."""
    wraps: bool = False
    """Whether another call is made inside; that one is paid for, not this one."""
    ledgers: list[Ledger] = field(default_factory=list)
    """Who asked to be told, apart from the question's own followers."""

    @property
    def told(self) -> bool:
        """Whether anybody would be told what the call cost."""
        return self.asking is not None or bool(self.ledgers) or heard()

    def follow(self, ledger: Ledger) -> None:
        """Tell a ledger as well, once."""
        if not any(ledger is one for one in self.ledgers):
            self.ledgers.append(ledger)

    def settle(self, *, closed: bool) -> None:
        """Account for the call, once it is over."""
        if self.wraps:
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


class _Spans:
    """What runs inside what, and for which question."""

    def __init__(self) -> None:
        self.parents: dict[str, str | None] = {}
        self.scopes: dict[str, Question] = {}

    def around(self, span: str) -> Iterator[str]:
        """Yield a span and those around it, from the inside out."""
        node: str | None = span
        while node is not None:
            yield node
            node = self.parents.get(node)

    def scope(self, span: str) -> Question | None:
        """Return the question of the nearest span that has one."""
        return next((self.scopes[one] for one in self.around(span) if one in self.scopes), None)


class Observer:
    """The LLM calls under way in the process; one for all handlers, so that each call is told of once."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._spans = _Spans()
        self._open: dict[str, _OpenCall] = {}
        self._yielded: dict[int, str] = {}
        """The span of the call that yielded a chunk, by the chunk's id, while the chunk is its latest."""

    def enter(self, span: str, parent: str | None) -> None:
        """Note that a span began."""
        with self._lock:
            self._spans.parents[span] = parent

    def leave(self, span: str) -> None:
        """Note that a span is over; a streamed call goes on."""
        with self._lock:
            self._spans.parents.pop(span, None)
            self._spans.scopes.pop(span, None)

    def drop(self, span: str) -> None:
        """Note that a span raised; what a call in it cost nobody knows."""
        self._close(span)
        self.leave(span)

    def root(self) -> str | None:
        """Return the outermost span around the current call."""
        span = active_span_id.get()
        if span is None:
            return None
        with self._lock:
            *_, root = self._spans.around(span)
        return root

    def scope(self, question: Question) -> None:
        """Note that calls in the span around the current one belong to a question, whatever they say."""
        with self._lock:
            around = self._spans.parents.get(active_span_id.get() or "")
            if around is not None:
                self._spans.scopes[around] = question

    def start(self, event: Start) -> None:
        """Open a call, unless a flow makes it: flows account for their calls themselves."""
        if event.span_id is None or caller() is not None:
            return
        prompt = _prompt(event)
        with self._lock:
            *_, root = self._spans.around(event.span_id)
            scope = self._spans.scope(event.span_id)
        asking = asking_in("\n".join(prompt), scope)
        owner = scope if asking is None else asking.question
        call = _OpenCall(Gathering(prompt), asking, root if owner is None else owner.id)
        call.wraps = event.model_dict.get("class_name") == _STRUCTURED
        with self._lock:
            self._nest(event.span_id, call)
            self._open[event.span_id] = call
            if len(self._open) > _MOST_OPEN:
                self._close(next(iter(self._open)))

    def chunk(self, event: Chunk) -> None:
        """Take in a chunk of a stream."""
        with self._lock:
            span = event.span_id or ""
            call = self._open.get(span)
            if call is None:
                return
            self._forget_chunk(span, call)
            # Wrappers that begin their inner call only when they are read leave no trace in the spans, but
            # they hand on the very chunk that the inner call has just yielded.
            if self._yielded.setdefault(id(event.response), span) != span:
                call.wraps = True
            call.answer.take(event.response)

    def end(self, event: End) -> None:
        """Close a call that was answered."""
        call = self._close(event.span_id)
        if call is None or not call.told:
            return
        if event.response is not None and event.response is not call.answer.last:
            call.answer.take(event.response)
        call.settle(closed=False)

    def fail(self, event: ExceptionEvent) -> None:
        """Close a stream that its reader left, or that broke: what was generated was paid for."""
        call = self._close(event.span_id)
        if call is not None and call.answer.last is not None:
            call.settle(closed=True)

    def follow(self, ledger: Ledger) -> None:
        """Record the call that has just begun in this context to a ledger as well."""
        question = caller()
        if question is not None:
            question.follow(ledger)
            return
        with self._lock:
            call = self._open.get(active_span_id.get() or "")
        if call is None or hears_events(ledger):
            return
        if call.asking is not None:
            call.asking.question.follow(ledger)
        else:
            call.follow(ledger)

    def _nest(self, span: str, call: _OpenCall) -> None:
        """Mark the calls around a new one as wrappers; who listens to them listens to it."""
        for around in self._spans.around(span):
            outer = self._open.get(around)
            if outer is not None:
                outer.wraps = True
                for ledger in outer.ledgers:
                    call.follow(ledger)

    def _close(self, span: str | None) -> _OpenCall | None:
        with self._lock:
            call = self._open.pop(span or "", None)
            if call is not None:
                self._forget_chunk(span or "", call)
        return call

    def _forget_chunk(self, span: str, call: _OpenCall) -> None:
        if self._yielded.get(id(call.answer.last)) == span:
            del self._yielded[id(call.answer.last)]


def _prompt(event: Start) -> list[str]:
    if isinstance(event, LLMChatStartEvent):
        return [message.content or "" for message in event.messages]
    return [event.prompt]


OBSERVER = Observer()


class _EventHandler(PassingOver):
    """Tells the observer of LLM calls."""

    @classmethod
    def class_name(cls) -> str:
        """Return the handler's name."""
        return "TALEObserver"

    def handle(self, event: BaseEvent, **_: Any) -> None:
        """Hand on events about LLM calls."""
        if isinstance(event, LLMChatInProgressEvent | LLMCompletionInProgressEvent):
            OBSERVER.chunk(event)
        elif isinstance(event, LLMChatStartEvent | LLMCompletionStartEvent):
            OBSERVER.start(event)
        elif isinstance(event, LLMChatEndEvent | LLMCompletionEndEvent):
            OBSERVER.end(event)
        elif isinstance(event, ExceptionEvent):
            OBSERVER.fail(event)


class _SpanHandler(BaseSpanHandler[BaseSpan]):
    """Tells the observer of spans, and keeps none itself."""

    @classmethod
    def class_name(cls) -> str:
        """Return the handler's name."""
        return "TALEObserver"

    def new_span(
        self,
        id_: str,
        bound_args: inspect.BoundArguments,  # noqa: ARG002  # the framework's signature
        instance: Any = None,  # noqa: ARG002
        parent_span_id: str | None = None,
        tags: dict[str, Any] | None = None,  # noqa: ARG002
        **_: Any,
    ) -> None:
        """Note a span's parent."""
        OBSERVER.enter(id_, parent_span_id)

    def prepare_to_exit_span(self, id_: str, *_: Any, **__: Any) -> None:
        """Forget a span that is over."""
        OBSERVER.leave(id_)

    def prepare_to_drop_span(self, id_: str, *_: Any, **__: Any) -> None:
        """Forget a span that raised."""
        OBSERVER.drop(id_)


_EVENT_HANDLER = _EventHandler()
_SPAN_HANDLER = _SpanHandler()


def watch() -> None:
    """Attach the observer to the root dispatcher, unless it is there."""
    if not any(one is _EVENT_HANDLER for one in root_dispatcher.event_handlers):
        root_dispatcher.event_handlers.insert(0, _EVENT_HANDLER)
    if not any(one is _SPAN_HANDLER for one in root_dispatcher.span_handlers):
        root_dispatcher.span_handlers.insert(0, _SPAN_HANDLER)
