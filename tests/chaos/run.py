"""Measure on a server with bad days and under kills, and compare with a run in which nothing went wrong.

    python tests/chaos/run.py                            # every fault with every command; then kills
    python tests/chaos/run.py --quick
    python tests/chaos/run.py --only http-500 finish-error --commands bench langchain
    python tests/chaos/run.py --commands kill-tune kill-ray --kills 40
    python tests/chaos/run.py --write                    # also into benchmarks/chaos.md

A cell holds when the verdicts, once the server is well and the command was repeated, are those of the run
without faults; when no row that was stored is lost; and, under kills, when no more answers were paid twice than
were in flight. The exit status is 1 when a cell does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faults import MODES, NOISE, SHARE, ChaosServer, answer

from tale_core import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).parents[2]
CONCURRENCY = 4
RESUMES = 3
"""How often a command is repeated on the well server until nothing is missing."""
PATIENCE = 180.0
"""Seconds for one command; a hang is no verdict."""
MOST_TOKENS = 10**6
"""More output tokens than this no answer here has."""
UNMET = "no call met the fault"
"""Too few questions: the cell shows nothing, and does not hold."""
QUICK_MODES = ("http-500", "reset-after", "truncated-json", "redirect")
QUICK_COMMANDS = ("elasticity", "langchain")
RAY_WORKERS = 2

_RUN = [sys.executable, "-m", "tale_lab.cli"]
_RESULTS = "results.sqlite"
COMMANDS: dict[str, list[str]] = {
    "bench": ["bench", "data.jsonl", "--methods", "vanilla,tale,tale:tale@25", "--out", _RESULTS],
    "search": ["search", "data.jsonl", "--out", _RESULTS],
    "tune": [
        *("tune", "data.jsonl", "--strategies", "tale,words", "--budgets", "25,100", "--multipliers", "1"),
        *("--out", "calibration.json", "--results", _RESULTS),
    ],
    "elasticity": ["elasticity", "data.jsonl", "--budgets", "10,25,100", "--out", _RESULTS],
}
ADAPTERS = ("langchain", "llamaindex")
KILLED = {
    "kill-tune": COMMANDS["tune"],
    "kill-elasticity": COMMANDS["elasticity"],
    "kill-ray": [*COMMANDS["search"], "--engine", "ray", "--workers", str(RAY_WORKERS)],
}


class Folder:
    """A folder with questions, in which one command runs again and again.

    Args:
        command: The command line, without the model.
        server: Who answers.
        questions: How many questions there are.
    """

    def __init__(self, command: list[str], server: ChaosServer, questions: int) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="tale-chaos-"))
        self.server = server
        rows = [{"question": f"What is {one} + {one * 7 % 23}?", "answer": str(one + one * 7 % 23)} for one in
                range(11, 11 + questions)]  # fmt: skip
        (self.path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
        options = ["--retries", "1", "--concurrency", str(CONCURRENCY), "--model", server.model]
        self.command = [*_RUN, *command, *options]

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command."""
        with (self.path / "said.txt").open("wb") as said:
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
            return subprocess.Popen(  # noqa: S603  # our own
                self.command, cwd=self.path, stdout=said, stderr=said, env=environment
            )

    def run(self) -> int | None:
        """Run the command to its end; None where it had to be stopped."""
        process = self.start()
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None

    def rows(self) -> dict[str, str]:
        """Return every call and every result that is stored."""
        return {f"{kind} {key}": content for kind, key, content in self._stored()}

    def verdicts(self) -> dict[str, Any]:
        """Return what was concluded, without what differs between two runs."""
        found = {key: _verdict(json.loads(content)) for kind, key, content in self._stored() if kind != "call"}
        calibration = self.path / "calibration.json"
        if calibration.exists():
            read = json.loads(calibration.read_text())
            found["calibration"] = [read.get("strategy"), read.get("budget")]
        return found

    def _stored(self) -> list[tuple[str, str, str]]:
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(self.path / _RESULTS)) as file:
            calls = file.execute("SELECT 'call', hex(key), reply FROM calls").fetchall()
            return [*calls, *file.execute("SELECT kind, key, content FROM results").fetchall()]
        return []

    def said(self) -> str:
        """Return the last line that the command wrote."""
        lines = (self.path / "said.txt").read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _verdict(content: dict[str, Any]) -> Any:
    """Keep what a user would read off: whether answers are right, and the budget that was found."""
    if "verdict" in content:
        return content["verdict"]
    probes = [(one.get("budget"), one.get("correct")) for one in content.get("probes", ())]
    return (content.get("chosen"), sorted(map(str, probes)))


def differences(expected: dict[str, Any], found: dict[str, Any]) -> str:
    """Return in words how two sets of verdicts differ; empty when they do not."""
    missing = len(expected.keys() - found.keys())
    wrong = sum(found[key] != value for key, value in expected.items() if key in found)
    told = [f"{wrong} of {len(expected)} verdicts differ"] if wrong else []
    return "; ".join(told + ([f"{missing} missing"] if missing else []))


