"""Prompt strategies: how a question is asked under a budget. One registry, one call: ``strategy.frame``.

A strategy never rewrites the question. It returns a `Framing`: text before it and text after it.
"""

from __future__ import annotations

import difflib
import itertools
import re
import threading
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt, field_validator, model_validator

from tale_core.errors import InvalidValueError, UnknownStrategyError
from tale_core.prompts.exemplars import LEVELS
from tale_core.types import Framing, Message, Record, Strategy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_LATIN = re.compile(r"[A-Za-z]")
# A Han character carries about as much as a short word: terms and names in Latin letters inside a Chinese
# question must not outvote it.
_LETTERS_PER_HAN = 4
_DEFAULT_LANGUAGE = "en"
# English prose has about three words to four tokens, and a terse step of a calculation about twenty tokens:
# rules of thumb, so that one budget in tokens can be asked for in units that a model may count better.
_PER_TOKEN: dict[str, float] = {"{budget}": 1, "{words}": 0.75, "{steps}": 0.05}
# What is said when an answer had a slip: the wording, and what joins several calculations.
_CORRECTIONS = {"en": ("Note that {sums}.", " and "), "zh": ("请注意：{sums}。", "，")}


def detect_language(text: str) -> str:
    """Return ``"zh"`` for text written mostly in Chinese script, otherwise ``"en"``."""
    if text.isascii():
        return _DEFAULT_LANGUAGE
    han = len(_HAN.findall(text))
    if han == 0 or _KANA.search(text):
        return _DEFAULT_LANGUAGE
    return "zh" if han * _LETTERS_PER_HAN >= len(_LATIN.findall(text)) else _DEFAULT_LANGUAGE


def choose_language(available: Mapping[str, object], question: str, language: str = "auto") -> str:
    """Choose a key of ``available`` for a question.

    Args:
        available: Templates by language code; holds at least ``"en"``.
        question: Decides when ``language`` is ``"auto"``.
        language: A language code, or ``"auto"`` to follow the question's script.

    Raises:
        InvalidValueError: The language was asked for by name and is not available.
    """
    if language == "auto":
        found = detect_language(question)
        return found if found in available else _DEFAULT_LANGUAGE
    if language not in available:
        raise InvalidValueError(
            f"no template in language {language!r}; available: {', '.join(sorted(available))}, or 'auto'"
        )
    return language


def correction(sums: Sequence[str], question: str, *, language: str = "auto") -> str:
    """Return the sentence that puts calculations right, for a question that is asked again.

    Args:
        sums: The calculations with their results, such as ``"3 + 9 + 16 = 28"``.
        question: Decides when ``language`` is ``"auto"``.
        language: A language code; English where there is no wording in it.
    """
    wanted = language if language in {"auto", *_CORRECTIONS} else _DEFAULT_LANGUAGE
    wording, between = _CORRECTIONS[choose_language(_CORRECTIONS, question, wanted)]
    return wording.format(sums=between.join(sums))


class Template(Record):
    """The wording of one strategy in one language."""

    budgeted: str
    """Put after the question when there is a budget; ``{budget}`` stands for it in tokens, ``{words}`` for
    about as many words, ``{steps}`` for about as many steps."""
    unbudgeted: str
    """Put after the question when there is none; empty asks the plain question."""
    before: str = ""
    """Put before the question, for wordings that speak of what follows."""

    @field_validator("unbudgeted")
    @classmethod
    def _names_no_budget(cls, text: str) -> str:
        if any(placeholder in text for placeholder in _PER_TOKEN):
            raise InvalidValueError(f"there is no budget to put into {text!r}; take the placeholder out")
        return text

    def after(self, budget: int | None) -> str:
        """Return the text after the question for this budget, in output tokens."""
        if budget is None:
            return f"\n\n{self.unbudgeted}" if self.unbudgeted else ""
        text = self.budgeted
        for placeholder, per_token in _PER_TOKEN.items():
            if placeholder in text:
                text = text.replace(placeholder, str(max(1, round(budget * per_token))))
        return f"\n\n{text}"


