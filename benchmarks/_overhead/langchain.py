"""LangChain: `TALERunnable`, `ChatTALE`, `TALEMiddleware` and `TALEDocumentCompressor`."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from typing import TYPE_CHECKING, Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableLambda

from _overhead.by_hand import PASSAGES, ROOM, fitted_by_hand, words
from _overhead.sides import ANSWER, ESTIMATE, QUESTION, TASK, Comparison, Side, compare, pieces
from tale_core import Ledger
from tale_langchain import ChatTALE, TALECallbackHandler, TALEDocumentCompressor, TALEMiddleware, TALERunnable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from _overhead.figures import Table
    from _overhead.sides import Clock

_KEPT = 100
_SAYS = (
    "By hand: the same two calls in LCEL (`lambda | model | lambda | model`), for agents a middleware of two "
    "calls, without bounds, fallback, accounts or events. Handler: one that counts tokens; ours on our side, "
    "the least that does it on the others."
)


class InstantModel(BaseChatModel):
    """Answers at once, with a usage as a provider reports it."""

    latency: float = 0.0
    """Seconds before an asynchronous answer."""

    @property
    def _llm_type(self) -> str:
        return "instant"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        message = AIMessage(_answer(messages), usage_metadata=_usage(), response_metadata=_metadata())
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        if self.latency:
            await asyncio.sleep(self.latency)
        return self._generate(messages)

    def _stream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        for piece in pieces(_answer(messages)):
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
        last = AIMessageChunk(content="", usage_metadata=_usage(), response_metadata=_metadata())
        yield ChatGenerationChunk(message=last)

    async def _astream(
        self, messages: list[BaseMessage], *_: Any, **__: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages):
            yield chunk


class CountingHandler(BaseCallbackHandler):
    """The least that counts tokens."""

    run_inline = True

    def __init__(self) -> None:
        self.tokens = 0
        self._lock = threading.Lock()

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        """Add the tokens of a call."""
        for generations in response.generations:
            usage = generations[0].message.usage_metadata  # type: ignore[union-attr]  # chat models give messages
            with self._lock:
                self.tokens += usage["output_tokens"]


class HandwrittenMiddleware(AgentMiddleware[Any, Any, Any]):
    """Estimates, and puts the budget into the last message of the request."""

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Ask under a budget."""
        estimate = request.model.invoke(estimating(request.messages[-1].content))
        return handler(_budgeted(request, estimate))

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Ask under a budget, asynchronously."""
        estimate = await request.model.ainvoke(estimating(request.messages[-1].content))
        return await handler(_budgeted(request, estimate))


class HandwrittenCompressor(BaseDocumentCompressor):
    """Ranks by BM25 and cuts to sentences, in the fewest lines."""

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Any = None
    ) -> list[Document]:
        """Return what fits."""
        del callbacks
        kept = fitted_by_hand(query, [one.page_content for one in documents], ROOM)
        return [Document(page_content=text, metadata=documents[at].metadata) for at, text in kept]


class WholeCompressor(BaseDocumentCompressor):
    """Compresses nothing: the framework's call alone."""

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Any = None
    ) -> Sequence[Document]:
        """Return the documents."""
        del query, callbacks
        return documents


def estimating(question: str) -> list[BaseMessage]:
    """Return the estimator's prompt."""
    return [HumanMessage(f"{TASK} ...\n\nQuestion: {question}")]


def asking(question: str, estimate: AIMessage) -> list[BaseMessage]:
    """Return the prompt under the budget that an estimate names."""
    budget = int(re.findall(r"\[\[(\d+)\]\]", str(estimate.content))[0])
    return [HumanMessage(f"{question}\n\nLet's think step by step and use less than {budget} tokens:")]


def handwritten(model: BaseChatModel) -> Runnable[Any, AIMessage]:
    """Return the two steps as LCEL; the second knows its question from outside, which costs nothing."""

    def ask(estimate: AIMessage) -> list[BaseMessage]:
        return asking(QUESTION, estimate)

    return RunnableLambda(estimating) | model | RunnableLambda(ask) | model


def side(runnable: Any, handler: BaseCallbackHandler | None = None, given: Callable[[str], Any] = str) -> Side:
    """Return a runnable as a side.

    Args:
        runnable: What answers.
        handler: Hears of its runs.
        given: Makes its input of a question.
    """
    config: Any = None if handler is None else {"callbacks": [handler]}
    return Side(
        sync=lambda one: runnable.invoke(given(one), config),
        asynchronous=lambda one: runnable.ainvoke(given(one), config),
        batch=lambda many: runnable.batch([*map(given, many)], config),
        abatch=lambda many: runnable.abatch([*map(given, many)], config),
        stream=lambda one: runnable.stream(given(one), config),
        astream=lambda one: runnable.astream(given(one), config),
    )


def conversation(question: str) -> dict[str, Any]:
    """Return a question as agents take it."""
    return {"messages": [HumanMessage(question)]}


def agent(model: BaseChatModel, *middleware: AgentMiddleware[Any, Any, Any]) -> Any:
    """Return an agent without tools."""
    return create_agent(model, middleware=middleware)


def comparisons() -> Iterator[Comparison]:
    """Yield every wrapper, without and with a handler."""
    model = InstantModel()
    for observed in (False, True):
        ours = TALECallbackHandler(Ledger(keep=_KEPT)) if observed else None
        theirs = CountingHandler() if observed else None
        handler = "yes" if observed else "no"
        bare, by_hand = side(model, theirs), side(handwritten(model), theirs)
        for wrapper in (TALERunnable(model), ChatTALE(model)):
            yield Comparison(
                wrapper=type(wrapper).__name__,
                tale=side(wrapper, ours),
                by_hand=by_hand,
                bare=bare,
                handler=handler,
            )
        yield Comparison(
            wrapper="TALEMiddleware",
            tale=side(agent(model, TALEMiddleware()), ours, conversation),
            by_hand=side(agent(model, HandwrittenMiddleware()), theirs, conversation),
            bare=side(agent(model), theirs, conversation),
            handler=handler,
        )
    yield Comparison(
        wrapper="TALEDocumentCompressor",
        tale=_compressing(TALEDocumentCompressor(ROOM, count=words)),
        by_hand=_compressing(HandwrittenCompressor()),
        bare=_compressing(WholeCompressor()),
    )


def measure(*, questions: int, seconds: float, clock: Clock = time.perf_counter) -> Table:
    """Compare every wrapper for LangChain."""
    return compare("LangChain", _SAYS, comparisons(), questions=questions, seconds=seconds, clock=clock)


def _compressing(compressor: BaseDocumentCompressor) -> Side:
    documents = [Document(text) for text in PASSAGES]
    return Side(
        sync=lambda one: compressor.compress_documents(documents, one),
        asynchronous=lambda one: compressor.acompress_documents(documents, one),
    )


def _budgeted(request: Any, estimate: AIMessage) -> Any:
    *before, last = request.messages
    return request.override(messages=[*before, *asking(str(last.content), estimate)])


def _answer(messages: list[BaseMessage]) -> str:
    return ESTIMATE if str(messages[-1].content).startswith(TASK) else ANSWER


def _usage() -> Any:
    return {"input_tokens": 50, "output_tokens": 38, "total_tokens": 88}


def _metadata() -> dict[str, str]:
    return {"finish_reason": "stop", "model_name": "instant"}
