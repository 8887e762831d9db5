"""Where cached estimates are kept: in memory, in a SQLite file, or in a store of LangChain's."""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from tale_core.errors import InvalidValueError, StoreError

Stored: TypeAlias = bytes


class EstimateStore(Protocol):
    """A place for estimates under a key; safe under threads."""

    def get(self, key: str) -> Stored | None:
        """Return what is kept under a key, or None."""

    def put(self, key: str, value: Stored) -> None:
        """Keep a value under a key, in place of what was there."""


class MemoryStore:
    """Keeps the most recently used entries of this process.

    Args:
        size: How many, at least 1.

    Raises:
        InvalidValueError: ``size`` is below 1.
    """

    def __init__(self, size: int = 10_000) -> None:
        if size < 1:
            raise InvalidValueError(f"a cache holds at least 1 estimate, got size {size}")
        self.size = size
        self._entries: OrderedDict[str, Stored] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> Stored | None:
        """Return what is kept under a key, or None; it counts as used now."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key]

    def put(self, key: str, value: Stored) -> None:
        """Keep a value, and drop the one that was not used for longest where there is no room."""
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            if len(self._entries) > self.size:
                self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)

    # A lock cannot be pickled or deep-copied, and frameworks do both to what they carry.
    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {"size": self.size, "_entries": OrderedDict(self._entries)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


class SqliteStore:
    """Keeps entries in a SQLite file, which several processes may share.

    Args:
        path: The file; made where it does not exist.

    Raises:
        InvalidValueError: The file is no SQLite database, or its folder does not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._open()

    def _open(self) -> None:
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS estimates (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
            )
        except sqlite3.Error as exc:
            raise InvalidValueError(
                f"cannot keep estimates in {str(self.path)!r}: {exc}; name a SQLite file, or a new file in a "
                "folder that exists"
            ) from exc

    def get(self, key: str) -> Stored | None:
        """Return what is kept under a key, or None.

        Raises:
            StoreError: The file cannot be read.
        """
        row = self._execute("SELECT value FROM estimates WHERE key = ?", key)
        return None if row is None else bytes(row[0])

    def put(self, key: str, value: Stored) -> None:
        """Keep a value under a key.

        Raises:
            StoreError: The file cannot be written.
        """
        self._execute("INSERT OR REPLACE INTO estimates VALUES (?, ?)", key, value)

    def _execute(self, statement: str, *values: object) -> Any:
        try:
            with self._lock:
                return self._connection.execute(statement, values).fetchone()
        except sqlite3.Error as exc:
            raise StoreError(f"cannot use {str(self.path)!r}: {exc}") from exc

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


class KeyValueStore:
    """Keeps entries in any object with LangChain's ``BaseStore`` methods.

    Args:
        store: Has ``mget(keys)`` and ``mset(pairs)``; values are bytes, which every store takes.
    """

    def __init__(self, store: Any) -> None:
        self.store = store

    def get(self, key: str) -> Stored | None:
        """Return what is kept under a key, or None."""
        found: Any = self.store.mget([key])[0]
        return found if isinstance(found, bytes) else None

    def put(self, key: str, value: Stored) -> None:
        """Keep a value under a key."""
        self.store.mset([(key, value)])


def as_store(store: Any) -> EstimateStore:
    """Return the store that a caller meant.

    Args:
        store: None for memory, the path of a SQLite file, a LangChain ``BaseStore``, or one of ours.

    Raises:
        InvalidValueError: None of these, or a file that cannot be used.
    """
    if store is None:
        return MemoryStore()
    if isinstance(store, (str, Path)):
        return SqliteStore(store)
    if callable(getattr(store, "mget", None)) and callable(getattr(store, "mset", None)):
        return KeyValueStore(store)
    if callable(getattr(store, "get", None)) and callable(getattr(store, "put", None)):
        return store  # type: ignore[no-any-return]
    raise InvalidValueError(
        "a store is None (memory), the path of a SQLite file, or an object with mget and mset, as LangChain's "
        f"stores have; got {type(store).__name__}"
    )
