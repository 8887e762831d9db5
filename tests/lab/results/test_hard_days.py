"""A results file on bad days: made by many at once, fed with broken text, read by others, told of secrets."""

from __future__ import annotations

import json
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tale_core.files import replace_file
from tale_core.models.model_strings import safe_words
from tale_core.types import Message, ModelCall, ModelReply
from tale_lab.results.store import Store

if TYPE_CHECKING:
    from pathlib import Path

CALL = ModelCall(role="reason", messages=(Message(role="user", content="half \ud800 of a pair?"),))


def test_many_may_make_one_file_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def use(path: Path) -> int:
        together.wait()
        with Store(path) as store:
            return store.begin_run(what="nothing")

    with ThreadPoolExecutor(8) as pool:
        for number in range(40):
            path = tmp_path / f"{number}.sqlite"
            assert sorted(pool.map(use, [path] * 8)) == list(range(1, 9))


@pytest.mark.parametrize("text", ["half \ud800 of a pair", "\udfff", "both \U0001f600", "a backslash \\ud800"])
def test_half_a_surrogate_pair_is_kept_as_it_came(tmp_path: Path, text: str) -> None:
    with Store(tmp_path / "r.sqlite") as store:
        store.keep(CALL, ModelReply(text=text), model="m")
        found = store.reply(CALL, model="m")
        assert found is not None
        assert found.text == text
        store.put("key", "answer", found, model="m", question_id="1")
        assert store.get("key", ModelReply) == found
        store.note_failure("other", "1", ValueError(text))
        assert len(store.failures()) == 1


def test_files_that_hold_answers_are_for_their_owner_alone(tmp_path: Path) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    path, page = tmp_path / "r.sqlite", tmp_path / "page.html"
    with Store(path) as store:
        store.begin_run(what="something")
        assert {mode(one) for one in tmp_path.iterdir()} == {0o600}
    replace_file(page, b"answers")
    assert mode(page) == 0o600
    page.chmod(0o644)
    replace_file(page, b"more answers")
    assert mode(page) == 0o600, "an older file may have been made before files were private"


def test_an_older_file_without_leases_is_read_and_can_be_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with Store(path) as store:
        store.keep(CALL, ModelReply(text="kept"), model="m")
        store._db.execute("DROP TABLE leases")
    with Store(path, read_only=True) as store:
        assert store.reply(CALL, model="m") is not None
    with Store(path) as store:
        assert store.shared(CALL, lambda _: ModelReply(text="again"), model="m").text == "kept"
        other = CALL.model_copy(update={"sample": 1})
        assert store.shared(other, lambda _: ModelReply(text="made"), model="m").text == "made"


SECRETS = [
    "Incorrect API key provided: hush-hush-hush. You can find it at",
    "401 {'error': {'message': 'no such key sk-proj-hush4567hush'}}",
    "sent: Authorization: Bearer hush.hush",
    "GET http://me:hush@host/v1?key=hush&x=1",
    json.dumps({"api_key": "hush", "password": "hush"}),
    "of the environment: abc-hush-abc",
]


@pytest.mark.parametrize("said", SECRETS)
def test_a_failure_is_kept_without_keys(said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALE_API_KEY", "abc-hush-abc")
    with Store(tmp_path / "r.sqlite") as store:
        store.note_failure("key", "1", PermissionError(said))
        [failure] = store.failures()
    assert "hush" not in failure.error
    assert failure.error.startswith("PermissionError: ")
    assert "[hidden]" in failure.error


def test_a_failure_is_kept_in_a_sane_length() -> None:
    assert len(safe_words(ValueError("x" * 10**6))) < 600
    plain = "max_tokens: 300 is too large for 2 keys; the token count is 5"
    assert safe_words(ValueError(plain)) == f"ValueError: {plain}"
