"""ChatTALE: any chat model, asked under a budget; a drop-in wherever LangChain takes a chat model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForChainRun,
    CallbackManager,
    CallbackManagerForChainRun,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableBinding, ensure_config
from langchain_core.utils.uuid import uuid7
from pydantic import Field, PrivateAttr, ValidationError

from tale_core.errors import InvalidValueError
from tale_core.flows import arun, run, turn
from tale_core.method.policy import BudgetPolicy  # noqa: TC001  # as above
from tale_core.models.reasoning_controls import ReasoningControl  # noqa: TC001  # pydantic reads the fields' types
from tale_langchain._config import Budgeting, Wiring
from tale_langchain._delegation import RUN, StandIn, inner_of
from tale_langchain._identity import identity_of
from tale_langchain._inline_run import ChatTurn, parent_run
from tale_langchain._model_loading import open_model
from tale_langchain._models import rebuilt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
    from langchain_core.language_models import LanguageModelInput
    from langchain_core.language_models.model_profile import ModelProfile
    from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
    from langchain_core.outputs import LLMResult
    from langchain_core.runnables import RunnableConfig

    from tale_core.method.calibration import Calibration
    from tale_core.protocols import Estimator, Strategy
    from tale_langchain._models import ChatRunnable


class ChatTALE(Budgeting, StandIn):
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
        estimator: An estimator, a model (or string) to estimate with, a number of output tokens, or None: the
            calibration's budget, or else the zero-shot estimator on the unbound model.
        policy: Bounds of the budget and reactions to answers; None for the calibration's or else the defaults.
        strategy: A prompt strategy or its name; None for the calibration's or else ``"tale"``.
        language: Language of the prompt, or ``"auto"`` to follow the question's script.
        calibration: What was measured about the model, or the path of it; None for the one shipped for this
            model, if there is one.
        estimator_sees: ``"question"`` for the last human message, ``"conversation"`` for all text before it,
            too.
        reasoning_control: What may carry the budget; see `TALERunnable`.
        name: The run's name in traces.
        **fields: What `BaseChatModel` knows: ``cache``, ``callbacks``, ``tags``, ``metadata``,
            ``rate_limiter`` (for questions), ...; what is left out is as in the model.

    Raises:
        NotAChatModelError: ``model`` is no chat model.
        UnknownModelError: ``model`` is a string that names nothing.
        UnknownStrategyError: No strategy of that name.
        InvalidValueError: A value that cannot be meant, or a provider's key is missing.
        LocalModelError: The embedded model cannot be served, or nobody answers at the URL.
        MissingExtraError: The string needs a package that is not installed.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> chat = ChatTALE(FakeListChatModel(responses=["Budget: [[40]]", "3 + 4 = 7"]))
        >>> answer = chat.invoke("How much is 3 + 4?")
        >>> answer.text, answer.response_metadata["tale"]["budget"]
        ('3 + 4 = 7', 40)
    """

    # What the user gave, so that configurable_fields can build the same with one thing changed.
    estimator: Any = Field(default=None, frozen=True)
    policy: BudgetPolicy | None = Field(default=None, frozen=True)
    strategy: Any = Field(default=None, frozen=True)
    language: str = Field(default="auto", frozen=True)
    measured: Any = Field(default=None, frozen=True)
    """The argument ``calibration``: LangChain has a field of that name."""
    estimator_sees: Literal["question", "conversation"] = Field(default="question", frozen=True)
    reasoning_control: ReasoningControl = Field(default="auto", frozen=True)

    _wiring: Wiring = PrivateAttr()

    def __init__(
        self,
        model: ChatRunnable | str,
        *,
        estimator: Estimator | ChatRunnable | str | int | None = None,
        policy: BudgetPolicy | None = None,
        strategy: str | Strategy | None = None,
        language: str = "auto",
        calibration: Calibration | ModelProfile | str | Path | None = None,
        estimator_sees: Literal["question", "conversation"] = "question",
        reasoning_control: ReasoningControl = "auto",
        **fields: Any,
    ) -> None:
        reasoner = open_model(model)
        inner = inner_of(reasoner)
        if isinstance(calibration, dict):  # LangChain's, as when configurable_fields builds this anew
            fields["profile"] = calibration
        elif calibration is not None:
            fields["measured"] = calibration
        for field in ("cache", "custom_get_token_ids", "disable_streaming", "output_version", "profile"):
            fields.setdefault(field, getattr(inner, field))
        choices: dict[str, Any] = {
            "estimator": estimator,
            "policy": policy,
            "strategy": strategy,
            "language": language,
            "estimator_sees": estimator_sees,
            "reasoning_control": reasoning_control,
        }
        try:
            super().__init__(model=reasoner, **choices, **fields)
        except ValidationError as exc:
            raise InvalidValueError.from_validation("ChatTALE", exc) from exc
        self._inner = inner
        choices.update(policy=self.policy, calibration=self.measured)
        self._wiring = Wiring.of(rebuilt(reasoner, _uncached), **choices)
        method = self._wiring.method
        by_model = isinstance(estimator, (str, Runnable))
        self._choices = {
            "estimator": identity_of(estimator if by_model else method.estimator),
            "policy": method.policy.model_dump(mode="json"),
            "strategy": identity_of(method.strategy),
            "language": method.language,
            "estimator_sees": estimator_sees,
            "reasoning_control": reasoning_control,
        }

    # `_generate` and `_stream` and their asynchronous forms differ in who waits, and in nothing else: what they
    # do is in the question's flow and in `Turn`.

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        turn = self._turn(messages, stop, kwargs, _run_of(run_manager, CallbackManagerForChainRun))
        try:
            return _result(turn, turn.answered(run(turn.run.answer(), turn.call)))
        finally:
            turn.dispatch()

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        turn = self._turn(messages, stop, kwargs, _run_of(run_manager, AsyncCallbackManagerForChainRun))
        try:
            return _result(turn, turn.answered(await arun(turn.run.answer(), turn.acall)))
        finally:
            await turn.adispatch()

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        turn = self._turn(messages, stop, kwargs, _run_of(run_manager, CallbackManagerForChainRun))
        try:
            plan = run(turn.run.plan(), turn.call)
            turn.dispatch()
            with turn.streaming(plan) as answer:
                model, asked, config, arguments = answer.request
                for chunk in model.stream(asked, config, **arguments):
                    yield ChatGenerationChunk(message=answer.add(chunk))
            yield ChatGenerationChunk(message=answer.last())
            answer.enforce()
        finally:
            turn.dispatch()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        turn = self._turn(messages, stop, kwargs, _run_of(run_manager, AsyncCallbackManagerForChainRun))
        try:
            plan = await arun(turn.run.plan(), turn.acall)
            await turn.adispatch()
            with turn.streaming(plan) as answer:
                model, asked, config, arguments = answer.request
                async for chunk in model.astream(asked, config, **arguments):
                    yield ChatGenerationChunk(message=answer.add(chunk))
            yield ChatGenerationChunk(message=answer.last())
            answer.enforce()
        finally:
            await turn.adispatch()

    async def agenerate(self, messages: list[list[BaseMessage]], *args: Any, **kwargs: Any) -> LLMResult:
        """Answer several conversations; takes, returns and raises as `BaseChatModel.agenerate`."""
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
            BudgetOverrunError: The answer overran and the policy says raise; after the last chunk, as below.
            CollapsedAnswerError: The answer is bare and the policy says raise.
            TruncatedAnswerError: The answer was cut or empty and the policy says raise.
            SlippedAnswerError: A calculation in it does not come out and the policy says raise.
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

    def _turn(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any], manager: Any
    ) -> ChatTurn:
        manager = kwargs.pop(RUN, None) or manager
        config: RunnableConfig = {} if manager is None else {"callbacks": manager.get_child()}
        arguments = kwargs if stop is None else {**kwargs, "stop": stop}
        return ChatTurn(self._wiring, messages, manager=manager, config=config, kwargs=arguments)

    def _around(self, model: Runnable[Any, Any]) -> Runnable[LanguageModelInput, AIMessage]:
        if isinstance(model, RunnableBinding) and model.bound is self.model:
            # Agents look into a binding for the tools and the model.
            return model.model_copy(update={"bound": self})
        return super()._around(model)


def _uncached(model: Any) -> Any:
    """Return the model without its cache: whole answers are kept around it."""
    return model.model_copy(update={"cache": False})


def _run_of(manager: Any, kind: Any) -> Any:
    """Return a chat model's run as one with children; None if nobody listens."""
    return None if manager is None else parent_run(manager.run_id, manager, kind)


def _result(turn: ChatTurn, message: AIMessage) -> ChatResult:
    """Return the model's own result, around the message with the accounts."""
    if turn.result is None:
        return ChatResult(generations=[ChatGeneration(message=message)])
    first, *others = turn.result.generations
    answer = first.model_copy(update={"message": message})
    return turn.result.model_copy(update={"generations": [answer, *others]})
