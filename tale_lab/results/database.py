"""The SQLite file under a `Store`: its tables, how it is opened, and its errors in words."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tale_core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA_VERSION = 2
"""Version of the tables; files of another version are refused."""

_APPLICATION_ID = 0x54414C45  # "TALE", in the file's header
_BUSY_SECONDS = 30.0
_RETRY_SECONDS = 0.02
_PAGE_ROWS = 500

# Rows stand in the order in which they came, and their keys in an index of their own. A table that is itself
# sorted by key (WITHOUT ROWID) spills every answer to a page of its own, and took twice the room.
_SCHEMA = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    started TEXT NOT NULL,
    what TEXT NOT NULL
);
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    finished TEXT NOT NULL,
    model TEXT NOT NULL,
    role TEXT NOT NULL,
    budget INTEGER,
    sample INTEGER NOT NULL,
    prompt_digest BLOB NOT NULL,
    reply TEXT NOT NULL
);
CREATE TABLE results (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    finished TEXT NOT NULL,
    kind TEXT NOT NULL,
    model TEXT NOT NULL,
    question_id TEXT NOT NULL,
    content TEXT NOT NULL
);
CREATE INDEX results_by_kind ON results (kind);
CREATE INDEX results_by_model ON results (kind, model);
CREATE TABLE failures (
    id INTEGER PRIMARY KEY,
    happened TEXT NOT NULL,
    key TEXT NOT NULL,
    question_id TEXT NOT NULL,
    error TEXT NOT NULL,
    label TEXT NOT NULL DEFAULT '',
    UNIQUE (key, label, happened)
);
"""

# Older files of this version have no such table. It is made when they are opened for writing.
_LEASES = """
CREATE TABLE IF NOT EXISTS leases (
    key BLOB PRIMARY KEY,
    owner TEXT NOT NULL,
    expires REAL NOT NULL
)
"""

_SETTINGS = (
    # Write-ahead logging: readers do not wait for the writer, and what is committed survives kill -9.
    "journal_mode = WAL",
    "synchronous = NORMAL",
)
# Keys are spread over the whole index, which at a million calls has some 60 MB.
_CACHE = "cache_size = -65536"

_ADVICE = {
    "locked": "; another program holds it: wait for that one, or name another file",
    "readonly": "; make the file and its folder writable, or name another file",
    "full": "; free some space and run the same command again",
    "not a database": "; name another file",
    "unable to open": "; the folder must exist and be writable",
}


class Database:
    """One connection that serves all threads, one at a time.

    Args:
        path: The file; made when there is none.
        read_only: Whether to open a file that exists, and never write to it.

    Raises:
        StoreError: The file is no results file, is of another version, or cannot be opened.
    """

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        self.path = path
        self._lock = threading.RLock()
        if not read_only:
            _make_private(path)
        with self._translated("open"):
            # Transactions are begun explicitly.
            self._db = sqlite3.connect(
                _address(path) if read_only else path,
                uri=read_only,
                timeout=_BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
        try:
            with self._translated("open"):
                self._prepare(read_only=read_only)
        except StoreError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file; what is committed is in it already."""
        with self._lock:
            self._db.close()

    def execute(self, sql: str, *values: Any) -> list[Any]:
        """Run one statement and return its rows."""
        with self._lock, self._translated("use"):
            return self._db.execute(sql, values).fetchall()

    def insert_many(self, sql: str, rows: list[Any]) -> int:
        """Run one statement with each of many rows, and return how many were put in."""
        with self._lock, self._translated("use"):
            return self._db.executemany(sql, rows).rowcount

    def pages(self, columns: str, table: str, where: str = "TRUE", *values: Any) -> Iterator[list[Any]]:
        """Yield the rows of a table in the order in which they came, some hundred at a time.

        Nothing is held between two pages, so that writers go on meanwhile, however slow the reader is.

        Args:
            columns: What to read.
            table: Where from.
            where: A condition, with its values.
            *values: The values.
        """
        last = 0
        sql = (
            f"SELECT id, {columns} FROM {table} WHERE {where} AND id > ? "  # noqa: S608  # all constants
            f"ORDER BY id LIMIT {_PAGE_ROWS}"
        )
        while rows := self.execute(sql, *values, last):
            last = rows[-1][0]
            yield [row[1:] for row in rows]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all or nothing of what is written inside; other threads wait."""
        with self._lock:
            self.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.rollback()
                raise
            self.execute("COMMIT")

    def _prepare(self, *, read_only: bool) -> None:
        # All three in one transaction: between them another process may create the tables.
        self._db.execute("BEGIN")
        tables, application, version = (
            self._db.execute(sql).fetchone()[0]
            for sql in ("SELECT count(*) FROM sqlite_master", "PRAGMA application_id", "PRAGMA user_version")
        )
        self._db.execute("COMMIT")
        if tables and application != _APPLICATION_ID:
            raise StoreError(f"{self.path} is a database of another program; name another file")
        if tables and version != SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} has schema version {version}, this program reads {SCHEMA_VERSION}; name another "
                "file, or use the version of tale-reasoning that wrote it"
            )
        if read_only and not tables:
            raise StoreError(f"{self.path} is empty, so there is nothing to read; name another file")
        self._db.execute(f"PRAGMA {_CACHE}")
        if not read_only:
            for setting in _SETTINGS:
                self._set(setting)
        if not tables:
            self._create()
        if not read_only:
            self._db.execute(_LEASES)

    def _set(self, setting: str) -> None:
        """Make a setting, waiting for others: SQLite fails at once where two switch to the same journal."""
        until = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._db.execute(f"PRAGMA {setting}")
            except sqlite3.OperationalError as exc:  # noqa: PERF203  # tried again
                if "locked" not in str(exc) or time.monotonic() > until:
                    raise
                time.sleep(_RETRY_SECONDS)
            else:
                return

    def _create(self) -> None:
        with self.transaction():
            # Another process may have been faster between the look and the lock.
            if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextlib.contextmanager
    def _translated(self, verb: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            advice = next((text for part, text in _ADVICE.items() if part in str(exc)), "")
            raise StoreError(f"cannot {verb} {self.path}: {exc}{advice}; what is in it is kept") from exc


def _make_private(path: str) -> None:
    """Make a missing file so that only its owner can read it; the files beside it get the same mode."""
    if path != ":memory:":
        with contextlib.suppress(OSError):  # which SQLite reports, with its own words
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _address(path: str) -> str:
    """Return the URI under which a file is opened for reading only."""
    file = Path(path).resolve()
    # Readers of a file that is being written need the files beside it, and make them if necessary. Where they
    # cannot, no writer can either: then the file does not change.
    unchanging = not os.access(file.parent, os.W_OK) and not Path(f"{file}-wal").exists()
    return f"{file.as_uri()}?mode=ro{'&immutable=1' if unchanging else ''}"
