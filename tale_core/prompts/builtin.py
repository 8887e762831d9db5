"""The wordings of the built-in strategies, by name and language; `tale_core.prompts.strategies` builds them.

Plain data, so that nothing here is loaded before a strategy is first used. ``measured_on`` names the models on
which a wording was measured, with what was seen.
"""

from __future__ import annotations

from typing import Any

from tale_core.prompts.exemplars import LEVELS

_STEP_BY_STEP = {
    "en": "Let's think step by step:",
    "zh": "让我们一步一步思考:",
}
_DIRECT = {
    "en": "Please answer the following question and give the answer directly without any reasoning process.",
    "zh": "请直接回答下面的问题，只给出答案，不要任何推理过程。",
}
_TALE = {
    "en": "Let's think step by step and use less than {budget} tokens:",
    "zh": "让我们一步一步思考并使用少于 {budget} tokens:",
}

DRAFT_WORDS = (
    "Think step by step, but only keep a minimum draft for each thinking step, with 5 words at most. "
    "Return the answer at the end of the response after a separator ####."
)
"""The published instruction of Chain of Draft (Xu et al., arXiv 2502.18600)."""


def _budgeted(texts: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return templates that fall back to plain step-by-step reasoning when there is no budget."""
    return {code: {"budgeted": text, "unbudgeted": _STEP_BY_STEP[code]} for code, text in texts.items()}


TEMPLATES: dict[str, dict[str, Any]] = {
    # Chain of thought without a budget: the baseline that savings are measured against.
    "vanilla": {
        "templates": {code: {"budgeted": text, "unbudgeted": text} for code, text in _STEP_BY_STEP.items()},
        "budgeted": False,
    },
    # The answer without reasoning: the lower bound on tokens.
    "direct": {
        "templates": {
            code: {"budgeted": "", "unbudgeted": "", "before": text} for code, text in _DIRECT.items()
        },
        "budgeted": False,
        "reasons": False,
    },
    # The published wording (arXiv 2412.18547, section 4).
    "tale": {
        "templates": _budgeted(_TALE),
        "measured_on": (
            "gpt-4o-mini and others, by the paper (arXiv 2412.18547, table 2)",
            "Qwen2.5-Coder-1.5B-Instruct Q4_K_M: overruns small budgets, and with the answer format collapses",
        ),
    },
    # Asks for the essential calculations, for models that take a bare number as permission not to reason.
    "essential": {
        "templates": {
            "en": {
                "budgeted": (
                    "Let's think step by step, writing only the essential calculations "
                    "(at most {budget} tokens), and end with the answer:"
                ),
                "unbudgeted": (
                    "Let's think step by step, writing only the essential calculations, "
                    "and end with the answer:"
                ),
            },
            "zh": {
                "budgeted": "让我们一步一步思考，只写必要的计算（最多 {budget} tokens），最后给出答案:",
                "unbudgeted": "让我们一步一步思考，只写必要的计算，最后给出答案:",
            },
        },
        "measured_on": ("Qwen2.5-Coder-1.5B-Instruct Q4_K_M",),
    },
    # The budget in words, for models that count words better than tokens.
    "words": {
        "templates": _budgeted(
            {
                "en": "Let's think step by step and use less than {words} words:",
                "zh": "让我们一步一步思考并使用少于 {words} 个词:",
            }
        ),
    },
    # The budget in steps, for models that keep a number of steps better than a length.
    "steps": {
        "templates": _budgeted(
            {
                "en": "Let's think in at most {steps} short steps, then give the answer:",
                "zh": "让我们最多用 {steps} 个简短的步骤思考，然后给出答案:",
            }
        ),
    },
    # Chain of Draft, zero-shot (arXiv 2502.18600, section 3): a fixed limit per step, no budget per question.
    "draft": {
        "templates": {"en": {"budgeted": DRAFT_WORDS, "unbudgeted": DRAFT_WORDS}},
        "budgeted": False,
        "measured_on": (
            "GPT-4o and Claude 3.5 Sonnet, by its paper (arXiv 2502.18600)",
            "Qwen2.5-Coder-1.5B-Instruct Q4_K_M: a quarter of vanilla's tokens, half of its right answers lost",
        ),
    },
    # The plain question, with no budget and no estimator, for a model that was trained to be concise by itself
    # (TALE-PT, arXiv 2412.18547, section 5; ``tale internalise``).
    "internalised": {
        "templates": {code: {"budgeted": "", "unbudgeted": ""} for code in _STEP_BY_STEP},
        "budgeted": False,
    },
}
"""Strategies that are one sentence around the question: the fields of each `TemplateStrategy`."""

EXEMPLARS: dict[str, Any] = {
    "name": "exemplars",
    "levels": {
        level: [{"question": question, "solution": solution} for question, solution in pairs]
        for level, pairs in LEVELS.items()
    },
    "template": {"budgeted": _TALE["en"], "unbudgeted": _STEP_BY_STEP["en"]},
    "fit": 0.85,
    "measured_on": (
        "Qwen2.5-Coder-1.5B-Instruct Q4_K_M: 35% to 40% of vanilla's tokens at a budget of 120",
        "SmolLM2-135M-Instruct Q4_1: 20% of vanilla's tokens on sums at a budget of 30",
    ),
}
"""Worked examples matched to the budget, for models that cannot count tokens: an `ExemplarStrategy`."""

SELF_BUDGET_TEMPLATES: dict[str, dict[str, str]] = {
    "en": {
        "budgeted": _TALE["en"],
        "unbudgeted": (
            'First write "Budget: N tokens", where N is the smallest number of tokens that a complete and '
            "correct solution needs. Then think step by step, within that budget:"
        ),
    },
    "zh": {
        "budgeted": _TALE["zh"],
        "unbudgeted": (
            "请先写“预算：N tokens”，其中 N 是完整且正确的解答所需的最少 token 数，"
            "然后在这个预算内一步一步思考:"
        ),
    },
}
"""The model states its budget at the head of the answer: the templates of `SelfBudget`."""
SELF_BUDGET_MEASURED_ON = ("Qwen2.5-Coder-1.5B-Instruct Q4_K_M: states no budget, and takes vanilla's tokens",)
