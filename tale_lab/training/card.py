"""The card of a folder of training data: what is in it, where it came from, and how long answers are."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tale_core import __version__
from tale_core.types import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_lab.training.examples import Example


class Lengths(Record):
    """The lengths of answers, in output tokens."""

    mean: float
    low: float
    """A tenth of the answers is shorter."""
    median: float
    high: float
    """A tenth of the answers is longer."""

    @classmethod
    def of(cls, tokens: Sequence[int]) -> Lengths:
        """Return the figures of at least one answer."""
        ordered = sorted(tokens)
        last = len(ordered) - 1
        return cls(
            mean=statistics.fmean(ordered),
            low=ordered[round(0.1 * last)],
            median=statistics.median(ordered),
            high=ordered[round(0.9 * last)],
        )


class Facts(Record):
    """What a folder of training data holds."""

    results: str
    """The results file that it was made from."""
    data: tuple[str, ...]
    """The questions, as the runs in that file name them."""
    models: tuple[str, ...]
    """The models whose answers these are."""
    strategies: tuple[str, ...]
    """The prompt strategies that carried the budgets."""
    measured: int = Field(ge=0)
    """Questions in the results file."""
    examples: int = Field(ge=0)
    """Questions with an answer to learn."""
    train: int = Field(ge=0)
    """Lines to train on."""
    test: int = Field(ge=0)
    """Lines held out."""
    vanilla: Lengths
    """The answers without a budget to these questions."""
    concise: Lengths
    """The answers to learn."""
    estimated: int = Field(ge=0)
    """How many answers to learn were counted by a tokenizer, not by the provider."""
    digest: str
    """SHA-256 of the lines to train on."""
    settings: dict[str, Any]
    """How they were made; see `ExportSettings`."""
    version: str
    """Version of this package."""

    @classmethod
    def of(cls, examples: Sequence[Example], **more: Any) -> Facts:
        """Return the facts of at least one example.

        Args:
            examples: What was exported.
            **more: The fields that the examples do not say.
        """
        return cls(
            models=tuple(sorted({one.model for one in examples if one.model})),
            strategies=tuple(sorted({one.strategy for one in examples})),
            examples=len(examples),
            vanilla=Lengths.of([one.vanilla.tokens for one in examples]),
            concise=Lengths.of([one.concise.tokens for one in examples]),
            estimated=sum(one.source == "estimated" for one in examples),
            version=__version__,
            **more,
        )

    @property
    def saved(self) -> float:
        """Share of the vanilla output tokens that the answers to learn save."""
        return 1 - self.concise.mean / self.vanilla.mean if self.vanilla.mean else 0.0


def card(facts: Facts) -> str:
    """Return the card's text."""
    rows = "\n".join(
        f"| {name} | {one.mean:.0f} | {one.low:.0f} | {one.median:.0f} | {one.high:.0f} |"
        for name, one in (("without a budget", facts.vanilla), ("to learn", facts.concise))
    )
    return f"""# Concise answers: {facts.settings["format"]}

Training data for a model that keeps its budget by itself: each prompt names no budget, each answer was found
under the smallest budget that kept it right.

- Questions: {", ".join(facts.data) or "not recorded"}
- Answers by: {", ".join(facts.models) or "not recorded"}
- Prompt strategies that carried the budgets: {", ".join(facts.strategies)}
- Asked in training as: strategy `{facts.settings["prompt_strategy"]}`
- {facts.measured} questions were measured; {facts.examples} have an answer to learn
- {facts.train} lines to train on, {facts.test} held out, split by question (seed {facts.settings["seed"]})
{_choices(facts)}
- SHA-256 of `train.jsonl`: `{facts.digest}`
- Made with tale-reasoning {facts.version} from `{facts.results}`

| output tokens of the answers | mean | 10% below | median | 10% above |
|---|---|---|---|---|
{rows}

The answers to learn take {facts.concise.mean / max(facts.vanilla.mean, 1):.0%} of the tokens.\
{_counted(facts)} They were chosen in hindsight, so this is a bound, not what a trained model will reach.
"""


def _choices(facts: Facts) -> str:
    """Say by what rules the lines were made."""
    settings = facts.settings
    lines = [
        "- Labels: by majority. No reference answer was used: an answer counts as right where more than half "
        "of the readable answers to its question agree, so some are wrong"
        if settings["labels"] == "majority"
        else "- Labels: graded against reference answers"
    ]
    if "dpo" in settings["format"]:
        lines.append(f"- Preferred to: {_PAIRINGS[settings['pairing']]}")
    if settings["with_vanilla"]:
        lines.append("- Questions that no budget kept right hold their vanilla answer")
    if settings["min_tokens"] > 1:
        lines.append(f"- Answers under {settings['min_tokens']} tokens were left out")
    return "\n".join(lines)


_PAIRINGS = {
    "vanilla": "the answer without a budget",
    "wrong": "a wrong answer that is no longer",
    "both": "the answer without a budget, and a wrong answer that is no longer",
}


def _counted(facts: Facts) -> str:
    return f" {facts.estimated} of them were counted by a tokenizer." if facts.estimated else ""
