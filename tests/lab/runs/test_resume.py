"""A run over a model that fails at random ends like one over a model that never does."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tale_core import ModelCall, ModelReply, SearchSettings, Usage
from tale_lab.questions.datasets import Dataset, Question
from tale_lab.results.store import Store
from tale_lab.runs.runner import run_jobs
from tale_lab.runs.searching import search_jobs

QUESTIONS = Dataset(source="t", questions=tuple(Question.of(f"{n} + 1?", str(n + 1)) for n in range(3)))


class Unsteady:
    """A pure function of the call, which fails now and then: with an error, or with an empty answer."""

    def __init__(self, seed: int, failures: float) -> None:
        self.seed = seed
        self.failures = failures
        self.luck = random.Random(seed)  # noqa: S311
        self.answered: Counter[tuple[str, int]] = Counter()

    def __call__(self, call: ModelCall) -> ModelReply:
        if self.luck.random() < self.failures:
            if self.luck.random() < 1 / 3:
                return ModelReply(text="", finish_reason="stop")
            raise self.luck.choice([TimeoutError("slow"), ConnectionError("rate limit")])
        text = call.messages[-1].content
        self.answered[text, call.sample] += 1
        rng = random.Random(f"{self.seed} {text} {call.sample}")  # noqa: S311
        right = call.budget is None or rng.random() < 0.7
        answer = int(text.split()[0]) + (1 if right else 2)
        tokens = call.budget or 90
        usage = Usage(output_tokens=rng.randint(1, tokens))
        return ModelReply(text=f"Answer: {answer}", usage=usage, finish_reason="stop")


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(min_value=0, max_value=10**6),
    method=st.sampled_from(["halving", "bisect"]),
    samples=st.integers(min_value=1, max_value=3),
)
def test_runs_that_fail_at_random_end_with_the_same_traces_and_repeat_no_answered_call(
    seed: int, method: str, samples: int
) -> None:
    way = SearchSettings(method=method, samples=samples, max_calls=60)
    jobs = search_jobs(QUESTIONS, way, model="m")
    steady, unsteady = Store(":memory:"), Store(":memory:")
    list(run_jobs(jobs, steady, Unsteady(seed, 0), model="m", concurrency=1))

    model = Unsteady(seed, 0.2)
    rounds = 0
    while any(done.error for done in run_jobs(jobs, unsteady, model, model="m", concurrency=1)):
        rounds += 1
        assert rounds < 400, "every round finishes at least some calls"

    by_id = {trace.question_id: trace for trace in unsteady.traces()}
    assert by_id == {trace.question_id: trace for trace in steady.traces()}
    assert set(model.answered.values()) == {1}
    assert unsteady.failures() == ()
