"""A flow plans calls; two drivers answer them, one at a time or many at once."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from tale_core import (
    Flow,
    InvalidValueError,
    Message,
    ModelCall,
    ModelReply,
    ZeroShotEstimator,
    arun,
    concurrency,
    run,
    run_many,
)
from tale_core.flows import observed, resumed
from tale_core.testing import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

T = TypeVar("T")


def ask(text: str) -> ModelCall:
    return ModelCall(role="reason", messages=(Message(role="user", content=text),))


def echo(call: ModelCall) -> ModelReply:
    return ModelReply(text=call.messages[-1].content)


def single(text: str) -> Flow[str]:
    return (yield ask(text)).text


def pair(first: str, second: str) -> Flow[list[str]]:
    return [(yield ask(first)).text, (yield ask(second)).text]


class Guarded:
    """A flow of one call that notes how it ended."""

    def __init__(self) -> None:
        self.ended_by: type[BaseException] | None = None

    def flow(self) -> Flow[str]:
        try:
            return (yield ask("hello")).text
        except BaseException as exc:
            self.ended_by = type(exc)
            raise


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the coroutine waited for something")


@pytest.fixture(params=["run", "arun"])
def drive(request: pytest.FixtureRequest) -> Callable[[Flow[Any], Callable[[ModelCall], ModelReply]], Any]:
    """Either driver, over a synchronous model call."""
    if request.param == "run":
        return run

    def drive_arun(flow: Flow[T], call: Callable[[ModelCall], ModelReply]) -> T:
        async def acall(step: ModelCall) -> ModelReply:
            return call(step)

        return finish(arun(flow, acall))

    return drive_arun


def test_a_flow_can_be_stepped_by_hand_without_any_model() -> None:
    flow = ZeroShotEstimator().estimate("How much is 3 + 4?")
    call = next(flow)
    assert call.role == "estimate"
    assert call.messages[-1].content.endswith("How much is 3 + 4?")
    with pytest.raises(StopIteration) as stop:
        flow.send(ModelReply(text="[[23]]"))
    assert stop.value.value.tokens == 23


def test_each_reply_goes_to_the_call_that_asked_for_it(drive: Any) -> None:
    assert drive(pair("one", "two"), echo) == ["one", "two"]


def test_both_drivers_send_identical_calls() -> None:
    sync, later = ScriptedModel(reason="same"), ScriptedModel(reason="same")
    assert run(pair("one", "two"), sync) == finish(arun(pair("one", "two"), later.acall))
    assert sync.calls == later.calls == [ask("one"), ask("two")]


def test_a_flow_may_need_no_call_at_all(drive: Any) -> None:
    def flow() -> Flow[int]:
        yield from ()
        return 7

    assert drive(flow(), pytest.fail) == 7


def test_a_model_exception_reaches_the_caller_as_the_same_object(drive: Any) -> None:
    class ProviderError(Exception):
        pass

    error = ProviderError("rate limit")

    def fail(call: ModelCall) -> ModelReply:
        raise error

    with pytest.raises(ProviderError) as caught:
        drive(single("hello"), fail)
    assert caught.value is error


def test_a_flow_may_recover_from_a_failed_call(drive: Any) -> None:
    def patient() -> Flow[str]:
        try:
            return (yield ask("first")).text
        except TimeoutError:
            return (yield ask("second")).text

    assert drive(patient(), ScriptedModel(TimeoutError(), "fine")) == "fine"


def test_an_exhausted_iterator_as_a_model_fails_loudly_instead_of_ending_the_flow(drive: Any) -> None:
    replies = iter([ModelReply(text="only one")])
    with pytest.raises(RuntimeError, match="StopIteration"):
        drive(pair("one", "two"), lambda call: next(replies))


def test_an_exhausted_script_fails_loudly_instead_of_ending_the_flow(drive: Any) -> None:
    with pytest.raises(AssertionError, match=r"no line for call 2 \(reason\)"):
        drive(pair("one", "two"), ScriptedModel("only one"))


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_an_interruption_closes_the_flow_and_passes_on(drive: Any, interruption: type[BaseException]) -> None:
    def interrupt(call: ModelCall) -> ModelReply:
        raise interruption

    guarded = Guarded()
    with pytest.raises(interruption):
        drive(guarded.flow(), interrupt)
    assert guarded.ended_by is GeneratorExit  # closed; the interruption itself is none of its business


async def test_cancelling_a_waiting_driver_closes_its_flow() -> None:
    started = asyncio.Event()

    async def wait_forever(call: ModelCall) -> ModelReply:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    guarded = Guarded()
    task = asyncio.create_task(arun(guarded.flow(), wait_forever))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert guarded.ended_by is GeneratorExit


# observed


def test_observing_a_flow_changes_neither_its_calls_nor_its_result(drive: Any) -> None:
    seen: list[tuple[str, str]] = []
    flow = observed(pair("one", "two"), lambda call, reply: seen.append((call.role, reply.text)))
    assert drive(flow, echo) == ["one", "two"]
    assert seen == [("reason", "one"), ("reason", "two")]


def test_observing_notes_answered_calls_only_and_leaves_failures_to_the_flow(drive: Any) -> None:
    def patient() -> Flow[str]:
        try:
            return (yield ask("first")).text
        except TimeoutError:
            return (yield ask("second")).text

    seen: list[str] = []
    flow = observed(patient(), lambda call, reply: seen.append(call.messages[0].content))
    assert drive(flow, ScriptedModel(TimeoutError(), "fine")) == "fine"
    assert seen == ["second"]


def test_closing_an_observed_flow_closes_the_flow_inside() -> None:
    guarded = Guarded()
    flow = observed(guarded.flow(), lambda call, reply: None)
    next(flow)
    flow.close()
    assert guarded.ended_by is GeneratorExit


def test_what_is_known_already_is_recalled_without_a_call(drive: Any) -> None:
    noted: list[str] = []
    flow = observed(
        pair("one", "two"),
        lambda call, reply: noted.append(reply.text),
        recall=lambda call: ModelReply(text="known") if call == ask("one") else None,
    )
    model = ScriptedModel("asked")
    assert drive(flow, model) == ["known", "asked"]
    assert model.calls == [ask("two")]
    assert noted == ["asked"]


def test_a_flow_started_by_hand_can_be_handed_on_at_its_first_call(drive: Any) -> None:
    flow = pair("one", "two")
    model = ScriptedModel("1", "2")
    assert drive(resumed(flow, next(flow)), model) == ["1", "2"]
    assert model.calls == [ask("one"), ask("two")]


def test_a_resumed_flow_still_decides_about_failures_and_is_closed_with_its_driver() -> None:
    guarded = Guarded()
    flow = guarded.flow()
    with pytest.raises(TimeoutError):
        run(resumed(flow, next(flow)), ScriptedModel(TimeoutError()))
    assert guarded.ended_by is TimeoutError
    guarded = Guarded()
    flow = guarded.flow()
    outer = resumed(flow, next(flow))
    next(outer)
    outer.close()
    assert guarded.ended_by is GeneratorExit


# run_many


def numbered(count: int | None = None) -> Iterator[Flow[str]]:
    return (single(str(number)) for number in (itertools.count() if count is None else range(count)))


class InFlight:
    """Counts calls under way."""

    def __init__(self) -> None:
        self.now = self.most = self.total = 0
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        with self.lock:
            self.now += 1
            self.total += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *exc_info: object) -> None:
        with self.lock:
            self.now -= 1


def test_many_flows_run_exactly_as_many_at_a_time_as_asked_for() -> None:
    in_flight = InFlight()
    together = threading.Barrier(3, timeout=60)  # opens for three calls at once, and for fewer never

    def call(step: ModelCall) -> ModelReply:
        with in_flight:
            together.wait()
            return echo(step)

    outcomes = list(run_many(numbered(12), call, concurrency=3))
    assert [one.error for one in outcomes] == [None] * 12
    assert in_flight.most == 3


def test_an_endless_input_is_read_no_further_ahead_than_the_concurrency() -> None:
    read = itertools.count()
    flows = (single(str(next(read))) for _ in itertools.count())
    outcomes = run_many(flows, echo, concurrency=4)
    assert len(list(itertools.islice(outcomes, 10))) == 10
    outcomes.close()
    assert next(read) <= 10 + 4


def picky(call: ModelCall) -> ModelReply:
    if call.messages[0].content == "2":
        raise TimeoutError("number 2 is slow")
    return echo(call)


def test_a_failing_flow_costs_only_itself_and_says_which_one_it_was() -> None:
    outcomes = sorted(run_many(numbered(5), picky, concurrency=3), key=lambda one: one.index)
    assert [one.index for one in outcomes] == [0, 1, 2, 3, 4]
    assert [one.value for one in outcomes] == ["0", "1", None, "3", "4"]
    assert [type(one.error) for one in outcomes if one.error is not None] == [TimeoutError]
    with pytest.raises(TimeoutError, match="number 2 is slow"):
        outcomes[2].unwrap()
    assert outcomes[3].unwrap() == "3"


def test_no_flows_make_no_outcomes() -> None:
    assert list(run_many(numbered(0), picky)) == []


def test_a_hundred_flows_over_one_model_each_get_their_own_reply() -> None:
    expected = {index: str(index) for index in range(100)}
    threads = {one.index: one.value for one in run_many(numbered(100), echo, concurrency=16)}
    assert threads == expected


def test_a_place_that_becomes_free_is_taken_before_the_consumer_has_its_turn() -> None:
    third, over = threading.Event(), threading.Event()

    def call(step: ModelCall) -> ModelReply:
        if step.messages[0].content == "2":
            third.set()
        if step.messages[0].content != "0":
            assert over.wait(timeout=60)
        return echo(step)

    outcomes = run_many(numbered(3), call, concurrency=2)
    assert next(outcomes).index == 0
    assert third.wait(timeout=60)
    over.set()
    assert {one.index for one in outcomes} == {1, 2}


def test_leaving_the_iteration_early_starts_no_further_flow_and_leaves_no_thread_behind() -> None:
    in_flight = InFlight()

    def call(step: ModelCall) -> ModelReply:
        with in_flight:
            return echo(step)

    outcomes = run_many(numbered(), call, concurrency=2)
    next(outcomes)
    outcomes.close()
    assert in_flight.now == 0
    assert in_flight.total <= 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tale-flow")]


def test_leaving_the_iteration_early_makes_no_further_call_of_a_flow_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = threading.Event()
    called: list[str] = []

    class Pool(concurrency.ThreadPoolExecutor):
        """A pool that says when it is about to wait for its threads."""

        def __exit__(self, *exc_info: object) -> bool | None:
            left.set()
            return super().__exit__(*exc_info)

    def call(step: ModelCall) -> ModelReply:
        called.append(step.messages[0].content)
        if called[-1] == "one":
            assert left.wait(timeout=60)
        return echo(step)

    monkeypatch.setattr(concurrency, "ThreadPoolExecutor", Pool)
    outcomes = run_many([pair("one", "two"), single("quick")], call, concurrency=2)
    assert next(outcomes).value == "quick"
    outcomes.close()
    assert sorted(called) == ["one", "quick"]


def test_an_interruption_in_a_thread_reaches_the_consumer() -> None:
    def interrupt(call: ModelCall) -> ModelReply:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_many(numbered(2), interrupt, concurrency=1))


def test_calls_see_the_callers_context_variables() -> None:
    trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace", default="lost")
    trace.set("kept")

    def call(step: ModelCall) -> ModelReply:
        return ModelReply(text=trace.get())

    outcomes = list(run_many(numbered(3), call, concurrency=2))
    assert [one.value for one in outcomes] == ["kept"] * 3


@pytest.mark.parametrize("concurrency", [0, -1])
def test_a_concurrency_below_one_is_refused_with_its_value(concurrency: int) -> None:
    with pytest.raises(InvalidValueError, match=f"at least 1, got {concurrency}"):
        list(run_many(numbered(1), echo, concurrency=concurrency))
