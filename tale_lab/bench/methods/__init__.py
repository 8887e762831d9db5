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
from tale_lab.bench.methods.worded import Concise, EffortHigh, EffortLow, EffortMedium, EffortNone
from tale_lab.bench.methods.consistency import SelfConsistency
# isort: on

for _level in (EffortNone, EffortLow, EffortMedium, EffortHigh):
    register_method(_level)  # here, not in their module: they come last in a report

__all__ = [
    "Concise",
    "Conditions",
    "EffortHigh",
    "EffortLow",
    "EffortMedium",
    "EffortNone",
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
