"""Token-budget-aware reasoning (TALE, arXiv 2412.18547): the method itself, free of any framework.

Flows plan model calls; whoever runs a flow makes them. `tale_langchain` and `tale_llamaindex` are two such
runners; `run` and `arun` are all it takes to write another.
"""

from tale_core.curves import BudgetRange, Point, Probe
from tale_core.elasticity import observe
from tale_core.errors import (
    BudgetOverrunError,
    CorruptWeightsError,
    DataError,
    EmptyAnswerError,
    InvalidValueError,
    LocalModelError,
    MissingExtraError,
    NotAChatModelError,
    PolicyViolationError,
    ServerError,
    StoreError,
    TaleError,
    TruncatedAnswerError,
    UnexpectedReplyError,
    UnknownModelError,
    UnknownStyleError,
    UnmeasuredUsageError,
    WeightsNotFoundError,
)
from tale_core.estimators import ChainEstimator, FixedEstimator, ZeroShotEstimator
from tale_core.events import BudgetEvent, ElasticityEvent, ElasticityKind, Event, Journal, UsageEvent
from tale_core.flows import Outcome, arun, arun_many, run, run_many
from tale_core.ledger import Ledger, Savings
from tale_core.method import Answer, Plan, QuestionRun, TaleMethod, as_estimator
from tale_core.parsing import parse_budget
from tale_core.policy import BudgetPolicy
from tale_core.profile import Profile, find_profile
from tale_core.prompts import (
    Exemplar,
    ExemplarStyle,
    Template,
    TemplateStyle,
    get_style,
    register_style,
    style_names,
)
from tale_core.search import SearchSettings, SearchTrace, replay_search, search_budget
from tale_core.tokens import count_tokens, estimate_usage
from tale_core.types import (
    ACall,
    Budget,
    Call,
    Estimate,
    Estimator,
    Flow,
    Framing,
    Grade,
    Message,
    ModelCall,
    ModelReply,
    Style,
    Usage,
    Verdict,
)

__version__ = "0.1.0"

__all__ = [
    "ACall",
    "Answer",
    "Budget",
    "BudgetEvent",
    "BudgetOverrunError",
    "BudgetPolicy",
    "BudgetRange",
    "Call",
    "ChainEstimator",
    "CorruptWeightsError",
    "DataError",
    "ElasticityEvent",
    "ElasticityKind",
    "EmptyAnswerError",
    "Estimate",
    "Estimator",
    "Event",
    "Exemplar",
    "ExemplarStyle",
    "FixedEstimator",
    "Flow",
    "Framing",
    "Grade",
    "InvalidValueError",
    "Journal",
    "Ledger",
    "LocalModelError",
    "Message",
    "MissingExtraError",
    "ModelCall",
    "ModelReply",
    "NotAChatModelError",
    "Outcome",
    "Plan",
    "Point",
    "PolicyViolationError",
    "Probe",
    "Profile",
    "QuestionRun",
    "Savings",
    "SearchSettings",
    "SearchTrace",
    "ServerError",
    "StoreError",
    "Style",
    "TaleError",
    "TaleMethod",
    "Template",
    "TemplateStyle",
    "TruncatedAnswerError",
    "UnexpectedReplyError",
    "UnknownModelError",
    "UnknownStyleError",
    "UnmeasuredUsageError",
    "Usage",
    "UsageEvent",
    "Verdict",
    "WeightsNotFoundError",
    "ZeroShotEstimator",
    "arun",
    "arun_many",
    "as_estimator",
    "count_tokens",
    "estimate_usage",
    "find_profile",
    "get_style",
    "observe",
    "parse_budget",
    "register_style",
    "replay_search",
    "run",
    "run_many",
    "search_budget",
    "style_names",
]
