"""A calibration holds what was measured about one model, and is found by the model's name."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale_core import (
    BudgetPolicy,
    Calibration,
    Exemplar,
    InvalidValueError,
    RegressionEstimator,
    TaleMethod,
    find_calibration,
    get_strategy,
)
from tale_core.estimators.training import BudgetExample
from tale_core.method.calibration import SHIPPED

PROFILE = Calibration(model="My-Model", strategy="essential", budget=90, policy=BudgetPolicy(floor=60))


def test_a_calibration_survives_the_way_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    PROFILE.save(path)
    assert Calibration.load(path) == Calibration.load(str(path)) == PROFILE
    assert find_calibration(path) == find_calibration(str(path)) == PROFILE


def test_a_fitted_estimator_is_found_beside_its_calibration_wherever_both_are_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    examples = [BudgetExample(question="How many more? " * n, tokens=20 + 10 * n) for n in range(1, 41)]
    RegressionEstimator().fit_table(examples).save(before / "budget.skops")
    monkeypatch.chdir(before)
    PROFILE.model_copy(update={"budget": None, "estimator": "budget.skops"}).save("calibration.json")
    before.rename(after)
    monkeypatch.chdir(tmp_path)
    method = TaleMethod(calibration=Calibration.load("after/calibration.json"))
    assert isinstance(method.estimator, RegressionEstimator)


def test_a_calibration_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=r"cannot read calibration '.*none\.json': No such file"):
        Calibration.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"calibration '.*bad\.json': Invalid JSON"),
        ("[]", r"calibration '.*bad\.json': .* object"),
        (
            "{}",
            r"calibration '.*bad\.json': Calibration\.model: a value is required; Calibration\.strategy: a",
        ),
        ('{"model": "m", "strategy": "tale", "budget": 0}', r"bad\.json': Calibration\.budget: .*got 0"),
        ('{"model": "m", "strategy": "tale", "bugdet": 9}', r"bad\.json': Calibration\.bugdet: no such field"),
        (
            '{"model": "m", "strategy": "tale", "policy": {"floor": 9, "ceiling": 3}}',
            r"bad\.json': Calibration\.policy: BudgetPolicy: floor 9 is above ceiling 3",
        ),
    ],
)
def test_a_file_that_is_no_calibration_is_named_with_what_is_wrong(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(InvalidValueError, match=message):
        find_calibration(path)


def test_a_calibration_for_another_model_is_used_only_knowingly() -> None:
    assert find_calibration(PROFILE, model_name="my-model") is PROFILE
    with pytest.raises(
        InvalidValueError, match=r"measured on 'My-Model', not on 'other'.*for_model\('other'\)"
    ):
        find_calibration(PROFILE, model_name="other")
    assert find_calibration(PROFILE.for_model("other"), model_name="other") is not None


@pytest.mark.parametrize("name", [None, "", "a-model-nobody-measured"])
def test_an_unmeasured_model_has_no_calibration(name: str | None) -> None:
    assert find_calibration(None, model_name=name) is None


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_calibration_is_found_by_its_models_name_and_can_be_used(name: str) -> None:
    calibration = SHIPPED[name]
    assert find_calibration(None, model_name=calibration.model) is calibration
    method = TaleMethod(calibration=calibration)
    assert method.strategy.name == calibration.strategy
    assert method.policy == calibration.policy


def test_examples_of_a_calibration_take_the_place_of_those_of_the_strategy() -> None:
    mine = {30: (Exemplar(question="1 + 1?", solution="2"),)}
    calibration = Calibration(model="m", strategy="exemplars", exemplars=mine)
    assert calibration.prompt_strategy().frame("q", 50).examples[1].content == "2"
    assert get_strategy("exemplars").frame("q", 50).examples[1].content != "2"  # the registry is untouched
    assert PROFILE.prompt_strategy() is get_strategy("essential")


def test_a_method_finds_the_shipped_calibration_of_a_model_by_its_name() -> None:
    name, shipped = next(iter(SHIPPED.items()))
    assert TaleMethod(model_name=name.upper()).policy == shipped.policy
    assert TaleMethod(model_name="unheard-of").policy == TaleMethod().policy


def test_a_method_reads_a_calibration_from_its_path_and_checks_the_model(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    Calibration(model="m", strategy="steps", budget=33).save(path)
    method = TaleMethod(calibration=path, model_name="M")
    assert (method.strategy.name, method.estimator.name) == ("steps", "fixed")
    with pytest.raises(InvalidValueError, match="measured on 'm', not on 'n'"):
        TaleMethod(calibration=str(path), model_name="n")


# files from somebody else


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": 10**400}, "budget"),
        ({"policy": {"ceiling": 10**400}}, r"policy\.ceiling .* more than 10\^12"),
        ({"policy": {"fallback": 10**400}}, r"policy\.ceiling or policy\.fallback"),
        ({"policy": {"retries": 10}}, r"policy\.retries .* at most 3, got 10"),
        (
            {"exemplars": {"50": [{"question": "q", "solution": "s" * 200_000}]}},
            r"worked examples, in characters",
        ),
        ({"exemplars": {"50": [{"question": "q", "solution": "s"}] * 17}}, "exemplars"),
        ({"exemplars": {str(n): [{"question": "q", "solution": "s"}] for n in range(1, 34)}}, "exemplars"),
        ({"exemplars": {"50": []}}, "exemplars"),
        ({"exemplars": {"-1": [{"question": "q", "solution": "s"}]}}, "exemplars"),
        ({"exemplars": {"50": [{"question": "q", "solution": "s", "role": "system"}]}}, "no such field"),
        ({"version": "v" * 1_000_000}, "larger than 1,000,000 bytes"),
    ],
)
def test_a_file_that_asks_for_too_much_is_refused(
    fields: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "hostile.json"
    path.write_text(json.dumps({"model": "m", "strategy": "exemplars", **fields}))
    with pytest.raises(InvalidValueError, match=message):
        Calibration.load(path)


def test_deep_nesting_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text('{"model": "m", "strategy": "tale", "curve": ' + "[" * 400_000)
    with pytest.raises(InvalidValueError, match=r"deep\.json"):
        Calibration.load(path)


@pytest.mark.parametrize(
    "named", ["/dev/zero", "/etc/hostname", "../outside.skops", "link.skops", "loop", ".", "a\0b"]
)
def test_an_estimator_outside_the_calibrations_folder_is_not_opened(named: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "outside.skops").write_bytes(b"x")
    (folder / "link.skops").symlink_to(tmp_path / "outside.skops")
    (folder / "loop").symlink_to(folder / "loop")
    path = folder / "calibration.json"
    path.write_text(json.dumps({"model": "m", "strategy": "tale", "estimator": named}))
    with pytest.raises(InvalidValueError, match="which is no file in its folder; put the file"):
        Calibration.load(path)


def test_an_estimator_elsewhere_is_copied_beside_the_calibration(tmp_path: Path) -> None:
    fitted = tmp_path / "budget.skops"
    fitted.write_bytes(b"fitted")
    folder = tmp_path / "calibrations"
    folder.mkdir()
    calibration = PROFILE.model_copy(update={"estimator": str(fitted)})
    calibration.save(folder / "one.json")
    copied = Calibration.load(folder / "one.json").estimator
    assert copied is not None
    assert Path(copied).parent == folder
    assert Path(copied).read_bytes() == b"fitted"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(sorted(Calibration.model_fields)), JSON_VALUES), st.booleans(), st.data()
)
def test_every_file_is_a_calibration_or_is_refused_with_words(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, object], whole: bool, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    text = json.dumps({"model": "m", "strategy": "tale"} | fields) if whole else json.dumps(fields)
    cut = data.draw(st.integers(0, len(text)) | st.just(len(text)))
    path.write_text(text[:cut])
    with suppress(InvalidValueError):
        found = Calibration.load(path)
        assert found.budget is None or found.budget >= 1
        found.save(path)
        assert Calibration.load(path) == found
