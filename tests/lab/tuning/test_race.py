"""A race finds the cheapest method that keeps the accuracy, on a bounded number of answers."""

import pickle
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tale_core import InvalidValueError, ModelReply, Usage
from tale_core.prompts.strategies import Exemplar
from tale_core.statistics import paired_share_interval
from tale_core.testing import ScriptedModel
from tale_lab.bench.benchmark import Sampling, bench_jobs
from tale_lab.bench.report.figures import Comparison
from tale_lab.questions.datasets import Dataset, Question
from tale_lab.results.store import Store
from tale_lab.runs.runner import run_jobs
from tale_lab.tuning.calibrating import make_calibration
from tale_lab.tuning.candidates import BASELINE, Candidate, candidates_of
from tale_lab.tuning.race import RaceSettings, decide, questions_needed, run_race, survivors

CANDIDATES = (
    Candidate(strategy="tale"),
    Candidate(strategy="tale", budget=50),
    Candidate(strategy="essential", budget=50),
    Candidate(strategy="essential", budget=200),
    Candidate(strategy="words", budget=50),
)


def questions(count):
    asked = (Question.of(f"How much is {number} + 1?", str(number + 1)) for number in range(count))
    return Dataset(source="t", questions=tuple(asked))


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


def drive(dataset, answering, *, store=None, margin=0.3, **settings):
    store = store or Store(":memory:")

    def ask(jobs):
        ended = run_jobs(jobs, store, answering, model="m", concurrency=2)
        return [done.result for done in ended if done.result is not None]

    return run_race(dataset, RaceSettings(margin=margin, **settings), ask, model="m", grader="numeric")


def test_the_cheapest_candidate_that_keeps_the_accuracy_is_chosen():
    def behaviour(prompt, number):
        if "use less than 50 tokens" in prompt:
            return number % 2 == 0, 6  # collapses: cheap, and often wrong
        if "essential" in prompt and "at most 50" in prompt:
            return True, 60
        return True, 200

    result = drive(questions(40), model(behaviour), candidates=CANDIDATES)

    assert result.chosen == Candidate(strategy="essential", budget=50)
    finalist = next(one.row() for one in result.standings if one.candidate == result.chosen)
    assert (finalist["questions"], finalist["net_tokens"], finalist["baseline_tokens"]) == (40, 60, 200)
    assert finalist["token_ratio"] == pytest.approx(0.3)


def test_the_estimator_counts_towards_what_a_candidate_spends():
    result = drive(
        questions(8),
        model(lambda prompt, _: (True, 100 if "less than" in prompt else 200)),
        candidates=(Candidate(strategy="tale"), Candidate(strategy="tale", budget=50)),
    )
    spent = {one.candidate.label: one.net_tokens for one in result.standings}
    assert spent == {"tale": 105, "tale @50": 100}
    assert result.chosen.label == "tale @50"


def test_vanilla_is_chosen_when_nothing_beats_it():
    result = drive(
        questions(16),
        model(lambda prompt, _: (True, 300 if "less than" in prompt or "at most" in prompt else 100)),
        candidates=CANDIDATES,
    )
    assert result.chosen == BASELINE


def test_vanilla_is_chosen_when_every_saving_costs_accuracy():
    result = drive(
        questions(200),
        model(
            lambda prompt, number: (
                "step by step:" in prompt or number % 3 > 0,
                200 if "step by step:" in prompt else len(prompt),
            )
        ),
        candidates=CANDIDATES,
        margin=0.1,
    )
    assert result.chosen == BASELINE
    assert not result.undecided, "they are shown to be worse"


def test_nothing_is_chosen_that_the_questions_cannot_show():
    result = drive(
        questions(40),
        model(lambda prompt, _: (True, 200 if "step by step:" in prompt else 100)),
        candidates=CANDIDATES,
        margin=0.03,
    )
    assert result.chosen == BASELINE
    assert len(result.undecided) == 2
    for one in result.undecided.values():
        assert one.questions == 24, "the 16 that picked the finalists do not count"


def compared(gained, lost, count, saved=0.5):
    return Comparison(
        baseline="vanilla",
        questions=count,
        gained=gained,
        lost=lost,
        p=1,
        accuracy_change=(gained - lost) / count,
        accuracy_interval=paired_share_interval(gained, lost, count),
        saved_answer=saved,
        saved=saved,
        saved_interval=None,
        input_ratio=1,
        estimated=False,
    )


