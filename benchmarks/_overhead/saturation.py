"""Tokens a second through what ``tale bench`` runs, beside the ``openai`` SDK on threads and nothing else."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai

from _overhead.figures import Spread, Table
from _overhead.server import OUTPUT_TOKENS, serve
from tale_core.models.client import ChatClient
from tale_lab.bench.benchmark import bench_jobs
from tale_lab.bench.methods import Conditions, get_method
from tale_lab.questions.datasets import Dataset, Question
from tale_lab.results.store import Store
from tale_lab.runs.runner import run_jobs

if TYPE_CHECKING:
    from collections.abc import Iterator

_METHOD = "tale"
_CALLS_A_QUESTION = 2
"""An estimate and an answer; the same for every question, so that all threads come to their end together."""
_MODEL = "fixed-delay"
_CONCURRENCY = (8, 32)
_COLUMNS = {
    "server": "",
    "at once": "d",
    "calls": "d",
    "SDK tokens/s": ",.0f",
    "tale bench tokens/s": ",.0f",
    "tale bench / SDK": ".3f",
    "added ms per call": ".2f",
}


def measure(*, delay: float, seconds: float, runs: int) -> Table:
    """Answer the same number of calls both ways, in turns.

    Args:
        delay: Seconds that the server takes for an answer.
        seconds: How long one run is to take, about.
        runs: How many pairs of runs.
    """
    says = (
        "Output tokens a second: questions through jobs, store, grader and client as `tale bench` runs them "
        "(TALE, 2 calls a question), against as many calls of one `openai` client on as many "
        "threads. A server in another process answers after a fixed time, or at once: then both sides are as "
        f"fast as this machine's processors let them be. The middle half of {runs} pairs of runs."
    )
    table = Table("Saturation", says, _COLUMNS)
    for pause in (delay, 0.0):
        with _server(pause) as address:
            for concurrency in _CONCURRENCY if pause else _CONCURRENCY[:1]:
                questions = _questions(pause, concurrency, seconds)
                table.rows.append(_row(address, pause, concurrency, questions, runs))
    return table


def _questions(pause: float, concurrency: int, seconds: float) -> int:
    """Return how many questions keep the server busy for so long; whole rounds, so that no thread is idle."""
    if not pause:
        return max(concurrency, round(seconds * 50))
    return concurrency * max(1, round(seconds / pause / _CALLS_A_QUESTION))


def _row(address: str, pause: float, concurrency: int, questions: int, runs: int) -> dict[str, Any]:
    calls = questions * _CALLS_A_QUESTION
    pairs = [
        (_through_sdk(address, calls, concurrency), _through_bench(address, questions, concurrency))
        for _ in range(runs)
    ]
    tokens = calls * OUTPUT_TOKENS
    return {
        "server": f"{pause * 1e3:.0f} ms an answer" if pause else "answers at once",
        "at once": concurrency,
        "calls": calls,
        "SDK tokens/s": Spread.of([tokens / theirs for theirs, _ in pairs]).median,
        "tale bench tokens/s": Spread.of([tokens / ours for _, ours in pairs]).median,
        "tale bench / SDK": Spread.of([theirs / ours for theirs, ours in pairs]),
        "added ms per call": Spread.of([(ours - theirs) / calls * 1e3 for theirs, ours in pairs]),
    }


def _through_sdk(address: str, calls: int, concurrency: int) -> float:
    """Return the seconds of so many calls through the SDK alone."""
    direct = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(base_url=address, api_key="none", http_client=direct) as client:

        def ask(number: int) -> object:
            content = f"{_text(number)}\n\nLet's think step by step:"
            return client.chat.completions.create(
                model=_MODEL, messages=[{"role": "user", "content": content}], max_tokens=512
            )

        with ThreadPoolExecutor(concurrency) as pool:
            [*pool.map(ask, range(concurrency))]  # opens the connections
            started = time.perf_counter()
            [*pool.map(ask, range(calls))]
            return time.perf_counter() - started


def _through_bench(address: str, questions: int, concurrency: int) -> float:
    """Return the seconds of so many questions through everything that ``tale bench`` puts around a call."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(Path(folder) / "run.sqlite") as store,
        closing(ChatClient(address, _MODEL)) as client,
    ):
        _work(store, client, range(concurrency), concurrency)  # opens the connections
        started = time.perf_counter()
        _work(store, client, range(concurrency, concurrency + questions), concurrency)
        return time.perf_counter() - started


def _work(store: Store, client: ChatClient, numbers: range, concurrency: int) -> None:
    asked = tuple(Question(id=str(number), question=_text(number), answer="48") for number in numbers)
    dataset = Dataset(source="numbered", questions=asked)
    method = get_method(_METHOD).under(Conditions())
    jobs = bench_jobs(dataset, [method], model=_MODEL, grader="numeric")
    for done in run_jobs(jobs, store, client, model=_MODEL, concurrency=concurrency):
        assert done.error is None, done.error


def _text(number: int) -> str:
    return f"A farm has {number} hens and each of them lays four dozen eggs a year. How many eggs does one lay?"


@contextmanager
def _server(delay: float) -> Iterator[str]:
    """Serve in another process; the value is the address."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, delay), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1"
    finally:
        process.terminate()
        process.join()
