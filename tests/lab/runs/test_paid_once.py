"""Every call is made once: across flows, threads, stores and processes; and results rest on kept answers."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tale_core import EngineError, Message, ModelCall, ModelReply, Usage
from tale_lab.bench.benchmark import Attempt, Sampling, bench_jobs
from tale_lab.bench.methods import Conditions
from tale_lab.cli.bench import choose_methods
from tale_lab.questions.datasets import Dataset, Question
from tale_lab.results import store as store_module
from tale_lab.results.store import Store
from tale_lab.runs.runner import run_jobs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tale_lab.runs.runner import Job

CALL = ModelCall(role="reason", messages=(Message(role="user", content="3 + 4?"),))


def jobs(size: int) -> list[Job[Attempt]]:
    questions = tuple(Question.of(f"{n} + 1?", str(n + 1)) for n in range(size))
    sampling = Sampling(temperature=0.7, max_tokens=64)
    methods = choose_methods(None, Conditions())
    return bench_jobs(Dataset(source="t", questions=questions), methods, model="m", sampling=sampling)


class Counting:
    """Counts what it is asked; every answer is another one."""

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause
        self.served: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, call: ModelCall) -> ModelReply:
        with self._lock:
            # What is asked for comparison is asked in the same words.
            role = "reason" if call.role == "reference" else call.role
            asked = call.model_copy(update={"framing": None, "role": role})
            self.served[asked.model_dump_json()] += 1
            number = sum(self.served.values())
        time.sleep(self.pause)
        return ModelReply(text=f"[[{number}]]", usage=Usage(output_tokens=1), finish_reason="stop")


@pytest.mark.parametrize(("size", "concurrency", "pause"), [(60, 4, 0.0), (5, 16, 0.003)])
def test_the_default_benchmark_makes_no_call_twice(size: int, concurrency: int, pause: float) -> None:
    model, store = Counting(pause), Store(":memory:")
    done = list(run_jobs(jobs(size), store, model, model="m", concurrency=concurrency))
    assert [one.error for one in done if one.error] == []
    assert set(model.served.values()) == {1}
    assert store.calls == len(model.served)
    assert store._db.execute("SELECT * FROM leases") == []


def _measure(path: str, log: str) -> None:
    def call(asked: ModelCall) -> ModelReply:
        with open(log, "a") as file:  # noqa: PTH123  # appended to by two processes
            file.write("x\n")
        time.sleep(0.002)
        return ModelReply(text=f"[[{os.getpid()}]]", usage=Usage(output_tokens=1), finish_reason="stop")

    with Store(path) as store:
        list(run_jobs(jobs(2), store, call, model="m", concurrency=8))


def test_two_processes_on_one_store_make_no_call_twice(tmp_path: Path) -> None:
    path, log = str(tmp_path / "r.sqlite"), tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_measure, args=(path, str(log))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(timeout=240)
    assert [one.exitcode for one in both] == [0, 0]
    with Store(path) as store:
        assert store.calls == len(log.read_text().splitlines())
        assert all(one.text for one in store.results("attempt", Attempt))


def test_a_result_rests_on_the_answer_that_was_kept_first(tmp_path: Path) -> None:
    mine, other = Store(tmp_path / "r.sqlite"), Store(tmp_path / "r.sqlite")

    def call(asked: ModelCall) -> ModelReply:
        other.keep(asked, ModelReply(text="first"), model="m")
        return ModelReply(text="second")

    assert mine.shared(CALL, call, model="m").text == "first"
    memory = mine.memory(model="m")
    kept = memory.note(CALL, ModelReply(text="third"))
    assert kept is not None
    assert kept.text == "first"


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


@pytest.mark.parametrize("how", ["its process is gone", "it was not renewed"])
def test_a_lease_is_taken_over(tmp_path: Path, how: str) -> None:
    owner, mine = Store(tmp_path / "r.sqlite"), Store(tmp_path / "r.sqlite")
    if how == "its process is gone":
        host, _, name = owner._owner.split("/")
        owner._owner = f"{host}/{ended_process()}/{name}"
    key_seen: list[bytes] = []

    def never_ends(call: ModelCall) -> ModelReply:
        key_seen.extend(row[0] for row in mine._db.execute("SELECT key FROM leases"))
        if how == "it was not renewed":
            mine._db.execute("UPDATE leases SET expires = expires - 60")
        return mine.shared(call, lambda _: ModelReply(text="taken over"), model="m")

    assert owner.shared(CALL, never_ends, model="m").text == "taken over"
    assert len(key_seen) == 1


def held(store: Store) -> tuple[threading.Event, threading.Thread]:
    """Have a call under way at a store until the event is set; it then fails."""
    go_on, asked = threading.Event(), threading.Event()

    def call(_: ModelCall) -> ModelReply:
        asked.set()
        go_on.wait()
        raise ConnectionError("refused")

    def ask() -> None:
        with suppress(ConnectionError):
            store.shared(CALL, call, model="m")

    thread = threading.Thread(target=ask)
    thread.start()
    asked.wait()
    return go_on, thread


def test_the_lease_of_a_long_call_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_LEASE_SECONDS", 0.3)
    mine = Store(tmp_path / "r.sqlite")

    def expires() -> float:
        return float(mine._db.execute("SELECT expires FROM leases")[0][0])

    def long(_: ModelCall) -> ModelReply:
        first = expires()
        while expires() == first:
            time.sleep(0.01)
        return ModelReply(text="at last")

    assert mine.shared(CALL, long, model="m").text == "at last"
    mine.close()


def test_a_call_that_failed_elsewhere_is_made_here(tmp_path: Path) -> None:
    other, mine = Store(tmp_path / "r.sqlite"), Store(tmp_path / "r.sqlite")
    go_on, thread = held(other)
    threading.Timer(0.1, go_on.set).start()
    assert mine.shared(CALL, lambda _: ModelReply(text="made here"), model="m").text == "made here"
    thread.join()


def test_a_run_that_is_left_does_not_wait_for_another_process(tmp_path: Path) -> None:
    other, mine = Store(tmp_path / "r.sqlite"), Store(tmp_path / "r.sqlite")
    go_on, thread = held(other)
    left = threading.Event()
    left.set()
    with pytest.raises(EngineError, match="the run was left"):
        mine.shared(CALL, lambda _: ModelReply(text="x"), model="m", left=left)
    go_on.set()
    thread.join()


def test_threads_share_one_call_and_its_failure() -> None:
    store = Store(":memory:")
    together = threading.Barrier(5)
    under_way = threading.Event()

    def call(_: ModelCall) -> ModelReply:
        under_way.wait()
        raise ConnectionError("refused")

    failures: list[Exception] = []

    def ask() -> None:
        together.wait()
        try:
            store.shared(CALL, call, model="m")
        except ConnectionError as exc:
            failures.append(exc)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for one in threads:
        one.start()
    together.wait()
    time.sleep(0.05)  # all four have asked by then; where not, the call below is made again
    under_way.set()
    for one in threads:
        one.join()
    assert len(failures) == 4
    assert store.shared(CALL, lambda _: ModelReply(text="later"), model="m").text == "later"


def whole(answer: Callable[[ModelCall], ModelReply]) -> tuple[list[Exception], Store]:
    store = Store(":memory:")
    wanted = [one for one in jobs(1) if one.label == "tale"]
    return [one.error for one in run_jobs(wanted, store, answer, model="m") if one.error is not None], store


def good(call: ModelCall) -> ModelReply:
    return ModelReply(text="[[50]]" if call.role == "estimate" else "Answer: 1", finish_reason="stop")


def test_an_estimate_that_failed_fails_the_attempt() -> None:
    def refused(call: ModelCall) -> ModelReply:
        if call.role == "estimate":
            raise PermissionError("no")
        return good(call)

    [error], store = whole(refused)
    assert isinstance(error, PermissionError)
    assert [one.label for one in store.failures()] == ["tale"]
    [job] = [one for one in jobs(1) if one.label == "tale"]
    [again] = run_jobs([job], store, good, model="m")
    assert again.result is not None
    assert [call.role for call in again.result.calls] == ["estimate", "reason"]
    assert store.failures() == ()


def test_an_estimate_that_is_empty_fails_the_attempt_and_one_that_says_nothing_does_not() -> None:
    def saying(text: str) -> Callable[[ModelCall], ModelReply]:
        return lambda call: (
            ModelReply(text=text, finish_reason="stop") if call.role == "estimate" else good(call)
        )

    [error], _ = whole(saying(" "))
    assert "answered nothing" in str(error)
    errors, _ = whole(saying("I cannot say"))
    assert errors == []
