"""TALE's events on LlamaIndex's instrumentation dispatcher: the core's records, dispatched.

Attach any ``BaseEventHandler`` to the root dispatcher to receive them, or use `TALEEventHandler`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index_instrumentation import get_dispatcher, root_dispatcher
from llama_index_instrumentation.event_handlers import NullEventHandler

from tale_core.events import BudgetEvent, ElasticityEvent, Event, UsageEvent

if TYPE_CHECKING:
    from llama_index_instrumentation.dispatcher import Dispatcher

    from tale_core.accounts.ledger import Ledger

_dispatcher = get_dispatcher(__name__)


class _Dispatched(BaseEvent):
    """What turns one of the core's records into an event of the dispatcher."""

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which observability tools file the event."""
        return cls.__name__

    @property
    def record(self) -> Any:
        """The core's record, without what belongs to the dispatcher."""
        kind = next(core for core, ours in _KINDS.items() if isinstance(self, ours))
        return kind(**{name: getattr(self, name) for name in kind.model_fields})


class TALEBudgetEvent(BudgetEvent, _Dispatched):
    """A budget was chosen for a question, before the question was asked.

    Example:
        >>> event = TALEBudgetEvent(question_id="1", budget=40, source="zero-shot", strategy="tale")
        >>> event.class_name(), event.record.budget
        ('TALEBudgetEvent', 40)
    """


class TALEUsageEvent(UsageEvent, _Dispatched):
    """A model call was paid for, as an estimate or as (part of) an answer."""


class TALEElasticityEvent(ElasticityEvent, _Dispatched):
    """A budget or an answer did not behave as intended."""


TALEEvent: TypeAlias = TALEBudgetEvent | TALEUsageEvent | TALEElasticityEvent
"""Any of the three."""

_KINDS: dict[type[Event], type[TALEEvent]] = {
    BudgetEvent: TALEBudgetEvent,
    UsageEvent: TALEUsageEvent,
    ElasticityEvent: TALEElasticityEvent,
}


class PassingOver(BaseEventHandler):
    """An event handler that passes over TALE's own events, so that none need be made for it."""


def heard() -> bool:
    """Return whether an attached event handler may want TALE's events."""
    dispatcher: Dispatcher | None = _dispatcher
    while dispatcher is not None:
        for one in dispatcher.event_handlers:
            if not isinstance(one, PassingOver | NullEventHandler):
                return True
        dispatcher = dispatcher.parent if dispatcher.propagate else None
    return False


def hears_events(ledger: Ledger) -> bool:
    """Return whether an attached event handler owns the ledger, so that it hears of every record anyway."""
    return ledger in [getattr(handler, "ledger", None) for handler in root_dispatcher.event_handlers]


def dispatch(record: Event) -> None:
    """Send a core record to every attached event handler."""
    # Building an event validates it: not worth it without a listener.
    if not heard():
        return
    _dispatcher.event(_KINDS[type(record)](**dict(record)))
