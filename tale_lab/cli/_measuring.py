"""What the measuring commands share: their options, the cost before and after, and the progress bar."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeAlias, TypeVar

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tale_core.models.client import ChatClient
from tale_core.types import Record
from tale_lab.cli._engines import Models, Where
from tale_lab.cli._shared import err
from tale_lab.questions.datasets import ANSWER_FORMAT, Dataset, load_dataset
from tale_lab.questions.graders import Judge, grader_name
from tale_lab.runs.runner import run_jobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tale_core.search.graded_call import Asking
    from tale_core.types import Call
    from tale_lab.questions.graders import Grader
    from tale_lab.results.store import Store
    from tale_lab.runs.runner import Done, Job
    from tale_lab.runs.runner import Progress as Standing
    from tale_lab.runs.usage_counter import Spent

R = TypeVar("R", bound=Record)

_SECONDS_BETWEEN_LINES = 30.0
_SECONDS_BETWEEN_WORDS = 1.0

DataArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        show_default=False,
        help="Questions with answers: a .jsonl or .csv file, a reasoning-gym task (gsm_symbolic:200:seed=7), "
        "or a Hugging Face dataset (hf:openai/gsm8k:main:test). START:STOP in brackets takes a slice.",
    ),
]
StrategyOption: TypeAlias = Annotated[str, typer.Option(help="Prompt strategy that carries the budget.")]
SamplesOption: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Answers per budget; more than one for models that are not deterministic.")
]
GraderOption: TypeAlias = Annotated[
    str, typer.Option(help="auto, numeric, choice, exact, math, gym, judge, or module:function.")
]
JudgeOption: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Model that grades; implies --grader judge. Forms as for --model."),
]
ConcurrencyOption: TypeAlias = Annotated[int, typer.Option(min=1, help="Questions under way at a time.")]
LimitOption: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Take only the first questions.")]
TemperatureOption: TypeAlias = Annotated[
    float | None, typer.Option(min=0, help="Sampling temperature; the model's own by default.")
]
MaxTokensOption: TypeAlias = Annotated[int, typer.Option(min=1, help="Hard cap of every answer.")]
OutOption: TypeAlias = Annotated[
    Path, typer.Option("--out", "-o", help="Results file; a run that was stopped goes on in it.")
]
SkipOption: TypeAlias = Annotated[
    bool, typer.Option("--skip-malformed", help="Leave malformed entries out instead of stopping.")
]
FormatOption: TypeAlias = Annotated[
    bool, typer.Option("--answer-format", help="Ask for the answer in double brackets, as the paper does.")
]


def open_data(data: str, *, limit: int | None, skip: bool, answer_format: bool) -> Dataset:
    """Read the questions, and say what was left out."""
    dataset = load_dataset(
        data,
        limit=limit,
        on_error="skip" if skip else "stop",
        instruction=ANSWER_FORMAT if answer_format else "",
    )
    for message in dataset.skipped:
        err.print(f"skipped: {message}", style="yellow", markup=False, soft_wrap=True)
    if dataset.merged:
        err.print(f"{dataset.merged} repeated questions are asked once", style="yellow")
    return dataset


@dataclass(frozen=True, slots=True)
class Worked(Generic[R]):
    """How a run ended."""

    results: list[R]
    """Everything that is finished, by this run or an earlier one."""
    failed: list[Done[R]]
    """The questions that failed."""
    spent: Spent
    """What this run took."""
    ended: BaseException | None = None
    """What ended the run before all was done."""

    def facts(self) -> dict[str, Any]:
        """Return what the JSON output of every measuring command says about a run."""
        return {
            "finished": len(self.results),
            "failed": [
                {"question": one.question.id, "error": f"{type(one.error).__name__}: {one.error}"}
                for one in self.failed
            ],
            "spent": self.spent.model_dump(mode="json"),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where jobs are worked on: a model, a results file, and how many questions at a time."""

    client: ChatClient
    store: Store
    concurrency: int
    judge: ChatClient | None = None
    where: Where = field(default_factory=Where)

    def work(
        self, jobs: Sequence[Job[R]], *, calls: int, tokens: int, note: Callable[[Sequence[R]], str]
    ) -> Worked[R]:
        """Say what jobs may take, run them under a progress bar, and say what they took.

        Args:
            jobs: What to do.
            calls: Most calls of one question.
            tokens: Most output tokens of one call.
            note: A few words on the results so far.
        """
        todo = sum(job.key not in self.store for job in jobs)
        tell_bound(
            todo, len(jobs), calls=todo * calls, tokens=todo * calls * tokens, judged=self.judge is not None
        )
        return self.drive(jobs, note=note)

    def drive(
        self,
        jobs: Sequence[Job[R]],
        *,
        note: Callable[[Sequence[R]], str],
        things: str = "questions",
        limited: Callable[[Call], Call] = lambda call: call,
        ending: tuple[type[BaseException], ...] = (),
    ) -> Worked[R]:
        """Run jobs under a progress bar, and say what they took.

        Args:
            jobs: What to do.
            note: A few words on the results so far.
            things: What the jobs are.
            limited: Puts a limit around the call that answers.
            ending: What may end the run early and still leave what there is; all else is raised.
        """
        models = Models(client=self.client, judge=self.judge)
        engine, meter = self.where.open(models, concurrency=self.concurrency, limited=limited)
        began = time.monotonic()
        results: list[R] = []
        failed: list[Done[R]] = []
        ended: BaseException | None = None
        running = run_jobs(
            jobs,
            self.store,
            engine,
            model=self.client.model,
            judge=None if self.judge is None else self.judge.model,
            on_progress=lambda standing, _: show(standing, lambda: note(results)),
        )
        try:
            with (
                self.where.stdout_kept(),
                interruptible(),
                closing(running),
                progress_shown(len(jobs), things) as show,
            ):
                for done in running:
                    if done.result is None:
                        failed.append(done)
                    else:
                        results.append(done.result)
        except ending as exc:
            ended = exc
        tell_spent(meter.spent, time.monotonic() - began)
        _tell_failures(failed, things)
        return Worked(results, failed, meter.spent, ended)

    def record(self, command: str, dataset: Dataset, settings: Asking, grader: str | Grader) -> None:
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
            settings=settings.model_dump(mode="json"),
            grader=grader_name(grader),
        )