class TemplateStrategy(Record):
    r"""A strategy that is one sentence after the question.

    Example:
        >>> strategy = TemplateStrategy(
        ...     name="terse",
        ...     templates={"en": Template(budgeted="At most {budget} tokens.", unbudgeted="Be terse.")},
        ... )
        >>> strategy.frame("What is 2 + 3?", 20).apply("What is 2 + 3?")
        'What is 2 + 3?\n\nAt most 20 tokens.'
    """

    name: str = Field(min_length=1)
    templates: dict[str, Template]
    """Wording by language code; ``"en"`` is required."""
    budgeted: bool = True
    """Whether the prompt carries a budget; if not, no estimator is run."""
    reasons: bool = True
    """Whether the prompt asks for reasoning, so that a bare answer is a collapse."""
    measured_on: tuple[str, ...] = ()
    """Models on which this wording was measured, with what was seen."""

    @field_validator("templates")
    @classmethod
    def _has_english(cls, templates: dict[str, Template]) -> dict[str, Template]:
        if _DEFAULT_LANGUAGE not in templates:
            have = ", ".join(sorted(templates)) or "none"
            raise InvalidValueError(f"a strategy needs a template for {_DEFAULT_LANGUAGE!r}, got {have}")
        return templates

    @model_validator(mode="after")
    def _names_its_budget(self) -> Self:
        for code, template in self.templates.items():
            if self.budgeted and not any(placeholder in template.budgeted for placeholder in _PER_TOKEN):
                raise InvalidValueError(
                    f"the budget would be dropped silently: {template.budgeted!r} ({code}) holds none of "
                    f"{', '.join(_PER_TOKEN)}; add one, or set budgeted=False"
                )
        return self

    def frame(self, question: str, budget: int | None, *, language: str = "auto") -> Framing:
        """Return the sentence to put after the question; see `Strategy.frame`."""
        template = self.templates[choose_language(self.templates, question, language)]
        before = f"{template.before}\n\n" if template.before else ""
        return Framing(before=before, after=template.after(budget if self.budgeted else None))


class Exemplar(Record):
    """One worked example."""

    question: str
    solution: str


class ExemplarStrategy(Record):
    """A strategy that shows worked examples of about the asked length, as turns before the question.

    A model that cannot count tokens still imitates the length of what it is shown, so the length of the
    examples is the dial. The examples depend on the budget alone: every question with the same
    budget shares one prefix, which servers cache.
    """

    name: str = Field(min_length=1)
    levels: dict[PositiveInt, Annotated[tuple[Exemplar, ...], Field(min_length=1)]] = Field(min_length=1)
    """Worked examples by the mean length of their solutions, in output tokens."""
    template: Template
    """The sentence after the question."""
    fit: float = Field(default=0.75, gt=0)
    """The longest level shown is at most this share of the budget: answers run longer than their models."""
    budgeted: bool = True
    reasons: bool = True
    measured_on: tuple[str, ...] = ()
    """Models on which this strategy was measured, with what was seen."""

    def level(self, budget: int) -> int:
        """Return the example length shown for a budget, both in output tokens."""
        fitting = [level for level in self.levels if level <= budget * self.fit]
        return max(fitting) if fitting else min(self.levels)

    def frame(self, question: str, budget: int | None, *, language: str = "auto") -> Framing:
        """Return the examples and the sentence around the question; see `Strategy.frame`."""
        del question, language  # the examples are in one language, which models carry over
        after = self.template.after(budget)
        if budget is None:
            return Framing(after=after)
        turns = (
            (
                Message(role="user", content=one.question + after),
                Message(role="assistant", content=one.solution),
            )
            for one in self.levels[self.level(budget)]
        )
        return Framing(examples=tuple(itertools.chain.from_iterable(turns)), after=after)


_lock = threading.Lock()
_strategies: dict[str, Strategy] = {}


def register_strategy(strategy: Strategy, *, replace: bool = False) -> Strategy:
    """Add a strategy to the registry, under its name.

    Args:
        strategy: Anything with the members of `tale_core.types.Strategy`.
        replace: Whether to take the place of a strategy of that name.

    Returns:
        The strategy, so that the call can stand in an assignment.

    Raises:
        InvalidValueError: The name is taken and ``replace`` is False, or it is no strategy.
    """
    _check_strategy(strategy)
    with _lock:
        if strategy.name in _strategies and not replace:
            raise InvalidValueError(
                f"a strategy named {strategy.name!r} exists; pass replace=True to replace it"
            )
        _strategies[strategy.name] = strategy
    return strategy


