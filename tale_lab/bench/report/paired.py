"""One method against another, question by question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from tale_core.statistics import Interval, mcnemar, paired_share_interval, ratio_interval
from tale_core.types import Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tale_lab.bench.benchmark import Attempt

BASELINE = "vanilla"
"""The method that savings and accuracy are measured against."""
LOWER_BOUND = "direct"
"""The other method that savings are measured against: the least that an answer can take."""
MARGIN = 0.03
"""How much accuracy may fall, as a share of the questions, for a method to count as no worse."""

Answer: TypeAlias = Literal["yes", "no", "not shown"]
"""What measurements say: the whole interval says so, the whole interval denies it, or neither."""


class Comparison(Record):
    """A method against a baseline, on the questions that both answered."""

    baseline: str
    """The baseline's label."""
    questions: int = Field(ge=1)
    """How many questions both answered."""
    gained: int
    """Questions that only the method answered correctly."""
    lost: int
    """Questions that only the baseline answered correctly."""
    p: float
    """Two-sided p-value of the exact McNemar test on these two counts."""
    accuracy_change: float
    """Share of correct answers, method minus baseline."""
    accuracy_interval: Interval
    """Its interval (Bonett and Price)."""
    saved_answer: float | None
    """Share of the baseline's output tokens that the answers alone save; None where it took none."""
    saved: float | None
    """The same net of every other call; negative when the method costs more."""
    saved_interval: Interval | None
    """Its interval (paired bootstrap over questions)."""
    input_ratio: float | None
    """Input tokens as a multiple of the baseline's."""
    estimated: bool
    """Whether a tokenizer counted some of these tokens."""

    @classmethod
    def of(
        cls,
        method: Mapping[str, Attempt],
        baseline: Mapping[str, Attempt],
        *,
        name: str,
        bootstrap: bool = True,
    ) -> Comparison | None:
        """Compare the answers of two methods by question; None when they share none.

        Args:
            method: The method's answers by question.
            baseline: The baseline's.
            name: The baseline's label.
            bootstrap: Whether to compute ``saved_interval``, which is slow; else it is None.
        """
        both = [question for question in method if question in baseline]
        if not both:
            return None
        mine, others = [method[one] for one in both], [baseline[one] for one in both]
        pairs = list(zip(mine, others, strict=True))
        gained = sum(one.correct and not other.correct for one, other in pairs)
        lost = sum(other.correct and not one.correct for one, other in pairs)
        spent = sum(one.net_tokens for one in others)
        answers = sum(answer_tokens(one) for one in mine)
        ratio = _token_ratio(mine, others) if spent and bootstrap else None
        prompts = sum(one.input_tokens for one in others)
        return cls(
            baseline=name,
            questions=len(both),
            gained=gained,
            lost=lost,
            p=mcnemar(gained, lost),
            accuracy_change=(gained - lost) / len(both),
            accuracy_interval=paired_share_interval(gained, lost, len(both)),
            saved_answer=1 - answers / spent if spent else None,
            saved=1 - sum(one.net_tokens for one in mine) / spent if spent else None,
            saved_interval=None if ratio is None else Interval(low=1 - ratio.high, high=1 - ratio.low),
            input_ratio=sum(one.input_tokens for one in mine) / prompts if prompts else None,
            estimated=any(one.estimated for one in (*mine, *others)),
        )

    def no_worse(self, margin: float) -> Answer:
        """Say whether accuracy falls by no more than a margin.

        Args:
            margin: As a share of the questions.
        """
        if self.accuracy_interval.low >= -margin:
            return "yes"
        return "no" if self.accuracy_interval.high < -margin else "not shown"


def answer_tokens(attempt: Attempt) -> int:
    """Return the output tokens that the answer itself took, without the estimator's."""
    return attempt.output_tokens("reason")


def _token_ratio(mine: Sequence[Attempt], others: Sequence[Attempt]) -> Interval:
    return ratio_interval([one.net_tokens for one in mine], [one.net_tokens for one in others])
