"""TALELLM: any LLM, asked under a budget; a drop-in wherever LlamaIndex takes an LLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.llms.function_calling import FunctionCallingLLM

from tale_core.errors import NotAChatModelError
from tale_llamaindex._tracking import Asking
from tale_llamaindex._user_turn import FORCED, Conversation, predicting
from tale_llamaindex._wrapped import WrappedLLM

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence

    from llama_index.core.base.llms.types import (
        ChatMessage,
        ChatResponse,
        ChatResponseAsyncGen,
        ChatResponseGen,
        CompletionResponse,
        CompletionResponseAsyncGen,
        CompletionResponseGen,
    )
    from llama_index.core.llms.llm import ToolSelection
    from llama_index.core.prompts import BasePromptTemplate
    from llama_index.core.tools import BaseTool
    from llama_index.core.types import TokenAsyncGen, TokenGen
    from pydantic import BaseModel


class TALEPlainLLM(WrappedLLM):
    """`TALELLM` for code that must not take the LLM for one that calls tools.

    Args and errors are those of `TALELLM`.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> llm = TALEPlainLLM(MockLLM(), estimator=40)  # MockLLM answers with its prompt
        >>> print(llm.complete("How old is Ann?"))
        How old is Ann?
        <BLANKLINE>
        Let's think step by step and use less than 40 tokens:
    """

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Estimate a budget for the last user message, and ask under it."""
        turn = self._begin(Conversation.of_messages(messages), "chat", kwargs)
        return self.llm.chat(messages, **kwargs) if turn is None else self._run(turn)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Estimate a budget for the last user message, and ask under it."""
        turn = self._begin(Conversation.of_messages(messages), "chat", kwargs)
        return await self.llm.achat(messages, **kwargs) if turn is None else await self._arun(turn)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Estimate a budget for the prompt, and ask under it."""
        turn = self._begin_prompt(prompt, "complete", kwargs, formatted=formatted)
        return self.llm.complete(prompt, formatted, **kwargs) if turn is None else self._run(turn)

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Estimate a budget for the prompt, and ask under it."""
        turn = self._begin_prompt(prompt, "complete", kwargs, formatted=formatted)
        return await self.llm.acomplete(prompt, formatted, **kwargs) if turn is None else await self._arun(turn)

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Stream the answer to the last user message, asked under a budget."""
        turn = self._begin(Conversation.of_messages(messages), "stream_chat", kwargs)
        return self.llm.stream_chat(messages, **kwargs) if turn is None else self._stream(turn)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Stream the answer to the last user message, asked under a budget."""
        turn = self._begin(Conversation.of_messages(messages), "stream_chat", kwargs)
        return await self.llm.astream_chat(messages, **kwargs) if turn is None else await self._astream(turn)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Stream the answer to the prompt, asked under a budget."""
        turn = self._begin_prompt(prompt, "stream_complete", kwargs, formatted=formatted)
        return self.llm.stream_complete(prompt, formatted, **kwargs) if turn is None else self._stream(turn)

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Stream the answer to the prompt, asked under a budget."""
        turn = self._begin_prompt(prompt, "stream_complete", kwargs, formatted=formatted)
        return (
            await self.llm.astream_complete(prompt, formatted, **kwargs)
            if turn is None
            else await self._astream(turn)
        )

    # In a template the query stands apart from its context: the estimator is shown the query alone.

    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Predict for a prompt template; the estimator sees only its query."""
        with predicting(prompt, prompt_args):
            return super().predict(prompt, **prompt_args)

    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Predict for a prompt template; the estimator sees only its query."""
        with predicting(prompt, prompt_args):
            return await super().apredict(prompt, **prompt_args)

    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenGen:
        """Stream the prediction for a prompt template; the estimator sees only its query."""
        with predicting(prompt, prompt_args):
            return super().stream(prompt, **prompt_args)

    async def astream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenAsyncGen:
        """Stream the prediction for a prompt template; the estimator sees only its query."""
        with predicting(prompt, prompt_args):
            return await super().astream(prompt, **prompt_args)

    # Structured output: the LLM inside makes the calls, so that its native path is kept.

    def structured_predict(
        self,
        output_cls: type[BaseModel],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        """Answer as an object of a class, asked under a budget."""
        with predicting(prompt, prompt_args):
            turn = self._begin_structured(prompt, llm_kwargs, prompt_args)
            if turn is None:
                return self.llm.structured_predict(output_cls, prompt, llm_kwargs=llm_kwargs, **prompt_args)
            asking: Asking | None = Asking(turn.question, self._plan(turn))
        while asking is not None:
            llm, template, kwargs = turn.structured(asking.plan)
            with asking.under_way():
                found = llm.structured_predict(output_cls, template, llm_kwargs=kwargs)
            asking = asking.again()
        return found

    async def astructured_predict(
        self,
        output_cls: type[BaseModel],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        """Answer as an object of a class, asked under a budget."""
        with predicting(prompt, prompt_args):
            turn = self._begin_structured(prompt, llm_kwargs, prompt_args)
            if turn is None:
                return await self.llm.astructured_predict(
                    output_cls, prompt, llm_kwargs=llm_kwargs, **prompt_args
                )
            asking: Asking | None = Asking(turn.question, await self._aplan(turn))
        while asking is not None:
            llm, template, kwargs = turn.structured(asking.plan)
            with asking.under_way():
                found = await llm.astructured_predict(output_cls, template, llm_kwargs=kwargs)
            asking = asking.again()
        return found

    def stream_structured_predict(
        self,
        output_cls: type[BaseModel],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        """Stream partial objects of a class, asked under a budget."""
        with predicting(prompt, prompt_args):
            turn = self._begin_structured(prompt, llm_kwargs, prompt_args)
            if turn is None:
                return self.llm.stream_structured_predict(
                    output_cls, prompt, llm_kwargs=llm_kwargs, **prompt_args
                )
            asking = Asking(turn.question, self._plan(turn))
        llm, template, kwargs = turn.structured(asking.plan)
        return asking.stream(llm.stream_structured_predict(output_cls, template, llm_kwargs=kwargs))

    async def astream_structured_predict(
        self,
        output_cls: type[BaseModel],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        """Stream partial objects of a class, asked under a budget."""
        with predicting(prompt, prompt_args):
            turn = self._begin_structured(prompt, llm_kwargs, prompt_args)
            if turn is None:
                return await self.llm.astream_structured_predict(
                    output_cls, prompt, llm_kwargs=llm_kwargs, **prompt_args
                )
            asking = Asking(turn.question, await self._aplan(turn))
        llm, template, kwargs = turn.structured(asking.plan)
        with asking.under_way():
            found = await llm.astream_structured_predict(output_cls, template, llm_kwargs=kwargs)
        return asking.astream(found)


class TALELLM(TALEPlainLLM, FunctionCallingLLM):
    """Any LLM, asked under a budget that is estimated for each question.

    Behaves as the LLM inside: its metadata, tools, native structured output, system prompt, callback manager
    and rate limiter. The budget goes to the end of the last user message, on a copy. In an agent's turn the
    estimator runs once; the calls that return tool results carry the same budget. Responses tell what they cost
    in ``additional_kwargs["tale"]``.

    Args:
        llm: An LLM object, ``"local"``, ``"openai:gpt-4o-mini"``, the URL of an OpenAI-compatible server, or
            None for ``Settings.llm``.
        estimator: An estimator, another LLM (or string) to ask, a number of output tokens, or None for the
            calibration's budget or else the zero-shot estimator.
        policy: Bounds of the budget, and what to do when an answer does not keep it; None for the
            calibration's or else the defaults.
        strategy: A prompt strategy or its name; None for the calibration's or else ``"tale"``.
        language: Language of the prompt, or ``"auto"`` to follow the question's script.
        calibration: What was measured about the LLM, or a path to it; None for the shipped one, if any.
        reasoning_control: What may carry the budget: ``"auto"`` takes the LLM's own reasoning control where it
            is known to think, else the prompt; see `tale_core.models.reasoning_controls.ReasoningControl`.

    Raises:
        InvalidValueError: A value that cannot be meant; its subclasses say which.
        NotAChatModelError: ``llm`` is neither an LLM nor a string.
        UnknownModelError: ``llm`` is a string that names no model.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> llm = TALELLM(MockLLM(), estimator=40)  # MockLLM answers with its prompt
        >>> response = llm.complete("How old is Ann?")
        >>> print(response)
        How old is Ann?
        <BLANKLINE>
        Let's think step by step and use less than 40 tokens:
        >>> response.additional_kwargs["tale"]["budget"]
        40
    """

    def _prepare_chat_with_tools(  # noqa: PLR0917  # the framework's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        prepared = self._tool_caller()._prepare_chat_with_tools_compat(  # noqa: SLF001  # as upstream's own wrapper
            tools,
            user_msg=user_msg,
            chat_history=chat_history,
            verbose=verbose,
            allow_parallel_tool_calls=allow_parallel_tool_calls,
            tool_required=tool_required,
            **kwargs,
        )
        return {**prepared, FORCED: True} if tool_required else prepared

    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        return self._tool_caller()._validate_chat_with_tools_response(  # noqa: SLF001  # as above
            response, tools, allow_parallel_tool_calls=allow_parallel_tool_calls, **kwargs
        )

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Return the tool calls in a response, as the LLM inside reads them."""
        return self._tool_caller().get_tool_calls_from_response(
            response, error_on_no_tool_call=error_on_no_tool_call, **kwargs
        )

    def _tool_caller(self) -> FunctionCallingLLM:
        if not isinstance(self.llm, FunctionCallingLLM):
            raise NotAChatModelError(
                f"{type(self.llm).__name__} cannot call tools; wrap a FunctionCallingLLM, or use a ReActAgent"
            )
        return self.llm
