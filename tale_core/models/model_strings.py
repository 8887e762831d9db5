"""Model strings: what a caller writes to name a model, and where that leads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import Field

from tale_core.errors import InvalidValueError, UnknownModelError
from tale_core.types import Record

if TYPE_CHECKING:
    from tale_core.local.catalogue import WeightsFile

FORMS = (
    "local",
    "local:NAME",
    "openai:NAME",
    "http://HOST:PORT/v1",
    "http://HOST:PORT/v1#NAME",
)
"""The forms of a model string."""

OPENAI_URL = "https://api.openai.com/v1"
"""OpenAI's own API."""

OPENAI_KEY = "OPENAI_API_KEY"
"""Environment variable with the key for ``openai:NAME``."""

SERVER_KEY = "TALE_API_KEY"
"""Environment variable with the key for servers given by address; OpenAI's key is never sent to them."""


class ModelString(Record):
    """A model string, read.

    Example:
        >>> ModelString.read("http://localhost:8000#llama")
        ModelString(kind='server', name='llama', address='http://localhost:8000/v1')
    """

    kind: Literal["local", "openai", "server"]
    """Where the model is: embedded, at OpenAI, or behind an address."""
    name: str | None = None
    """The model's name; None for the default of ``local``, and for the only model of a server."""
    address: str | None = None
    """The API's address; None for ``local``, which starts its own server."""

    @classmethod
    def read(cls, text: str) -> ModelString:
        """Read a model string.

        Args:
            text: One of `FORMS`. The part after ``#`` names one of a server's several models.

        Raises:
            UnknownModelError: It has none of these forms.
        """
        kind, colon, name = text.strip().partition(":")
        if kind == "local" and bool(colon) == bool(name):
            return cls(kind="local", name=name or None)
        if kind == "openai" and name:
            url = os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
            return cls(kind="openai", name=name, address=url.rstrip("/"))
        if kind in {"http", "https"}:
            address, _, name = text.strip().partition("#")
            try:
                parts = urlsplit(address)
                named = parts.hostname and parts.port != 0  # reading the port refuses what is no number
            except ValueError:  # "http://[", ":abc": none of the forms either
                named = False
            if named:
                path = parts.path.rstrip("/") or "/v1"
                return cls(kind="server", name=name or None, address=parts._replace(path=path).geturl())
        raise UnknownModelError(f"no model can be opened for {text!r}; allowed: {', '.join(FORMS)}")


class Endpoint(Record):
    """Where to send calls, with what key."""

    base_url: str
    """The API's address."""
    model: str | None
    """The model's name on that server; None when the server has to say."""
    api_key: str = Field(default="none", repr=False, exclude=True)
    """The key; servers of one's own seldom want one."""
    temperature: float | None = None
    """For calls that name none."""
    embedded: bool = False
    """Whether this process started the server itself."""


def resolve_model(text: str, *, model_path: WeightsFile | None = None) -> Endpoint:
    """Return where a model string leads, starting the embedded server where it names one.

    Args:
        text: A model string, see `FORMS`.
        model_path: With ``local``: the GGUF file to serve.

    Raises:
        UnknownModelError: No such form, or no such embedded model.
        InvalidValueError: There is no key, or ``model_path`` was given without ``local``.
        LocalModelError: The embedded model cannot be served; its subclasses say why.
        MissingExtraError: A package of the extra ``local`` is not installed.
    """
    found = ModelString.read(text)
    if found.kind == "local":
        return _serve(found.name, model_path)
    if model_path is not None:
        raise InvalidValueError(f"weights can be given for the model 'local' only, got {text!r}")
    assert found.address is not None  # noqa: S101  # all kinds but local have one
    key = os.environ.get(OPENAI_KEY if found.kind == "openai" else SERVER_KEY)
    if found.kind == "openai" and not key:
        raise InvalidValueError(
            f"{text!r} needs a key: set {OPENAI_KEY}, or use the model 'local', which needs none"
        )
    return Endpoint(base_url=found.address, model=found.name, api_key=key or "none")


def _serve(name: str | None, path: WeightsFile | None) -> Endpoint:
    from tale_core.local import serve  # noqa: PLC0415  # only this form needs it

    server = serve(name, model_path=path)
    # Greedy by default: a small model errs less, and the same question gets the same answer.
    return Endpoint(base_url=server.base_url, model=server.model, temperature=0.0, embedded=True)


def shown_address(address: str) -> str:
    """Return an address without the password that may stand in it."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
