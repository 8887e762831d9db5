"""Methods: the ways of answering that `tale bench` compares, one small class each."""

from tale_core.evaluation.methods.base import (
    Asked,
    Conditions,
    Method,
    Said,
    ask,
    get_method,
    method_names,
    register_method,
)
from tale_core.evaluation.methods.published import Direct, TaleAsPublished, TaleProfile, Vanilla

__all__ = [
    "Asked",
    "Conditions",
    "Direct",
    "Method",
    "Said",
    "TaleAsPublished",
    "TaleProfile",
    "Vanilla",
    "ask",
    "get_method",
    "method_names",
    "register_method",
]