def open_judge(grader: str, judge: str | None, client: ChatClient) -> ChatClient | None:
    """Return the model that grades, if one does: the one named, or else the model that answers."""
    if judge is not None:
        return ChatClient.open(judge)
    return client if grader == "judge" else None


def choose_grader(name: str, judge: ChatClient | None) -> str | Grader:
    """Return the grader to use: a judging model, where there is one."""
    return name if judge is None else Judge(name=f"judge {judge.model}")


def tell_bound(
    todo: int, total: int, *, calls: int, tokens: int, judged: bool = False, things: str = "questions"
) -> None:
    """Print, before a run, the most that it can take.

    Args:
        todo: Questions that are not finished yet.
        total: All questions.
        calls: Calls, at most.
        tokens: Output tokens, at most.
        judged: Whether a model grades every answer, which comes on top.
        things: What is done: questions, answers, ...
    """
    known = f"; {total - todo} of {total} are finished already" if todo < total else ""
    judging = f", and {calls:,} short calls to judge the answers" if judged else ""
    err.print(
        f"at most {calls:,} calls and {tokens:,} output tokens for {todo:,} {things}{judging}{known}",
        soft_wrap=True,
    )


def tell_spent(spent: Spent, seconds: float) -> None:
    """Print, after a run, what it took."""
    counted = f"; {spent.estimated} calls counted by a tokenizer" if spent.estimated else ""
    failed = f", {spent.failed} more failed" if spent.failed else ""
    err.print(
        f"took {spent.calls:,} calls{failed}; {spent.input_tokens:,} input and {spent.output_tokens:,} output "
        f"tokens in {seconds:,.0f} seconds{counted}",
        soft_wrap=True,
    )


def _tell_failures(failed: Sequence[Done[Any]], things: str) -> None:
    for done in failed:
        words = f"failed: {done.question.question[:60]!r}: {type(done.error).__name__}: {done.error}"
        err.print(words, style="red", markup=False, soft_wrap=True)
    if failed:
        err.print(f"{len(failed)} {things} failed; run the same command again to retry them", style="red")


@contextmanager
def interruptible() -> Iterator[None]:
    """Say on Ctrl-C what is waited for, and let a second Ctrl-C end the process at once: nothing is lost."""
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
        A function to be told where the run stands; what makes a few words on it is called now and then.
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
