"""Worked examples from searched answers: what the model itself wrote when it was right and brief.

A model that cannot count tokens imitates the length of what it is shown, and its own wording comes easiest to
it. The examples of one level are answers of about one length, to different questions.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from tale_core.errors import InvalidValueError
from tale_core.prompts.strategies import Exemplar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tale_core.search.budget_search import SearchTrace
    from tale_core.search.curves import Probe

_LEAST_REASONING = 15  # tokens; fewer hold no reasoning that a model could imitate
_ROUNDED_TO = 5


def harvest(
    traces: Iterable[SearchTrace], *, levels: int = 3, examples: int = 5
) -> dict[int, tuple[Exemplar, ...]]:
    """Return worked examples by length, taken from correct answers under a budget.

    Of each question the shortest correct answer that still reasons is taken. The answers are sorted by length
    and cut into as many groups as there are to be levels; each level shows the answers nearest to the middle of
    its group.

    Args:
        traces: Finished searches of one model; none of their questions may serve as a test afterwards.
        levels: How many lengths to offer, at most.
        examples: How many examples a level has.

    Returns:
        Examples by the mean length of their solutions, in output tokens.

    Raises:
        InvalidValueError: There are too few correct answers for one level.
    """
    if levels < 1 or examples < 1:
        raise InvalidValueError(f"levels and examples must be at least 1, got {levels} and {examples}")
    answers = sorted(_shortest(traces), key=lambda one: one[1].usage.output_tokens)
    if len(answers) < examples:
        raise InvalidValueError(
            f"{len(answers)} questions have a correct answer that reasons under a budget, {examples} are "
            "needed; search more questions, or ask for fewer examples"
        )
    count = min(levels, len(answers) // examples)
    found: dict[int, tuple[Exemplar, ...]] = {}
    for number in range(count):
        group = answers[number * len(answers) // count : (number + 1) * len(answers) // count]
        start = (len(group) - examples) // 2
        shown = group[start : start + examples]
        mean = fmean(probe.usage.output_tokens for _, probe in shown)
        level = max(_ROUNDED_TO, round(mean / _ROUNDED_TO) * _ROUNDED_TO)
        found[level] = tuple(Exemplar(question=question, solution=probe.text) for question, probe in shown)
    return found


def _shortest(traces: Iterable[SearchTrace]) -> list[tuple[str, Probe]]:
    kept: dict[str, Probe] = {}
    for trace in traces:
        for probe in trace.probes:
            before = kept.get(trace.question)
            if _usable(probe) and (before is None or probe.usage.output_tokens < before.usage.output_tokens):
                kept[trace.question] = probe
    return list(kept.items())


def _usable(probe: Probe) -> bool:
    return (
        probe.budget is not None
        and probe.correct
        and probe.finish_reason != "length"
        and probe.usage.output_tokens >= _LEAST_REASONING
    )
