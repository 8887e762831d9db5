"""``tale bench``: many methods on the same questions of one model, with the proof of what each saves."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tale_core import __version__
from tale_core.errors import DataError, InvalidValueError, SpendingLimitError, StoreError
from tale_core.estimators import RegressionEstimator
from tale_core.method.calibration import find_calibration
from tale_core.models.client import ChatClient
from tale_core.types import Usage
from tale_lab.bench.benchmark import Sampling, SpendingLimit, bench_jobs
from tale_lab.bench.methods import Conditions, get_method, method_names
from tale_lab.bench.report import Plan, list_price, view_of
from tale_lab.bench.report.views import COMMAND
from tale_lab.cli._engines import EngineName, EngineOption, RayAddressOption, Where, WorkersOption
from tale_lab.cli._measuring import (
    Bench,
    ConcurrencyOption,
    DataArgument,
    FormatOption,
    GraderOption,
    JudgeOption,
    LimitOption,
    MaxTokensOption,
    OutOption,
    SkipOption,
    TemperatureOption,
    choose_grader,
    open_data,
    open_judge,
    tell_bound,
)
from tale_lab.cli._reporting import (
    AsOption,
    HtmlOption,
    MarginOption,
    MarkdownOption,
    Wanted,
    show_report,
)
from tale_lab.cli._shared import (
    FAILED,
    INTERRUPTED,
    CalibrationOption,
    JsonOption,
    ModelOption,
    ModelPathOption,
    err,
)
from tale_lab.questions.graders import grader_name
from tale_lab.results.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_lab.bench.benchmark import Attempt
    from tale_lab.bench.methods import Method
    from tale_lab.bench.report import Price
    from tale_lab.cli._measuring import Worked
    from tale_lab.questions.datasets import Dataset
    from tale_lab.runs.runner import Job

LIMITED = 3
"""Exit status when a spending limit ended the run."""
_ENDING = (KeyboardInterrupt, Exception)


def bench(
    data: DataArgument,
    *,
    model: ModelOption = "local",
    model_path: ModelPathOption = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help=f"Methods, separated by commas: {', '.join(method_names())}; a strategy and a budget as "
            "tale:STYLE@BUDGET; a class of your own as module:Class. By default all that this model, and what "
            "is named here, allow."
        ),
    ] = None,
    results: OutOption = Path("run.sqlite"),
    calibration: CalibrationOption = None,
    estimator: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Estimator made by tale fit, for the methods that use one."),
    ] = None,
    temperature: TemperatureOption = None,
    max_tokens: MaxTokensOption = 1024,
    grader: GraderOption = "auto",
    judge: JudgeOption = None,
    concurrency: ConcurrencyOption = 4,
    engine: EngineOption = EngineName.LOCAL,
    workers: WorkersOption = None,
    ray_address: RayAddressOption = None,
    limit: LimitOption = None,
    answer_format: FormatOption = False,
    skip_malformed: SkipOption = False,
    max_tokens_total: Annotated[
        int | None, typer.Option(min=1, help="Stop once this run has taken so many input and output tokens.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="Stop once this run has cost so many US dollars, at list price.")
    ] = None,
    retries: Annotated[
        int, typer.Option(min=0, help="How often a call that the provider refused is tried again.")
    ] = 4,
    margin: MarginOption = 3.0,
    layout: AsOption = None,
    html: HtmlOption = None,
    markdown: MarkdownOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare methods on the same questions: accuracy, tokens net of everything, cost and time.

    Every answer is kept in the results file as it comes. Stopped at any moment, the same command goes on where
    it was; with other methods it adds to what is there. The exit status is 0 when everything is answered, 1
    when some questions failed, 3 when a spending limit ended the run, and 130 after Ctrl-C; the report of what
    is there comes in every case.
    """
    wanted = Wanted(margin=margin, layout=layout, html=html, markdown=markdown, as_json=as_json)
    wanted.check()
    where = Where(engine=engine, workers=workers, address=ray_address)
    dataset = open_data(data, limit=limit, skip=skip_malformed, answer_format=answer_format)
    client = ChatClient.open(model, model_path=model_path, max_retries=retries)
    judging = open_judge(grader, judge, client)
    grading = choose_grader(grader, judging)
    conditions = Conditions(
        calibration=find_calibration(calibration, model_name=client.model),
        estimator=None if estimator is None else _fitted_elsewhere(estimator, dataset),
        control=client.control,
        efforts=client.efforts,
    )
    compared = choose_methods(methods, conditions)
    sampling = Sampling(
        temperature=client.temperature if temperature is None else temperature, max_tokens=max_tokens
    )
    jobs = bench_jobs(dataset, compared, model=client.model, sampling=sampling, grader=grading)
    plan = Plan.of(
        dataset,
        compared,
        model=client.model,
        sampling=sampling,
        grader=grader_name(grading),
        address=client.address,
        version=__version__,
    )
    price = list_price(client.model, client.address)
    limited = partial(SpendingLimit, max_tokens=max_tokens_total, max_cost=max_cost, price=price)
    limited(client)  # a limit that cannot be kept fails here
    with Store(results) as store:
        track = Bench(client=client, judge=judging, store=store, concurrency=concurrency, where=where)
        store.begin_run(
            command=COMMAND, model=client.model, data=dataset.source, plan=plan.model_dump(mode="json")
        )
        _tell_bound(jobs, compared, store, cap=max_tokens, price=price, judged=judging is not None)
        worked = track.drive(jobs, note=_so_far, things="answers", limited=limited, ending=_ENDING)
        if isinstance(worked.ended, StoreError):
            raise worked.ended
        view = view_of(store, plan)
    if view.attempts:
        show_report([view], wanted, facts={"run": {**worked.facts(), "results": str(results)}})
        err.print(f"every answer is in {results}; tale report shows them again", soft_wrap=True)
    _leave(worked)


