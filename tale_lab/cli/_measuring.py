"""The machine behind every measuring command: its options, and what opens, runs and accounts for their jobs."""

from __future__ import annotations

import functools
import inspect
import signal
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager, redirect_stdout
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeAlias, TypeVar, get_type_hints

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tale_core import __version__
from tale_core.errors import DataError, InvalidValueError, SpendingLimitError, StoreError
from tale_core.estimators import RegressionEstimator
from tale_core.models.client import ChatClient
from tale_core.models.model_strings import safe_words
from tale_core.types import Record, Usage
from tale_lab.bench.benchmark import bench_jobs
from tale_lab.bench.report import Plan, list_price
from tale_lab.bench.report.views import COMMAND
from tale_lab.cli._shared import (
    FAILED,
    INTERRUPTED,
    JsonOption,
    ModelOption,
    ModelPathOption,
    err,
)
from tale_lab.questions.datasets import ANSWER_FORMAT, Dataset, load_dataset
from tale_lab.questions.graders import Judge, grader_name
from tale_lab.results.store import Store
from tale_lab.runs.accounts import Account
from tale_lab.runs.engines import LocalEngine, RayEngine
from tale_lab.runs.runner import run_jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Self

    from tale_core.types import Call, ModelCall, ModelReply
    from tale_lab.bench.benchmark import Attempt, Sampling
    from tale_lab.bench.methods import Method
    from tale_lab.questions.graders import Grader
    from tale_lab.runs.engines import Engine
    from tale_lab.runs.runner import Done, Job
    from tale_lab.runs.runner import Progress as Standing

R = TypeVar("R", bound=Record)
T = TypeVar("T")

LIMITED = 3
"""Exit status when a spending limit ended the run."""

_WORKERS = 2
_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_WORDS = 1.0

StrategyOption: TypeAlias = Annotated[str, typer.Option(help="Prompt strategy that carries the budget.")]
SamplesOption: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Answers per budget; more than one for models that are not deterministic.")
]


