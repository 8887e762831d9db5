"""``tale tune``: find out how a model is best asked, and write it down as a calibration."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tale_core.errors import DataError, InvalidValueError
from tale_core.local import CATALOGUE
from tale_core.models.client import ChatClient
from tale_core.prompts.strategies import get_strategy
from tale_lab.cli._measuring import (
    ConcurrencyOption,
    DataArgument,
    FormatOption,
    GraderOption,
    LimitOption,
    MaxTokensOption,
    SkipOption,
    interruptible,
    open_data,
    progress_shown,
    tell_bound,
    tell_spent,
)
from tale_lab.cli._shared import JsonOption, ModelOption, ModelPathOption, err, out, print_json
from tale_lab.questions.datasets import check_disjoint
from tale_lab.results.store import Store
from tale_lab.runs.runner import Progress
from tale_lab.runs.usage_counter import Meter
from tale_lab.tuning.calibrating import evidence, make_calibration, run_stored_race
from tale_lab.tuning.candidates import BASELINE, Candidate, candidates_of, default_candidates
from tale_lab.tuning.exemplar_mining import harvest
from tale_lab.tuning.race import Race, RaceSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_core.concurrency import Outcome
    from tale_core.method.calibration import Calibration, Evidence
    from tale_core.prompts.strategies import Exemplar
    from tale_lab.questions.datasets import Dataset
    from tale_lab.tuning.race import Trial

_NUMBERS = "Numbers separated by commas."


def tune(
    data: DataArgument,
    *,
    model: ModelOption = "local",
    model_path: ModelPathOption = None,
    calibration: Annotated[Path, typer.Option("--out", "-o", help="Where to write the calibration.")] = Path(
        "calibration.json"
    ),
    test: Annotated[
        list[str] | None,
        typer.Option(help="Other questions, to measure the choice on; may be given several times."),
    ] = None,
    results: Annotated[
        Path, typer.Option(help="Where every answer is kept; a run that was stopped goes on in it.")
    ] = Path("run.sqlite"),
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
    second_try: Annotated[
        bool,
        typer.Option(help="Ask again, once, when a calculation in an answer does not come out."),
    ] = True,
    margin: Annotated[
        float, typer.Option(help="How much accuracy may fall, as a share of the questions.")
    ] = 0.03,
    first: Annotated[int, typer.Option(min=1, help="Questions of the first round.")] = 8,
    max_tokens: MaxTokensOption = 1024,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Sampling temperature; the model's own by default.")
    ] = None,
    grader: GraderOption = "auto",
    concurrency: ConcurrencyOption = 4,
    limit: LimitOption = None,
    skip_malformed: SkipOption = False,
    answer_format: FormatOption = False,
    as_json: JsonOption = False,
) -> None:
    """Race ways of asking on questions with known answers, and write the best one down as a calibration.

    Every way answers the same questions. After each round the more expensive half leaves the race, and with
    it whatever loses too many answers against plain chain of thought. Name other questions with --test to have
    the choice measured where it was not made.
    """
    candidates = _candidates(
        strategies,
        budgets=_whole(budgets),
        multipliers=_decimals(multipliers),
        estimators=[str(path) for path in estimator or ()],
    )
    tuned_on, *tests = (
        open_data(source, limit=limit, skip=skip_malformed, answer_format=answer_format)
        for source in (data, *(test or ()))
    )
    check_disjoint(tuning=tuned_on, **{f"test {number}": one for number, one in enumerate(tests, start=1)})
    client = ChatClient.open(model, model_path=model_path, temperature=temperature)
    exemplars = {} if examples_from is None else _harvested(examples_from, client.model, tests)
    if exemplars:
        candidates += tuple(
            Candidate(strategy="exemplars", budget=budget, searched=True) for budget in _whole(budgets)
        )
    if second_try:
        candidates = tuple(one.model_copy(update={"second_try": True}) for one in candidates)
    settings = RaceSettings(
        candidates=candidates,
        margin=margin,
        first=first,
        max_tokens=max_tokens,
        temperature=client.temperature,
        exemplars=exemplars,
    )
    with Store(results) as store:
        track = _Track(client, store, grader=grader, concurrency=concurrency)
        race = track.race(tuned_on, settings)
        proof = [] if race.chosen == BASELINE else [track.prove(race, one, settings) for one in tests]
    found = make_calibration(
        race,
        tuned_on,
        model=client.model,
        model_digest=_digest_of(client.model),
        proof=proof,
    )
    found.save(calibration)
    if as_json:
        print_json(
            {
                "calibration": found.model_dump(mode="json"),
                "standings": _rows_of(race),
                "file": str(calibration),
            }
        )
    else:
        out.print(_table(race, f"{client.model} on {tuned_on.source}"))
        _tell(race, found, calibration)


class _Track:
    """Where races are run: a model, a results file, a grader."""

    def __init__(self, client: ChatClient, store: Store, *, grader: str, concurrency: int) -> None:
        self._client = client
        self._store = store
        self._grader = grader
        self._concurrency = concurrency

    def race(self, dataset: Dataset, settings: RaceSettings) -> Race:
        """Run a race under a progress bar, after saying what it may take."""
        answers = settings.most_answers(len(dataset))
        estimates = sum(
            len(dataset)
            for one in settings.candidates
            if one.budget is None and get_strategy(one.strategy).budgeted
        )
        again = max(one.policy().most_retries for one in settings.candidates)
        calls = answers * (1 + again) + estimates
        tell_bound(len(dataset), len(dataset), calls=calls, tokens=calls * (settings.max_tokens or 0))
        self._store.begin_run(
            command="tune",
            model=self._client.model,
            data=dataset.source,
            digest=dataset.digest,
            questions=[question.id for question in dataset.questions],
            settings=settings.model_dump(mode="json"),
            grader=self._grader,
        )
        meter, began = Meter(self._client), time.monotonic()
        ended: list[Outcome[Trial]] = []
        with interruptible(), progress_shown(answers, "answers") as show:

            def advance(outcome: Outcome[Trial]) -> None:
                ended.append(outcome)
                standing = Progress(total=answers, finished=len(ended), seconds=time.monotonic() - began)
                show(standing, lambda: _so_far(ended))

            result = run_stored_race(
                dataset,
                settings,
                self._store,
                meter,
                model=self._client.model,
                grader=self._grader,
                concurrency=self._concurrency,
                on_outcome=advance,
            )
        tell_spent(meter.spent, time.monotonic() - began)
        if result.failures:
            err.print(
                f"{result.failures} answers failed ({result.first_failure}); run again to retry them",
                style="red",
                markup=False,
            )
        return result

    def prove(self, tuned: Race, test: Dataset, settings: RaceSettings) -> Evidence:
        """Measure the winner of a race on other questions."""
        result = self.race(test, settings.model_copy(update={"candidates": (tuned.chosen,)}))
        return evidence(result, tuned.chosen, data=test.source)


def _so_far(ended: Sequence[Outcome[Trial]]) -> str:
    trials = [one.unwrap() for one in ended if one.error is None]
    right = sum(trial.correct for trial in trials) / max(1, len(trials))
    return f"{right:.0%} right over all ways"


def _candidates(
    strategies: str | None, *, budgets: Sequence[int], multipliers: Sequence[float], estimators: Sequence[str]
) -> tuple[Candidate, ...]:
    if strategies is None:
        return default_candidates(budgets, multipliers, estimators)
    named = [name.strip() for name in strategies.split(",") if name.strip()]
    field = candidates_of(named, budgets=budgets, multipliers=multipliers, estimators=estimators)
    if not field:
        raise InvalidValueError(
            f"--strategies names no strategy: {strategies!r}; leave it out to race all of them"
        )
    return field


def _harvested(path: Path, model: str, tests: Sequence[Dataset]) -> dict[int, tuple[Exemplar, ...]]:
    """Take worked examples from searched answers, none of them to a question of the tests."""
    with Store(path, must_exist=True) as store:
        traces = list(store.traces(model=model))
    shared = {trace.question for trace in traces} & {one.question for test in tests for one in test.questions}
    if shared:
        raise DataError(
            f"{len(shared)} questions of the tests were searched in {path}: examples taken from them would "
            f"give the answers away ({min(shared)[:60]!r}, ...); name other tests, or another file"
        )
    return harvest(traces)


def _whole(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as exc:
        raise InvalidValueError(f"whole numbers separated by commas are wanted, got {text!r}") from exc


def _decimals(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as exc:
        raise InvalidValueError(f"numbers separated by commas are wanted, got {text!r}") from exc


def _digest_of(model: str) -> str:
    known = CATALOGUE.get(model)
    return f"sha256:{known.sha256}" if known else ""


def _rows_of(race: Race) -> list[dict[str, object]]:
    return [
        {
            "candidate": one.candidate.label,
            **one.model_dump(mode="json", exclude={"candidate"}),
            "token_ratio": one.token_ratio,
            "accuracy_change": one.accuracy_change,
        }
        for one in race.standings
    ]


def _table(race: Race, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("way of asking", no_wrap=True)
    for name in ("asked", "correct", "vanilla", "tokens", "share", "bare", "dropped"):
        table.add_column(name, justify="right")
    for one in race.standings:
        chosen = one.candidate == race.chosen
        table.add_row(
            one.candidate.label,
            str(one.questions),
            str(one.correct),
            str(one.baseline_correct),
            f"{one.net_tokens:.0f}",
            f"{one.token_ratio:.0%}",
            str(one.collapses),
            "chosen" if chosen else "" if one.dropped_in_round is None else f"round {one.dropped_in_round}",
            style="bold" if chosen else None,
        )
    return table


def _tell(race: Race, calibration: Calibration, path: Path) -> None:
    if race.chosen == BASELINE:
        out.print(
            "Nothing beats plain chain of thought on this model within the margin: the calibration has no "
            "budget."
        )
    for proof in calibration.evidence:
        out.print(f"measured elsewhere: {proof}", soft_wrap=True, highlight=False)
    if race.chosen != BASELINE and not calibration.evidence:
        out.print("The choice was not measured on other questions; name some with --test.")
    err.print(f"the calibration is in {path}")
