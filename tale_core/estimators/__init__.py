"""Estimators: from a question to the output tokens its answer needs. Each is a flow."""

from tale_core.estimators.adaptive import AdaptiveEstimator, AdaptiveStatus
from tale_core.estimators.cached import CachedEstimator
from tale_core.estimators.chain import ChainEstimator
from tale_core.estimators.fixed import FixedEstimator
from tale_core.estimators.regression import RegressionEstimator
from tale_core.estimators.stores import MemoryStore
from tale_core.estimators.training import BudgetExample, FitFacts, FitReport
from tale_core.estimators.zero_shot import ZeroShotEstimator
from tale_core.prompts.self_budget import SelfBudget

__all__ = [
    "AdaptiveEstimator",
    "AdaptiveStatus",
    "BudgetExample",
    "CachedEstimator",
    "ChainEstimator",
    "FitFacts",
    "FitReport",
    "FixedEstimator",
    "MemoryStore",
    "RegressionEstimator",
    "SelfBudget",
    "ZeroShotEstimator",
]