class EngineName(str, Enum):
    """The engines."""

    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of every command that puts many questions to a model."""

    model: ModelOption = "local"
    model_path: ModelPathOption = None
    concurrency: Annotated[int, typer.Option(min=1, help="Questions under way at a time.")] = 4
    engine: Annotated[
        EngineName,
        typer.Option(help="Where the work is done: this process (local), or workers, here or elsewhere (ray)."),
    ] = EngineName.LOCAL
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default=str(_WORKERS),
            help="With --engine ray: worker processes in all; --concurrency counts for each.",
        ),
    ] = None
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="With --engine ray: a running cluster, as auto or HOST:PORT; without it Ray is started here.",
        ),
    ] = None
    max_tokens_total: Annotated[
        int | None, typer.Option(min=1, help="Stop once this run has taken so many input and output tokens.")
    ] = None
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="Stop once this run has cost so many US dollars, at list price.")
    ] = None
    retries: Annotated[
        int, typer.Option(min=0, help="How often a call that the provider refused is tried again.")
    ] = 4
    call_timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.001,
            show_default="120 and the time to write the output limit slowly",
            help="Most seconds for one call, retries included; a call that takes longer has failed.",
        ),
    ] = None
    deadline: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.001,
            help="Stop after so many seconds, calls under way included; the same command goes on later.",
        ),
    ] = None
    as_json: JsonOption = False

    def __post_init__(self) -> None:
        given = {"--workers": self.workers, "--ray-address": self.ray_address}
        names = " and ".join(f"{name} {value}" for name, value in given.items() if value is not None)
        if self.engine is EngineName.LOCAL and names:
            raise InvalidValueError(
                f"{names} is for workers of a Ray cluster; add --engine ray, or leave it out"
            )


@dataclass(frozen=True, kw_only=True)
class MeasuringOptions(RunOptions):
    """The options of every command that measures a model on questions with known answers."""

    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            show_default=False,
            help="Questions with answers: a .jsonl or .csv file, a reasoning-gym task "
            "(gsm_symbolic:200:seed=7), or a Hugging Face dataset (hf:openai/gsm8k:main:test). START:STOP in "
            "brackets takes a slice.",
        ),
    ]
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first questions.")] = None
    answer_format: Annotated[
        bool, typer.Option("--answer-format", help="Ask for the answer in double brackets, as the paper does.")
    ] = False
    skip_malformed: Annotated[
        bool, typer.Option("--skip-malformed", help="Leave malformed entries out instead of stopping.")
    ] = False
    grader: Annotated[
        str, typer.Option(help="auto, numeric, choice, exact, math, gym, judge, or module:function.")
    ] = "auto"
    judge: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Model that grades; implies --grader judge. Forms as for --model."),
    ] = None
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Sampling temperature; the model's own by default.")
    ] = None
    max_tokens: Annotated[int, typer.Option(min=1, help="Output limit of every answer, in tokens.")] = 1024
    results: Annotated[
        Path, typer.Option("--out", "-o", help="Results file; a run that was stopped goes on in it.")
    ] = Path("run.sqlite")

    def open_data(self, source: str | None = None) -> Dataset:
        """Read the questions, and say what was left out.

        Args:
            source: Other questions, read in the same way; None for the command's own.
        """
        dataset = load_dataset(
            self.data if source is None else source,
            limit=self.limit,
            on_error="skip" if self.skip_malformed else "stop",
            instruction=ANSWER_FORMAT if self.answer_format else "",
        )
        for message in dataset.skipped:
            err.print(f"skipped: {message}", style="yellow", markup=False, soft_wrap=True)
        if dataset.merged:
            err.print(f"{dataset.merged} repeated questions are asked once", style="yellow")
        return dataset


def with_options(command: Callable[..., T]) -> Callable[..., T]:
    """Return a command that names the fields of its parameter ``options`` as options of its own.

    Args:
        command: A function whose parameter ``options`` is annotated with `RunOptions` or a subclass.
    """
    signature = inspect.signature(command, eval_str=True)
    parameters = dict(signature.parameters)
    kind = parameters.pop("options").annotation
    hints = get_type_hints(kind, include_extras=True)
    shared = {
        one.name: inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=getattr(kind, one.name, inspect.Parameter.empty),
            annotation=hints[one.name],
        )
        for one in fields(kind)
    }

    @functools.wraps(command)
    def run(**arguments: Any) -> T:
        options = kind(**{name: arguments.pop(name) for name in shared})
        return command(options=options, **arguments)

    everything = {**{name: one.replace(kind=one.KEYWORD_ONLY) for name, one in parameters.items()}, **shared}
    run.__signature__ = signature.replace(parameters=list(everything.values()))  # type: ignore[attr-defined]
    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """The model that answers and the one that judges, as one call; picklable as its parts are."""

    client: Call
    judge: Call | None = None

    def __call__(self, call: ModelCall) -> ModelReply:
        """Answer one call with the model that it is for."""
        return self.judge(call) if call.role == "judge" and self.judge is not None else self.client(call)


@dataclass(frozen=True, slots=True)
class Worked(Generic[R]):
    """How a run ended."""

    results: list[R] = field(default_factory=list)
    """Everything that is finished, by this run or an earlier one."""
    failed: list[Done[R]] = field(default_factory=list)
    """The questions that failed."""
    ended: list[BaseException] = field(default_factory=list)
    """What ended the run before all was done; empty when nothing did."""

    def leave(self) -> None:
        """End the command with the exit status that suits the run; return when everything is answered.

        Raises:
            Exit: A limit, Ctrl-C or a failed question.
            Exception: Whatever else ended the run.
        """
        for ended in self.ended:
            if isinstance(ended, KeyboardInterrupt):
                err.print("stopped; the same command goes on where it was", style="yellow")
                raise typer.Exit(INTERRUPTED)
            if isinstance(ended, SpendingLimitError):
                err.print(f"stopped: {ended}; the same command goes on where it was", style="yellow")
                raise typer.Exit(LIMITED)
            raise ended
        if self.failed:
            raise typer.Exit(FAILED)


class Measuring:
    """What a measuring command works with: the models, the grader, the results file, the engine, the limits.

    Opening it makes no call. Use it as a context manager: it closes the results file.

    Args:
        options: The command's options.
        store: The results file, where the command has it open already; None opens the one in the options.
        priced: Whether to look the model's price up, also without a cost limit.

    Raises:
        InvalidValueError: A cost limit without a known price, or an invalid model.
    """

    def __init__(self, options: RunOptions, *, store: Store | None = None, priced: bool = False) -> None:
        self.options = options
        self._opened = ExitStack()
        self._store = store
        self._path = getattr(options, "results", Path("run.sqlite"))
        patience: dict[str, Any] = {"max_retries": options.retries, "timeout": options.call_timeout}
        self.client = ChatClient.open(options.model, model_path=options.model_path, **patience)
        self.judge: ChatClient | None = None
        self.grader: str | Grader = "auto"
        if isinstance(options, MeasuringOptions):
            self.grader = options.grader
            if options.judge is not None:
                self.judge = ChatClient.open(options.judge, **patience)
            elif options.grader == "judge":
                self.judge = self.client
            if self.judge is not None:
                self.grader = Judge(name=f"judge {self.judge.model}")
        limited = options.max_cost is not None
        self.price = list_price(self.client.model, self.client.address) if priced or limited else None
        self.account = Account(
            max_tokens=options.max_tokens_total,
            max_cost=options.max_cost,
            price=self.price,
            max_seconds=options.deadline,
        )
        for one in (self.client, self.judge):
            if one is not None:
                one.ends_at = self.account.ends_at
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    @property
    def store(self) -> Store:
        """The results file; opened, and made, when it is first used."""
        if self._store is None:
            self._store = self._opened.enter_context(Store(self._path))
        return self._store

    @property
    def temperature(self) -> float | None:
        """The sampling temperature that was asked for, else the model's own."""
        asked = getattr(self.options, "temperature", None)
        return self.client.temperature if asked is None else asked

    def engine(self) -> Engine:
        """Return where flows run, with every call on the account."""
        options, models = self.options, Models(client=self.client, judge=self.judge)
        if options.engine is EngineName.LOCAL:
            return LocalEngine(self.account.paying(models), concurrency=options.concurrency)
        return RayEngine(
            models,
            workers=options.workers or _WORKERS,
            concurrency=options.concurrency,
            address=options.ray_address,
            on_call=self.account.book,
        )

    def record(self, command: str, dataset: Dataset, **facts: Any) -> None:
        """Write down what this run is about to do, and its questions with their answers."""
        for question in dataset.questions:
            key = f"question {question.id}"
            if key not in self.store:  # a look is far quicker than a commit, and a run goes on many times
                self.store.put(key, "question", question, model="", question_id=question.id)
        self.store.begin_run(
            command=command,
            model=self.client.model,
            data=dataset.source,
            digest=dataset.digest,
            questions=[question.id for question in dataset.questions],
            grader=grader_name(self.grader),
            **facts,
        )

    def benchmark(
        self, dataset: Dataset, methods: Sequence[Method], sampling: Sampling
    ) -> tuple[list[Job[Attempt]], Plan]:
        """Write a benchmark down and return its jobs, so that ``tale report`` shows it.

        Args:
            dataset: The questions.
            methods: What is compared.
            sampling: Sampling of every answer.
        """
        client = self.client
        jobs = bench_jobs(dataset, methods, model=client.model, sampling=sampling, grader=self.grader)
        plan = Plan.of(
            dataset,
            methods,
            model=client.model,
            sampling=sampling,
            grader=grader_name(self.grader),
            address=getattr(client, "address", ""),
            version=__version__,
        )
        described = plan.model_dump(mode="json")
        self.store.begin_run(command=COMMAND, model=client.model, data=dataset.source, plan=described)
        return jobs, plan

    def work(
        self, jobs: Sequence[Job[R]], *, cap: int, note: Callable[[Sequence[R]], str], things: str = "questions"
    ) -> Worked[R]:
        """Say what jobs may take, run them, and say what they took.

        Args:
            jobs: What to do.
            cap: Output limit of one call, in tokens.
            note: A few words on the results so far.
            things: What the jobs are.
        """
        todo = [job for job in jobs if job.key not in self.store]
        self.tell_bound(len(todo), len(jobs), calls=sum(job.most_calls for job in todo), cap=cap, things=things)
        worked = self.drive(jobs, note=note, things=things)
        self.tell_spent()
        tell_failures(worked.failed, things)
        return worked

    def drive(
        self, jobs: Sequence[Job[R]], *, note: Callable[[Sequence[R]], str], things: str = "questions"
    ) -> Worked[R]:
        """Run jobs under a progress bar; what ends the run early is in the result, but for a broken store."""
        worked: Worked[R] = Worked()
        running = run_jobs(
            jobs,
            self.store,
            self.engine(),
            model=self.client.model,
            judge=None if self.judge is None else self.judge.model,
            on_progress=lambda standing, _: show(standing, lambda: note(worked.results)),
        )
        try:
            with (
                self.stdout_kept(),
                interruptible(),
                closing(running),
                progress_shown(len(jobs), things) as show,
            ):
                for done in running:
                    if done.result is None:
                        worked.failed.append(done)
                    else:
                        worked.results.append(done.result)
        except StoreError:
            raise
        except (KeyboardInterrupt, Exception) as exc:  # noqa: BLE001  # `Worked.leave` raises it, after the report
            worked.ended.append(exc)
        return worked

    @contextmanager
    def stdout_kept(self) -> Iterator[None]:
        """Keep stdout for results: Ray tells there, from a thread of its own, that a worker has died."""
        with ExitStack() as kept:
            if self.options.engine is EngineName.RAY:
                kept.enter_context(redirect_stdout(sys.stderr))
            yield

    def facts(self, worked: Worked[Any]) -> dict[str, Any]:
        """Return what the JSON output of every measuring command says about a run."""
        return {
            "finished": len(worked.results),
            "failed": [
                {"question": one.question.id, "error": safe_words(one.error)}
                for one in worked.failed
                if one.error is not None
            ],
            "spent": self.account.spent,
        }

    def tell_bound(self, todo: int, total: int, *, calls: int, cap: int, things: str = "questions") -> None:
        """Print, before a run, the most that it can take.

        Args:
            todo: What is not finished yet.
            total: Everything.
            calls: Calls, at most; judging comes on top.
            cap: Output limit of one call, in tokens.
            things: What is counted: questions, answers, ...
        """
        known = f"; {total - todo} of {total} are finished already" if todo < total else ""
        judging = f", and {calls:,} short calls to judge the answers" if self.judge is not None else ""
        err.print(
            f"at most {calls:,} calls and {calls * cap:,} output tokens for {todo:,} {things}{judging}{known}",
            soft_wrap=True,
        )
        if self.price is not None and todo:
            bound = self.price(Usage(output_tokens=calls * cap))
            err.print(f"at most ${bound:,.2f} for these output tokens at list price; the prompts come on top")

    def tell_spent(self) -> None:
        """Print what the run took."""
        spent, seconds = self.account.spent, time.monotonic() - self._began
        counted = f"; {spent['estimated']} calls counted by a tokenizer" if spent["estimated"] else ""
        failed = f", {spent['failed']} more failed" if spent["failed"] else ""
        err.print(
            f"took {spent['calls']:,} calls{failed}; {spent['input_tokens']:,} input and "
            f"{spent['output_tokens']:,} output tokens in {seconds:,.0f} seconds{counted}",
            soft_wrap=True,
        )


