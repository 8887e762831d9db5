"""TALERunnable: a chat model that answers under a budget, as a link of any chain."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableSerializable
from pydantic import ConfigDict, ValidationError

from tale_core.errors import InvalidValueError
from tale_core.method.method import current_options
from tale_langchain._convert import to_messages
from tale_langchain._models import open_model
from tale_langchain._question import Question, unobserved
from tale_langchain._setup import OWN_OPTIONS, Budgeted, Options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
    from langchain_core.runnables import RunnableConfig
    from langchain_core.runnables.utils import ConfigurableFieldSpec
    from typing_extensions import Unpack

    from tale_langchain._models import ChatRunnable

F = TypeVar("F", bound=Callable[..., Any])


class TALERunnable(Budgeted, RunnableSerializable[LanguageModelInput, AIMessage]):
    """Estimates a token budget for a question, asks the model under it, and keeps the accounts.

    It takes the place of the model: ``prompt | TALERunnable(model) | parser``. A question goes in as a str,
    a prompt value or messages; the model's own AIMessage comes out, its ``usage_metadata`` untouched, with the
    budget, the tokens by role and the events in ``response_metadata["tale"]``. The estimator sees the last
    human message alone, never a tool, and appears in no stream. A stream ends with an empty chunk that carries
    the accounts; since it cannot be taken back, ``retry`` in the policy only records there.

    Args:
        model: A chat model, a runnable that answers with an AIMessage (``.bind()``, ``.with_retry()``,
            ``.with_fallbacks()``, ...), or a string: ``"openai:gpt-4o-mini"``, ``"local"`` for the embedded
            model, or the URL of an OpenAI-compatible server.
        name: The run's name in traces.
        **options: ``estimator``: an estimator, a model (or its string) to estimate with, a number of output
            tokens, or None for the calibration's budget, or else the zero-shot estimator on the unbound model.
            ``estimator_sees``: ``"question"`` for the last human message, ``"conversation"`` for all text
            before it, too. The others (``policy``, ``strategy``, ``language``, ``calibration``,
            ``reasoning_control``) are those of `tale_core.method.method.MethodOptions`.

    Raises:
        NotAChatModelError: ``model`` cannot answer messages with a message.
        UnknownModelError: ``model`` is a string that names nothing.
        UnknownStrategyError: No strategy of that name.
        InvalidValueError: An invalid value, or a provider's key is missing.
        LocalModelError: The embedded model cannot be served, or no server answers at the URL.
        MissingExtraError: The string needs a package that is not installed.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> tale = TALERunnable(FakeListChatModel(responses=["Budget: [[40]]", "3 + 4 = 7"]))
        >>> answer = tale.invoke("How much is 3 + 4?")
        >>> answer.text, answer.response_metadata["tale"]["budget"]
        ('3 + 4 = 7', 40)
    """

    model_config = ConfigDict(frozen=True)

    def __init__(
        self, model: ChatRunnable | str, *, name: str | None = None, **options: Unpack[Options]
    ) -> None:
        choices = current_options(options, owner="TALERunnable", also=OWN_OPTIONS)
        reasoner = open_model(model)
        try:
            super().__init__(model=reasoner, **{"name": name, **choices})
        except ValidationError as exc:
            raise InvalidValueError.from_validation("TALERunnable", exc) from exc
        self._setup = self._set_up(reasoner)

    def invoke(
        self,
        input: LanguageModelInput,  # noqa: A002  # the name that LangChain gives it
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Answer a question under a budget.

        Args:
            input: A str, a prompt value or a list of messages.
            config: LangChain's configuration; callbacks, tags and metadata reach the model.
            **kwargs: Passed to the model with the question, never to the estimator.

        Returns:
            The model's message, with the accounts in ``response_metadata["tale"]``.

        Raises:
            InvalidValueError: ``input`` is no question, or the estimator returned no estimate.
            PolicyViolationError: The answer departs from the budget and the policy says raise; its subclasses
                name what it did.
            UnexpectedReplyError: The model answered with something that is no AIMessage.
            Exception: The model's own, unchanged; the estimator's too, where the policy says raise.
        """

        def answer(
            given: LanguageModelInput, run_manager: CallbackManagerForChainRun | None, config: RunnableConfig
        ) -> AIMessage:
            return self._question(given, run_manager, config, kwargs).invoke()

        quiet = unobserved(config)
        if quiet is not None:
            return self._question(input, None, quiet, kwargs).invoke()
        return self._call_with_config(_signed(answer), input, config)

    async def ainvoke(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Answer a question under a budget, asynchronously; takes, returns and raises as `invoke`."""

        async def answer(
            given: LanguageModelInput,
            run_manager: AsyncCallbackManagerForChainRun | None,
            config: RunnableConfig,
        ) -> AIMessage:
            return await self._question(given, run_manager, config, kwargs).ainvoke()

        quiet = unobserved(config)
        if quiet is not None:
            return await self._question(input, None, quiet, kwargs).ainvoke()
        return await self._acall_with_config(_signed(answer), input, config)

    def stream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessage]:
        """Estimate, then stream the answer as the model gives it; takes what `invoke` takes.

        Returns:
            The model's chunks, and at the end an empty one with ``response_metadata["tale"]``.

        Raises:
            UnexpectedReplyError: The model streamed something that is no AIMessage, or nothing at all.
            Exception: Whatever else `invoke` raises; what the policy raises comes after the last chunk.
        """

        def answer(
            given: Iterator[LanguageModelInput],
            run_manager: CallbackManagerForChainRun,
            config: RunnableConfig,
        ) -> Iterator[AIMessage]:
            return self._question(next(given), run_manager, config, kwargs).stream()

        return self._transform_stream_with_config(iter([input]), answer, config)

    def astream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessage]:
        """Estimate, then stream the answer asynchronously; takes, returns and raises as `stream`."""

        async def once() -> AsyncIterator[LanguageModelInput]:
            yield input

        async def answer(
            given: AsyncIterator[LanguageModelInput],
            run_manager: AsyncCallbackManagerForChainRun,
            config: RunnableConfig,
        ) -> AsyncIterator[AIMessage]:
            question = self._question(await anext(given), run_manager, config, kwargs)
            async with aclosing(question.astream()) as chunks:
                async for chunk in chunks:
                    yield chunk

        return self._atransform_stream_with_config(once(), answer, config)

    @property
    def InputType(self) -> Any:  # noqa: N802  # LangChain's name
        """What the model takes."""
        return self.model.InputType

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """What can be configured at run time in the model."""
        return self.model.config_specs

    def _question(
        self,
        given: LanguageModelInput,
        manager: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun | None,
        config: RunnableConfig,
        kwargs: dict[str, Any],
    ) -> Question:
        return Question(self._setup, to_messages(given), manager=manager, config=config, kwargs=kwargs)


_SIGNATURE = inspect.signature(lambda given, run_manager, config: None)  # noqa: ARG005


def _signed(function: F) -> F:
    """Return the function with its signature at hand.

    LangChain asks for it twice on every call, and working it out takes longer than the rest of its part.
    """
    function.__signature__ = _SIGNATURE  # type: ignore[attr-defined]
    return function
