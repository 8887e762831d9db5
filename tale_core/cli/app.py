"""The application: every command in one list."""

from __future__ import annotations

from typing import Annotated

import typer

import tale_core
from tale_core.cli._shared import guarded, out
from tale_core.cli.ask import ask
from tale_core.cli.bench import bench
from tale_core.cli.demo import demo
from tale_core.cli.doctor import doctor
from tale_core.cli.elasticity import elasticity
from tale_core.cli.export import export
from tale_core.cli.fit import fit
from tale_core.cli.internalise import internalise
from tale_core.cli.report import report
from tale_core.cli.search import search
from tale_core.cli.tune import tune

app = typer.Typer(
    name="tale",
    help="Token-budget-aware reasoning: shorter answers that stay right.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (ask, doctor, demo, search, elasticity, fit, tune, bench, report, export, internalise):
    app.command()(guarded(command))


def _show_version(*, wanted: bool) -> None:
    if wanted:
        out.print(f"tale-reasoning {tale_core.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version  # its callback did everything
