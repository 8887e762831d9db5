"""The adaptive estimator: learns on the job what its answers cost, and saves the extra call once it knows."""

from __future__ import annotations

import copy
import random
import threading
import warnings
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from tale_core.errors import InvalidValueError, StoreError
from tale_core.estimators.features import FEATURES
from tale_core.estimators.learner import Apprentice, ApprenticeState
from tale_core.events import ElasticityEvent, ElasticityKind
from tale_core.files import replace_file
from tale_core.protocols import Estimator
from tale_core.types import Budget, Estimate, Flow, Record, Usage

_VERSION = 1
_SEPARATOR = "/"
_SMALLEST_WINDOW = 20
_LOCKS = {"_lock", "_file_lock"}
# What such an answer cost says nothing about what the question takes.
_NO_MEASURE = {ElasticityKind.COLLAPSE, ElasticityKind.TRUNCATED}


class AdaptiveState(Record):
    """What the file of an `AdaptiveEstimator` holds."""

    version: int
    """Version of the file's layout."""
    start: str
    """Name of the estimator that it started with."""
    quantile: float
    """The share of answers that its budgets are to cover."""
    features: tuple[str, ...]
    """What it counts in a question."""
    saved_calls: int
    """Questions that were given a budget without asking the start."""
    apprentice: ApprenticeState
    """What was learned."""


class AdaptiveStatus(Record):
    """How an `AdaptiveEstimator` is doing."""

    in_charge: Literal["start", "learned"]
    """Whose estimates are used, but for the exploration."""
    answers: int = Field(ge=0)
    """Answers learned from since the last start."""
    learned_loss: float | None
    """Mean pinball loss of the learned predictions over the window, in logarithms of tokens."""
    start_loss: float | None
    """The same for the start's budgets, on the same answers."""
    takeovers: int
    """How often the learned predictions took over."""
    saved_calls: int
    """Questions that were given a budget without asking the start."""


