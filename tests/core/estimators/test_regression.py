"""A regression learns searched budgets, says how well, and survives its file."""

from __future__ import annotations

import copy
import io
import json
import math
import random
import statistics
import subprocess
import sys
import time
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from tale_core import (
    BudgetExample,
    BudgetRange,
    Estimate,
    InvalidValueError,
    MissingExtraError,
    ModelReply,
    Probe,
    RegressionEstimator,
    SearchSettings,
    SearchTrace,
    StoreError,
    Usage,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

THINGS = ("apples", "pencils", "tickets", "books", "litres", "boxes")


def question(rng: random.Random) -> str:
    """A made-up word problem of one to six steps."""
    steps = [
        f"{rng.choice(('Ann', 'Bo', 'Cy'))} gets {rng.randint(2, 99)} {rng.choice(THINGS)} more each day."
        for _ in range(rng.randint(1, 6))
    ]
    return f"{' '.join(steps)} How many are there after {rng.randint(2, 9)} days?"


def example(rng: random.Random, *, noise: float = 0.1) -> BudgetExample:
    """A question whose budget grows with its numbers, and an ideal range around it."""
    text = question(rng)
    numbers = sum(word.isdigit() for word in text.replace("?", "").split())
    tokens = round(15 * numbers**1.2 * math.exp(rng.gauss(0, noise)))
    return BudgetExample(question=text, tokens=tokens, ideal=BudgetRange(low=tokens // 2, high=tokens * 3 // 2))


def table(count: int, *, seed: int = 0) -> list[BudgetExample]:
    rng = random.Random(seed)  # noqa: S311
    return [example(rng) for _ in range(count)]


@pytest.fixture(scope="module")
def examples() -> list[BudgetExample]:
    return table(120)


@pytest.fixture(scope="module")
def fitted(examples: list[BudgetExample]) -> RegressionEstimator:
    return RegressionEstimator().fit_table(examples, model="qwen", strategy="tale", skipped=3)


def no_model(call: object) -> ModelReply:
    raise AssertionError(f"no model call was expected, got {call!r}")


# predictions


def test_it_predicts_new_questions_without_a_model_call(fitted: RegressionEstimator) -> None:
    for one in table(40, seed=1):
        estimate = run(fitted.estimate(one.question), no_model)
        assert estimate.source == "regression"
        assert estimate.tokens == pytest.approx(one.tokens, rel=0.6)


def test_a_higher_quantile_leads_to_larger_budgets(examples: list[BudgetExample]) -> None:
    rng = random.Random(5)  # noqa: S311
    spread = [
        one.model_copy(update={"tokens": round(one.tokens * math.exp(rng.gauss(0, 0.5)))}) for one in examples
    ]
    asked = [one.question for one in table(20, seed=2)]
    low, high = (
        RegressionEstimator(quantile=quantile).fit_table(spread).predict(asked) for quantile in (0.3, 0.9)
    )
    assert sum(high) > 1.3 * sum(low)


def test_the_fast_path_is_the_pipeline_to_the_last_token(examples: list[BudgetExample]) -> None:
    estimator = RegressionEstimator().fit_table(examples)
    asked = [one.question for one in table(30, seed=3)]
    facts = estimator.facts
    expected = [
        min(max(math.ceil(math.exp(value) - 1e-6), facts.lowest), facts.highest)
        for value in estimator.pipeline.predict(estimator.matrix(asked))
    ]
    assert estimator.predict(asked) == expected
    assert [run(estimator.estimate(one), no_model).tokens for one in asked] == expected


@settings(max_examples=200)
@given(text=st.text(max_size=2000))
def test_no_text_leads_outside_the_budgets_that_were_searched(fitted: RegressionEstimator, text: str) -> None:
    (tokens,) = fitted.predict([text])
    assert fitted.facts.lowest <= tokens <= fitted.facts.highest


def test_one_prediction_computes_for_less_than_half_a_millisecond(fitted: RegressionEstimator) -> None:
    asked = [one.question for one in table(200, seed=4)]
    took = []
    for one in asked:
        start = time.thread_time()
        run(fitted.estimate(one), no_model)
        took.append(time.thread_time() - start)
    assert statistics.median(took) < 0.0005  # of processor time; a tenth of it is enough


def test_predicting_is_far_cheaper_than_the_pipeline_row_by_row(fitted: RegressionEstimator) -> None:
    asked = [one.question for one in table(50, seed=4)]

    def seconds(predict: Any) -> float:
        start = time.thread_time()
        for one in asked:
            predict([one])
        return time.thread_time() - start

    fast = min(seconds(fitted.predict) for _ in range(3))
    slow = min(seconds(lambda one: fitted.pipeline.predict(fitted.matrix(one))) for _ in range(3))
    assert fast < slow / 2


def test_a_second_fit_takes_nothing_over_from_the_first() -> None:
    other = table(60, seed=7)
    estimator = RegressionEstimator().fit_table(table(40, seed=8))
    estimator.fit_table(other)
    asked = [one.question for one in table(10, seed=9)]
    assert estimator.predict(asked) == RegressionEstimator().fit_table(other).predict(asked)


def test_an_unfitted_regression_says_so() -> None:
    with pytest.raises(InvalidValueError, match=r"not fitted.*fit\(traces\)"):
        RegressionEstimator().predict(["How many?"])


@pytest.mark.parametrize("quantile", [0, 1, -0.5, float("nan")])
def test_a_quantile_lies_between_0_and_1(quantile: float) -> None:
    with pytest.raises(InvalidValueError, match="between 0 and 1"):
        RegressionEstimator(quantile=quantile)


# what it reports


def test_the_report_compares_with_one_budget_and_with_zero_shot_on_the_same_questions(
    examples: list[BudgetExample],
) -> None:
    guesses: dict[str, int | None] = {one.question: 12 for one in examples[:60]}
    guesses[examples[0].question] = None
    report = RegressionEstimator().fit_table(examples, zero_shot=guesses).facts.report
    learned, constant, zero_shot = (report.score(name) for name in ("regression", "one budget", "zero-shot"))
    assert learned.questions == constant.questions == zero_shot.questions == 60
    assert zero_shot.unusable == 1
    assert learned.error < constant.error < zero_shot.error
    assert learned.pinball < constant.pinball
    assert (learned.in_range or 0) > 0.8 > (zero_shot.in_range or 0)
    for score in report.scores:
        assert score.error_interval[0] <= score.error <= score.error_interval[1]
    assert "zero-shot (1 unusable)" in str(report)


def test_on_noise_the_report_shows_no_gain(examples: list[BudgetExample]) -> None:
    rng = random.Random(0)  # noqa: S311
    noise = [one.model_copy(update={"tokens": rng.randint(20, 200)}) for one in examples]
    report = RegressionEstimator().fit_table(noise).facts.report
    learned, constant = report.score("regression"), report.score("one budget")
    assert learned.pinball > 0.9 * constant.pinball


def test_a_repeated_question_is_never_on_both_sides_of_a_split() -> None:
    rng = random.Random(0)  # noqa: S311
    unique = [question(rng) for _ in range(30)]
    # Each question comes four times with a budget of its own: only a leak could predict it.
    budgets = {text: rng.randint(20, 400) for text in unique}
    repeated = [BudgetExample(question=text, tokens=budgets[text]) for text in unique * 4]
    report = RegressionEstimator().fit_table(repeated).facts.report
    assert report.score("regression").error > 50


def test_the_share_in_range_is_unknown_without_ideal_ranges(examples: list[BudgetExample]) -> None:
    bare = [one.model_copy(update={"ideal": None}) for one in examples]
    assert RegressionEstimator().fit_table(bare).facts.report.score("regression").in_range is None


def test_a_model_without_one_usable_estimate_is_scored_as_such(examples: list[BudgetExample]) -> None:
    report = (
        RegressionEstimator()
        .fit_table(examples, zero_shot={one.question: None for one in examples})
        .facts.report
    )
    zero_shot = report.score("zero-shot")
    assert (zero_shot.unusable, zero_shot.error, zero_shot.in_range) == (120, None, 0.0)
    assert report.gains


def test_estimates_under_the_wrong_keys_are_noticed(examples: list[BudgetExample]) -> None:
    with pytest.raises(InvalidValueError, match="key them by the question's text"):
        RegressionEstimator().fit_table(examples, zero_shot={"q1": 12})


# fitting to traces


def trace(
    one: BudgetExample, *, strategy: str = "tale", model: str | None = "qwen", found: bool = True
) -> SearchTrace:
    usage = Usage(input_tokens=9, output_tokens=300)
    return SearchTrace(
        question=one.question,
        settings=SearchSettings(strategy=strategy),
        probes=(Probe(budget=None, usage=usage, verdict="correct", text="4", model=model),),
        chosen=one.tokens if found else None,
        ideal=one.ideal if found else None,
        stopped="rejected",
    )


def test_it_fits_to_finished_searches(examples: list[BudgetExample]) -> None:
    traces = [trace(one, found=index % 5 > 0) for index, one in enumerate(examples)]
    facts = RegressionEstimator().fit(traces).facts
    assert (facts.examples, facts.skipped, facts.model, facts.strategy) == (96, 24, "qwen", "tale")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"strategy": "essential"}, "several strategies: essential, tale"),
        ({"model": "llama"}, "several models: llama, qwen"),
    ],
)
def test_searches_of_different_kinds_are_not_mixed(
    examples: list[BudgetExample], other: dict[str, str], message: str
) -> None:
    traces = [*(trace(one) for one in examples), trace(examples[0], **other)]  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match=message):
        RegressionEstimator().fit(traces)


