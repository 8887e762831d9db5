"""``tale tune``: find out which strategy and budget suit a model, and write them down as a calibration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tale_core.errors import DataError, InvalidValueError
from tale_core.local import CATALOGUE
from tale_core.method.calibration import Calibration
from tale_lab.bench.benchmark import Sampling
from tale_lab.bench.methods import TaleCalibrated, Vanilla
from tale_lab.cli._measuring import (
    Measuring,
    MeasuringOptions,
    Worked,
    fitted_elsewhere,
    numbers,
    right_so_far,
    tell_failures,
    with_options,
)
from tale_lab.cli._reporting import MarginOption  # noqa: TC001  # typer reads it
from tale_lab.cli._shared import FAILED, check_writable, err, out, print_json
from tale_lab.questions.datasets import check_disjoint
from tale_lab.results.store import Store
from tale_lab.tuning.calibrating import evidence, make_calibration
from tale_lab.tuning.candidates import BASELINE, candidates_of
from tale_lab.tuning.exemplar_mining import harvest
from tale_lab.tuning.race import Race, RaceSettings, questions_needed, run_race

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_core.method.calibration import Evidence
    from tale_lab.bench.benchmark import Attempt
    from tale_lab.bench.report.figures import Comparison
    from tale_lab.questions.datasets import Dataset
    from tale_lab.runs.runner import Job
    from tale_lab.tuning.candidates import Levels

_NUMBERS = "Numbers separated by commas."
_PERCENT = 100


@dataclass(frozen=True, kw_only=True)
class TuneOptions(MeasuringOptions):
    """The options that ``tale tune`` shares; ``--out`` is its calibration."""

    results: Annotated[
        Path, typer.Option(help="Where every answer is kept; a run that was stopped goes on in it.")
    ] = Path("run.sqlite")


@with_options
def tune(
    options: TuneOptions,
    *,
    calibration: Annotated[Path, typer.Option("--out", "-o", help="Where to write the calibration.")] = Path(
        "calibration.json"
    ),
    test: Annotated[
        list[str] | None,
        typer.Option(help="Other questions, to measure the choice on; may be given several times."),
    ] = None,
    strategies: Annotated[
        str | None, typer.Option(help="Prompt strategies to race, separated by commas; all by default.")
    ] = None,
    budgets: Annotated[str, typer.Option(help=f"Fixed budgets to race. {_NUMBERS}")] = "25,50,100,200",
    multipliers: Annotated[
        str, typer.Option(help=f"What to multiply the model's own estimates by. {_NUMBERS}")
    ] = "1,2",
    estimator: Annotated[
        list[Path] | None,
        typer.Option(help="A fitted estimator to race too (`tale fit`); may be given several times."),
    ] = None,
    examples_from: Annotated[
        Path | None,
        typer.Option(help="A results file of `tale search`: race worked examples taken from its answers too."),
    ] = None,
    retry: Annotated[
        bool, typer.Option(help="Ask again, once, after an arithmetic error in an answer.")
    ] = True,
    margin: MarginOption = 3.0,
    first: Annotated[
        int | None,
        typer.Option(min=1, show_default="8, or a thirtieth of all", help="Questions of the first round."),
    ] = None,
) -> None:
    """Race strategies and budgets on questions with known answers, and write the best down as a calibration.

    Every candidate answers the same first questions. After each round half of the candidates leave the race;
    the cheapest and the safest stay. The last two answer all other questions, and one is chosen if they show
    that it keeps the accuracy of plain chain of thought within the margin; that takes some hundred questions.
    Name other questions with --test to have the written calibration measured where it was not chosen. Answers
    are kept as those of `tale bench`, and `tale report` shows the measurements of --test again.
    """
    check_writable(calibration)
    tuned_on, *tests = (options.open_data(source) for source in (options.data, *(test or ())))
    check_disjoint(tuning=tuned_on, **{f"test {number}": one for number, one in enumerate(tests, start=1)})
    for path in estimator or ():
        fitted_elsewhere(path, tuned_on, *tests)
    with Measuring(options) as measuring:
        model = measuring.client.model
        examples = {} if examples_from is None else _harvested(examples_from, model, [tuned_on, *tests])
        settings = RaceSettings(
            candidates=candidates_of(
                _named(strategies),
                budgets=numbers(budgets, int),
                multipliers=numbers(multipliers, float),
                estimators=[str(path) for path in estimator or ()],
                exemplars=examples,
                retry=retry,
            ),
            margin=margin / _PERCENT,
            first=first,
            sampling=Sampling(temperature=measuring.temperature, max_tokens=options.max_tokens),
        )
        tuning = _Tuning(measuring, settings)
        race = tuning.race(tuned_on)
        found = make_calibration(race, tuned_on, model=model, model_digest=_digest_of(model))
        found.save(calibration)
        if race.chosen != BASELINE:
            # What is proved is what was written: the file, read again.
            proofs = [tuning.prove(Calibration.load(calibration), one) for one in tests]
            found = found.model_copy(update={"evidence": tuple(proof for proof, _ in proofs)})
            found.save(calibration)
            verdicts = [compared for _, compared in proofs]
        else:
            verdicts = []
        measuring.tell_spent()
    tell_failures(tuning.worked.failed, "answers")
    if options.as_json:
        rows = [one.row() for one in race.standings]
        written = found.model_dump(mode="json")
        print_json({"calibration": written, "standings": rows, "file": str(calibration)})
    else:
        out.print(_table(race, f"{model} on {tuned_on.source}"))
        _tell(race, found, verdicts)
    err.print(f"the calibration is in {calibration}")
    tuning.worked.leave()
    for proof, compared in zip(found.evidence, verdicts, strict=True):
        if compared.no_worse(settings.margin) == "no":
            words = f"{calibration} is shown to be worse than the margin allows on {proof.data}: do not use it"
            err.print(words, style="bold red", soft_wrap=True)
            raise typer.Exit(FAILED)


class _Tuning:
    """The rounds of one race, and the proofs of its choice, on the machine of `Measuring`."""

    def __init__(self, measuring: Measuring, settings: RaceSettings) -> None:
        self._measuring = measuring
        self._settings = settings
        self.worked: Worked[Attempt] = Worked()
        """Everything so far."""

    def race(self, dataset: Dataset) -> Race:
        """Run the race, after saying what it may take."""
        measuring, settings = self._measuring, self._settings
        answers, calls = settings.most_answers(len(dataset)), settings.most_calls(len(dataset))
        measuring.tell_bound(
            answers, answers, calls=calls, cap=settings.sampling.max_tokens or 0, things="answers"
        )
        measuring.record("tune", dataset, settings=settings.model_dump(mode="json"))
        model, grader = measuring.client.model, measuring.grader
        return run_race(dataset, settings, self._ask, model=model, grader=grader)

    def prove(self, calibration: Calibration, test: Dataset) -> tuple[Evidence, Comparison]:
        """Measure a calibration on questions that were not used to choose it."""
        methods = [Vanilla(), TaleCalibrated(calibration=calibration)]
        jobs, _ = self._measuring.benchmark(test, methods, self._settings.sampling)
        told: dict[str, dict[str, Attempt]] = {method.label: {} for method in methods}
        for one in self._ask(jobs):
            told[one.method][one.question_id] = one
        baseline, answers = told.values()
        return evidence(answers, baseline, data=test.source)

    def _ask(self, jobs: Sequence[Job[Attempt]]) -> list[Attempt]:
        worked = self._measuring.drive(jobs, note=right_so_far, things="answers")
        self.worked.failed.extend(worked.failed)
        if worked.ended:
            worked.leave()
        return worked.results


def _named(strategies: str | None) -> list[str] | None:
    if strategies is None:
        return None
    named = [name.strip() for name in strategies.split(",") if name.strip()]
    if not named:
        raise InvalidValueError(
            f"--strategies names no strategy: {strategies!r}; leave it out to race all of them"
        )
    return named


def _harvested(path: Path, model: str, asked: Sequence[Dataset]) -> Levels:
    """Take worked examples from searched answers, none of them to a question that the race or a test asks."""
    with Store(path, must_exist=True) as store:
        traces = list(store.traces(model=model))
    shared = {trace.question for trace in traces} & {one.question for data in asked for one in data.questions}
    if shared:
        raise DataError(
            f"{len(shared)} questions to be asked were searched in {path}: examples taken from them would "
            f"give the answers away ({min(shared)[:60]!r}, ...); name other questions, or another file"
        )
    return harvest(traces)


def _digest_of(model: str) -> str:
    known = CATALOGUE.get(model)
    return f"sha256:{known.sha256}" if known else ""


def _table(race: Race, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("candidate", no_wrap=True)
    for name in ("asked", "correct", "vanilla", "tokens", "share", "bare", "dropped"):
        table.add_column(name, justify="right")
    for one in race.standings:
        chosen, row = one.candidate == race.chosen, one.row()
        table.add_row(
            one.candidate.label,
            *(str(row[name]) for name in ("questions", "correct", "baseline_correct")),
            f"{one.net_tokens:.0f}",
            f"{row['token_ratio']:.0%}",
            str(row["collapses"]),
            "chosen" if chosen else "" if one.dropped_in_round is None else f"round {one.dropped_in_round}",
            style="bold" if chosen else None,
        )
    return table


def _tell(race: Race, calibration: Calibration, verdicts: Sequence[Comparison]) -> None:
    if race.chosen == BASELINE:
        words = _undecided(race) or "Nothing beats plain chain of thought on this model within the margin"
        out.print(f"{words}: the calibration has no budget.", soft_wrap=True)
    for proof, compared in zip(calibration.evidence, verdicts, strict=True):
        out.print(f"measured elsewhere: {proof}", soft_wrap=True, highlight=False)
        verdict = compared.no_worse(race.margin)
        out.print(f"not worse than vanilla by more than {race.margin:.1%} of the questions: {verdict}")
    if race.chosen != BASELINE and not calibration.evidence:
        out.print("The choice was not measured on other questions; name some with --test.")


def _undecided(race: Race) -> str:
    """Say which finalists may still keep the accuracy, and how many questions would tell."""
    if not race.undecided or not race.margin:
        return ""
    lines = []
    for label, one in race.undecided.items():
        low, high = (end * _PERCENT for end in (one.accuracy_interval.low, one.accuracy_interval.high))
        more = max(1, questions_needed(one, race.margin) - one.questions)
        lines.append(
            f"{label}: saves {one.saved:.0%} of output tokens, accuracy {one.accuracy_change * _PERCENT:+.1f} "
            f"points ({low:+.1f} to {high:+.1f}) on {one.questions} questions; about {more:,} more would tell"
        )
    return "\n".join([*lines, "Nothing can be shown yet at this margin"])
