"""The options of every wrapper: one list of names, former names included."""

from __future__ import annotations

import warnings

import pytest

from tale_core.errors import InvalidValueError
from tale_core.method.method import TaleMethod, current_options


def test_present_names_pass_as_they_are():
    options = {"strategy": "words", "language": "en", "estimator": 60}
    assert current_options(options, owner="TALERunnable", also=("estimator",)) == options


@pytest.mark.parametrize(("former", "present"), [("profile", "calibration"), ("knobs", "reasoning_control")])
def test_a_former_name_is_accepted_with_a_warning_that_says_the_new_one(former, present):
    with pytest.warns(DeprecationWarning, match=f"{former!r} is now called {present!r}"):
        assert current_options({former: "x"}, owner="TALERunnable") == {present: "x"}


def test_the_warning_points_at_the_callers_own_line():
    with pytest.warns(DeprecationWarning, match="now called") as told:
        TaleMethod(profile=None, estimator=60)
    assert [one.filename for one in told] == [__file__]


def test_style_stays_another_name_of_strategy():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert current_options({"style": "words"}, owner="ChatTALE") == {"strategy": "words"}


def test_both_names_at_once_are_refused():
    with pytest.raises(InvalidValueError, match="both 'strategy' and its other name 'style'"):
        current_options({"strategy": "words", "style": "tale"}, owner="ChatTALE")


def test_a_budget_is_answered_with_the_argument_that_was_meant():
    with pytest.raises(InvalidValueError, match=r"no argument 'budget'; a fixed budget is estimator=50"):
        current_options({"budget": 50}, owner="TALERunnable", also=("estimator",))


def test_an_unknown_option_is_answered_with_the_known_ones():
    with pytest.raises(
        InvalidValueError, match=r"no argument 'temperature'; known: estimator, policy, strategy"
    ):
        current_options({"temperature": 0}, owner="TALERunnable", also=("estimator",))
