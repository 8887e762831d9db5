"""What the two handlers record; each test states one thing that must hold for both."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import TransformQueryEngine
from llama_index_instrumentation import get_dispatcher, root_dispatcher
from pydantic import BaseModel, Field
from scripted_llm import ScriptedLLM

from tale_core import Ledger, ModelReply, Usage
from tale_core.testing import ScriptedModel
from tale_llamaindex import (
    TALEBudgetEvent,
    TALECallbackHandler,
    TALEElasticityEvent,
    TALEEventHandler,
    TALEQueryTransform,
    TALEUsageEvent,
)

QUESTION = "How old is Ann?"
ANSWER_TOKENS = 16

Engine = Callable[..., TransformQueryEngine]
Handler = TALEEventHandler | TALECallbackHandler


@pytest.fixture(params=[TALEEventHandler, TALECallbackHandler])
def either(request: pytest.FixtureRequest) -> Iterator[Handler]:
    with request.param() as attached:
        yield attached


def roles(ledger: Ledger) -> list[str]:
    return [call.role for call in ledger.calls]


def kinds(ledger: Ledger) -> list[str]:
    return [event.kind.value for event in ledger.events]


def test_every_call_is_recorded_with_its_role_and_question(either: Handler, make_engine: Engine) -> None:
    make_engine().query(QUESTION)
    estimate, reason = either.ledger.calls
    assert (estimate.role, estimate.budget, estimate.usage.output_tokens) == ("estimate", None, 1)
    assert (reason.role, reason.budget, reason.strategy) == ("reason", 40, "tale")
    assert reason.usage.output_tokens == ANSWER_TOKENS
    assert reason.usage.source == "measured"
    assert estimate.question_id == reason.question_id == either.ledger.budgets[0].question_id


async def test_async_queries_are_recorded_alike(either: Handler, make_engine: Engine) -> None:
    await make_engine().aquery(QUESTION)
    assert roles(either.ledger) == ["estimate", "reason"]
    assert either.ledger.totals("reason").output_tokens == ANSWER_TOKENS


def test_streaming_and_not_streaming_give_the_same_ledger(either: Handler, make_engine: Engine) -> None:
    make_engine().query(QUESTION)
    plain = [(call.role, call.usage, call.budget, call.finish_reason) for call in either.ledger.calls]
    either.ledger.clear()
    list(make_engine(streaming=True).query(QUESTION).response_gen)
    streamed = [(call.role, call.usage, call.budget, call.finish_reason) for call in either.ledger.calls]
    assert streamed == plain


async def test_async_streams_are_recorded(either: Handler, make_engine: Engine) -> None:
    response: Any = await make_engine(streaming=True).aquery(QUESTION)
    async for _ in response.async_response_gen():
        pass
    assert roles(either.ledger) == ["estimate", "reason"]
    assert either.ledger.totals("reason").output_tokens == ANSWER_TOKENS


def test_a_stream_left_early_is_recorded_as_an_estimate(either: Handler, make_engine: Engine) -> None:
    stream: Any = make_engine(streaming=True).query(QUESTION).response_gen
    for _ in range(3):
        next(stream)
    stream.close()
    call = either.ledger.calls[-1]
    assert (call.role, call.usage.source, call.finish_reason) == ("reason", "estimated", "closed")
    assert 0 < call.usage.output_tokens < ANSWER_TOKENS
    assert call.usage.input_tokens > 40, "the whole prompt counts, context included"
    assert kinds(either.ledger) == []


async def test_an_async_stream_left_early_is_recorded(either: Handler, llm: ScriptedLLM) -> None:
    Settings.llm = llm
    stream: Any = await Settings.llm.astream_complete(QUESTION)
    await anext(stream)
    await stream.aclose()
    assert [call.finish_reason for call in either.ledger.calls] == ["closed"]


def test_a_stream_that_is_forgotten_is_recorded_when_it_goes(either: Handler, llm: ScriptedLLM) -> None:
    Settings.llm = llm
    stream = Settings.llm.stream_complete(QUESTION)
    next(stream)
    del stream
    gc.collect()
    assert [call.finish_reason for call in either.ledger.calls] == ["closed"]


def test_streams_read_after_later_queries_keep_their_questions(either: Handler, make_engine: Engine) -> None:
    engine = make_engine(streaming=True)
    streams: list[Any] = [engine.query(f"How old is {name}?").response_gen for name in ("Ann", "Bob")]
    for stream in streams:
        list(stream)
    estimates, reasons = either.ledger.calls[:2], either.ledger.calls[2:]
    assert [call.question_id for call in reasons] == [call.question_id for call in estimates]


def test_a_stream_read_on_another_thread_keeps_its_question(either: Handler, make_engine: Engine) -> None:
    stream: Any = make_engine(streaming=True).query(QUESTION).response_gen
    with ThreadPoolExecutor(1) as pool:
        pool.submit(list, stream).result()
    assert len({call.question_id for call in either.ledger.calls}) == 1


@pytest.mark.parametrize("mode", ["refine", "compact", "tree_summarize", "accumulate", "simple_summarize"])
def test_every_call_of_a_response_mode_belongs_to_the_question(
    either: Handler, make_engine: Engine, mode: str
) -> None:
    make_engine(response_mode=mode, similarity_top_k=3).query(QUESTION)
    assert len({call.question_id for call in either.ledger.calls}) == 1
    assert {call.budget for call in either.ledger.calls if call.role == "reason"} == {40}


def test_a_bundle_transformed_by_hand_keeps_its_question(
    either: Handler, index: VectorStoreIndex, llm: ScriptedLLM
) -> None:
    engine = index.as_query_engine(llm=llm)
    bundle = TALEQueryTransform(llm).run(QUESTION)
    engine.synthesize(bundle, engine.retrieve(bundle))
    estimate, reason = either.ledger.calls
    assert estimate.question_id == reason.question_id
    assert reason.budget == 40


def test_calls_of_a_question_that_do_not_carry_the_budget_are_not_judged(
    handler: TALEEventHandler, index: VectorStoreIndex
) -> None:
    llm = ScriptedLLM(ScriptedModel(estimate="[[40]]", reason="word " * 99))

    class Reranking(TransformQueryEngine):
        def _query(self, query_bundle: Any) -> Any:
            bundle = self._query_transform.run(query_bundle)
            llm.complete("Rank the documents.")
            return self._query_engine.query(bundle)

    Reranking(index.as_query_engine(llm=llm), TALEQueryTransform(llm)).query(QUESTION)
    calls = handler.ledger.calls
    assert [(call.role, call.budget) for call in calls] == [
        ("estimate", None),
        ("reason", None),
        ("reason", 40),
    ]
    assert len({call.question_id for call in calls}) == 1
    assert kinds(handler.ledger) == ["overrun"]


def test_calls_after_a_query_belong_to_themselves(handler: TALEEventHandler, make_engine: Engine) -> None:
    make_engine().query(QUESTION)
    MockLLM().complete("Something else.")
    *query, other = handler.ledger.calls
    assert other.question_id not in {call.question_id for call in query}
    assert other.budget is None


def test_a_run_without_tale_is_a_baseline(
    handler: TALEEventHandler, make_engine: Engine, index: VectorStoreIndex
) -> None:
    make_engine().query(QUESTION)
    vanilla = ScriptedLLM(ScriptedModel(reason="word " * 99 + "36"))
    with TALEEventHandler() as baseline:
        index.as_query_engine(llm=vanilla).query(QUESTION)
        taken = Ledger()
        taken.record_all(baseline.ledger.calls)
    handler.ledger.clear()
    make_engine().query(QUESTION)
    assert taken.totals("reason").output_tokens == 100
    assert handler.ledger.savings(taken).net_tokens == 100 - ANSWER_TOKENS - 1


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("word " * 61, ["overrun"]),
        ("36", ["collapse"]),
        ("word " * 8, ["collapse"]),
        ("", ["truncated"]),
        (ModelReply(text="word " * 30, usage=Usage(output_tokens=30), finish_reason="length"), ["truncated"]),
        ("word " * 30, []),
    ],
)
def test_answers_are_judged_against_their_budget(
    either: Handler, index: VectorStoreIndex, reason: Any, expected: list[str]
) -> None:
    llm = ScriptedLLM(ScriptedModel(estimate="[[40]]", reason=reason))
    TransformQueryEngine(index.as_query_engine(llm=llm), TALEQueryTransform(llm)).query(QUESTION)
    assert kinds(either.ledger) == expected


def test_streams_without_usage_are_counted_and_marked(either: Handler, index: VectorStoreIndex) -> None:
    llm = ScriptedLLM(ScriptedModel(estimate="[[40]]", reason="word " * 20), reports_usage=False)
    engine = TransformQueryEngine(index.as_query_engine(llm=llm, streaming=True), TALEQueryTransform(llm))
    list(engine.query(QUESTION).response_gen)
    assert [call.usage.source for call in either.ledger.calls] == ["estimated", "estimated"]
    assert either.ledger.totals().output_tokens == 0
    assert either.ledger.totals("reason", source="estimated").output_tokens >= 20


def test_thinking_in_the_text_counts_where_the_provider_does_not(either: Handler) -> None:
    llm = ScriptedLLM(ScriptedModel(reason="<think>" + "word " * 50 + "</think> 36"), reports_usage=False)
    Settings.llm = llm
    Settings.llm.complete(QUESTION)
    assert either.ledger.totals(source="estimated").output_tokens > 50


def test_a_call_that_raises_is_not_recorded(either: Handler) -> None:
    Settings.llm = ScriptedLLM(ScriptedModel(reason=ConnectionError("down")))
    with pytest.raises(ConnectionError):
        Settings.llm.complete(QUESTION)
    assert either.ledger.calls == ()


def test_a_stream_that_breaks_is_recorded_up_to_there(either: Handler) -> None:
    class Breaking(ScriptedLLM):
        def _chunks(self, reply: ModelReply) -> Iterator[Any]:
            yield from list(super()._chunks(reply))[:3]
            raise ConnectionError("reset")

    Settings.llm = Breaking(ScriptedModel(reason="one two three four five"))
    with pytest.raises(ConnectionError, match="reset"):
        list(Settings.llm.stream_complete(QUESTION))
    (call,) = either.ledger.calls
    assert call.usage.source == "estimated"
    assert call.usage.output_tokens == 3


# --- nothing is counted twice


def test_both_handlers_count_each_call_once(make_engine: Engine) -> None:
    with TALEEventHandler() as handler, TALECallbackHandler() as callbacks:
        make_engine().query(QUESTION)
    assert handler.ledger.calls == callbacks.ledger.calls
    assert handler.ledger.budgets == callbacks.ledger.budgets
    assert handler.ledger.count() == 2


def test_one_ledger_for_both_handlers_counts_each_call_once(make_engine: Engine) -> None:
    ledger = Ledger()
    with TALEEventHandler(ledger=ledger), TALECallbackHandler(ledger=ledger):
        make_engine().query(QUESTION)
        Settings.llm = MockLLM()
        Settings.llm.complete("Something else.")
    assert roles(ledger) == ["estimate", "reason", "reason"]


def test_a_handler_attached_twice_counts_once(handler: TALEEventHandler, llm: ScriptedLLM) -> None:
    handler.attach()
    llm.complete(QUESTION)
    assert handler.ledger.count() == 1


def test_a_callback_handler_in_two_managers_counts_once(llm: ScriptedLLM) -> None:
    handler = TALECallbackHandler()
    llm.callback_manager = CallbackManager([handler, handler])
    llm.complete(QUESTION)
    assert handler.ledger.count() == 1


@pytest.mark.parametrize("endpoint", ["chat", "complete", "stream_chat", "stream_complete"])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_llm_whose_methods_call_each_other_counts_once(
    either: Handler, endpoint: str, asynchronous: bool
) -> None:
    # MockLLM: achat calls chat calls complete, astream_chat calls stream_chat only when it is read.
    Settings.llm = MockLLM(max_tokens=4)
    prompt: Any = QUESTION if "complete" in endpoint else []
    answer = getattr(Settings.llm, f"a{endpoint}" if asynchronous else endpoint)(prompt)
    if asynchronous:
        answer = await answer
    if isinstance(answer, AsyncGenerator):
        async for _ in answer:
            pass
    elif "stream" in endpoint:
        list(answer)
    assert roles(either.ledger) == ["reason"]


class Age(BaseModel):
    """Somebody's age."""

    years: int


