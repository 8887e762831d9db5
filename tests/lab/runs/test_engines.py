"""The engines that need no other process, and what can be known of the other without one."""

from __future__ import annotations

import pickle
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from tale_core import EngineError, InvalidValueError, MissingExtraError, SearchSettings
from tale_core.errors import SpendingLimitError
from tale_core.models.client import ChatClient
from tale_core.models.model_strings import ModelString
from tale_core.testing import ScriptedModel
from tale_lab.cli._measuring import EngineName, Measuring, MeasuringOptions, Models
from tale_lab.cli.app import app
from tale_lab.curves.elasticity import ElasticitySettings, elasticity_jobs
from tale_lab.questions.datasets import Dataset, Question
from tale_lab.questions.graders import Judge
from tale_lab.results.store import Store
from tale_lab.runs.engines import Engine, LocalEngine, RayEngine
from tale_lab.runs.engines.ray import pack
from tale_lab.runs.runner import run_jobs
from tale_lab.runs.searching import search_jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tale_core import Flow

DATA = Dataset(source="t", questions=tuple(Question.of(f"{n} + 1?", str(n + 1)) for n in range(3)))


def test_both_engines_are_engines() -> None:
    assert isinstance(LocalEngine(ScriptedModel("x"), concurrency=3), Engine)
    engine = RayEngine(ScriptedModel("x"), workers=3, concurrency=5)
    assert isinstance(engine, Engine)
    assert engine.concurrency == 15


def test_a_flow_that_cannot_be_made_costs_only_itself() -> None:
    def broken() -> Flow[None]:
        raise KeyError("no such question")

    def fine() -> Flow[str]:
        yield from ()
        return "made"

    engine = LocalEngine(ScriptedModel("x"), concurrency=1)
    outcomes = list(engine.drive([broken, fine], Store(":memory:").memory(model="m")))
    assert [type(outcome.error) for outcome in outcomes] == [KeyError, type(None)]
    assert outcomes[1].value == "made"


@pytest.mark.parametrize("grader", ["auto", "math", Judge()])
def test_jobs_can_be_sent_to_another_process(grader: str | Judge) -> None:
    jobs = [
        *search_jobs(DATA, SearchSettings(), model="m", grader=grader),
        *elasticity_jobs(DATA, ElasticitySettings(), model="m", grader=grader),
    ]
    for job in jobs:
        flow = pickle.loads(pickle.dumps(job.flow))()  # noqa: S301
        assert next(flow) == next(job.flow())


def test_a_client_travels_by_its_model_string_and_without_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALE_API_KEY", "key-of-this-machine")
    client = ChatClient.open("http://llm.example/v1#llama", temperature=0.5, timeout=7)
    packed = pickle.dumps(Models(client=client))
    assert b"key-of-this-machine" not in packed
    monkeypatch.setenv("TALE_API_KEY", "key-of-that-machine")
    other = pickle.loads(packed).client  # noqa: S301
    assert other._options == {**client._options, "api_key": "key-of-that-machine"}
    assert (other.model, other.base_url, other.temperature) == ("llama", client.base_url, 0.5)
    assert other.timeout == 7


@pytest.mark.parametrize(
    "address", ["http://me:hush@llm.example/v1#llama", "http://llm.example/v1?key=hush#llama"]
)
def test_a_password_or_a_key_in_the_address_stays_here(address: str) -> None:
    client = ChatClient.open(address)
    with pytest.raises(InvalidValueError, match="holds a password or a key") as caught:
        pickle.dumps(client)
    assert repr(client) == "<ChatClient llama at http://llm.example/v1>"
    assert "hush" not in f"{caught.value}{client.address}{ModelString.read(address)!r}"


def test_a_client_with_a_key_of_its_own_stays_here() -> None:
    client = ChatClient("http://llm.example/v1", "llama", api_key="secret")
    with pytest.raises(InvalidValueError, match="open the model by its string") as caught:
        pickle.dumps(client)
    assert "secret" not in str(caught.value)
    keyless = pickle.loads(pickle.dumps(ChatClient("http://llm.example/v1", "llama", timeout=3)))  # noqa: S301
    assert (keyless.model, keyless.timeout) == ("llama", 3)


@pytest.mark.parametrize("sizes", [{"workers": 0}, {"concurrency": 0}])
def test_an_engine_without_places_is_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(InvalidValueError, match="must be at least 1, got 0"):
        RayEngine(ScriptedModel("x"), **sizes)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tale-reasoning\[ray\]'"):
        RayEngine(ScriptedModel("x"))


def test_what_cannot_be_sent_is_named() -> None:
    ray = pytest.importorskip("ray")
    with pytest.raises(EngineError, match="the model cannot be sent to a worker: TypeError"):
        pack(ray, threading.Lock(), "the model")


def test_options_for_workers_are_refused_without_them() -> None:
    with pytest.raises(
        InvalidValueError, match="--workers 3 is for workers of a Ray cluster; add --engine ray"
    ):
        MeasuringOptions(data="none.jsonl", workers=3)
    result = CliRunner().invoke(app, ["search", "none.jsonl", "--ray-address", "auto"])
    assert "--ray-address auto is for workers" in result.output


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Measuring]:
    client = ScriptedModel("x")
    client.model = "m"  # type: ignore[attr-defined]
    monkeypatch.setattr(ChatClient, "open", lambda *_, **__: client)
    return lambda **options: Measuring(MeasuringOptions(data="none.jsonl", **options))


def test_a_limit_sees_the_calls_that_workers_made(measuring: Callable[..., Measuring]) -> None:
    opened = measuring(engine=EngineName.RAY, max_tokens_total=1)
    engine = opened.engine()
    assert isinstance(engine, RayEngine)
    asked = next(search_jobs(DATA, SearchSettings(), model="m")[0].flow())
    assert engine._on_call is not None
    engine._on_call(asked, None)
    with pytest.raises(SpendingLimitError):
        engine._on_call(asked, ScriptedModel("seen")(asked))
    assert (opened.account.spent["calls"], opened.account.spent["failed"]) == (1, 1)


def test_a_run_that_is_left_keeps_its_answers_before_it_returns() -> None:
    store = Store(":memory:")
    running = run_jobs(search_jobs(DATA, SearchSettings(), model="m"), store, ScriptedModel("1"), model="m")
    next(running)
    running.close()
    store.close()  # nothing writes any more


@pytest.mark.parametrize(("engine", "kept"), [(EngineName.LOCAL, "told\n"), (EngineName.RAY, "")])
def test_what_ray_tells_stays_out_of_the_results(
    engine: EngineName, kept: str, measuring: Callable[..., Measuring], capsys: pytest.CaptureFixture[str]
) -> None:
    with measuring(engine=engine).stdout_kept():
        print("told")  # noqa: T201
    assert capsys.readouterr().out == kept
