"""Telling estimators and strategies apart, so that only answers that would be the same share a cache entry."""

from __future__ import annotations

import weakref
from typing import Any
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable
from pydantic import BaseModel

from tale_core.prompts.strategies import get_strategy, strategy_names
from tale_core.protocols import Strategy
from tale_langchain._models import requests_of

_PLAIN = (str, int, float, bool, type(None))
_unlike_others: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def identity_of(part: Any) -> str:
    """Return text that differs for parts that might act differently, and holds no key and no address.

    Args:
        part: An estimator, a strategy, or the model that estimates (a runnable or its string). What has a state
            that cannot be read off is like nothing but itself.
    """
    if isinstance(part, str):
        return part
    if isinstance(part, Runnable):
        return " ".join(_model_identity(request.model, request.arguments) for request in requests_of(part))
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
