"""The ledger totals by role, keeps measured and estimated counts apart, and states savings net."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale_core import (
    BudgetEvent,
    ElasticityEvent,
    ElasticityKind,
    InvalidValueError,
    Ledger,
    Savings,
    UnmeasuredUsageError,
    Usage,
    UsageEvent,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tale_core.types import CountSource, Role


def call(
    role: Role = "reason",
    output: int = 0,
    *,
    given: int = 0,
    thinking: int | None = None,
    source: CountSource = "measured",
    question: str = "q",
) -> UsageEvent:
    usage = Usage(input_tokens=given, output_tokens=output, reasoning_tokens=thinking, source=source)
    return UsageEvent(question_id=question, role=role, usage=usage)


def happened(kind: ElasticityKind) -> ElasticityEvent:
    return ElasticityEvent(question_id="q", kind=kind)


def ledger_of(*events: UsageEvent | ElasticityEvent | BudgetEvent, keep: int | None = None) -> Ledger:
    ledger = Ledger(keep=keep)
    ledger.record_all(events)
    return ledger


# recording and totals


def test_a_new_ledger_is_empty() -> None:
    ledger = Ledger()
    assert (ledger.calls, ledger.events, ledger.budgets) == ((), (), ())
    assert ledger.count() == 0
    assert ledger.totals() == Usage()


def test_each_kind_of_record_is_kept_in_order_with_its_own_kind() -> None:
    one, two = call("estimate", 3), call("reason", 40)
    budget = BudgetEvent(question_id="q", budget=30, source="zero-shot", strategy="tale")
    overrun = happened(ElasticityKind.OVERRUN)
    ledger = ledger_of(one, budget, two, overrun)
    assert ledger.calls == (one, two)
    assert ledger.budgets == (budget,)
    assert ledger.events == (overrun,)


def test_totals_are_by_role_and_over_all_roles() -> None:
    ledger = ledger_of(
        call("estimate", 3, given=100), call("reason", 40, given=20), call("reason", 60, given=30)
    )
    assert ledger.totals("estimate") == Usage(input_tokens=100, output_tokens=3)
    assert ledger.totals("reason") == Usage(input_tokens=50, output_tokens=100)
    assert ledger.totals() == Usage(input_tokens=150, output_tokens=103)
    assert (ledger.count("estimate"), ledger.count("reason"), ledger.count()) == (1, 2, 3)


def test_measured_and_estimated_counts_are_totalled_apart() -> None:
    ledger = ledger_of(call(output=40), call(output=7, source="estimated"))
    assert ledger.totals("reason") == Usage(output_tokens=40)
    assert ledger.totals("reason", source="estimated") == Usage(output_tokens=7, source="estimated")
    assert ledger.count(source="measured") == ledger.count(source="estimated") == 1


def test_a_sum_of_measured_and_estimated_counts_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="cannot add measured and estimated token counts"):
        Usage(output_tokens=1) + Usage(output_tokens=1, source="estimated")


@pytest.mark.parametrize(
    ("thinking", "total"), [([3, 4], 7), ([0, 0], 0), ([3, None], None), ([None, None], None), ([], None)]
)
def test_thinking_tokens_stay_unknown_as_soon_as_one_call_does_not_say(
    thinking: list[int | None], total: int | None
) -> None:
    ledger = ledger_of(*(call(thinking=one) for one in thinking))
    assert ledger.totals("reason").reasoning_tokens == total


def test_clearing_forgets_everything() -> None:
    ledger = ledger_of(call(output=5), happened(ElasticityKind.COLLAPSE), keep=3)
    ledger.clear()
    assert str(ledger) == str(Ledger())
    assert (ledger.calls, ledger.events, ledger.totals()) == ((), (), Usage())


def test_an_unknown_role_or_source_is_refused_rather_than_counted_as_nothing() -> None:
    ledger = Ledger()
    for ask in (ledger.totals, ledger.count):
        with pytest.raises(InvalidValueError, match=r"role must be one of .*'reason'.* got 'reasn'"):
            ask("reasn")
        with pytest.raises(InvalidValueError, match=r"source must be one of .* got 'guessed'"):
            ask("reason", source="guessed")


# bounded ledgers


@given(
    st.lists(
        st.builds(
            call,
            st.sampled_from(["estimate", "reason", "judge"]),
            st.integers(0, 1000),
            source=st.sampled_from(["measured", "estimated"]),
            thinking=st.none() | st.integers(0, 10),
        )
    ),
    st.integers(1, 5),
)
def test_a_bounded_ledger_forgets_single_calls_but_totals_all_of_them(
    calls: list[UsageEvent], keep: int
) -> None:
    bounded, whole = ledger_of(*calls, keep=keep), ledger_of(*calls)
    assert bounded.calls == tuple(calls[-keep:])
    assert whole.calls == tuple(calls)
    assert str(bounded) == str(whole)
    for source in ("measured", "estimated"):
        assert bounded.totals(source=source) == whole.totals(source=source)
        expected = sum(one.usage.output_tokens for one in calls if one.usage.source == source)
        assert whole.totals(source=source).output_tokens == expected


def test_a_bounded_ledger_still_counts_every_event() -> None:
    ledger = ledger_of(*[happened(ElasticityKind.OVERRUN)] * 5, happened(ElasticityKind.COLLAPSE), keep=2)
    assert len(ledger.events) == 2
    assert str(ledger).splitlines()[-1] == "events: 5 overrun, 1 collapse"


@pytest.mark.parametrize("keep", [0, -1])
def test_a_ledger_that_keeps_nothing_is_refused(keep: int) -> None:
    with pytest.raises(InvalidValueError, match=f"at least 1, or None to keep everything; got {keep}"):
        Ledger(keep=keep)


# savings


def test_savings_are_net_of_the_estimator() -> None:
    ledger = ledger_of(call("estimate", 10), call("reason", 90))
    savings = ledger.savings(400)
    assert savings == Savings(baseline=400, reason=90, estimate=10)
    assert (savings.net_tokens, savings.net_ratio) == (300, 0.75)
    assert str(savings) == (
        "saved 75% of output tokens net: 400 without a budget, 90 + 10 (answers + estimates) with it"
    )


def test_a_loss_is_called_a_loss() -> None:
    savings = ledger_of(call("estimate", 30), call("reason", 120)).savings(100)
    assert (savings.net_tokens, savings.net_ratio) == (-50, -0.5)
    assert str(savings).startswith("lost 50% of output tokens net: 100 without a budget, 120 + 30 ")


def test_every_attempt_counts_against_the_saving() -> None:
    assert ledger_of(call(output=90), call(output=60)).savings(400).net_tokens == 250


def test_a_baseline_may_be_a_number_a_usage_or_the_ledger_of_another_run() -> None:
    ledger = ledger_of(call("reason", 90))
    vanilla = ledger_of(call("reason", 150), call("reason", 250))
    expected = ledger.savings(400)
    assert ledger.savings(Usage(output_tokens=400)) == ledger.savings(vanilla) == expected


def test_grading_is_on_neither_side_of_a_saving() -> None:
    graded = ledger_of(call("reason", 90), call("judge", 1000))
    vanilla = ledger_of(call("reason", 400), call("judge", 5000, source="estimated"))
    assert graded.savings(vanilla) == Savings(baseline=400, reason=90, estimate=0)


@pytest.mark.parametrize(
    ("ledger", "baseline"),
    [
        (ledger_of(call(output=90, source="estimated")), 400),
        (ledger_of(call("estimate", 0, source="estimated"), call(output=90)), 400),
        (ledger_of(call(output=90)), Usage(output_tokens=400, source="estimated")),
        (ledger_of(call(output=90)), ledger_of(call(output=400, source="estimated"))),
    ],
)
def test_a_saving_is_not_stated_where_a_count_is_an_estimate(
    ledger: Ledger, baseline: int | Usage | Ledger
) -> None:
    with pytest.raises(UnmeasuredUsageError, match=r"stream_usage=True.*or pass count_estimates=True"):
        ledger.savings(baseline)
    assert ledger.savings(baseline, count_estimates=True).baseline == 400


def test_a_saving_with_estimates_says_how_much_of_it_is_uncertain() -> None:
    ledger = ledger_of(call("estimate", 10), call(output=50), call(output=40, source="estimated"))
    vanilla = ledger_of(call(output=300), call(output=100, source="estimated"))
    savings = ledger.savings(vanilla, count_estimates=True)
    assert savings == Savings(baseline=400, reason=90, estimate=10, uncertain=140)
    assert str(savings).endswith("(answers + estimates) with it, of which 140 are tokenizer estimates")


def test_an_empty_baseline_makes_no_ratio() -> None:
    assert ledger_of(call(output=5)).savings(0).net_ratio == 0.0


@pytest.mark.parametrize("ledger", [Ledger(), ledger_of(call("estimate", 10)), ledger_of(call("judge", 10))])
def test_no_saving_is_stated_where_no_answer_was_recorded(ledger: Ledger) -> None:
    with pytest.raises(UnmeasuredUsageError, match=r"this ledger holds no answer \([01] calls in all\).*ask"):
        ledger.savings(100)
    with pytest.raises(UnmeasuredUsageError, match=r"the baseline holds no answer \([01] calls in all\)"):
        ledger_of(call(output=90)).savings(ledger)


def test_a_negative_baseline_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="got -1"):
        Ledger().savings(-1)


# the table


def test_the_table_shows_tokens_by_role_and_events_by_kind() -> None:
    ledger = ledger_of(
        call("estimate", 8, given=1200),
        call("reason", 77, given=90, thinking=30),
        call("reason", 23, given=10, thinking=12),
        call("reason", 5, given=4, source="estimated"),
        happened(ElasticityKind.OVERRUN),
        happened(ElasticityKind.CLAMPED),
        happened(ElasticityKind.OVERRUN),
    )
    assert str(ledger) == (
        "role      calls  input  output  thinking  counted\n"
        "estimate      1   1200       8         ?  by the provider\n"
        "reason        2    100     100        42  by the provider\n"
        "reason        1      4       5         ?  by a tokenizer\n"
        "events: 2 overrun, 1 clamped"
    )


def test_the_table_of_an_empty_ledger_is_its_header() -> None:
    assert str(Ledger()) == "role  calls  input  output  thinking  counted"


# threads and copies


def test_no_record_is_lost_between_threads() -> None:
    ledger = Ledger(keep=10)
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        for _ in range(500):
            ledger.record(call("reason", 1, given=2))
            ledger.record(happened(ElasticityKind.UNDERRUN))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        copy.deepcopy(ledger)  # neither a copy nor a table may meet a container in motion
        str(ledger)
    assert ledger.totals() == Usage(input_tokens=8000, output_tokens=4000)
    assert str(ledger).endswith("events: 4000 underrun")


def pickled(ledger: Ledger) -> Ledger:
    return pickle.loads(pickle.dumps(ledger))  # noqa: S301  # its own bytes


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_holds_the_same_and_goes_its_own_way(duplicate: Callable[[Ledger], Ledger]) -> None:
    original = ledger_of(call(output=5), happened(ElasticityKind.OVERRUN), keep=2)
    twin = duplicate(original)
    assert (twin.calls, twin.events, str(twin)) == (original.calls, original.events, str(original))
    twin.record_all([call(output=1), call(output=2)])
    assert [one.usage.output_tokens for one in twin.calls] == [1, 2]  # still bounded
    assert original.totals().output_tokens == 5
    assert len(original.calls) == 1
