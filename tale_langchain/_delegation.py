"""How ChatTALE stands in for the wrapped model: it delegates metadata, and calls it within its own run."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import _gen_info_and_msg_metadata
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.utils.uuid import uuid7
from pydantic import BaseModel, PrivateAttr

from tale_core.errors import NotAChatModelError
from tale_core.prompts.strategies import get_strategy, strategy_names
from tale_core.protocols import Strategy
from tale_langchain._convert import as_chunk, to_messages
from tale_langchain._models import ChatRunnable, models_in, name_of, rebuilt
from tale_langchain._question import Invocation, Question

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from uuid import UUID

    from langchain_core.language_models.base import LangSmithParams
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import ChatGenerationChunk, ChatResult

    from tale_core.types import ModelCall

L = TypeVar("L", CallbackManagerForLLMRun, AsyncCallbackManagerForLLMRun)

RUN = "tale_run"
"""The argument that hands the run to `_stream`, since `BaseChatModel` does not."""
# Arguments that describe a structured output to tracers; BaseChatModel removes them before the request.
_FOR_TRACERS = ("ls_structured_output_format", "structured_output_format")
_PLAIN = (str, int, float, bool, type(None))
_unlike_others: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


class DelegatingChatModel(BaseChatModel):
    """A chat model around another: tracers, caches and counters see that one, and our choices."""

    if TYPE_CHECKING:  # a field of `Budgeted`, which comes with this class
        model: ChatRunnable

    _inner: BaseChatModel = PrivateAttr()
    """The first chat model inside the wrappers."""
    _choices: dict[str, Any] = PrivateAttr()
    """All that decides how a question is asked, beside the model: for traces and cache keys."""

    @property
    def model_name(self) -> str | None:
        """The model's name; agents look models up by it, and would take the field ``model`` for a name."""
        return name_of(self.model)

    @property
    def _llm_type(self) -> str:
        return "tale"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {**self._inner._identifying_params, "tale": self._choices}  # noqa: SLF001  # as upstream's wrappers

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        arguments = next(self._arguments(stop, kwargs))
        return {**self._inner._get_invocation_params(**arguments), "tale": self._choices}  # noqa: SLF001  # as above

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self._inner._get_ls_params(**next(self._arguments(stop, kwargs)))  # noqa: SLF001  # as above

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        models = (inside.model for inside in models_in(self.model))
        strings = [
            model._get_llm_string(**arguments)  # type: ignore[attr-defined]  # noqa: SLF001  # as above
            for model, arguments in zip(models, self._arguments(stop, kwargs), strict=True)
        ]
        return "---".join([*strings, str(self._choices)])

    # The model inside decides, so that its streaming switch and the callbacks around it count.
    def _should_stream(self, *, async_api: bool, run_manager: Any = None, **kwargs: Any) -> bool:
        if self._streaming_disabled(**kwargs):
            return False
        asked = {"async_api": async_api, "run_manager": run_manager, **_plain(kwargs)}
        return self._inner._should_stream(**asked)  # noqa: SLF001  # as above

    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        return self._inner._combine_llm_outputs(llm_outputs)  # noqa: SLF001  # as above

    def get_token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text, as the model inside counts them."""
        return self._inner.get_token_ids(text)

    def get_num_tokens(self, text: str) -> int:
        """Return the number of tokens in a text, as the model inside counts them."""
        return self._inner.get_num_tokens(text)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Return the number of tokens in messages, as the model inside counts them."""
        return self._inner.get_num_tokens_from_messages(messages, tools)

    def _arguments(self, stop: list[str] | None, kwargs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield, for each model inside, what reaches it, bound arguments included."""
        asked = _plain(kwargs) if stop is None else {**_plain(kwargs), "stop": stop}
        return (dict(inside.arguments) for inside in models_in(self.model, asked))


def inner_of(model: ChatRunnable) -> BaseChatModel:
    """Return the first chat model inside the wrappers; `NotAChatModelError` where there is none to be seen."""
    for inside in models_in(model):
        if not isinstance(inside.model, BaseChatModel):
            raise NotAChatModelError(
                f"ChatTALE needs a chat model, got {inside.model.get_name()}; wrap other runnables, and "
                "models that are chosen at run time, in a TALERunnable"
            )
    return next(models_in(model)).model  # type: ignore[return-value]  # just checked


def _plain(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that the caller gave."""
    return {name: value for name, value in kwargs.items() if name != RUN}


def identity_of(part: Any) -> str:
    """Return text that differs for parts that might act differently, and holds no key and no address.

    A part whose state cannot be read off equals nothing but itself.
    """
    if isinstance(part, str):
        return part
    if isinstance(part, Runnable):
        return " ".join(_model_identity(inside.model, inside.arguments) for inside in models_in(part))
    if isinstance(part, Strategy) and part.name in strategy_names() and get_strategy(part.name) is part:
        return part.name
    if isinstance(part, BaseModel):
        return f"{type(part).__name__} {part.model_dump_json()}"
    state = getattr(part, "__dict__", None)
    if state is not None and all(isinstance(value, _PLAIN) for value in state.values()):
        return f"{type(part).__name__} {state}"
    return f"{type(part).__name__} {_unlike_others.setdefault(part, uuid4().hex)}"


def _model_identity(model: Any, arguments: Any) -> str:
    if isinstance(model, BaseChatModel):
        return f"{type(model).__name__} {model._identifying_params} {dict(arguments)}"  # noqa: SLF001  # as upstream's wrappers
    return f"{type(model).__name__} {_unlike_others.setdefault(model, uuid4().hex)}"


# Asking a chat model within a run that is under way, so that callbacks hear of one run and one usage. A chat
# model that calls another one as LangChain lets it makes two runs: both report the same tokens, and a graph
# streams every word twice. Here the model inside keeps all that `BaseChatModel` puts around a provider's
# request (its rate limiter, its streaming switch, its output format), but the run.


class InlineQuestion(Question):
    """A question asked within a chat model's own run: none of its calls is a run of its own."""

    result: ChatResult | None = None
    """What the last whole answer came in, with all that a message alone does not carry."""

    def invocation(self, call: ModelCall) -> Invocation:
        """Return what is invoked for a call of the flow."""
        invocation = super().invocation(call)
        run_id = None if self._manager is None else self._manager.run_id
        note = self if call.role == "reason" else None

        def inline(one: Runnable[Any, Any]) -> Runnable[Any, Any]:
            return _InlineModel(one, run_id, note) if isinstance(one, BaseChatModel) else one

        return invocation._replace(model=rebuilt(invocation.model, inline))


class _InlineModel(Runnable[LanguageModelInput, AIMessage]):
    """A chat model without runs of its own.

    The run around it names messages that have no id; the question, if any, keeps the whole result.
    """

    def __init__(self, model: BaseChatModel, run_id: UUID | None, question: InlineQuestion | None) -> None:
        self._model = model
        self._run_id = run_id
        self._question = question

    def invoke(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Ask the model."""
        # A manager without handlers, not None: providers read the run's id and tags from it.
        silent = self._silent(CallbackManagerForLLMRun, config)
        return self._noted(
            self._model._generate_with_cache(  # noqa: SLF001  # the model, less the run
                to_messages(input), run_manager=silent, **_sent(kwargs)
            )
        )

    async def ainvoke(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Ask the model, asynchronously."""
        silent = self._silent(AsyncCallbackManagerForLLMRun, config)
        return self._noted(
            await self._model._agenerate_with_cache(  # noqa: SLF001  # as above
                to_messages(input), run_manager=silent, **_sent(kwargs)
            )
        )

    def stream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessage]:
        """Ask the model for a stream."""
        if not self._model._should_stream(async_api=False, **{**kwargs, "stream": True}):  # noqa: SLF001
            yield self.invoke(input, config, **kwargs)
            return
        # BaseChatModel.stream waits for the limiter itself, and is not called here.
        if self._model.rate_limiter is not None:
            self._model.rate_limiter.acquire(blocking=True)
        for chunk in self._model._stream(to_messages(input), **_sent(kwargs)):  # noqa: SLF001  # as above
            yield _message_of(chunk)

    async def astream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessage]:
        """Ask the model for a stream, asynchronously."""
        if not self._model._should_stream(async_api=True, **{**kwargs, "stream": True}):  # noqa: SLF001
            yield await self.ainvoke(input, config, **kwargs)
            return
        if self._model.rate_limiter is not None:
            await self._model.rate_limiter.aacquire(blocking=True)
        async for chunk in self._model._astream(to_messages(input), **_sent(kwargs)):  # noqa: SLF001  # as above
            yield _message_of(chunk)

    def _silent(self, kind: type[L], config: RunnableConfig | None) -> L:
        """Return callbacks without handlers, under the tags of the call."""
        tags = ensure_config(config).get("tags") or []
        return kind(run_id=self._run_id or uuid7(), handlers=[], inheritable_handlers=[], tags=tags)

    def _noted(self, result: ChatResult) -> AIMessage:
        if self._question is not None:
            self._question.result = result
        message: AIMessage = result.generations[0].message  # type: ignore[assignment]  # checked where it is read
        return message


def _sent(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name not in _FOR_TRACERS}


def _message_of(chunk: ChatGenerationChunk) -> AIMessageChunk:
    """Return the message of a chunk, with the provider's metadata."""
    message = as_chunk(chunk.message)
    message.response_metadata = _gen_info_and_msg_metadata(chunk)
    return message
