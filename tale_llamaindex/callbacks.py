"""TALECallbackHandler: a ledger of the LLM calls under one ``CallbackManager``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.callbacks import CBEventType
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.settings import Settings

from tale_core.accounts.ledger import Ledger
from tale_llamaindex._observer import OBSERVER, watch

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


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
        super().__init__(event_starts_to_ignore=[], event_ends_to_ignore=[])
        self.ledger = Ledger() if ledger is None else ledger
        watch()

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",
        **_: Any,
    ) -> str:
        """Ask to be told of an LLM call that begins: what it cost, and for which question."""
        del payload, parent_id
        if event_type == CBEventType.LLM:
            OBSERVER.follow(self.ledger)
        return event_id

    def on_event_end(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        **_: Any,
    ) -> None:
        """Do nothing: the end of a call is told by its usage."""

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
