"""The optimal budget of one question: the smallest that keeps the answer and costs fewer real tokens.

`search_budget` is a flow with two strategies: ``halving`` is Algorithms 1 and 2 of the paper
(arXiv 2412.18547, section 4.1); ``bisect`` narrows a range from both ends, raises its lower end where the real
cost grows although the budget shrank, and ends with a greedy descent in small steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import Field

from tale_core.errors import InvalidValueError
from tale_core.prompts.strategies import get_strategy
from tale_core.search.curves import BudgetRange, Point, Probe, ideal_range, points_of, rebounds
from tale_core.search.graded_call import Asking, check_budgeted, probe
from tale_core.types import Flow, Record

if TYPE_CHECKING:
    from tale_core.protocols import Strategy
    from tale_core.types import Grade

Method: TypeAlias = Literal["halving", "bisect"]
"""``halving``: as published. ``bisect``: both ends, elasticity check, greedy descent."""

StopReason: TypeAlias = Literal["rejected", "smallest", "closed", "calls"]
"""``rejected``: the next smaller budget lost the answer or cost more. ``smallest``: budget 1 was reached.
``closed``: no budget below vanilla was acceptable. ``calls``: the calls were used up."""

Accept: TypeAlias = Callable[[Point, Point], bool]
"""Says whether a candidate (second) is better than the best so far (first); wrong answers never get here."""


def feasible(reference: Point, candidate: Point) -> bool:
    """Return whether the candidate costs fewer real tokens: Algorithm 2 of arXiv 2412.18547."""
    return candidate.tokens < reference.tokens


class SearchSettings(Asking):
    """How a search is done; with the question and the model it determines the calls."""

    method: Method = "bisect"
    """The strategy."""
    max_calls: int = Field(default=40, ge=2)
    """Most answers asked for, the vanilla one included; a judge's calls come on top, at most one an answer."""
    precision: float = Field(default=0.1, gt=0, lt=1)
    """Step of the greedy descent, and width at which the bisection ends, as a share of the budget."""


class SearchTrace(Record):
    """One finished search: everything asked and everything found."""

    question: str
    """The question, without the prompt text around it."""
    question_id: str = ""
    """The caller's id of the question."""
    settings: SearchSettings
    """How the search was done."""
    probes: tuple[Probe, ...]
    """Every answer, in order; the first ones are vanilla chain of thought (budget None)."""
    chosen: int | None
    """The budget found, in output tokens; None when no budget is both correct and cheaper."""
    ideal: BudgetRange | None
    """The ideal budget range; None when no budget kept the answer."""
    stopped: StopReason
    """Why the search ended."""

    @property
    def points(self) -> tuple[Point, ...]:
        """What each budget led to, in order of asking; the first is vanilla chain of thought."""
        return points_of(self.probes)

    @property
    def vanilla(self) -> Point:
        """What the question took without a budget."""
        return self.points[0]

    @property
    def best(self) -> Point:
        """What the chosen budget led to; vanilla chain of thought where none was chosen."""
        return next(point for point in self.points if point.budget == self.chosen)

    @property
    def rebounds(self) -> tuple[int, ...]:
        """Budgets that cost more real tokens than the next larger one that was tried."""
        return rebounds(self.points)

    @property
    def output_tokens(self) -> int:
        """Output tokens that the search itself took."""
        return sum(probe.usage.output_tokens for probe in self.probes)


def search_budget(
    question: str,
    grade: Grade,
    *,
    method: Method = "bisect",
    strategy: str | Strategy = "tale",
    samples: int = 1,
    accept: Accept = feasible,
    max_calls: int = 40,
    precision: float = 0.1,
    language: str = "auto",
    temperature: float | None = None,
    max_tokens: int | None = None,
    question_id: str = "",
) -> Flow[SearchTrace]:
    """Search the optimal budget of a question whose answer is known.

    Args:
        question: The question, without prompt text.
        grade: Grades the text of one answer.
        method: ``"halving"`` as published, or ``"bisect"``.
        strategy: The prompt strategy that carries the budget, or its name.
        samples: Answers per budget; their majority decides.
        accept: Whether a smaller, correct budget is better than the last accepted one.
        max_calls: Most answers asked for, the vanilla one included.
        precision: Step of the greedy descent and width at which bisection ends, as a share of the budget.
        language: Language of the framing, or ``"auto"``.
        temperature: Sampling temperature; None leaves the model's own.
        max_tokens: Hard output cap of every answer; None leaves the model's own.
        question_id: Copied into the trace.

    Returns:
        A flow that ends with the trace, whatever the model does.

    Raises:
        InvalidValueError: A setting is out of bounds, or the strategy carries no budget.
        EmptyAnswerError: The model answered nothing, so that there is nothing to measure.

    Example:
        >>> from tale_core import run
        >>> from tale_core.testing import ScriptedModel
        >>> model = ScriptedModel("3 plus 4 makes 7, so the answer is 7", "3 + 4 = 7", "42")
        >>> trace = run(search_budget("3 + 4?", lambda text: text.endswith("7"), method="halving"), model)
        >>> [(probe.budget, probe.usage.output_tokens, probe.verdict) for probe in trace.probes]
        [(None, 10, 'correct'), (5, 5, 'correct'), (2, 1, 'wrong')]
        >>> trace.chosen, trace.stopped
        (5, 'rejected')
    """
    chosen_strategy = get_strategy(strategy)
    settings = SearchSettings(
        method=method,
        strategy=chosen_strategy.name,
        samples=samples,
        max_calls=max_calls,
        precision=precision,
        language=language,
        temperature=temperature,
        max_tokens=max_tokens,
    )
    _check(settings, chosen_strategy)
    search = _Search(question, grade, chosen_strategy, settings, accept)
    return _searching(search, question_id)


