"""Results files of several machines become one, and files can be read without being touched."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from typing import TYPE_CHECKING

import pytest

from tale_core import Message, ModelCall, ModelReply, StoreError
from tale_lab.questions.datasets import Question
from tale_lab.results.store import Merged, Store

if TYPE_CHECKING:
    from pathlib import Path

    from tale_core.types import Role


def call(text: str = "3 + 4?", role: Role = "reason") -> ModelCall:
    return ModelCall(role=role, messages=(Message(role="user", content=text),))


def filled(path: Path | str, *, name: str, both: str) -> Store:
    """Return a store with one of everything of its own, and one call and result that others have too."""
    store = Store(path)
    store.begin_run(command="search", machine=name)
    store.keep(call("both"), ModelReply(text=both), model="m")
    store.keep(call(f"only {name}"), ModelReply(text="x"), model="m")
    store.put("both", "question", Question.of(both, "x"), model="m", question_id="q")
    store.put(f"only {name}", "question", Question.of(name, "x"), model="m", question_id="q")
    store.note_failure(f"failed {name}", name, TimeoutError("slow"), label="draft")
    return store


def test_a_merge_adds_what_is_new_and_keeps_the_first_answer(tmp_path: Path) -> None:
    one = filled(tmp_path / "one.sqlite", name="one", both="first")
    other = filled(tmp_path / "other.sqlite", name="other", both="second")
    assert one.merge(other) == Merged(calls=1, results=1, runs=1, failures=1)
    assert one.reply(call("both"), model="m") == ModelReply(text="first")
    assert one.reply(call("only other"), model="m") == ModelReply(text="x")
    assert [one.question for one in one.results("question", Question)] == ["first", "one", "other"]
    assert [run["machine"] for run in one.runs()] == ["one", "other"]
    assert [(failure.question_id, failure.label) for failure in one.failures()] == [
        ("one", "draft"),
        ("other", "draft"),
    ]


def test_a_second_merge_adds_nothing(tmp_path: Path) -> None:
    one, other = filled(tmp_path / "one.sqlite", name="a", both="x"), filled(":memory:", name="b", both="y")
    one.merge(other)
    assert one.merge(other) == Merged(calls=0, results=0, runs=0, failures=0)
    assert one.merge(one) == Merged(calls=0, results=0, runs=0, failures=0)


def test_a_merge_that_fails_changes_nothing(tmp_path: Path) -> None:
    one, other = filled(tmp_path / "one.sqlite", name="a", both="x"), filled(":memory:", name="b", both="y")
    other._db.execute("DROP TABLE failures")
    with pytest.raises(StoreError, match="no such table: failures"):
        one.merge(other)
    assert one.calls == 2
    one.keep(call("afterwards"), ModelReply(text="x"), model="m")


def test_a_file_opened_for_reading_only_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    filled(path, name="a", both="x").close()
    before = hashlib.sha256(path.read_bytes()).digest()
    with Store(path, read_only=True) as store:
        assert store.reply(call("both"), model="m") is not None
        with pytest.raises(StoreError, match="readonly"):
            store.keep(call("new"), ModelReply(text="x"), model="m")
    assert hashlib.sha256(path.read_bytes()).digest() == before


def test_a_reader_sees_what_another_process_is_still_writing(tmp_path: Path) -> None:
    path = tmp_path / "run #1?.sqlite"
    with Store(path) as writer, Store(path, read_only=True) as reader:
        writer.keep(call(), ModelReply(text="7"), model="m")
        assert reader.reply(call(), model="m") == ModelReply(text="7")


def test_a_file_in_a_folder_that_may_not_be_written_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.sqlite"
    filled(path, name="a", both="x").close()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Store(path, read_only=True) as store:
        assert store.calls == 2
        assert list(tmp_path.iterdir()) == [path], "a reader of a finished file makes none beside it"


def test_what_is_no_results_file_is_refused_for_reading_too(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no results file"):
        Store(tmp_path / "nowhere.sqlite", read_only=True)
    empty = tmp_path / "empty.sqlite"
    empty.touch()
    with pytest.raises(StoreError, match="is empty, so there is nothing to read"):
        Store(empty, read_only=True)
    older = tmp_path / "older.sqlite"
    Store(older).close()
    with sqlite3.connect(older) as db:
        db.execute("PRAGMA user_version = 1")
    with pytest.raises(StoreError, match="schema version 1, this program reads 2"):
        Store(older, read_only=True)


def test_lists_longer_than_a_page_come_whole_and_in_order_while_others_write() -> None:
    store = Store(":memory:")
    for number in range(1_200):
        question = Question.of(str(number), "x")
        store.put(str(number), "question", question, model=f"m{number % 2}", question_id="q")
    listed = store.results("question", Question)
    first = next(listed)
    store.keep(call(), ModelReply(text="7"), model="m")
    assert [int(one.question) for one in (first, *listed)] == list(range(1_200))
    odd = store.results("question", Question, model="m1")
    assert [int(one.question) for one in odd] == list(range(1, 1_200, 2))


def test_lists_use_an_index() -> None:
    store = Store(":memory:")
    for where, index in (("kind = 'a'", "results_by_kind"), ("kind = 'a' AND model = 'm'", "results_by_model")):
        sql = f"EXPLAIN QUERY PLAN SELECT id FROM results WHERE {where} AND id > 0 ORDER BY id LIMIT 9"  # noqa: S608
        plan = " ".join(str(row[-1]) for row in store._db.execute(sql))
        assert f"USING COVERING INDEX {index}" in plan
        assert "TEMP B-TREE" not in plan


def test_a_result_is_known_without_being_read() -> None:
    store = filled(":memory:", name="a", both="x")
    assert "both" in store
    assert "neither" not in store


def test_an_answer_for_comparison_is_the_same_answer() -> None:
    store = Store(":memory:")
    store.keep(call(), ModelReply(text="7"), model="m")
    assert store.reply(call(role="reference"), model="m") == ModelReply(text="7")
    assert store.reply(call(role="judge"), model="m") is None
