"""ChatTALE: any chat model, asked under a budget; a drop-in wherever LangChain takes a chat model."""

from __future__ import annotations

from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForChainRun,
    CallbackManager,
    CallbackManagerForChainRun,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableBinding, ensure_config
from langchain_core.utils.uuid import uuid7
from pydantic import ValidationError

from tale_core.errors import InvalidValueError
from tale_core.flows import turn
from tale_core.method.method import current_options
from tale_langchain._delegation import RUN, DelegatingChatModel, InlineQuestion, identity_of, inner_of
from tale_langchain._models import open_model, rebuilt
from tale_langchain._question import parent_run
from tale_langchain._setup import OWN_OPTIONS, Budgeted, Options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from langchain_core.caches import BaseCache
    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun, Callbacks
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
    from langchain_core.outputs import LLMResult
    from langchain_core.rate_limiters import BaseRateLimiter
    from langchain_core.runnables import RunnableConfig
    from typing_extensions import Unpack

    from tale_langchain._models import ChatRunnable

_AS_INSIDE = ("cache", "custom_get_token_ids", "disable_streaming", "output_version", "profile")


class ChatOptions(Options, total=False):
    """How to ask under a budget, and what `BaseChatModel` knows."""

    name: str | None
    cache: BaseCache | bool | None
    callbacks: Callbacks
    tags: list[str] | None
    metadata: dict[str, Any] | None
    verbose: bool
    rate_limiter: BaseRateLimiter | None
    custom_get_token_ids: Any
    disable_streaming: bool | Literal["tool_calling"]
    output_version: str | None


