"""The results file: what is finished is kept, whatever happens."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tale_core import Message, ModelCall, ModelReply, StoreError, arun, run, search_budget
from tale_core.testing import ScriptedModel
from tale_lab.results.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from tale_core import Flow, SearchTrace


def call(text: str = "3 + 4?", **fields: Any) -> ModelCall:
    return ModelCall(role="reason", messages=(Message(role="user", content=text),), **fields)


def right(text: str) -> bool:
    return "7" in text


def searching() -> Flow[SearchTrace]:
    return search_budget("3 + 4?", right, method="halving", question_id="q")


ANSWERS = ("three and four make 7", "it is 7", "no")


def test_a_kept_call_is_answered_without_the_model(tmp_path: Path) -> None:
    with Store(tmp_path / "run.sqlite") as store:
        first = run(store.remember(searching(), model="m"), ScriptedModel(*ANSWERS))
        again = run(store.remember(searching(), model="m"), ScriptedModel(AssertionError("asked again")))
    assert first == again


async def test_both_drivers_share_what_is_kept() -> None:
    store = Store(":memory:")
    first = run(store.remember(searching(), model="m"), ScriptedModel(*ANSWERS))
    model = ScriptedModel(AssertionError("asked again"))
    assert await arun(store.remember(searching(), model="m"), model.acall) == first


@pytest.mark.parametrize(
    "other",
    [
        call("3 + 5?"),
        call(sample=1),
        call(temperature=0.5),
        call(max_tokens=10),
        ModelCall(role="judge", messages=call().messages),
    ],
)
def test_another_prompt_sample_setting_or_role_is_another_call(other: ModelCall) -> None:
    store = Store(":memory:")
    store.keep(call(), ModelReply(text="7"), model="m")
    assert store.reply(call(), model="m") == ModelReply(text="7")
    assert store.reply(other, model="m") is None
    assert store.reply(call(), model="another") is None


@pytest.mark.parametrize("broken", [TimeoutError("slow"), " "])
def test_a_failed_or_empty_answer_is_not_kept_and_everything_before_it_is(broken: str | Exception) -> None:
    store = Store(":memory:")
    with pytest.raises(Exception, match=r"slow|answered nothing"):
        run(store.remember(searching(), model="m"), ScriptedModel(ANSWERS[0], broken))
    model = ScriptedModel(*ANSWERS[1:])
    trace = run(store.remember(searching(), model="m"), model)
    assert len(model.calls) == 2
    assert [probe.text for probe in trace.probes] == list(ANSWERS)


def test_prompts_are_not_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    with Store(path) as store:
        store.keep(call("my secret question"), ModelReply(text="answer"), model="m")
    assert b"secret" not in path.read_bytes()


def test_traces_come_back_by_model_and_in_order_of_time() -> None:
    store = Store(":memory:")
    traces = [run(searching(), ScriptedModel(*ANSWERS)) for _ in range(3)]
    for number, trace in enumerate(traces):
        store.put(str(number), "search", trace, model=f"m{number % 2}", question_id="q")
    assert list(store.traces()) == traces
    assert list(store.traces(model="m1")) == [traces[1]]


def test_runs_and_failures_are_recorded() -> None:
    store = Store(":memory:")
    store.begin_run(data="d.jsonl[0:3]", questions=["a"])
    store.note_failure("k1", "a", TimeoutError("slow"))
    store.note_failure("k2", "b", TimeoutError("slow"))
    store.put("k1", "search", run(searching(), ScriptedModel(*ANSWERS)), model="m", question_id="a")
    assert store.runs()[0]["data"] == "d.jsonl[0:3]"
    assert [(one.question_id, one.error) for one in store.failures()] == [("b", "TimeoutError: slow")]


def test_many_threads_write_at_once() -> None:
    store = Store(":memory:")

    def write(worker: int) -> None:
        for number in range(50):
            store.keep(call(f"{worker} {number}"), ModelReply(text="x"), model="m")

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.calls == 400


def test_two_stores_share_one_file(tmp_path: Path) -> None:
    with Store(tmp_path / "run.sqlite") as one, Store(tmp_path / "run.sqlite") as other:
        one.keep(call(), ModelReply(text="7"), model="m")
        assert other.reply(call(), model="m") is not None


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="database of another program; name another file"):
        Store(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes, long enough to be looked at as a header of a database " * 20)
    with pytest.raises(StoreError, match="not a database; name another file"):
        Store(path)
    assert path.read_text().startswith("my notes")


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="schema version 99, this program reads 2"):
        Store(path)


def test_a_missing_file_or_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no results file .*nowhere.sqlite.*tale search"):
        Store(tmp_path / "nowhere.sqlite", must_exist=True)
    with pytest.raises(StoreError, match="the folder must exist"):
        Store(tmp_path / "no" / "folder.sqlite")


def test_a_full_disk_is_an_error_that_keeps_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    store = Store(path)
    store.keep(call(), ModelReply(text="7"), model="m")
    pages = store._db.execute("PRAGMA page_count")[0][0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="full; free some space and run the same command again"):
        store.keep(call("long"), ModelReply(text="x" * 100_000), model="m")
    assert store.reply(call(), model="m") is not None


def test_a_file_that_may_not_be_written_is_an_error() -> None:
    store = Store(":memory:")
    store._db.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match="readonly database; make the file and its folder writable"):
        store.keep(call(), ModelReply(text="7"), model="m")


def test_a_locked_file_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    store = Store(path)
    store._db.execute("PRAGMA busy_timeout = 1")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="locked; another program holds it"):
        store.keep(call(), ModelReply(text="7"), model="m")
    holder.close()


def test_an_entry_of_another_shape_is_an_error(tmp_path: Path) -> None:
    store = Store(tmp_path / "run.sqlite")
    store._db.execute("INSERT INTO results VALUES (1, 'k', 't', 'search', 'm', 'q', '{}')")
    with pytest.raises(StoreError, match="no SearchTrace of this version"):
        list(store.traces())


def test_a_closed_store_says_so() -> None:
    store = Store(":memory:")
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.runs()


KILLED = """
    import os, signal, sys
    from tale_core import ModelReply, SearchSettings, Usage
    from tale_lab.questions.datasets import Dataset, Question
    from tale_lab.results.store import Store
    from tale_lab.runs.runner import run_jobs
    from tale_lab.runs.searching import search_jobs

    path, log, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
    questions = tuple(Question.of(f"{n} + 1?", str(n + 1)) for n in range(6))
    answered = 0

    def call(call):
        global answered
        if answered == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        answered += 1
        with open(log, "a") as file:
            file.write(f"{call.messages[-1].content!r}\\n")
        number = int(call.messages[-1].content.split()[0])
        tokens = call.budget or 64
        return ModelReply(text=str(number + 1), usage=Usage(output_tokens=tokens), finish_reason="stop")

    store = Store(path)
    jobs = search_jobs(Dataset(source="test", questions=questions), SearchSettings(method="halving"), model="m")
    for done in run_jobs(jobs, store, call, model="m", concurrency=1):
        print(done.question.id, done.result.chosen, done.known)
"""


def test_a_killed_run_goes_on_without_repeating_or_losing_a_finished_call(tmp_path: Path) -> None:
    script, log = tmp_path / "script.py", tmp_path / "log"
    script.write_text(textwrap.dedent(KILLED))

    def start(limit: int) -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, str(script), str(tmp_path / "run.sqlite"), str(log), str(limit)]
        return subprocess.run(arguments, capture_output=True, text=True, check=False)  # noqa: S603

    assert [start(limit).returncode for limit in (10, 10)] == [-9, -9]
    last = start(1000)
    assert last.returncode == 0, last.stderr

    prompts = log.read_text().splitlines()
    assert len(prompts) == len(set(prompts)), "a finished call was made again"
    store = Store(tmp_path / "run.sqlite")
    assert store.calls == len(prompts) == 6 * 7  # vanilla, 32, 16, 8, 4, 2, 1
    assert [trace.chosen for trace in store.traces()] == [1] * 6
    assert last.stdout.count("True") == 2, "two questions were finished before the last start"
