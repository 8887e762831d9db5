"""Graders of other packages, in a process of their own without network and with limits of memory and time.

reasoning-gym's scorers and math-verify evaluate what they are given, upstream of anything that this project
decides. Texts therefore pass two checks: `may_be_evaluated` refuses what is no literal and no formula before it
is sent, and the process can neither open sockets nor write files, and is ended where an answer takes too long.
"""

from __future__ import annotations

import ast
import atexit
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from tale_core.errors import GraderError, MissingExtraError

Kind: TypeAlias = Literal["gym", "math"]
"""What a process does: reasoning-gym's scorers, or math-verify."""

MEMORY = 2 * 2**30
"""Bytes of address space that a process may take."""
PROCESSOR_SECONDS = 5
"""Processor seconds that one answer may take."""
_WALL_SECONDS = 120.0  # the last resort, for a process that waits and computes nothing
_PACKAGES: dict[Kind, str] = {"gym": "reasoning_gym", "math": "math_verify"}
_SHOWN = 60
# One thread, since each reserves address space of the little that there is.
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# No keys and no settings of the caller.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL", "TMPDIR")

LITERAL_TASKS = frozenset({"binary_matrix", "n_queens", "number_sorting", "spiral_matrix", "string_insertion"})
"""Tasks of reasoning-gym whose scorers evaluate texts as Python, in the hope of a list."""
FORMULA_TASKS = frozenset(
    {"countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration"}
)
"""Tasks of reasoning-gym whose scorers evaluate texts with sympy."""
_MOST_EVALUATED = 10_000  # characters; the parsers take more than linear time
_MOST_EXPONENT = 1000  # sympy computes powers of numbers while it parses
# Words without brackets and quotes can be looked up, but nothing can be called.
_WORDS = re.compile(r"[^()\[\]{}'\"`\\@:;=*^%<>]*")
_FORMULA = re.compile(r"[\w\s.,+\-*/^()|=]*")
_NAME = re.compile(r"[^\W\d]\w*")
_KNOWN = "sin cos tan sec csc cot asin acos atan sinh cosh tanh exp log ln sqrt abs pi Abs Integral E I C"
_FUNCTIONS = frozenset(_KNOWN.split())
_POWER = re.compile(r"(?:\*\*|\^)\s*\(?\s*([-+]?)\s*([\w.]+)")
_TOWER = re.compile(r"(?:\*\*|\^)\s*\(?\s*[\w.]+\s*(?:\*\*|\^)")

_HUGE = re.compile(
    r"\d{4,}\s{0,3}!|!\s{0,3}!|\d{400,}|\^\s{0,3}\{?\s{0,3}-?\d{4,}|\*\*\s?\d{4,}|\*\*\s?\d+\s?\*\*\s?\d"
    r"|\^\s{0,3}\{[^{}]{0,40}[\^!]|\^\s{0,3}\w\s{0,3}\^"
)


def may_be_evaluated(text: str, task: str) -> bool:
    """Return whether a text may be given to a task's scorer: a literal or a formula, and nothing that acts."""
    if task in LITERAL_TASKS:
        # Two underscores reach the attributes through which Python is escaped from.
        short = len(text) <= _MOST_EVALUATED and "__" not in text
        return short and (_is_literal(text) or bool(_WORDS.fullmatch(text)))
    return task not in FORMULA_TASKS or (len(text) <= _MOST_EVALUATED and _is_formula(text))


def _is_literal(text: str) -> bool:
    try:
        ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return False
    return True


def _is_formula(text: str) -> bool:
    """Return whether a text is a small formula of numbers, signs, brackets, variables and known functions."""
    if not text.isascii() or not _FORMULA.fullmatch(text) or "__" in text or _TOWER.search(text):
        return False
    small = all(
        power[2].isalpha() or (power[2].replace(".", "", 1).isdecimal() and float(power[2]) <= _MOST_EXPONENT)
        for power in _POWER.finditer(text)
    )
    return small and all(len(name) == 1 or name in _FUNCTIONS for name in _NAME.findall(text))


