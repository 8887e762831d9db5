"""Estimators: from a question to the output tokens its answer needs. Each is a flow."""

from tale_core.estimators.chain import ChainEstimator
from tale_core.estimators.fixed import FixedEstimator
from tale_core.estimators.zero_shot import ZeroShotEstimator

__all__ = ["ChainEstimator", "FixedEstimator", "ZeroShotEstimator"]
