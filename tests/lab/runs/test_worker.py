"""A worker takes flows step by step, in a process that may end at any time."""

from __future__ import annotations

import pickle
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tale_core import EngineError, Message, MissingExtraError, ModelCall, ModelReply
from tale_core.testing import ScriptedModel
from tale_lab.runs.engines.worker import Step, Worker, portable

if TYPE_CHECKING:
    from tale_core import Flow


def call(text: str) -> ModelCall:
    return ModelCall(role="reason", messages=(Message(role="user", content=text),))


def asking(*texts: str) -> Flow[list[str]]:
    """Ask some questions and return the answers; what fails is skipped."""
    answers = []
    for text in texts:
        try:
            answers.append((yield call(text)).text)
        except TimeoutError:
            answers.append("nothing")
    return answers


def failing() -> Flow[None]:
    yield call("first")
    raise Foreign(status=429, body="busy")


def impossible() -> Flow[None]:
    raise KeyError("no such question")


class Foreign(Exception):  # noqa: N818  # as SDKs name and build theirs
    """An error that cannot be pickled: it is built from keywords."""

    def __init__(self, *, status: int, body: str) -> None:
        super().__init__(f"HTTP {status}: {body}")


def answer(call: ModelCall) -> ModelReply:
    return ModelReply(text=f"on {call.messages[0].content}", native=lambda: "cannot be pickled")


def unanswered(_: ModelCall) -> ModelReply:
    raise TimeoutError("slow")


def worker(call: Any = answer) -> Worker:
    return Worker(pickle.dumps(call))


def test_a_flow_goes_from_call_to_call_and_returns_each_answer_on_its_way() -> None:
    one = worker()
    assert one.begin(7, pickle.dumps(partial(asking, "a", "b"))) == Step(asked=call("a"))
    assert one.go_on(7, None) == Step(answer=ModelReply(text="on a"), asked=call("b"))
    assert one.go_on(7, None) == Step(answer=ModelReply(text="on b"), value=["on a", "on b"])
    assert one.go_on(7, None) is None


def test_a_known_answer_is_taken_without_a_call() -> None:
    one = worker(partial(ScriptedModel, AssertionError("asked")))
    one.begin(0, pickle.dumps(partial(asking, "a")))
    assert one.go_on(0, ModelReply(text="known")) == Step(value=["known"])


def test_steps_can_be_sent_whatever_the_provider_answered() -> None:
    one = worker()
    one.begin(0, pickle.dumps(partial(asking, "a")))
    step = one.go_on(0, None)
    assert pickle.loads(pickle.dumps(step)) == step  # noqa: S301


def test_a_failed_call_goes_into_its_flow() -> None:
    one = worker(unanswered)
    one.begin(0, pickle.dumps(partial(asking, "a", "b")))
    assert one.go_on(0, None) == Step(failed=True, asked=call("b"))
    assert one.go_on(0, None) == Step(failed=True, value=["nothing", "nothing"])


def test_a_flow_that_fails_costs_only_itself() -> None:
    one = worker()
    for number, make in enumerate((failing, partial(asking, "a"))):
        one.begin(number, pickle.dumps(make))
    failed = one.go_on(0, None)
    assert failed is not None
    assert isinstance(failed.error, EngineError)
    assert str(failed.error) == "Foreign: HTTP 429: busy"
    assert failed.answer == ModelReply(text="on first"), "what was answered is not lost with the flow"
    assert one.go_on(1, None) == Step(answer=ModelReply(text="on a"), value=["on a"])


@pytest.mark.parametrize("packed", [b"no pickle", pickle.dumps(impossible)])
def test_what_cannot_be_made_is_an_error_of_its_flow(packed: bytes) -> None:
    assert isinstance(worker().begin(0, packed).error, Exception)


def test_a_worker_that_was_started_anew_knows_nothing_of_a_flow() -> None:
    assert worker().go_on(7, None) is None


def test_a_flow_that_was_begun_again_is_not_stepped_by_a_call_of_its_former_self() -> None:
    make = pickle.dumps(partial(asking, "a", "b"))

    def interrupted(asked: ModelCall) -> ModelReply:
        one._call = answer
        one.begin(0, make)  # the line broke meanwhile, and whoever drives began again
        return answer(asked)

    one = worker()
    one._call = interrupted
    one.begin(0, make)
    assert one.go_on(0, None) == Step(answer=ModelReply(text="on a"), asked=call("b"))
    assert one.go_on(0, None) == Step(answer=ModelReply(text="on a"), asked=call("b"))
    assert one.go_on(0, None) == Step(answer=ModelReply(text="on b"), value=["on a", "on b"])


def test_a_model_that_cannot_be_opened_is_said_in_words() -> None:
    assert worker().ready() is None
    assert str(Worker(b"no pickle").ready()).startswith("UnpicklingError")


@pytest.mark.parametrize("error", [ValueError("x"), MissingExtraError("ray", "ray"), EngineError("y")])
def test_an_error_that_can_travel_stays_as_it_is(error: Exception) -> None:
    assert portable(error) is error
