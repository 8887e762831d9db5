"""Many methods on the same questions: in turn, each answer accounted for, within a limit."""

from __future__ import annotations

import json
import pickle

import pytest

from tale_core import EmptyAnswerError, InvalidValueError, ModelCall, ModelReply, Usage, run
from tale_lab.bench.benchmark import Attempt, Sampling, attempt, bench_jobs
from tale_lab.bench.methods import Conditions, Method, Said, TaleAsPublished, Vanilla, ask, get_method
from tale_lab.questions.datasets import Dataset, Question

QUESTION = Question.of("How much is 3 + 4?", "7")
DATA = Dataset(source="t", questions=tuple(Question.of(f"{n} + 1?", str(n + 1)) for n in range(4)))


class Careful(Method):
    """Compares with a reference, estimates, answers, and has the answer judged."""

    name = "careful"
    source = "test"
    words: str = "Be careful."

    def answer(self, question):
        for role in ("reference", "estimate"):
            yield ask(question, role=role)
        reply = yield ask(question, after=self.words)
        yield ask(question, role="judge")
        return Said(text=reply.text)


def answering(*texts: str):
    def call(call: ModelCall) -> ModelReply:
        calls.append(call)
        text = texts[min(len(calls), len(texts)) - 1]
        usage = Usage(input_tokens=10, output_tokens=len(calls))
        return ModelReply(text=text, usage=usage, finish_reason="stop", seconds=0.5)

    calls: list[ModelCall] = []
    return call, calls


def graded(text: str) -> bool:
    return "7" in text


def test_methods_take_turns_and_each_question_begins_with_another_one():
    jobs = bench_jobs(DATA, [Vanilla(), TaleAsPublished(), Careful()], model="m")
    assert [job.label for job in jobs][:9] == [
        "vanilla", "tale", "careful", "tale", "careful", "vanilla", "careful", "vanilla", "tale",
    ]  # fmt: skip


def test_an_answers_cost_leaves_out_judges_and_what_is_counted_elsewhere():
    call, _ = answering("7")
    one = run(attempt(Careful(), QUESTION, graded, sampling=Sampling(), data="t"), call)
    assert [(cost.role, cost.usage.output_tokens) for cost in one.calls] == [("estimate", 2), ("reason", 3)]
    assert (one.net_tokens, one.output_tokens("estimate"), one.input_tokens, one.seconds) == (5, 2, 20, 1.0)
    assert (one.correct, one.data, one.reference) == (True, "t", "7")


def test_sampling_applies_where_the_method_does_not_decide():
    class Hot(Careful):
        name = "hot"

        def answer(self, question):
            reply = yield ask(question).model_copy(update={"temperature": 0.9})
            return Said(text=reply.text)

    call, calls = answering("7")
    run(attempt(Hot(), QUESTION, graded, sampling=Sampling(temperature=0.1, max_tokens=50)), call)
    assert (calls[0].temperature, calls[0].max_tokens) == (0.9, 50)


def test_a_model_that_answers_nothing_is_an_error_and_no_wrong_answer():
    call, _ = answering(" ")
    with pytest.raises(EmptyAnswerError, match="answered nothing"):
        run(attempt(Vanilla(), QUESTION, graded, sampling=Sampling()), call)


def test_what_no_provider_counted_is_marked():
    one = run(
        attempt(Vanilla(), QUESTION, graded, sampling=Sampling()),
        lambda _: ModelReply(text="7", finish_reason="stop"),
    )
    assert one.estimated
    assert one.seconds is None


def test_keys_differ_by_everything_that_decides_an_answer_and_by_nothing_else():
    def keys(method: Method, data: Dataset = DATA, **conditions) -> set[str]:
        return {
            job.key for job in bench_jobs(data, [method], **{"model": "m", "grader": "numeric", **conditions})
        }

    first = keys(Careful())
    assert keys(Careful()) == first
    assert keys(Careful(), DATA.model_copy(update={"source": "another name"})) == first
    others = [
        keys(Vanilla()),
        keys(Careful(words="Be quick.")),
        keys(Careful(), model="other"),
        keys(Careful(), grader="exact"),
        keys(Careful(), sampling=Sampling(temperature=1)),
    ]
    assert len(set.union(first, *others)) == 6 * 4


@pytest.mark.parametrize(
    ("methods", "message"),
    [([], "needs methods, got none"), ([Vanilla(), Careful(), Vanilla()], "named twice: vanilla")],
)
def test_invalid_methods(methods, message):
    with pytest.raises(InvalidValueError, match=message):
        bench_jobs(DATA, methods, model="m")


@pytest.mark.parametrize("name", ["vanilla", "tale", "self-consistency", "tale:essential@50"])
def test_jobs_can_be_sent_to_another_process(name):
    method = get_method(name).under(Conditions())
    (job, *_) = bench_jobs(DATA, [method], model="m", grader="numeric")
    flow = pickle.loads(pickle.dumps(job.flow))()  # noqa: S301
    one = run(flow, lambda _: ModelReply(text="Answer: 1", usage=Usage(output_tokens=3), finish_reason="stop"))
    assert (one.method, one.correct) == (name, True)


def test_an_answer_stored_before_calls_were_usage_events_is_read() -> None:
    call, _ = answering("7")
    stored = json.loads(run(attempt(Careful(), QUESTION, graded, sampling=Sampling()), call).model_dump_json())
    old = ("role", "usage", "budget", "finish_reason", "seconds")
    stored["calls"] = [{name: one[name] for name in old} for one in stored["calls"]]
    stored["method"] = "tale-profile"
    read = Attempt.model_validate_json(json.dumps(stored))
    assert (read.net_tokens, read.seconds, read.method) == (5, 1.0, "tale-calibration")
