"""Methods: what `tale bench` compares and `tale tune` races, one small class each."""

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
from tale_lab.bench.methods.tale import (
    Direct,
    SelfBudgeted,
    TaleAdaptive,
    TaleAsPublished,
    TaleCalibrated,
    TaleFitted,
    TaleStrategy,
    Vanilla,
    VanillaRetry,
)
from tale_lab.bench.methods.worded import (
    Concise,
    Draft,
    DraftExamples,
    SketchChaining,
    SketchLexicons,
    SketchSymbolism,
    Worded,
)
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
    "VanillaRetry",
    "Worded",
    "ask",
    "get_method",
    "method_names",
    "register_method",
]
