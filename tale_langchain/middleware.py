"""TALEMiddleware: an agent that keeps a token budget over each user turn."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

from langchain.agents.middleware import AgentMiddleware, AgentState, ExtendedModelResponse, ModelResponse
from langchain.agents.middleware.internal_call_transformer import (
    InternalCallTransformer,
    internal_call_metadata,
)
from langchain.agents.middleware.types import PrivateStateAttr
from langchain.agents.structured_output import ProviderStrategy
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import Runnable, ensure_config
from langgraph.types import Command
from typing_extensions import NotRequired, TypedDict

from tale_core.errors import InvalidValueError
from tale_core.flows import arun, run
from tale_core.method.method import TaleMethod, current_options
from tale_core.models.reasoning_controls import check_reasoning_control
from tale_core.types import Budget
from tale_langchain._convert import framed, to_reply, turn_at
from tale_langchain._models import name_of, open_model
from tale_langchain._question import Question, anode_run, node_run
from tale_langchain._setup import OWN_OPTIONS, Options, Setup, opened_estimator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from langchain.agents.middleware import ModelRequest
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import RunnableConfig
    from langgraph.runtime import Runtime
    from typing_extensions import Unpack

    from tale_core.method.plan import Answer, Plan
    from tale_core.types import Flow, ModelCall, ModelReply
    from tale_langchain._models import ChatRunnable

_KEPT = 8  # setups of an agent's models; most agents have one


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


class TALEState(AgentState[Any]):
    """What the middleware keeps in an agent's state, out of its input and output."""

    tale_turn: NotRequired[Annotated[TurnState, PrivateStateAttr]]


