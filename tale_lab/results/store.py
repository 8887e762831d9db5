"""One SQLite file that keeps every finished call and every finished search.

A call is one row the moment it is answered, under a key made of its content (model, prompt, budget, sampling,
sample), so that a run which was killed goes on where it stopped: `Store.remember` plays back what is there
and asks only for what is missing. The file can be read while a run writes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
import uuid
from concurrent.futures import Future
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from tale_core.errors import EngineError, StoreError
from tale_core.flows import observed
from tale_core.models.model_strings import safe_words
from tale_core.search.budget_search import SearchTrace
from tale_core.types import Flow, ModelCall, ModelReply, Record, T
from tale_lab.results.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

    from tale_core.types import Call

R = TypeVar("R", bound=Record)

_COLUMNS = {
    "runs": ("started", "what"),
    "calls": ("key", "finished", "model", "role", "budget", "sample", "prompt_digest", "reply"),
    "results": ("key", "finished", "kind", "model", "question_id", "content"),
    "failures": ("happened", "key", "question_id", "error", "label"),
}
"""What is written into each table, in this order; rows number themselves."""


_LEASE_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5


class Store:
    """A results file; safe under threads, and readable while another process writes it.

    Args:
        path: The file; made when there is none.
        must_exist: Whether a missing file is an error.
        read_only: Whether the file is only to be read: it must exist, and everything that writes is an error.

    Raises:
        StoreError: The file is no results file, is of another version, or cannot be opened.

    Example:
        >>> from tale_core import run, search_budget
        >>> from tale_core.testing import ScriptedModel
        >>> store = Store(":memory:")
        >>> flow = search_budget("3 + 4?", lambda text: "7" in text, method="halving")
        >>> trace = run(store.remember(flow, model="m"), ScriptedModel("it is 7", "7"))
        >>> store.calls
        2
    """

    def __init__(self, path: str | Path, *, must_exist: bool = False, read_only: bool = False) -> None:
        self.path = str(path)
        if (must_exist or read_only) and not Path(path).is_file():
            raise StoreError(f"there is no results file {self.path!r}; make one with: tale search")
        self._db = Database(self.path, read_only=read_only)
        self._owner = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex}"
        self._lock = threading.Lock()
        self._under_way: dict[bytes, Future[ModelReply]] = {}
        self._renewing = False
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; everything finished is in it already."""
        self._closed.set()
        self._db.close()

    def remember(self, flow: Flow[T], *, model: str, judge: str | None = None) -> Flow[T]:
        """Return the same flow, answering from this file what is answered there and keeping what is not.

        Works with both drivers: a call that is known never reaches them. Empty answers are not kept, so that
        a later run asks again.

        Args:
            flow: The flow to pass through.
            model: Names the model; part of every key.
            judge: Names the model that answers calls of role ``judge``, where it is another one.
        """
        memory = self.memory(model=model, judge=judge)
        return observed(flow, memory.note, recall=memory.recall)

    def memory(self, *, model: str, judge: str | None = None) -> StoredMemory:
        """Return the calls of one model, and of the one that judges, as an engine takes them.

        Args:
            model: Names the model; part of every key.
            judge: Names the model that answers calls of role ``judge``, where it is another one.
        """
        return StoredMemory(self, model=model, judge=judge)

    def reply(self, call: ModelCall, *, model: str) -> ModelReply | None:
        """Return the kept answer to a call, or None when there is none."""
        rows = self._db.execute("SELECT reply FROM calls WHERE key = ?", _call_key(call, model))
        return self._parsed(ModelReply, rows[0][0]) if rows else None

    def keep(self, call: ModelCall, reply: ModelReply, *, model: str) -> ModelReply:
        """Keep one answered call, and return the answer that is kept: the first one to the same call stays."""
        row = (
            _call_key(call, model),
            _now(),
            model,
            call.role,
            call.budget,
            call.sample,
            _digest([message.model_dump() for message in call.messages]),
            _written(reply),
        )
        if self._db.insert_many(_insert("OR IGNORE", "calls"), [row]):
            return reply
        return self.reply(call, model=model) or reply

    def shared(
        self,
        call: ModelCall,
        ask: Call,
        *,
        model: str,
        left: threading.Event | None = None,
    ) -> ModelReply:
        """Return the kept answer to a call, or make the call and keep its answer, unless that is empty.

        A call that is under way already, in another thread or in another process on this file, is waited for
        and not made twice. Threads of one process share its failure, too; another process makes the call itself
        when it failed, or when its process is gone.

        Args:
            call: The call.
            ask: Makes it.
            model: Names the model.
            left: Set when nobody needs the answer any more, which ends the wait for another process.

        Raises:
            EngineError: ``left`` was set while another process had the call under way.
        """
        key = _call_key(call, model)
        with self._lock:
            known = self._under_way.get(key)
            mine = self._under_way[key] = Future() if known is None else known
        if known is not None:
            return known.result()
        try:
            reply = self._leased(key, call, ask, model=model, left=left)
        except BaseException as exc:
            with self._lock:
                del self._under_way[key]
            mine.set_exception(exc)
            raise
        with self._lock:
            del self._under_way[key]
        mine.set_result(reply)
        return reply

    def _leased(
        self,
        key: bytes,
        call: ModelCall,
        ask: Call,
        *,
        model: str,
        left: threading.Event | None,
    ) -> ModelReply:
        """Answer a call as `shared` does; only one process holds the lease of a call at a time."""
        pause, waiting = _FIRST_PAUSE, left or threading.Event()
        while True:
            kept = self.reply(call, model=model)
            if kept is not None:
                return kept
            if self._take_lease(key):
                break
            if waiting.wait(pause):
                raise EngineError("another process has this call under way, and the run was left meanwhile")
            pause = min(2 * pause, _LONGEST_PAUSE)
        try:
            # Between the look and the lease, another process may have finished.
            kept = self.reply(call, model=model)
            if kept is not None:
                return kept
            reply = ask(call)
            return self.keep(call, reply, model=model) if _worth_keeping(reply) else reply
        finally:
            self._db.execute("DELETE FROM leases WHERE key = ? AND owner = ?", key, self._owner)

    def _take_lease(self, key: bytes) -> bool:
        self._renew_leases()
        now = time.time()
        lease = (key, self._owner, now + _LEASE_SECONDS)
        if self._db.insert_many("INSERT OR IGNORE INTO leases (key, owner, expires) VALUES (?, ?, ?)", [lease]):
            return True
        rows = self._db.execute("SELECT owner, expires FROM leases WHERE key = ?", key)
        if not rows:
            return False  # it has just been given back: the caller looks for the answer first
        owner, expires = rows[0]
        if now < expires and not _is_gone(owner):
            return False
        # Only one of several processes that find it abandoned changes the row.
        taken = "UPDATE leases SET owner = ?, expires = ? WHERE key = ? AND owner = ? AND expires = ?"
        return bool(self._db.insert_many(taken, [(self._owner, now + _LEASE_SECONDS, key, owner, expires)]))

    def _renew_leases(self) -> None:
        """See to it that leases do not expire while calls are under way."""

        def renew() -> None:
            while not self._closed.wait(_LEASE_SECONDS / 3):
                with self._lock:
                    if not self._under_way:
                        self._renewing = False
                        return
                with suppress(StoreError):  # the calls themselves report what is wrong with the file
                    expires = time.time() + _LEASE_SECONDS
                    self._db.execute("UPDATE leases SET expires = ? WHERE owner = ?", expires, self._owner)

        with self._lock:
            if not self._renewing:
                self._renewing = True
                threading.Thread(target=renew, name="tale-leases", daemon=True).start()

    @property
    def calls(self) -> int:
        """How many answered calls are kept."""
        return int(self._db.execute("SELECT count(*) FROM calls")[0][0])

    def put(self, key: str, kind: str, content: Record, *, model: str, question_id: str) -> None:
        """Keep one finished result, in place of an earlier one under the same key.

        Args:
            key: What makes the result what it is; see `result_key`.
            kind: What it is: ``"search"``, ``"elasticity"``, ...
            content: The result.
            model: The model as the caller names it.
            question_id: The question that it is about.
        """
        text = _written(content)
        self._db.execute(_insert("OR REPLACE", "results"), key, _now(), kind, model, question_id, text)

    def get(self, key: str, record: type[R]) -> R | None:
        """Return the result under a key, or None when there is none.

        Args:
            key: The key it was put under.
            record: What it is.
        """
        rows = self._db.execute("SELECT content FROM results WHERE key = ?", key)
        return self._parsed(record, rows[0][0]) if rows else None

    def __contains__(self, key: object) -> bool:
        """Return whether there is a result under a key, without reading it."""
        return bool(self._db.execute("SELECT 1 FROM results WHERE key = ?", key))

    def results(self, kind: str, record: type[R], *, model: str | None = None) -> Iterator[R]:
        """Yield every finished result of a kind, in the order in which they were put.

        Args:
            kind: What to yield.
            record: The class of its content.
            model: Only the results of this model; None for all.
        """
        where, values = ("kind = ?", [kind]) if model is None else ("kind = ? AND model = ?", [kind, model])
        for page in self._db.pages("content", "results", where, *values):
            for (content,) in page:
                yield self._parsed(record, content)

    def traces(self, *, model: str | None = None) -> Iterator[SearchTrace]:
        """Yield every finished search, in the order in which they ended.

        Args:
            model: Only the searches on this model; None for all.
        """
        return self.results("search", SearchTrace, model=model)

    def begin_run(self, **what: Any) -> int:
        """Record what a run is about to do: data, slices, question ids, model, settings.

        Args:
            **what: JSON-ready facts.

        Returns:
            The run's number.
        """
        with self._db.transaction():
            self._db.execute(_insert("", "runs"), _now(), json.dumps(what))
            return int(self._db.execute("SELECT last_insert_rowid()")[0][0])

    def runs(self) -> tuple[dict[str, Any], ...]:
        """Return what every run recorded, in order."""
        rows = self._db.execute("SELECT id, started, what FROM runs ORDER BY id")
        return tuple({"id": number, "started": started, **json.loads(what)} for number, started, what in rows)

    def note_failure(self, key: str, question_id: str, error: Exception, *, label: str = "") -> None:
        """Record that a question failed; its finished calls stay, so that a retry repeats none of them.

        Args:
            key: The key that its result would have had.
            question_id: The question.
            error: What ended it.
            label: What failed: a method's name, say.
        """
        words = safe_words(error)
        self._db.execute(_insert("OR IGNORE", "failures"), _now(), key, question_id, words, label)

    def failures(self) -> tuple[Failure, ...]:
        """Return the failures of questions that have no result yet, in order of time."""
        rows = self._db.execute(
            "SELECT key, question_id, error, label FROM failures "
            "WHERE NOT EXISTS (SELECT 1 FROM results WHERE results.key = failures.key) ORDER BY id"
        )
        return tuple(
            Failure(key=key, question_id=one, error=error, label=label) for key, one, error, label in rows
        )

    def merge(self, other: Store) -> Merged:
        """Take in everything of another results file: all or nothing, and nothing twice.

        Where both have an answer to the same call, or a result under the same key, the one that is here stays.

        Args:
            other: The other file; opened for reading only, it is not changed in any way.

        Returns:
            How many entries were new.
        """
        with self._db.transaction():
            counts = {table: self._take(other, table) for table in ("calls", "results", "failures")}
            known = set(self._db.execute("SELECT started, what FROM runs"))
            runs = [row for row in other._db.execute("SELECT started, what FROM runs") if row not in known]
            self._db.insert_many(_insert("", "runs"), runs)
        return Merged(runs=len(runs), **counts)

    def _take(self, other: Store, table: str) -> int:
        """Copy the rows of a table whose keys are not here, and return how many they were."""
        pages = other._db.pages(", ".join(_COLUMNS[table]), table)
        return sum(self._db.insert_many(_insert("OR IGNORE", table), page) for page in pages)

    def _parsed(self, record: type[R], content: str) -> R:
        try:
            try:
                return record.model_validate_json(content)
            except ValidationError:
                if "\\ud" not in content:
                    raise
                return record.model_validate(json.loads(content))  # which reads half a surrogate pair
        except ValidationError as exc:
            raise StoreError(
                f"{self.path}: an entry is no {record.__name__} of this version: {exc.errors()[0]['msg']}"
            ) from exc


