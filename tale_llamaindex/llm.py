"""TALELLM: any LLM, asked under a budget; a drop-in wherever LlamaIndex takes an LLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from llama_index.core.base.llms.types import LLMMetadata  # noqa: TC002  # pydantic reads it
from llama_index.core.llms import LLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.structured_llm import StructuredLLM
from pydantic import Field, PrivateAttr, SerializeAsAny

from tale_core.errors import InvalidValueError, NotAChatModelError
from tale_llamaindex._conversation import FORCED, BudgetedCall, Conversation, UserTurns
from tale_llamaindex._setup import Setup, arun_flow, open_llm, run_flow
from tale_llamaindex._tracking import Asking, noted

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
    from pydantic import BaseModel
    from typing_extensions import Unpack

    from tale_core.method.plan import Answer, Plan
    from tale_llamaindex._convert import Response
    from tale_llamaindex._setup import LLMLike, Options, Request
    from tale_llamaindex._tracking import Question

# What an LLM is set up with; the wrapper and the LLM inside always agree on it.
_SHARED = (
    "callback_manager",
    "completion_to_prompt",
    "messages_to_prompt",
    "output_parser",
    "pydantic_program_mode",
    "query_wrapper_prompt",
    "rate_limiter",
    "system_prompt",
)
_END: Any = object()


class TALEPlainLLM(LLM):
    """`TALELLM` for code that must not take the LLM for one that calls tools; same arguments and errors."""

    llm: SerializeAsAny[LLM]
    """The LLM inside."""
    tale: dict[str, Any] = Field(default_factory=dict)
    """How it is asked, in plain values: caches keyed by ``to_dict`` must distinguish two budgets."""

    _setup: Setup = PrivateAttr()
    _turns: UserTurns = PrivateAttr(default_factory=UserTurns)

    def __init__(self, llm: LLMLike = None, **options: Unpack[Options]) -> None:
        inner = open_llm(llm)
        setup = Setup.of(inner, owner=type(self).__name__, **options)
        super().__init__(llm=inner, tale=setup.to_dict(), **{name: getattr(inner, name) for name in _SHARED})
        self._setup = setup

    @classmethod
    def class_name(cls) -> str:
        """Return the LLM's name."""
        return cls.__name__

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> NoReturn:
        """Raise `InvalidValueError`: a dict does not hold the LLM inside, nor an estimator."""
        del data, kwargs
        raise InvalidValueError(
            f"a {cls.__name__} cannot be made from a dict, which does not hold the LLM inside; "
            f"write {cls.__name__}(llm, ...) again, or pickle it"
        )

    @property
    def metadata(self) -> LLMMetadata:
        """The metadata of the LLM inside."""
        return self.llm.metadata

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Estimate a budget for the last user message, and ask under it."""
        # None: a tool is forced, nothing is asked, or the prompt has its budget already.
        call = self._begin(Conversation.of_messages(messages), "chat", kwargs)
        return self.llm.chat(messages, **kwargs) if call is None else self._run(call)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Estimate a budget for the last user message, and ask under it."""
        call = self._begin(Conversation.of_messages(messages), "chat", kwargs)
        return await self.llm.achat(messages, **kwargs) if call is None else await self._arun(call)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Estimate a budget for the prompt, and ask under it."""
        call = self._begin_prompt(prompt, "complete", kwargs, formatted=formatted)
        return self.llm.complete(prompt, formatted, **kwargs) if call is None else self._run(call)

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Estimate a budget for the prompt, and ask under it."""
        call = self._begin_prompt(prompt, "complete", kwargs, formatted=formatted)
        return await self.llm.acomplete(prompt, formatted, **kwargs) if call is None else await self._arun(call)

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Stream the answer to the last user message, asked under a budget."""
        call = self._begin(Conversation.of_messages(messages), "stream_chat", kwargs)
        return self.llm.stream_chat(messages, **kwargs) if call is None else self._stream(call)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Stream the answer to the last user message, asked under a budget."""
        call = self._begin(Conversation.of_messages(messages), "stream_chat", kwargs)
        return await self.llm.astream_chat(messages, **kwargs) if call is None else await self._astream(call)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Stream the answer to the prompt, asked under a budget."""
        call = self._begin_prompt(prompt, "stream_complete", kwargs, formatted=formatted)
        return self.llm.stream_complete(prompt, formatted, **kwargs) if call is None else self._stream(call)

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Stream the answer to the prompt, asked under a budget."""
        call = self._begin_prompt(prompt, "stream_complete", kwargs, formatted=formatted)
        return (
            await self.llm.astream_complete(prompt, formatted, **kwargs)
            if call is None
            else await self._astream(call)
        )

    # Structured output: the LLM inside makes the calls, so that its native path is kept.

    def structured_predict(
        self,
        output_cls: type[BaseModel],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        """Answer as an object of a class, asked under a budget."""
        call = self._begin_structured(prompt, llm_kwargs, prompt_args)
        if call is None:
            return self.llm.structured_predict(output_cls, prompt, llm_kwargs=llm_kwargs, **prompt_args)
        for asking in Asking(call.question, self._plan(call)).attempts():
            llm, template, kwargs = call.structured(asking.plan)
            with noted(asking=asking):
                found = llm.structured_predict(output_cls, template, llm_kwargs=kwargs)
        return found

    async def astructured_predict(
        self,
        output_cls: type[BaseModel],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        """Answer as an object of a class, asked under a budget."""
        call = self._begin_structured(prompt, llm_kwargs, prompt_args)
        if call is None:
            return await self.llm.astructured_predict(output_cls, prompt, llm_kwargs=llm_kwargs, **prompt_args)
        for asking in Asking(call.question, await self._aplan(call)).attempts():
            llm, template, kwargs = call.structured(asking.plan)
            with noted(asking=asking):
                found = await llm.astructured_predict(output_cls, template, llm_kwargs=kwargs)
        return found

    def stream_structured_predict(
        self,
        output_cls: type[BaseModel],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        """Stream partial objects of a class, asked under a budget."""
        call = self._begin_structured(prompt, llm_kwargs, prompt_args)
        if call is None:
            return self.llm.stream_structured_predict(output_cls, prompt, llm_kwargs=llm_kwargs, **prompt_args)
        asking = Asking(call.question, self._plan(call))
        llm, template, kwargs = call.structured(asking.plan)
        return asking.stream(llm.stream_structured_predict(output_cls, template, llm_kwargs=kwargs))

    async def astream_structured_predict(
        self,
        output_cls: type[BaseModel],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        """Stream partial objects of a class, asked under a budget."""
        call = self._begin_structured(prompt, llm_kwargs, prompt_args)
        if call is None:
            return await self.llm.astream_structured_predict(
                output_cls, prompt, llm_kwargs=llm_kwargs, **prompt_args
            )
        asking = Asking(call.question, await self._aplan(call))
        llm, template, kwargs = call.structured(asking.plan)
        with noted(asking=asking):
            found = await llm.astream_structured_predict(output_cls, template, llm_kwargs=kwargs)
        return asking.astream(found)

    # One call, from the prompt to the answer.

    def _begin(
        self, conversation: Conversation | None, endpoint: str, kwargs: dict[str, Any], query: str | None = None
    ) -> BudgetedCall | None:
        return self._turns.begin(self._setup, conversation, endpoint, kwargs, query)

    def _begin_prompt(
        self, prompt: str, endpoint: str, kwargs: dict[str, Any], *, formatted: bool
    ) -> BudgetedCall | None:
        call = self._begin(Conversation.of_prompt(self.llm, prompt, formatted=formatted), endpoint, kwargs)
        # The call must still say that the LLM's own template is in the prompt.
        if call is not None and formatted:
            call.kwargs = {**call.kwargs, "formatted": True}
        return call

    def _begin_structured(
        self, prompt: BasePromptTemplate, llm_kwargs: dict[str, Any] | None, prompt_args: dict[str, Any]
    ) -> BudgetedCall | None:
        # The LLM inside puts its system prompt before the messages itself.
        messages = prompt.format_messages(llm=self, **prompt_args)
        query = {**prompt.kwargs, **prompt_args}.get("query_str", "")
        return self._begin(Conversation.of_messages(messages), "chat", dict(llm_kwargs or {}), query)

    def _run(self, call: BudgetedCall) -> Any:
        answer = run_flow(call.answering(), call.question, call.request)
        self._turns.asked(call, answer.plan)
        return _accounted(answer)

    async def _arun(self, call: BudgetedCall) -> Any:
        answer = await arun_flow(call.answering(), call.question, call.request)
        self._turns.asked(call, answer.plan)
        return _accounted(answer)

    def _plan(self, call: BudgetedCall) -> Plan:
        plan = run_flow(call.planning(), call.question, call.request)
        self._turns.asked(call, plan)
        return plan

    async def _aplan(self, call: BudgetedCall) -> Plan:
        plan = await arun_flow(call.planning(), call.question, call.request)
        self._turns.asked(call, plan)
        return plan

    def _stream(self, call: BudgetedCall) -> Any:
        plan = self._plan(call)
        request = call.request(plan.call())
        with noted(flow=call.question):
            chunks = request.send()
        return _StreamedAnswer(call.question, plan, request).stream(chunks)

    async def _astream(self, call: BudgetedCall) -> Any:
        plan = await self._aplan(call)
        request = call.request(plan.call())
        with noted(flow=call.question):
            chunks = await request.asend()
        return _StreamedAnswer(call.question, plan, request).astream(chunks)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        # Applications set the callback manager after construction; both must have the same one.
        if name in _SHARED:
            setattr(self.llm, name, value)

    def __getattr__(self, name: str) -> Any:
        # Code that knows the LLM inside finds what it looks for: model, temperature, max_tokens, ...
        if name.startswith("_") or name == "llm":
            return super().__getattr__(name)  # type: ignore[misc]  # pydantic's, for private attributes
        return getattr(self.llm, name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._setup.describe()})"

    __str__ = __repr__


class TALELLM(TALEPlainLLM, FunctionCallingLLM):
    """Any LLM, asked under a budget that is estimated for each question.

    Behaves as the LLM inside: its metadata, tools, native structured output, system prompt, callback manager
    and rate limiter. The budget goes to the end of the last user message, on a copy. In an agent's turn the
    estimator runs once; the calls that return tool results carry the same budget. Responses tell what they cost
    in ``additional_kwargs["tale"]``, a stream in one more chunk at its end.

    For agents, chat and plain calls. In a query engine use `TALEQueryEngine`: it alone knows the response mode.

    Args:
        llm: An LLM object, ``"local"``, ``"openai:gpt-4o-mini"``, the URL of an OpenAI-compatible server, or
            None for ``Settings.llm``.
        **options: ``estimator``, ``policy``, ``strategy``, ``language``, ``calibration`` and
            ``reasoning_control``; see `Options`.

    Raises:
        InvalidValueError: An unknown option, or an invalid value; its subclasses say which.
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

    # Type checkers read the signature of a pydantic model from the class itself.
    def __init__(self, llm: LLMLike = None, **options: Unpack[Options]) -> None:
        super().__init__(llm, **options)

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


class _StreamedAnswer:
    """One answer as it streams; it is settled when the stream ends, however that comes about."""

    def __init__(self, question: Question, plan: Plan, request: Request) -> None:
        self._question = question
        self._plan = plan
        self._answer: Answer | None = None
        self._gathering = request.gathering()

    def stream(self, chunks: Generator[Response, None, None]) -> Generator[Response, None, None]:
        """Hand on the chunks, and at the end an empty one with the accounts."""
        try:
            while True:
                # The inner call may begin, or call others, whenever it is advanced.
                with noted(flow=self._question):
                    chunk = next(chunks, _END)
                if chunk is _END:
                    break
                self._gathering.take(chunk)
                yield chunk
            self._settle(closed=False)
        finally:
            self._settle(closed=True)
            chunks.close()
        yield from self._accounts()

    async def astream(self, chunks: AsyncGenerator[Response, None]) -> AsyncGenerator[Response, None]:
        """Hand on the chunks, asynchronously; see `stream`."""
        try:
            while True:
                with noted(flow=self._question):
                    chunk = await anext(chunks, _END)
                if chunk is _END:
                    break
                self._gathering.take(chunk)
                yield chunk
            self._settle(closed=False)
        finally:
            self._settle(closed=True)
            await chunks.aclose()
        for last in self._accounts():
            yield last

    def _settle(self, *, closed: bool) -> None:
        """Account for the answer, once."""
        if self._answer is None and self._gathering.last is not None:
            self._answer = self._question.settle(self._plan, self._gathering.reply(closed=closed))

    def _accounts(self) -> Generator[Response, None, None]:
        if self._answer is not None:
            yield _accounted(self._answer, last_chunk=True)
            self._question.run.enforce(self._answer)


def _accounted(answer: Answer, *, last_chunk: bool = False) -> Any:
    """Return a copy of the LLM's response with the accounts in its ``additional_kwargs``.

    The last chunk of a stream repeats nothing that readers add up: no new text, and no usage.
    """
    # A copy: whoever made the response may keep it.
    response: Response = answer.reply.native
    accounts = {"tale": answer.summary()}
    update: dict[str, Any] = {"additional_kwargs": {**response.additional_kwargs, **accounts}}
    if last_chunk:
        update = {"additional_kwargs": accounts, "delta": "", "raw": None}
    return response.model_copy(update=update)


def inner_of(llm: LLM) -> LLM:
    """Return the LLM that answers in plain text at the heart of an LLM, however it is wrapped."""
    while isinstance(llm, TALEPlainLLM | StructuredLLM):
        llm = llm.llm
    return llm
