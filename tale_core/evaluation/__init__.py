"""Measuring: questions with known answers, graders, a results file, and the runner that fills it.

Reading what was measured needs one class::

    from tale_core.evaluation import Store

    store = Store("run.sqlite", must_exist=True)
    for trace in store.traces():      # one `SearchTrace` a question: probes, chosen budget, ideal range
        ...
    for call in store.calls():        # one `StoredCall` an answered call: model, role, budget, reply
        ...

`Store.remember` makes any flow resumable: known calls are played back, new ones are kept as they come. This
interface is stable.
"""

from tale_core.evaluation.datasets import ANSWER_FORMAT, Dataset, Question, check_disjoint, load_dataset
from tale_core.evaluation.elasticity import (
    ElasticityCurve,
    ElasticitySettings,
    Measurement,
    elasticity_jobs,
    measure_elasticity,
)
from tale_core.evaluation.graders import Grader, Judge, from_callable, get_grader
from tale_core.evaluation.runner import Done, Job, Progress, run_jobs
from tale_core.evaluation.searching import SearchCost, SearchSummary, search_jobs
from tale_core.evaluation.store import Failure, Store, StoredCall, result_key

__all__ = [
    "ANSWER_FORMAT",
    "Dataset",
    "Done",
    "ElasticityCurve",
    "ElasticitySettings",
    "Failure",
    "Grader",
    "Job",
    "Judge",
    "Measurement",
    "Progress",
    "Question",
    "SearchCost",
    "SearchSummary",
    "Store",
    "StoredCall",
    "check_disjoint",
    "elasticity_jobs",
    "from_callable",
    "get_grader",
    "load_dataset",
    "measure_elasticity",
    "result_key",
    "run_jobs",
    "search_jobs",
]
