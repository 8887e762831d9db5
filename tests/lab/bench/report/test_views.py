"""What benchmarks a results file holds, however many runs wrote it."""

from __future__ import annotations

import pytest

from tale_core import DataError, ModelReply, StoreError, Usage
from tale_lab.bench.benchmark import Sampling, bench_jobs
from tale_lab.bench.methods import Method, Said, ask
from tale_lab.bench.report import Plan, Summary, read_views, view_of
from tale_lab.questions.datasets import Dataset, Question
from tale_lab.results.store import Store
from tale_lab.runs.runner import run_jobs


class Plain(Method):
    name = "plain"
    source = "test"
    words: str = ""

    def answer(self, question):
        reply = yield ask(question, after=self.words)
        return Said(text=reply.text)


class Vanilla(Plain):
    name = "vanilla"


def answer(call):
    number = int(call.messages[-1].content.split()[0])
    if number == 3:
        raise TimeoutError("slow")
    return ModelReply(text=f"Answer: {number + 1}", usage=Usage(output_tokens=9), finish_reason="stop")


def dataset(size):
    return Dataset(
        source=f"t[:{size}]", questions=tuple(Question.of(f"{n} + 1?", str(n + 1)) for n in range(size))
    )


def measure(store, methods, *, size=3, model="m", temperature=None):
    data, sampling = dataset(size), Sampling(temperature=temperature)
    plan = Plan.of(data, methods, model=model, sampling=sampling, grader="numeric")
    store.begin_run(command="bench", plan=plan.model_dump(mode="json"))
    jobs = bench_jobs(data, methods, model=model, sampling=sampling, grader="numeric")
    list(run_jobs(jobs, store, answer, model=model))
    return plan


@pytest.fixture
def store():
    return Store(":memory:")


def test_runs_under_the_same_conditions_are_one_benchmark(store):
    measure(store, [Vanilla()])
    plan = measure(store, [Plain()])
    (view,) = read_views(store)
    assert view.labels == ("vanilla", "plain")
    assert len(view.attempts) == 6
    assert view_of(store, plan) == view


def test_another_model_or_temperature_is_another_benchmark(store):
    measure(store, [Vanilla()])
    measure(store, [Vanilla()], model="other")
    measure(store, [Vanilla()], temperature=0.7)
    assert [(view.plan.model, view.plan.sampling.temperature) for view in read_views(store)] == [
        ("m", None),
        ("other", None),
        ("m", 0.7),
    ]
    assert [len(view.attempts) for view in read_views(store)] == [3, 3, 3]


def test_a_run_that_went_on_with_more_questions_takes_in_the_first(store):
    measure(store, [Vanilla()], size=2)
    measure(store, [Vanilla()], size=3)
    (view,) = read_views(store)
    assert (view.plan.data, len(view.attempts)) == ("t[:3]", 3)


def test_one_label_with_two_settings_is_two_methods(store):
    measure(store, [Plain()])
    measure(store, [Plain(words="Be quick.")])
    (view,) = read_views(store)
    assert view.labels == ("plain", "plain (2)")
    assert len(view.of("plain (2)")) == 3


def test_failures_count_for_their_own_method_and_model(store):
    measure(store, [Vanilla(), Plain()], size=4)
    measure(store, [Vanilla()], size=4, model="other")
    measure(store, [Vanilla()], size=4, model="other")
    first, other = read_views(store)
    assert (first.errors("vanilla"), first.errors("plain"), other.errors("vanilla")) == (1, 1, 1)
    assert Summary.of(other).method("vanilla").errors == 1


def test_a_file_without_a_benchmark_is_an_error(store):
    store.begin_run(command="search")
    with pytest.raises(DataError, match="holds no benchmark; make one with: tale bench"):
        read_views(store)


def test_a_run_that_this_version_cannot_read_is_an_error(store):
    store.begin_run(command="bench", plan={"model": "m"})
    with pytest.raises(StoreError, match="run 1 is not a benchmark of this version"):
        read_views(store)


def test_a_local_server_on_another_port_is_the_same_benchmark(store):
    for number, method in enumerate((Vanilla(), Plain())):
        plan = measure(store, [method])
        moved = plan.model_copy(update={"address": f"http://127.0.0.1:{number}/v1"})
        store.begin_run(command="bench", plan=moved.model_dump(mode="json"))
    (view,) = read_views(store)
    assert view.labels == ("vanilla", "plain")
