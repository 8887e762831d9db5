"""Many questions over one model, some of which fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tale_core import DataError, ModelCall, ModelReply, SearchSettings, StoreError, Usage
from tale_lab.questions.datasets import Dataset, Question
from tale_lab.results.store import Store
from tale_lab.runs.runner import Done, Progress, run_jobs
from tale_lab.runs.searching import SearchSummary, most_calls, search_jobs

SETTINGS = SearchSettings(method="halving")


def dataset(size: int = 5) -> Dataset:
    return Dataset(source="test", questions=tuple(Question.of(f"{n} + 1?", str(n + 1)) for n in range(size)))


class Adder:
    """Adds one; takes as many tokens as the budget says; fails on the questions it is told to."""

    def __init__(self, *, failing: tuple[int, ...] = ()) -> None:
        self.failing = failing
        self.calls: list[ModelCall] = []

    def __call__(self, call: ModelCall) -> ModelReply:
        self.calls.append(call)
        number = int(call.messages[-1].content.split()[0])
        if number in self.failing and call.budget == 16:
            raise TimeoutError(f"question {number}")
        usage = Usage(output_tokens=call.budget or 64)
        return ModelReply(text=f"Answer: {number + 1}", usage=usage, finish_reason="stop")


def test_a_failing_question_costs_only_itself_and_is_tried_again() -> None:
    store = Store(":memory:")
    jobs = search_jobs(dataset(), SETTINGS, model="m")
    first = list(run_jobs(jobs, store, Adder(failing=(1, 3)), model="m", concurrency=2))
    assert sum(done.error is not None for done in first) == 2
    assert {failure.error for failure in store.failures()} == {
        "TimeoutError: question 1",
        "TimeoutError: question 3",
    }

    model = Adder()
    second = list(run_jobs(jobs, store, model, model="m"))
    assert sum(done.known for done in second) == 3
    assert all(done.error is None for done in second)
    assert {call.budget for call in model.calls} == {16, 8, 4, 2, 1}, "vanilla, 32 were kept from the first run"
    assert store.failures() == ()


def test_a_model_that_is_gone_ends_the_run_with_its_own_error() -> None:
    store = Store(":memory:")
    asked = []

    def gone(call: ModelCall) -> ModelReply:
        asked.append(call)
        raise ConnectionError("refused")

    with pytest.raises(ConnectionError, match="refused"):
        list(run_jobs(search_jobs(dataset(500), SETTINGS, model="m"), store, gone, model="m", concurrency=2))
    assert len(asked) < 20


def test_a_results_file_that_fails_ends_the_run() -> None:
    store = Store(":memory:")
    jobs = search_jobs(dataset(), SETTINGS, model="m")

    def call(call: ModelCall) -> ModelReply:
        store._db.execute("PRAGMA query_only = ON")
        return Adder()(call)

    with pytest.raises(StoreError, match="readonly"):
        list(run_jobs(jobs, store, call, model="m"))


def test_progress_counts_known_finished_and_failed_questions() -> None:
    store = Store(":memory:")
    seen: list[Progress] = []

    def on_progress(progress: Progress, done: Done[object]) -> None:
        seen.append(replace(progress))

    list(run_jobs(search_jobs(dataset(2), SETTINGS, model="m"), store, Adder(), model="m"))
    jobs = search_jobs(dataset(5), SETTINGS, model="m")
    list(run_jobs(jobs, store, Adder(failing=(3,)), model="m", on_progress=on_progress))

    last = seen[-1]
    assert (last.known, last.finished, last.failed, last.done, last.total) == (2, 2, 1, 5, 5)
    assert last.seconds_left == 0
    assert seen[0].seconds_left is None


def test_another_setting_model_or_grader_is_another_result() -> None:
    key = search_jobs(dataset(1), SETTINGS, model="m")[0].key
    others = [
        search_jobs(dataset(1), SearchSettings(method="bisect"), model="m"),
        search_jobs(dataset(1), SETTINGS, model="other"),
        search_jobs(dataset(1), SETTINGS, model="m", grader="exact"),
    ]
    assert key not in {jobs[0].key for jobs in others}
    assert search_jobs(dataset(1), SETTINGS, model="m")[0].key == key


def test_a_reference_that_cannot_be_graded_stops_before_the_first_call() -> None:
    questions = Dataset(source="test", questions=(Question.of("Capital?", "Paris"),))
    with pytest.raises(DataError, match="'Paris' is no number"):
        search_jobs(questions, SETTINGS, model="m", grader="numeric")


def test_the_summary_totals_what_the_searches_found() -> None:
    store = Store(":memory:")
    jobs = search_jobs(dataset(3), SETTINGS, model="m")
    list(run_jobs(jobs, store, Adder(), model="m"))
    summary = SearchSummary.of(store.traces())
    assert summary.questions == summary.found == summary.vanilla_correct == 3
    assert (summary.vanilla_tokens, summary.best_tokens, summary.calls) == (192, 3, 21)
    assert summary.saved == pytest.approx(1 - 3 / 192)
    assert SearchSummary.of([]).saved == 0


@pytest.mark.parametrize("method", ["halving", "bisect"])
def test_the_bound_on_the_cost_holds(method: str) -> None:
    settings = SearchSettings(method=method, max_tokens=64)
    model, store = Adder(), Store(":memory:")
    list(run_jobs(search_jobs(dataset(3), settings, model="m"), store, model, model="m"))
    assert most_calls(settings) == {"halving": 7, "bisect": 40}[method]
    assert len(model.calls) <= 3 * most_calls(settings)


def test_a_run_that_is_left_makes_no_further_call_and_goes_on_later() -> None:
    store, model = Store(":memory:"), Adder()
    jobs = search_jobs(dataset(50), SETTINGS, model="m")
    running = run_jobs(jobs, store, model, model="m", concurrency=2)
    next(running)
    running.close()
    made = len(model.calls)
    assert made < 7 * 5, "each question takes seven calls"
    list(run_jobs(jobs, store, model, model="m"))
    assert len(model.calls) == 7 * 50, "no call was lost, none was repeated"
