"""Token-budget-aware reasoning (TALE, arXiv 2412.18547): the method itself, free of any framework.

Flows plan model calls; whoever runs a flow makes them. `tale_langchain` and `tale_llamaindex` are two such
runners; `run` and `arun` are all it takes to write another.
"""

from tale_core.elasticity import observe
from tale_core.errors import (
    BudgetOverrunError,
    CorruptWeightsError,
    InvalidValueError,
    LocalModelError,
    MissingExtraError,
    NotAChatModelError,
    PolicyViolationError,
    ServerError,
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
from tale_core.tokens import count_tokens, estimate_usage
from tale_core.types import (
    ACall,
    Budget,
    Call,
    Estimate,
    Estimator,
    Flow,
    Framing,
    Message,
    ModelCall,
    ModelReply,
    Style,
    Usage,
)

__version__ = "0.1.0"

__all__ = [
    "ACall",
    "Answer",
    "Budget",
    "BudgetEvent",
    "BudgetOverrunError",
    "BudgetPolicy",
    "Call",
    "ChainEstimator",
    "CorruptWeightsError",
    "ElasticityEvent",
    "ElasticityKind",
    "Estimate",
    "Estimator",
    "Event",
    "Exemplar",
    "ExemplarStyle",
    "FixedEstimator",
    "Flow",
    "Framing",
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
    "PolicyViolationError",
    "Profile",
    "QuestionRun",
    "Savings",
    "ServerError",
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
    "run",
    "run_many",
    "style_names",
]
