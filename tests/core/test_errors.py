"""Every error is of one tree, shows the value, and says what to do."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import Any

import pytest

import tale_core
from tale_core import (
    Budget,
    BudgetOverrunError,
    BudgetPolicy,
    Estimate,
    InvalidValueError,
    Message,
    MissingExtraError,
    ModelCall,
    ModelReply,
    Plan,
    TaleError,
    Usage,
    errors,
)

CLASSES = [
    thing
    for _, thing in inspect.getmembers(errors, inspect.isclass)
    if issubclass(thing, Exception) and thing.__module__ == errors.__name__
]


def drawn_tree() -> dict[str, tuple[str, ...]]:
    """Read the tree in the module's docstring: each error with its bases."""
    tree: dict[str, tuple[str, ...]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    (?P<indent>[│ ]*(?:[├└]── )?)(?P<name>\w+Error)(?: \((?P<also>\w+)\))?", line)
        if found:
            depth = len(found["indent"]) // 4
            path[depth:] = [found["name"]]
            parents = [path[depth - 1] if depth else "Exception", found["also"]]
            tree[found["name"]] = tuple(parent for parent in parents if parent)
    return tree


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    assert drawn_tree() == {one.__name__: tuple(base.__name__ for base in one.__bases__) for one in CLASSES}


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_is_a_tale_error_and_public(error: type[Exception]) -> None:
    assert issubclass(error, TaleError)
    assert getattr(tale_core, error.__name__) is error


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_survives_the_way_to_another_process(error: type[Exception]) -> None:
    original = error("numpy", "learned") if error is MissingExtraError else error("what happened")
    copy = pickle.loads(pickle.dumps(original))  # noqa: S301  # its own bytes
    assert type(copy) is error
    assert str(copy) == str(original)


def test_a_policy_error_keeps_the_answer_on_the_way_to_another_process() -> None:
    copy = pickle.loads(pickle.dumps(BudgetOverrunError("too long", text="the answer")))  # noqa: S301
    assert copy.text == "the answer"


def test_a_missing_extra_names_its_pip_command() -> None:
    error = MissingExtraError("rich", "cli")
    assert str(error) == "'rich' is not installed; run: pip install 'tale-reasoning[cli]'"
    assert (error.package, error.extra, error.name) == ("rich", "cli", "rich")
    assert isinstance(error, ImportError)


# values that cannot be meant, in any record


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Budget(tokens=0), "Budget.tokens: Input should be greater than or equal to 1, got 0"),
        (lambda: Estimate(tokens=-5, source="mine"), "Estimate.tokens: Input should be .* 1, got -5"),
        (lambda: Estimate(tokens=5), "Estimate.source: a value is required"),
        (lambda: Usage(output_tokens=-1), "Usage.output_tokens: .* 0, got -1"),
        (lambda: Usage(output_tokens=1.5), "Usage.output_tokens: .* fractional part, got 1.5"),
        (lambda: Usage(source="guess"), "Usage.source: Input should be 'measured' or 'estimated', got 'guess'"),
        (lambda: ModelReply(text=None), "ModelReply.text: Input should be a valid string, got None"),
        (lambda: ModelCall(role="reason", messages=(), max_tokens=0), "ModelCall.max_tokens: .* 1, got 0"),
        (lambda: Budget(token=5), "Budget.token: no such field"),
        (
            lambda: Message(role="robot", content=5),
            r"Message.role: .* 'user' or 'assistant', got 'robot'; Message.content: .* valid string, got 5",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_field_and_shown(build: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^{message}$"):
        build()


def test_a_wrong_value_inside_another_record_is_shown_once() -> None:
    with pytest.raises(InvalidValueError) as caught:
        Plan(question="q", budget={"tokens": 0}, framing={}, strategy="tale")
    assert str(caught.value) == "Plan.budget: Budget.tokens: Input should be greater than or equal to 1, got 0"


def test_a_huge_wrong_value_is_shown_in_part() -> None:
    with pytest.raises(InvalidValueError) as caught:
        Message(role="x" * 10_000, content="")
    assert len(str(caught.value)) < 200


def test_records_are_frozen_and_take_keywords_only() -> None:
    budget = Budget(tokens=5)
    with pytest.raises(ValueError, match="frozen"):
        budget.tokens = 6
    with pytest.raises(TypeError):
        Budget(5)


def test_records_survive_json() -> None:
    for record in (
        Budget(tokens=5, source="x", estimate=3),
        Usage(input_tokens=1, output_tokens=2, reasoning_tokens=0, source="estimated"),
        BudgetPolicy(fallback=9),
    ):
        assert type(record).model_validate_json(record.model_dump_json()) == record


def test_a_replys_native_message_stays_out_of_json_and_repr() -> None:
    reply = ModelReply(text="7", native=object())
    assert "native" not in reply.model_dump_json()
    assert "native" not in repr(reply)
