"""A race finds the cheapest way of asking that keeps the accuracy, on a bounded number of answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale_core import InvalidValueError, ModelReply, Usage
from tale_core.testing import ScriptedModel
from tale_lab.tuning.candidates import BASELINE, Candidate, candidates_of, default_candidates
from tale_lab.tuning.race import GradedQuestion, Race, RaceSettings, race, run_race

CANDIDATES = (
    Candidate(strategy="tale"),
    Candidate(strategy="tale", budget=50),
    Candidate(strategy="essential", budget=50),
    Candidate(strategy="essential", budget=200),
    Candidate(strategy="words", budget=50),
)


def questions(count):
    return [
        GradedQuestion(
            id=str(number),
            text=f"How much is {number} + 1?",
            grade=lambda text, n=number: text == str(n + 1),
        )
        for number in range(count)
    ]


def model(behaviour, *, fails=lambda _: False):
    """Answer with ``behaviour(prompt) -> (right, tokens)``; estimates cost 5 tokens."""

    def reason(call):
        prompt = call.messages[-1].content
        number = int(prompt.split("is ")[1].split(" +")[0])
        if fails(prompt):
            return ConnectionError("lost")
        right, tokens = behaviour(prompt, number)
        return ModelReply(
            text=str(number + 1) if right else "no idea",
            usage=Usage(input_tokens=1, output_tokens=tokens),
            finish_reason="stop",
        )

    estimate = ModelReply(text="[[50]]", usage=Usage(input_tokens=1, output_tokens=5))
    return ScriptedModel(estimate=estimate, reason=reason)


def drive(rounds, answering) -> Race:
    return run_race(rounds, answering, concurrency=2)


def test_the_cheapest_candidate_that_keeps_the_accuracy_is_chosen():
    def behaviour(prompt, number):
        if "use less than 50 tokens" in prompt:
            return number % 2 == 0, 6  # collapses: cheap, and often wrong
        if "essential" in prompt and "at most 50" in prompt:
            return True, 60
        return True, 200

    result = drive(race(questions(40), RaceSettings(candidates=CANDIDATES)), model(behaviour))

    assert result.chosen == Candidate(strategy="essential", budget=50)
    finalist = result.standings[0]
    assert (finalist.questions, finalist.net_tokens, finalist.baseline_tokens) == (40, 60, 200)
    assert finalist.token_ratio == pytest.approx(0.3)


def test_the_estimator_counts_towards_what_a_candidate_spends():
    result = drive(
        race(
            questions(8),
            RaceSettings(candidates=(Candidate(strategy="tale"), Candidate(strategy="tale", budget=50))),
        ),
        model(lambda prompt, _: (True, 100 if "less than" in prompt else 200)),
    )
    spent = {one.candidate.label: one.net_tokens for one in result.standings}
    assert spent == {"tale": 105, "tale @50": 100}
    assert result.chosen.label == "tale @50"


def test_vanilla_is_chosen_when_nothing_beats_it():
    result = drive(
        race(questions(16), RaceSettings(candidates=CANDIDATES)),
        model(lambda prompt, _: (True, 300 if "less than" in prompt or "at most" in prompt else 100)),
    )
    assert result.chosen == BASELINE


def test_vanilla_is_chosen_when_every_saving_costs_accuracy():
    result = drive(
        race(questions(16), RaceSettings(candidates=CANDIDATES, margin=0.05)),
        model(lambda prompt, number: ("step by step:" in prompt or number % 3 > 0, 10 + len(prompt))),
    )
    assert result.chosen == BASELINE


def test_a_failed_answer_costs_its_own_pair_only():
    lost = "How much is 3 + 1?"
    result = drive(
        race(questions(8), RaceSettings(candidates=CANDIDATES[1:3])),
        model(
            lambda prompt, _: (True, 50 if "less than" in prompt else 100),
            fails=lambda prompt: lost in prompt and "less than" in prompt,
        ),
    )
    assert (result.failures, result.first_failure) == (1, "ConnectionError: lost")
    assert {one.candidate.label: one.questions for one in result.standings} == {
        "tale @50": 7,
        "essential @50": 8,
    }


def test_a_model_that_answers_nothing_ends_the_race_with_its_own_error():
    with pytest.raises(ConnectionError, match="lost"):
        drive(race(questions(8), RaceSettings()), model(lambda *_: (True, 1), fails=lambda _: True))


@given(st.integers(1, 30), st.integers(1, 200), st.integers(1, 20))
def test_the_rounds_keep_to_the_bound_and_end_with_every_question(field, count, first):
    settings = RaceSettings(
        candidates=tuple(Candidate(strategy="tale", budget=number + 1) for number in range(field)), first=first
    )
    rounds = settings.rounds(count)
    assert rounds[-1][1] == count
    assert [answered for _, answered in rounds] == sorted(answered for _, answered in rounds)
    assert settings.most_answers(count) <= count * (field + 1)


def test_the_announced_bound_is_what_a_race_asks_for():
    settings = RaceSettings(candidates=CANDIDATES[1:])
    answering = model(lambda prompt, _: (True, 100))
    drive(race(questions(20), settings), answering)
    assert len(answering.calls) == settings.most_answers(20)


def test_pairs_are_answers_to_the_same_question():
    result = drive(race(questions(9), RaceSettings(candidates=CANDIDATES[1:2])), model(lambda *_: (True, 10)))
    pairs = result.pairs(CANDIDATES[1])
    assert len(pairs) == 9
    assert all(one.question_id == other.question_id for one, other in pairs)


def test_questions_and_candidates_must_be_distinct_and_present():
    twice = [*questions(2), *questions(1)]
    with pytest.raises(InvalidValueError, match="same id"):
        race(twice, RaceSettings())
    with pytest.raises(InvalidValueError, match="got none"):
        race([], RaceSettings())
    with pytest.raises(InvalidValueError, match="named twice: tale @50"):
        RaceSettings(candidates=(CANDIDATES[1], CANDIDATES[1]))


def test_the_default_field_has_every_control():
    strategies = {candidate.strategy for candidate in default_candidates()}
    assert strategies == {"tale", "essential", "words", "steps", "exemplars", "draft", "self-budget"}


def test_a_fitted_estimator_races_with_every_strategy_and_multiplier():
    field = candidates_of(
        ["tale", "draft"], budgets=[50], multipliers=[1, 2], estimators=["b.skops"], zero_shot=[]
    )
    assert [one.label for one in field] == [
        "tale @50",
        "tale fitted by b.skops",
        "tale fitted by b.skops x2",
        "draft",
    ]


def test_a_race_asks_for_every_answer_at_its_own_temperature():
    asked = []

    def call(model_call):
        if model_call.role == "reason":
            asked.append(model_call.temperature)
        return ModelReply(text="7")

    run_race(race(questions(2), RaceSettings(candidates=CANDIDATES[:1], temperature=0.5)), call)
    assert asked
    assert set(asked) == {0.5}


def test_a_second_try_costs_what_it_takes_and_counts_as_the_answer():
    def reason(call):
        number = int(call.messages[-1].content.split("is ")[1].split(" +")[0])
        if "Note that" in call.messages[-1].content:
            return ModelReply(text=str(number + 1), usage=Usage(output_tokens=30), finish_reason="stop")
        tokens = 50 if call.budget else 200
        slip = f"{number} + 1 = {number + 2}" if call.budget else str(number + 1)
        return ModelReply(text=slip, usage=Usage(output_tokens=tokens), finish_reason="stop")

    once = Candidate(strategy="tale", budget=50)
    twice = once.model_copy(update={"second_try": True})
    settings = RaceSettings(candidates=(once, twice), max_tokens=77)
    slipping = ScriptedModel(reason=reason)

    result = drive(race(questions(8), settings), slipping)

    assert result.chosen == twice
    assert [(one.candidate, one.correct, one.net_tokens) for one in result.standings] == [
        (once, 0, 50),
        (twice, 8, 80),
    ]
    assert {call.max_tokens for call in slipping.calls} == {77}
    assert (once.label, twice.label) == ("tale @50", "tale @50, second try")
    assert (once.policy().on_slip, twice.policy().on_slip) == ("record", "retry")
