"""What every wrapped LLM has: the LLM inside, how it is asked, and the drivers of one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import LLMMetadata  # noqa: TC002  # pydantic reads it
from llama_index.core.llms import LLM
from llama_index.core.llms.structured_llm import StructuredLLM
from pydantic import PrivateAttr, SerializeAsAny

from tale_llamaindex._calls import arun_flow, run_flow
from tale_llamaindex._models import open_llm
from tale_llamaindex._setup import Setup
from tale_llamaindex._streams import StreamedAnswer, accounted
from tale_llamaindex._user_turn import Conversation, Turn, Turns

if TYPE_CHECKING:
    from pathlib import Path

    from llama_index.core.prompts import BasePromptTemplate

    from tale_core.method.calibration import Calibration
    from tale_core.method.plan import Plan
    from tale_core.method.policy import BudgetPolicy
    from tale_core.models.reasoning_controls import ReasoningControl
    from tale_core.protocols import Estimator, Strategy
    from tale_llamaindex._models import LLMLike

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


class WrappedLLM(LLM):
    """An LLM around another, which it agrees with in everything but how it asks."""

    llm: SerializeAsAny[LLM]
    """The LLM inside."""

    _setup: Setup = PrivateAttr()
    _turns: Turns = PrivateAttr(default_factory=Turns)

    def __init__(
        self,
        llm: LLMLike = None,
        *,
        estimator: Estimator | LLM | str | int | None = None,
        policy: BudgetPolicy | None = None,
        strategy: str | Strategy | None = None,
        language: str = "auto",
        calibration: Calibration | str | Path | None = None,
        reasoning_control: ReasoningControl = "auto",
    ) -> None:
        inner = open_llm(llm)
        super().__init__(llm=inner, **{name: getattr(inner, name) for name in _SHARED})
        self._setup = Setup.of(
            inner,
            estimator=estimator,
            policy=policy,
            strategy=strategy,
            language=language,
            calibration=calibration,
            reasoning_control=reasoning_control,
        )

    @classmethod
    def class_name(cls) -> str:
        """Return the LLM's name."""
        return cls.__name__

    @property
    def metadata(self) -> LLMMetadata:
        """The metadata of the LLM inside."""
        return self.llm.metadata

    def _begin(self, conversation: Conversation | None, endpoint: str, kwargs: dict[str, Any]) -> Turn | None:
        return self._turns.begin(self._setup, conversation, endpoint, kwargs)

    def _begin_prompt(
        self, prompt: str, endpoint: str, kwargs: dict[str, Any], *, formatted: bool
    ) -> Turn | None:
        conversation = Conversation.of_prompt(self.llm, prompt, formatted=formatted)
        turn = self._begin(conversation, endpoint, kwargs)
        if turn is not None and formatted:
            turn.kwargs = {**turn.kwargs, "formatted": True}
        return turn

    def _begin_structured(
        self, prompt: BasePromptTemplate, llm_kwargs: dict[str, Any] | None, prompt_args: dict[str, Any]
    ) -> Turn | None:
        # The LLM inside puts its system prompt before the messages itself.
        messages = prompt.format_messages(llm=self, **prompt_args)
        return self._begin(Conversation.of_messages(messages), "chat", dict(llm_kwargs or {}))

    def _run(self, turn: Turn) -> Any:
        answer = run_flow(turn.flow(), turn.question, turn.request)
        self._turns.asked(turn, answer.plan)
        return accounted(answer.reply.native, answer)

    async def _arun(self, turn: Turn) -> Any:
        answer = await arun_flow(turn.flow(), turn.question, turn.request)
        self._turns.asked(turn, answer.plan)
        return accounted(answer.reply.native, answer)

    def _plan(self, turn: Turn) -> Plan:
        plan = run_flow(turn.planning(), turn.question, turn.request)
        self._turns.asked(turn, plan)
        return plan

    async def _aplan(self, turn: Turn) -> Plan:
        plan = await arun_flow(turn.planning(), turn.question, turn.request)
        self._turns.asked(turn, plan)
        return plan

    def _stream(self, turn: Turn) -> Any:
        plan = self._plan(turn)
        request = turn.request(plan.call())
        with turn.question.calling():
            chunks = request.send()
        return StreamedAnswer(turn.question, plan, request).stream(chunks)

    async def _astream(self, turn: Turn) -> Any:
        plan = await self._aplan(turn)
        request = turn.request(plan.call())
        with turn.question.calling():
            chunks = await request.asend()
        return StreamedAnswer(turn.question, plan, request).astream(chunks)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
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


def inner_of(llm: LLM) -> LLM:
    """Return the LLM that answers in plain text at the heart of an LLM, however it is wrapped."""
    while isinstance(llm, WrappedLLM | StructuredLLM):
        llm = llm.llm
    return llm
