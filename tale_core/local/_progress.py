"""Progress on the terminal for what takes seconds; nothing where nobody watches."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tale_core.shown import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr while the block runs, and remove it afterwards.

    Args:
        label: What is being done.
        total: Bytes to come; None shows activity without a measure.

    Yields:
        A function that takes the bytes done since its last call.
    """
    try:
        from rich.console import Console  # noqa: PLC0415  # an extra, and only needed here
    except ImportError:
        console = None
    else:
        console = Console(stderr=True)
    if console is None or not console.is_terminal or sys.stderr.closed:
        yield lambda _: None
        return
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    measured = (BarColumn(), DownloadColumn()) if total is not None else ()
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), *measured, TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(printable(label), total=total)
        yield lambda done: bar.advance(task, done)
