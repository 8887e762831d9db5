"""``tale export``: training data from the searches of a results file."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from tale_lab.cli._shared import JsonOption, err, out, print_json
from tale_lab.questions.datasets import load_dataset
from tale_lab.results.store import Store
from tale_lab.training import ExportSettings, export_run

if TYPE_CHECKING:
    from tale_lab.training import Facts


class Format(str, Enum):
    """What is written."""

    SFT = "sft"
    DPO = "dpo"
    OPENAI_SFT = "openai-sft"
    OPENAI_DPO = "openai-dpo"
    REWARD = "reward"


class Pairing(str, Enum):
    """What an answer is preferred to."""

    VANILLA = "vanilla"
    WRONG = "wrong"
    BOTH = "both"


class Labels(str, Enum):
    """Who says what is right."""

    GRADED = "graded"
    MAJORITY = "majority"


def export(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", show_default=False, help="Results file of tale search.")
    ],
    *,
    written: Annotated[Path, typer.Option("--out", "-o", help="Folder for the data.")] = Path("training-data"),
    file_format: Annotated[
        Format,
        typer.Option("--format", help="sft, dpo and reward are for tale internalise and TRL."),
    ] = Format.SFT,
    pairing: Annotated[
        Pairing,
        typer.Option(help="Prefer the concise answer to the vanilla one, to a wrong short one, or to both."),
    ] = Pairing.VANILLA,
    labels: Annotated[
        Labels, typer.Option(help="Right is what was graded so, or what most answers to a question agree on.")
    ] = Labels.GRADED,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="The questions, for results files that do not keep them."),
    ] = None,
    prompt_strategy: Annotated[
        str, typer.Option(help="How the trained model will be asked; a strategy without a budget.")
    ] = "internalised",
    test_share: Annotated[float, typer.Option(help="Share of the questions held out.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Decides which questions are held out.")] = 1024,
    min_tokens: Annotated[int, typer.Option(min=1, help="Leave out answers shorter than this.")] = 1,
    with_vanilla: Annotated[
        bool, typer.Option("--with-vanilla", help="Keep the vanilla answer where no budget kept it right.")
    ] = False,
    grader: Annotated[
        str, typer.Option(help="For reward: auto, numeric, choice, exact, structured, math or gym.")
    ] = "auto",
    searched: Annotated[
        str | None, typer.Option(metavar="NAME", help="Take only the answers of the model of this name.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="Take only the searches in this prompt strategy.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write training data that teaches a model to be concise by itself.

    Each prompt is a question without any budget, each answer the one found under the optimal budget. Questions
    are split once and for all: a held-out one is never trained on. The folder gets a card and a plot.
    """
    settings = ExportSettings(
        format=file_format.value,
        pairing=pairing.value,
        labels=labels.value,
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
