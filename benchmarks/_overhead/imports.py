"""What importing our packages adds to importing what they stand on."""

from __future__ import annotations

import subprocess
import sys

from _overhead.figures import Spread, Table

_BASES = {
    "tale_core": "pydantic",
    "tale_langchain": "langchain_core.language_models.chat_models",
    "tale_langchain with TALEMiddleware": "langchain.agents",
    "tale_llamaindex": "llama_index.core",
}
_STATEMENTS = {"tale_langchain with TALEMiddleware": "from tale_langchain import TALEMiddleware"}
_SCRIPT = """
import time
started = time.perf_counter()
import {base}
between = time.perf_counter()
{statement}
print(between - started, time.perf_counter() - between)
"""


def measure(*, runs: int, packages: int) -> Table:
    """Import every package in fresh interpreters.

    Args:
        runs: How many, for each package.
        packages: How many packages, for trials with fewer.
    """
    says = f"Milliseconds in a fresh interpreter, {runs} each; the middle half in brackets."
    table = Table("Importing", says, {"import": "", "after": "", "base": ".0f", "added": ".0f", "share": ".2f"})
    for name, base in list(_BASES.items())[:packages]:
        times = [_timed(base, _STATEMENTS.get(name, f"import {name}")) for _ in range(runs)]
        table.rows.append(
            {
                "import": name,
                "after": base,
                "base": Spread.of([before for before, _ in times]),
                "added": Spread.of([added for _, added in times]),
                "share": Spread.of([added / before for before, added in times]),
            }
        )
    return table


def _timed(base: str, statement: str) -> tuple[float, float]:
    """Return the milliseconds of the base and of what comes after it."""
    script = _SCRIPT.format(base=base, statement=statement)
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)  # noqa: S603
    before, added = map(float, ran.stdout.split())
    return before * 1e3, added * 1e3
