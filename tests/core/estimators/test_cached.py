"""What was paid for once is not paid for again."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
import shelve
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.stores import BaseStore, InMemoryByteStore, InMemoryStore

from tale_core import (
    CachedEstimator,
    ChainEstimator,
    Estimate,
    Estimator,
    FixedEstimator,
    Flow,
    InvalidValueError,
    ModelCall,
    ModelReply,
    TaleMethod,
    ZeroShotEstimator,
    arun,
    run,
)
from tale_core.estimators import cached
from tale_core.testing import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

QUESTION = "How many secret eggs are left?"


def counting_model() -> ScriptedModel:
    """Says 40 to the first question it is asked about, 41 to the second, and so on."""
    numbers = iter(range(40, 1000))
    return ScriptedModel(estimate=lambda call: f"[[{next(numbers)}]]")


def asked(estimator: Estimator, model: ScriptedModel, *questions: str) -> list[int | None]:
    return [run(estimator.estimate(question), model).tokens for question in questions]


def test_a_question_is_estimated_once() -> None:
    model = counting_model()
    estimator = CachedEstimator(ZeroShotEstimator())
    assert asked(estimator, model, QUESTION, "Another?", QUESTION, QUESTION) == [40, 41, 40, 40]
    assert len(model.calls) == 2


async def test_both_drivers_share_what_is_kept() -> None:
    model = counting_model()
    estimator = CachedEstimator(ZeroShotEstimator())
    first = await arun(estimator.estimate(QUESTION), model.acall)
    assert run(estimator.estimate(QUESTION), model) == first == Estimate(tokens=40, source="zero-shot")


def test_a_kept_estimate_costs_nothing_in_the_accounts() -> None:
    model = ScriptedModel(estimate="[[40]]", reason="The answer is 4.")
    method = TaleMethod(estimator=CachedEstimator(ZeroShotEstimator()))
    first, second = (run(method.begin(QUESTION).answer(), model) for _ in range(2))
    assert first.estimate_usage is not None
    assert second.estimate_usage is None
    assert first.plan.budget == second.plan.budget


@pytest.mark.parametrize(
    "other",
    [
        CachedEstimator(ZeroShotEstimator(max_tokens=65)),
        CachedEstimator(ZeroShotEstimator(language="zh")),
        CachedEstimator(ZeroShotEstimator(prompt="How many tokens?")),
        CachedEstimator(ZeroShotEstimator(), model="another"),
    ],
    ids=["cap", "language", "prompt", "model"],
)
def test_other_settings_are_another_entry(other: CachedEstimator) -> None:
    model = counting_model()
    first = CachedEstimator(ZeroShotEstimator())
    other.store = first.store
    assert asked(first, model, QUESTION) == [40]
    assert asked(other, model, QUESTION) == [41]


def test_failures_and_unusable_replies_are_not_kept() -> None:
    model = ScriptedModel("I cannot say", ConnectionError("gone"), "[[50]]")
    estimator = CachedEstimator(ZeroShotEstimator())
    assert asked(estimator, model, QUESTION) == [None]
    with pytest.raises(ConnectionError, match="gone"):
        run(estimator.estimate(QUESTION), model)
    assert asked(estimator, model, QUESTION, QUESTION) == [50, 50]


def test_an_inner_estimator_may_recover_from_a_failed_call() -> None:
    estimator = CachedEstimator(ChainEstimator(ZeroShotEstimator(), FixedEstimator(70)))
    assert run(estimator.estimate(QUESTION), ScriptedModel(ConnectionError("gone"))).tokens == 70


def test_what_needs_no_call_is_not_kept() -> None:
    estimator = CachedEstimator(FixedEstimator(30), store := {})
    assert run(estimator.estimate(QUESTION), ScriptedModel("unused")) == Estimate(
        tokens=30, source="fixed", exact=True
    )
    assert len(store) == 0


def test_memory_forgets_what_was_not_used_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "_SIZE", 2)
    model = counting_model()
    estimator = CachedEstimator(ZeroShotEstimator())
    assert asked(estimator, model, "a", "b", "a", "c") == [40, 41, 40, 42]
    assert asked(estimator, model, "a", "b") == [40, 43]


# stores


class FileStore(BaseStore[str, bytes]):
    """Keeps bytes in files, as LangChain's own file store does, and is as strict about keys."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder

    def path(self, key: str) -> Path:
        assert re.fullmatch(r"[a-zA-Z0-9_.\-/]+", key)
        return self.folder / key

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self.path(key).read_bytes() if self.path(key).exists() else None for key in keys]

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        for key, value in key_value_pairs:
            self.path(key).write_bytes(value)

    def mdelete(self, keys: Sequence[str]) -> None:
        raise NotImplementedError

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        yield from (file.name for file in self.folder.iterdir())


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: shelve.open(folder / "cache"),  # noqa: SIM115, S301  # closed with the test
        lambda folder: FileStore(folder / "files"),
    ],
    ids=["mapping", "BaseStore"],
)
def test_a_kept_estimate_survives_the_process(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    model = counting_model()
    for _ in range(3):
        estimator = CachedEstimator(ZeroShotEstimator(), make(tmp_path), model="qwen")
        assert asked(estimator, model, QUESTION) == [40]
        getattr(estimator.store, "close", lambda: None)()


@pytest.mark.parametrize(
    "store", [InMemoryByteStore(), InMemoryStore()], ids=lambda store: type(store).__name__
)
def test_stores_of_langchain_are_taken(store: Any) -> None:
    model = counting_model()
    assert asked(CachedEstimator(ZeroShotEstimator(), store), model, QUESTION, QUESTION) == [40, 40]
    assert len(list(store.yield_keys())) == 1


def test_no_store_holds_a_prompt() -> None:
    store: dict[str, bytes] = {}
    asked(CachedEstimator(ZeroShotEstimator(), store), counting_model(), QUESTION)
    ((key, value),) = store.items()
    assert re.fullmatch("[0-9a-f]{64}", key)
    assert Estimate.model_validate_json(value) == Estimate(tokens=40, source="zero-shot")


def test_a_damaged_entry_is_made_again() -> None:
    store = InMemoryByteStore()
    estimator = CachedEstimator(ZeroShotEstimator(), store)
    model = counting_model()
    asked(estimator, model, QUESTION)
    (key,) = store.yield_keys()
    store.mset([(key, b"{]")])
    assert asked(estimator, model, QUESTION, QUESTION) == [41, 41]


class Broken:
    """A store whose server is gone."""

    def mget(self, keys: list[str]) -> list[bytes]:
        raise ConnectionError("store gone")

    def mset(self, pairs: list[tuple[str, bytes]]) -> None:
        raise ConnectionError("store gone")


def test_a_store_that_fails_costs_a_warning_and_nothing_else() -> None:
    estimator = CachedEstimator(ZeroShotEstimator(), Broken())
    with pytest.warns(RuntimeWarning, match="store gone") as seen:
        assert asked(estimator, counting_model(), QUESTION) == [40]
    assert [str(one.message).split(" (")[0] for one in seen] == [
        "the cache of estimates cannot be read",
        "the cache of estimates cannot be written",
    ]


@pytest.mark.parametrize("store", [3, object(), ["a"], "estimates.sqlite"])
def test_what_is_no_store_is_refused(store: object) -> None:
    with pytest.raises(InvalidValueError, match=rf"shelve\.open.*mget and mset.*got {type(store).__name__}"):
        CachedEstimator(ZeroShotEstimator(), store)


def test_only_an_estimator_can_be_cached() -> None:
    with pytest.raises(InvalidValueError, match="got 40"):
        CachedEstimator(40)  # type: ignore[arg-type]


# concurrency


def test_threads_share_it() -> None:
    estimator = CachedEstimator(ZeroShotEstimator())
    model = ScriptedModel(estimate=lambda call: f"[[{len(call.messages[0].content)}]]")
    questions = ["?" * (1 + number % 10) for number in range(400)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: run(estimator.estimate(one), model).tokens, questions))
    expected = dict(zip(questions, found, strict=True))
    assert found == [expected[one] for one in questions]
    assert len(set(expected.values())) == 10
    assert len(model.calls) <= 10 * 8