class StoredMemory:
    """The calls of one model in a store: what is answered there, and where new answers are kept.

    Args:
        store: The store.
        model: Names the model; part of every key.
        judge: Names the model that answers calls of role ``judge``, where it is another one.
    """

    def __init__(self, store: Store, *, model: str, judge: str | None = None) -> None:
        self._store = store
        self._model = model
        self._judge = model if judge is None else judge

    def recall(self, call: ModelCall) -> ModelReply | None:
        """Return the kept answer to a call, or None when there is none."""
        return self._store.reply(call, model=self._asked(call))

    def note(self, call: ModelCall, reply: ModelReply) -> ModelReply | None:
        """Keep one answered call, unless the answer is empty: then a later run asks again.

        Returns:
            The answer that is kept; None when none is.
        """
        return self._store.keep(call, reply, model=self._asked(call)) if _worth_keeping(reply) else None

    def key(self, call: ModelCall) -> bytes:
        """Return the key under which the answer to a call is kept."""
        return _call_key(call, self._asked(call))

    def shared(self, call: ModelCall, ask: Call, *, left: threading.Event | None = None) -> ModelReply:
        """Return the kept answer to a call, or make the call and keep its answer; see `Store.shared`."""
        return self._store.shared(call, ask, model=self._asked(call), left=left)

    def _asked(self, call: ModelCall) -> str:
        return self._judge if call.role == "judge" else self._model


