"""A few of the bad days of `make chaos`: nothing is lost, and no verdict is another one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # as a script finds what stands beside it

from faults import MODES
from run import QUICK_COMMANDS, QUICK_MODES, judge

IMPOSSIBLE = ("usage-huge",)
"""Usage that cannot be, which no measurement may rest on."""


def test_there_are_37_faults() -> None:
    assert len(set(MODES)) == len(MODES) == 37
    assert {*QUICK_MODES, *IMPOSSIBLE} <= set(MODES)


@pytest.mark.usefixtures("loopback")
@pytest.mark.parametrize("command", QUICK_COMMANDS)
def test_a_bad_day_changes_no_verdict(command: str) -> None:
    cells = judge(QUICK_MODES, [command], kills=0, questions=2, share=0.6)
    assert {cell: wrong for cell, wrong in cells.items() if wrong} == {}


@pytest.mark.usefixtures("loopback")
def test_two_kills_lose_nothing_and_repeat_only_what_was_in_flight() -> None:
    cells = judge((), ["kill-elasticity"], kills=2, questions=2)
    assert list(cells.values()) == [""]


@pytest.mark.usefixtures("loopback")
@pytest.mark.parametrize("mode", IMPOSSIBLE)
def test_what_no_measurement_may_rest_on(mode: str) -> None:
    cells = judge([mode], ["langchain", "llamaindex"], kills=0, questions=2, share=0.6)
    assert {cell: wrong for cell, wrong in cells.items() if wrong} == {}
