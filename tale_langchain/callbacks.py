"""TALECallbackHandler: the accounts of every question asked with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import BaseCallbackHandler

from tale_core.events import BudgetEvent, ElasticityEvent, Event, UsageEvent

if TYPE_CHECKING:
    from uuid import UUID

    from tale_core.accounts.ledger import Ledger

_EVENTS: dict[str, type[Event]] = {kind.name: kind for kind in (BudgetEvent, UsageEvent, ElasticityEvent)}


class TALECallbackHandler(BaseCallbackHandler):
    """Records budgets, usage by role and elasticity events of every `TALERunnable` that runs under it.

    One handler may be shared by threads and event loops, by ``batch`` and ``abatch``, and by several chains; it
    may be attached at several levels of one chain and still counts once. Print it for a table.

    Args:
        ledger: Where to record; None for a new one. One with ``sinks`` exports or logs what it records.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> from tale_langchain import TALERunnable
        >>> handler = TALECallbackHandler()
        >>> tale = TALERunnable(FakeListChatModel(responses=["Budget: [[40]]", "3 + 4 = 7"]))
        >>> _ = tale.invoke("How much is 3 + 4?", config={"callbacks": [handler]})
        >>> [call.role for call in handler.ledger.calls]
        ['estimate', 'reason']
    """

    run_inline = True
    """Recording is quick and locked: a thread per event, as async callbacks get by default, would cost more."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        if ledger is None:
            from tale_core.accounts.ledger import Ledger  # noqa: PLC0415  # chains without a handler need none

            ledger = Ledger()
        self.ledger = ledger

    @property
    def ignore_llm(self) -> bool:
        """True: model runs are of no interest, their usage arrives by role in custom events."""
        return True

    @property
    def ignore_chat_model(self) -> bool:
        """True, as `ignore_llm`."""
        return True

    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Record one of our events; others are ignored. The record itself carries the question's run id."""
        del run_id, kwargs
        kind = _EVENTS.get(name)
        if kind is not None:
            self.ledger.record(kind.model_validate(data))

    def __str__(self) -> str:
        return str(self.ledger)

    def __repr__(self) -> str:
        return f"TALECallbackHandler({self.ledger.count()} calls)"
