"""``tale export``: training data from the searches of a results file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tale_lab.cli._shared import JsonOption, err, out, print_json
from tale_lab.questions.datasets import load_dataset
from tale_lab.results.store import Store
from tale_lab.training import ExportSettings, export_run
from tale_lab.training.examples import Format, Labels, Pairing  # noqa: TC001  # typer reads them

if TYPE_CHECKING:
    from tale_lab.training import Facts


def export(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", show_default=False, help="Results file of tale search.")
    ],
    *,
    written: Annotated[Path, typer.Option("--out", "-o", help="Folder for the data.")] = Path("training-data"),
    file_format: Annotated[
        Format, typer.Option("--format", help="sft, dpo and reward are for tale internalise and TRL.")
    ] = "sft",
    pairing: Annotated[
        Pairing,
        typer.Option(help="Prefer the concise answer to the vanilla one, to a wrong short one, or to both."),
    ] = "vanilla",
    labels: Annotated[
        Labels,
        typer.Option(help="Right is what was graded so, or what most answers to a question agree on."),
    ] = "graded",
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="The searched questions, if the results file does not hold them."),
    ] = None,
    prompt_strategy: Annotated[
        str, typer.Option(help="How the trained model will be asked; a strategy without a budget.")
    ] = "internalised",
    test_share: Annotated[float, typer.Option(help="Share of the questions held out.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Decides which questions are held out.")] = 1024,
    min_tokens: Annotated[int, typer.Option(min=1, help="Skip answers with fewer output tokens.")] = 1,
    with_vanilla: Annotated[
        bool,
        typer.Option("--with-vanilla", help="Use vanilla answers where no budget kept it right."),
    ] = False,
    grader: Annotated[
        str, typer.Option(help="For reward: auto, numeric, choice, exact, structured, math or gym.")
    ] = "auto",
    searched: Annotated[
        str | None, typer.Option(metavar="NAME", help="Use only the answers of this model.")
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="Use only the searches in this prompt strategy.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write training data that teaches a model to be concise by itself.

    Each prompt is a question without a budget, each answer the one found under the optimal budget. The same
    question is held out in every export with the same seed. README.md in the folder says what it holds.
    """
    settings = ExportSettings(
        format=file_format,
        pairing=pairing,
        labels=labels,
        prompt_strategy=prompt_strategy,
        test_share=test_share,
        seed=seed,
        min_tokens=min_tokens,
        with_vanilla=with_vanilla,
        grader=grader,
        model=searched,
        strategy=strategy,
    )
    with Store(results, must_exist=True) as store:
        facts = export_run(store, written, settings, data=None if data is None else load_dataset(data))
    if as_json:
        print_json({**facts.model_dump(mode="json"), "saved": facts.saved, "written": str(written)})
    else:
        _print(facts)
        err.print(f"written: {written} (README.md says what it holds)", soft_wrap=True)


def _print(facts: Facts) -> None:
    table = Table(title=f"{facts.examples} of {facts.measured} questions", title_justify="left")
    table.add_column("output tokens of the answers")
    for name in ("mean", "10% below", "median", "10% above"):
        table.add_column(name, justify="right")
    for name, one in (("without a budget", facts.vanilla), ("to learn", facts.concise)):
        table.add_row(name, *(f"{value:.0f}" for value in (one.mean, one.low, one.median, one.high)))
    out.print(table)
    held_out = f", {facts.test} held out" if facts.test else ", none held out"
    out.print(f"{facts.train} lines to train on{held_out}; {facts.saved:.0%} of the tokens saved, in hindsight")
    if facts.settings["labels"] == "majority":
        out.print("right is what most answers agree on: no reference answer was used")
