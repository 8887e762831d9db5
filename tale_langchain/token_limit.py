"""TokenLimitMiddleware: an agent's run or thread may take so many tokens, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from langchain.agents.middleware import AgentMiddleware, AgentState, hook_config
from langchain.agents.middleware.types import PrivateStateAttr
from langchain_core.messages import AIMessage, SystemMessage
from langgraph.channels.untracked_value import UntrackedValue
from typing_extensions import NotRequired  # noqa: TC002  # LangGraph reads the state's types

from tale_core.errors import InvalidValueError, TokenLimitExceededError
from tale_langchain._convert import paid_usage
from tale_langchain._question import atell, tell

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from langchain.agents.middleware import ModelRequest, ModelResponse
    from langchain_core.messages import BaseMessage
    from langgraph.runtime import Runtime

Counted = Literal["total", "output"]
_EXITS = ("end", "error")
_EVENT = "tale_limit"


class TokenLimitState(AgentState[Any]):
    """The tokens taken so far: of the thread, which checkpoints keep, and of the run, which they do not."""

    thread_token_count: NotRequired[Annotated[int, PrivateStateAttr]]
    run_token_count: NotRequired[Annotated[int, UntrackedValue, PrivateStateAttr]]


class TokenLimitMiddleware(AgentMiddleware[TokenLimitState, Any, Any]):
    """Ends an agent's run, or fails, when its model calls have taken a number of tokens.

    Works as LangChain's `ModelCallLimitMiddleware`, in tokens: what is taken is looked at before each model
    call, so the call that reaches a limit is still answered. Close to a limit the model is told to finish,
    in a note that the agent's state does not keep, and a custom event ``tale_limit`` is sent. Tokens are
    the provider's counts, or a tokenizer's estimate where it reports none; what `TALEMiddleware` and `ChatTALE`
    spent on estimates counts as well.

    Args:
        run_limit: Most tokens of one run (invocation); None for no limit.
        thread_limit: Most tokens of one thread, over all its runs, as a checkpointer keeps them; None for no
            limit.
        warn_at: The share of a limit above which the model is told to finish; None for no warning.
        exit_behavior: ``"end"`` ends the run with a message that says why; ``"error"`` raises
            `TokenLimitExceededError`.
        count: ``"total"`` counts input and output tokens, the history sent anew with each call included;
            ``"output"`` counts what the model writes.

    Raises:
        InvalidValueError: No limit, a limit below 1, a share outside 0 to 1, or an unknown choice.

    Example:
        >>> from langchain.agents import create_agent
        >>> from langchain_core.language_models import FakeListChatModel
        >>> limit = TokenLimitMiddleware(run_limit=50_000, thread_limit=200_000)
        >>> agent = create_agent(FakeListChatModel(responses=["Hello!"]), middleware=[limit])
        >>> agent.invoke({"messages": [("user", "Hello?")]})["messages"][-1].text
        'Hello!'
    """

    state_schema = TokenLimitState

    def __init__(
        self,
        *,
        run_limit: int | None = None,
        thread_limit: int | None = None,
        warn_at: float | None = 0.8,
        exit_behavior: Literal["end", "error"] = "end",
        count: Counted = "total",
    ) -> None:
        super().__init__()
        self.limits: dict[str, Any] = {"run": run_limit, "thread": thread_limit}
        self.warn_at = warn_at
        self.exit_behavior = exit_behavior
        self.count = count
        self._check()

    @hook_config(can_jump_to=["end"])
    def before_model(self, state: TokenLimitState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """End the run, or fail, where a limit is reached.

        Raises:
            TokenLimitExceededError: A limit is reached and ``exit_behavior`` is ``"error"``.
        """
        del runtime
        reached = self._reached(state, 1.0)
        if not reached:
            return None
        said = f"Token limits exceeded: {', '.join(reached)}"
        if self.exit_behavior == "error":
            raise TokenLimitExceededError(f"{said}; raise the limit, or begin a new run or thread")
        return {"jump_to": "end", "messages": [AIMessage(said)]}

    @hook_config(can_jump_to=["end"])
    async def abefore_model(self, state: TokenLimitState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """End the run, or fail, where a limit is reached; see `before_model`."""
        return self.before_model(state, runtime)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Tell the model when a limit is close."""
        return handler(self._told(request))

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Tell the model when a limit is close."""
        return await handler(self._told(request))

    def after_model(self, state: TokenLimitState, runtime: Runtime[Any]) -> dict[str, Any]:
        """Count what the call took, and send the event when that brings a limit close."""
        del runtime
        update, event = self._counted(state)
        if event:
            tell(_EVENT, event)
        return update

    async def aafter_model(self, state: TokenLimitState, runtime: Runtime[Any]) -> dict[str, Any]:
        """Count what the call took; see `after_model`."""
        del runtime
        update, event = self._counted(state)
        if event:
            await atell(_EVENT, event)
        return update

    def _counted(self, state: TokenLimitState) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the new counts, and the event where a limit has come close just now."""
        tokens = self._tokens(state["messages"])
        update = {f"{scope}_token_count": _taken(state, scope) + tokens for scope in self.limits}
        if self.warn_at is None:
            return update, {}
        now = self._reached({**state, **update}, self.warn_at)
        # Only the call that crosses the share sends the event, not every call after it.
        if len(now) == len(self._reached(state, self.warn_at)):
            return update, {}
        return update, {"close": list(now), "warn_at": self.warn_at}

    def _tokens(self, messages: Sequence[BaseMessage]) -> int:
        """Return what the last model call took, its share of estimating included."""
        at = next(at for at in reversed(range(len(messages))) if isinstance(messages[at], AIMessage))
        message = messages[at]
        assert isinstance(message, AIMessage)  # noqa: S101  # just found
        usage = paid_usage(message, messages[:at])
        # The message's own usage is that of the answer alone.
        estimate = messages[at].response_metadata.get("tale", {}).get("estimate_usage") or {}
        if self.count == "output":
            return usage.output_tokens + int(estimate.get("output_tokens", 0))
        return usage.total_tokens + sum(int(estimate.get(f"{one}_tokens", 0)) for one in ("input", "output"))

    def _told(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        close = [] if self.warn_at is None else self._reached(request.state, self.warn_at)
        if not close:
            return request
        note = (
            f"You have used most of the tokens that you may use: {', '.join(close)}. Come to an end now: make "
            "no further tool call that you can do without, and answer with what you have."
        )
        system = request.system_message
        # Blocks are kept as they are: they may carry the marks of a prompt cache.
        blocks = [] if system is None else [*system.content_blocks]
        told = SystemMessage(content_blocks=[*blocks, {"type": "text", "text": note}])
        return request.override(system_message=told)

    def _reached(self, state: Any, share: float) -> list[str]:
        """Return the limits of which this share is used, as text for messages."""
        return [
            f"{scope} limit ({taken}/{limit})"
            for scope, limit in self.limits.items()
            if limit is not None and (taken := _taken(state, scope)) >= share * limit
        ]

    def _check(self) -> None:
        if all(limit is None for limit in self.limits.values()):
            raise InvalidValueError("give run_limit, thread_limit or both, in tokens; got neither")
        for scope, limit in self.limits.items():
            if limit is not None and (not isinstance(limit, int) or limit < 1):
                raise InvalidValueError(f"{scope}_limit is a number of tokens of at least 1, got {limit!r}")
        if self.warn_at is not None and not 0 < self.warn_at <= 1:
            raise InvalidValueError(
                f"warn_at is a share of the limit, above 0 and up to 1; got {self.warn_at!r}"
            )
        if self.exit_behavior not in _EXITS:
            raise InvalidValueError(f"exit_behavior is 'end' or 'error', got {self.exit_behavior!r}")
        if self.count not in get_args(Counted):
            raise InvalidValueError(f"count is 'total' or 'output', got {self.count!r}")


def _taken(state: Any, scope: str) -> int:
    return int(state.get(f"{scope}_token_count", 0))