@pytest.mark.parametrize("stream", [False, True])
def test_structured_llms_count_the_inner_call_with_its_usage(either: Handler, stream: bool) -> None:
    Settings.llm = ScriptedLLM(ScriptedModel(reason='{"years": 36}'))
    structured = Settings.llm.as_structured_llm(Age, callback_manager=Settings.callback_manager)
    if stream:
        list(structured.stream_chat([]))
    else:
        structured.chat([])
    (call,) = either.ledger.calls
    assert call.usage.source == "measured"


def test_upstream_token_counting_is_not_disturbed(make_engine: Engine) -> None:
    counter = TokenCountingHandler()
    Settings.callback_manager = CallbackManager([counter, TALECallbackHandler()])
    make_engine().query(QUESTION)
    assert counter.completion_llm_token_count == ANSWER_TOKENS + 1


# --- concurrency


def questions(count: int) -> list[str]:
    return [f"How old is person number {number}?" for number in range(count)]


def numbered(call: Any) -> str:
    """Answer with as many words as the question's number, so that each call shows whose it is."""
    text = call.messages[-1].content
    number = int(text.rsplit("person number ", 1)[1].split("?", 1)[0])
    return " ".join(["word"] * (number + 1))


def check_attribution(ledger: Ledger, count: int) -> None:
    """Check that question n was estimated at n + 101 tokens and answered in n + 1."""
    assert ledger.count("estimate") == ledger.count("reason") == count
    by_question: dict[str, list[Any]] = {}
    for call in ledger.calls:
        by_question.setdefault(call.question_id, []).append(call)
    assert len(by_question) == count
    budgets = {budget.question_id: budget.budget for budget in ledger.budgets}
    for question_id, calls in by_question.items():
        estimate, reason = sorted(calls, key=lambda call: call.role)
        assert (estimate.role, reason.role) == ("estimate", "reason")
        assert reason.budget == budgets[question_id] == reason.usage.output_tokens + 100
        assert reason.usage.source == "measured"


