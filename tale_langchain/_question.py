"""One question under way in LangChain: answers the calls that its flow plans, and passes on its events."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables.config import (
    ensure_config,
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
)
from langchain_core.utils.uuid import uuid7

from tale_core.errors import UnexpectedReplyError
from tale_core.flows import arun, run
from tale_core.flows import turn as fair_turn
from tale_langchain._convert import as_chunk, asked_at, framed, from_core, text_of, to_reply, transcript_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator
    from types import TracebackType
    from uuid import UUID

    from langchain_core.callbacks import BaseCallbackManager
    from langchain_core.callbacks.manager import BaseRunManager
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import RunnableConfig
    from typing_extensions import Self

    from tale_core.method.plan import Answer, Plan
    from tale_core.types import ControlSetting, Framing, ModelCall, ModelReply
    from tale_langchain._models import ChatRunnable
    from tale_langchain._setup import Setup

M = TypeVar("M", CallbackManagerForChainRun, AsyncCallbackManagerForChainRun)

ESTIMATOR_TAGS = ("nostream", "tale:estimator")
"""Tags of the estimator's runs: the first hides them from LangGraph's streams, the second names them."""
_ESTIMATOR_NAME = "tale_estimator"


class Invocation(NamedTuple):
    """One model call in LangChain's terms."""

    model: ChatRunnable
    messages: list[BaseMessage]
    config: RunnableConfig
    kwargs: dict[str, Any]


def unobserved(config: RunnableConfig | None) -> RunnableConfig | None:
    """Return the configuration for child runs if no callback would hear of a run, otherwise None.

    Such a run needs none of the machinery that reports runs, which takes as long as a model call in LangChain.
    """
    config = ensure_config(config)
    if get_callback_manager_for_config(config).handlers:
        return None
    config.pop("run_name", None)
    config.pop("run_id", None)
    return config


class Question:
    """Drives one question; what to call, and when, is decided by its flow.

    Each pair of methods (`invoke` and `ainvoke`, `stream` and `astream`, ...) differs only in being
    synchronous or not. Events carry the id of the surrounding run unless ``question_id`` is another.
    """

    def __init__(
        self,
        setup: Setup,
        messages: list[BaseMessage],
        *,
        manager: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun | None,
        config: RunnableConfig,
        kwargs: dict[str, Any],
        question_id: str | None = None,
    ) -> None:
        self._reasoner, self._estimator = setup.reasoner, setup.estimator
        # Looked up in the caller's context, where the graph can be seen.
        self._write = stream_writer()
        self._at = asked_at(messages)
        question = "" if self._at is None else text_of(messages[self._at])
        sees_all = setup.estimator_sees == "conversation" and question
        if question_id is None:
            question_id = "" if manager is None else str(manager.run_id)
        self.run = setup.method.begin(
            question,
            question_id=question_id,
            context=transcript_of(messages) if sees_all else None,
            control=self._reasoner.control(kwargs),
            record_events=manager is not None or self._write is not None,
        )
        self._messages = messages
        # Sync or async as the methods that use it are: `call` and `dispatch`, or `acall` and `adispatch`.
        self._manager: Any = manager
        self._config = config
        self._kwargs = kwargs

    def invoke(self) -> AIMessage:
        """Return the model's own message, a copy with the accounts in its metadata."""
        try:
            return self.answered(run(self.run.answer(), self.call))
        finally:
            self.dispatch()

    async def ainvoke(self) -> AIMessage:
        """Return the model's own message asynchronously; see `invoke`."""
        try:
            return self.answered(await arun(self.run.answer(), self.acall))
        finally:
            await self.adispatch()

    def stream(self) -> Generator[AIMessageChunk, None, None]:
        """Yield the model's chunks, and at the end an empty one with the accounts."""
        try:
            plan = run(self.run.plan(), self.call)
            self.dispatch()
            with _StreamedAnswer(self, plan) as answer:
                model, messages, config, kwargs = answer.invocation
                for chunk in model.stream(messages, config, **kwargs):
                    yield answer.add(chunk)
            yield answer.last()
            answer.enforce()
        finally:
            self.dispatch()

    async def astream(self) -> AsyncGenerator[AIMessageChunk, None]:
        """Yield the model's chunks asynchronously; see `stream`."""
        try:
            plan = await arun(self.run.plan(), self.acall)
            await self.adispatch()
            with _StreamedAnswer(self, plan) as answer:
                model, messages, config, kwargs = answer.invocation
                async for chunk in model.astream(messages, config, **kwargs):
                    yield answer.add(chunk)
            yield answer.last()
            answer.enforce()
        finally:
            await self.adispatch()

    def call(self, call: ModelCall) -> ModelReply:
        """Answer one call of the flow."""
        self.dispatch()
        model, messages, config, kwargs = self.invocation(call)
        started = time.perf_counter()
        answer = model.invoke(messages, config, **kwargs)
        return to_reply(answer, messages, seconds=time.perf_counter() - started)

    async def acall(self, call: ModelCall) -> ModelReply:
        """Answer one call of the flow, asynchronously."""
        # Scripted and cached models never wait, and would keep the loop from everybody else.
        await fair_turn()
        await self.adispatch()
        model, messages, config, kwargs = self.invocation(call)
        started = time.perf_counter()
        answer = await model.ainvoke(messages, config, **kwargs)
        seconds = time.perf_counter() - started
        await fair_turn()
        return to_reply(answer, messages, seconds=seconds)

    def dispatch(self) -> None:
        """Pass new events on as custom events."""
        if self.run.events:
            for name, data in self._events():
                self._manager.get_child().on_custom_event(name, data, run_id=self._manager.run_id)

    async def adispatch(self) -> None:
        """Pass new events on as custom events, asynchronously."""
        if self.run.events:
            for name, data in self._events():
                await self._manager.get_child().on_custom_event(name, data, run_id=self._manager.run_id)

    def answered(self, answer: Answer) -> AIMessage:
        """Return the model's own message, a copy with the accounts in its metadata."""
        message: AIMessage = answer.reply.native
        metadata = {**message.response_metadata, "tale": answer.summary()}
        return message.model_copy(update={"response_metadata": metadata})

    def _events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield new events for the callbacks; a graph that streams what its nodes write hears of them here."""
        events = self.run.drain()
        heard = self._manager is not None and self._manager.handlers
        if not heard and self._write is None:
            return
        for event in events:
            data = event.model_dump(mode="json")
            if self._write is not None:
                self._write({event.name: data})
            if heard:
                yield event.name, data

    def invocation(self, call: ModelCall) -> Invocation:
        """Return what is invoked for a call of the flow."""
        if call.role == "reason" and call.framing is not None:
            invocation = self._asked(call.framing, call.setting)
        else:
            messages = [*map(from_core, call.messages)]
            invocation = Invocation(self._estimator.for_call(call), messages, self._quiet_config(), {})
        if self._manager is None:
            return invocation
        return invocation._replace(config=_labelled(invocation.config, call))

    def _asked(self, framing: Framing, setting: ControlSetting | None) -> Invocation:
        model, kwargs = self._reasoner.asked(setting, self._kwargs)
        return Invocation(model, framed(self._messages, framing, self._at), self._config, kwargs)

    def _quiet_config(self) -> RunnableConfig:
        """Return the configuration of the estimator's runs: traced like any other, but in no user's stream."""
        config: RunnableConfig = {
            **self._config,
            "tags": [*self._config.get("tags", ()), *ESTIMATOR_TAGS],
            "metadata": {**self._config.get("metadata", {}), "lc_source": _ESTIMATOR_NAME},
            "run_name": _ESTIMATOR_NAME,
        }
        if self._manager is not None:
            config["callbacks"] = callbacks = self._manager.get_child()
            for handler in list(callbacks.handlers):
                if hasattr(handler, "tap_output_iter"):  # what feeds astream_events and LangGraph's streams
                    callbacks.remove_handler(handler)
        return config


def _labelled(config: RunnableConfig, call: ModelCall) -> RunnableConfig:
    """Add what tracers can filter and group a call's run by. Never its usage: they count that themselves."""
    setting = call.setting
    labels = {
        "tale_role": call.role,
        "tale_budget": call.budget,
        "tale_control": None if setting is None else setting.control,
    }
    known = {name: value for name, value in labels.items() if value is not None}
    return {**config, "metadata": {**config.get("metadata", {}), **known}}


