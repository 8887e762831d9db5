"""A profile holds what was measured about one model, and is found by the model's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tale_core import (
    BudgetPolicy,
    Exemplar,
    InvalidValueError,
    Profile,
    RegressionEstimator,
    TaleMethod,
    find_profile,
    get_style,
)
from tale_core.estimators.training import BudgetExample
from tale_core.method.calibration import SHIPPED

if TYPE_CHECKING:
    from pathlib import Path

PROFILE = Profile(model="My-Model", style="essential", budget=90, policy=BudgetPolicy(floor=60))


def test_a_profile_survives_the_way_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    PROFILE.save(path)
    assert Profile.load(path) == Profile.load(str(path)) == PROFILE
    assert find_profile(path) == find_profile(str(path)) == PROFILE


def test_a_fitted_estimator_is_found_beside_its_profile_wherever_both_are_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    examples = [BudgetExample(question="How many more? " * n, tokens=20 + 10 * n) for n in range(1, 41)]
    RegressionEstimator().fit_table(examples).save(before / "budget.skops")
    monkeypatch.chdir(before)
    PROFILE.model_copy(update={"budget": None, "estimator": "budget.skops"}).save("profile.json")
    before.rename(after)
    monkeypatch.chdir(tmp_path)
    method = TaleMethod(profile=Profile.load("after/profile.json"))
    assert isinstance(method.estimator, RegressionEstimator)


def test_a_profile_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=r"cannot read profile '.*none\.json': No such file"):
        Profile.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"profile '.*bad\.json': Invalid JSON"),
        ("[]", r"profile '.*bad\.json': .* object"),
        ("{}", r"profile '.*bad\.json': Profile\.model: a value is required; Profile\.style: a value"),
        ('{"model": "m", "style": "tale", "budget": 0}', r"bad\.json': Profile\.budget: .*got 0"),
        ('{"model": "m", "style": "tale", "bugdet": 9}', r"bad\.json': Profile\.bugdet: no such field"),
        (
            '{"model": "m", "style": "tale", "policy": {"floor": 9, "ceiling": 3}}',
            r"bad\.json': Profile\.policy: BudgetPolicy: floor 9 is above ceiling 3",
        ),
    ],
)
def test_a_file_that_is_no_profile_is_named_with_what_is_wrong(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(InvalidValueError, match=message):
        find_profile(path)


def test_a_profile_for_another_model_is_used_only_knowingly() -> None:
    assert find_profile(PROFILE, model_name="my-model") is PROFILE
    with pytest.raises(
        InvalidValueError, match=r"measured on 'My-Model', not on 'other'.*for_model\('other'\)"
    ):
        find_profile(PROFILE, model_name="other")
    assert find_profile(PROFILE.for_model("other"), model_name="other") is not None


@pytest.mark.parametrize("name", [None, "", "a-model-nobody-measured"])
def test_an_unmeasured_model_has_no_profile(name: str | None) -> None:
    assert find_profile(None, model_name=name) is None


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_profile_is_found_by_its_models_name_and_can_be_used(name: str) -> None:
    profile = SHIPPED[name]
    assert find_profile(None, model_name=profile.model) is profile
    method = TaleMethod(profile=profile)
    assert method.style.name == profile.style
    assert method.policy == profile.policy


def test_examples_of_a_profile_take_the_place_of_those_of_the_style() -> None:
    mine = {30: (Exemplar(question="1 + 1?", solution="2"),)}
    profile = Profile(model="m", style="exemplars", exemplars=mine)
    assert profile.prompt_style().frame("q", 50).examples[1].content == "2"
    assert get_style("exemplars").frame("q", 50).examples[1].content != "2"  # the registry is untouched
    assert PROFILE.prompt_style() is get_style("essential")