def tell_failures(failed: Sequence[Done[Any]], things: str) -> None:
    """Print which questions failed, and that they can be retried."""
    for done in failed:
        said = "" if done.error is None else safe_words(done.error)
        words = f"failed: {done.question.question[:60]!r}: {said}"
        err.print(words, style="red", markup=False, soft_wrap=True)
    if failed:
        err.print(f"{len(failed)} {things} failed; run the same command again to retry them", style="red")


def fitted_elsewhere(path: Path, *datasets: Dataset) -> RegressionEstimator:
    """Open an estimator that was fitted on none of the questions that it is to be measured on.

    Raises:
        DataError: It was fitted on some of them.
    """
    found = RegressionEstimator.load(path)
    for dataset in datasets:
        known = [one.id for one in dataset.questions if found.trained_on(one.question)]
        if known:
            raise DataError(
                f"{path} was fitted on {len(known)} of the {len(dataset)} questions of {dataset.source} "
                f"({known[0]!r}, ...): it would be tested on what it has seen; name other questions, or an "
                "estimator fitted elsewhere"
            )
    return found


def right_so_far(attempts: Sequence[Attempt]) -> str:
    """Return a few words on the answers of several methods."""
    right = sum(one.correct for one in attempts) / max(1, len(attempts))
    return f"{right:.0%} right over all methods"


