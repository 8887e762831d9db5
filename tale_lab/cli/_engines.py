"""Where a measuring command does its work: the options, and the engine that they name."""

from __future__ import annotations

import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from tale_core.errors import InvalidValueError
from tale_lab.runs.engines import LocalEngine, RayEngine
from tale_lab.runs.usage_counter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tale_core.types import Call, ModelCall, ModelReply
    from tale_lab.runs.engines import Engine

    Limited: TypeAlias = Callable[[Call], Call]
    """Puts a limit around the call that answers."""

_WORKERS = 2


class EngineName(str, Enum):
    """The engines."""

    LOCAL = "local"
    RAY = "ray"


EngineOption: TypeAlias = Annotated[
    EngineName,
    typer.Option(
        "--engine",
        help="Where the work is done: local is this process, ray is processes here or on many machines.",
    ),
]
WorkersOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        show_default=str(_WORKERS),
        help="With --engine ray: worker processes in all; --concurrency counts for each.",
    ),
]
RayAddressOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="With --engine ray: a running cluster, as auto or HOST:PORT; without it Ray is started here.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """What the options say about where the work is done.

    Raises:
        InvalidValueError: An option is given that says nothing about the engine chosen.
    """

    engine: EngineName = EngineName.LOCAL
    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.engine is EngineName.LOCAL and (self.workers is not None or self.address is not None):
            given = {"--workers": self.workers, "--ray-address": self.address}
            names = " and ".join(f"{name} {value}" for name, value in given.items() if value is not None)
            raise InvalidValueError(
                f"{names} is for workers of a Ray cluster; add --engine ray, or leave it out"
            )

    def open(
        self, call: Call, *, concurrency: int, limited: Limited = lambda call: call
    ) -> tuple[Engine, Meter]:
        """Return the engine, and what counts its calls.

        Args:
            call: Answers one `ModelCall`; picklable.
            concurrency: How many flows are under way at a time, in each process.
            limited: Puts a limit around the call.

        Raises:
            MissingExtraError: Ray is wanted and not installed.
        """
        meter = Meter(call)
        if self.engine is EngineName.LOCAL:
            return LocalEngine(limited(meter), concurrency=concurrency), meter
        engine = RayEngine(
            call,
            workers=self.workers or _WORKERS,
            concurrency=concurrency,
            address=self.address,
            on_call=_counting(meter, limited),
        )
        return engine, meter

    def stdout_kept(self) -> AbstractContextManager[Any]:
        """Keep stdout for results: Ray tells there, from a thread of its own, that a worker has died."""
        return nullcontext() if self.engine is EngineName.LOCAL else redirect_stdout(sys.stderr)


def _counting(meter: Meter, limited: Limited) -> Callable[[ModelCall, ModelReply | None], None]:
    """Return what counts calls that workers made, and lets a limit look at them."""
    answers: list[ModelReply] = []
    limit = limited(lambda _: answers.pop())

    def count(call: ModelCall, reply: ModelReply | None) -> None:
        meter.count(call, reply)
        if reply is not None:
            answers.append(reply)
            limit(call)

    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """The model that answers and the one that judges, as one call; picklable as its parts are."""

    client: Call
    judge: Call | None = None

    def __call__(self, call: ModelCall) -> ModelReply:
        """Answer one call with the model that it is for."""
        return self.judge(call) if call.role == "judge" and self.judge is not None else self.client(call)
