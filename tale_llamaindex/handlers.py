"""The handlers that keep a ledger: one for the instrumentation dispatcher, one for callback managers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.callbacks import CBEventType
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.settings import Settings
from llama_index_instrumentation import root_dispatcher
from pydantic import Field

from tale_core.accounts.ledger import Ledger
from tale_llamaindex._observer import OBSERVER, watch
from tale_llamaindex.events import TALEBudgetEvent, TALEElasticityEvent, TALEUsageEvent

if TYPE_CHECKING:
    from types import TracebackType

    from llama_index.core.instrumentation.events import BaseEvent
    from typing_extensions import Self

_OTHER_THAN_LLM: list[CBEventType] = [kind for kind in CBEventType if kind is not CBEventType.LLM]


class TALEEventHandler(BaseEventHandler):
    """Records budgets, usage by role and elasticity of every LLM call in the process.

    Calls without a budget are recorded as well, so that the ledger of a run without TALE can be the baseline
    of `Ledger.savings`. Streams are recorded when they end, also when they are left early.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> with TALEEventHandler() as handler:
        ...     answer = MockLLM().complete("How old is Ann?")
        >>> [(call.role, call.usage.source) for call in handler.ledger.calls]
        [('reason', 'estimated')]

    Outside a ``with`` statement, ``get_dispatcher().add_event_handler(handler)`` or `attach` does the same.
    """

    ledger: Ledger = Field(default_factory=Ledger)
    """Where calls and events are recorded; give one with ``keep`` to a program that runs for long, and one with
    ``sinks`` to export or log them."""

    def __init__(self, *, ledger: Ledger | None = None) -> None:
        super().__init__(ledger=Ledger() if ledger is None else ledger)
        watch()

    @classmethod
    def class_name(cls) -> str:
        """Return the handler's name."""
        return "TALEEventHandler"

    def handle(self, event: BaseEvent, **_: Any) -> None:
        """Record TALE's events, and pass over all others."""
        if isinstance(event, TALEBudgetEvent | TALEUsageEvent | TALEElasticityEvent):
            self.ledger.record(event.record)

    def attach(self) -> Self:
        """Start recording, and return the handler."""
        watch()
        # By identity: handlers are pydantic models and compare by their fields.
        if not any(one is self for one in root_dispatcher.event_handlers):
            root_dispatcher.add_event_handler(self)
        return self

    def detach(self) -> None:
        """Stop recording; what was recorded stays."""
        handlers = root_dispatcher.event_handlers
        root_dispatcher.event_handlers = [one for one in handlers if one is not self]

    def __enter__(self) -> Self:
        return self.attach()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def __str__(self) -> str:
        return str(self.ledger)


class TALECallbackHandler(BaseCallbackHandler):
    """Records budgets, usage by role and elasticity of the LLM calls under a ``CallbackManager``.

    Safe to share between managers, threads and event loops.

    Args:
        ledger: Where calls and events are recorded; give one with ``keep`` to a program that runs for long, and
            one with ``sinks`` to export or log them.

    Example:
        >>> from llama_index.core.callbacks import CallbackManager
        >>> from llama_index.core.llms import MockLLM
        >>> handler = TALECallbackHandler()
        >>> llm = MockLLM(callback_manager=CallbackManager([handler]))
        >>> answer = llm.complete("How old is Ann?")
        >>> handler.ledger.count("reason")
        1

    A ``with`` statement adds it to ``Settings.callback_manager`` for as long as it lasts.
    """

    def __init__(self, *, ledger: Ledger | None = None) -> None:
        super().__init__(event_starts_to_ignore=_OTHER_THAN_LLM, event_ends_to_ignore=[*CBEventType])
        self.ledger = Ledger() if ledger is None else ledger
        watch()

    def on_event_start(
        self, event_type: CBEventType, payload: Any = None, event_id: str = "", parent_id: str = "", **_: Any
    ) -> str:
        """Follow an LLM call that begins: its cost, and its question."""
        del payload, parent_id
        # Callback managers report no usage, so the observer of the dispatcher does the counting.
        if event_type == CBEventType.LLM:
            OBSERVER.follow(self.ledger)
        return event_id

    def on_event_end(self, event_type: CBEventType, *_: Any, **__: Any) -> None:
        """Do nothing: usage arrives from the observer."""

    def start_trace(self, trace_id: str | None = None) -> None:
        """Do nothing: a ledger goes on across traces."""

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        """Do nothing: a ledger goes on across traces."""

    def __enter__(self) -> Self:
        if self not in Settings.callback_manager.handlers:
            Settings.callback_manager.add_handler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self in Settings.callback_manager.handlers:
            Settings.callback_manager.remove_handler(self)

    def __str__(self) -> str:
        return str(self.ledger)

    def __repr__(self) -> str:
        return f"TALECallbackHandler({self.ledger.count()} calls)"
