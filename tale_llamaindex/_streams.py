"""Streams that are settled when they end, however that comes about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tale_llamaindex._answers import Gathering

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from tale_core.method.plan import Answer, Plan
    from tale_llamaindex._calls import Request
    from tale_llamaindex._convert import Response
    from tale_llamaindex._tracking import Question

_END: Any = object()


class StreamedAnswer:
    """One answer as it streams.

    Args:
        question: The question.
        plan: How it is asked.
        request: The call that is streamed.
    """

    def __init__(self, question: Question, plan: Plan, request: Request) -> None:
        self._question = question
        self._plan = plan
        self._answer: Answer | None = None
        self._gathering = Gathering(request.texts())

    def stream(self, chunks: Generator[Response, None, None]) -> Generator[Response, None, None]:
        """Hand on the chunks, and at the end an empty one with the accounts."""
        try:
            while (chunk := self._next(chunks)) is not _END:
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
            while (chunk := await self._anext(chunks)) is not _END:
                self._gathering.take(chunk)
                yield chunk
            self._settle(closed=False)
        finally:
            self._settle(closed=True)
            await chunks.aclose()
        for chunk in self._accounts():
            yield chunk

    # The inner call may begin, or call others, whenever it is advanced: each time it is the question's.

    def _next(self, chunks: Generator[Response, None, None]) -> Any:
        with self._question.calling():
            return next(chunks, _END)

    async def _anext(self, chunks: AsyncGenerator[Response, None]) -> Any:
        with self._question.calling():
            return await anext(chunks, _END)

    def _settle(self, *, closed: bool) -> None:
        """Account for the answer, once."""
        if self._answer is None and self._gathering.last is not None:
            self._answer = self._question.settle(self._plan, self._gathering.reply(closed=closed))

    def _accounts(self) -> Generator[Response, None, None]:
        if self._answer is None or self._gathering.last is None:
            return
        yield accounted(self._gathering.last, self._answer, last_chunk=True)
        self._question.run.enforce(self._answer)


def accounted(response: Response, answer: Answer, *, last_chunk: bool = False) -> Response:
    """Return a copy of the response with the accounts in its ``additional_kwargs``.

    Args:
        response: The LLM's own response.
        answer: What it cost and showed.
        last_chunk: Whether it repeats the last chunk of a stream, whose new text was read already.
    """
    extra = {**response.additional_kwargs, "tale": answer.summary()}
    update: dict[str, Any] = {"additional_kwargs": extra}
    if last_chunk:
        extra.pop("thinking_delta", None)
        update["delta"] = ""
    return response.model_copy(update=update)