def lost(before: dict[str, str], after: dict[str, str]) -> str:
    """Return in words how many stored rows are gone or changed: calls never change, results may be renewed."""
    gone = sum(
        key not in after or (key.startswith("call ") and after[key] != row) for key, row in before.items()
    )
    return f"{gone} stored rows lost" if gone else ""


def command_cell(command: str, mode: str, questions: int, expected: dict[str, Any], share: float) -> str:
    """Run a command on a server with bad days, then on the well one; return what was wrong, or nothing."""
    with closing(ChaosServer(mode, share=share)) as server:
        folder = Folder(COMMANDS[command], server, questions)
        status = folder.run()
        if status is None:
            return "hung"
        before = folder.rows()
        server.healthy = True
        for _ in range(RESUMES):
            if status == 0 and not differences(expected, folder.verdicts()):
                break
            status = folder.run()
        if not server.faults:
            return UNMET
        rows = folder.rows()
        wrong = [differences(expected, folder.verdicts()), lost(before, rows), impossible(rows)]
        return "; ".join(filter(None, wrong))


def impossible(rows: dict[str, str]) -> str:
    """Return in words how many stored answers claim a usage that no model has."""
    usages = [json.loads(row).get("usage") for key, row in rows.items() if key.startswith("call ")]
    claims = sum(not 0 <= one["output_tokens"] < MOST_TOKENS for one in usages if one)
    return f"{claims} impossible usages stored" if claims else ""