def share_of_races(losses, count, *, repeats=60, noise=0.05):
    """Race candidates that lose known shares, the cheapest first; return the shares (outside, within, none)."""
    rng = random.Random(count)  # noqa: S311
    names = [str(number) for number in range(len(losses))]
    field = tuple(Candidate(strategy="tale", budget=number + 1) for number in range(len(losses)))
    rounds = RaceSettings(candidates=field).rounds(count)
    ended = Counter()
    for _ in range(repeats):
        changes = {
            name: rng.choices((1, -1, 0), (noise, noise + loss, 1 - 2 * noise - loss), k=count)
            for name, loss in zip(names, losses, strict=True)
        }

        def compare(labels, asked, judged, stop, changes=changes):
            return {
                one: compared(
                    changes[one][judged:stop].count(1),
                    changes[one][judged:stop].count(-1),
                    stop - judged,
                    saved=0.8 - 0.03 * int(one),
                )
                for one in labels
            }

        chosen = decide(names, rounds, compare, 0.03).chosen
        ended["none" if chosen is None else losses[int(chosen)] <= 0.03] += 1
    return tuple(ended[name] / repeats for name in (False, True, "none"))


CHEAP_LOSES = [0.15] * 12 + [0.0] * 12


@pytest.mark.parametrize("count", [60, 300])
@pytest.mark.parametrize("losses", [[0.08] * 24, [0.2] * 12 + [0.0] * 12, CHEAP_LOSES], ids=str)
def test_a_candidate_outside_the_margin_is_hardly_ever_chosen(losses, count):
    outside, _, _ = share_of_races(losses, count)
    assert outside <= 0.05


def test_enough_questions_find_a_lossless_candidate_among_cheaper_ones_that_lose():
    found = [share_of_races(CHEAP_LOSES, count)[1] for count in (60, 300, 1000)]
    assert found == sorted(found)
    assert found[-1] >= 0.75


def test_the_safest_stays_beside_the_cheapest_and_who_saves_nothing_goes():
    field = {
        "cheapest, worse": compared(0, 12, 20, saved=0.9),
        "cheap": compared(1, 2, 20, saved=0.8),
        "safe": compared(1, 0, 20, saved=0.3),
        "middling": compared(0, 1, 20, saved=0.5),
        "dear": compared(3, 0, 20, saved=-0.1),
    }
    assert survivors(field, 0.03, keep=2) == ["cheap", "safe"]
    assert survivors(field, 0.03, keep=3) == ["cheap", "safe", "middling"]


def test_the_questions_needed_follow_from_the_discordance_that_was_seen():
    assert questions_needed(compared(5, 5, 100), 0.03) == 1026
    assert questions_needed(compared(50, 50, 1000), 0.03) == 888


def test_a_failed_answer_costs_its_own_pair_only():
    lost = "How much is 3 + 1?"
    result = drive(
        questions(8),
        model(
            lambda prompt, _: (True, 50 if "less than" in prompt else 100),
            fails=lambda prompt: lost in prompt and "less than" in prompt,
        ),
        candidates=CANDIDATES[1:3],
    )
    assert {one.candidate.label: one.comparison.questions for one in result.standings} == {
        "tale @50": 7,
        "essential @50": 8,
    }


def test_a_baseline_without_an_answer_ends_the_race():
    with pytest.raises(InvalidValueError, match="vanilla chain of thought has no answer"):
        drive(
            questions(8),
            model(lambda *_: (True, 1), fails=lambda prompt: "step by step:" in prompt),
            candidates=CANDIDATES[1:2],
        )


@given(st.integers(1, 30), st.integers(1, 200), st.integers(1, 20))
def test_the_rounds_keep_to_the_bound_and_end_with_every_question(field, count, first):
    settings = RaceSettings(
        candidates=tuple(Candidate(strategy="tale", budget=number + 1) for number in range(field)), first=first
    )
    rounds = settings.rounds(count)
    assert rounds[-1][1] == count
    assert [answered for _, answered in rounds] == sorted(answered for _, answered in rounds)
    assert settings.most_answers(count) <= count * (field + 1)


@pytest.mark.parametrize(
    ("candidates", "calls"), [(CANDIDATES[1:], 76), ((Candidate(strategy="tale", retry=True),), 80)]
)
def test_the_announced_bound_is_what_a_race_asks_for_at_most(candidates, calls):
    settings = RaceSettings(candidates=candidates)
    answering = model(lambda prompt, _: (True, 100))
    drive(questions(20), answering, candidates=candidates)
    assert settings.most_calls(20) == calls
    retries = 20 * any(one.retry for one in candidates)
    assert len(answering.calls) == calls - retries


