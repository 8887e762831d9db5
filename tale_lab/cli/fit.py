"""``tale fit``: a budget estimator from the searches of a results file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tale_core.errors import InvalidValueError
from tale_core.estimators import RegressionEstimator, ZeroShotEstimator
from tale_core.estimators.training import PAPER_IN_RANGE
from tale_core.types import Estimate
from tale_lab.cli._measuring import Measuring, RunOptions, with_options
from tale_lab.cli._shared import FAILED, check_writable, err, out, print_json
from tale_lab.questions.datasets import Question
from tale_lab.results.store import Store, result_key
from tale_lab.runs.runner import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tale_core.estimators import FitFacts
    from tale_core.search.budget_search import SearchTrace
    from tale_lab.runs.runner import Done


@with_options
def fit(
    options: RunOptions,
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", show_default=False, help="Results file of tale search.")
    ],
    *,
    written: Annotated[Path, typer.Option("--out", "-o", help="The estimator's file.")] = Path("budget.skops"),
    quantile: Annotated[
        float, typer.Option(help="Share of the questions whose budget is to be covered, between 0 and 1.")
    ] = 0.6,
    searched: Annotated[
        str | None, typer.Option(metavar="NAME", help="Take only the searches of the model of this name.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="Take only the searches in this prompt strategy.")
    ] = None,
    zero_shot: Annotated[
        bool,
        typer.Option("--zero-shot", help="Ask the model for its own estimates too, and score them beside."),
    ] = False,
) -> None:
    """Fit an estimator that predicts budgets without a model call, and say how good it is.

    Learns from the budgets that tale search found. The scores are cross-validated: every question is predicted
    by an estimator that has not seen it. Needs no model, unless asked for the zero-shot estimates.
    """
    check_writable(written)
    estimator = RegressionEstimator(quantile=quantile)
    with Store(results, must_exist=True) as store:
        traces = [one for one in store.traces() if _wanted(one, searched, strategy)]
        if not traces:
            raise InvalidValueError(_nothing(results, searched, strategy))
        guesses, failed = _zero_shot(traces, Measuring(options, store=store)) if zero_shot else (None, [])
    with err.status("fitting"):
        estimator.fit(traces, zero_shot=guesses)
    estimator.save(written)
    if options.as_json:
        facts = estimator.facts.model_dump(mode="json", exclude={"digests"})
        print_json({**facts, "results": str(results), "written": str(written)})
    else:
        _print(estimator.facts)
        err.print(f"written: {written}", soft_wrap=True)
    if failed:
        raise typer.Exit(FAILED)


def _wanted(trace: SearchTrace, model: str | None, strategy: str | None) -> bool:
    asked = {probe.model for probe in trace.probes}
    return (model is None or model in asked) and strategy in {None, trace.settings.strategy}


def _nothing(results: Path, model: str | None, strategy: str | None) -> str:
    which = "".join(
        f" {word} {name!r}"
        for word, name in (("of model", model), ("in strategy", strategy))
        if name is not None
    )
    return f"{results} holds no finished search{which}; make some with: tale search DATA --out {results}"


def _zero_shot(
    traces: Sequence[SearchTrace], measuring: Measuring
) -> tuple[dict[str, int | None], list[Done[Estimate]]]:
    """Ask for the estimate of every question that has a budget; what was asked before is in the file.

    Returns:
        The estimates by question, and what failed.
    """
    jobs = {
        trace.question: _estimate_job(trace.question, trace.chosen, measuring.client.model)
        for trace in traces
        if trace.chosen is not None
    }
    cap = ZeroShotEstimator().max_tokens
    worked = measuring.work(list(jobs.values()), cap=cap, note=lambda some: f"{len(some)} estimates")
    if worked.ended:
        worked.leave()
    found = {question: measuring.store.get(job.key, Estimate) for question, job in jobs.items()}
    return {question: one.tokens for question, one in found.items() if one is not None}, worked.failed


def _estimate_job(question: str, budget: int, model: str) -> Job[Estimate]:
    asked = Question.of(question, str(budget))  # what an estimate is measured against is the budget found
    return Job(
        question=asked,
        key=result_key(kind="zero-shot", question=asked.id, model=model),
        kind="zero-shot",
        record=Estimate,
        flow=partial(ZeroShotEstimator().estimate, question),
    )


def _print(facts: FitFacts) -> None:
    about = ", ".join(part for part in (facts.model, facts.strategy and f"strategy {facts.strategy}") if part)
    header, *rows = facts.report.rows()
    table = Table(title=f"{facts.examples} questions{f' of {about}' if about else ''}", title_justify="left")
    for column in header:
        table.add_column(column, justify="left" if column == header[0] else "right")
    for row in rows:
        table.add_row(*row)
    out.print(table)
    for line in _findings(facts):
        out.print(line)


def _findings(facts: FitFacts) -> list[str]:
    """Say in words what the table does not."""
    report = facts.report
    lines = [
        f"cross-validated in {report.folds} parts, quantile {report.quantile:g}; brackets hold 95% intervals"
    ]
    if facts.skipped:
        lines.append(f"{facts.skipped} more searches found no budget that is right and cheaper: left out")
    if not any(score.name == "zero-shot" for score in report.scores):
        lines.append(f"zero-shot estimates, as published: {PAPER_IN_RANGE:.0%} in the ideal range")
    if not report.gains:
        lines.append(
            "the text of these questions does not tell their budget: one budget for all does as well; search "
            "more questions, or use that budget"
        )
    return lines
