"""One SQLite file that keeps every finished call and every finished search.

A call is one row the moment it is answered, under a key made of its content (model, prompt, budget, sampling,
sample), so that a run which was killed goes on where it stopped: `Store.remember` plays back what is there
and asks only for what is missing. The file can be read while a run writes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from tale_core.errors import StoreError
from tale_core.flows import observed
from tale_core.search import SearchTrace
from tale_core.types import Flow, ModelCall, ModelReply, Record, Role, T

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

R = TypeVar("R", bound=Record)

SCHEMA_VERSION = 1
"""Version of the tables; files of another version are refused."""
_APPLICATION_ID = 0x54414C45  # "TALE", in the file's header
_BUSY_SECONDS = 30.0

_SCHEMA = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    started TEXT NOT NULL,
    what TEXT NOT NULL
);
CREATE TABLE calls (
    key TEXT PRIMARY KEY,
    finished TEXT NOT NULL,
    model TEXT NOT NULL,
    role TEXT NOT NULL,
    budget INTEGER,
    sample INTEGER NOT NULL,
    prompt_digest TEXT NOT NULL,
    reply TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE results (
    key TEXT PRIMARY KEY,
    finished TEXT NOT NULL,
    kind TEXT NOT NULL,
    model TEXT NOT NULL,
    question_id TEXT NOT NULL,
    content TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE failures (
    id INTEGER PRIMARY KEY,
    happened TEXT NOT NULL,
    key TEXT NOT NULL,
    question_id TEXT NOT NULL,
    error TEXT NOT NULL
);
"""


class StoredCall(Record):
    """One finished call; the prompt itself is not kept, only its digest."""

    model: str
    """The model as the caller named it."""
    role: Role
    """What the call was for."""
    budget: int | None
    """The budget that the prompt named, in output tokens."""
    sample: int
    """Which of several independent answers it is."""
    prompt_digest: str
    """SHA-256 of the messages."""
    reply: ModelReply
    """The answer, with its usage."""


