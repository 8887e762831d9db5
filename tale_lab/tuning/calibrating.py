"""From a race to a calibration: the choice as it was raced, and evidence from other questions."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from tale_core.errors import InvalidValueError
from tale_core.method.calibration import Calibration, CalibrationPoint, Evidence, Measured
from tale_core.statistics import Interval, mean_interval, wilson_interval
from tale_lab.bench.report.figures import Comparison

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tale_lab.bench.benchmark import Attempt
    from tale_lab.questions.datasets import Dataset
    from tale_lab.tuning.race import Race


def make_calibration(race: Race, tuned_on: Dataset, *, model: str, model_digest: str = "") -> Calibration:
    """Write down what a race chose, exactly as it was raced."""
    return race.chosen.calibration(model).model_copy(
        update={
            "curve": tuple(_curve(race)),
            "chosen_on": f"{tuned_on.source} ({len(tuned_on)} questions, digest {tuned_on.digest})",
            "model_digest": model_digest,
            "date": dt.datetime.now(tz=dt.timezone.utc).date().isoformat(),
            "version": package_version(),
        }
    )


def evidence(
    answers: Mapping[str, Attempt], baseline: Mapping[str, Attempt], *, data: str
) -> tuple[Evidence, Comparison]:
    """Return what questions that were not used to choose say about a calibration."""
    compared = Comparison.of(answers, baseline, name="vanilla")
    if compared is None or compared.saved is None or compared.saved_interval is None:
        raise InvalidValueError(f"no question of {data} has an answer with and without the calibration")
    saved = compared.saved_interval
    mine = [one for question, one in answers.items() if question in baseline]
    others = [one for question, one in baseline.items() if question in answers]
    found = Evidence(
        data=data,
        questions=compared.questions,
        accuracy=_share(mine),
        baseline_accuracy=_share(others),
        accuracy_change=_measured(compared.accuracy_change, compared.accuracy_interval),
        net_tokens=fmean(one.net_tokens for one in mine),
        baseline_tokens=fmean(one.net_tokens for one in others),
        token_ratio=Measured(value=1 - compared.saved, low=1 - saved.high, high=1 - saved.low),
    )
    return found, compared


def package_version() -> str:
    """Return the version of this package, with its commit where it is used from a checkout."""
    from tale_core import __version__  # noqa: PLC0415  # the package imports its parts

    return " ".join(filter(None, (__version__, _commit())))


def _commit() -> str:
    """Return the commit of a checkout that this package is used from; empty for an installed package."""
    git = shutil.which("git")
    if git is None:
        return ""
    # Only a checkout that holds this very file: a virtual environment may be inside another repository.
    commands = (["ls-files", "--error-unmatch", Path(__file__).name], ["rev-parse", "--short", "HEAD"])
    known, head = (
        subprocess.run(  # noqa: S603  # no shell, nothing from outside
            [git, *command], cwd=Path(__file__).parent, capture_output=True, check=False, text=True
        )
        for command in commands
    )
    return "" if known.returncode else head.stdout.strip()


def _curve(race: Race) -> list[CalibrationPoint]:
    """Return the raced budgets of the chosen strategy that kept the accuracy, and vanilla's point."""
    chosen = race.chosen
    points = [
        _point(one.candidate.budget, one.answers)
        for one in race.standings
        if one.candidate.budget is not None
        and (one.candidate.strategy, one.candidate.exemplars) == (chosen.strategy, chosen.exemplars)
        # Callers choose from the curve by price: a budget that breaks answers must not be on it.
        and one.comparison.accuracy_change >= -race.margin
    ]
    return [*sorted(points, key=lambda point: point.budget or 0), _point(None, race.baseline)]


def _point(budget: int | None, answers: Sequence[Attempt]) -> CalibrationPoint:
    tokens = [float(one.output_tokens("reason")) for one in answers]
    return CalibrationPoint(
        budget=budget, tokens=_measured(fmean(tokens), mean_interval(tokens)), accuracy=_share(answers)
    )


def _share(answers: Sequence[Attempt]) -> Measured:
    correct = sum(one.correct for one in answers)
    return _measured(correct / len(answers), wilson_interval(correct, len(answers)))


def _measured(value: float, interval: Interval) -> Measured:
    return Measured(value=value, low=interval.low, high=interval.high)
