"""``tale elasticity``: what budgets really cost a model, and what they do to its answers."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads it
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tale_lab.cli._measuring import (
    Measuring,
    MeasuringOptions,
    SamplesOption,
    StrategyOption,
    numbers,
    with_options,
)
from tale_lab.cli._shared import check_writable, err, out, print_json
from tale_lab.curves.elasticity import ElasticityCurve, ElasticitySettings, elasticity_jobs
from tale_lab.curves.plots import findings, table, write_html

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_lab.curves.elasticity import Measurement


@with_options
def elasticity(
    options: MeasuringOptions,
    *,
    budgets: Annotated[
        str, typer.Option(help="Output tokens to ask for, separated by commas.")
    ] = "10,25,50,100,200,400",
    strategy: StrategyOption = "tale",
    samples: SamplesOption = 1,
    html: Annotated[Path | None, typer.Option(help="Write an interactive page here.")] = None,
) -> None:
    """Measure a model's elasticity: budgets against real tokens and correct answers.

    Asks every question without a budget and under each budget, and finds the rebound point, the ideal range and
    the collapse floor. Stopped at any moment, the same command goes on where it was.
    """
    check_writable(html)
    dataset = options.open_data()
    with Measuring(options) as measuring:
        settings = ElasticitySettings(
            budgets=tuple(numbers(budgets, int)),
            strategy=strategy,
            samples=samples,
            temperature=measuring.temperature,
            max_tokens=options.max_tokens,
        )
        model = measuring.client.model
        jobs = elasticity_jobs(dataset, settings, model=model, grader=measuring.grader)
        measuring.record("elasticity", dataset, settings=settings.model_dump(mode="json"))
        worked = measuring.work(jobs, cap=options.max_tokens, note=_so_far)
    if not worked.results:
        worked.leave()
    curve = ElasticityCurve.of(worked.results)
    if html is not None:
        write_html(html, curve, worked.results, model=model, data=dataset.source)
    if options.as_json:
        facts = {"data": dataset.source, "model": model, "settings": settings.model_dump(mode="json")}
        found, results = curve.model_dump(mode="json"), str(options.results)
        print_json({**facts, "curve": found, **measuring.facts(worked), "results": results})
    else:
        _print(curve, f"{model} on {curve.questions} questions of {dataset.source}, strategy {strategy}")
        written = ", ".join(str(path) for path in (options.results, html) if path is not None)
        err.print(f"written: {written}", soft_wrap=True)
    worked.leave()


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