@pytest.mark.parametrize("count", [0, 1, 19])
def test_too_few_questions_are_refused(count: int) -> None:
    with pytest.raises(InvalidValueError, match=rf"at least 20 different questions.*got {count}.*tale search"):
        RegressionEstimator().fit_table(table(count))


def test_one_question_many_times_is_one_question() -> None:
    with pytest.raises(InvalidValueError, match="got 1"):
        RegressionEstimator().fit_table(table(1) * 50)


def test_the_smallest_allowed_table_fits() -> None:
    assert RegressionEstimator().fit_table(table(20)).facts.examples == 20


def test_one_budget_for_all_questions_is_no_regression(examples: list[BudgetExample]) -> None:
    same = [one.model_copy(update={"tokens": 50}) for one in examples]
    with pytest.raises(InvalidValueError, match=r"same budget, 50.*FixedEstimator\(50\)"):
        RegressionEstimator().fit_table(same)


# files


def test_a_file_gives_back_the_same_estimator(fitted: RegressionEstimator, tmp_path: Path) -> None:
    path = tmp_path / "budget.skops"
    fitted.save(path)
    loaded = RegressionEstimator.load(path)
    asked = [one.question for one in table(30, seed=6)]
    assert loaded.facts == fitted.facts
    assert loaded.predict(asked) == fitted.predict(asked)
    assert [file.name for file in tmp_path.iterdir()] == ["budget.skops"]