def test_a_call_under_way_holds_up_nobody() -> None:
    """Two flows of one thread, the first abandoned at its call: to wait for it would be to wait forever."""
    estimator = CachedEstimator(ZeroShotEstimator())
    left = estimator.estimate(QUESTION)
    next(left)
    done = threading.Event()

    def ask() -> None:
        run(estimator.estimate(QUESTION), counting_model())
        done.set()

    threading.Thread(target=ask, daemon=True).start()
    assert done.wait(60)
    left.close()


async def test_many_askings_of_one_question_at_once_agree() -> None:
    estimator = CachedEstimator(ZeroShotEstimator())

    async def slow(call: ModelCall) -> ModelReply:
        await asyncio.sleep(0)
        return ModelReply(text="[[40]]")

    found = await asyncio.gather(*(arun(estimator.estimate(QUESTION), slow) for _ in range(50)))
    assert {one.tokens for one in found} == {40}


# copies


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])  # noqa: S301
def test_a_copy_knows_what_was_kept(duplicate: Callable[[CachedEstimator], CachedEstimator]) -> None:
    estimator = CachedEstimator(ZeroShotEstimator())
    model = counting_model()
    asked(estimator, model, QUESTION)
    assert asked(duplicate(estimator), model, QUESTION) == [40]


class Closing:
    """Notes when its flow is closed."""

    name = "closing"

    def __init__(self) -> None:
        self.closed = 0

    def estimate(self, question: str) -> Flow[Estimate]:
        try:
            yield next(ZeroShotEstimator().estimate(question))
            return Estimate(tokens=5, source=self.name)
        finally:
            self.closed += 1


def test_the_inner_flow_is_closed_on_a_hit_as_on_a_miss() -> None:
    inner = Closing()
    asked(CachedEstimator(inner), counting_model(), QUESTION, QUESTION, QUESTION)
    assert inner.closed == 3
