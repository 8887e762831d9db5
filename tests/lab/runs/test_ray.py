"""Worker processes of a real Ray on this machine: the same results, nothing lost, and more of them do more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from slow_server import WRONG, SlowServer
from typer.testing import CliRunner

from tale_core import EngineError, ModelReply, SearchSettings, Usage
from tale_core.testing import ScriptedModel
from tale_lab.cli.app import app
from tale_lab.questions.datasets import Dataset, Question
from tale_lab.results.store import Store
from tale_lab.runs.engines import RayEngine
from tale_lab.runs.runner import run_jobs
from tale_lab.runs.searching import search_jobs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tale_core import ModelCall, SearchTrace
    from tale_lab.runs.runner import Job

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("loopback", "cluster")]

CALLS_A_SEARCH = 7  # vanilla, 32, 16, 8, 4, 2, 1


class Caller:
    """Asks the slow server; opens at once, and leaves the number of each process it answers in as a file."""

    def __init__(self, server: SlowServer, folder: Path) -> None:
        self.url = f"{server.address}/chat/completions"
        self.folder = folder

    def __call__(self, call: ModelCall) -> ModelReply:
        (self.folder / f"{os.getpid()}.pid").touch()
        body = {"model": "adder", "messages": [message.model_dump() for message in call.messages]}
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)  # noqa: S310
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request) as response:
            reply = json.load(response)
        usage = Usage(output_tokens=reply["usage"]["completion_tokens"])
        text = reply["choices"][0]["message"]["content"]
        return ModelReply(text=text, usage=usage, finish_reason="stop")


class Keyed:
    """Can be opened only where the key is."""

    def __reduce__(self) -> Any:
        return opened_with_key, ()


def opened_with_key() -> str:
    return os.environ["KEY_OF_THIS_PROCESS"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray for all tests here, started as an engine starts it."""
    import ray

    # Workers cannot import a test file.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # as it is, workers give way to all else on a busy machine
        with RayEngine(ScriptedModel("x"))._joined():
            yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def server() -> Iterator[SlowServer]:
    with closing(SlowServer(seconds=0.02)) as server:
        yield server


def searches(*numbers: int) -> list[Job[SearchTrace]]:
    questions = tuple(Question.of(f"{number} + 1?", str(number + 1)) for number in numbers)
    return search_jobs(Dataset(source="t", questions=questions), SearchSettings(method="halving"), model="m")


def test_the_command_finds_with_workers_what_it_finds_without(server: SlowServer, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    numbers = range(WRONG - 2, WRONG + 3)
    data.write_text("\n".join(json.dumps({"question": f"{n} + 1?", "answer": str(n + 1)}) for n in numbers))
    command = ["search", str(data), "--model", server.model, "--method", "halving", "--json", "--out"]
    here = CliRunner().invoke(app, [*command, str(tmp_path / "here.sqlite")])
    there = CliRunner().invoke(app, [*command, str(tmp_path / "there.sqlite"), "--engine", "ray"])
    found, expected = (json.loads(result.stdout) for result in (there, here))
    assert found["summary"] == expected["summary"]
    assert found["summary"]["questions"] == 4
    assert found["spent"] == expected["spent"]
    assert found["spent"]["calls"] == 4 * CALLS_A_SEARCH
    for told in (found, expected):
        assert [one["question"] for one in told["failed"]] == [Question.of("13 + 1?", "14").id]
        assert "thirteen is unlucky" in told["failed"][0]["error"]


def test_a_worker_that_is_killed_loses_nothing(server: SlowServer, tmp_path: Path) -> None:
    store = Store(tmp_path / "run.sqlite")
    engine = RayEngine(Caller(server, tmp_path), concurrency=2)
    done = []
    for one in run_jobs(searches(*range(20, 36)), store, engine, model="m"):
        done.append(one)
        if len(done) == 4:
            workers = [int(path.stem) for path in tmp_path.glob("*.pid")]
            os.kill(workers[0], signal.SIGKILL)
    assert [one.error for one in done] == [None] * 16
    assert len({one.question.id for one in done}) == 16
    assert store.calls == len(set(server.asked)) == 16 * CALLS_A_SEARCH
    repeated = len(server.asked) - len(set(server.asked))
    assert repeated <= 2, "only what the dead worker was in the middle of is asked again"


def test_what_is_known_is_not_asked_again_and_a_run_that_is_left_keeps_the_calls_under_way(
    server: SlowServer, tmp_path: Path
) -> None:
    store, caller, jobs = Store(":memory:"), Caller(server, tmp_path), searches(*range(8))
    # The third call of a question is known, and those before it are not.
    list(run_jobs(jobs[:1], store, caller, model="m"))
    store._db.execute("DELETE FROM calls WHERE budget IS NULL OR budget = 32")
    store._db.execute("DELETE FROM results")
    server.asked.clear()

    running = run_jobs(jobs, store, RayEngine(caller, workers=1, concurrency=2), model="m")
    next(running)
    running.close()
    known = CALLS_A_SEARCH - 2
    assert store.calls == len(server.asked) + known < 8 * CALLS_A_SEARCH
    list(run_jobs(jobs, store, caller, model="m"))
    assert len(server.asked) == len(set(server.asked)) == 8 * CALLS_A_SEARCH - known


@pytest.mark.parametrize("workers", [1, 2])
def test_so_many_workers_ask_at_a_time_from_the_first_call_to_the_last(workers: int, tmp_path: Path) -> None:
    # The server answers no call of one worker before there is one of every other.
    with closing(SlowServer(together=workers)) as server:
        engine = RayEngine(Caller(server, tmp_path), workers=workers, concurrency=1)
        done = list(run_jobs(searches(*range(4)), Store(":memory:"), engine, model="m"))
    assert [one.error for one in done] == [None] * 4
    assert (len(server.asked), server.most_under_way) == (4 * CALLS_A_SEARCH, workers)
    assert len(list(tmp_path.glob("*.pid"))) == workers


def test_a_model_that_a_worker_cannot_open_ends_the_run_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KEY_OF_THIS_PROCESS", "secret")
    engine = RayEngine(Keyed(), workers=1)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=r"cannot open the model: KeyError: .*OF_THIS_PROCESS") as caught:
        list(run_jobs(searches(1), Store(":memory:"), engine, model="m"))
    assert "secret" not in str(caught.value)