def concurrent_llm(**fields: Any) -> ScriptedLLM:
    def estimate(call: Any) -> str:
        return f"[[{len(numbered(call).split()) + 100}]]"

    return ScriptedLLM(ScriptedModel(estimate=estimate, reason=numbered), **fields)


COUNT = 100


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_hundred_queries_on_one_loop_keep_their_questions(
    either: Handler, mock_index: VectorStoreIndex, streaming: bool
) -> None:
    llm = concurrent_llm(latency=0.001)
    transform = TALEQueryTransform(llm)
    engine = mock_index.as_query_engine(llm=llm, streaming=streaming)

    async def ask(question: str) -> None:
        response: Any = await engine.aquery(await transform.arun(question))
        if streaming:
            async for _ in response.async_response_gen():
                await asyncio.sleep(0)

    await asyncio.gather(*(ask(question) for question in questions(COUNT)))
    check_attribution(either.ledger, COUNT)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hundred_queries_on_threads_keep_their_questions(
    either: Handler, mock_index: VectorStoreIndex, streaming: bool
) -> None:
    llm = concurrent_llm(latency=0.001)
    engine = TransformQueryEngine(
        mock_index.as_query_engine(llm=llm, streaming=streaming), TALEQueryTransform(llm)
    )

    def ask(question: str) -> None:
        response: Any = engine.query(question)
        if streaming:
            list(response.response_gen)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, questions(COUNT)))
    check_attribution(either.ledger, COUNT)


