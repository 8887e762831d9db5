"""Who hears of a run: its callbacks, and the custom stream of the graph around it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.runnables import ensure_config
from langchain_core.runnables.config import (
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
)
from langchain_core.utils.uuid import uuid7

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from langchain_core.callbacks import BaseCallbackManager
    from langchain_core.callbacks.manager import BaseRunManager

M = TypeVar("M", CallbackManagerForChainRun, AsyncCallbackManagerForChainRun)


def stream_writer() -> Callable[[Any], None] | None:
    """Return what writes into ``stream_mode="custom"`` of the graph around this call; None outside a graph."""
    config = sys.modules.get("langgraph.config")  # a graph that runs has been imported
    if config is None:
        return None
    try:
        writer: Callable[[Any], None] = config.get_stream_writer()
    except (RuntimeError, KeyError):  # no runnable around this call, or no graph
        return None
    return writer


def parent_run(run_id: UUID, run: BaseRunManager | BaseCallbackManager, kind: type[M]) -> M | None:
    """Return the callbacks of a chat model's run as those of a run that may have children; None without any.

    Handlers that the run would not pass on hear of our events too.
    """
    if not run.handlers:
        return None
    return kind(
        run_id=run_id,
        handlers=run.handlers,
        inheritable_handlers=run.handlers,
        parent_run_id=run.parent_run_id,
        tags=run.tags,
        inheritable_tags=run.inheritable_tags,
        metadata=run.metadata,
        inheritable_metadata=run.inheritable_metadata,
    )


def node_run() -> CallbackManagerForChainRun | None:
    """Return the callbacks of the graph's node that runs; None without handlers."""
    manager = get_callback_manager_for_config(ensure_config())
    return parent_run(manager.parent_run_id or uuid7(), manager, CallbackManagerForChainRun)


def anode_run() -> AsyncCallbackManagerForChainRun | None:
    """Return the callbacks of the graph's node that runs, for asynchronous use; None without handlers."""
    manager = get_async_callback_manager_for_config(ensure_config())
    return parent_run(manager.parent_run_id or uuid7(), manager, AsyncCallbackManagerForChainRun)


def tell(name: str, data: dict[str, Any]) -> None:
    """Send a custom event to the callbacks of the node, and to its graph's custom stream."""
    _write(name, data)
    run = node_run()
    if run is not None:
        run.get_child().on_custom_event(name, data, run_id=run.run_id)


async def atell(name: str, data: dict[str, Any]) -> None:
    """Send a custom event, asynchronously; see `tell`."""
    _write(name, data)
    run = anode_run()
    if run is not None:
        await run.get_child().on_custom_event(name, data, run_id=run.run_id)


def _write(name: str, data: dict[str, Any]) -> None:
    write = stream_writer()
    if write is not None:
        write({name: data})
