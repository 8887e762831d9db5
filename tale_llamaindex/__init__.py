"""Token-budget-aware reasoning (TALE, arXiv 2412.18547) for LlamaIndex."""

from tale_core.errors import MissingExtraError as _MissingExtraError

try:
    import llama_index.core  # noqa: F401
except ImportError as exc:
    raise _MissingExtraError("llama_index.core", "llamaindex") from exc

from tale_llamaindex.events import TALEBudgetEvent, TALEElasticityEvent, TALEUsageEvent
from tale_llamaindex.handlers import TALECallbackHandler, TALEEventHandler
from tale_llamaindex.hierarchical import TALEHierarchicalSynthesizer
from tale_llamaindex.llm import TALELLM, TALEPlainLLM
from tale_llamaindex.postprocessor import TALENodePostprocessor
from tale_llamaindex.query_engine import TALEQueryEngine
from tale_llamaindex.query_transform import TALEQueryTransform
from tale_llamaindex.synthesizer import TALESynthesizer

__all__ = [
    "TALELLM",
    "TALEBudgetEvent",
    "TALECallbackHandler",
    "TALEElasticityEvent",
    "TALEEventHandler",
    "TALEHierarchicalSynthesizer",
    "TALENodePostprocessor",
    "TALEPlainLLM",
    "TALEQueryEngine",
    "TALEQueryTransform",
    "TALESynthesizer",
    "TALEUsageEvent",
]