def test_a_cluster_of_our_own_listens_on_this_machine_alone_and_asks_for_a_token() -> None:
    code = """
import os, socket
from tale_core.testing import ScriptedModel
from tale_lab.runs.engines import RayEngine

engine = RayEngine(ScriptedModel("x"), workers=1)
ray = engine._ray
with engine._joined():
    host, port = ray.get_runtime_context().gcs_address.rsplit(":", 1)
    mode = ray.remote(lambda: os.environ.get("RAY_AUTH_MODE"))
    print(host, ray.get(mode.remote()), len(os.environ["RAY_AUTH_TOKEN"]))
    with open("/proc/net/tcp6") as sockets, open("/proc/net/tcp") as more:
        rows = [line.split() for line in (*sockets, *more)]
    print({row[1].rsplit(":", 1)[0] for row in rows if row[1].endswith(f":{int(port):04X}") and row[3] == "0A"})
"""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-c", code], env=clean, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    who, listening = done.stdout.splitlines()
    assert who == "127.0.0.1 token 64"
    assert listening in {"{'0000000000000000FFFF00000100007F'}", "{'0100007F'}"}


def test_a_cluster_that_is_not_there_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = RayEngine(ScriptedModel("x"), address="127.0.0.1:1")

    def unreachable(**_: object) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(engine._ray, "init", unreachable)
    with pytest.raises(EngineError, match=r"at 127.0.0.1:1: nobody there; start one with: ray start --head"):
        engine._join()


def test_flows_that_ask_the_same_share_one_call(server: SlowServer, tmp_path: Path) -> None:
    [job] = searches(5)
    engine = RayEngine(Caller(server, tmp_path), workers=2, concurrency=3)
    outcomes = list(engine.drive([job.flow] * 6, Store(":memory:").memory(model="m")))
    assert {one.unwrap().chosen for one in outcomes} == {1}
    assert len(outcomes) == 6
    assert len(server.asked) == CALLS_A_SEARCH


def test_of_flows_that_wait_for_a_call_that_fails_the_next_makes_it(server: SlowServer, tmp_path: Path) -> None:
    [job] = searches(WRONG)
    engine = RayEngine(Caller(server, tmp_path), workers=1, concurrency=3)
    outcomes = list(engine.drive([job.flow] * 3, Store(":memory:").memory(model="m")))
    assert all("400" in str(one.error) for one in outcomes)
    assert len(server.asked) == 3
