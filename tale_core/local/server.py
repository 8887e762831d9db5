"""LocalServer: llama.cpp behind an OpenAI-compatible API on this machine."""

from __future__ import annotations

import atexit
import contextlib
import http.client
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import Field

from tale_core.errors import MissingExtraError, ServerError
from tale_core.local import _process
from tale_core.local._progress import progress
from tale_core.local.catalogue import CATALOGUE
from tale_core.local.weights import Weights, verify_weights
from tale_core.types import Record

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


_HEALTH_TIMEOUT = 5.0
_STOP_TIMEOUT = 5.0
_LOG_TAIL = 400
_FEW_CORES = 4


class ServerSettings(Record):
    """How a server runs."""

    parallel: int = Field(default=4, ge=1)
    """Requests answered at the same time."""
    context: int = Field(default=4096, ge=1)
    """Tokens of prompt and answer together, for each request."""
    threads: int | None = Field(default=None, ge=1)
    """Processor threads; None takes what suits the model and the machine."""
    port: int = Field(default=0, ge=0, le=65535)
    """TCP port on 127.0.0.1; 0 takes any free one."""
    prompt_cache: int = Field(default=256, ge=0)
    """Megabytes of memory for prompt prefixes beyond those of the requests at hand."""
    temperature: float = Field(default=0.0, ge=0)
    """Sampling temperature of requests that name none: greedy, so that a run can be repeated."""
    answer_limit: int = Field(default=1024, ge=1)
    """Output cap of requests that name none, in tokens: small models now and then never end."""
    timeout: float = Field(default=300.0, gt=0)
    """Seconds to wait until the model is loaded."""


class LocalServer:
    """A running server; stopped by `close`, at the end of a ``with`` block, or when the interpreter exits.

    It runs in a process of its own and listens on 127.0.0.1 alone. A forked child may use it, but only the
    process that started it stops it. Requests need `api_key`: other users of the machine, and web pages in a
    browser on it, reach the address too.

    Args:
        weights: The weights to serve.
        settings: How to serve them.

    Raises:
        ServerError: It did not start.
        CorruptWeightsError: It did not start because the weights are damaged.
        MissingExtraError: ``xllamacpp`` is not installed.
    """

    def __init__(self, weights: Weights, settings: ServerSettings | None = None) -> None:
        if importlib.util.find_spec("xllamacpp") is None:
            raise MissingExtraError("xllamacpp", "local")
        self.weights = weights
        """What is served."""
        self.settings = ServerSettings() if settings is None else settings
        """How it is served."""
        self.api_key = secrets.token_urlsafe(32)
        """The key that requests need; drawn anew for each server, and never shown, logged or written."""
        self._owner = os.getpid()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the server
        self._process = _spawn(weights, self.settings, self.api_key, self._log.fileno())
        atexit.register(self.close)
        try:
            with progress(f"Loading {weights.model}"):
                self._address = self._wait_for_address()
            self._check_health()
        except BaseException:
            self.close()
            raise

    @property
    def model(self) -> str:
        """The model's name, as the server reports it."""
        return self.weights.model

    @property
    def base_url(self) -> str:
        """Where OpenAI clients connect; ends in ``/v1``."""
        return f"{self._address}/v1"

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1."""
        return urlsplit(self._address).port or 0

    @property
    def alive(self) -> bool:
        """Whether the server runs; one that is too busy to say so does."""
        if os.getpid() == self._owner:
            return self._process.poll() is None
        try:
            self._check_health()
        except ServerError as exc:
            return isinstance(exc.__cause__, TimeoutError)
        return True

    def close(self) -> None:
        """Stop the server; harmless when it has stopped, and in a forked child."""
        if os.getpid() != self._owner:
            return
        atexit.unregister(self.close)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LocalServer {self.model} at {self.base_url}>"

    def _wait_for_address(self) -> str:
        """Read the address, which the server reports once its model is loaded."""
        assert self._process.stdout is not None  # noqa: S101  # it was opened as a pipe
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        watchdog = threading.Timer(self.settings.timeout, give_up)
        watchdog.daemon = True
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if line:
            return str(json.loads(line)[_process.READY])
        if late.is_set():
            raise ServerError(
                f"the server of {self.model} was not ready after {self.settings.timeout:g} seconds; "
                "give it more time (ServerSettings.timeout), or stop what else keeps this machine busy"
            )
        raise self._start_failure()

    def _start_failure(self) -> ServerError:
        """Say why the server's process ended before it listened.

        Raises:
            CorruptWeightsError: Because the weights are damaged.
        """
        status = self._process.wait(_STOP_TIMEOUT)
        verify_weights(self.weights)
        self._log.seek(0)
        last = self._log.read().decode(errors="replace").strip()[-_LOG_TAIL:].splitlines()[-1:]
        port = f", that port {self.settings.port} is free" if self.settings.port else ""
        return ServerError(
            f"the server did not start with {str(self.weights.path)!r} (exit status {status}"
            f"{': ' + last[0] if last else ''}); check that the file is a model that llama.cpp runs{port}, and "
            "that there is enough memory, or run: tale doctor"
        )

    def _check_health(self) -> None:
        # Not through a library that reads proxy settings: the address is this machine's own.
        address = urlsplit(self._address)
        connection = http.client.HTTPConnection(
            address.hostname or "127.0.0.1", address.port, timeout=_HEALTH_TIMEOUT
        )
        try:
            connection.request("GET", "/health")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as exc:
            raise ServerError(
                f"the server of {self.model} at {self._address} does not answer ({type(exc).__name__}); "
                "start it again with tale_core.local.serve()"
            ) from exc
        finally:
            connection.close()
        if status != http.HTTPStatus.OK:
            raise ServerError(
                f"the server of {self.model} at {self._address} is not healthy (status {status}); "
                "close it and start it again with tale_core.local.serve()"
            )


def _threads(model: str) -> int:
    """Return the model's own number of threads, else all cores up to four, else -1: llama.cpp's own choice."""
    known = CATALOGUE.get(model)
    if known is not None and known.threads is not None:
        return known.threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if cores <= _FEW_CORES else -1


def _spawn(weights: Weights, settings: ServerSettings, key: str, log: int) -> subprocess.Popen[str]:
    told = {
        "key": key,
        "path": str(weights.path),
        "model": weights.model,
        "port": settings.port,
        "parallel": settings.parallel,
        "context": settings.context,
        "threads": settings.threads or _threads(weights.model),
        "prompt_cache": settings.prompt_cache,
        "temperature": settings.temperature,
        "answer_limit": settings.answer_limit,
    }
    # Out of the terminal's reach: Ctrl-C stops the caller, who then stops the server.
    group: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    process = subprocess.Popen(  # noqa: S603  # our own script, with the interpreter at hand
        [sys.executable, _process.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        **group,
    )
    assert process.stdin is not None  # noqa: S101  # it was opened as a pipe
    with contextlib.suppress(OSError):  # a process that is gone already is noticed by who waits for its address
        process.stdin.write(json.dumps(told) + "\n")
        process.stdin.flush()
    return process
