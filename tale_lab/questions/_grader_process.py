"""The process in which graders of other packages run; only `tale_lab.questions.sandbox` starts it.

It reads requests from its standard input and writes what it found to its standard output, one JSON object a
line. It imports nothing of this project, so that nothing of the caller is in its memory.
"""

from __future__ import annotations

import functools
import importlib
import json
import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# reasoning-gym gives partial credit for form; only a full score is an answer.
_FULL_SCORE = 0.99
# What a grader has no business doing. An audit hook is no wall against code written to get around it; it is the
# second line, behind the check of every text before it is sent here.
_REFUSED = (
    "socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "os.startfile",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
    "os.chown", "os.kill", "os.putenv", "shutil.", "ctypes.", "pty.", "ftplib.", "http.", "urllib.", "smtplib.",
    "webbrowser.", "sqlite3.",
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _gym() -> Callable[..., Any]:
    reasoning_gym: Any = importlib.import_module("reasoning_gym")
    scorer = functools.lru_cache(maxsize=256)(reasoning_gym.get_score_answer_fn)

    def answer(task: str, candidates: list[str], entry: dict[str, Any]) -> bool:
        score = scorer(task)
        return any(_scores(score, one, entry) for one in candidates)

    return answer


def _scores(score: Callable[..., float], candidate: str, entry: dict[str, Any]) -> bool:
    try:
        return float(score(candidate, entry)) >= _FULL_SCORE
    except MemoryError:  # the limit was reached: the answer has no verdict, not a wrong one
        raise
    except Exception:  # noqa: BLE001  # a scorer that stumbles over a text has not accepted it
        return False


def _math() -> Callable[..., Any]:
    math_verify: Any = importlib.import_module("math_verify")
    logging.disable()  # it logs the answers that it cannot read

    @functools.lru_cache(maxsize=1024)
    def parsed(reference: str) -> list[Any]:
        # Its own time limits use signals and count seconds; this process is limited from outside.
        return list(math_verify.parse(reference, parsing_timeout=None))

    def answer(reference: str, text: str | None) -> str:
        gold = parsed(reference)
        if text is None or not gold:
            return "read" if gold else "unreadable"
        try:
            given = math_verify.parse(text, parsing_timeout=None)
            if not given:
                return "unreadable"
            return "correct" if math_verify.verify(gold, given, timeout_seconds=None) else "wrong"
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  # a text that its parser stumbles over holds no answer
            return "unreadable"

    return answer


def _lock(event: str, args: tuple[Any, ...]) -> None:
    writes = event == "open" and (
        bool(set(str(args[1] or "")) & set("wax+")) or bool(int(args[2] or 0) & _WRITING)
    )
    if writes or event.startswith(_REFUSED):
        raise PermissionError(f"a grader may not do this: {event}")


def _limit(memory: int) -> None:
    """Set the limits that last as long as the process, where the system knows them."""
    with suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _grant(seconds: int) -> None:
    """Allow so many more processor seconds; the system ends the process where they are used up."""
    with suppress(ImportError, OSError, ValueError):
        import resource  # noqa: PLC0415

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, hard))


def main() -> None:
    """Answer requests until there are no more."""
    # A grader that prints must not write into the replies.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    started = json.loads(sys.stdin.readline())
    sys.path[:] = started["path"]
    answer = {"math": _math, "gym": _gym}[started["kind"]]()
    _limit(started["memory"])  # after the import: packages may write caches of their own
    sys.addaudithook(_lock)
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        _grant(started["seconds"])
        try:
            reply: dict[str, Any] = {"value": answer(**json.loads(line))}
        except Exception as exc:  # noqa: BLE001  # told to the caller, for whom it is the grader's failure
            reply = {"error": type(exc).__name__}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
