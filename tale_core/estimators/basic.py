"""The estimators that need no data: a fixed budget, the model's own estimate, and several in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tale_core.errors import InvalidValueError
from tale_core.parsing import parse_budget
from tale_core.prompts.strategies import choose_language
from tale_core.protocols import Estimator, Learner
from tale_core.types import Estimate, Message, ModelCall

if TYPE_CHECKING:
    from tale_core.events import ElasticityEvent
    from tale_core.types import Budget, Flow, Usage

_TASKS = {
    # The published prompt, word for word: its figures were measured with it.
    "en": (
        "Task: Analyze the given question and estimate the minimum number of tokens required to generate a "
        "complete and accurate response. Please Give the response by strictly following this format: "
        "[[budget]], for example, Budget: [[12]]."
    ),
    "zh": (
        "任务：分析给定的问题，估计生成完整且准确的回答所需的最少 token 数。"
        "请严格按照以下格式回答：[[budget]]，例如，Budget: [[12]]。"
    ),
}
_QUESTION_LABEL = {"en": "Question: ", "zh": "问题："}


class FixedEstimator:
    """Answers every question with the same budget, without a model call.

    Args:
        tokens: The budget in output tokens, at least 1. The policy's multiplier and bounds are for estimates
            and do not apply.

    Raises:
        InvalidValueError: ``tokens`` is not a whole number, or below 1.
    """

    def __init__(self, tokens: int) -> None:
        if type(tokens) is not int or tokens < 1:  # True is an int, and no budget
            raise InvalidValueError(
                f"a token budget is a whole number of at least 1, got {tokens!r}; "
                "for no budget at all use strategy='vanilla'"
            )
        self.tokens = tokens

    @property
    def name(self) -> str:
        """``"fixed"``."""
        return "fixed"

    def estimate(self, question: str) -> Flow[Estimate]:
        """Return the fixed budget; see `Estimator.estimate`."""
        del question
        yield from ()  # a flow is a generator, even one that needs no call
        return Estimate(tokens=self.tokens, source=self.name, exact=True)

    def __repr__(self) -> str:
        return f"FixedEstimator({self.tokens})"


class ZeroShotEstimator:
    """Asks the model itself for the number of tokens, in one short call (arXiv 2412.18547, section 4.1).

    Args:
        prompt: The instruction, in place of the published one. The question follows it.
        language: ``"en"``, ``"zh"`` or ``"auto"`` to follow the question's script; ignored with ``prompt``.
        max_tokens: Output cap of the call. The reply is a number; models that think before every answer need
            more room.

    Raises:
        InvalidValueError: ``max_tokens`` is below 1, or no prompt in that language exists.
    """

    def __init__(self, *, prompt: str | None = None, language: str = "auto", max_tokens: int = 64) -> None:
        if max_tokens < 1:
            raise InvalidValueError(f"max_tokens must be at least 1, got {max_tokens}")
        choose_language(_TASKS, "", language)  # fails now rather than at the first question
        self.prompt = prompt
        self.language = language
        self.max_tokens = max_tokens

    @property
    def name(self) -> str:
        """``"zero-shot"``."""
        return "zero-shot"

    def estimate(self, question: str) -> Flow[Estimate]:
        """Plan the one call; see `Estimator.estimate`."""
        language = choose_language(_TASKS, question, self.language)
        task = _TASKS[language] if self.prompt is None else self.prompt
        prompt = f"{task}\n\n{_QUESTION_LABEL[language]}{question}"
        reply = yield ModelCall(
            role="estimate",
            messages=(Message(role="user", content=prompt),),
            temperature=0.0,
            max_tokens=self.max_tokens,
        )
        tokens = parse_budget(reply.text)
        detail = "" if tokens is not None else "no usable number in the estimator's reply"
        return Estimate(tokens=tokens, source=self.name, detail=detail)

    def __repr__(self) -> str:
        return f"ZeroShotEstimator(max_tokens={self.max_tokens})"


class ChainEstimator:
    """Asks several estimators in order; the first usable estimate counts.

    An estimator that fails is skipped. Only when none has an answer does an exception of the last one go on, to
    be handled by the policy like any estimator's.

    Args:
        *estimators: At least one.

    Raises:
        InvalidValueError: No estimator was given, or something that is not an estimator.
    """

    def __init__(self, *estimators: Estimator) -> None:
        if not estimators:
            raise InvalidValueError("a chain needs at least one estimator, got none")
        for one in estimators:
            if not isinstance(one, Estimator):
                raise InvalidValueError(
                    f"a chain takes estimators, got {one!r}; for a number use FixedEstimator"
                )
        self.estimators = estimators

    @property
    def name(self) -> str:
        """The names of the estimators, joined by ``>``."""
        return ">".join(one.name for one in self.estimators)

    def estimate(self, question: str) -> Flow[Estimate]:
        """Plan the estimate of one question; see `Estimator.estimate`."""
        *others, last = self.estimators
        for estimator in others:
            try:
                found = yield from estimator.estimate(question)
            except Exception:  # noqa: BLE001, S112  # the next one is tried instead
                continue
            if found.tokens is not None:
                return found
        return (yield from last.estimate(question))

    def learn(self, question: str, budget: Budget, usage: Usage, events: tuple[ElasticityEvent, ...]) -> None:
        """Pass one answer on to the estimators that learn; see `Learner.learn`."""
        for estimator in self.estimators:
            if isinstance(estimator, Learner):
                estimator.learn(question, budget, usage, events)

    def __repr__(self) -> str:
        return f"ChainEstimator({', '.join(repr(one) for one in self.estimators)})"
