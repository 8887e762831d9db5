"""The application: every command in one list."""

from __future__ import annotations

from typing import Annotated

import typer

import tale_core
from tale_lab.cli._shared import guarded, out
from tale_lab.cli.ask import ask
from tale_lab.cli.bench import bench
from tale_lab.cli.demo import demo
from tale_lab.cli.doctor import doctor
from tale_lab.cli.elasticity import elasticity
from tale_lab.cli.export import export
from tale_lab.cli.fit import fit
from tale_lab.cli.internalise import internalise
from tale_lab.cli.report import report
from tale_lab.cli.search import search
from tale_lab.cli.tune import tune

_FORMER = {
    "profile": "calibration",
    "style": "strategy",
    "styles": "strategies",
    "second-try": "retry",
    "no-second-try": "no-retry",
}

app = typer.Typer(
    name="tale",
    help="Token-budget-aware reasoning: shorter answers that stay right.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        # Former names of options, which the help does not show.
        "token_normalize_func": lambda name: _FORMER.get(name, name),
    },
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
