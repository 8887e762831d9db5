"""Estimates that were paid for once, kept."""

from __future__ import annotations

import hashlib
import json
import warnings
from contextlib import closing
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tale_core.errors import InvalidValueError
from tale_core.estimators.stores import as_store
from tale_core.flows import resumed
from tale_core.protocols import Estimator, Learner
from tale_core.types import Estimate

if TYPE_CHECKING:
    from tale_core.estimators.stores import EstimateStore
    from tale_core.events import ElasticityEvent
    from tale_core.types import Budget, Flow, ModelCall, Usage


class CachedEstimator:
    """Keeps what another estimator found out by asking a model.

    The key is a digest of the first call that the other estimator makes (the question and its own wording and
    settings are in it), of its name and of the model's name; no prompt is stored. Estimates that take no call
    are not kept: looking them up would save nothing. Nor are failures.

    Two askings of a new question at the same time both make the call: to wait for the other one's would hold up
    a thread or an event loop on which that other one may be running. A store that fails is warned of, and the
    estimate made as if it were empty.

    Args:
        inner: The estimator.
        store: None to keep the last 10,000 in memory, the path of a SQLite file, any LangChain ``BaseStore``,
            or a `MemoryStore` of another size.
        model: Name of the model that makes the estimates. Give one with a store that outlives the process, so
            that another model's estimates are not taken for this one's.

    Raises:
        InvalidValueError: ``inner`` is no estimator, or the store cannot be used.

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
        self.inner = inner
        self.model = model
        self.store: EstimateStore = as_store(store)

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
            found = self.store.get(key)
        except Exception as exc:  # noqa: BLE001  # whatever a foreign store raises: a cache only saves work
            _warn("read", exc)
            return None
        try:
            return None if found is None else Estimate.model_validate_json(found)
        except ValidationError:
            return None  # written by another version, or damaged: made again and replaced

    def _keep(self, key: str, estimate: Estimate) -> None:
        try:
            self.store.put(key, estimate.model_dump_json().encode())
        except Exception as exc:  # noqa: BLE001  # as above
            _warn("written", exc)

    def __repr__(self) -> str:
        return f"CachedEstimator({self.inner!r}, {type(self.store).__name__})"


def _warn(what: str, error: Exception) -> None:
    warnings.warn(
        f"the cache of estimates cannot be {what} ({type(error).__name__}: {error}); estimates are made anew",
        RuntimeWarning,
        stacklevel=4,
    )
