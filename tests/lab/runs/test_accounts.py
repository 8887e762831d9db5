"""The accounts of a run: what it took, and the limit that ends it."""

from __future__ import annotations

import pytest

from tale_core import InvalidValueError, Message, ModelCall, ModelReply, Usage
from tale_core.errors import SpendingLimitError
from tale_lab.runs.accounts import Account

CALL = ModelCall(role="reason", messages=(Message(role="user", content="3 + 4?"),))


class Growing:
    """Each answer takes 10 input tokens and one output token more than the last."""

    def __init__(self) -> None:
        self.calls: list[ModelCall] = []

    def __call__(self, call: ModelCall) -> ModelReply:
        self.calls.append(call)
        return ModelReply(text="7", usage=Usage(input_tokens=10, output_tokens=len(self.calls)))


def test_a_limit_of_tokens_ends_the_run_once_they_are_spent() -> None:
    model = Growing()
    ask = Account(max_tokens=20).paying(model)
    for _ in range(2):
        ask(CALL)
    with pytest.raises(SpendingLimitError, match="limit of 20 tokens is reached: 23 are spent"):
        ask(CALL)
    assert len(model.calls) == 2


def test_a_limit_of_money_counts_by_the_price() -> None:
    ask = Account(max_cost=0.02, price=lambda usage: usage.output_tokens / 100).paying(Growing())
    for _ in range(2):
        ask(CALL)
    with pytest.raises(SpendingLimitError, match=r"limit of 0\.02 is reached: 0\.03 is spent"):
        ask(CALL)


def test_a_limit_of_money_needs_a_price() -> None:
    with pytest.raises(InvalidValueError, match="needs the model's price"):
        Account(max_cost=1)


def test_calls_made_elsewhere_are_booked_before_the_limit_ends_the_run() -> None:
    account = Account(max_tokens=15)
    account.book(CALL, None)
    account.book(CALL, ModelReply(text="7", usage=Usage(input_tokens=10, output_tokens=1)))
    with pytest.raises(SpendingLimitError):
        account.book(CALL, ModelReply(text="7"))
    assert account.spent == {"calls": 2, "failed": 1, "input_tokens": 19, "output_tokens": 2, "estimated": 1}


def test_a_call_that_fails_is_counted_apart() -> None:
    def failing(call: ModelCall) -> ModelReply:
        raise TimeoutError("slow")

    account = Account()
    with pytest.raises(TimeoutError):
        account.paying(failing)(CALL)
    assert (account.spent["calls"], account.spent["failed"]) == (0, 1)