def _fitted_elsewhere(path: Path, dataset: Dataset) -> RegressionEstimator:
    """Open an estimator that was fitted on none of the questions it is to be tested on."""
    found = RegressionEstimator.load(path)
    known = [one.id for one in dataset.questions if found.trained_on(one.question)]
    if known:
        raise DataError(
            f"{path} was fitted on {len(known)} of the {len(dataset)} questions of {dataset.source} "
            f"({known[0]!r}, ...): it would be tested on what it has seen; name other questions, or an "
            "estimator fitted elsewhere"
        )
    return found


def choose_methods(names: str | None, conditions: Conditions) -> list[Method]:
    """Return the methods to compare.

    Args:
        names: Their names, separated by commas; None for all that the conditions allow.
        conditions: What the run has to offer.

    Raises:
        InvalidValueError: There is no such method, or it needs what the run does not have.
    """
    if names is None:
        return _possible(conditions)
    chosen = [get_method(name).under(conditions) for name in filter(None, map(str.strip, names.split(",")))]
    if not chosen:
        raise InvalidValueError(f"--methods names no method: {names!r}; known: {', '.join(method_names())}")
    return chosen


def _possible(conditions: Conditions) -> list[Method]:
    found = {name: _allowed(name, conditions) for name in method_names()}
    left_out = ", ".join(name for name, method in found.items() if method is None)
    if left_out:
        words = f"left out, for want of what they need: {left_out} (name one with --methods to see what)"
        err.print(words, style="dim", soft_wrap=True)
    return [method for method in found.values() if method is not None]


def _allowed(name: str, conditions: Conditions) -> Method | None:
    try:
        return get_method(name).under(conditions)
    except InvalidValueError:
        return None


def _tell_bound(
    jobs: Sequence[Job[Attempt]],
    methods: Sequence[Method],
    store: Store,
    *,
    cap: int,
    price: Price | None,
    judged: bool,
) -> None:
    most = {method.label: method.most_calls for method in methods}
    todo = [job for job in jobs if job.key not in store]
    calls = sum(most[job.label] for job in todo)
    tell_bound(len(todo), len(jobs), calls=calls, tokens=calls * cap, judged=judged, things="answers")
    if price is not None and todo:
        bound = price(Usage(output_tokens=calls * cap))
        err.print(f"at most ${bound:,.2f} for these output tokens at list price; the prompts come on top")


def _so_far(attempts: Sequence[Attempt]) -> str:
    right = sum(one.correct for one in attempts) / max(1, len(attempts))
    return f"{right:.0%} right over all methods"


def _leave(worked: Worked[Attempt]) -> None:
    if isinstance(worked.ended, KeyboardInterrupt):
        err.print("stopped; the same command goes on where it was", style="yellow")
        raise typer.Exit(INTERRUPTED)
    if isinstance(worked.ended, SpendingLimitError):
        err.print(f"stopped: {worked.ended}; the same command goes on where it was", style="yellow")
        raise typer.Exit(LIMITED)
    if worked.ended is not None:
        raise worked.ended
    if worked.failed:
        raise typer.Exit(FAILED)