class Failure(Record):
    """A question that failed and has no result yet."""

    key: str = ""
    """The key that its result would have had."""
    question_id: str
    error: str
    """The error's class and message."""
    label: str = ""
    """What failed: a method's name, say."""


class Merged(Record):
    """What one results file took in from another: the entries that were new."""

    calls: int
    """Answered calls."""
    results: int
    """Finished results."""
    runs: int
    """Records of what a run was about to do."""
    failures: int
    """Failures of questions."""


def result_key(**parts: Any) -> str:
    """Return the key of a result: a digest of everything that makes it what it is.

    Args:
        **parts: JSON-ready facts: kind, question id, model, strategy, settings, grader, ...
    """
    return _digest(_as_first_named(parts)).hex()


# Keys of results files were first made of these names: under others, every answer would be paid for again.
_FIRST_NAMES = {"strategy": "style", "control": "lever"}


def _as_first_named(content: Any) -> Any:
    if isinstance(content, dict):
        return {_FIRST_NAMES.get(name, name): _as_first_named(value) for name, value in content.items()}
    return [_as_first_named(one) for one in content] if isinstance(content, list | tuple) else content


def _call_key(call: ModelCall, model: str) -> bytes:
    # The framing repeats what the messages say.
    content = call.model_dump(mode="json", exclude={"framing"})
    # What is answered for comparison is asked in the same words: one answer serves both.
    role = "reason" if call.role == "reference" else call.role
    return _digest([model, _as_first_named({**content, "role": role})])


def _worth_keeping(reply: ModelReply) -> bool:
    # Cut before the first visible word is a result: the budget went into thinking.
    return bool(reply.text.strip()) or reply.finish_reason == "length"


def _written(record: Record) -> str:
    try:
        return record.model_dump_json()
    except PydanticSerializationError:  # half a surrogate pair has no UTF-8, but an escape in JSON
        return json.dumps(record.model_dump(mode="json"))


def _is_gone(owner: str) -> bool:
    """Return whether the process that holds a lease has ended, as far as this machine can tell."""
    host, number, _ = owner.split("/")
    if os.name != "posix" or host != socket.gethostname():
        return False  # then its lease expires
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _digest(content: Any) -> bytes:
    plain = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).digest()


def _insert(conflict: str, table: str) -> str:
    columns = _COLUMNS[table]
    places = ", ".join("?" * len(columns))
    return f"INSERT {conflict} INTO {table} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608  # constants


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()
