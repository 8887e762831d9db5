"""What TALE costs beside the bare frameworks, and beside the same written by hand.

    python benchmarks/overhead.py                       # everything, about five minutes
    python benchmarks/overhead.py --only langchain imports
    python benchmarks/overhead.py --markdown > overhead.md
    python benchmarks/overhead.py --quick               # shows that it runs; its figures mean nothing

Models are fake and answer at once, so that nothing is measured but the code around them: in real use the same
microseconds stand beside seconds. Run it on an otherwise idle machine; ratios, taken within pairs of
measurements that alternate, bear some company, absolute figures do not. With ``--cpu`` wrappers are compared by
the processor time of this process, which bears more: waiting for another program is not in it.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from _overhead.figures import machine

if TYPE_CHECKING:
    from _overhead.figures import Table


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much each section measures."""

    full: dict[str, Any]
    quick: dict[str, Any]


SECTIONS = {
    "langchain": Effort(full={"questions": 25, "seconds": 1.0}, quick={"questions": 1, "seconds": 0.0}),
    "llamaindex": Effort(full={"questions": 25, "seconds": 1.0}, quick={"questions": 1, "seconds": 0.0}),
    "imports": Effort(full={"runs": 5, "packages": 4}, quick={"runs": 1, "packages": 1}),
    "memory": Effort(full={"thousand": 500, "kinds": 9}, quick={"thousand": 5, "kinds": 1}),
    "stalls": Effort(full={"questions": 100, "runs": 3}, quick={"questions": 5, "runs": 1}),
    "saturation": Effort(
        full={"delay": 0.2, "seconds": 3.0, "runs": 3}, quick={"delay": 0.01, "seconds": 0.05, "runs": 1}
    ),
}
"""Each is a module of ``_overhead`` with a function ``measure``; imported when its turn comes."""

COMPARED = ("langchain", "llamaindex")
"""The sections that compare wrappers."""


def measure(name: str, *, quick: bool, cpu: bool) -> Table:
    """Measure one section, and say so."""
    section, effort = importlib.import_module(f"_overhead.{name}"), SECTIONS[name]
    amount = {**(effort.quick if quick else effort.full)}
    if name in COMPARED and cpu:
        amount["clock"] = time.process_time
    gc.collect()
    gc.freeze()  # what was imported stays; collections shall not look through it again and again
    print(f"{name} ...", file=sys.stderr, end="", flush=True)
    began = time.monotonic()
    table: Table = section.measure(**amount)
    print(f" {time.monotonic() - began:.0f} seconds", file=sys.stderr)
    return table


def main() -> None:
    """Measure and print."""
    words = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=words)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=[*SECTIONS], help="the sections to run")
    parser.add_argument("--quick", action="store_true", help="as little of everything as possible")
    parser.add_argument(
        "--cpu", action="store_true", help="compare wrappers by processor time, not by the clock"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print the tables as they stand in results.md")
    form.add_argument("--json", action="store_true", help="print every figure, for programs")
    chosen = parser.parse_args()
    tables = {name: measure(name, quick=chosen.quick, cpu=chosen.cpu) for name in chosen.only}
    if chosen.json:
        print(
            json.dumps({"machine": machine(), **{name: one.plain() for name, one in tables.items()}}, indent=2)
        )
        return
    print(f"{'Measured on: ' if chosen.markdown else ''}{machine()}.\n")
    print("\n\n".join(table.markdown() for table in tables.values()))


if __name__ == "__main__":
    main()