def test_a_file_holds_no_question_but_recognises_one(
    fitted: RegressionEstimator, examples: list[BudgetExample], tmp_path: Path
) -> None:
    path = tmp_path / "budget.skops"
    fitted.save(path)
    with zipfile.ZipFile(path) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert not any(one.question.encode() in content for one in examples)
    loaded = RegressionEstimator.load(path)
    assert loaded.trained_on(examples[0].question)
    assert not loaded.trained_on("What is 2 + 2?")


def stored(path: Path, content: object) -> Path:
    skops.io.dump(content, path)
    return path


def test_types_that_no_regression_has_are_not_loaded(tmp_path: Path) -> None:
    path = stored(tmp_path / "evil.skops", {"format": "tale budget regression", "pipeline": subprocess.Popen})
    with pytest.raises(InvalidValueError, match=r"not loaded: subprocess\.Popen"):
        RegressionEstimator.load(path)


def test_a_foreign_skops_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="no budget regression"):
        RegressionEstimator.load(stored(tmp_path / "other.skops", LinearRegression()))


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04 but broken", b"\x80\x04pickle"])
def test_an_unreadable_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "budget.skops"
    path.write_bytes(content)
    with pytest.raises(InvalidValueError, match=r"budget\.skops.*no budget regression, or is damaged"):
        RegressionEstimator.load(path)


