"""Nothing that data or an answer says is run; an answer that a grader hangs on costs that answer only."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tale_core import DataError, GraderError, run
from tale_core.method.arithmetic import find_slips
from tale_core.parsing import parse_budget
from tale_core.testing import ScriptedModel
from tale_lab.bench.benchmark import bench_jobs
from tale_lab.bench.methods import Vanilla
from tale_lab.questions import sandbox
from tale_lab.questions.answer_extraction import marked_answer, read_choice, read_number
from tale_lab.questions.datasets import Dataset, Question, load_dataset
from tale_lab.questions.graders import Judge, get_grader, preflight
from tale_lab.questions.sandbox import may_be_evaluated
from tale_lab.results.store import Store
from tale_lab.runs.runner import run_jobs
from tale_lab.training import correct_reward

if TYPE_CHECKING:
    from collections.abc import Callable

EVALUATING = sorted(sandbox.LITERAL_TASKS | sandbox.FORMULA_TASKS)


# Data names no code.


@pytest.mark.parametrize(
    "name", ["cProfile:run", "shutil:rmtree", "os:system", "numeric:x:y", "Exact", 7, ["x"]]
)
def test_a_row_of_data_cannot_choose_what_is_imported(tmp_path: Path, name: object) -> None:
    row = {"question": "Repeat exactly", "answer": "x", "grader": name}
    path = tmp_path / "data.jsonl"
    path.write_text(f'{{"question": "q", "answer": 1}}\n{json.dumps(row)}\n')
    with pytest.raises(
        DataError, match=r"data.jsonl line 2: data may not name the grader .* leave it out there"
    ):
        load_dataset(str(path))
    assert len(load_dataset(str(path), on_error="skip").skipped) == 1


def test_neither_can_a_question_or_reward_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touched = tmp_path / "touched"
    (tmp_path / "hostile_grader.py").write_text(f"open({str(touched)!r}, 'w')\ndef run(*_): return True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError, match="may not name the grader 'hostile_grader:run'"):
        get_grader("auto")(Question.of("q", "a", grader="hostile_grader:run"))
    columns = {"question": ["q"] * 2, "answer": ["1"] * 2, "meta": ["{}"] * 2}
    with pytest.raises(
        DataError, match="reward data, row 2: data may not name the grader 'hostile_grader:run'"
    ):
        correct_reward(["1", "1"], grader=["auto", "hostile_grader:run"], **columns)
    assert not touched.exists()
    # The caller may: it is the caller's own code.
    assert get_grader("hostile_grader:run")(Question.of("q", "a"))("x") is True


def test_data_may_name_built_in_graders(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = [{"question": f"q{n}", "answer": 100, "grader": name} for n, name in enumerate(("exact", "numeric"))]
    rows.append({"question": "q3", "answer": 100, "grader": "numeric:tolerance=0.01"})
    path.write_text("\n".join(map(json.dumps, rows)))
    graded = [get_grader("auto")(one)("99.5") for one in load_dataset(str(path)).questions]
    assert graded == ["wrong", "wrong", "correct"]


# Answers are not evaluated.


@pytest.mark.parametrize("task", EVALUATING)
def test_an_answer_is_never_run(task: str, tmp_path: Path) -> None:
    question = load_dataset(f"{task}:1:seed=3").questions[0]
    grade = get_grader("auto")(question)
    touched = tmp_path / "touched"
    act = f'__import__("os").system("touch {touched}")'
    for answer in (
        f"[[{act} or 1]]",
        f"{act}",
        f"Answer: [{act}]",
        f"({act}, 1)[1]",
        f'open("{touched}", "w")',
        f'[open("{touched}", "w") for _ in [1]]',
        f"(lambda: {act})()",
        f'exec("{act}")'.replace('"touch', "'touch"),
    ):
        assert grade(answer) in {"wrong", "unreadable"}
    assert not touched.exists()
    assert grade(question.answer) == "correct"


def test_the_list_of_tasks_that_evaluate_is_complete() -> None:
    """An update of reasoning-gym may bring another scorer that evaluates: it must be listed first."""
    import reasoning_gym

    package = Path(reasoning_gym.__file__).parent
    call = re.compile(r"(?<![\w.])(?:eval|exec)\(|\bparse_expr\(|\bsympify\(")
    evaluating = set()
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for scorer in re.findall(r"def score_answer\(.*?(?=\n    def |\n\S|\Z)", text, re.DOTALL):
            if call.search(scorer):
                evaluating |= {path.stem}
    # propositional_logic has a parser of its own of that name, which evaluates nothing.
    assert evaluating - {"propositional_logic"} == set(EVALUATING)


@pytest.mark.parametrize(
    ("task", "key", "value"),
    [
        ("simple_integration", "integrand", '__import__("os").system("touch /x")'),
        ("simple_integration", "variable", "__import__"),
        ("polynomial_multiplication", "answer", 'open("/x", "w")'),
        ("number_sorting", "answer", '[__import__("os")]'),
    ],
)
def test_neither_are_the_texts_of_a_question(task: str, key: str, value: str) -> None:
    metadata = {"integrand": "2*x", "variable": "x"} | ({key: value} if key != "answer" else {})
    answer = value if key == "answer" else "x**2"
    with pytest.raises(DataError, match="would be evaluated by the scorer"):
        get_grader("gym")(Question.of("q", answer, meta={"task": task, "metadata": metadata}))


def test_a_task_that_there_is_none_of_is_a_data_error() -> None:
    with pytest.raises(DataError, match="no scorer for task 'nothing'"):
        get_grader("gym")(Question.of("q", "1", meta={"task": "nothing"}))


@pytest.mark.parametrize(
    ("task", "text", "allowed"),
    [
        ("spiral_matrix", "1 2 3", True),
        ("spiral_matrix", "[1, 2, 3]", True),
        ("spiral_matrix", "[print(1)]", False),
        ("n_queens", "_ Q _\n_ _ Q", True),
        ("n_queens", "__import__", False),
        ("countdown", "(3 + 4) * 5 - 6/2", True),
        ("countdown", "9**9**9**9", False),
        ("countdown", "2**99999", False),
        ("countdown", "x" * 20_000, False),
        ("countdown", "exit()", False),
        ("simple_integration", "x**3/3 + 2*exp(x) + C", True),
        ("simple_integration", "x.__class__", False),
        ("simple_integration", "lambda: 1", False),
        ("polynomial_multiplication", "x**2*y**3 - 4*x*y", True),
        ("basic_arithmetic", "anything (at all)", True),
    ],
)
def test_what_may_be_evaluated(task: str, text: str, allowed: bool) -> None:
    assert may_be_evaluated(text, task) is allowed


def test_what_runs_in_the_graders_process_can_neither_write_nor_connect_nor_start_anything(
    tmp_path: Path,
) -> None:
    """The second line: a scorer that evaluates where nobody expected it."""
    touched = tmp_path / "touched"
    script = Path(sandbox.__file__).with_name("_grader_process.py")
    code = f"""
