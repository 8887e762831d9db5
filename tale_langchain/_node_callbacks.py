"""What middleware knows of the node that it runs in: who listens, and where its graph's stream is written."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.runnables import ensure_config
from langchain_core.runnables.config import (
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
)
from langchain_core.utils.uuid import uuid7

from tale_langchain._graph import stream_writer
from tale_langchain._inline_run import parent_run


def node_run() -> CallbackManagerForChainRun | None:
    """Return the callbacks of the node that runs; None when nobody listens."""
    manager = get_callback_manager_for_config(ensure_config())
    return parent_run(manager.parent_run_id or uuid7(), manager, CallbackManagerForChainRun)


def anode_run() -> AsyncCallbackManagerForChainRun | None:
    """Return the callbacks of the node that runs, for asynchronous use; None when nobody listens."""
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
