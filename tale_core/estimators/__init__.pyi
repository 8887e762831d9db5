from tale_core.estimators.adaptive import AdaptiveEstimator, AdaptiveStatus
from tale_core.estimators.basic import ChainEstimator, FixedEstimator, ZeroShotEstimator
from tale_core.estimators.cached import CachedEstimator
from tale_core.estimators.regression import RegressionEstimator
from tale_core.estimators.training import BudgetExample, FitFacts, FitReport

__all__ = [
    "AdaptiveEstimator",
    "AdaptiveStatus",
    "BudgetExample",
    "CachedEstimator",
    "ChainEstimator",
    "FitFacts",
    "FitReport",
    "FixedEstimator",
    "RegressionEstimator",
    "ZeroShotEstimator",
]
