"""Attempts with known figures, for tests of the reports that are made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tale_core import Usage, UsageEvent
from tale_lab.bench.benchmark import Attempt, Sampling
from tale_lab.bench.report import Entry, Plan, View
from tale_lab.results.store import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ADDRESS = "https://api.openai.com/v1"


def call(output, *, role="reason", entered=10, source="measured", seconds=1.0, thinking=None, finish="stop"):
    return UsageEvent(
        role=role,
        usage=Usage(input_tokens=entered, output_tokens=output, reasoning_tokens=thinking, source=source),
        finish_reason=finish,
        seconds=seconds,
    )


def attempt(
    method, question, *, right=True, tokens=100, estimate=None, calls=None, text="Answer: 1", events=()
):
    made = [] if estimate is None else [call(estimate, role="estimate")]
    return Attempt(
        method=method,
        question_id=str(question),
        question=f"question {question}?",
        reference="1",
        data="data.jsonl",
        setup=f"setup of {method}",
        verdict=right if isinstance(right, str) else "correct" if right else "wrong",
        text=text,
        calls=tuple([*made, call(tokens)] if calls is None else calls),
        events=tuple(events),
    )


def answers(method: str, rights: Sequence[object], tokens: Sequence[int], **more) -> list[Attempt]:
    pairs = enumerate(zip(rights, tokens, strict=True))
    return [attempt(method, number, right=right, tokens=spent, **more) for number, (right, spent) in pairs]


def view_of_attempts(
    by_method: Mapping[str, Sequence[Attempt]],
    *,
    questions: int | None = None,
    failed: Mapping[str, Sequence[int]] | None = None,
    file="run.sqlite",
    model="gpt-4o-mini",
    address="",
    data="data.jsonl",
) -> View:
    asked = questions or max(len(attempts) for attempts in by_method.values())
    plan = Plan(
        model=model,
        address=address,
        data=data,
        digest="0",
        questions=tuple(map(str, range(asked))),
        sampling=Sampling(temperature=0, max_tokens=600),
        grader="numeric",
        methods=tuple(Entry(setup=f"setup of {one}", label=one, source=f"who made {one}") for one in by_method),
    )
    return View(
        file=file,
        plan=plan,
        attempts=tuple(one for attempts in by_method.values() for one in attempts),
        failures=tuple(
            Failure(
                key=f"setup of {label}.{number}",
                question_id=str(number),
                error="RateLimitError: busy",
                label=label,
            )
            for label, numbers in (failed or {}).items()
            for number in numbers
        ),
    )
