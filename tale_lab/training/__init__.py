"""Internalising the budget: training data from searches, rewards, and the training itself (TALE-PT).

Importing this package needs nothing but the core; training needs the extra ``train``.
"""

from tale_lab.training.examples import agreed_answer, examples_of
from tale_lab.training.export import ExportSettings, Facts, export_run, read_export, side_of
from tale_lab.training.internalise import internalise
from tale_lab.training.rewards import concise_reward, correct_reward, reward
from tale_lab.training.settings import Standing, Training, TrainingSettings

__all__ = [
    "ExportSettings",
    "Facts",
    "Standing",
    "Training",
    "TrainingSettings",
    "agreed_answer",
    "concise_reward",
    "correct_reward",
    "examples_of",
    "export_run",
    "internalise",
    "read_export",
    "reward",
    "side_of",
]
