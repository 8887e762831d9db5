"""The embedded model: real weights behind an OpenAI-compatible server on this machine.

Example::

    from tale_core.local import serve

    server = serve()  # loads the default model on first use, once per process
    model = ChatOpenAI(base_url=server.base_url, api_key=server.api_key, model=server.model,
        stream_usage=True)
"""

from tale_core.local.catalogue import (
    CATALOGUE,
    DEFAULT_MODEL,
    PATH_VARIABLE,
    SMALL_MODEL,
    EmbeddedModel,
    Piece,
    embedded_model,
)
from tale_core.local.server import LocalServer, ServerSettings
from tale_core.local.serving import serve
from tale_core.local.weights import (
    Weights,
    cache_folder,
    find_weights,
    locate_weights,
    verify_weights,
)

__all__ = [
    "CATALOGUE",
    "DEFAULT_MODEL",
    "PATH_VARIABLE",
    "SMALL_MODEL",
    "EmbeddedModel",
    "LocalServer",
    "Piece",
    "ServerSettings",
    "Weights",
    "cache_folder",
    "embedded_model",
    "find_weights",
    "locate_weights",
    "serve",
    "verify_weights",
]
