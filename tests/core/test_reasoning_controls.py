"""The pure choice of a control: facts about a model and a budget in, a setting out."""

from __future__ import annotations

import pytest

from tale_core import BudgetPolicy, InvalidValueError, TaleMethod, run
from tale_core.models.model_families import Provider, documented_controls
from tale_core.models.reasoning_controls import (
    LEVELS,
    THINKING_HEADROOM,
    NativeControls,
    check_reasoning_control,
    choose,
    quiet,
)
from tale_core.testing import ScriptedModel
from tale_core.types import ControlSetting, ModelReply, Usage

EFFORT = NativeControls(model="m", thinks=True, levels=("none", "minimal", "low", "medium", "high", "xhigh"))
TOKENS = NativeControls(model="m", thinks=True, minimum=1024, limit=10_000, stops=True)


@pytest.mark.parametrize(
    ("budget", "level"),
    [
        (1, "minimal"),
        (256, "minimal"),
        (257, "low"),
        (1024, "low"),
        (1025, "medium"),
        (8192, "medium"),
        (9000, "high"),
    ],
)
def test_a_budget_maps_to_an_effort_level_by_documented_thresholds(budget: int, level: str) -> None:
    setting = choose(budget, EFFORT)
    assert (setting.control, setting.value) == ("effort", level)


@pytest.mark.parametrize(
    ("levels", "level"),
    [
        (("low", "medium", "high"), "low"),
        (("none", "low", "high"), "low"),
        (("high",), "high"),
        (("none", "minimal", "high"), "minimal"),
    ],
)
def test_a_level_the_model_does_not_accept_becomes_the_nearest_that_thinks(
    levels: tuple[str, ...], level: str
) -> None:
    setting = choose(100, EFFORT.model_copy(update={"levels": levels}))
    assert setting.value == level
    if level != "minimal":
        assert "'minimal'" in setting.why
        assert repr(level) in setting.why


def test_between_two_accepted_levels_the_cheaper_one_is_taken() -> None:
    assert choose(5000, EFFORT.model_copy(update={"levels": ("low", "high")})).value == "low"


@pytest.mark.parametrize("budget", [10, 700, 5000, 50_000])
@pytest.mark.parametrize("in_force", ["minimal", "low", "medium"])
def test_the_level_in_force_is_never_exceeded(budget: int, in_force: str) -> None:
    chosen = choose(budget, EFFORT.model_copy(update={"level": in_force})).value
    assert isinstance(chosen, str)
    assert 1 <= LEVELS.index(chosen) <= LEVELS.index(in_force)


@pytest.mark.parametrize(("budget", "tokens"), [(60, 1024), (1024, 1024), (3000, 3000), (50_000, 10_000)])
def test_a_thinking_budget_stays_within_what_the_provider_accepts_and_the_caller_set(
    budget: int, tokens: int
) -> None:
    setting = choose(budget, TOKENS)
    assert (setting.control, setting.value) == ("thinking_budget", tokens)


@pytest.mark.parametrize(
    ("controls", "why"),
    [
        (NativeControls(model="gpt-4o", thinks=False), "gpt-4o does not think"),
        (NativeControls(model="mystery"), "no reasoning control is known for mystery"),
        (NativeControls(model="mystery", levels=("low",)), "not known whether mystery thinks"),
        (
            TOKENS.model_copy(update={"obstacle": "a forced tool excludes thinking"}),
            "a forced tool excludes thinking",
        ),
    ],
)
def test_without_a_usable_control_the_prompt_carries_the_budget_and_says_why(
    controls: NativeControls, why: str
) -> None:
    setting = choose(60, controls)
    assert (setting.control, setting.value) == ("prompt", None)
    assert why in setting.why


def test_the_caller_can_insist_on_the_prompt() -> None:
    assert choose(60, EFFORT, "prompt").control == "prompt"


def test_native_uses_a_known_control_even_when_nobody_knows_whether_the_model_thinks() -> None:
    assert choose(60, NativeControls(levels=("low",)), "native").value == "low"


def test_native_is_refused_where_it_cannot_be_kept() -> None:
    with pytest.raises(
        InvalidValueError, match="gpt-4o does not think as it is set up; use reasoning_control='auto'"
    ):
        check_reasoning_control("native", NativeControls(model="gpt-4o", thinks=False))


def test_an_unknown_choice_is_refused_with_the_choices() -> None:
    with pytest.raises(
        InvalidValueError, match=r"reasoning_control must be one of auto, prompt, native, .*; got 'max'"
    ):
        check_reasoning_control("max")


@pytest.mark.parametrize("reasoning_control", ["auto", "prompt", "vllm"])
def test_other_choices_need_nothing_of_the_model(reasoning_control: str) -> None:
    assert check_reasoning_control(reasoning_control, NativeControls()) == reasoning_control


def test_a_call_that_needs_no_thinking_switches_it_off_where_it_can() -> None:
    assert quiet(EFFORT, 64).model_dump(exclude={"why"}) == {
        "control": "effort",
        "value": "none",
        "cap": 64,
        "temperature": True,
    }
    off = quiet(TOKENS.model_copy(update={"temperature": "quiet"}), 64)
    assert (off.control, off.value, off.cap, off.temperature) == ("thinking_budget", 0, 64, True)


def test_a_call_that_still_thinks_gets_head_room_and_no_temperature() -> None:
    always = NativeControls(thinks=True, levels=("low", "high"), temperature="quiet")
    setting = quiet(always, 64)
    assert (setting.value, setting.cap, setting.temperature) == ("low", 64 + THINKING_HEADROOM, False)


