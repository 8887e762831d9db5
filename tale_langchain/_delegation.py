"""What LangChain asks a chat model about itself (for traces, caches, counts) goes to the model inside."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable
from pydantic import BaseModel, PrivateAttr

from tale_core.errors import NotAChatModelError
from tale_core.prompts.strategies import get_strategy, strategy_names
from tale_core.protocols import Strategy
from tale_langchain._models import ChatRunnable, models_in, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from langchain_core.language_models.base import LangSmithParams
    from langchain_core.messages import BaseMessage

RUN = "tale_run"
"""The argument that hands the run to `_stream`, since `BaseChatModel` does not."""
_PLAIN = (str, int, float, bool, type(None))
_unlike_others: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


class DelegatingChatModel(BaseChatModel):
    """A chat model around another: tracers, caches and counters see that one, and our choices."""

    if TYPE_CHECKING:  # a field of `Budgeted`, which comes with this class
        model: ChatRunnable

    _inner: BaseChatModel = PrivateAttr()
    """The first chat model inside the wrappers."""
    _choices: dict[str, Any] = PrivateAttr()
    """All that decides how a question is asked, beside the model: for traces and cache keys."""

    @property
    def model_name(self) -> str | None:
        """The model's name; agents look models up by it, and would take the field ``model`` for a name."""
        return name_of(self.model)

    @property
    def _llm_type(self) -> str:
        return "tale"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {**self._inner._identifying_params, "tale": self._choices}  # noqa: SLF001  # as upstream's wrappers

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        arguments = next(self._arguments(stop, kwargs))
        return {**self._inner._get_invocation_params(**arguments), "tale": self._choices}  # noqa: SLF001  # as above

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self._inner._get_ls_params(**next(self._arguments(stop, kwargs)))  # noqa: SLF001  # as above

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        models = (inside.model for inside in models_in(self.model))
        strings = [
            model._get_llm_string(**arguments)  # type: ignore[attr-defined]  # noqa: SLF001  # as above
            for model, arguments in zip(models, self._arguments(stop, kwargs), strict=True)
        ]
        return "---".join([*strings, str(self._choices)])

    def _should_stream(self, *, async_api: bool, run_manager: Any = None, **kwargs: Any) -> bool:
        if self._streaming_disabled(**kwargs):
            return False
        asked = {"async_api": async_api, "run_manager": run_manager, **_plain(kwargs)}
        return self._inner._should_stream(**asked)  # noqa: SLF001  # as above

    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        return self._inner._combine_llm_outputs(llm_outputs)  # noqa: SLF001  # as above

    def get_token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text, as the model inside counts them."""
        return self._inner.get_token_ids(text)

    def get_num_tokens(self, text: str) -> int:
        """Return the number of tokens in a text, as the model inside counts them."""
        return self._inner.get_num_tokens(text)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Return the number of tokens in messages, as the model inside counts them."""
        return self._inner.get_num_tokens_from_messages(messages, tools)

    def _arguments(self, stop: list[str] | None, kwargs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield, for each model inside, what reaches it, bound arguments included."""
        asked = _plain(kwargs) if stop is None else {**_plain(kwargs), "stop": stop}
        return (dict(inside.arguments) for inside in models_in(self.model, asked))


def inner_of(model: ChatRunnable) -> BaseChatModel:
    """Return the first chat model inside the wrappers.

    Raises:
        NotAChatModelError: What is inside is no chat model, or is only chosen at run time.
    """
    for inside in models_in(model):
        if not isinstance(inside.model, BaseChatModel):
            raise NotAChatModelError(
                f"ChatTALE needs a chat model, got {inside.model.get_name()}; wrap other runnables, and "
                "models that are chosen at run time, in a TALERunnable"
            )
    return next(models_in(model)).model  # type: ignore[return-value]  # just checked


def _plain(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that the caller gave."""
    return {name: value for name, value in kwargs.items() if name != RUN}


def identity_of(part: Any) -> str:
    """Return text that differs for parts that might act differently, and holds no key and no address.

    A part whose state cannot be read off equals nothing but itself.
    """
    if isinstance(part, str):
        return part
    if isinstance(part, Runnable):
        return " ".join(_model_identity(inside.model, inside.arguments) for inside in models_in(part))
    if isinstance(part, Strategy) and part.name in strategy_names() and get_strategy(part.name) is part:
        return part.name
    if isinstance(part, BaseModel):
        return f"{type(part).__name__} {part.model_dump_json()}"
    state = getattr(part, "__dict__", None)
    if state is not None and all(isinstance(value, _PLAIN) for value in state.values()):
        return f"{type(part).__name__} {state}"
    return f"{type(part).__name__} {_unlike_others.setdefault(part, uuid4().hex)}"


def _model_identity(model: Any, arguments: Any) -> str:
    if isinstance(model, BaseChatModel):
        return f"{type(model).__name__} {model._identifying_params} {dict(arguments)}"  # noqa: SLF001  # as upstream's wrappers
    return f"{type(model).__name__} {_unlike_others.setdefault(model, uuid4().hex)}"