def _check(settings: SearchSettings, strategy: Strategy) -> None:
    check_budgeted(strategy)
    if settings.max_calls < 2 * settings.samples:
        raise InvalidValueError(
            f"max_calls must be at least 2 x samples = {2 * settings.samples} (vanilla and one budget), "
            f"got {settings.max_calls}"
        )


def _searching(search: _Search, question_id: str) -> Flow[SearchTrace]:
    vanilla = yield from search.point(None)
    # What was found before the calls ran out still counts.
    stopped: StopReason
    try:
        stopped = yield from _STRATEGIES[search.settings.method](search, vanilla)
    except _CallsSpentError:
        stopped = "calls"
    return SearchTrace(
        question=search.question,
        question_id=question_id,
        settings=search.settings,
        probes=tuple(search.probes),
        chosen=None if search.best is None else search.best.budget,
        ideal=ideal_range(search.points.values()),
        stopped=stopped,
    )


class _CallsSpentError(Exception):
    """The next budget would take more calls than are left."""


class _Search:
    """One search under way: asks, remembers what each budget led to, and keeps the best."""

    def __init__(
        self, question: str, grade: Grade, strategy: Strategy, settings: SearchSettings, accept: Accept
    ) -> None:
        self.question = question
        self.settings = settings
        self.probes: list[Probe] = []
        self.points: dict[int | None, Point] = {}
        self.best: Point | None = None
        self._grade = grade
        self._strategy = strategy
        self._accept = accept

    def accepts(self, reference: Point, candidate: Point) -> bool:
        return candidate.correct and self._accept(reference, candidate)

    def step(self, budget: int) -> int:
        return max(1, round(budget * self.settings.precision))

    def point(self, budget: int | None) -> Flow[Point]:
        """Ask under a budget, once per search; a budget asked before costs nothing."""
        # Bisection comes back to budgets it has seen; asking again would be paid for twice.
        if budget not in self.points:
            samples = self.settings.samples
            if len(self.probes) + samples > self.settings.max_calls:
                raise _CallsSpentError
            # All samples or none: a majority over fewer would be another measurement.
            for sample in range(samples):
                self.probes += [(yield from self._probe(budget, sample))]
            self.points[budget] = Point.of(self.probes[-samples:])
        return self.points[budget]

    def _probe(self, budget: int | None, sample: int) -> Flow[Probe]:
        strategy = get_strategy("vanilla") if budget is None else self._strategy
        call = self.settings.call(self.question, strategy, budget, sample)
        return probe(call, self._grade)


def _halving(search: _Search, vanilla: Point) -> Flow[StopReason]:
    """Algorithm 1: halve from the vanilla cost on, while feasible."""
    reference, budget = vanilla, int(vanilla.tokens) // 2
    while budget >= 1:
        point = yield from search.point(budget)
        if not search.accepts(reference, point):
            return "rejected"
        search.best = reference = point
        budget //= 2
    return "smallest"


def _bisect(search: _Search, vanilla: Point) -> Flow[StopReason]:
    left, right, reference = 0, int(vanilla.tokens), vanilla
    while right - left > search.step(right):
        middle = (left + right) // 2
        point = yield from search.point(middle)
        # Token elasticity: the real cost grew although the budget shrank, so nothing below is worth a try.
        rebounds = point.tokens > reference.tokens
        if rebounds or not search.accepts(reference, point):
            left = middle
        else:
            search.best = reference = point
            right = middle
    return "closed" if search.best is None else (yield from _descend(search, search.best))


def _descend(search: _Search, best: Point) -> Flow[StopReason]:
    """Go down in small steps from the best budget while the answer stays correct and the cost falls."""
    while True:
        budget = best.budget or 0
        budget -= search.step(budget)
        if budget < 1:
            return "smallest"
        point = yield from search.point(budget)
        if not search.accepts(best, point):
            return "rejected"
        search.best = best = point


_Strategy: TypeAlias = Callable[[_Search, Point], Flow[StopReason]]
_STRATEGIES: dict[Method, _Strategy] = {"halving": _halving, "bisect": _bisect}
