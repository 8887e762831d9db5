"""Training without the chatter of four libraries: progress is shown by us.

Needs the extra ``train``.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import datasets
import transformers

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' own bars and notes off the terminal while something is done."""
    before = transformers.logging.get_verbosity(), logging.getLogger("trl").level
    bars = datasets.are_progress_bars_disabled(), transformers.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    logging.getLogger("trl").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(before[0])
        logging.getLogger("trl").setLevel(before[1])
        if not bars[0]:
            datasets.enable_progress_bars()
        if bars[1]:
            transformers.utils.logging.enable_progress_bar()
