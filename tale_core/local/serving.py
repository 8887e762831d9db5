"""serve: the server that a process shares, started on first use."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from tale_core.local.server import LocalServer, ServerSettings
from tale_core.local.weights import find_weights

if TYPE_CHECKING:
    from tale_core.local.catalogue import WeightsFile

_lock = threading.Lock()
_servers: dict[tuple[str, ServerSettings], LocalServer] = {}


def _renew_lock() -> None:
    """Replace the lock in a forked child: a thread that does not exist there may hold it."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def serve(
    model: str | None = None,
    *,
    model_path: WeightsFile | None = None,
    settings: ServerSettings | None = None,
) -> LocalServer:
    """Return this process's server of a model, starting it on first use.

    Args:
        model: A name of the catalogue; None for whatever ``TALE_MODEL_PATH`` names, or else the default. With
            ``model_path`` any name: it is what the server calls the model.
        model_path: A GGUF file to use instead.
        settings: How to serve it; each combination has its own server.

    Returns:
        A server that answers, stopped when the interpreter exits.

    Raises:
        WeightsNotFoundError: The weights are nowhere; the message lists every way to get them.
        CorruptWeightsError: The weights are not what they should be.
        ServerError: The server did not start.
        UnknownModelError: No such name in the catalogue.
        MissingExtraError: A package of the extra ``local`` is not installed.
    """
    with _lock:
        weights = find_weights(model, path=model_path)
        key = (weights.model_dump_json(), ServerSettings() if settings is None else settings)
        server = _servers.get(key)
        if server is None or not server.alive:
            if server is not None:
                server.close()
            server = _servers[key] = LocalServer(weights, key[1])
        return server
