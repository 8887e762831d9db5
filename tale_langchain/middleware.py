"""TALEMiddleware: an agent that keeps a token budget over each user turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

from langchain.agents.middleware import AgentMiddleware, AgentState
from langchain.agents.middleware.internal_call_transformer import InternalCallTransformer
from langchain.agents.middleware.types import PrivateStateAttr
from langchain_core.messages import HumanMessage
from langchain_core.runnables import Runnable, ensure_config
from typing_extensions import NotRequired  # noqa: TC002  # LangGraph reads the state's types

from tale_core.errors import InvalidValueError
from tale_core.flows import arun, run
from tale_core.method.method import TaleMethod
from tale_core.method.policy import BudgetPolicy
from tale_core.models.reasoning_controls import check_reasoning_control
from tale_langchain._agent_turn import AgentTurn, TurnState
from tale_langchain._config import Wiring
from tale_langchain._convert import turn_at
from tale_langchain._model_loading import open_model
from tale_langchain._node_callbacks import anode_run, node_run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from langchain.agents.middleware import ExtendedModelResponse, ModelRequest, ModelResponse
    from langchain_core.messages import BaseMessage
    from langgraph.runtime import Runtime

    from tale_core.method.calibration import Calibration
    from tale_core.models.reasoning_controls import ReasoningControl
    from tale_core.protocols import Estimator, Strategy
    from tale_langchain._models import ChatRunnable

_KEPT = 8


class TALEState(AgentState[Any]):
    """What the middleware keeps in an agent's state, out of its input and output."""

    tale_turn: NotRequired[Annotated[TurnState, PrivateStateAttr]]


class Choices(TypedDict, total=False):
    """How to ask under a budget; see `TALERunnable`."""

    estimator: Any
    policy: BudgetPolicy | None
    strategy: str | Strategy | None
    language: str
    calibration: Calibration | str | Path | None
    estimator_sees: Literal["question", "conversation"]
    reasoning_control: ReasoningControl


class TALEMiddleware(AgentMiddleware[TALEState, Any, Any]):
    """Gives every user turn of an agent a token budget: one estimate, and all calls of the turn under it.

    The budget goes into a copy of the human message that opened the turn, or into the model's own reasoning
    control; the
    messages in the agent's state stay as the user wrote them. Budget and spending are in the private state key
    ``tale_turn``, the accounts in ``response_metadata["tale"]`` of each answer and in the custom events that a
    `TALECallbackHandler` records, all calls of a turn under one question id. The estimator appears in no
    stream.

    Args:
        model: The agent's model, or a string as `TALERunnable` takes it; it estimates in a step of its own,
            once however often a call is retried. None takes the model of the turn's first call, and estimates
            within that call.
        estimator: An estimator, another model (or string) to estimate with, a number of output tokens, or None:
            the calibration's budget, or else the zero-shot estimator.
        policy: Bounds of the budget and reactions to answers; None for the calibration's or else the defaults.
        strategy: A prompt strategy or its name; None for the calibration's or else ``"tale"``.
        language: Language of the prompt, or ``"auto"`` to follow the question's script.
        calibration: What was measured about the model, or the path of it; None for the one shipped for this
            model, if there is one.
        estimator_sees: ``"question"`` for the human message, ``"conversation"`` for all text before it, too.
        reasoning_control: What may carry the budget; see `TALERunnable`.
        divide: Whether the model calls of a turn share its budget: each is asked for what the earlier ones
            left, never for less than the policy's floor. By default each has the whole.

    Raises:
        InvalidValueError: A value that cannot be meant; its subclasses say which.
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
        estimator: Estimator | ChatRunnable | str | int | None = None,
        policy: BudgetPolicy | None = None,
        strategy: str | Strategy | None = None,
        language: str = "auto",
        calibration: Calibration | str | Path | None = None,
        estimator_sees: Literal["question", "conversation"] = "question",
        reasoning_control: ReasoningControl = "auto",
        divide: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(estimator, str):
            estimator = open_model(estimator)
        self._choices: Choices = {
            "estimator": estimator,
            "policy": policy,
            "strategy": strategy,
            "language": language,
            "calibration": calibration,
            "estimator_sees": estimator_sees,
            "reasoning_control": reasoning_control,
        }
        _check(self._choices)
        self._divide = divide
        self._wirings: dict[int, tuple[ChatRunnable, Wiring]] = {}
        self._model = None if model is None else open_model(model)
        if self._model is not None:
            self._wiring_of(self._model)

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

    def _beginning(self, state: TALEState, listening: Callable[[], Any]) -> AgentTurn | None:
        """Return the turn that begins; None where one goes on, or its first call shall estimate it."""
        messages = state["messages"]
        if self._model is None or not messages or not isinstance(messages[-1], HumanMessage):
            return None
        turn = self._turn(messages, state, listening(), None)
        return None if turn is None or turn.known else turn

    def _turn(
        self, messages: Sequence[BaseMessage], state: Any, manager: Any, request: ModelRequest[Any] | None
    ) -> AgentTurn | None:
        if turn_at(messages) is None:
            return None
        model = self._model if request is None else request.model
        assert model is not None  # noqa: S101  # checked by whoever has no request
        config = ensure_config()
        config.pop("run_name", None)
        config.pop("run_id", None)
        return AgentTurn(
            self._wiring_of(model),
            messages,
            request=request,
            state=state.get("tale_turn"),
            manager=manager,
            config=config,
            divide=self._divide,
        )

    def _wiring_of(self, model: ChatRunnable) -> Wiring:
        """Return the wiring of a model; agents may change theirs from call to call."""
        known = self._wirings.get(id(model))
        if known is None:
            while len(self._wirings) >= _KEPT:
                self._wirings.pop(next(iter(self._wirings)), None)
            known = self._wirings[id(model)] = (model, Wiring.of(model, **self._choices))
        return known[1]


def _check(choices: Choices) -> None:
    """Find out now what would be found wrong at the first call."""
    policy, sees = choices["policy"], choices["estimator_sees"]
    if policy is not None and not isinstance(policy, BudgetPolicy):
        raise InvalidValueError(f"policy is a BudgetPolicy or None, got {policy!r}")
    if sees not in {"question", "conversation"}:
        raise InvalidValueError(f"estimator_sees is 'question' or 'conversation', got {sees!r}")
    estimator = choices["estimator"]
    TaleMethod(
        estimator=None if isinstance(estimator, Runnable) else estimator,
        policy=policy,
        strategy=choices["strategy"],
        language=choices["language"],
    )
    check_reasoning_control(choices["reasoning_control"])
