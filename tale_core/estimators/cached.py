"""Estimates that were paid for once, kept."""

from __future__ import annotations

import hashlib
import json
import threading
import warnings
from collections import OrderedDict
from collections.abc import MutableMapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tale_core.errors import InvalidValueError
from tale_core.flows import resumed
from tale_core.protocols import Estimator, Learner
from tale_core.types import Estimate

if TYPE_CHECKING:
    from tale_core.events import ElasticityEvent
    from tale_core.types import Budget, Flow, ModelCall, Usage

_SIZE = 10_000


class CachedEstimator:
    """Keeps what another estimator found out by asking a model.

    The key is a digest of the first call that the other estimator makes (the question and its own wording and
    settings are in it), of its name and of the model's name; no prompt is stored. Estimates that take no call
    are not kept: looking them up would save nothing. Nor are failures.

    Two flows that ask a new question at the same time both make the call: to wait for the other one would block
    a thread or an event loop on which that one may be running. When a store fails, a warning is given and the
    estimate is made as if the store were empty.

    Args:
        inner: The estimator.
        store: None to keep the last 10,000 in memory, or a place of your own for bytes under text keys: any
            ``MutableMapping`` (``shelve.open(path)``, ``cachetools.LRUCache(500)``), used by one thread at a
            time, or a LangChain ``BaseStore``.
        model: Name of the model that makes the estimates. Give one with a store that outlives the process, so
            that another model's estimates are not taken for this one's.

    Raises:
        InvalidValueError: ``inner`` is not an estimator, or the store is neither a mapping nor a ``BaseStore``.

    Example:
        >>> from tale_core import ZeroShotEstimator, run
        >>> from tale_core.testing import ScriptedModel
        >>> estimator = CachedEstimator(ZeroShotEstimator())
        >>> model = ScriptedModel("[[40]]")
        >>> [run(estimator.estimate("What is 3 + 4?"), model).tokens for _ in range(3)]
        [40, 40, 40]
        >>> len(model.calls)
        1
    """

    def __init__(self, inner: Estimator, store: Any = None, *, model: str = "") -> None:
        if not isinstance(inner, Estimator):
            raise InvalidValueError(f"only an estimator can be cached, got {inner!r}")
        if store is not None and not isinstance(store, MutableMapping) and not _is_base_store(store):
            raise InvalidValueError(
                "a store is None (memory), a MutableMapping such as shelve.open(path), or an object with mget "
                f"and mset, as LangChain's stores have; got {type(store).__name__}"
            )
        self.inner = inner
        self.model = model
        self.store: Any = OrderedDict() if store is None else store
        self._bounded = store is None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The inner estimator's name."""
        return self.inner.name

    def estimate(self, question: str) -> Flow[Estimate]:
        """Look the estimate up, or make it; see `Estimator.estimate`."""
        with closing(self.inner.estimate(question)) as flow:
            try:
                call = next(flow)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            key = self._key(call)
            kept = self._kept(key)
            if kept is not None:
                return kept
            estimate = yield from resumed(flow, call)
        if estimate.tokens is not None:
            self._keep(key, estimate)
        return estimate

    def learn(self, question: str, budget: Budget, usage: Usage, events: tuple[ElasticityEvent, ...]) -> None:
        """Pass one answer on to the inner estimator, if it learns; see `Learner.learn`."""
        if isinstance(self.inner, Learner):
            self.inner.learn(question, budget, usage, events)

    def _key(self, call: ModelCall) -> str:
        parts = json.dumps([self.model, self.name, call.model_dump(mode="json")], sort_keys=True)
        return hashlib.sha256(parts.encode(errors="replace")).hexdigest()

    def _kept(self, key: str) -> Estimate | None:
        try:
            found = self._read(key)
        except Exception as exc:  # noqa: BLE001  # whatever a foreign store raises: a cache only saves work
            _warn("read", exc)
            return None
        try:
            return None if found is None else Estimate.model_validate_json(found)
        except ValidationError:
            return None  # written by another version, or damaged: made again and replaced

    def _keep(self, key: str, estimate: Estimate) -> None:
        try:
            self._write(key, estimate.model_dump_json().encode())
        except Exception as exc:  # noqa: BLE001  # as above
            _warn("written", exc)

    def _read(self, key: str) -> Any:
        if _is_base_store(self.store):
            return self.store.mget([key])[0]
        with self._lock:
            found = self.store.get(key)
            if found is not None and self._bounded:
                self.store.move_to_end(key)
            return found

    def _write(self, key: str, value: bytes) -> None:
        if _is_base_store(self.store):
            self.store.mset([(key, value)])
            return
        with self._lock:
            self.store[key] = value
            if self._bounded and len(self.store) > _SIZE:
                self.store.popitem(last=False)  # the one that was not used for longest

    def __repr__(self) -> str:
        return f"CachedEstimator({self.inner!r}, {type(self.store).__name__})"

    # A lock cannot be pickled or deep-copied, and frameworks do both to what they carry.
    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            kept = {name: value for name, value in self.__dict__.items() if name != "_lock"}
            if self._bounded:
                kept["store"] = self.store.copy()  # so that no other thread changes what is being copied
            return kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


def _is_base_store(store: Any) -> bool:
    """Return whether a store has the methods of LangChain's ``BaseStore``, which is not imported here."""
    return callable(getattr(store, "mget", None)) and callable(getattr(store, "mset", None))


def _warn(what: str, error: Exception) -> None:
    warnings.warn(
        f"the cache of estimates cannot be {what} ({type(error).__name__}: {error}); estimates are made anew",
        RuntimeWarning,
        stacklevel=5,
    )