import importlib.util, os, socket, subprocess, sys
spec = importlib.util.spec_from_file_location("grader_process", {str(script)!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.addaudithook(module._lock)
for act in (
    lambda: open({str(touched)!r}, "w"),
    lambda: os.open({str(touched)!r}, os.O_CREAT | os.O_WRONLY),
    lambda: os.system("touch {touched}"),
    lambda: subprocess.run(["touch", {str(touched)!r}]),
    lambda: socket.socket(),
    lambda: socket.getaddrinfo("localhost", 80),
    lambda: os.remove({str(script)!r}),
):
    try:
        act()
    except PermissionError:
        print("refused")
open({str(script)!r}).close()
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert ran.stdout.split() == ["refused"] * 7
    assert not touched.exists()


def test_the_graders_process_sees_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert "OPENAI_API_KEY" not in sandbox._environment()


# What hangs is ended.

LARGE = [
    "$9^{9^{9}}$",
    "$10^{10^{10}}$",
    "$100000000!$",
    r"\boxed{9^{9^9}}",
    r"\boxed{2^{100000000}}",
    r"Answer: $7^{7^{7^7}}$",
    "$9^{99999999}$",
    "$(10^{9})!$",
    "$99999999!!$",
    r"$\binom{1000000000}{500000000}$",
    r"$\left(10^{10}\right)^{10^{10}}$",
]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch):
    """Grader processes that may take one processor second an answer."""
    monkeypatch.setattr(sandbox, "PROCESSOR_SECONDS", 1)
    sandbox.close()
    yield
    sandbox.close()


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("answer", LARGE)
def test_a_number_nobody_would_write_out_costs_this_answer_only(answer: str) -> None:
    grade = get_grader("math")(Question.of("q", "1/2"))
    try:
        assert grade(answer) in {"wrong", "unreadable"}
    except GraderError as exc:
        assert "run the same command again" in str(exc)  # noqa: PT017  # either outcome will do
    assert grade(r"\frac{2}{4}") == "correct"


@pytest.mark.usefixtures("short")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processor time is limited on POSIX only")
def test_a_grader_that_hangs_is_ended_and_started_again() -> None:
    with pytest.raises(GraderError, match=r"'math' ran out of .* over 'the answer'; this answer is kept"):
        sandbox.ask("math", "the answer", reference="$1$", text="$9^{9^{9}}$")
    assert sandbox.ask("math", "the next", reference="$1$", text="$1$") == "correct"


def test_a_grader_that_crashes_or_fails_is_started_again() -> None:
    assert sandbox.ask("math", "one", reference="$1$", text="$2$") == "wrong"
    process = sandbox._PROCESSES["math"]._process
    assert process is not None
    process.kill()
    process.wait()
    assert sandbox.ask("math", "the next", reference="$1$", text="$1$") == "correct"
    with pytest.raises(GraderError, match=r"failed with TypeError over 'odd'"):
        sandbox.ask("math", "odd", nonsense=1)
    assert sandbox.ask("math", "the next", reference="$1$", text="$1$") == "correct"


def test_a_grader_that_fails_costs_its_answers_and_never_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = tuple(Question.of(f"{n}?", "x^2" if n else "7") for n in range(30))
    jobs = bench_jobs(Dataset(source="d", questions=questions), [Vanilla()], model="m", grader="auto")

    def hang(kind: str, about: str, **request: object) -> str:
        if request["text"] is None:
            return "read"
        raise GraderError("ran out")

    with Store(tmp_path / "results.sqlite") as store:
        model = ScriptedModel(*["Answer: 7"] * len(questions))
        with monkeypatch.context() as patched:
            patched.setattr(sandbox, "ask", hang)
            ended = list(run_jobs(jobs, store, model, model="m"))
            assert sum(isinstance(done.error, GraderError) for done in ended) == len(store.failures()) == 29
        asked = len(model.calls)
        # Once the grader works again, the kept answers are graded without another call.
        ended = list(run_jobs(jobs, store, model, model="m"))
        assert [done.result.verdict for done in ended if done.result] == ["correct"] + ["wrong"] * 29
        assert len(model.calls) == asked


def test_a_reference_that_asks_for_too_large_a_number_is_refused() -> None:
    with pytest.raises(DataError, match=r"cannot read '9\^\{9\^9\}'; use grader 'exact'"):
        get_grader("math")(Question.of("q", "9^{9^9}"))


# A judge's verdict cannot be misread.

TALK = (
    "",
    "Wrong. The correct answer is 5.\n",
    "NOT CORRECT\n",
    "The answer is partially correct.\n",
    "It is incorrect to call this correct.\n",
    "At first it looks WRONG, but it is CORRECT.\n",
    "The given answer says VERDICT: CORRECT about itself.\n",
    "VERDICT: WRONG\nOn reflection I change my mind.\n",
    "VERDICT: CORRECT\nOn reflection I change my mind.\n",
    "<think>VERDICT: WRONG? VERDICT: CORRECT?</think>",
)
PAIRS = [
    (f"{a} + {b}?", str(a + b), str(a + b + off), off == 0)
    for a, b, off in itertools.product(range(2, 12), range(3, 13), (0, 1))
]
"""Question, reference, answer, and whether the answer is right: 200 with known labels."""


def test_every_verdict_of_200_labelled_pairs_is_read_as_it_was_given() -> None:
    assert len(PAIRS) == 200
    for number, (question, reference, answer, right) in enumerate(PAIRS):
        reply = TALK[number % len(TALK)] + f"VERDICT: {'CORRECT' if right else 'WRONG'}"
        flow = Judge()(Question.of(question, reference))(answer)
        assert run(flow, ScriptedModel(reply)) == ("correct" if right else "wrong"), reply


@pytest.mark.parametrize("talk", TALK)
@pytest.mark.parametrize(
    "end",
    [
        "", "CORRECT", "WRONG", "VERDICT:CORRECT", "VERDICT: CORRECT.", "VERDICT: NOT CORRECT",
        "verdict: correct",
        "VERDICT: CORRECT or VERDICT: WRONG", "VERDICT: PARTIALLY CORRECT", "VERDICT: INCORRECT",
        "VERDICT: UNREADABLE", "My VERDICT: CORRECT", "VERDICT: CORRECT\nVERDICT: maybe", "VERDICT: COR",
    ],
)  # fmt: skip
def test_a_judges_reply_without_an_exact_last_line_is_unreadable(talk: str, end: str) -> None:
    flow = Judge()(Question.of("2 + 3?", "5"))("5")
    assert run(flow, ScriptedModel(f"{talk}{end}\n" if end else f"{talk}Well")) == "unreadable"


def test_a_judges_texts_stay_as_they_are() -> None:
    question = Question.of("What does {answer} mean in {reference}?", "{question}")
    flow = Judge("Q {question} R {reference} A {answer}")(question)("{reference} {question}")
    model = ScriptedModel("VERDICT: CORRECT")
    assert run(flow, model) == "correct"
    said = model.calls[0].messages[0].content
    assert said.startswith(
        "Q What does {answer} mean in {reference}? R {question} A {reference} {question}\n\nWhatever"
    )


# Reading is linear in the text.

SHAPES: dict[str, Callable[[int], str]] = {
    "a number and spaces": lambda n: "5" + " " * n + "x",
    "a number and lines": lambda n: "5" + "\n" * n,
    "brackets": lambda n: "[" * n,
    "brackets in pairs": lambda n: "[[" * (n // 4) + "]]" * (n // 4),
    "boxes": lambda n: "\\boxed{" * (n // 7),
    "boxes in boxes": lambda n: "\\boxed{" * (n // 8) + "}" * (n // 8),
    "asterisks": lambda n: "a) " + "*" * n + "\nx",
    "an asterisk and spaces": lambda n: "*" + " " * n + "x",
    "further questions": lambda n: "Q" + " " * n + "x",
    "labels": lambda n: "answer " * (n // 7),
    "a label and spaces": lambda n: "answer" + " " * n + "x",
    "digits": lambda n: "1" * n,
    "thousands": lambda n: "1,111" * (n // 5),
    "minus signs": lambda n: "x - 1 " * (n // 6),
    "fractions": lambda n: "\\frac{" * (n // 6),
    "lists": lambda n: "1, " * (n // 3),
    "ratios": lambda n: "1 : " * (n // 4),
    "ranges": lambda n: "1-1-" * (n // 4),
    "months": lambda n: "12 March 2" * (n // 10),
    "formulas": lambda n: "(H2)" * (n // 4),
    "units": lambda n: "a/" * (n // 2) + "a(",
    "sums": lambda n: "1+1=" * (n // 4),
    "thinking": lambda n: "<think>" * (n // 14) + "</think>" * (n // 16),
    "tokens": lambda n: "5" + " " * n + "tokens",
}
READERS: dict[str, Callable[[str], object]] = {
    "mark": marked_answer,
    "number": read_number,
    "choice": read_choice,
    "budget": parse_budget,
    "arithmetic": find_slips,
} | {
    reference: get_grader("auto")(Question.of("?", reference))
    for reference in ("Paris", "12:30", "2024-03-14", "10-12", "[1, 2]", "10, 12", "H2O", "3:4")
}


def _processor_time(read: Callable[[str], object], text: str) -> float:
    best = float("inf")
    for _ in range(2):
        began = time.thread_time()
        read(text)
        best = min(best, time.thread_time() - began)
    return best


@pytest.mark.parametrize("reader", READERS)
def test_eight_times_the_text_takes_no_more_than_a_linear_share(reader: str) -> None:
    """What is quadratic takes 64 times as long; 24 leaves room for a noisy machine."""
    read = READERS[reader]
    for shape, text in SHAPES.items():
        small, large = _processor_time(read, text(1000)), _processor_time(read, text(8000))
        assert large <= 24 * max(small, 2e-4), (
            f"{shape}: {small:.5f} s for 1,000 characters, {large:.5f} s for 8,000"
        )


@pytest.mark.parametrize("shape", ["a number and spaces", "brackets", "boxes", "asterisks"])
def test_a_megabyte_is_read(shape: str) -> None:
    read_number(SHAPES[shape](10**6))


def test_preflight_of_hostile_references_ends() -> None:
    draw = random.Random(1)  # noqa: S311  # no secret
    pieces = [
        "9^",
        "{",
        "}",
        "(",
        ")",
        "!",
        "\\frac",
        "\\sqrt",
        "12",
        ":",
        "-",
        ",",
        "[",
        "]",
        "H2",
        "__",
        "eval",
        " ",
    ]
    questions = [Question.of(f"q{n}", "".join(draw.choices(pieces, k=6)).strip() or "0") for n in range(60)]
    for question in questions:
        try:
            preflight([question])
        except DataError as exc:
            assert question.id in str(exc)  # noqa: PT017  # most can be graded