class ChatTALE(Budgeted, DelegatingChatModel):
    """Any chat model, asked under a budget that is estimated for each question.

    To callbacks, tracers, caches and graphs it is the model inside: one chat model run per question, with the
    usage of the answer; the estimator makes no run of its own and appears in no stream. The budget, the tokens
    by role and the events are in ``response_metadata["tale"]``, and in the custom events that a
    `TALECallbackHandler` records. A turn that only returns tool results is asked without a budget; agents keep
    one over a whole turn with `TALEMiddleware`.

    Besides the errors below, a question raises what `TALERunnable.invoke` raises.

    A cache, the model's own or LangChain's global one, keeps whole answers here: on a hit neither the estimator
    nor the model is asked, and nothing is recorded. The model's rate limiter holds back each of its requests,
    estimates included.

    Args:
        model: A chat model, perhaps with bound arguments, retries or fallbacks, or a string:
            ``"openai:gpt-4o-mini"``, ``"local"`` for the embedded model, or the URL of an OpenAI-compatible
            server.
        **options: The options of `tale_core.method.method.MethodOptions`, and ``estimator`` and
            ``estimator_sees`` as in `TALERunnable`; also the fields of `BaseChatModel` (``cache``,
            ``callbacks``, ``tags``, ``metadata``, ``rate_limiter`` for questions, ``name``, ``profile``, ...),
            which are those of the model inside where they are left out.

    Raises:
        NotAChatModelError: ``model`` is no chat model.
        TaleError: Whatever else `TALERunnable` raises.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> chat = ChatTALE(FakeListChatModel(responses=["Budget: [[40]]", "3 + 4 = 7"]))
        >>> answer = chat.invoke("How much is 3 + 4?")
        >>> answer.text, answer.response_metadata["tale"]["budget"]
        ('3 + 4 = 7', 40)
    """

    def __init__(self, model: ChatRunnable | str, **options: Unpack[ChatOptions]) -> None:
        given: dict[str, Any] = {**options}
        # LangChain has a field `profile` too, a dict; anything else is a calibration under its former name.
        kept = {"profile"} if isinstance(given.get("profile", 0), (dict, type(None))) else set()
        renamed = {name: value for name, value in given.items() if name not in kept}
        fields = current_options(renamed, owner="ChatTALE", also=(*OWN_OPTIONS, *BaseChatModel.model_fields))
        fields.update({name: given[name] for name in kept})
        reasoner = open_model(model)
        inner = inner_of(reasoner)
        # Agents read these from the outermost model, and must see what the inner one says.
        for field in _AS_INSIDE:
            fields.setdefault(field, getattr(inner, field))
        try:
            super().__init__(model=reasoner, **fields)
        except ValidationError as exc:
            raise InvalidValueError.from_validation("ChatTALE", exc) from exc
        self._inner = inner
        self._setup = setup = self._set_up(rebuilt(reasoner, _uncached))
        by_model = isinstance(self.estimator, (str, Runnable))
        # Caches key on these, so two budgets never share an answer.
        self._choices = {
            "estimator": identity_of(self.estimator if by_model else setup.method.estimator),
            "policy": setup.method.policy.model_dump(mode="json"),
            "strategy": identity_of(setup.method.strategy),
            "language": self.language,
            "estimator_sees": self.estimator_sees,
            "reasoning_control": self.reasoning_control,
        }

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        question = self._question(messages, stop, kwargs, _run_of(run_manager, CallbackManagerForChainRun))
        return _result(question, question.invoke())

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        question = self._question(messages, stop, kwargs, _run_of(run_manager, AsyncCallbackManagerForChainRun))
        return _result(question, await question.ainvoke())

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        question = self._question(messages, stop, kwargs, _run_of(run_manager, CallbackManagerForChainRun))
        with closing(question.stream()) as chunks:
            for chunk in chunks:
                yield ChatGenerationChunk(message=chunk)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        question = self._question(messages, stop, kwargs, _run_of(run_manager, AsyncCallbackManagerForChainRun))
        async with aclosing(question.astream()) as chunks:
            async for chunk in chunks:
                yield ChatGenerationChunk(message=chunk)

    async def agenerate(self, messages: list[list[BaseMessage]], *args: Any, **kwargs: Any) -> LLMResult:
        """Answer several conversations; takes, returns and raises as `BaseChatModel.agenerate`."""
        # A batch of cached answers never waits for anything, and would block the loop.
        await turn()
        return await super().agenerate(messages, *args, **kwargs)

    def stream(
        self,
        input: LanguageModelInput,  # noqa: A002  # the name that LangChain gives it
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Estimate, then stream the answer as the model gives it.

        Returns:
            The model's chunks, and at the end an empty one with ``response_metadata["tale"]``. A stream cannot
            be taken back: ``retry`` in the policy only records there.

        Raises:
            InvalidValueError: The estimator returned no estimate.
            PolicyViolationError: The policy says raise; after the last chunk, as its subclasses explain.
            UnexpectedReplyError: The model streamed nothing at all.
            Exception: The model's own, unchanged; the estimator's too, where the policy says raise.
        """
        config, around = self._observed(config, CallbackManager, CallbackManagerForChainRun)
        return super().stream(input, config, stop=stop, **{**kwargs, RUN: around})

    def astream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Estimate, then stream the answer asynchronously; takes, returns and raises as `stream`."""
        config, around = self._observed(config, AsyncCallbackManager, AsyncCallbackManagerForChainRun)
        return super().astream(input, config, stop=stop, **{**kwargs, RUN: around})

    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        around = kwargs.pop(RUN, None) or _run_of(run_manager, CallbackManagerForChainRun)
        return super()._generate_with_cache(messages, stop, run_manager, **{**kwargs, RUN: around})

    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        around = kwargs.pop(RUN, None) or _run_of(run_manager, AsyncCallbackManagerForChainRun)
        return await super()._agenerate_with_cache(messages, stop, run_manager, **{**kwargs, RUN: around})

    def _observed(self, config: Any, managers: Any, runs: Any) -> tuple[RunnableConfig, Any]:
        """Return the configuration with the run's id settled, and the callbacks of that run."""
        config = ensure_config(config)
        # Settled before the run begins, so that our events name the run that tracers will see.
        config["run_id"] = run_id = config.get("run_id") or uuid7()
        manager = managers.configure(
            config.get("callbacks"),
            self.callbacks,
            self.verbose,
            config.get("tags"),
            self.tags,
            config.get("metadata"),
            self.metadata,
        )
        return config, parent_run(run_id, manager, runs)

    def _question(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any], manager: Any
    ) -> InlineQuestion:
        manager = kwargs.pop(RUN, None) or manager
        config: RunnableConfig = {} if manager is None else {"callbacks": manager.get_child()}
        arguments = kwargs if stop is None else {**kwargs, "stop": stop}
        return InlineQuestion(self._setup, messages, manager=manager, config=config, kwargs=arguments)

    def _around(self, model: Runnable[Any, Any]) -> Runnable[LanguageModelInput, AIMessage]:
        if isinstance(model, RunnableBinding) and model.bound is self.model:
            # Agents look into a binding for the tools and the model.
            return model.model_copy(update={"bound": self})
        return super()._around(model)


def _uncached(model: Any) -> Any:
    """Return the model without its cache: whole answers are kept around it."""
    return model.model_copy(update={"cache": False})


def _run_of(manager: Any, kind: Any) -> Any:
    """Return a chat model's run as one with children; None without handlers."""
    return None if manager is None else parent_run(manager.run_id, manager, kind)


def _result(question: InlineQuestion, message: AIMessage) -> ChatResult:
    """Return the model's own result, around the message with the accounts."""
    if question.result is None:
        return ChatResult(generations=[ChatGeneration(message=message)])
    first, *others = question.result.generations
    answer = first.model_copy(update={"message": message})
    return question.result.model_copy(update={"generations": [answer, *others]})
