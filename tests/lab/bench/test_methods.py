"""Every method, by the calls that it makes of a scripted model."""

from __future__ import annotations

import itertools
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tale_core import (
    AdaptiveEstimator,
    BudgetExample,
    Calibration,
    FixedEstimator,
    InvalidValueError,
    ModelReply,
    RegressionEstimator,
    UnknownStrategyError,
    Usage,
    ZeroShotEstimator,
    run,
)
from tale_core.testing import ScriptedModel
from tale_lab.bench.benchmark import Sampling, attempt, bench_jobs, setup_of
from tale_lab.bench.methods import (
    Concise,
    Conditions,
    Method,
    Said,
    Vanilla,
    ask,
    get_method,
    method_names,
    register_method,
)
from tale_lab.bench.methods import base as registry
from tale_lab.bench.methods.consistency import SelfConsistency, elected
from tale_lab.questions.datasets import Dataset, Question
from tale_lab.questions.graders import numeric
from tale_lab.results.store import Store
from tale_lab.runs.runner import run_jobs

if TYPE_CHECKING:
    from tale_core import Flow, ModelCall

QUESTION = "How much is 3 + 4?"
PROFILE = Calibration(model="m", strategy="exemplars", budget=120)
FITTED = RegressionEstimator().fit_table(
    [BudgetExample(question=" + ".join(["3"] * count), tokens=8 * count) for count in range(2, 32)]
)
EVERYTHING = Conditions(
    calibration=PROFILE, estimator=FITTED, efforts=("none", "minimal", "low", "medium", "high", "max")
)


class Telegram(Method):
    """The method of the module's docstring, unregistered."""

    name = "telegram"
    source = "our own"

    def answer(self, question: str) -> Flow[Said]:
        """Ask for a telegram."""
        reply = yield ask(question, after="Answer in the style of a telegram.")
        return Said(text=reply.text)


class Nameless(Method):
    """A method that was not given a name."""

    def answer(self, question: str) -> Flow[Said]:
        """Ask plainly."""
        reply = yield ask(question)
        return Said(text=reply.text)


def calls_of(name: str, conditions: Conditions = EVERYTHING) -> list[ModelCall]:
    model = ScriptedModel("seven words that stand for vanilla's answer", estimate="[[40]]", reason="so 7")
    run(get_method(name).under(conditions).answer(QUESTION), model)
    return model.calls


def only_call(name: str, conditions: Conditions = EVERYTHING) -> ModelCall:
    (call,) = calls_of(name, conditions)
    return call


def asked(call: ModelCall) -> str:
    return call.messages[-1].content


def system(call: ModelCall) -> str:
    return call.messages[0].content if call.messages[0].role == "system" else ""


def test_every_way_of_answering_that_is_promised_is_registered() -> None:
    assert method_names() == (
        "direct",
        "vanilla",
        "tale",
        "tale-calibration",
        "vanilla-retry",
        "tale-fitted",
        "tale-adaptive",
        "self-budget",
        "concise",
        "draft",
        "draft-examples",
        "sketch-symbolism",
        "sketch-chaining",
        "sketch-lexicons",
        "self-consistency",
        "effort-none",
        "effort-low",
        "effort-medium",
        "effort-high",
    )


@pytest.mark.parametrize("name", method_names())
def test_every_method_keeps_the_question_says_where_it_is_from_and_bounds_its_calls(name: str) -> None:
    method = get_method(name).under(EVERYTHING)
    calls = calls_of(name)
    assert all(QUESTION in asked(call) for call in calls)
    assert len(calls) <= method.most_calls
    assert method.source
    assert method.label == name


def test_the_direct_prompt_is_the_published_one_before_the_question() -> None:
    assert asked(only_call("direct")) == (
        "Please answer the following question and give the answer directly without any reasoning process.\n\n"
        + QUESTION
    )


def test_the_vanilla_prompt_is_the_published_one() -> None:
    assert asked(only_call("vanilla")) == f"{QUESTION}\n\nLet's think step by step:"


