"""``tale report``: what results files hold, as tables, Markdown or a page; two of them compared."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path  # noqa: TC003  # typer reads it
from typing import TYPE_CHECKING, Annotated

import typer

from tale_core.errors import InvalidValueError
from tale_lab.bench.report import read_views
from tale_lab.cli._reporting import AsOption, HtmlOption, MarginOption, MarkdownOption, Wanted, show_report
from tale_lab.cli._shared import JsonOption, err
from tale_lab.results.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence


def report(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULTS...", show_default=False, help="Results files of tale bench."),
    ],
    *,
    merge: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="First merge all of them into this file, created if needed."),
    ] = None,
    margin: MarginOption = 3.0,
    layout: AsOption = None,
    html: HtmlOption = None,
    markdown: MarkdownOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the benchmarks in results files and compare them.

    Each benchmark is shown by itself. The first is compared with each of the others, method by method, on the
    questions that both asked. Files are only read, so a benchmark that is still running can be shown.
    """
    wanted = Wanted(margin=margin, layout=layout, html=html, markdown=markdown, as_json=as_json)
    wanted.check()
    with ExitStack() as opened:
        stores = [opened.enter_context(Store(path, read_only=True)) for path in results]
        if merge is not None:
            _check_apart(merge, results)
            stores = [opened.enter_context(_merged(stores, merge))]
        views = [view for store in stores for view in read_views(store)]
    show_report(views, wanted)


def _check_apart(target: Path, sources: Sequence[Path]) -> None:
    if target.resolve() in {source.resolve() for source in sources}:
        raise InvalidValueError(
            f"--merge {str(target)!r} is one of the files to merge, and those are only read; name another file"
        )


def _merged(stores: Sequence[Store], target: Path) -> Store:
    merged = Store(target)
    for store in stores:
        new = merged.merge(store)
        err.print(f"{store.path}: {new.results:,} results and {new.calls:,} calls were new", soft_wrap=True)
    return merged
