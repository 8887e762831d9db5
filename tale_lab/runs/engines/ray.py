"""The engine for more than one machine: flows run in worker processes of a Ray cluster.

Every worker is a Ray actor. It holds the flows it was given and makes their calls; this process advances them
one step at a time, looks up known answers, and stores every new one as it comes. So the results file has one
writer, no known answer is asked for again, and when a worker dies only the calls under way are lost: Ray
restarts it, perhaps on another machine, and its flows begin again there, with all answers recalled.
"""

from __future__ import annotations

import importlib
import itertools
import os
import secrets
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

from tale_core.concurrency import Outcome
from tale_core.errors import EngineError, InvalidValueError, MissingExtraError, SpendingLimitError
from tale_core.types import T
from tale_lab.runs.engines.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from tale_core.types import Call, ModelCall, ModelReply
    from tale_lab.runs.engines.local import Make, Memory
    from tale_lab.runs.engines.worker import Step

    OnCall: TypeAlias = Callable[[ModelCall, ModelReply | None], None]
    """Told of every call that was made, with its answer, or None when it failed."""

_MOST_DEATHS = 5
_UNLIMITED = -1


class RayEngine:
    """Runs flows in worker processes of a Ray cluster.

    The machines need this package with the extras that the work needs, and the model's key in the environment
    in which Ray was started there: keys are read where calls are made, and never sent. Anyone who can reach the
    ports of a Ray cluster without a token can run code on it: start yours with RAY_AUTH_MODE=token and the same
    token on all machines, and keep it in a private network. The one that is started for a run listens on this
    machine alone and has a token of its own.

    Args:
        call: Answers one `ModelCall`; must be picklable, as a `ChatClient` from ``ChatClient.open`` is. Each
            worker opens its own.
        workers: How many worker processes, spread over the machines.
        concurrency: How many flows each worker has under way.
        address: A running cluster (``auto``, or ``HOST:PORT``); None starts Ray on this machine for as long as
            flows run, unless the environment (RAY_ADDRESS) names a cluster or this process has joined one.
        on_call: Told, in this process, of every call that was made; may raise `SpendingLimitError` to end all.

    Raises:
        MissingExtraError: Ray is not installed.
        InvalidValueError: ``workers`` or ``concurrency`` is below 1.

    Example::

        engine = RayEngine(ChatClient.open("http://llm.example:8000/v1#llama"), workers=8, address="auto")
        for done in run_jobs(jobs, store, engine, model="llama"):
            ...
    """

    def __init__(
        self,
        call: Call,
        *,
        workers: int = 2,
        concurrency: int = 4,
        address: str | None = None,
        on_call: OnCall | None = None,
    ) -> None:
        for name, value in (("workers", workers), ("concurrency", concurrency)):
            if value < 1:
                raise InvalidValueError(f"{name} must be at least 1, got {value}")
        if address is None and "RAY_ADDRESS" not in os.environ:
            _guard_own_cluster()
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as exc:
            raise MissingExtraError("ray", "ray") from exc
        self._call = call
        self._workers = workers
        self._each = concurrency
        self._address = address
        self._on_call = on_call

    @property
    def concurrency(self) -> int:
        """How many flows are under way at a time, on all workers together."""
        return self._workers * self._each

    def drive(self, flows: Iterable[Make[T]], memory: Memory) -> Generator[Outcome[T], None, None]:
        """Drive many flows; see `tale_lab.runs.engines.Engine`.

        Raises:
            EngineError: The cluster cannot be reached, a worker cannot open the model, or a flow cannot be
                sent.
        """
        with self._joined(), self._crew() as crew:
            run: _Run[T] = _Run(self._ray, crew, memory, each=self._each, on_call=self._on_call)
            yield from run.outcomes(flows)

    @contextmanager
    def _joined(self) -> Iterator[None]:
        """Join the cluster, and leave it again if this process was in none before."""
        if self._ray.is_initialized():
            yield
            return
        self._join()
        try:
            yield
        finally:
            self._ray.shutdown()

    def _join(self) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self._address is None and "RAY_ADDRESS" not in os.environ:
            # A cluster of our own: no dashboard, and no usage reports.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            quiet["include_dashboard"] = False
        try:
            self._ray.init(address=self._address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as exc:
            raise EngineError(
                f"cannot join a Ray cluster at {self._address or 'this machine'}: {exc}; start one with: "
                "ray start --head, and name it with --ray-address HOST:PORT"
            ) from exc

    @contextmanager
    def _crew(self) -> Iterator[list[Any]]:
        """Start the workers, and end them at the end."""
        remote = self._ray.remote(Worker).options(
            max_concurrency=self._each, max_restarts=_UNLIMITED, scheduling_strategy="SPREAD"
        )
        packed = pack(self._ray, self._call, "the model")
        crew = [remote.remote(packed) for _ in range(self._workers)]
        try:
            for trouble in self._ray.get([_patient(one.ready).remote() for one in crew]):
                if trouble is not None:
                    raise EngineError(
                        f"a worker cannot open the model: {trouble} (keys are read from the environment of the "
                        "machine that makes the calls)"
                    )
            yield crew
        finally:
            for one in crew:
                self._ray.kill(one)


def _guard_own_cluster() -> None:
    """Set the environment from which Ray reads who may use a cluster that this process starts.

    What the user has set stays. One token for all clusters of this process: Ray keeps the first that it reads.
    """
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    if "ray" in sys.modules:
        return  # it reads the rest once, when it is imported
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    # In spite of its name it decides on Linux too whether to listen on 127.0.0.1 or on all interfaces.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def pack(ray: Any, thing: object, name: str) -> bytes:
    """Return something pickled, functions included.

    Args:
        ray: The package.
        thing: What to pickle.
        name: What it is, for the message.

    Raises:
        EngineError: It cannot be pickled.
    """
    try:
        return bytes(ray.cloudpickle.dumps(thing))
    except Exception as exc:
        raise EngineError(
            f"{name} cannot be sent to a worker: {type(exc).__name__}: {exc}; make it of plain data and of "
            "functions of modules, or use the local engine"
        ) from exc


def _patient(method: Any) -> Any:
    """Return a worker's method that Ray does again, as often as it takes, when the worker dies."""
    return method.options(max_task_retries=_UNLIMITED)


@dataclass(slots=True)
class _Task:
    """One flow under way."""

    index: int
    packed: bytes
    worker: int = 0
    asked: ModelCall | None = None
    """The call that its worker is making."""
    key: bytes | None = None
    """The key of that call, while other flows may wait for it."""
    deaths: int = 0
    """How many workers died under it."""


class _Run(Generic[T]):
    """Many flows on their way through the workers."""

    def __init__(self, ray: Any, crew: list[Any], memory: Memory, *, each: int, on_call: OnCall | None) -> None:
        self._ray = ray
        self._crew = crew
        self._memory = memory
        self._on_call = on_call
        self._free = dict.fromkeys(range(len(crew)), each)
        self._pending: dict[Any, _Task] = {}
        self._waiting: dict[bytes, list[_Task]] = {}
        """The flows that wait for each call under way, by its key."""

    def outcomes(self, flows: Iterable[Make[T]]) -> Iterator[Outcome[T]]:
        """Take every flow to its end."""
        numbered = enumerate(flows)
        try:
            self._fill(numbered)
            while self._pending:
                for task, step in self._steps():
                    outcome = self._take(task, step)
                    if outcome is not None:
                        self._fill(numbered)
                        yield outcome
        except (GeneratorExit, KeyboardInterrupt, SpendingLimitError):
            self._keep_calls_under_way()
            raise

    def _fill(self, numbered: Iterator[tuple[int, Make[T]]]) -> None:
        """Begin flows while there are places."""
        for index, make in itertools.islice(numbered, sum(self._free.values())):
            self._begin(_Task(index=index, packed=pack(self._ray, make, f"what makes flow {index}")))

    def _begin(self, task: _Task) -> None:
        """Begin a flow at the worker that has the most places."""
        task.worker = max(self._free, key=self._free.__getitem__)
        task.asked = None
        self._free[task.worker] -= 1
        self._pending[_patient(self._crew[task.worker].begin).remote(task.index, task.packed)] = task

    def _steps(self) -> Iterator[tuple[_Task, Step | None]]:
        """Wait until some steps have ended, and yield where their flows stand; None where a worker died."""
        waiting = list(self._pending)
        self._ray.wait(waiting)
        ready, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        lost = (self._ray.exceptions.RayActorError, self._ray.exceptions.ObjectLostError)
        for ref in ready:
            task = self._pending.pop(ref)
            try:
                step = self._ray.get(ref)
            except lost:
                step = None
            yield task, step

    def _take(self, task: _Task, step: Step | None) -> Outcome[T] | None:
        """Write down what a step made, and tell its flow to go on; return the outcome of one that ended."""
        key, task.key = task.key, None
        if step is not None:
            self._write_down(task, step)
        for one in [] if key is None else self._waiting.pop(key):
            self._go_on(one)  # with the answer; without one, the first makes the call
        if step is None:
            return self._begin_again(task)
        if step.asked is None:
            self._free[task.worker] += 1
            return Outcome(index=task.index, value=step.value, error=step.error)
        task.asked = step.asked
        self._go_on(task)
        return None

    def _go_on(self, task: _Task) -> None:
        """Tell a flow to go on with its next call, unless another flow has the same call under way."""
        assert task.asked is not None  # noqa: S101  # a flow that has ended is not here
        known = self._memory.recall(task.asked)
        if known is None:
            key = self._memory.key(task.asked)
            if key in self._waiting:
                self._waiting[key].append(task)
                return
            task.key = key
            self._waiting[key] = []
        self._pending[self._crew[task.worker].go_on.remote(task.index, known)] = task

    def _begin_again(self, task: _Task) -> Outcome[T] | None:
        self._free[task.worker] += 1
        task.deaths += 1
        if task.deaths <= _MOST_DEATHS:
            self._begin(task)
            return None
        error = EngineError(f"{task.deaths} workers died while they worked on this; Ray's own logs say why")
        return Outcome(index=task.index, error=error)

    def _write_down(self, task: _Task, step: Step) -> None:
        if task.asked is None or (step.answer is None and not step.failed):
            return  # no call was made
        if step.answer is not None:
            self._memory.note(task.asked, step.answer)
        if self._on_call is not None:
            self._on_call(task.asked, step.answer)

    def _keep_calls_under_way(self) -> None:
        while self._pending:
            for task, step in self._steps():
                if step is not None:
                    with suppress(SpendingLimitError):
                        self._write_down(task, step)
