"""``tale elasticity``: what budgets really cost a model, and what they do to its answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tale_core.errors import InvalidValueError
from tale_core.models.client import ChatClient
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
    SamplesOption,
    SkipOption,
    StrategyOption,
    TemperatureOption,
    choose_grader,
    open_data,
    open_judge,
)
from tale_lab.cli._shared import FAILED, JsonOption, ModelOption, ModelPathOption, err, out, print_json
from tale_lab.curves.elasticity import ElasticityCurve, ElasticitySettings, elasticity_jobs
from tale_lab.curves.plots import findings, table, write_html
from tale_lab.results.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_lab.curves.elasticity import Measurement


def elasticity(
    data: DataArgument,
    *,
    budgets: Annotated[
        str, typer.Option(help="Output tokens to ask for, separated by commas.")
    ] = "10,25,50,100,200,400",
    model: ModelOption = "local",
    model_path: ModelPathOption = None,
    strategy: StrategyOption = "tale",
    samples: SamplesOption = 1,
    temperature: TemperatureOption = None,
    max_tokens: MaxTokensOption = 1024,
    grader: GraderOption = "auto",
    judge: JudgeOption = None,
    concurrency: ConcurrencyOption = 4,
    engine: EngineOption = EngineName.LOCAL,
    workers: WorkersOption = None,
    ray_address: RayAddressOption = None,
    limit: LimitOption = None,
    results: OutOption = Path("run.sqlite"),
    html: Annotated[Path | None, typer.Option(help="Write an interactive page here.")] = None,
    skip_malformed: SkipOption = False,
    answer_format: FormatOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a model's elasticity: budgets against real tokens and correct answers.

    Asks every question without a budget and under each budget, and finds the rebound point, the ideal range and
    the collapse floor. Stopped at any moment, the same command goes on where it was.
    """
    where = Where(engine=engine, workers=workers, address=ray_address)
    dataset = open_data(data, limit=limit, skip=skip_malformed, answer_format=answer_format)
    grid = read_budgets(budgets)
    client = ChatClient.open(model, model_path=model_path)
    judging = open_judge(grader, judge, client)
    grading = choose_grader(grader, judging)
    settings = ElasticitySettings(
        budgets=grid,
        strategy=strategy,
        samples=samples,
        temperature=client.temperature if temperature is None else temperature,
        max_tokens=max_tokens,
    )
    jobs = elasticity_jobs(dataset, settings, model=client.model, grader=grading)
    with Store(results) as store:
        bench = Bench(client=client, judge=judging, store=store, concurrency=concurrency, where=where)
        bench.record("elasticity", dataset, settings, grading)
        worked = bench.work(jobs, calls=settings.calls, tokens=max_tokens, note=_so_far)
    curve = ElasticityCurve.of(worked.results)
    if html is not None:
        write_html(html, curve, worked.results, model=client.model, data=dataset.source)
    if as_json:
        facts = {"data": dataset.source, "model": client.model, "settings": settings.model_dump(mode="json")}
        print_json({**facts, "curve": curve.model_dump(mode="json"), **worked.facts(), "results": str(results)})
    else:
        _print(curve, f"{client.model} on {curve.questions} questions of {dataset.source}, strategy {strategy}")
        written = ", ".join(str(path) for path in (results, html) if path is not None)
        err.print(f"written: {written}", soft_wrap=True)
    if worked.failed:
        raise typer.Exit(FAILED)


def read_budgets(text: str) -> tuple[int, ...]:
    """Read budgets separated by commas.

    Raises:
        InvalidValueError: Something between the commas is no whole number.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InvalidValueError(f"budgets are whole numbers separated by commas, got {text!r}") from None


def _so_far(measurements: Sequence[Measurement]) -> str:
    return f"{sum(len(one.probes) for one in measurements)} answers"


def _print(curve: ElasticityCurve, title: str) -> None:
    header, *rows = table(curve)
    shown = Table(title=title, title_justify="left")
    for column in header:
        shown.add_column(column, justify="right")
    for row in rows:
        shown.add_row(*row)
    out.print(shown)
    for line in findings(curve):
        out.print(line)