async def test_a_hundred_equal_questions_are_a_hundred_questions(
    either: Handler, mock_index: VectorStoreIndex
) -> None:
    llm = ScriptedLLM(ScriptedModel(estimate="[[40]]", reason="word " * 20), latency=0.001)
    engine = TransformQueryEngine(mock_index.as_query_engine(llm=llm), TALEQueryTransform(llm))
    await asyncio.gather(*(engine.aquery(QUESTION) for _ in range(COUNT)))
    by_question: dict[str, list[str]] = {}
    for call in either.ledger.calls:
        by_question.setdefault(call.question_id, []).append(call.role)
    assert sorted(map(sorted, by_question.values())) == [["estimate", "reason"]] * COUNT


def test_concurrent_calls_of_one_question_are_all_its_own(either: Handler, make_engine: Engine) -> None:
    make_engine(response_mode="accumulate", similarity_top_k=3, use_async=True).query(QUESTION)
    assert roles(either.ledger) == ["estimate", "reason", "reason", "reason"]
    assert len({call.question_id for call in either.ledger.calls}) == 1


# --- the dispatcher, and what users do with it


def test_users_handlers_receive_the_three_events(make_engine: Engine) -> None:
    class Keeping(BaseEventHandler):
        kept: list[Any] = Field(default_factory=list)

        def handle(self, event: Any, **_: Any) -> None:
            if isinstance(event, TALEBudgetEvent | TALEUsageEvent | TALEElasticityEvent):
                self.kept.append(event)

    keeping = Keeping()
    get_dispatcher().add_event_handler(keeping)
    make_engine(TALEQueryTransform(MockLLM(), estimator=8)).query(QUESTION)
    budget, usage, elasticity = keeping.kept
    assert (budget.class_name(), budget.budget, budget.source) == ("TALEBudgetEvent", 8, "fixed")
    assert (usage.class_name(), usage.role, usage.usage.output_tokens) == (
        "TALEUsageEvent",
        "reason",
        ANSWER_TOKENS,
    )
    assert (elasticity.class_name(), elasticity.kind, elasticity.actual) == (
        "TALEElasticityEvent",
        "overrun",
        ANSWER_TOKENS,
    )
    assert elasticity.model_dump(mode="json")["kind"] == "overrun"
    assert len({event.question_id for event in keeping.kept}) == 1