class TALEMiddleware(AgentMiddleware[TALEState, Any, Any]):
    """Gives every user turn of an agent a token budget: one estimate, and all calls of the turn under it.

    The budget goes into a copy of the human message that opened the turn, or into the model's own reasoning
    control; the messages in the agent's state stay as the user wrote them. Budget and spending are in the
    private state key ``tale_turn``, the accounts in ``response_metadata["tale"]`` of each answer and in the
    custom events that a `TALECallbackHandler` records, all calls of a turn under one question id. The estimator
    appears in no stream. Before Python 3.11, LangGraph hands callbacks to no asynchronous node: under
    ``ainvoke`` and ``astream`` the accounts are in the answers then, and no handler hears of them.

    Args:
        model: The agent's model, or a string as `TALERunnable` takes it; it estimates in a step of its own,
            once however often a call is retried. None takes the model of the turn's first call, and estimates
            within that call.
        divide: Whether the model calls of a turn share its budget: each is asked for what the earlier ones
            left, never for less than the policy's floor. By default each has the whole.
        **options: As `TALERunnable` takes them.

    Raises:
        InvalidValueError: An invalid value; its subclasses say which.
        NotAChatModelError: ``model`` or ``estimator`` cannot answer messages with a message.

    Example:
        >>> from langchain.agents import create_agent
        >>> from langchain_core.language_models import FakeListChatModel
        >>> model = FakeListChatModel(responses=["3 + 4 = 7"])
        >>> agent = create_agent(model, middleware=[TALEMiddleware(estimator=40)])
        >>> *_, answer = agent.invoke({"messages": [("user", "How much is 3 + 4?")]})["messages"]
        >>> answer.text, answer.response_metadata["tale"]["budget"]
        ('3 + 4 = 7', 40)
    """

    state_schema = TALEState
    transformers = (InternalCallTransformer,)

    def __init__(
        self,
        model: ChatRunnable | str | None = None,
        *,
        divide: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__()
        also = (*OWN_OPTIONS, "model", "divide")
        self._options = current_options(options, owner="TALEMiddleware", also=also)
        self._options["estimator"] = opened_estimator(self._options.get("estimator"))
        _check(self._options)
        self._divide = divide
        # By identity: agents may change their model from call to call, and models are not hashable by value.
        self._setups: dict[int, tuple[ChatRunnable, Setup]] = {}
        self._model = None if model is None else open_model(model)
        if self._model is not None:
            self._setup_of(self._model)

    def __repr__(self) -> str:
        shown = {"model": self._model, **self._options, "divide": self._divide}
        parts = [f"{name}={_shown(one)}" for name, one in shown.items() if one is not None]
        return f"TALEMiddleware({', '.join(parts)})"

    def before_model(self, state: TALEState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Estimate the budget of a turn that begins."""
        del runtime
        turn = self._beginning(state, node_run)
        if turn is None:
            return None
        try:
            return {"tale_turn": turn.opened(run(turn.run.plan(), turn.call))}
        finally:
            turn.dispatch()

    async def abefore_model(self, state: TALEState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Estimate the budget of a turn that begins, asynchronously."""
        del runtime
        turn = self._beginning(state, anode_run)
        if turn is None:
            return None
        try:
            return {"tale_turn": turn.opened(await arun(turn.run.plan(), turn.acall))}
        finally:
            await turn.adispatch()

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Make a model call under the budget of its turn."""
        turn = self._turn(request.messages, request.state, node_run(), request)
        if turn is None:
            return handler(request)
        turn.handler = handler
        try:
            return turn.response(run(turn.flow(), turn.call))
        finally:
            turn.dispatch()

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Make a model call under the budget of its turn, asynchronously."""
        turn = self._turn(request.messages, request.state, anode_run(), request)
        if turn is None:
            return await handler(request)
        turn.handler = handler
        try:
            return turn.response(await arun(turn.flow(), turn.acall))
        finally:
            await turn.adispatch()

    def _beginning(self, state: TALEState, listening: Callable[[], Any]) -> UserTurn | None:
        """Return the turn that begins; None where one goes on, or its first call estimates it."""
        messages = state["messages"]
        if self._model is None or not messages or not isinstance(messages[-1], HumanMessage):
            return None
        turn = self._turn(messages, state, listening(), None)
        return None if turn is None or turn.known else turn

    def _turn(
        self, messages: Sequence[BaseMessage], state: Any, manager: Any, request: ModelRequest[Any] | None
    ) -> UserTurn | None:
        if turn_at(messages) is None:
            return None
        model = self._model if request is None else request.model
        assert model is not None  # noqa: S101  # checked by whoever has no request
        config = ensure_config()
        # These name the node's run, not those under it.
        config.pop("run_name", None)
        config.pop("run_id", None)
        return UserTurn(
            self._setup_of(model),
            messages,
            request=request,
            state=state.get("tale_turn"),
            manager=manager,
            config=config,
            divide=self._divide,
        )

    def _setup_of(self, model: ChatRunnable) -> Setup:
        """Return how a model is asked; agents may change theirs from call to call."""
        known = self._setups.get(id(model))
        if known is None:
            while len(self._setups) >= _KEPT:
                self._setups.pop(next(iter(self._setups)), None)
            known = self._setups[id(model)] = (model, Setup.of(model, self._options))
        return known[1]


def _shown(option: Any) -> str:
    """Return an option for a ``repr``: models carry keys and addresses, so they appear by name only."""
    if isinstance(option, Runnable):
        return repr(name_of(option) or option.get_name())
    return repr(getattr(option, "name", option))


def _check(options: dict[str, Any]) -> None:
    """Check the options now rather than at the first call."""
    sees = options.get("estimator_sees", "question")
    if sees not in {"question", "conversation"}:
        raise InvalidValueError(f"estimator_sees is 'question' or 'conversation', got {sees!r}")
    check_reasoning_control(options.get("reasoning_control", "auto"))
    known = {name: options[name] for name in ("policy", "strategy", "language") if name in options}
    estimator = options["estimator"]
    TaleMethod(estimator=None if isinstance(estimator, Runnable) else estimator, **known)


class UserTurn(Question):
    """Drives one user turn at one point of an agent's loop.

    Without a request the turn's first call is still to come; without a state the turn begins here.
    """

    def __init__(
        self,
        setup: Setup,
        messages: Sequence[BaseMessage],
        *,
        request: ModelRequest[Any] | None,
        state: TurnState | None,
        manager: Any,
        config: RunnableConfig,
        divide: bool,
    ) -> None:
        # What follows the question are the turn's own tool calls; the estimator must not see them.
        asked = list(messages[: (turn_at(messages) or 0) + 1])
        self.message_id = str(asked[-1].id)
        super().__init__(
            setup,
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
        # Not estimated in a step of its own: this call does it.
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
        # Estimated in a step of its own, so the question of this call knows nothing of that cost.
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
