"""One question on its way through LangChain: the calls its flow plans, the events it leaves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables.config import ensure_config, get_callback_manager_for_config

from tale_core.errors import UnexpectedReplyError
from tale_core.flows import turn
from tale_langchain._convert import as_chunk, framed, from_core, question_of, to_reply, transcript_of
from tale_langchain._graph import stream_writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import RunnableConfig
    from typing_extensions import Self

    from tale_core.method.plan import Answer, Plan
    from tale_core.types import ControlSetting, Framing, ModelCall, ModelReply
    from tale_langchain._config import Wiring
    from tale_langchain._models import ChatRunnable

ESTIMATOR_TAGS = ("nostream", "tale:estimator")
"""Tags of the estimator's runs: the first hides them from LangGraph's streams, the second names them."""
_ESTIMATOR_NAME = "tale_estimator"


class Request(NamedTuple):
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


class Turn:
    """Drives one question: answers the calls of its flow and passes its events on to the callbacks.

    Args:
        wiring: The method and the models.
        messages: The user's messages.
        manager: The callbacks of the surrounding run; None when nobody listens.
        config: The configuration for child runs.
        kwargs: The arguments that the user passed for the model.
        question_id: What events call the question; None for the id of the surrounding run.
    """

    def __init__(
        self,
        wiring: Wiring,
        messages: list[BaseMessage],
        *,
        manager: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun | None,
        config: RunnableConfig,
        kwargs: dict[str, Any],
        question_id: str | None = None,
    ) -> None:
        self._reasoner, self._estimator = wiring.reasoner, wiring.estimator
        self._write = stream_writer()
        question = question_of(messages)
        sees_all = wiring.estimator_sees == "conversation" and question
        if question_id is None:
            question_id = "" if manager is None else str(manager.run_id)
        self.run = wiring.method.begin(
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

    def call(self, call: ModelCall) -> ModelReply:
        """Answer one call of the flow; with `acall` the only place where sync and async differ."""
        self.dispatch()
        model, messages, config, kwargs = self._request(call)
        started = time.perf_counter()
        answer = model.invoke(messages, config, **kwargs)
        return to_reply(answer, messages, seconds=time.perf_counter() - started)

    async def acall(self, call: ModelCall) -> ModelReply:
        """Answer one call of the flow, asynchronously."""
        await turn()
        await self.adispatch()
        model, messages, config, kwargs = self._request(call)
        started = time.perf_counter()
        answer = await model.ainvoke(messages, config, **kwargs)
        seconds = time.perf_counter() - started
        await turn()
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

    def streaming(self, plan: Plan) -> StreamedAnswer:
        """Return the answer to a plan as a context that watches its stream."""
        return StreamedAnswer(self, plan, self._request(plan.call()))

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

    def _request(self, call: ModelCall) -> Request:
        if call.role == "reason" and call.framing is not None:
            request = self._asked(call.framing, call.setting)
        else:
            messages = [*map(from_core, call.messages)]
            request = Request(self._estimator.for_call(call), messages, self._quiet_config(), {})
        if self._manager is None:
            return request
        return request._replace(config=_labelled(request.config, call))

    def _asked(self, framing: Framing, setting: ControlSetting | None) -> Request:
        model, kwargs = self._reasoner.asked(setting, self._kwargs)
        return Request(model, framed(self._messages, framing), self._config, kwargs)

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


class StreamedAnswer:
    """An answer as it streams; leaving the context settles it, however that came about.

    Args:
        turn: The question.
        plan: How it was asked.
        request: The call whose stream is watched.
    """

    def __init__(self, turn: Turn, plan: Plan, request: Request) -> None:
        self.request = request
        self._turn = turn
        self._plan = plan
        self._chunks: list[AIMessageChunk] = []
        self._started = time.perf_counter()
        self._answer: Answer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._chunks:
            return  # nothing was answered, as when a call fails
        reply = to_reply(
            self._chunks[0] + self._chunks[1:],
            self.request.messages,
            seconds=time.perf_counter() - self._started,
            ended=kind is None,
        )
        self._answer = self._turn.run.settle(self._plan, reply)

    def add(self, message: object) -> AIMessageChunk:
        """Take note of a chunk and return what the user sees of it."""
        chunk = as_chunk(message)
        self._chunks.append(chunk)
        # The last chunk is the one with the accounts.
        return chunk.model_copy(update={"chunk_position": None}) if chunk.chunk_position else chunk

    def last(self) -> AIMessageChunk:
        """Return the empty chunk that ends the stream and carries the accounts.

        Raises:
            UnexpectedReplyError: The stream had no chunk.
        """
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
            self._turn.run.enforce(self._answer)
