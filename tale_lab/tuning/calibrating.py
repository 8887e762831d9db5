"""From a race to a calibration: tuning on one set of questions, evidence from another."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, TypeAlias

from tale_core.method.calibration import Calibration, CalibrationPoint, Evidence, Measured
from tale_core.statistics import (
    Interval,
    difference_interval,
    mean_interval,
    ratio_interval,
    wilson_interval,
)
from tale_lab.questions.graders import get_grader, preflight
from tale_lab.tuning.candidates import BASELINE
from tale_lab.tuning.race import GradedQuestion, Race, RaceSettings, Trial, race, run_race

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_core.flows import Outcome
    from tale_core.types import Call
    from tale_lab.questions.datasets import Dataset
    from tale_lab.questions.graders import Grader
    from tale_lab.results.store import Store
    from tale_lab.tuning.candidates import Candidate
    from tale_lab.tuning.race import Rounds

Watch: TypeAlias = Callable[["Outcome[Trial]"], None]
"""Told of every answer as it comes."""


def run_stored_race(
    dataset: Dataset,
    settings: RaceSettings,
    store: Store,
    call: Call,
    *,
    model: str,
    grader: str | Grader = "auto",
    concurrency: int = 4,
    on_outcome: Watch | None = None,
) -> Race:
    """Race candidates on a dataset, keeping every call, so that a killed race goes on where it was.

    Args:
        dataset: The questions, in the order in which the rounds take them.
        settings: Candidates and margin.
        store: Where calls are kept.
        call: Answers one `ModelCall`; called from several threads at once.
        model: Names the model; part of every key.
        grader: How to grade: a name or a grader.
        concurrency: How many answers are under way at a time.
        on_outcome: Told of every answer as it comes.

    Raises:
        DataError: The grader cannot read a reference answer.
        StoreError: The results file cannot be written.
    """
    preflight(dataset.questions, grader)
    bind = get_grader(grader)
    questions = [GradedQuestion(id=one.id, text=one.question, grade=bind(one)) for one in dataset.questions]
    rounds = _remembered(race(questions, settings), store, model)
    return run_race(rounds, call, concurrency=concurrency, on_outcome=on_outcome)


def _remembered(rounds: Rounds, store: Store, model: str) -> Rounds:
    """Return the same race with every flow keeping and recalling its calls."""
    outcomes = None
    while True:
        try:
            flows = next(rounds) if outcomes is None else rounds.send(outcomes)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # what the generator returns
        outcomes = yield [store.remember(flow, model=model) for flow in flows]


def evidence(trials: Race, candidate: Candidate, *, data: str) -> Evidence:
    """Compare a candidate with vanilla chain of thought, question by question.

    Args:
        trials: A race on questions that were not used to choose the candidate.
        candidate: The choice.
        data: Names the questions.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    pairs = trials.pairs(candidate)
    correct, baseline_correct = ([float(one.correct) for one in side] for side in zip(*pairs, strict=True))
    tokens, baseline_tokens = ([float(one.net_tokens) for one in side] for side in zip(*pairs, strict=True))
    change = fmean(correct) - fmean(baseline_correct)
    return Evidence(
        data=data,
        questions=len(pairs),
        accuracy=_share(correct),
        baseline_accuracy=_share(baseline_correct),
        accuracy_change=_measured(change, difference_interval(correct, baseline_correct)),
        net_tokens=fmean(tokens),
        baseline_tokens=fmean(baseline_tokens),
        token_ratio=_measured(sum(tokens) / sum(baseline_tokens), ratio_interval(tokens, baseline_tokens)),
    )


def make_calibration(
    result: Race, tuned_on: Dataset, *, model: str, model_digest: str = "", proof: Sequence[Evidence] = ()
) -> Calibration:
    """Write down what a race found.

    Args:
        result: The race.
        tuned_on: Its questions.
        model: The model's name, as its server reports it.
        model_digest: Digest of its weights, where it is known.
        proof: What other questions showed.
    """
    chosen = result.chosen
    points = tuple(_curve(result, chosen))
    floor = min((point.budget for point in points if point.budget), default=None)
    policy = chosen.policy()
    return Calibration(
        model=model,
        strategy=chosen.strategy,
        budget=chosen.budget,
        estimator=chosen.estimator,
        exemplars=result.exemplars,
        policy=policy if floor is None else policy.model_copy(update={"floor": floor}),
        curve=points,
        evidence=tuple(proof),
        chosen_on=f"{tuned_on.source} ({len(tuned_on)} questions, digest {tuned_on.digest})",
        model_digest=model_digest,
        date=dt.datetime.now(tz=dt.timezone.utc).date().isoformat(),
        version=package_version(),
    )


def package_version() -> str:
    """Return the version of this package, with its commit where it is used from a checkout."""
    from tale_core import __version__  # noqa: PLC0415  # the package imports its parts

    return " ".join(filter(None, (__version__, _commit())))


def _commit() -> str:
    """Return the commit of a checkout that this package is used from; empty for an installed package."""
    here = Path(__file__).parent
    git = shutil.which("git")
    if git is None:
        return ""
    # Only a checkout that holds this very file: a virtual environment may lie inside somebody's repository.
    known = subprocess.run(  # noqa: S603  # no shell, nothing from outside
        [git, "ls-files", "--error-unmatch", Path(__file__).name], cwd=here, capture_output=True, check=False
    )
    if known.returncode:
        return ""
    head = subprocess.run(  # noqa: S603
        [git, "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, check=False, text=True
    )
    return head.stdout.strip()


def _curve(result: Race, chosen: Candidate) -> list[CalibrationPoint]:
    """Return what the budgets of the chosen strategy led to that kept the accuracy, and vanilla's point."""
    kept = [
        one.candidate
        for one in result.standings
        if (one.candidate.strategy, one.candidate.searched) == (chosen.strategy, chosen.searched)
        and one.candidate.budget is not None
        and one.accuracy_change >= -result.margin
    ]
    points = [_point(candidate.budget, [one for one, _ in result.pairs(candidate)]) for candidate in kept]
    vanilla = [one for one in result.trials if one.candidate == BASELINE]
    return [*sorted(points, key=lambda point: point.budget or 0), _point(None, vanilla)]


def _point(budget: int | None, trials: Sequence[Trial]) -> CalibrationPoint:
    tokens = [float(one.reason_tokens) for one in trials]
    return CalibrationPoint(
        budget=budget,
        tokens=_measured(fmean(tokens), mean_interval(tokens)),
        accuracy=_share([float(one.correct) for one in trials]),
    )


def _share(correct: Sequence[float]) -> Measured:
    return _measured(fmean(correct), wilson_interval(sum(correct), len(correct)))


def _measured(value: float, interval: Interval) -> Measured:
    return Measured(value=value, low=interval.low, high=interval.high)
