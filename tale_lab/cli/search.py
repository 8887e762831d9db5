"""``tale search``: the optimal budget of every question of a dataset."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tale_core.search.budget_search import SearchSettings
from tale_lab.cli._measuring import (
    Measuring,
    MeasuringOptions,
    SamplesOption,
    StrategyOption,
    with_options,
)
from tale_lab.cli._shared import err, out, print_json
from tale_lab.runs.searching import SearchSummary, search_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_core.search.budget_search import SearchTrace


class Method(str, Enum):
    """The two algorithms of the search."""

    HALVING = "halving"
    BISECT = "bisect"


@with_options
def search(
    options: MeasuringOptions,
    *,
    strategy: StrategyOption = "tale",
    method: Annotated[
        Method, typer.Option(help="halving is the published algorithm; bisect narrows from both ends.")
    ] = Method.BISECT,
    samples: SamplesOption = 1,
    max_calls: Annotated[int, typer.Option(min=2, help="Most answers per question.")] = 40,
    precision: Annotated[
        float, typer.Option(help="Smallest step of bisect, as a share of the budget, between 0 and 1.")
    ] = 0.1,
) -> None:
    """Find the smallest budget of each question that keeps its answer and costs fewer tokens.

    Needs questions whose answers are known. Results arrive in a SQLite file as they come; stopped at any
    moment, the same command goes on where it was.
    """
    dataset = options.open_data()
    with Measuring(options) as measuring:
        settings = SearchSettings(
            method=method.value,
            strategy=strategy,
            samples=samples,
            max_calls=max_calls,
            precision=precision,
            temperature=measuring.temperature,
            max_tokens=options.max_tokens,
        )
        model = measuring.client.model
        jobs = search_jobs(dataset, settings, model=model, grader=measuring.grader)
        measuring.record("search", dataset, settings=settings.model_dump(mode="json"))
        worked = measuring.work(jobs, cap=options.max_tokens, note=_so_far)
    if not worked.results:
        worked.leave()
    summary = SearchSummary.of(worked.results)
    if options.as_json:
        facts = {"data": dataset.source, "model": model, "settings": settings.model_dump(mode="json")}
        found = summary.model_dump(mode="json") | {"saved": summary.saved}
        results = str(options.results)
        print_json({**facts, "summary": found, **measuring.facts(worked), "results": results})
    else:
        out.print(_table(summary, f"{model} on {dataset.source}"))
        err.print(f"every answer is in {options.results}")
    worked.leave()


def _so_far(traces: Sequence[SearchTrace]) -> str:
    summary = SearchSummary.of(traces)
    return f"{summary.found} budgets found, {summary.saved:.0%} saved"


def _table(summary: SearchSummary, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column("without a budget", justify="right")
    table.add_column("chosen budget", justify="right")
    count = max(1, summary.questions)
    correct = (summary.vanilla_correct, summary.best_correct)
    tokens = (summary.vanilla_tokens, summary.best_tokens)
    median = summary.chosen_median
    table.add_row("correct", *(f"{one} of {summary.questions}" for one in correct))
    table.add_row("output tokens a question", *(f"{one / count:.0f}" for one in tokens))
    table.add_row("saved, chosen in hindsight", "", f"{summary.saved:.0%}")
    table.add_row("questions with a budget", "", f"{summary.found} of {summary.questions}")
    table.add_row("median budget", "", "none" if median is None else f"{median:.0f}")
    table.add_row("answers asked for, a question", "", f"{summary.calls / count:.1f}")
    return table
