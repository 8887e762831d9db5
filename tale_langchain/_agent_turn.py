"""A user turn of an agent: estimated once, asked under one budget however often the model is called in it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from langchain.agents.middleware import ExtendedModelResponse, ModelResponse
from langchain.agents.middleware.internal_call_transformer import internal_call_metadata
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.messages import AIMessage
from langgraph.types import Command
from typing_extensions import TypedDict

from tale_core.types import Budget
from tale_langchain._convert import framed, to_reply, turn_at
from tale_langchain._question import Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain.agents.middleware import ModelRequest
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import RunnableConfig

    from tale_core.method.plan import Answer, Plan
    from tale_core.types import Flow, ModelCall, ModelReply
    from tale_langchain._config import Wiring


class TurnState(TypedDict):
    """What an agent's state keeps of the turn under way; plain data, for checkpoints."""

    message: str
    """The id of the human message that opened the turn."""
    budget: dict[str, Any]
    """The budget chosen for it."""
    estimate_usage: dict[str, Any] | None
    """What estimating it cost; None when no call was made."""
    spent: int
    """Output tokens of the turn's model calls so far."""
    calls: int
    """Model calls of the turn so far, those that the policy repeated included."""


class AgentTurn(Turn):
    """Drives one user turn at one point of an agent's loop.

    Args:
        wiring: The method and the models.
        messages: The conversation; the last human message opened the turn.
        request: The model call at hand; None before the first.
        state: What is known of the turn; None when it begins.
        manager: The callbacks of the surrounding run; None when nobody listens.
        config: The configuration for child runs.
        divide: Whether the calls of the turn share its budget.
    """

    def __init__(
        self,
        wiring: Wiring,
        messages: Sequence[BaseMessage],
        *,
        request: ModelRequest[Any] | None,
        state: TurnState | None,
        manager: Any,
        config: RunnableConfig,
        divide: bool,
    ) -> None:
        self._at = turn_at(messages) or 0
        asked = list(messages[: self._at + 1])
        self.message_id = str(asked[-1].id)
        super().__init__(
            wiring,
            asked,
            manager=manager,
            config=config,
            kwargs={} if request is None else _arguments(request),
            question_id=self.message_id,
        )
        self.handler: Any = None
        """Makes the agent's own model call; awaitable in asynchronous agents."""
        self._request_at_hand = request
        self._response: ModelResponse[Any] | None = None
        self._known = state if state is not None and state["message"] == self.message_id else None
        self._divide = divide
        self._spent = self._calls = 0

    @property
    def known(self) -> bool:
        """Whether the turn has its budget already."""
        return self._known is not None

    def flow(self) -> Flow[Answer]:
        """Plan the model call at hand; only a turn that has no budget yet is estimated."""
        if self._known is None:
            return self.run.answer()
        plan = self.run.under(Budget.model_validate(self._known["budget"]))
        if self._divide and plan.budget.tokens is not None:
            plan = self.run.portion(plan, 1 - self._known["spent"] / plan.budget.tokens)
        return self.run.asked(plan)

    def call(self, call: ModelCall) -> ModelReply:
        """Answer one call of the flow; the agent makes the visible ones."""
        if call.role != "reason":
            return super().call(call)
        self.dispatch()
        request, started = self._rewritten(call), time.perf_counter()
        return self._replied(request, self.handler(request), time.perf_counter() - started)

    async def acall(self, call: ModelCall) -> ModelReply:
        """Answer one call of the flow, asynchronously."""
        if call.role != "reason":
            return await super().acall(call)
        await self.adispatch()
        request, started = self._rewritten(call), time.perf_counter()
        return self._replied(request, await self.handler(request), time.perf_counter() - started)

    def opened(self, plan: Plan) -> TurnState:
        """Return the state of a turn that has its budget."""
        usage = self.run.estimate_cost()
        return {
            "message": self.message_id,
            "budget": plan.budget.model_dump(mode="json"),
            "estimate_usage": None if usage is None else usage.model_dump(mode="json"),
            "spent": 0,
            "calls": 0,
        }

    def response(self, answer: Answer) -> ExtendedModelResponse[Any]:
        """Return the agent's own response, with the accounts in its message and the spending in the state."""
        before = self.opened(answer.plan) if self._known is None else self._known
        message = self.answered(answer)
        if before["calls"] == 0:
            message.response_metadata["tale"]["estimate_usage"] = before["estimate_usage"]
        given = self._response
        assert given is not None  # noqa: S101  # an answer comes from a response
        native = answer.reply.native
        result = [message if one is native else one for one in given.result]
        state = {**before, "spent": before["spent"] + self._spent, "calls": before["calls"] + self._calls}
        return ExtendedModelResponse(
            model_response=ModelResponse(result=result, structured_response=given.structured_response),
            command=Command(update={"tale_turn": state}),
        )

    def _rewritten(self, call: ModelCall) -> ModelRequest[Any]:
        """Return the agent's request under the budget; the messages in its state stay as they are."""
        request = self._request_at_hand
        assert request is not None and call.framing is not None  # noqa: S101, PT018  # asked in a model call
        model, settings = self._reasoner.asked(call.setting, request.model_settings)
        messages = framed(request.messages, call.framing, self._at)
        return request.override(model=model, messages=messages, model_settings=settings)  # type: ignore[arg-type]  # the model, with its reasoning control set

    def _replied(self, request: ModelRequest[Any], response: ModelResponse[Any], seconds: float) -> ModelReply:
        self._response = response
        message = next((one for one in response.result if isinstance(one, AIMessage)), None)
        reply = to_reply(message, request.messages, seconds=seconds)
        self._calls += 1
        self._spent += 0 if reply.usage is None else reply.usage.output_tokens
        return reply

    def _quiet_config(self) -> RunnableConfig:
        config = super()._quiet_config()
        return {**config, "metadata": {**config["metadata"], **internal_call_metadata()}}


def _arguments(request: ModelRequest[Any]) -> dict[str, Any]:
    """Return what the agent will call its model with, as far as it decides about reasoning controls."""
    arguments = {**request.model_settings}
    if request.tools:
        arguments["tools"] = request.tools
    form = request.response_format
    if request.tool_choice is not None:
        arguments["tool_choice"] = request.tool_choice
    elif form is not None and not isinstance(form, ProviderStrategy):
        arguments["tool_choice"] = "any"  # the form may be a tool, which the agent then makes the model call
    return arguments
