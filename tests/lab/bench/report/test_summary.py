"""The figures of a report, against attempts whose figures are known."""

from __future__ import annotations

import random

import pytest
from attempts import ADDRESS, answers, attempt, call, view_of_attempts
from hypothesis import given, settings
from hypothesis import strategies as st

from tale_core import ElasticityEvent, ElasticityKind, InvalidValueError
from tale_core.statistics import paired_share_interval
from tale_lab.bench.report import Comparison, Summary, list_price


def summary(**by_method):
    return Summary.of(view_of_attempts(by_method))


def test_means_are_over_all_answers_right_or_wrong():
    one = summary(vanilla=answers("vanilla", [True, False, "unreadable", True], [100, 300, 200, 400])).methods[
        0
    ]
    assert (one.questions, one.correct, one.unreadable, one.accuracy) == (4, 2, 1, 0.5)
    assert (one.net_tokens, one.answer_tokens, one.input_tokens) == (250, 250, 10)
    assert one.accuracy_interval.low == pytest.approx(0.150, abs=1e-3)


def test_the_estimator_counts_against_the_saving():
    found = summary(
        vanilla=answers("vanilla", [True] * 4, [100] * 4),
        tale=answers("tale", [True] * 4, [40] * 4, estimate=12),
    ).method("tale")
    assert (found.answer_tokens, found.estimator_tokens, found.net_tokens, found.calls) == (40, 12, 52, 2)
    saved = found.against("vanilla")
    assert (saved.saved_answer, saved.saved) == (pytest.approx(0.6), pytest.approx(0.48))
    assert saved.input_ratio == 2


def test_savings_are_told_against_direct_answering_too():
    found = summary(
        direct=answers("direct", [False] * 3, [10] * 3), vanilla=answers("vanilla", [True] * 3, [100] * 3)
    )
    assert found.method("vanilla").against("direct").saved == pytest.approx(-9)
    assert found.method("direct").against("vanilla").saved == pytest.approx(0.9)
    assert found.method("vanilla").against("vanilla") is None


def test_accuracy_is_compared_on_the_questions_that_both_answered():
    vanilla = answers("vanilla", [True, True, False, True, True], [100] * 5)
    tale = answers("tale", [False, True, True, False], [50] * 4)
    found = summary(vanilla=vanilla, tale=tale).method("tale").against("vanilla")
    assert (found.questions, found.gained, found.lost) == (4, 1, 2)
    assert (found.accuracy_change, found.p) == (-0.25, 1)


def test_a_method_without_a_shared_question_is_not_compared():
    late = [attempt("tale", 7)]
    found = Summary.of(
        view_of_attempts({"vanilla": answers("vanilla", [True], [9]), "tale": late}, questions=8)
    )
    assert found.method("tale").comparisons == ()
    assert found.spending == ()


@pytest.mark.parametrize(
    ("gained", "lost", "pairs", "answer"),
    [(5, 5, 2000, "yes"), (0, 300, 1000, "no"), (3, 3, 60, "not shown"), (0, 0, 4, "not shown")],
)
def test_no_worse_is_said_only_where_the_whole_interval_says_so(gained, lost, pairs, answer):
    both = [(True, False)] * gained + [(False, True)] * lost + [(True, True)] * (pairs - gained - lost)
    method = {str(n): attempt("m", n, right=one) for n, (one, _) in enumerate(both)}
    vanilla = {str(n): attempt("vanilla", n, right=other) for n, (_, other) in enumerate(both)}
    assert Comparison.of(method, vanilla, name="vanilla").no_worse(0.03) == answer


def test_the_interval_of_a_paired_change_holds_the_truth_about_as_often_as_it_says():
    rng = random.Random(5)  # noqa: S311
    held, runs, pairs = 0, 400, 50
    for _ in range(runs):
        draws = [rng.random() for _ in range(pairs)]
        gained, lost = sum(one < 0.15 for one in draws), sum(0.15 <= one < 0.25 for one in draws)
        held += 0.05 in paired_share_interval(gained, lost, pairs)
    assert 0.92 * runs <= held


