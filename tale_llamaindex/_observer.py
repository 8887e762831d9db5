"""Watches every LLM call in the process and says what it cost, and for which question.

LlamaIndex's dispatcher reports calls and spans. Wrappers that call another LLM (a structured LLM, chat on
top of complete) emit events of their own around the inner call's; only the innermost call is paid for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatInProgressEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionInProgressEvent,
    LLMCompletionStartEvent,
    LLMPredictStartEvent,
)
from llama_index.core.instrumentation.span import BaseSpan, active_span_id
from llama_index.core.instrumentation.span_handlers import BaseSpanHandler
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index_instrumentation import root_dispatcher

from tale_llamaindex._convert import Gathering
from tale_llamaindex._tracking import (
    HERE,
    OpenCall,
    Question,
    QuestionText,
    Span,
    asked_here,
    current_span,
    framed_before,
)
from tale_llamaindex.events import PassingOver

if TYPE_CHECKING:
    from collections.abc import Callable

    from llama_index.core.instrumentation.events import BaseEvent

    from tale_core.accounts.ledger import Ledger

Start: TypeAlias = LLMChatStartEvent | LLMCompletionStartEvent
Chunk: TypeAlias = LLMChatInProgressEvent | LLMCompletionInProgressEvent
End: TypeAlias = LLMChatEndEvent | LLMCompletionEndEvent

_STRUCTURED = StructuredLLM.class_name()
# A stream that is never read never ends; far above any real concurrency the oldest are forgotten.
_MOST_OPEN = 10_000


class Observer:
    """The LLM calls under way in the process; one for all handlers, so that each call is reported once."""

    # Single operations on a dictionary are safe between threads; nothing here needs more.

    def __init__(self) -> None:
        self._open: dict[str, OpenCall] = {}
        """By the call's span."""
        self._yielded: dict[int, str] = {}
        """The span of the call that yielded a chunk, by the chunk's id, while the chunk is its latest."""

    def follow(self, ledger: Ledger) -> None:
        """Record the call that has just begun in this context to a ledger as well."""
        call = self._open.get(active_span_id.get() or "")
        if call is not None:
            call.follow(ledger)
            return
        found = asked_here()
        if found is not None:
            (found if isinstance(found, Question) else found.question).follow(ledger)

    def start(self, event: Start) -> None:
        """Open a call, unless a flow makes it: flows account for their calls themselves."""
        # Outside any span the end of the call could not be told from another's.
        if event.span_id is None:
            return
        if isinstance(event, LLMChatStartEvent):
            prompt = [message.content or "" for message in event.messages]
        else:
            prompt = [event.prompt]
        found, span = asked_here("\n".join(prompt)), current_span()
        if isinstance(found, Question):
            _look_around(span, found.follow)
            return
        # It answers by calling the LLM inside, whose event reports the cost.
        structured = event.model_dict.get("class_name") == _STRUCTURED
        call = OpenCall(Gathering(prompt), found, event.span_id, wraps=structured)
        outermost, scope = _look_around(span, call.follow)
        question = scope if found is None else found.question
        call.question_id = (outermost or event.span_id) if question is None else question.id
        span.call = self._open[event.span_id] = call
        if len(self._open) > _MOST_OPEN:
            for oldest in list(self._open)[: _MOST_OPEN // 10]:
                self.close(oldest)

    def chunk(self, event: Chunk) -> None:
        """Take in a chunk of a stream."""
        span_id = event.span_id or ""
        call = self._open.get(span_id)
        if call is None:
            return
        self._forget_chunk(span_id, call)
        # Wrappers that begin their inner call only when they are read leave no trace in the spans, but they
        # hand on the very chunk that the inner call has just yielded.
        if self._yielded.setdefault(id(event.response), span_id) != span_id:
            call.wraps = True
        call.answer.take(event.response)

    def end(self, event: End) -> None:
        """Close a call that was answered."""
        call = self.close(event.span_id)
        if call is None:
            return
        # A stream's end repeats its last chunk, whose text must not count twice.
        if event.response is not None and event.response is not call.answer.last:
            call.answer.take(event.response)
        call.settle(closed=False)

    def fail(self, event: ExceptionEvent) -> None:
        """Close a stream that its reader left, or that broke: what was generated was paid for."""
        call = self.close(event.span_id)
        if call is not None and call.answer.last is not None:
            call.settle(closed=True)

    def close(self, span_id: str | None) -> OpenCall | None:
        """Forget a call, and return it."""
        call = self._open.pop(span_id or "", None)
        if call is not None:
            call.over = True
            self._forget_chunk(span_id or "", call)
        return call

    def _forget_chunk(self, span_id: str, call: OpenCall) -> None:
        latest = id(call.answer.last)
        if self._yielded.get(latest) == span_id:
            self._yielded.pop(latest, None)


def _look_around(span: Span, follow: Callable[[Ledger], None]) -> tuple[str | None, Question | None]:
    """Mark the calls around a new one as wrappers, and return the outermost span and the nearest question.

    Ledgers that follow a wrapper also ``follow`` what it calls.
    """
    outermost, question = None, None
    around = span.parent
    while around is not None:
        if around.id is not None:
            outermost, question = around.id, question or around.question
        if around.call is not None and not around.call.over:
            around.call.wraps = True
            for ledger in around.call.ledgers:
                follow(ledger)
        around = around.parent
    return outermost, question


def _note_query(event: LLMPredictStartEvent) -> None:
    """Note the query of a template that is about to be predicted, and the question that its text carries."""
    template = event.template
    # A selector copies its variables, and copies are plain strings; its default template has them as given.
    given = {**template.kwargs, **getattr(template, "default_template", template).kwargs}
    query = {**given, **(event.template_args or {})}.get("query_str")
    span = current_span()
    span.query = query if isinstance(query, str) else ""
    if isinstance(query, QuestionText):
        span.question = framed_before(query)


OBSERVER = Observer()


class _EventHandler(PassingOver):
    """Passes events about LLM calls to the observer."""

    def handle(self, event: BaseEvent, **_: Any) -> None:
        """Hand on events about LLM calls."""
        if isinstance(event, Chunk):
            OBSERVER.chunk(event)
        elif isinstance(event, Start):
            OBSERVER.start(event)
        elif isinstance(event, End):
            OBSERVER.end(event)
        elif isinstance(event, LLMPredictStartEvent):
            _note_query(event)
        elif isinstance(event, ExceptionEvent):
            OBSERVER.fail(event)


class _SpanHandler(BaseSpanHandler[BaseSpan]):
    """Keeps the chain of spans, and no spans itself."""

    def span_enter(self, id_: str, *_: Any, parent_id: str | None = None, **__: Any) -> None:
        """Note that a span begins in this context."""
        parent = HERE.get()
        while parent is not None and parent.id != parent_id:
            parent = parent.parent
        if parent is None and parent_id is not None:
            parent = Span(parent_id)  # it began before anybody watched
        # A span that returns a future stays the active one when it is over; what begins then is not inside.
        while parent is not None and parent.over:
            parent = parent.parent
        HERE.set(Span(id_, parent))

    def span_exit(self, id_: str, *_: Any, **__: Any) -> None:
        """Note that a span is over; a call that is streamed goes on."""
        span = HERE.get()
        while span is not None and span.id != id_:
            span = span.parent
        if span is not None:
            span.over = True
            HERE.set(span.parent)

    def span_drop(self, id_: str, *_: Any, **__: Any) -> None:
        """Note that a span raised; the cost of a call in it is unknown."""
        OBSERVER.close(id_)
        self.span_exit(id_)

    def new_span(self, *_: Any, **__: Any) -> None:
        """Do nothing: spans are noted as they are entered."""

    def prepare_to_exit_span(self, *_: Any, **__: Any) -> None:
        """Do nothing: see ``span_exit``."""

    def prepare_to_drop_span(self, *_: Any, **__: Any) -> None:
        """Do nothing: see ``span_drop``."""


_EVENT_HANDLER = _EventHandler()
_SPAN_HANDLER = _SpanHandler()


def watch() -> None:
    """Attach the observer to the root dispatcher, unless it is there."""
    # First, so that a user's handler that reads a ledger finds the call in it.
    if _EVENT_HANDLER not in root_dispatcher.event_handlers:
        root_dispatcher.event_handlers.insert(0, _EVENT_HANDLER)
    if _SPAN_HANDLER not in root_dispatcher.span_handlers:
        root_dispatcher.span_handlers.insert(0, _SPAN_HANDLER)
