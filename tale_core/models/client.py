"""ChatClient: answers model calls through any OpenAI-compatible server, for the command line and benchmarks."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from tale_core.errors import (
    DeadlineError,
    InvalidValueError,
    MissingExtraError,
    ServerError,
    UnexpectedReplyError,
    UnknownModelError,
)
from tale_core.models.model_strings import OPENAI_URL, SERVER_KEY, ModelString, resolve_model, shown_address
from tale_core.models.providers import base_controls
from tale_core.models.reasoning_controls import LEVELS, choose, quiet
from tale_core.models.replies import concluded, read_ending, read_usage, visible
from tale_core.types import ControlSetting, ModelReply

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Coroutine, Iterator

    from typing_extensions import Self

    from tale_core.local.catalogue import WeightsFile
    from tale_core.models.model_strings import Endpoint
    from tale_core.models.reasoning_controls import NativeControls
    from tale_core.types import ModelCall, T

Streamed: TypeAlias = str | ModelReply
"""What a stream yields: pieces of text, and at last the whole reply."""

_NO_KEY = "none"
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_LISTING_TIMEOUT = 10.0  # seconds, without retries: a server that works lists its models at once

# What a call may take where nobody said: a fixed part, for queues and the prompt, and the time in which a slow
# server writes as much as the call allows. Models on one's own machine may write a few tokens a second.
_SECONDS = 120.0
_SECONDS_WITHOUT_CAP = 600.0
_TOKENS_A_SECOND_HERE, _TOKENS_A_SECOND = 4, 20


class ChatClient:
    """One model behind an OpenAI-compatible chat API: a driver's ``call``, its ``acall``, and a stream.

    Safe to share between threads and event loops: all threads draw on one connection pool, and so do all tasks
    of an event loop. Refused connections, rate limits and server errors are retried by the ``openai`` SDK, with
    growing pauses. Errors that the model's server reports reach the caller as the SDK's own. Plain calls and
    streams run on an event loop in a thread of their own, since only there can a call be cut at a deadline
    wherever it hangs. A client can be pickled; its key stays behind, and whoever unpickles it reads a key from
    the environment as `open` does.

    Further samples of a call (``sample`` 1, 2, ...) are seeded with their number, so that they differ where the
    temperature allows it. The first one, sample 0, is sent without a seed, as any plain question is: the server
    draws it as it likes, and measuring single answers asks nothing of servers that know no seed.

    Args:
        base_url: The API's address, ending in ``/v1`` or the like.
        model: The model's name on that server.
        api_key: The key; servers of one's own seldom want one.
        temperature: For calls that name none; None leaves the model's own.
        timeout: Seconds that a call or a stream may take in all, retries and pauses included. None takes 120,
            and one more for every 20 tokens of the call's output limit (for every 4, where the server is on
            this machine); 600 for a call without a limit.
        max_retries: How often the SDK tries again.

    Example::

        client = ChatClient.open("local")
        answer = run(TaleMethod().begin("How much is 3 + 4?").answer(), client)

    Raises:
        MissingExtraError: ``openai`` is not installed.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str = _NO_KEY,
        temperature: float | None = None,
        timeout: float | None = None,
        max_retries: int = 2,
    ) -> None:
        try:
            import openai  # noqa: PLC0415  # an extra
        except ImportError as exc:
            raise MissingExtraError("openai", "cli") from exc
        self._sdk = openai
        self.base_url = base_url
        self.model = model
        self.temperature = temperature
        if timeout is not None and not timeout > 0:
            raise InvalidValueError(f"a timeout is a number of seconds above 0, got {timeout!r}")
        self.timeout = timeout
        self.ends_at: float | None = None
        """When no call may take any longer, on the clock of `time.monotonic`; None for never."""
        # How long a call takes is watched over here.
        self._options: dict[str, Any] = {
            "base_url": base_url,
            "api_key": api_key,
            "timeout": None,
            "max_retries": max_retries,
        }
        self._is_openai = base_url == OPENAI_URL
        self._is_embedded = False
        self._is_here = urlsplit(base_url).hostname in _LOOPBACK
        self._named: tuple[str, WeightsFile | None] | None = None
        self._lock = threading.Lock()
        # An asynchronous connection pool belongs to the event loop that opened it.
        self._aclients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, openai.AsyncOpenAI] = (
            weakref.WeakKeyDictionary()
        )

    @classmethod
    def open(
        cls,
        model: str = "local",
        *,
        model_path: WeightsFile | None = None,
        temperature: float | None = None,
        timeout: float | None = None,
        max_retries: int = 2,
    ) -> Self:
        """Open the model that a string names.

        Args:
            model: ``local`` (the embedded default), ``local:NAME`` (another embedded model), ``openai:NAME``
                (the key comes from OPENAI_API_KEY), or the address of an OpenAI-compatible server (its key, if
                any, comes from TALE_API_KEY), with ``#NAME`` at its end where the server has several models.
            model_path: With ``local``: the GGUF file to serve.
            temperature: For calls that name none; None is 0 for ``local``, else the model's own.
            timeout: As in the constructor.
            max_retries: As in the constructor.

        Raises:
            UnknownModelError: The string has none of these forms, or names no model of the server.
            InvalidValueError: There is no key, or ``model_path`` was given without ``local``.
            ServerError: The server does not answer.
            LocalModelError: The embedded model cannot be served; its subclasses say why.
            MissingExtraError: A package is not installed.
        """
        found = resolve_model(model, model_path=model_path)
        client = cls(
            found.base_url,
            found.model or "",
            api_key=found.api_key,
            temperature=found.temperature if temperature is None else temperature,
            timeout=timeout,
            max_retries=max_retries,
        )
        client._is_embedded = found.embedded
        if found.model is None:
            client.model = client._only_model()
        served = ModelString.read(model).kind == "server"
        client._named = (f"{found.base_url}#{client.model}" if served else model, model_path)
        return client

    def __call__(self, call: ModelCall) -> ModelReply:
        """Answer one model call.

        Raises:
            DeadlineError: The answer took longer than it may.
            ServerError: The server does not answer, or broke the answer off.
            UnexpectedReplyError: It answered with something that is no chat completion.
        """
        return _finished(self.acall(call))

    async def acall(self, call: ModelCall) -> ModelReply:
        """Answer one model call on the running event loop; raises as a plain call does."""
        started = time.perf_counter()
        request = self._request(call)
        completion = await self._in_time(
            self._async().chat.completions.create(**request), self._seconds(request)
        )
        return self._reply(completion, started)

    def stream(self, call: ModelCall) -> Iterator[Streamed]:
        """Answer one model call piece by piece; raises as a plain call does.

        Yields:
            The text in pieces as they come, thinking included where the server leaves it in the text, and at
            last the whole reply. Leaving early closes the connection, and with it the server's work.
        """

        async def following() -> Streamed | None:
            return await anext(pieces, None)

        async def closed() -> None:
            with suppress(RuntimeError):  # Ctrl-C has cancelled it while it ran
                await pieces.aclose()

        pieces = self._stream(call)
        try:
            while (piece := _finished(following())) is not None:
                yield piece
        finally:
            _finished(closed())

    async def _stream(self, call: ModelCall) -> AsyncGenerator[Streamed, None]:
        started = time.perf_counter()
        pieces: list[str] = []
        usage = finish = last = None
        request = {**self._request(call), "stream": True, "stream_options": {"include_usage": True}}
        seconds = self._seconds(request)

        def left() -> float:
            return seconds - (time.perf_counter() - started)

        async with await self._in_time(self._async().chat.completions.create(**request), seconds) as chunks:
            following = aiter(chunks)
            while (chunk := await self._in_time(anext(following, None), left(), of=seconds)) is not None:
                last, usage = chunk, chunk.usage or usage
                for choice in chunk.choices[:1]:
                    finish = choice.finish_reason or finish
                    piece = choice.delta.content or choice.delta.refusal
                    if piece:
                        pieces.append(piece)
                        yield piece
        if last is None:
            raise UnexpectedReplyError(f"{self.address} closed the stream without an answer; try again")
        if finish is None:
            raise ServerError(f"{self.address} closed the stream before the answer ended; ask again")
        yield self._answered("".join(pieces), usage, finish, started, last)

    @property
    def address(self) -> str:
        """The API's address, fit to be shown."""
        return shown_address(self.base_url)

    def control(self, budget: int) -> ControlSetting:
        """Decide what carries a budget to this model; see `tale_core.types.ChooseControl`."""
        return choose(budget, self._controls())

    @property
    def efforts(self) -> tuple[str, ...]:
        """Effort levels that the model is known to accept, by rising effort."""
        return tuple(level for level in LEVELS if level in self._controls().levels)

    def close(self) -> None:
        """Close the connections of plain calls; those of an event loop close with it."""
        with self._lock:
            client = self._aclients.pop(_background(), None)
        if client is not None:
            _finished(client.close())

    # A key stays in its process: another one opens the model by its string, with its own environment's key.

    def __reduce__(self) -> tuple[Any, ...]:
        limits = {"timeout": self.timeout, "max_retries": self._options["max_retries"]}
        if self.address != self.base_url:
            raise InvalidValueError(
                f"the address of {self!r} holds a password or a key, which is not sent to other processes; put "
                f"the key into {SERVER_KEY} where the calls are made, and leave it out of the address"
            )
        if self._named is not None:
            name, path = self._named
            return partial(type(self).open, model_path=path, temperature=self.temperature, **limits), (name,)
        if self._options["api_key"] != _NO_KEY:
            raise InvalidValueError(
                f"{self!r} was given a key, which is not sent to other processes; open the model by its "
                "string, ChatClient.open(...), so that each process reads the key from its environment"
            )
        return partial(type(self), temperature=self.temperature, **limits), (self.base_url, self.model)

    def __repr__(self) -> str:
        return f"<ChatClient {self.model} at {self.address}>"

    def _controls(self) -> NativeControls:
        return base_controls(self.model, "openai" if self._is_openai else None)

    def _request(self, call: ModelCall) -> dict[str, Any]:
        setting = call.setting or ControlSetting(control="prompt", cap=call.max_tokens)
        if call.role == "estimate":
            setting = quiet(self._controls(), call.max_tokens)
        temperature = self.temperature if call.temperature is None else call.temperature
        cap = call.max_tokens if setting.cap is None else setting.cap
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [message.model_dump() for message in call.messages],
        }
        if temperature is not None and setting.temperature:
            request["temperature"] = temperature
        if cap is not None:
            # OpenAI's newer models refuse the old name, and other servers know only that.
            request["max_completion_tokens" if self._is_openai else "max_tokens"] = cap
        if call.sample:
            request["seed"] = call.sample
        if setting.control == "effort":
            request["reasoning_effort"] = setting.value
        return request

    def _reply(self, completion: Any, started: float) -> ModelReply:
        choices = getattr(completion, "choices", None)
        if not choices:
            raise UnexpectedReplyError(
                f"{self.address} answered without a choice; check that it is an OpenAI-compatible chat API"
            )
        text = choices[0].message.content or choices[0].message.refusal or ""
        return self._answered(text, completion.usage, choices[0].finish_reason, started, completion)

    def _answered(self, text: str, usage: Any, finish: str | None, started: float, native: Any) -> ModelReply:
        reason, measured = concluded(read_ending(finish), read_usage(usage), written=text)
        return ModelReply(
            text=visible(text),
            usage=measured,
            finish_reason=reason,
            model=native.model or self.model,
            seconds=time.perf_counter() - started,
            native=native,
        )

    # Proxy settings of the environment are for the world outside: a server on this machine is reached directly.

    def _async(self) -> Any:
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop not in self._aclients:
                direct = self._sdk.DefaultAsyncHttpxClient(trust_env=False) if self._is_here else None
                self._aclients[loop] = self._sdk.AsyncOpenAI(**self._options, http_client=direct)
            return self._aclients[loop]

    def _seconds(self, request: dict[str, Any]) -> float:
        """Return how long a request may take in all."""
        seconds = self.seconds(request.get("max_tokens", request.get("max_completion_tokens")))
        return seconds if self.ends_at is None else min(seconds, max(0.0, self.ends_at - time.monotonic()))

    def seconds(self, max_tokens: int | None) -> float:
        """Return how long a call under an output limit may take in all, retries and pauses included.

        Args:
            max_tokens: The limit, in tokens; None for none.
        """
        if self.timeout is not None:
            return self.timeout
        if max_tokens is None:
            return _SECONDS_WITHOUT_CAP
        return _SECONDS + max_tokens / (_TOKENS_A_SECOND_HERE if self._is_here else _TOKENS_A_SECOND)

    async def _in_time(self, work: Awaitable[T], seconds: float, *, of: float | None = None) -> T:
        """Wait for an answer, and turn a connection that fails or takes too long into an error in words.

        Args:
            work: Leads to the answer; cancelled when the time is up.
            seconds: The time that is left.
            of: The time in all, where that is more.
        """
        import httpx  # noqa: PLC0415  # the SDK's own transport

        try:
            return await asyncio.wait_for(work, max(0.0, seconds))
        except (asyncio.TimeoutError, self._sdk.APITimeoutError, httpx.TimeoutException) as exc:
            raise DeadlineError(
                f"{self.address} did not answer within {seconds if of is None else of:g} seconds; "
                "give it more time, or send fewer calls at once"
            ) from exc
        except (self._sdk.APIConnectionError, httpx.TransportError) as exc:
            raise ServerError(f"{self.address} does not answer; {self._next_step()}") from exc

    def _next_step(self) -> str:
        if self._is_embedded:
            return "the embedded server has ended: open the model again, and if it ends again, run: tale doctor"
        if self._is_here:
            return "check that a server listens on this port (the model 'local' starts one of its own)"
        return "check the address and the network, or use the model 'local', which needs neither"

    def _only_model(self) -> str:
        seconds = min(self.timeout or _LISTING_TIMEOUT, _LISTING_TIMEOUT)

        async def listed() -> Any:
            models = self._async().with_options(timeout=seconds, max_retries=0).models
            return await self._in_time(models.list(), seconds)

        try:
            names = [one.id for one in _finished(listed()).data]
        except self._sdk.APIStatusError as exc:
            raise UnknownModelError(
                f"{self.address} lists no models (HTTP {exc.status_code}); check that the address ends in /v1 "
                f"and the key, if it wants one ({SERVER_KEY}), or name a model after a '#': {self.address}#NAME"
            ) from exc
        if len(names) != 1:
            has = f"has the models {', '.join(names)}" if names else "lists no model"
            raise UnknownModelError(f"{self.address} {has}; name one after a '#': {self.address}#NAME")
        return str(names[0])


_loops: dict[int, asyncio.AbstractEventLoop] = {}
_loops_lock = threading.Lock()


def _background() -> asyncio.AbstractEventLoop:
    """Return the event loop on which plain calls of this process run; it ends with the process."""
    with _loops_lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _loops[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="tale-calls", daemon=True).start()
        return loop


def _finished(work: Coroutine[Any, Any, T]) -> T:
    """Wait for what runs on the event loop of plain calls; it is cancelled where the wait is interrupted."""
    future = asyncio.run_coroutine_threadsafe(work, _background())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def only_model(endpoint: Endpoint) -> str:
    """Return the name of the only model that a server has; waits 10 seconds for it, and asks once.

    Args:
        endpoint: The server.

    Raises:
        ServerError: The server does not answer.
        UnknownModelError: It lists no model, or several.
        MissingExtraError: ``openai`` is not installed.
    """
    client = ChatClient(endpoint.base_url, "", api_key=endpoint.api_key)
    try:
        return client._only_model()  # noqa: SLF001  # of this module
    finally:
        client.close()