def test_a_handler_on_an_inner_dispatcher_receives_them_too(make_engine: Engine) -> None:
    seen: list[str] = []

    class Listener(BaseEventHandler):
        def handle(self, event: Any, **_: Any) -> None:
            seen.append(event.class_name())

    inner = get_dispatcher("tale_llamaindex.events")
    inner.add_event_handler(Listener())
    try:
        make_engine().query(QUESTION)
    finally:
        inner.event_handlers.clear()
    assert seen == ["TALEUsageEvent", "TALEBudgetEvent", "TALEUsageEvent"]


def test_no_event_is_made_that_nobody_hears(
    make_engine: Engine, llm: ScriptedLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError

    for kind in (TALEBudgetEvent, TALEUsageEvent, TALEElasticityEvent):
        monkeypatch.setattr(kind, "__init__", refuse)
    assert not [one for one in root_dispatcher.event_handlers if isinstance(one, TALEEventHandler)]
    make_engine().query(QUESTION)
    llm.complete("How old is Bob?")


def test_no_event_carries_prompt_text(make_engine: Engine) -> None:
    class Dumping(BaseEventHandler):
        dumped: list[str] = Field(default_factory=list)

        def handle(self, event: Any, **_: Any) -> None:
            if event.class_name().startswith("TALE"):
                self.dumped.append(event.model_dump_json())

    dumping = Dumping()
    get_dispatcher().add_event_handler(dumping)
    make_engine().query(QUESTION)
    assert dumping.dumped
    assert not any("Ann" in event for event in dumping.dumped)


def test_handlers_cleared_by_others_do_not_end_the_watch(make_engine: Engine) -> None:
    engine = make_engine()
    root_dispatcher.event_handlers = []
    with TALEEventHandler() as handler:
        engine.query(QUESTION)
    assert roles(handler.ledger) == ["estimate", "reason"]


def test_a_detached_handler_keeps_what_it_has_and_hears_no_more(llm: ScriptedLLM) -> None:
    with TALEEventHandler() as handler:
        llm.complete(QUESTION)
    llm.complete(QUESTION)
    assert handler.ledger.count() == 1
    assert handler not in root_dispatcher.event_handlers


def test_a_callback_handler_leaves_settings_as_it_was() -> None:
    with TALECallbackHandler() as handler:
        assert handler in Settings.callback_manager.handlers
    assert Settings.callback_manager.handlers == []


def test_a_callback_handler_hears_only_its_own_managers_calls(llm: ScriptedLLM) -> None:
    handler = TALECallbackHandler()
    llm.callback_manager = CallbackManager([handler])
    llm.complete(QUESTION)
    MockLLM().complete(QUESTION)
    assert handler.ledger.count() == 1


@pytest.mark.parametrize("kind", [TALEEventHandler, TALECallbackHandler])
def test_a_handler_prints_as_a_table(kind: type[Handler], make_engine: Engine) -> None:
    with kind() as handler:
        make_engine().query(QUESTION)
    assert str(handler) == str(handler.ledger)
    assert str(handler).splitlines()[1].split()[:2] == ["estimate", "1"]


def test_watching_leaves_nothing_behind(make_engine: Engine) -> None:
    from tale_llamaindex._observer import OBSERVER
    from tale_llamaindex._tracking import HERE

    make_engine().query(QUESTION)
    list(make_engine(streaming=True).query(QUESTION).response_gen)
    with pytest.raises(ConnectionError):
        ScriptedLLM(ScriptedModel(reason=ConnectionError())).complete(QUESTION)
    assert (OBSERVER._open, OBSERVER._yielded) == ({}, {})
    ground = HERE.get()
    assert ground is None or (ground.id, ground.parent) == (None, None)