def test_a_race_that_was_stopped_goes_on_and_repeats_no_answer():
    store, answering = Store(":memory:"), model(lambda prompt, _: (True, len(prompt)))
    first = drive(questions(12), answering, store=store, candidates=CANDIDATES)
    asked = len(answering.calls)
    again = drive(questions(12), answering, store=store, candidates=CANDIDATES)
    assert len(answering.calls) == asked
    assert [one.row() for one in again.standings] == [one.row() for one in first.standings]


def test_a_race_can_be_run_by_workers():
    exemplars = {40: (Exemplar(question="2 + 2?", solution="4"),)}
    shown = Candidate(strategy="exemplars", budget=40, exemplars=exemplars, retry=True)
    (job,) = bench_jobs(questions(1), [shown], model="m", grader="numeric")
    flow = pickle.loads(pickle.dumps(job.flow))()  # noqa: S301
    assert next(flow) == next(job.flow())
    assert "2 + 2?" in next(job.flow()).messages[0].content


def test_pairs_are_answers_to_the_same_question():
    result = drive(questions(9), model(lambda *_: (True, 10)), candidates=CANDIDATES[1:2])
    (standing,) = result.standings
    assert len(standing.answers) == 9
    for one, other in zip(standing.answers, standing.baseline, strict=True):
        assert (one.question_id, other.method) == (other.question_id, "vanilla")


def test_questions_and_candidates_must_be_distinct_and_present():
    with pytest.raises(InvalidValueError, match="got none"):
        drive(questions(0), model(lambda *_: (True, 10)))
    with pytest.raises(InvalidValueError, match="named twice: tale @50"):
        RaceSettings(candidates=(CANDIDATES[1], CANDIDATES[1]))


def test_the_default_field_has_every_strategy_and_one_zero_shot_estimate():
    strategies = {candidate.strategy for candidate in candidates_of()}
    assert strategies == {"tale", "essential", "words", "steps", "exemplars", "draft", "self-budget"}
    estimated = [one.label for one in candidates_of() if one.budget is None]
    assert estimated == ["draft", "self-budget", "tale", "tale x2"]


def test_a_fitted_estimator_races_with_every_strategy_and_multiplier():
    field = candidates_of(["tale", "draft"], budgets=[50], multipliers=[1, 2], estimators=["b.skops"])
    assert [one.label for one in field] == [
        "tale @50",
        "tale",
        "tale x2",
        "tale fitted by b.skops",
        "tale fitted by b.skops x2",
        "draft",
    ]


def test_a_race_asks_for_every_answer_under_its_own_sampling():
    asked = []

    def call(model_call):
        if model_call.role == "reason":
            asked.append((model_call.temperature, model_call.max_tokens))
        return ModelReply(text="7")

    drive(questions(2), call, candidates=CANDIDATES[:1], sampling=Sampling(temperature=0.5, max_tokens=77))
    assert asked
    assert set(asked) == {(0.5, 77)}


def test_a_retry_costs_what_it_takes_and_counts_as_the_answer():
    def reason(call):
        number = int(call.messages[-1].content.split("is ")[1].split(" +")[0])
        if "Note that" in call.messages[-1].content:
            return ModelReply(text=str(number + 1), usage=Usage(output_tokens=30), finish_reason="stop")
        tokens = 50 if call.budget else 200
        error = f"{number} + 1 = {number + 2}" if call.budget else str(number + 1)
        return ModelReply(text=error, usage=Usage(output_tokens=tokens), finish_reason="stop")

    once = Candidate(strategy="tale", budget=50)
    twice = once.model_copy(update={"retry": True})

    result = drive(questions(8), ScriptedModel(reason=reason), candidates=(once, twice))

    assert result.chosen == twice
    rows = [one.row() for one in result.standings]
    assert [(one["candidate"], one["correct"], one["net_tokens"]) for one in rows] == [
        ("tale @50", 0, 50),
        ("tale @50, retry", 8, 80),
    ]


@pytest.mark.parametrize(
    "chosen",
    [
        Candidate(strategy="tale", multiplier=2),
        Candidate(strategy="words", budget=20, retry=True),
        Candidate(strategy="self-budget"),
    ],
)
def test_the_written_calibration_asks_exactly_as_the_race_did(chosen):
    dataset = questions(4)
    result = drive(
        dataset,
        model(lambda prompt, _: (True, 200 if "step by step:" in prompt else 100)),
        candidates=(chosen, chosen.model_copy(update={"strategy": "draft", "budget": None})),
    )
    calibration = make_calibration(result, dataset, model="m")
    raced, written = result.chosen.asking, result.chosen.calibration("m")
    assert (calibration.policy, calibration.strategy, calibration.budget) == (
        raced.policy,
        written.strategy,
        written.budget,
    )
    assert calibration.model_copy(update={"curve": (), "chosen_on": "", "date": "", "version": ""}) == written