def test_a_damaged_file_is_refused(fitted: RegressionEstimator, tmp_path: Path) -> None:
    path = tmp_path / "budget.skops"
    fitted.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidValueError, match="is damaged"):
        RegressionEstimator.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "another version"),
        ({"features": ["words"]}, "another version"),
        ({"lowest": "few"}, "header that cannot be read"),
        ({"ngrams": 512}, r"header that cannot be read; fit again with `tale fit`"),  # once allowed
    ],
)
def test_a_file_of_another_version_is_refused(
    fitted: RegressionEstimator, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    header = json.dumps(json.loads(fitted.facts.model_dump_json()) | change)
    content = {"format": "tale budget regression", "facts": header, "pipeline": fitted.pipeline}
    with pytest.raises(InvalidValueError, match=message):
        RegressionEstimator.load(stored(tmp_path / "budget.skops", content))


def repacked(source: Path, target: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """Copy a skops file, its members changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def header_of(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda name, old: old + b" " * 300_000_000 if name == "schema.json" else old,
            "300,0.* bytes in 'schema",
        ),
        (lambda name, old: b"\0" * 50_000_000 if name.endswith("npy") else old, "50,000,000 bytes in "),
        (
            lambda name, old: header_of((30_000, 30_000)) if name.endswith("npy") else old,
            r"shape \(30000, 30000\)",
        ),
        (lambda name, old: b"no array" if name.endswith("npy") else old, "damaged"),
        (lambda name, old: b"[" * 1_000_000 if name == "schema.json" else old, r"damaged \(RecursionError\)"),
        (
            lambda name, old: old.replace(
                b"sklearn.linear_model._quantile", b"sklearn.linear_model._huber"
            ).replace(b"QuantileRegressor", b"HuberRegressor"),
            r"types that no budget regression has.*HuberRegressor",
        ),
        (
            lambda name, old: old.replace(b'"__loader__": "TypeNode"', b'"__loader__": "FunctionNode"'),
            r"types that no budget regression has.*FunctionNode",
        ),
    ],
)
def test_a_hostile_file_is_refused_before_anything_is_unpacked(
    fitted: RegressionEstimator, tmp_path: Path, change: Callable[[str, bytes], bytes], message: str
) -> None:
    fitted.save(tmp_path / "budget.skops")
    with pytest.raises(InvalidValueError, match=message):
        RegressionEstimator.load(repacked(tmp_path / "budget.skops", tmp_path / "hostile.skops", change))


@pytest.mark.parametrize("part", ["pipeline", "facts"])
@pytest.mark.parametrize("value", [None, 3, "text", [], {}])
def test_a_part_of_another_type_is_refused(
    fitted: RegressionEstimator, tmp_path: Path, part: str, value: object
) -> None:
    facts = fitted.facts.model_dump_json()
    content = {"format": "tale budget regression", "facts": facts, "pipeline": fitted.pipeline, part: value}
    with pytest.raises(InvalidValueError):
        RegressionEstimator.load(stored(tmp_path / "budget.skops", content))


@pytest.mark.parametrize("attribute", ["coef_", "intercept_"])
@pytest.mark.parametrize("value", [np.array([1.0] * 99), np.float64("nan"), "text", None])
def test_weights_that_predict_nothing_are_refused(
    fitted: RegressionEstimator, tmp_path: Path, attribute: str, value: object
) -> None:
    pipeline = copy.deepcopy(fitted.pipeline)
    setattr(pipeline.steps[-1][1], attribute, value)
    content = {
        "format": "tale budget regression",
        "facts": fitted.facts.model_dump_json(),
        "pipeline": pipeline,
    }
    with pytest.raises(InvalidValueError):
        RegressionEstimator.load(stored(tmp_path / "budget.skops", content))


def test_a_missing_file_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=r"cannot read.*none\.skops.*tale fit"):
        RegressionEstimator.load(tmp_path / "none.skops")


def test_a_place_that_cannot_be_written_is_a_clear_error(fitted: RegressionEstimator, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot write.*No such file"):
        fitted.save(tmp_path / "missing" / "budget.skops")


# without the extra


def test_without_the_extra_it_can_be_made_and_names_the_command_when_used(
    monkeypatch: pytest.MonkeyPatch, examples: Sequence[BudgetExample]
) -> None:
    monkeypatch.delitem(sys.modules, "tale_core.estimators.fitting")
    monkeypatch.delattr("tale_core.estimators.fitting", raising=False)
    monkeypatch.setitem(sys.modules, "skops", None)
    estimator = RegressionEstimator()
    with pytest.raises(MissingExtraError, match=r"pip install 'tale-reasoning\[learn\]'"):
        estimator.fit_table(examples)


def test_an_estimate_is_bounded_by_the_policy_like_any_other(fitted: RegressionEstimator) -> None:
    estimate = run(fitted.estimate("How many?"), no_model)
    assert estimate == Estimate(tokens=fitted.predict(["How many?"])[0], source="regression")
    assert not estimate.exact
