"""Self-budgeting: one call in which the model states a budget and then keeps it."""

from __future__ import annotations

import re
import unicodedata

from pydantic import Field

from tale_core.parsing import parse_budget, strip_thinking
from tale_core.prompts.strategies import Template, TemplateStrategy, choose_language, register_strategy
from tale_core.types import Framing

_TEMPLATES = {
    "en": Template(
        budgeted="Let's think step by step and use less than {budget} tokens:",
        unbudgeted=(
            'First write "Budget: N tokens", where N is the smallest number of tokens that a complete and '
            "correct solution needs. Then think step by step, within that budget:"
        ),
    ),
    "zh": Template(
        budgeted="让我们一步一步思考并使用少于 {budget} tokens:",
        unbudgeted=(
            "请先写“预算：N tokens”，其中 N 是完整且正确的解答所需的最少 token 数，"
            "然后在这个预算内一步一步思考:"
        ),
    ),
}
# What comes later in an answer may be a budget in the question's own sense, in dollars say.
_HEAD = 200
_STATED = re.compile(
    r"(?:budget|预算|預算)(?:[^\n]{0,40}?(?:tokens?|令牌|權杖)|[\s*_]*[:=][\s*_]*\d[\d,]*)", re.IGNORECASE
)


class SelfBudget(TemplateStrategy):
    """A strategy that leaves the budget to the model: no estimator, no extra call.

    The budget is read from the head of the answer, and the answer is judged against it like against any other:
    its source is ``"self"``. An answer that states none is recorded as ``unparsable``. Where the policy asks
    again because the answer overran, the new budget is named in the prompt.

    Example:
        >>> from tale_core import TaleMethod, run
        >>> from tale_core.testing import ScriptedModel
        >>> run_ = TaleMethod(strategy="self-budget").begin("What is 16 - 3 - 4?")
        >>> answer = run(run_.answer(), ScriptedModel("Budget: 20 tokens. 16 - 3 - 4 = 9. The answer is 9."))
        >>> answer.plan.budget.tokens, answer.plan.budget.source, answer.estimate_usage
        (20, 'self', None)
    """

    name: str = Field(default="self-budget", min_length=1)
    templates: dict[str, Template] = _TEMPLATES
    budgeted: bool = False
    measured_on: tuple[str, ...] = (
        "Qwen2.5-Coder-1.5B-Instruct Q4_K_M: states no budget, and takes vanilla's tokens",
    )

    def frame(self, question: str, budget: int | None, *, language: str = "auto") -> Framing:
        """Return the sentence to put after the question; a budget, on a retry, is named in it."""
        template = self.templates[choose_language(self.templates, question, language)]
        return Framing(after=template.after(budget))

    def stated_budget(self, text: str) -> int | None:
        """Read the budget from an answer; see `SelfBudgeting.stated_budget`."""
        head = unicodedata.normalize("NFKC", strip_thinking(text).lstrip()[:_HEAD])
        budgets = (parse_budget(stated[0]) for stated in _STATED.finditer(head))
        return next((budget for budget in budgets if budget is not None), None)


SELF_BUDGET = register_strategy(SelfBudget())
"""The model states its budget at the head of the answer."""
