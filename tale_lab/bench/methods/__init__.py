"""Methods: the ways of answering that `tale bench` compares, one small class each."""

# The order of the imports is the order in which methods are registered, and so the order of a report.
# isort: off
from tale_lab.bench.methods.base import (
    Asked,
    Conditions,
    Method,
    Said,
    ask,
    get_method,
    method_names,
    register_method,
)
from tale_lab.bench.methods.published import Direct, TaleAsPublished, TaleStrategy, Vanilla
from tale_lab.bench.methods.tuned import (
    SelfBudgeted,
    TaleAdaptive,
    TaleFitted,
    TaleCalibrated,
    VanillaSecondTry,
)
from tale_lab.bench.methods.worded import Concise, Draft, DraftExamples, Worded
from tale_lab.bench.methods.sketches import SketchChaining, SketchLexicons, SketchSymbolism
from tale_lab.bench.methods.consistency import SelfConsistency
from tale_lab.bench.methods.efforts import EffortHigh, EffortLow, EffortMedium, EffortNone
# isort: on

__all__ = [
    "Asked",
    "Concise",
    "Conditions",
    "Direct",
    "Draft",
    "DraftExamples",
    "EffortHigh",
    "EffortLow",
    "EffortMedium",
    "EffortNone",
    "Method",
    "Said",
    "SelfBudgeted",
    "SelfConsistency",
    "SketchChaining",
    "SketchLexicons",
    "SketchSymbolism",
    "TaleAdaptive",
    "TaleAsPublished",
    "TaleCalibrated",
    "TaleFitted",
    "TaleStrategy",
    "Vanilla",
    "VanillaSecondTry",
    "Worded",
    "ask",
    "get_method",
    "method_names",
    "register_method",
]
