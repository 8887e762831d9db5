"""What LangGraph offers to code that runs inside one of its nodes, where it is installed and running."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


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