class Store:
    """A results file; safe under threads, and readable while another process writes it.

    Args:
        path: The file; made when there is none.
        must_exist: Whether a missing file is an error, for readers.

    Raises:
        StoreError: The file is no results file, is of another version, or cannot be opened.

    Example:
        >>> from tale_core import run, search_budget
        >>> from tale_core.testing import ScriptedModel
        >>> store = Store(":memory:")
        >>> flow = search_budget("3 + 4?", lambda text: "7" in text, method="halving")
        >>> trace = run(store.remember(flow, model="m"), ScriptedModel("it is 7", "7"))
        >>> [call.budget for call in store.calls()]
        [None, 1]
    """

    def __init__(self, path: str | Path, *, must_exist: bool = False) -> None:
        self.path = str(path)
        if must_exist and not Path(path).is_file():
            raise StoreError(f"there is no results file {self.path!r}; make one with: tale search")
        self._lock = threading.RLock()
        with self._translated("open"):
            # Transactions are begun explicitly; one connection serves all threads, one at a time.
            self._db = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            with self._translated("open"):
                self._prepare()
        except StoreError:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; everything finished is in it already."""
        with self._lock:
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

        def asked(call: ModelCall) -> str:
            return judge if judge is not None and call.role == "judge" else model

        def recall(call: ModelCall) -> ModelReply | None:
            return self.reply(call, model=asked(call))

        def note(call: ModelCall, reply: ModelReply) -> None:
            if reply.text.strip() or reply.finish_reason == "length":
                self.keep(call, reply, model=asked(call))

        return observed(flow, note, recall=recall)

    def reply(self, call: ModelCall, *, model: str) -> ModelReply | None:
        """Return the kept answer to a call, or None when there is none."""
        rows = self._run("SELECT reply FROM calls WHERE key = ?", _call_key(call, model))
        return self._parsed(ModelReply, rows[0][0]) if rows else None

    def keep(self, call: ModelCall, reply: ModelReply, *, model: str) -> None:
        """Keep one answered call; the first answer to a call stays."""
        self._run(
            "INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            _call_key(call, model),
            _now(),
            model,
            call.role,
            call.budget,
            call.sample,
            _digest([message.model_dump() for message in call.messages]),
            reply.model_dump_json(),
        )

    def calls(self) -> Iterator[StoredCall]:
        """Yield every finished call, in order of time."""
        rows = self._run(
            "SELECT model, role, budget, sample, prompt_digest, reply FROM calls ORDER BY finished, key"
        )
        for model, role, budget, sample, digest, reply in rows:
            yield StoredCall(
                model=model,
                role=role,
                budget=budget,
                sample=sample,
                prompt_digest=digest,
                reply=self._parsed(ModelReply, reply),
            )

    def put(self, key: str, kind: str, content: Record, *, model: str, question_id: str) -> None:
        """Keep one finished result, in place of an earlier one under the same key.

        Args:
            key: What makes the result what it is; see `result_key`.
            kind: What it is: ``"search"``, ``"elasticity"``, ...
            content: The result.
            model: The model as the caller names it.
            question_id: The question that it is about.
        """
        self._run(
            "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?)",
            key,
            _now(),
            kind,
            model,
            question_id,
            content.model_dump_json(),
        )

    def get(self, key: str, record: type[R]) -> R | None:
        """Return the result under a key, or None when there is none.

        Args:
            key: The key it was put under.
            record: What it is.
        """
        rows = self._run("SELECT content FROM results WHERE key = ?", key)
        return self._parsed(record, rows[0][0]) if rows else None

    def results(self, kind: str, record: type[R], *, model: str | None = None) -> Iterator[R]:
        """Yield every finished result of a kind, in order of time.

        Args:
            kind: What to yield.
            record: The class of its content.
            model: Only the results of this model; None for all.
        """
        rows = self._run(
            "SELECT content FROM results WHERE kind = ? AND (? IS NULL OR model = ?) ORDER BY finished, key",
            kind,
            model,
            model,
        )
        for (content,) in rows:
            yield self._parsed(record, content)

    def traces(self, *, model: str | None = None) -> Iterator[SearchTrace]:
        """Yield every finished search, in order of time.

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
        with self._lock:
            self._run("INSERT INTO runs (started, what) VALUES (?, ?)", _now(), json.dumps(what))
            rows = self._run("SELECT last_insert_rowid()")
        return int(rows[0][0])

    def runs(self) -> tuple[dict[str, Any], ...]:
        """Return what every run recorded, in order."""
        rows = self._run("SELECT id, started, what FROM runs ORDER BY id")
        return tuple({"id": number, "started": started, **json.loads(what)} for number, started, what in rows)

    def note_failure(self, key: str, question_id: str, error: Exception) -> None:
        """Record that a question failed; its finished calls stay, so that a retry repeats none of them."""
        self._run(
            "INSERT INTO failures (happened, key, question_id, error) VALUES (?, ?, ?, ?)",
            _now(),
            key,
            question_id,
            f"{type(error).__name__}: {error}",
        )

    def failures(self) -> tuple[Failure, ...]:
        """Return the failures of questions that have no result yet, in order of time."""
        rows = self._run(
            "SELECT question_id, error FROM failures WHERE key NOT IN (SELECT key FROM results) ORDER BY id"
        )
        return tuple(Failure(question_id=question_id, error=error) for question_id, error in rows)

    def _run(self, sql: str, *values: Any) -> list[Any]:
        with self._lock, self._translated("use"):
            return self._db.execute(sql, values).fetchall()

    def _parsed(self, record: type[R], content: str) -> R:
        try:
            return record.model_validate_json(content)
        except ValidationError as exc:
            raise StoreError(
                f"{self.path}: an entry is no {record.__name__} of this version: {exc.errors()[0]['msg']}"
            ) from exc

    def _prepare(self) -> None:
        application, version, tables = (
            self._db.execute(sql).fetchone()[0]
            for sql in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        )
        if tables and application != _APPLICATION_ID:
            raise StoreError(f"{self.path} is a database of another program; name another file")
        if tables and version != SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} has schema version {version}, this program reads {SCHEMA_VERSION}; name another "
                "file, or use the version of tale-reasoning that wrote it"
            )
        # Write-ahead logging: readers do not wait for the writer, and what is committed survives kill -9.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        if not tables:
            self._create()

    def _create(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have been faster between the look and the lock.
            if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except sqlite3.Error:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            advice = next((text for part, text in _ADVICE.items() if part in str(exc)), "")
            raise StoreError(f"cannot {verb} {self.path}: {exc}{advice}; what is in it is kept") from exc


_ADVICE = {
    "locked": "; another program holds it: wait for that one, or name another file",
    "readonly": "; make the file and its folder writable, or name another file",
    "full": "; free some space and run the same command again",
    "not a database": "; name another file",
    "unable to open": "; the folder must exist and be writable",
}


class Failure(Record):
    """A question that failed and has no result yet."""

    question_id: str
    error: str
    """The error's class and message."""


def result_key(**parts: Any) -> str:
    """Return the key of a result: a digest of everything that makes it what it is.

    Args:
        **parts: JSON-ready facts: kind, question id, model, style, settings, grader, ...
    """
    return _digest(parts)


def _call_key(call: ModelCall, model: str) -> str:
    # The framing repeats what the messages say.
    return _digest([model, call.model_dump(mode="json", exclude={"framing"})])


def _digest(content: Any) -> str:
    plain = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()
