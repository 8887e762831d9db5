"""``tale search``: the optimal budget of every question of a dataset."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tale_core.models.client import ChatClient
from tale_core.search.budget_search import SearchSettings
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
from tale_lab.results.store import Store
from tale_lab.runs.searching import SearchCost, SearchSummary, search_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_core.search.budget_search import SearchTrace


class Method(str, Enum):
    """The two strategies of the search."""

    HALVING = "halving"
    BISECT = "bisect"


def search(
    data: DataArgument,
    *,
    model: ModelOption = "local",
    model_path: ModelPathOption = None,
    strategy: StrategyOption = "tale",
    method: Annotated[
        Method, typer.Option(help="halving is the published algorithm; bisect narrows from both ends.")
    ] = Method.BISECT,
    samples: SamplesOption = 1,
    max_calls: Annotated[int, typer.Option(min=2, help="Most answers a question.")] = 40,
    precision: Annotated[
        float, typer.Option(help="Smallest step of bisect, as a share of the budget, between 0 and 1.")
    ] = 0.1,
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
    skip_malformed: SkipOption = False,
    answer_format: FormatOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find the smallest budget of each question that keeps its answer and costs fewer tokens.

    Needs questions whose answers are known. Results arrive in a SQLite file as they come; stopped at any
    moment, the same command goes on where it was.
    """
    where = Where(engine=engine, workers=workers, address=ray_address)
    dataset = open_data(data, limit=limit, skip=skip_malformed, answer_format=answer_format)
    client = ChatClient.open(model, model_path=model_path)
    judging = open_judge(grader, judge, client)
    grading = choose_grader(grader, judging)
    settings = SearchSettings(
        method=method.value,
        strategy=strategy,
        samples=samples,
        max_calls=max_calls,
        precision=precision,
        temperature=client.temperature if temperature is None else temperature,
        max_tokens=max_tokens,
    )
    jobs = search_jobs(dataset, settings, model=client.model, grader=grading)
    with Store(results) as store:
        bench = Bench(client=client, judge=judging, store=store, concurrency=concurrency, where=where)
        bench.record("search", dataset, settings, grading)
        each = SearchCost.bound(1, settings).calls
        worked = bench.work(jobs, calls=each, tokens=max_tokens, note=_so_far)
    summary = SearchSummary.of(worked.results)
    if as_json:
        facts = {"data": dataset.source, "model": client.model, "settings": settings.model_dump(mode="json")}
        found = summary.model_dump(mode="json") | {"saved": summary.saved}
        print_json({**facts, "summary": found, **worked.facts(), "results": str(results)})
    else:
        out.print(_table(summary, f"{client.model} on {dataset.source}"))
        err.print(f"every answer is in {results}")
    if worked.failed:
        raise typer.Exit(FAILED)


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