@pytest.mark.parametrize(("gained", "lost", "pairs"), [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_counts_of_pairs_that_cannot_be_meant(gained, lost, pairs):
    with pytest.raises(InvalidValueError, match=f"pairs={pairs}"):
        paired_share_interval(gained, lost, pairs)


def test_errors_are_no_wrong_answers():
    view = view_of_attempts(
        {"vanilla": answers("vanilla", [True, True], [100, 100]), "tale": []},
        questions=4,
        failed={"vanilla": [2, 3], "tale": [0]},
    )
    found = Summary.of(view)
    one = found.method("vanilla")
    assert (one.questions, one.errors, one.accuracy, one.net_tokens) == (2, 2, 1, 100)
    assert found.silent == {"tale": 1}


def test_thinking_is_unknown_unless_every_call_tells():
    told = [call(50, thinking=30), call(10, thinking=0)]
    untold = [call(50, thinking=30), call(10)]
    assert summary(vanilla=[attempt("vanilla", 0, calls=told)]).methods[0].thinking_tokens == 30
    assert summary(vanilla=[attempt("vanilla", 0, calls=untold)]).methods[0].thinking_tokens is None


def test_counts_of_a_tokenizer_are_marked():
    counted = [attempt("tale", 0, calls=[call(5, role="estimate", source="estimated"), call(50)])]
    found = summary(vanilla=[attempt("vanilla", 0)], tale=counted)
    assert [one.estimated for one in found.methods] == [0, 1]
    assert found.method("tale").against("vanilla").estimated


def test_latency_is_that_of_whole_answers():
    slow = [attempt("vanilla", n, calls=[call(9, seconds=n), call(9, seconds=1)]) for n in range(21)]
    one = summary(vanilla=slow).methods[0]
    assert (one.p50, one.p95) == (pytest.approx(11), pytest.approx(20))
    untimed = summary(vanilla=[attempt("vanilla", 0, calls=[call(9, seconds=None)])]).methods[0]
    assert untimed.p50 is None
    single = summary(vanilla=[attempt("vanilla", 0, calls=[call(9, seconds=2)])]).methods[0]
    assert (single.p50, single.p95) == (2, 2)


def test_events_are_counted_by_kind_and_cut_answers_too():
    events = [ElasticityEvent(kind=kind) for kind in (ElasticityKind.OVERRUN, ElasticityKind.CLAMPED)]
    found = summary(
        tale=[attempt("tale", n, events=events, calls=[call(9, finish="length")]) for n in range(3)]
    )
    assert found.methods[0].events == {"overrun": 3, "clamped": 3}
    assert found.methods[0].cut == 3


def test_costs_are_list_prices_and_unknown_where_none_is_listed():
    view = view_of_attempts(
        {"vanilla": [attempt("vanilla", 0, calls=[call(1000, entered=2000)])]}, address=ADDRESS
    )
    price = list_price("gpt-4o-mini", ADDRESS)
    found = Summary.of(view, price=price)
    assert found.methods[0].cost == pytest.approx(2000 * 0.15e-6 + 1000 * 0.60e-6)
    assert [spending.measure for spending in found.spending] == ["output", "total", "cost"]
    assert list_price("gpt-4o-mini", "http://127.0.0.1:8080/v1") is None
    assert list_price("no-such-model", ADDRESS) is None
    assert Summary.of(view).methods[0].cost is None


def test_the_frontier_holds_what_no_other_method_beats():
    (spending, _) = summary(
        direct=answers("direct", [True, False, False, False], [5] * 4),
        vanilla=answers("vanilla", [True, True, True, False], [100] * 4),
        short=answers("short", [True, True, True, False], [40] * 4),
        long=answers("long", [True] * 4, [200] * 4),
    ).spending
    assert spending.frontier == ("direct", "short", "long")
    beaten = next(point for point in spending.points if point.label == "vanilla")
    assert (beaten.best, beaten.best_spend, beaten.best_accuracy) == ("short", 40, 0.75)


def test_methods_of_one_price_and_accuracy_do_not_beat_each_other():
    spending = summary(a=answers("a", [True, False], [9, 9]), b=answers("b", [False, True], [9, 9])).spending[0]
    assert spending.frontier == ("a", "b")


def test_spends_are_compared_on_the_questions_that_all_answered():
    spending = summary(
        vanilla=answers("vanilla", [True, True, False], [100, 100, 1000]),
        tale=answers("tale", [True, False], [50, 50]),
        begun=answers("begun", [True], [1]),
    ).spending[0]
    assert spending.questions == 2
    assert {point.label: point.spend for point in spending.points} == {"vanilla": 100, "tale": 50}
    assert spending.left_out == ("begun",)


@pytest.mark.parametrize("margin", [-0.01, 1, 3])
def test_a_margin_is_a_share(margin):
    with pytest.raises(InvalidValueError, match=f"got {margin}"):
        Summary.of(view_of_attempts({"vanilla": [attempt("vanilla", 0)]}), margin=margin)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), *[st.integers(1, 900)] * 3), min_size=2, max_size=12))
def test_savings_are_consistent(rows):
    vanilla = answers("vanilla", [row[0] for row in rows], [row[2] for row in rows])
    tale = [
        attempt("tale", number, right=row[1], tokens=row[3], estimate=row[4]) for number, row in enumerate(rows)
    ]
    found = summary(vanilla=vanilla, tale=tale)
    one, base = found.method("tale"), found.method("vanilla")
    saved = one.against("vanilla")
    assert one.net_tokens == pytest.approx(one.answer_tokens + one.estimator_tokens)
    assert saved.saved == pytest.approx(1 - one.net_tokens / base.net_tokens)
    assert saved.saved <= saved.saved_answer
    assert saved.saved_interval.low <= saved.saved + 1e-9
    assert saved.saved <= saved.saved_interval.high + 1e-9
    assert saved.accuracy_change == pytest.approx(one.accuracy - base.accuracy)
    assert saved.accuracy_interval.low <= saved.accuracy_interval.high
