"""Prompt strategies: how a question is asked under a budget. One registry, one call: ``strategy.frame``.

A strategy never rewrites the question. It returns a `Framing`: text before it and text after it. The wordings
of the built-in strategies are in `tale_core.prompts.builtin`.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import re
import threading
import unicodedata
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt, field_validator, model_validator

from tale_core.errors import InvalidValueError, UnknownStrategyError
from tale_core.protocols import Strategy
from tale_core.types import Framing, Message, Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_LATIN = re.compile(r"[A-Za-z]")
# A Han character carries about as much as a short word: Latin names and terms in a Chinese question must not
# outvote it.
_LETTERS_PER_HAN = 4
_DEFAULT_LANGUAGE = "en"
# English prose has about three words to four tokens, and a terse step of a calculation about twenty tokens:
# rules of thumb, so that one budget in tokens can be asked for in units that a model may count better.
_PER_TOKEN: dict[str, float] = {"{budget}": 1, "{words}": 0.75, "{steps}": 0.05}
# What a retry says about arithmetic errors: the wording, and what joins several calculations.
_CORRECTIONS = {"en": ("Note that {sums}.", " and "), "zh": ("请注意：{sums}。", "，")}

# Characters in which a stated budget is looked for: further on it may be the question's own, in dollars.
_HEAD = 200
_STATED = re.compile(
    r"(?:budget|预算|預算)(?:[^\n]{0,40}?(?:tokens?|令牌|權杖)|[\s*_]*[:=][\s*_]*\d[\d,]*)", re.IGNORECASE
)


def detect_language(text: str) -> str:
    """Return ``"zh"`` for text written mostly in Chinese script, otherwise ``"en"``."""
    if text.isascii():
        return _DEFAULT_LANGUAGE
    han = len(_HAN.findall(text))
    if han == 0 or _KANA.search(text):
        return _DEFAULT_LANGUAGE
    return "zh" if han * _LETTERS_PER_HAN >= len(_LATIN.findall(text)) else _DEFAULT_LANGUAGE


def choose_language(available: Mapping[str, object], question: str, language: str = "auto") -> str:
    """Choose a key of ``available``: the language itself, or with ``"auto"`` that of the question's script.

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
    """Return the sentence that states the right results, such as ``"3 + 9 + 16 = 28"``, for a retry.

    English where there is no wording in the language.
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
    """A strategy that shows worked examples of about the asked length, as messages before the question.

    A model that cannot count tokens still imitates the length of what it is shown, so the length of the
    examples sets the length of the answer. The examples depend on the budget alone: all questions with the same
    budget share one prefix, which servers cache.
    """

    name: str = Field(min_length=1)
    levels: dict[PositiveInt, Annotated[tuple[Exemplar, ...], Field(min_length=1)]] = Field(min_length=1)
    """Worked examples by the mean length of their solutions, in output tokens."""
    template: Template
    """The sentence after the question."""
    fit: float = Field(default=0.75, gt=0)
    """The longest level shown is at most this share of the budget: answers run longer than the examples."""
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


def _self_budget_templates() -> dict[str, Template]:
    from tale_core.prompts.builtin import SELF_BUDGET_TEMPLATES  # noqa: PLC0415  # when first used

    return {code: Template(**texts) for code, texts in SELF_BUDGET_TEMPLATES.items()}


class SelfBudget(TemplateStrategy):
    """A strategy that leaves the budget to the model: no estimator, no extra call.

    The budget is read from the head of the answer, and the answer is judged against it like against any other:
    its source is ``"self"``. An answer that states none is recorded as ``unparsable``. When the policy retries
    because the answer overran, the prompt names the new budget.

    Example:
        >>> from tale_core import TaleMethod, run
        >>> from tale_core.testing import ScriptedModel
        >>> run_ = TaleMethod(strategy="self-budget").begin("What is 16 - 3 - 4?")
        >>> answer = run(run_.answer(), ScriptedModel("Budget: 20 tokens. 16 - 3 - 4 = 9. The answer is 9."))
        >>> answer.plan.budget.tokens, answer.plan.budget.source, answer.estimate_usage
        (20, 'self', None)
    """

    name: str = Field(default="self-budget", min_length=1)
    templates: dict[str, Template] = Field(default_factory=_self_budget_templates)
    budgeted: bool = False

    def frame(self, question: str, budget: int | None, *, language: str = "auto") -> Framing:
        """Return the sentence to put after the question; a budget, on a retry, is named in it."""
        template = self.templates[choose_language(self.templates, question, language)]
        return Framing(after=template.after(budget))

    def stated_budget(self, text: str) -> int | None:
        """Read the budget from an answer; see `SelfBudgeting.stated_budget`."""
        from tale_core.parsing import parse_budget, strip_thinking  # noqa: PLC0415  # only this strategy needs it

        head = unicodedata.normalize("NFKC", strip_thinking(text).lstrip()[:_HEAD])
        budgets = (parse_budget(stated[0]) for stated in _STATED.finditer(head))
        return next((budget for budget in budgets if budget is not None), None)


_lock = threading.RLock()


@functools.cache
def _strategies() -> dict[str, Strategy]:
    """Return the registry; the built-in strategies are built when one is first asked for."""
    from tale_core.prompts.builtin import EXEMPLARS, SELF_BUDGET_MEASURED_ON, TEMPLATES  # noqa: PLC0415

    built: list[Strategy] = [TemplateStrategy(name=name, **fields) for name, fields in TEMPLATES.items()]
    built += [ExemplarStrategy(**EXEMPLARS), SelfBudget(measured_on=SELF_BUDGET_MEASURED_ON)]
    return {strategy.name: strategy for strategy in built}


def register_strategy(strategy: Strategy, *, replace: bool = False) -> Strategy:
    """Add a strategy to the registry, under its name.

    Args:
        strategy: Anything with the members of `tale_core.protocols.Strategy`.
        replace: Whether to take the place of a strategy of that name.

    Returns:
        The strategy, so that the call can stand in an assignment.

    Raises:
        InvalidValueError: The name is taken and ``replace`` is False, or it is not a strategy.
    """
    _check_strategy(strategy)
    with _lock:
        if strategy.name in _strategies() and not replace:
            raise InvalidValueError(
                f"a strategy named {strategy.name!r} exists; pass replace=True to replace it"
            )
        _strategies()[strategy.name] = strategy
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
        return _strategies()[strategy]
    except KeyError:
        near = difflib.get_close_matches(strategy, _strategies(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownStrategyError(
            f"no prompt strategy named {strategy!r}; {hint}known: {', '.join(strategy_names())}; "
            "add your own with tale_core.register_strategy"
        ) from None


def strategy_names() -> tuple[str, ...]:
    """Return the names of all registered strategies, sorted."""
    with _lock:
        return tuple(sorted(_strategies()))


def _check_strategy(strategy: object) -> None:
    if not isinstance(strategy, Strategy):
        raise InvalidValueError(
            "a strategy has a name, budgeted, reasons and frame(question, budget, language=...); "
            f"got {strategy!r}; known by name: {', '.join(strategy_names())}"
        )
