"""Methods: what `tale bench` compares and `tale tune` races, one small class each."""

# Importing a module registers its methods; their order here is their order in a report.
# isort: off
from tale_lab.bench.methods.base import (
    Conditions,
    Method,
    Said,
    ask,
    get_method,
    method_names,
    register_method,
)
from tale_lab.bench.methods.tale import TaleAsPublished, TaleCalibrated, Vanilla
from tale_lab.bench.methods.worded import Concise
from tale_lab.bench.methods.consistency import SelfConsistency
from tale_lab.bench.methods.efforts import Effort
# isort: on

__all__ = [
    "Concise",
    "Conditions",
    "Effort",
    "Method",
    "Said",
    "SelfConsistency",
    "TaleAsPublished",
    "TaleCalibrated",
    "Vanilla",
    "ask",
    "get_method",
    "method_names",
    "register_method",
]