class _StreamedAnswer:
    """An answer as it streams; leaving the context accounts for it, whatever ended the stream."""

    def __init__(self, question: Question, plan: Plan) -> None:
        self.invocation = question.invocation(plan.call())
        self._run = question.run
        self._plan = plan
        self._chunks: list[AIMessageChunk] = []
        self._started = time.perf_counter()
        self._answer: Answer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Without a chunk there is no usage either.
        if not self._chunks:
            return  # nothing was answered, as when a call fails
        reply = to_reply(
            self._chunks[0] + self._chunks[1:],
            self.invocation.messages,
            seconds=time.perf_counter() - self._started,
            ended=kind is None,
        )
        self._answer = self._run.settle(self._plan, reply)

    def add(self, message: object) -> AIMessageChunk:
        """Take note of a chunk and return what the user sees of it."""
        # Kept as the model sent them: the copies that the user sees lack the end mark.
        chunk = as_chunk(message)
        self._chunks.append(chunk)
        # The last chunk is the one with the accounts.
        return chunk.model_copy(update={"chunk_position": None}) if chunk.chunk_position else chunk

    def last(self) -> AIMessageChunk:
        """Return the empty chunk that ends the stream and carries the accounts."""
        if self._answer is None:
            raise UnexpectedReplyError(
                "the model's stream ended without a single chunk; ask it without streaming"
            )
        final = self._chunks[-1]
        return AIMessageChunk(
            content="" if isinstance(final.content, str) else [],
            id=final.id,
            response_metadata={"tale": self._answer.summary()},
            chunk_position="last",
        )

    def enforce(self) -> None:
        """Raise what the policy raises for the answer; a stream cannot be taken back, so nothing is retried."""
        if self._answer is not None:
            self._run.enforce(self._answer)


# Where events go: the callbacks of the run, and the custom stream of the graph around it.


def stream_writer() -> Callable[[Any], None] | None:
    """Return what writes into ``stream_mode="custom"`` of the graph around this call; None outside a graph."""
    # Not imported for this: a chain without LangGraph must not load it.
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