class AdaptiveEstimator:
    """Starts with another estimator, learns what its answers really cost, and takes over when it is better.

    What it learns is the real cost of an answer under the start's budgets, from the question's text alone.
    That is not the optimal budget, which takes searching with a known answer: it learns to do without the
    extra call what the start does with it, corrected for what answers really took. It learns nothing from
    answers under a budget of its own, so that it cannot talk itself into ever smaller or larger ones, and
    nothing from answers that overran, collapsed or were cut.

    *Better* means: over the last ``window`` answers that it could learn from, the mean pinball loss of its
    predictions, made before the answers, is at most nine tenths of the loss of the start's budgets, and less
    by three standard errors. In charge, it hands back and learns anew when its budgets go worse than the
    start's did (overruns and collapses included), or when the start is better where it is still asked, again
    by three standard errors. Losses are taken of logarithms, so that a factor counts the same at any length.

    Only answers whose tokens the provider reported count. Safe under threads; one process for each file.

    Args:
        start: The estimator to start with, to explore with, and to hand back to.
        quantile: The share of answers that its budgets are to cover.
        window: How many answers are compared, at least 20.
        explore: Share of the questions that still go to the start once it has taken over.
        memory: After about this many answers an old one has lost most of its weight.
        path: JSON file that it resumes from and writes after every answer it learns from; None keeps nothing.
        seed: Makes the exploration repeatable.

    Raises:
        InvalidValueError: A value out of bounds, or a file that is foreign or belongs to another start.

    Example:
        >>> from tale_core import TaleMethod, ZeroShotEstimator, run
        >>> from tale_core.testing import ScriptedModel
        >>> estimator = AdaptiveEstimator(ZeroShotEstimator())
        >>> model = ScriptedModel(estimate="[[10]]", reason="Three and four: 3 + 4 = 7, so the answer is 7.")
        >>> answer = run(TaleMethod(estimator=estimator).begin("What is 3 + 4?").answer(), model)
        >>> answer.plan.budget.source, estimator.status.answers
        ('adaptive/zero-shot', 1)
    """

    def __init__(
        self,
        start: Estimator,
        *,
        quantile: float = 0.75,
        window: int = 50,
        explore: float = 0.05,
        memory: float = 500,
        path: str | Path | None = None,
        seed: int | None = None,
    ) -> None:
        _check(start, quantile, window, explore, memory)
        self.start = start
        self.quantile = quantile
        self.window = window
        self.explore = explore
        self.memory = memory
        self.path = None if path is None else Path(path)
        self._random = random.Random(seed)  # noqa: S311  # exploration, no secret
        self._lock, self._file_lock = threading.Lock(), threading.Lock()
        state = None if self.path is None else _read(self.path, start.name, quantile)
        self._saved_calls = 0 if state is None else state.saved_calls
        self._apprentice = Apprentice(
            quantile=quantile,
            window=window,
            memory=memory,
            state=None if state is None else state.apprentice,
        )

    @property
    def name(self) -> str:
        """``"adaptive"``; estimates that it leaves to the start are named ``"adaptive/<start>"``."""
        return "adaptive"

    @property
    def status(self) -> AdaptiveStatus:
        """How it is doing."""
        with self._lock:
            own, start = self._apprentice.contest.losses
            return AdaptiveStatus(
                in_charge="learned" if self._apprentice.in_charge else "start",
                answers=self._apprentice.regression.count,
                learned_loss=own,
                start_loss=start,
                takeovers=self._apprentice.takeovers,
                saved_calls=self._saved_calls,
            )

    def estimate(self, question: str) -> Flow[Estimate]:
        """Predict, or ask the start; see `Estimator.estimate`."""
        tokens = self._predicted(question)
        if tokens is not None:
            return Estimate(tokens=tokens, source=self.name, calibrated=True)
        found = yield from self.start.estimate(question)
        return found.model_copy(update={"source": f"{self.name}{_SEPARATOR}{found.source}"})

    def learn(self, question: str, budget: Budget, usage: Usage, events: tuple[ElasticityEvent, ...]) -> None:
        """Take in what an answer cost; see `Learner.learn`."""
        mine = budget.source == self.name
        if not (mine or budget.source.startswith(f"{self.name}{_SEPARATOR}")):
            return  # a budget of somebody else's, or a second asking
        if budget.tokens is None or usage.source != "measured" or usage.output_tokens < 1:
            return
        cost = usage.output_tokens
        with self._lock:
            if mine:
                self._apprentice.note_own(budget.tokens, cost)
            else:
                measure = not any(event.kind in _NO_MEASURE for event in events)
                self._apprentice.note_start(question, budget.tokens, cost, measure=measure)
        self._write()

    def _predicted(self, question: str) -> int | None:
        with self._lock:
            if not self._apprentice.turn(self._random.random(), self.explore):
                return None
            tokens = self._apprentice.predict(question)
            self._saved_calls += tokens is not None
            return tokens

    def _state(self) -> AdaptiveState:
        with self._lock:
            return AdaptiveState(
                version=_VERSION,
                start=self.start.name,
                quantile=self.quantile,
                features=FEATURES,
                saved_calls=self._saved_calls,
                apprentice=self._apprentice.state,
            )

    def _write(self) -> None:
        if self.path is None:
            return
        try:
            with self._file_lock:  # around both, so that no older state replaces a newer one
                replace_file(self.path, self._state().model_dump_json().encode())
        except StoreError as exc:
            warnings.warn(f"{exc}; what was learned is kept in memory", RuntimeWarning, stacklevel=3)

    def __repr__(self) -> str:
        return f"AdaptiveEstimator({self.start!r}) <{self.status.in_charge} in charge>"

    # A lock cannot be pickled or deep-copied, and frameworks do both to what they carry.
    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            kept = {name: value for name, value in self.__dict__.items() if name not in _LOCKS}
            return copy.deepcopy(kept)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._file_lock = threading.Lock(), threading.Lock()


def _check(start: Estimator, quantile: float, window: int, explore: float, memory: float) -> None:
    if not isinstance(start, Estimator):
        raise InvalidValueError(f"start must be an estimator, got {start!r}; for a number use FixedEstimator")
    if not 0 < quantile < 1:
        raise InvalidValueError(f"a quantile lies between 0 and 1, got {quantile}")
    if window < _SMALLEST_WINDOW:
        raise InvalidValueError(f"window must be at least {_SMALLEST_WINDOW} answers, got {window}")
    if not 0 <= explore <= 1:
        raise InvalidValueError(f"explore is a share of the questions, from 0 to 1, got {explore}")
    if memory < window:
        raise InvalidValueError(f"memory must be at least the window, {window} answers; got {memory}")


def _read(path: Path, start: str, quantile: float) -> AdaptiveState | None:
    """Read what was learned before; None where there is no file yet."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise InvalidValueError(f"cannot read {str(path)!r}: {exc.strerror}; name another file") from exc
    try:
        state = AdaptiveState.model_validate_json(content)
    except ValidationError as exc:
        raise InvalidValueError(
            f"{str(path)!r} holds nothing that an adaptive estimator of this version learned; name another file"
        ) from exc
    if (state.version, state.features) != (_VERSION, FEATURES):
        raise InvalidValueError(
            f"{str(path)!r} was written by another version of tale-reasoning; delete it to learn anew"
        )
    if (state.start, state.quantile) != (start, quantile):
        raise InvalidValueError(
            f"{str(path)!r} was learned from start {state.start!r} at quantile {state.quantile}, this is "
            f"{start!r} at {quantile}; name another file"
        )
    return state
