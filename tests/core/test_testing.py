"""The fake model that ships with the package."""

from __future__ import annotations

import threading

import pytest

from tale_core import InvalidValueError, Message, ModelCall, ModelReply, TaleMethod, Usage, arun, run
from tale_core.testing import ScriptedModel, word_usage


def asking(role: str = "reason", text: str = "How much is 3 + 4?") -> ModelCall:
    return ModelCall(role=role, messages=(Message(role="user", content=text),))


def test_a_script_is_answered_line_by_line_and_remembers_its_calls() -> None:
    model = ScriptedModel("one", "two words")
    assert [model(asking()).text, model(asking("estimate")).text] == ["one", "two words"]
    assert [call.role for call in model.calls] == ["reason", "estimate"]


def test_texts_cost_as_many_tokens_as_they_have_words() -> None:
    reply = ScriptedModel("two words")(asking(text="four words of prompt"))
    assert reply.usage == Usage(input_tokens=4, output_tokens=2)
    assert (reply.finish_reason, reply.model) == ("stop", "scripted")
    assert word_usage("a b c", "d") == Usage(input_tokens=3, output_tokens=1)


def test_a_whole_reply_is_answered_as_it_is_and_an_exception_is_raised() -> None:
    reply, error = ModelReply(text="cut", finish_reason="length"), TimeoutError("slow")
    model = ScriptedModel(reply, error)
    assert model(asking()) is reply
    with pytest.raises(TimeoutError) as caught:
        model(asking())
    assert caught.value is error


def test_a_role_with_an_answer_of_its_own_does_not_use_up_the_script() -> None:
    model = ScriptedModel("one", estimate="[[40]]")
    assert [model(asking("estimate")).text for _ in range(3)] == ["[[40]]"] * 3
    assert model(asking()).text == "one"


def test_an_answer_may_depend_on_the_call() -> None:
    model = ScriptedModel(reason=lambda call: call.messages[0].content.upper())
    assert model(asking(text="yes")).text == "YES"


def test_a_script_that_has_ended_fails_with_the_call_it_has_no_line_for() -> None:
    model = ScriptedModel("one")
    model(asking())
    with pytest.raises(AssertionError, match=r"the script has no line for call 2 \(estimate\)"):
        model(asking("estimate"))


def test_a_model_without_any_answer_is_refused() -> None:
    with pytest.raises(
        InvalidValueError, match="give a script, or an answer for estimate= or reason=; got nothing"
    ):
        ScriptedModel()


def test_an_empty_answer_is_an_answer() -> None:
    assert ScriptedModel("")(asking()).text == ""
    assert ScriptedModel(reason="")(asking()).text == ""


async def test_both_drivers_can_use_it() -> None:
    sync, later = ScriptedModel("[[40]]", "seven"), ScriptedModel("[[40]]", "seven")
    answer = run(TaleMethod().begin("How much is 3 + 4?").answer(), sync)
    assert await arun(TaleMethod().begin("How much is 3 + 4?").answer(), later.acall) == answer
    assert sync.calls == later.calls


def test_each_line_is_given_out_once_between_threads() -> None:
    model = ScriptedModel(*[str(number) for number in range(400)])
    texts: list[str] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        texts.extend(model(asking()).text for _ in range(100))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts, key=int) == [str(number) for number in range(400)]
    assert len(model.calls) == 400