def kill_cell(command: str, kills: int, questions: int, expected: dict[str, Any], calls: int) -> str:
    """Kill a command again and again after so many answers; return what was wrong, or nothing."""
    draw, done, wrong, limit, repeats = random.Random(command), 0, [], 0, 0  # noqa: S311  # no secret
    in_flight = CONCURRENCY * (RAY_WORKERS if command == "kill-ray" else 1)
    while done < kills:
        with closing(ChaosServer(seconds=0.002)) as server:
            folder, before, round_kills = Folder(KILLED[command], server, questions), {}, 0
            while done < kills:
                moment = server.answered + draw.randint(1, max(2, calls // 8))
                process = folder.start()
                if not server.wait_for(moment, lambda process=process: process.poll() is not None):
                    break
                process.kill()
                process.wait()
                done, round_kills, after = done + 1, round_kills + 1, folder.rows()
                wrong.append(lost(before, after))
                before = after
            for _ in range(RESUMES):
                if folder.run() == 0:
                    break
            wrong += [differences(expected, folder.verdicts()), lost(before, folder.rows())]
            limit += round_kills * in_flight
            repeats += server.repeats
    if repeats > limit:
        wrong.append(f"{repeats} answers paid twice, {limit} were in flight")
    print(f"  {command}: {done} kills, {repeats} answers paid twice, at most {limit} in flight", flush=True)
    return "; ".join(dict.fromkeys(filter(None, wrong)))


def adapter_cell(adapter: str, mode: str, questions: int, share: float) -> str:
    """Ask through an adapter, in every way there is; return what was wrong, or nothing.

    An error is fine, and so is a right answer; anything else that is handed on as an answer is not.
    """
    with closing(ChaosServer(mode, share=share)) as server, ExitStack() as stack:
        ledger = Ledger()
        ways = (_langchain if adapter == "langchain" else _llamaindex)(server.address, ledger, stack)
        wrong: list[str] = []
        for way, ask in ways.items():
            for number in range(11, 11 + questions):
                try:
                    told = ask(f"What is {number} + 5?")
                except Exception as exc:  # noqa: BLE001  # what it is depends on the framework
                    if isinstance(exc, AssertionError | AttributeError | LookupError | UnboundLocalError):
                        wrong.append(f"{way}: {type(exc).__name__}")
                    continue
                empty = not told.strip() and mode in {"content-null", "content-empty"}
                if f"Answer: {number + 5}" not in told and not empty:
                    what = "an error" if NOISE in told else f"{'half an' if told.strip() else 'no'} answer"
                    wrong.append(f"{way}: {what} taken for an answer")
        if not server.faults:
            return UNMET
        used = ledger.totals().output_tokens
        if not 0 <= used < MOST_TOKENS:
            wrong.append(f"{'more than 10^6' if used > 0 else 'less than 0'} tokens counted")
        counted = {one: wrong.count(one) for one in wrong}
        return "; ".join(f"{one} ({count}x)" for one, count in counted.items())


def _langchain(address: str, ledger: Ledger, _: ExitStack) -> dict[str, Callable[[str], str]]:
    from langchain_openai import ChatOpenAI

    from tale_langchain import ChatTALE, TALECallbackHandler, TALERunnable

    model = ChatOpenAI(model="sums", base_url=address, api_key="none", max_retries=1, timeout=20)
    runnable, chat = TALERunnable(model), ChatTALE(model=model)
    config: Any = {"callbacks": [TALECallbackHandler(ledger)]}
    return {
        "TALERunnable": lambda question: str(runnable.invoke(question, config).content),
        "ChatTALE": lambda question: str(asyncio.run(chat.ainvoke(question, config)).content),
        "ChatTALE.stream": lambda question: "".join(str(one.content) for one in chat.stream(question, config)),
    }


def _llamaindex(address: str, ledger: Ledger, stack: ExitStack) -> dict[str, Callable[[str], str]]:
    from llama_index.llms.openai_like import OpenAILike

    from tale_llamaindex import TALELLM, TALEEventHandler, TALEQueryTransform

    stack.enter_context(TALEEventHandler(ledger=ledger))
    options: dict[str, Any] = {"is_chat_model": True, "max_retries": 1, "timeout": 20, "context_window": 8192}
    model = OpenAILike(model="sums", api_base=address, api_key="none", **options)
    llm, transform = TALELLM(llm=model), TALEQueryTransform(llm=model)

    def streamed(question: str) -> str:
        *_, last = llm.stream_complete(question)
        return last.text

    def transformed(question: str) -> str:
        asked = transform.run(question).query_str
        return answer({"messages": [{"content": asked}]})[
            0
        ]  # who answers the query is no part of the transform

    return {
        "TALELLM": lambda question: llm.complete(question).text,
        "TALELLM.stream": streamed,
        "transform": transformed,
    }


@functools.cache
def reference(command: str, questions: int) -> tuple[dict[str, Any], int]:
    """Return the verdicts of a run in which nothing goes wrong, and how many answers it took."""
    with closing(ChaosServer()) as server:
        folder = Folder(COMMANDS[command], server, questions)
        status = folder.run()
        verdicts = folder.verdicts()
        assert status == 0, f"{command} ended with {status} on a well server: {folder.said()}"
        assert verdicts
        return verdicts, server.answered


def judge(
    modes: Iterable[str], commands: Iterable[str], *, kills: int, questions: int, share: float = SHARE
) -> dict[tuple[str, str], str]:
    """Return for every cell, a fault and a command, what was wrong: nothing when it holds."""
    cells: dict[tuple[str, str], str] = {}
    modes = list(modes)
    for command in commands:
        if command in KILLED:
            expected, calls = reference("search" if command == "kill-ray" else command[5:], questions)
            cells[f"{kills} kills", command] = kill_cell(command, kills, questions, expected, calls)
            continue
        expected = reference(command, questions)[0] if command in COMMANDS else {}
        for mode in modes:
            began = time.perf_counter()
            if command in ADAPTERS:
                cells[mode, command] = adapter_cell(command, mode, questions, share)
            else:
                cells[mode, command] = command_cell(command, mode, questions, expected, share)
            outcome = cells[mode, command] or "ok"
            print(f"  {command} x {mode}: {outcome} ({time.perf_counter() - began:.1f} s)", flush=True)
    return cells


def table(cells: dict[tuple[str, str], str]) -> str:
    """Return the cells as a Markdown table, and what was wrong below it."""
    commands = list(dict.fromkeys(command for _, command in cells))
    rows = ["| fault | " + " | ".join(commands) + " |", "|---" * (len(commands) + 1) + "|"]
    for mode in dict.fromkeys(mode for mode, _ in cells):
        marks = {None: "", "": "ok", UNMET: "not met"}
        found = [marks.get(cells.get((mode, command)), "**differs**") for command in commands]
        rows.append(f"| {mode} | " + " | ".join(found) + " |")
    wrong = [f"- {command} x {mode}: {what}" for (mode, command), what in cells.items() if what]
    return "\n".join([*rows, "", f"{len(cells)} cells, {len(cells) - len(wrong)} hold.", "", *wrong]) + "\n"


def main() -> int:
    """Judge the cells that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    known = [*COMMANDS, *ADAPTERS, *KILLED]
    parser.add_argument("--quick", action="store_true", help="four faults, two commands, two kills")
    parser.add_argument("--only", nargs="+", choices=MODES, metavar="MODE")
    parser.add_argument("--commands", nargs="+", choices=known, metavar="COMMAND", help=", ".join(known))
    parser.add_argument("--kills", type=int)
    parser.add_argument("--questions", type=int, default=6)
    parser.add_argument("--share", type=float, default=SHARE, help="share of the calls that meet the fault")
    parser.add_argument("--write", action="store_true", help="also into benchmarks/chaos.md")
    asked = parser.parse_args()
    modes = asked.only or (QUICK_MODES if asked.quick else MODES)
    commands = asked.commands or ((*QUICK_COMMANDS, "kill-elasticity") if asked.quick else known)
    kills = asked.kills or (2 if asked.quick else 40)
    cells = judge(modes, commands, kills=kills, questions=asked.questions, share=asked.share)
    told = table(cells)
    print(told)
    if asked.write:
        git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
        day = datetime.now(timezone.utc).date()
        about = f"{day}, commit {commit}, {asked.questions} questions, {CONCURRENCY} at a time."
        head = "# Bad days\n\nMade by `make chaos`; what a cell must show stands in `tests/chaos/run.py`.\n\n"
        (ROOT / "benchmarks" / "chaos.md").write_text(f"{head}{about}\n\n{told}")
    return int(any(cells.values()))


if __name__ == "__main__":
    sys.exit(main())