def get_strategy(strategy: str | Strategy) -> Strategy:
    """Return a strategy by name; a strategy object is returned as it is.

    Raises:
        UnknownStrategyError: No strategy of that name is registered.
        InvalidValueError: Neither a name nor a strategy.
    """
    if not isinstance(strategy, str):
        _check_strategy(strategy)
        return strategy
    try:
        return _strategies[strategy]
    except KeyError:
        near = difflib.get_close_matches(strategy, _strategies, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownStrategyError(
            f"no prompt strategy named {strategy!r}; {hint}known: {', '.join(strategy_names())}; "
            "add your own with tale_core.register_strategy"
        ) from None


def strategy_names() -> tuple[str, ...]:
    """Return the names of all registered strategies, sorted."""
    with _lock:
        return tuple(sorted(_strategies))


def _check_strategy(strategy: object) -> None:
    if not isinstance(strategy, Strategy):
        raise InvalidValueError(
            "a strategy has a name, budgeted, reasons and frame(question, budget, language=...); "
            f"got {strategy!r}; known by name: {', '.join(strategy_names())}"
        )


_VANILLA = {
    "en": "Let's think step by step:",
    "zh": "让我们一步一步思考:",
}
_DIRECT = {
    "en": "Please answer the following question and give the answer directly without any reasoning process.",
    "zh": "请直接回答下面的问题，只给出答案，不要任何推理过程。",
}

DRAFT_WORDS = (
    "Think step by step, but only keep a minimum draft for each thinking step, with 5 words at most. "
    "Return the answer at the end of the response after a separator ####."
)
"""The published instruction of Chain of Draft (Xu et al., arXiv 2502.18600)."""

VANILLA = register_strategy(
    TemplateStrategy(
        name="vanilla",
        templates={code: Template(budgeted=text, unbudgeted=text) for code, text in _VANILLA.items()},
        budgeted=False,
    )
)
"""Chain of thought without a budget: the baseline that savings are measured against."""

DIRECT = register_strategy(
    TemplateStrategy(
        name="direct",
        templates={code: Template(budgeted="", unbudgeted="", before=text) for code, text in _DIRECT.items()},
        budgeted=False,
        reasons=False,
    )
)
"""The answer without reasoning: the lower bound on tokens."""

TALE = register_strategy(
    TemplateStrategy(
        name="tale",
        templates={
            "en": Template(
                budgeted="Let's think step by step and use less than {budget} tokens:",
                unbudgeted=_VANILLA["en"],
            ),
            "zh": Template(
                budgeted="让我们一步一步思考并使用少于 {budget} tokens:",
                unbudgeted=_VANILLA["zh"],
            ),
        },
        measured_on=(
            "gpt-4o-mini and others, by the paper (arXiv 2412.18547, table 2)",
            "Qwen2.5-Coder-1.5B-Instruct Q4_K_M: overruns small budgets, and with the answer format collapses",
        ),
    )
)
"""The published wording (arXiv 2412.18547, section 4)."""

ESSENTIAL = register_strategy(
    TemplateStrategy(
        name="essential",
        templates={
            "en": Template(
                budgeted=(
                    "Let's think step by step, writing only the essential calculations "
                    "(at most {budget} tokens), and end with the answer:"
                ),
                unbudgeted=(
                    "Let's think step by step, writing only the essential calculations, "
                    "and end with the answer:"
                ),
            ),
            "zh": Template(
                budgeted="让我们一步一步思考，只写必要的计算（最多 {budget} tokens），最后给出答案:",
                unbudgeted="让我们一步一步思考，只写必要的计算，最后给出答案:",
            ),
        },
        measured_on=("Qwen2.5-Coder-1.5B-Instruct Q4_K_M",),
    )
)
"""Asks for the essential calculations; for models that take a bare number as permission not to reason."""

WORDS = register_strategy(
    TemplateStrategy(
        name="words",
        templates={
            "en": Template(
                budgeted="Let's think step by step and use less than {words} words:",
                unbudgeted=_VANILLA["en"],
            ),
            "zh": Template(budgeted="让我们一步一步思考并使用少于 {words} 个词:", unbudgeted=_VANILLA["zh"]),
        },
    )
)
"""The budget in words; for models that count words better than tokens."""

STEPS = register_strategy(
    TemplateStrategy(
        name="steps",
        templates={
            "en": Template(
                budgeted="Let's think in at most {steps} short steps, then give the answer:",
                unbudgeted=_VANILLA["en"],
            ),
            "zh": Template(
                budgeted="让我们最多用 {steps} 个简短的步骤思考，然后给出答案:", unbudgeted=_VANILLA["zh"]
            ),
        },
    )
)
"""The budget in steps; for models that keep a number of steps better than a length."""

DRAFT = register_strategy(
    TemplateStrategy(
        name="draft",
        templates={
            "en": Template(
                budgeted=DRAFT_WORDS,
                unbudgeted=DRAFT_WORDS,
            )
        },
        budgeted=False,
        measured_on=(
            "GPT-4o and Claude 3.5 Sonnet, by its paper (arXiv 2502.18600)",
            "Qwen2.5-Coder-1.5B-Instruct Q4_K_M: a quarter of vanilla's tokens, half of its right answers lost",
        ),
    )
)
"""Chain of Draft, zero-shot (arXiv 2502.18600, section 3): a fixed limit per step, no budget per question."""

EXEMPLARS = register_strategy(
    ExemplarStrategy(
        name="exemplars",
        levels={
            level: tuple(Exemplar(question=question, solution=solution) for question, solution in pairs)
            for level, pairs in LEVELS.items()
        },
        template=Template(
            budgeted="Let's think step by step and use less than {budget} tokens:",
            unbudgeted=_VANILLA["en"],
        ),
        fit=0.85,
        measured_on=(
            "Qwen2.5-Coder-1.5B-Instruct Q4_K_M: 35% to 40% of vanilla's tokens at a budget of 120",
            "SmolLM2-135M-Instruct Q4_1: 20% of vanilla's tokens on sums at a budget of 30",
        ),
    )
)
"""Worked examples matched to the budget; for models that cannot count tokens."""

INTERNALISED = register_strategy(
    TemplateStrategy(
        name="internalised",
        templates={code: Template(budgeted="", unbudgeted="") for code in _VANILLA},
        budgeted=False,
    )
)
"""The plain question, with no budget and no estimator: for a model that was trained to be concise by itself
(TALE-PT, arXiv 2412.18547, section 5; ``tale internalise``)."""