def test_the_smallest_thinking_budget_is_on_top_of_the_head_room() -> None:
    setting = quiet(NativeControls(thinks=True, minimum=128, limit=32768), 64)
    assert (setting.control, setting.value, setting.cap) == (
        "thinking_budget",
        128,
        64 + 128 + THINKING_HEADROOM,
    )


def test_a_model_that_does_not_think_is_left_alone() -> None:
    setting = quiet(NativeControls(thinks=False, levels=("none", "low")), 64)
    assert (setting.native, setting.cap, setting.temperature) == (False, 64, True)


def test_a_model_that_takes_no_temperature_gets_none_even_without_thinking() -> None:
    assert not quiet(NativeControls(thinks=False, temperature="never"), 64).temperature


def documented(name: str) -> NativeControls | None:
    providers: tuple[Provider, ...] = ("openai", "anthropic", "google")
    found = [documented_controls(name, provider) for provider in providers]
    return next((controls for controls in found if controls and (controls.levels or controls.stops)), found[0])


def test_a_model_asked_with_parameters_of_others_thinks_and_has_no_control() -> None:
    controls = documented_controls("anthropic/claude-opus-5", "openai")
    assert controls is not None
    assert choose(60, controls).control == "prompt"
    setting = quiet(controls, 64)
    assert (setting.native, setting.cap, setting.temperature) == (False, 64 + THINKING_HEADROOM, False)


@pytest.mark.parametrize(
    ("name", "same_as"),
    [
        ("o3-mini-2025-01-31", "o3-mini"),
        ("openai/gpt-5", "gpt-5"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5"),
        ("claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("gemini-3-flash-preview", "gemini-3-flash"),
        ("gemini-2.5-pro-preview-05-06", "gemini-2.5-pro"),
        ("claude-3-7-sonnet-latest", "claude-3-7-sonnet"),
    ],
)
def test_prefixes_dates_and_previews_do_not_hide_a_family(name: str, same_as: str) -> None:
    found, plain = documented(name), documented(same_as)
    assert found is not None
    assert plain is not None
    assert found.model_copy(update={"model": same_as}) == plain


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4o",
        "gpt-5-chat-latest",
        "gpt-5-pro",
        "gpt-50",
        "claude-3-5-haiku-latest",
        "gemini-2.5-flash-image",
        "local",
    ],
)
def test_a_name_that_only_looks_alike_is_unknown(name: str) -> None:
    assert documented(name) is None


def test_claude_opus_5_5_is_not_taken_for_claude_opus_5() -> None:
    five, five_five = documented("claude-opus-5"), documented("claude-opus-5-5")
    assert five is not None
    assert five_five is not None
    assert (five.stops, five_five.stops) == (True, False)


def effort(budget: int) -> ControlSetting:
    return choose(budget, NativeControls(model="m", thinks=True, levels=("low", "medium")))


def test_a_native_control_takes_the_place_of_the_framing_and_is_recorded() -> None:
    model = ScriptedModel("Seventeen of them.")
    question = TaleMethod(estimator=60).begin("How many?", control=effort)
    answer = run(question.answer(), model)
    assert [message.content for message in model.calls[0].messages] == ["How many?"]
    assert model.calls[0].setting == answer.plan.setting == effort(60)
    summary = answer.summary()
    assert (summary["budget"], summary["reasoning_control"], summary["reasoning_control_value"]) == (
        60,
        "effort",
        "low",
    )
    assert "60 tokens" in summary["reasoning_control_why"]
    recorded = question.drain()[0].model_dump()
    assert (recorded["control"], recorded["control_value"]) == ("effort", "low")


def test_without_a_native_control_the_record_says_prompt() -> None:
    model = ScriptedModel("3 + 4 = 7")
    answer = run(TaleMethod(estimator=60).begin("3 + 4?").answer(), model)
    assert answer.summary()["reasoning_control"] == "prompt"
    assert "60 tokens" in model.calls[0].messages[0].content


def test_without_a_budget_there_is_no_control() -> None:
    answer = run(TaleMethod(strategy="vanilla").begin("3 + 4?", control=effort).answer(), ScriptedModel("7"))
    assert (answer.summary()["reasoning_control"], answer.plan.setting) == (None, None)


def long_reply(tokens: int) -> ModelReply:
    return ModelReply(text="so", usage=Usage(output_tokens=tokens), finish_reason="stop")


def test_an_overrun_is_not_asked_again_when_the_control_would_not_move() -> None:
    model = ScriptedModel(long_reply(900), long_reply(900))
    method = TaleMethod(estimator=60, policy=BudgetPolicy(on_overrun="retry"))
    run(method.begin("How many?", control=effort).answer(), model)
    assert len(model.calls) == 1


def test_an_overrun_is_asked_again_when_more_room_means_another_level() -> None:
    model = ScriptedModel(long_reply(4000), long_reply(900))
    method = TaleMethod(estimator=600, policy=BudgetPolicy(on_overrun="retry"))
    run(method.begin("How many?", control=effort).answer(), model)
    assert [call.setting.value for call in model.calls if call.setting] == ["low", "medium"]


def test_a_short_answer_of_a_thinking_model_is_no_collapse() -> None:
    answer = run(TaleMethod(estimator=60).begin("How many?", control=effort).answer(), ScriptedModel("17"))
    assert "collapse" not in [event["kind"] for event in answer.summary()["events"]]
