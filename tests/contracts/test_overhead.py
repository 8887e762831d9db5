"""The overhead benchmark runs, on as little as it can; what it measures is for benchmarks/results.md."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "overhead.py"


def run(*arguments: str) -> str:
    command = [sys.executable, str(BENCHMARK), "--quick", *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout  # noqa: S603


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return json.loads(run("--json"))


def rows(measured: dict[str, Any], section: str) -> list[dict[str, Any]]:
    return measured[section]["rows"]


@pytest.mark.parametrize(
    ("section", "wrappers"),
    [
        ("langchain", {"TALERunnable", "ChatTALE", "TALEMiddleware", "TALEDocumentCompressor"}),
        (
            "llamaindex",
            {
                "TALELLM",
                "TALEQueryTransform",
                "TALEQueryEngine",
                "TALESynthesizer",
                "TALEHierarchicalSynthesizer",
                "TALENodePostprocessor",
            },
        ),
    ],
)
def test_every_public_wrapper_is_compared_with_what_one_would_write_by_hand(measured, section, wrappers):
    compared = [row for row in rows(measured, section) if row["TALE / by hand"] is not None]
    assert {row["wrapper"] for row in compared} == wrappers
    assert all(row["TALE"] > 0 and row["by hand"] > 0 for row in compared)


def test_wrappers_that_ask_are_compared_in_every_way_with_and_without_a_handler(measured):
    ways = {(row["way"], row["handler"]) for row in rows(measured, "langchain") if row["wrapper"] == "ChatTALE"}
    assert len(ways) == 12


def test_everything_else_is_measured_too(measured):
    assert all(rows(measured, name) for name in ("imports", "memory", "stalls", "saturation"))


def test_the_machine_is_named_in_words_without_its_name_or_paths(measured):
    assert "cores" in measured["machine"]
    assert "/" not in measured["machine"]


def test_one_section_can_be_printed_alone_as_markdown():
    printed = run("--only", "imports", "--markdown")
    assert "### Importing" in printed
    assert "### LangChain" not in printed