def test_tale_asks_for_the_budget_and_then_names_it_word_for_word() -> None:
    estimate, reason = calls_of("tale")
    assert (estimate.role, reason.role, reason.budget) == ("estimate", "reason", 40)
    assert "estimate the minimum number of tokens required" in asked(estimate)
    assert asked(reason) == f"{QUESTION}\n\nLet's think step by step and use less than 40 tokens:"


@pytest.mark.parametrize("estimate", ["[[1]]", "[[5000]]"])
def test_tale_as_published_has_no_bounds(estimate: str) -> None:
    model = ScriptedModel(estimate=estimate, reason="7")
    run(get_method("tale").under(Conditions()).answer(QUESTION), model)
    assert f"less than {estimate.strip('[]')} tokens" in asked(model.calls[-1])


def test_a_strategy_and_a_budget_can_be_named_after_a_colon() -> None:
    method = get_method("tale:exemplars@120")
    call = only_call("tale:exemplars@120")
    assert method.under(Conditions()).label == "tale:exemplars@120"
    assert call.budget == 120
    assert "less than 120 tokens" in asked(call)
    assert len(call.messages) > 1


def test_a_trained_model_is_asked_the_plain_question() -> None:
    assert only_call("tale:internalised").messages[-1].content == QUESTION


def test_a_strategy_without_a_budget_is_estimated_as_published() -> None:
    assert [call.role for call in calls_of("tale:words")] == ["estimate", "reason"]
    assert (
        asked(calls_of("tale:words")[-1])
        == f"{QUESTION}\n\nLet's think step by step and use less than 30 words:"
    )


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("tale:internalised@80", InvalidValueError, "carries no budget"),
        ("tale:exemplar@120", UnknownStrategyError, "did you mean 'exemplars'"),
        ("tale:exemplars@many", InvalidValueError, "got 'many'; write tale:exemplars@120"),
        ("tale:exemplars@0", InvalidValueError, "got '0'"),
        ("tale:vanilla@80", InvalidValueError, "carries no budget"),
        ("direct:80", InvalidValueError, "'direct' takes no settings"),
        ("taled", InvalidValueError, "no method named 'taled'; did you mean 'tale'"),
        ("nowhere:Class", InvalidValueError, "cannot import the method 'nowhere:Class'"),
        (f"{__name__}:QUESTION", InvalidValueError, "no subclass of"),
        (f"{__name__}:Nameless", InvalidValueError, "must say its name and its source"),
    ],
)
def test_a_name_that_leads_nowhere_is_told_with_the_way_out(
    name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        get_method(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tale-calibration", "needs a calibration of this model"),
        ("tale-fitted", "needs an estimator that was fitted"),
        ("effort-low", "effort level 'low'; known for this one: none"),
    ],
)
def test_a_method_says_what_the_run_lacks(name: str, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        get_method(name).under(Conditions())


def test_a_retry_follows_an_arithmetic_error_and_counts_towards_the_bound() -> None:
    method = get_method("vanilla-retry").under(Conditions())
    model = ScriptedModel("3 + 4 = 8", "3 + 4 = 7")
    said = run(method.answer(QUESTION), model)
    assert said.text == "3 + 4 = 7"
    assert [event.kind.value for event in said.events] == ["slip"]
    assert len(model.calls) == method.most_calls == 2


@pytest.mark.parametrize(
    ("first", "now"), [("tale-profile", "tale-calibration"), ("vanilla-second-try", "vanilla-retry")]
)
def test_a_renamed_method_answers_to_its_first_name_and_keeps_its_answers(first: str, now: str) -> None:
    method = get_method(first).under(EVERYTHING)
    assert method.label == now

    class Before(type(method)):  # type: ignore[misc]
        name = first

    before = Before.under(EVERYTHING)
    keys = {setup_of(one, Sampling(), model="m", grader="numeric") for one in (method, before)}
    assert len(keys) == 1


def test_the_calibration_decides_how_to_ask() -> None:
    call = only_call("tale-calibration")
    assert call.budget == 120
    assert len(call.messages) > 1


def test_a_fitted_estimator_takes_the_place_of_the_calibrations_budget_and_of_the_extra_call() -> None:
    call = only_call("tale-fitted")
    assert call.budget == FITTED.predict([QUESTION])[0] != PROFILE.budget
    assert len(call.messages) > 1


def test_a_fitted_estimator_without_a_calibration_uses_the_published_strategy() -> None:
    call = only_call("tale-fitted", Conditions(estimator=FixedEstimator(77)))
    assert asked(call) == f"{QUESTION}\n\nLet's think step by step and use less than 77 tokens:"


def test_the_adaptive_estimator_learns_from_one_question_to_the_next() -> None:
    method: Any = get_method("tale-adaptive").under(Conditions())
    assert isinstance(method.estimator, AdaptiveEstimator)
    model = ScriptedModel(
        estimate="[[40]]", reason="three and four together are seven, so the answer is 7, no more"
    )
    before = method.settings()
    for number in range(3):
        run(method.answer(f"How much is 3 + {number}?"), model)
    assert method.estimator.status.answers == 3
    assert method.settings() == before  # what it learns is no setting: a run that goes on finds its results


def test_two_runs_do_not_share_what_the_adaptive_estimator_learned() -> None:
    one, other = (get_method("tale-adaptive").under(Conditions()) for _ in range(2))
    assert one.estimator is not other.estimator  # type: ignore[attr-defined]


def test_self_budgeting_makes_one_call_and_reports_what_departed_from_the_stated_budget() -> None:
    method = get_method("self-budget").under(Conditions())
    model = ScriptedModel("Budget: 4 tokens. " + "then it went on and on " * 5 + "to 7")
    said = run(method.answer(QUESTION), model)
    assert 'First write "Budget: N tokens"' in asked(model.calls[0])
    assert [event.kind for event in said.events] == ["overrun"]


def test_concise_says_be_concise_in_the_system_message_and_leaves_the_question_as_it_is() -> None:
    call = only_call("concise")
    assert "Think step-by-step through the problem" in system(call)
    assert system(call).endswith("Be concise.")
    assert asked(call) == QUESTION


def test_chain_of_draft_is_the_same_prompt_with_and_without_its_examples() -> None:
    bare, shown = only_call("draft"), only_call("draft-examples")
    assert "minimum draft for each thinking step, with 5 words at most" in system(bare)
    assert system(bare) == system(shown)
    assert [len(call.messages) for call in (bare, shown)] == [2, 2 + 16]
    assert all("####" in message.content for message in shown.messages if message.role == "assistant")


@pytest.mark.parametrize("name", ["draft-examples", "sketch-symbolism", "sketch-chaining", "sketch-lexicons"])
def test_published_examples_are_turns_of_a_conversation(name: str) -> None:
    roles = [message.role for message in only_call(name).messages]
    assert roles[0] == "system"
    assert roles[1:] == ["user", "assistant"] * ((len(roles) - 2) // 2) + ["user"]


@pytest.mark.parametrize("name", ["sketch-symbolism", "sketch-chaining", "sketch-lexicons"])
def test_a_sketch_boxes_its_answers(name: str) -> None:
    call = only_call(name)
    shown = [message.content for message in call.messages if message.role == "assistant"]
    assert len(shown) == 3
    assert all("\\boxed{" in text for text in (*shown, system(call)))
    assert not any("<think>" in message.content for message in call.messages)


@pytest.mark.parametrize("level", ["none", "low", "medium", "high"])
def test_an_effort_level_is_set_beside_the_plain_question(level: str) -> None:
    call = only_call(f"effort-{level}")
    assert asked(call) == QUESTION
    assert call.setting is not None
    assert (call.setting.control, call.setting.value, call.setting.temperature) == ("effort", level, False)


def test_self_consistency_asks_vanilla_in_its_very_words_and_then_draws_at_a_temperature() -> None:
    first, *drawn = calls_of("self-consistency", Conditions())
    vanilla = only_call("vanilla")
    assert first.role == "reference"
    assert first.model_copy(update={"role": "reason"}) == vanilla
    assert [call.sample for call in drawn] == [1, 2, 3]  # two words each, for the seven of vanilla's answer
    assert {call.temperature for call in drawn} == {0.7}
    assert {call.role for call in drawn} == {"reason"}
    assert "only the essential calculations, and end" in asked(drawn[0])


def test_self_consistency_asks_in_the_calibrations_way() -> None:
    _, *drawn = calls_of("self-consistency", Conditions(calibration=PROFILE))
    assert {call.budget for call in drawn} == {120}
    assert "less than 120 tokens" in asked(drawn[0])


def test_an_estimate_is_asked_for_once_and_counts_as_spent() -> None:
    estimated = Calibration(model="m", strategy="words")
    model = ScriptedModel(
        "eight words that stand for vanilla's long answer", estimate="about three: [[40]]", reason="so 7"
    )
    run(SelfConsistency(calibration=estimated).answer(QUESTION), model)
    assert [call.role for call in model.calls] == ["reference", "estimate", "reason", "reason"]


def test_vanillas_answer_is_asked_for_once_in_a_results_file_and_counts_for_vanilla_alone() -> None:
    store, model = Store(":memory:"), ScriptedModel(reason=lambda _: "one two three four so it is 7")
    question = Question.of(QUESTION, "7")
    sampling = Sampling(temperature=0.1, max_tokens=500)
    found = []
    for method in (Vanilla(), SelfConsistency(most=2)):
        flow = attempt(method, question, numeric(question), sampling=sampling)
        found.append(run(store.remember(flow, model="m"), model))
    assert [call.role for call in model.calls] == ["reason", "reason"]
    assert [call.sample for call in model.calls] == [0, 1]
    assert [len(one.calls) for one in found] == [1, 1]


@settings(max_examples=60, deadline=None)
@given(
    baseline=st.integers(min_value=1, max_value=300),
    lengths=st.lists(st.integers(min_value=1, max_value=80), min_size=1, max_size=8),
)
def test_equal_spend_exceeds_vanillas_by_less_than_one_answer(baseline: int, lengths: list[int]) -> None:
    costs = itertools.cycle(lengths)
    drawn: list[int] = []

    def answer(call: ModelCall) -> ModelReply:
        tokens = baseline if call.role == "reference" else next(costs)
        if call.role != "reference":
            drawn.append(tokens)
        return ModelReply(text="7", usage=Usage(output_tokens=tokens))

    run(SelfConsistency().answer(QUESTION), answer)
    assert 1 <= len(drawn) <= 40
    assert sum(drawn[:-1]) <= baseline or len(drawn) == 1
    expected = sum(drawn) / len(drawn)
    assert sum(drawn) + expected > baseline or len(drawn) == 40  # and nothing that would fit is left


def test_a_reply_without_usage_is_counted_by_a_tokenizer() -> None:
    model = ScriptedModel(
        ModelReply(text="a long answer " * 20), reason=ModelReply(text="seven it is, so the answer is 7")
    )
    run(SelfConsistency().answer(QUESTION), model)
    assert 2 < len(model.calls) < 20


@pytest.mark.parametrize(
    ("texts", "question", "winner"),
    [
        (["so 7", "Answer: 8", "it is 7.0"], QUESTION, "so 7"),
        (["6", "\\boxed{8} eggs", "8", "7"], QUESTION, "\\boxed{8} eggs"),
        (["6", "7"], QUESTION, "6"),
        (["7", "6", "6", "7"], QUESTION, "7"),
        (["no idea", "hm", "7"], QUESTION, "7"),
        (["no idea", "hm"], QUESTION, "no idea"),
        (["1,200", "1200", "12"], QUESTION, "1,200"),
        (["Answer: Paris", "Answer: Rome", "answer: paris."], "Capital of France?", "Answer: Paris"),
        (["2 of 3: (B)", "5 of 9, so (B)", "(A)"], "Which?\nA) one\nB) two", "2 of 3: (B)"),
    ],
)
def test_most_votes_win_and_the_first_of_equals(texts: list[str], question: str, winner: str) -> None:
    assert elected(texts, question) == winner


def test_the_ten_lines_of_the_docstring_make_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_methods", dict(registry._methods))
    register_method(Telegram)
    assert only_call("telegram").messages[-1].content.endswith("\n\nAnswer in the style of a telegram.")
    with pytest.raises(InvalidValueError, match="a method named 'telegram' exists"):
        register_method(Telegram)


def test_a_method_of_ones_own_is_found_by_its_import_path() -> None:
    assert get_method(f"{__name__}:Telegram") is Telegram
    assert only_call(f"{__name__}:Telegram").messages[-1].content.startswith(QUESTION)


@pytest.mark.parametrize("name", [*method_names(), "tale:words", "tale:exemplars@120"])
def test_a_method_works_alike_in_another_process(name: str) -> None:
    method = get_method(name).under(EVERYTHING)
    sent = pickle.loads(pickle.dumps(method))  # noqa: S301  # our own
    assert (sent.label, sent.settings()) == (method.label, method.settings())
    model = ScriptedModel("seven words that stand for vanilla's answer", estimate="[[40]]", reason="so 7")
    run(sent.answer(QUESTION), model)
    assert model.calls == calls_of(name)


def setup(method: Method) -> str:
    return setup_of(method, Sampling(), model="m", grader="auto")


def test_what_decides_a_methods_calls_is_part_of_its_key() -> None:
    other = Calibration(model="m", strategy="exemplars", budget=100)
    methods = [
        *(get_method(name).under(EVERYTHING) for name in method_names()),
        *(get_method(name).under(EVERYTHING) for name in ("tale:words", "tale:words@80", "tale:words@90")),
        get_method("tale-calibration").under(Conditions(calibration=other)),
        get_method("tale-fitted").under(Conditions(estimator=FixedEstimator(77))),
        get_method("tale-fitted").under(Conditions(estimator=FITTED)),
        get_method("self-consistency").under(Conditions()),
        SelfConsistency(temperature=0.5),
        SelfConsistency(most=3),
        Concise(after="Really."),
    ]
    keys = [setup(method) for method in methods]
    assert len(set(keys)) == len(keys)
    assert keys[: len(method_names())] == [setup(get_method(name).under(EVERYTHING)) for name in method_names()]


def test_what_a_calibration_says_of_its_own_making_is_no_part_of_the_key() -> None:
    dated = PROFILE.model_copy(update={"date": "2026-01-01", "chosen_on": "elsewhere"})
    one, other = (
        get_method("tale-calibration").under(Conditions(calibration=found)) for found in (PROFILE, dated)
    )
    assert setup(one) == setup(other)


def test_the_wording_of_a_method_can_be_changed_where_it_is_made() -> None:
    model = ScriptedModel("7")
    run(Concise(system="Be brief.", after="In one line.").answer(QUESTION), model)
    assert system(model.calls[0]) == "Be brief."
    assert asked(model.calls[0]) == f"{QUESTION}\n\nIn one line."


def test_zero_shot_is_named_as_a_call_to_pay_for() -> None:
    assert get_method("tale").under(Conditions()).most_calls == 2
    assert get_method("tale:words@80").under(Conditions()).most_calls == 1
    assert get_method("tale-fitted").under(EVERYTHING).most_calls == 1
    zero_shot = Conditions(estimator=ZeroShotEstimator())
    assert get_method("tale-fitted").under(zero_shot).most_calls == 2


def test_all_methods_in_one_run_are_kept_and_a_second_run_asks_for_nothing() -> None:
    questions = tuple(Question.of(f"How much is 3 + {number}?", str(3 + number)) for number in range(3))
    methods = [get_method(name).under(EVERYTHING) for name in (*method_names(), "tale:words@80")]
    made: list[ModelCall] = []

    def answer(call: ModelCall) -> ModelReply:
        made.append(call)
        right = next(str(3 + number) for number in range(3) if f"3 + {number}?" in asked(call))
        return ModelReply(text=f"[[{40 if call.role == 'estimate' else right}]]", usage=Usage(output_tokens=9))

    store = Store(":memory:")
    jobs = bench_jobs(Dataset(source="sums", questions=questions), methods, model="m")
    first = list(run_jobs(jobs, store, answer, model="m", concurrency=1))
    calls = len(made)
    second = list(run_jobs(jobs, store, answer, model="m"))
    assert [done.error for done in first] == [None] * len(jobs)
    assert all(done.known for done in second)
    assert len(made) == calls
    assert {done.result.correct for done in first if done.result} == {True}
    once = {call.model_dump_json(exclude={"role", "framing"}) for call in made}
    assert len(once) == calls  # vanilla's answers among them, which self-consistency shares