def numbers(text: str, kind: Callable[[str], T]) -> list[T]:
    """Read numbers separated by commas.

    Args:
        text: What the user wrote.
        kind: ``int`` or ``float``.

    Raises:
        InvalidValueError: Something between the commas is no such number.
    """
    try:
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError as exc:
        what = "whole numbers" if kind is int else "numbers"
        raise InvalidValueError(f"expected {what} separated by commas, got {text!r}") from exc


@contextmanager
def interruptible() -> Iterator[None]:
    """Say on Ctrl-C what is waited for; a second Ctrl-C ends the process at once. Finished calls are kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        err.print("\nstopping after the calls under way; Ctrl-C again stops at once, and loses only those")
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def progress_shown(
    total: int, things: str = "questions"
) -> Iterator[Callable[[Standing, Callable[[], str]], None]]:
    """Draw a bar on a terminal; elsewhere print a line now and then.

    Args:
        total: How many things there are to do.
        things: What they are.

    Returns:
        A function to call with the progress, and with a function that describes it, called now and then.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )
    pause = _SECONDS_BETWEEN_WORDS if err.is_terminal else _SECONDS_BETWEEN_LINES
    said = time.monotonic()

    def show(standing: Standing, words: Callable[[], str]) -> None:
        nonlocal said
        bar.update(task, completed=standing.done)
        if time.monotonic() - said < pause:
            return  # what the words say is totalled over all results
        said = time.monotonic()
        bar.update(task, description=words())
        if not err.is_terminal:
            left = standing.seconds_left
            rest = "" if left is None else f", about {left / 60:.0f} minutes left"
            err.print(f"{standing.done} of {standing.total} {things}{rest}; {words()}")

    with bar:
        task = bar.add_task("", total=total)
        yield show
