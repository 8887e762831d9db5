"""``tale bench``: many methods on the same questions of one model, with the proof of what each saves."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  # typer reads it
from typing import TYPE_CHECKING, Annotated

import typer

from tale_core.errors import InvalidValueError
from tale_core.method.calibration import find_calibration
from tale_lab.bench.benchmark import Sampling
from tale_lab.bench.methods import Conditions, get_method, method_names
from tale_lab.bench.report import view_of
from tale_lab.cli._measuring import (
    Measuring,
    MeasuringOptions,
    fitted_elsewhere,
    right_so_far,
    with_options,
)
from tale_lab.cli._reporting import (
    AsOption,
    HtmlOption,
    MarginOption,
    MarkdownOption,
    Wanted,
    show_report,
)
from tale_lab.cli._shared import CalibrationOption, err

if TYPE_CHECKING:
    from tale_lab.bench.methods import Method


@with_options
def bench(
    options: MeasuringOptions,
    *,
    methods: Annotated[
        str | None,
        typer.Option(
            help=f"Methods, separated by commas: {', '.join(method_names())}; a strategy and a budget as "
            "tale:STRATEGY@BUDGET; a class of your own as module:Class. By default all that this model, and "
            "what is named here, allow."
        ),
    ] = None,
    calibration: CalibrationOption = None,
    estimator: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Estimator made by tale fit, for the methods that use one."),
    ] = None,
    margin: MarginOption = 3.0,
    layout: AsOption = None,
    html: HtmlOption = None,
    markdown: MarkdownOption = None,
) -> None:
    """Compare methods on the same questions: accuracy, tokens net of everything, cost and time.

    Every answer is kept in the results file as it comes. Stopped at any moment, the same command goes on where
    it was; with other methods it adds to what is there. The exit status is 0 when everything is answered, 1
    when some questions failed, 3 when a spending limit ended the run, and 130 after Ctrl-C; the report of what
    is there comes in every case.
    """
    wanted = Wanted(margin=margin, layout=layout, html=html, markdown=markdown, as_json=options.as_json)
    wanted.check()
    dataset = options.open_data()
    with Measuring(options, priced=True) as measuring:
        client = measuring.client
        conditions = Conditions(
            calibration=find_calibration(calibration, model_name=client.model),
            estimator=None if estimator is None else fitted_elsewhere(estimator, dataset),
            control=client.control,
            efforts=client.efforts,
        )
        compared = choose_methods(methods, conditions)
        sampling = Sampling(temperature=measuring.temperature, max_tokens=options.max_tokens)
        jobs, plan = measuring.benchmark(dataset, compared, sampling)
        worked = measuring.work(jobs, cap=options.max_tokens, note=right_so_far, things="answers")
        view = view_of(measuring.store, plan)
    if view.attempts:
        facts = {"run": {**measuring.facts(worked), "results": str(options.results)}}
        show_report([view], wanted, facts=facts)
        err.print(f"every answer is in {options.results}; tale report shows them again", soft_wrap=True)
    worked.leave()


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
        words = f"skipped, requirements not met: {left_out} (name one with --methods to see which)"
        err.print(words, style="dim", soft_wrap=True)
    return [method for method in found.values() if method is not None]


def _allowed(name: str, conditions: Conditions) -> Method | None:
    try:
        return get_method(name).under(conditions)
    except InvalidValueError:
        return None