def is_too_large(text: str) -> bool:
    r"""Return whether a formula asks for a number that nobody would write out: ``9^{9^{9}}``, ``10000!``."""
    return _HUGE.search(text) is not None


def require(kind: Kind) -> None:
    """Make sure that the package of a kind of grader is installed, without importing it."""
    package = _PACKAGES[kind]
    try:
        found = importlib.util.find_spec(package)  # importing takes seconds, and belongs in the process
    except ValueError:  # imported in a way that left no specification
        return
    if found is None:
        raise MissingExtraError(package, "eval")


def ask(kind: Kind, about: str, **request: Any) -> Any:
    """Have a grader's process work on one request, and start the process where there is none.

    Args:
        kind: Which grader.
        about: What is graded, for the error.
        **request: What the grader is given, JSON-ready.

    Raises:
        GraderError: The process ran out of time or of memory, or crashed; the next request starts another one.
    """
    return _PROCESSES[kind].ask(about, request)


class _GraderProcess:
    """One long-lived process of a kind; safe under threads, which wait for one another."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def ask(self, about: str, request: dict[str, Any]) -> Any:
        with self._lock:  # one pipe: replies carry no number that tells whose they are
            process = self._running()
            reply = self._exchange(process, json.dumps(request))
            if reply is None:
                code = self._stopped(process)
                raise GraderError(
                    f"grader {self._kind!r} ran out of its {PROCESSOR_SECONDS} processor seconds or crashed "
                    f"(exit status {code}) over {about[:_SHOWN]!r}; this answer is kept without a verdict: run "
                    "the same command again to retry it, or choose another --grader"
                )
        if "error" in reply:
            raise GraderError(
                f"grader {self._kind!r} failed with {reply['error']} over {about[:_SHOWN]!r}; run the same "
                "command again to retry it, or choose another --grader"
            )
        return reply["value"]

    def close(self) -> None:
        """End the process, if this process started one."""
        if self._process is not None and self._owner == os.getpid():
            self._stopped(self._process)

    def _running(self) -> subprocess.Popen[str]:
        # After a fork the pipes are the parent's: two processes must not write into them.
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        self._owner = os.getpid()
        self._process = process = subprocess.Popen(  # noqa: S603  # this interpreter, a constant script
            [sys.executable, "-I", "-B", str(Path(__file__).with_name("_grader_process.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for the run, which then closes this process
        )
        started = {
            "kind": self._kind,
            "memory": MEMORY,
            "seconds": PROCESSOR_SECONDS,
            "path": [place for place in sys.path if place and Path(place).is_absolute()],
        }
        if self._exchange(process, json.dumps(started)) is None:
            code = self._stopped(process)
            raise GraderError(
                f"the process of grader {self._kind!r} did not start (exit status {code}); does "
                f"`{sys.executable} -c 'import {_PACKAGES[self._kind]}'` work?"
            )
        return process

    def _exchange(self, process: subprocess.Popen[str], line: str) -> dict[str, Any] | None:
        """Send one line and return the reply; None where there is none."""
        timer = threading.Timer(_WALL_SECONDS, process.kill)
        timer.daemon = True
        timer.start()
        try:
            _pipe(process.stdin).write(line + "\n")
            _pipe(process.stdin).flush()
            reply = json.loads(_pipe(process.stdout).readline())
        except (OSError, ValueError):
            return None
        except BaseException:  # interrupted: a reply that comes later must not answer the next request
            self._stopped(process)
            raise
        finally:
            timer.cancel()
        return reply if isinstance(reply, dict) else None

    def _stopped(self, process: subprocess.Popen[str]) -> int:
        process.kill()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # what was not sent cannot be flushed any more
                _pipe(pipe).close()
        self._process = None
        return process.wait()


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise OSError("the process has no such pipe")
    return pipe


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | _ONE_THREAD


_PROCESSES: dict[Kind, _GraderProcess] = {kind: _GraderProcess(kind) for kind in _PACKAGES}


@atexit.register
def close() -> None:
    """End the processes of all graders; the next answer starts them again."""
    for process in _PROCESSES.values():
        process.close()
