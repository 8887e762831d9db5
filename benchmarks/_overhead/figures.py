"""Figures with their spread, and the tables that show them."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of repeated measurements, and the middle half of them."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the quartiles of some measurements; of a single one, that one."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


@dataclass(slots=True)
class Table:
    """Rows of figures under one heading."""

    title: str
    says: str
    """What the figures mean, in a sentence or two."""
    columns: dict[str, str]
    """The columns, each with the format of its figures."""
    rows: list[dict[str, Any]] = field(default_factory=list)

    def markdown(self) -> str:
        """Return the table with its heading; its columns are aligned, so that it reads well on a terminal."""
        lines = [[*self.columns], *([self._cell(row, name) for name in self.columns] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        words = [not spec for spec in self.columns.values()]
        rule = [
            "-" * width if word else f"{'-' * (width - 1)}:" for width, word in zip(widths, words, strict=True)
        ]
        head, *body = (_padded(line, widths, words) for line in lines)
        return "\n".join([f"### {self.title}", "", self.says, "", head, _line(rule), *body])

    def plain(self) -> dict[str, Any]:
        """Return the table as JSON-ready data."""
        return {"title": self.title, "says": self.says, "rows": [*map(_plain, self.rows)]}

    def _cell(self, row: dict[str, Any], name: str) -> str:
        value = row[name]
        return "-" if value is None else format(value, self.columns[name])


def machine() -> str:
    """Return the machine in words."""
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


def _padded(cells: list[str], widths: list[int], words: list[bool]) -> str:
    return _line(
        [
            cell.ljust(width) if word else cell.rjust(width)
            for cell, width, word in zip(cells, widths, words, strict=True)
        ]
    )


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: asdict(value) if isinstance(value, Spread) else value for name, value in row.items()}
