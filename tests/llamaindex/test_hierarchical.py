"""The hierarchical synthesizer: what is surveyed, what is read in full, and who pays for it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms import MockLLM
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import NodeWithScore, TextNode
from scripted_llm import ScriptedLLM

from tale_core import InvalidValueError
from tale_core.testing import ScriptedModel
from tale_llamaindex import TALEEventHandler, TALEHierarchicalSynthesizer, TALEQueryEngine

QUESTION = "How old is Ann?"
PASSAGES = [
    "Ann was born in 1990, on a rainy day in spring.",
    "Bob sails every day, whatever the weather.",
    "It is 2026 now, which is a common year.",
]
NODES = [NodeWithScore(node=TextNode(text=text)) for text in PASSAGES]
SURVEY = "[1] her year of birth +\n[3] the year is 2026"  # 11 words
ANSWER = "word " * 30


def scripted(survey: str = SURVEY, **fields: Any) -> ScriptedLLM:
    return ScriptedLLM(ScriptedModel(survey, *[ANSWER] * 9, estimate="[[100]]"), **fields)


def synthesizer(llm: ScriptedLLM, mode: str = "compact", **options: Any) -> TALEHierarchicalSynthesizer:
    inner = get_response_synthesizer(
        llm=llm,
        response_mode=ResponseMode(mode),
        streaming=options.pop("streaming", False),
        multimodal=options.pop("multimodal", False),
    )
    return TALEHierarchicalSynthesizer(inner, **options)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_marked_passages_are_read_in_full_and_the_others_as_surveyed(asynchronous: bool) -> None:
    llm = scripted()
    if asynchronous:
        response = await synthesizer(llm).asynthesize(QUESTION, NODES)
    else:
        response = synthesizer(llm).synthesize(QUESTION, NODES)
    assert str(response) == ANSWER
    assert [node.node.get_content() for node in response.source_nodes] == PASSAGES
    _, survey, answer = llm.sent
    assert all(f"[{number}] {text}" in survey.text for number, text in enumerate(PASSAGES, start=1))
    assert PASSAGES[0] in answer.text
    assert "the year is 2026" in answer.text
    assert PASSAGES[2] not in answer.text
    assert "Bob" not in answer.text


def test_the_survey_has_its_share_and_the_answer_what_is_left(handler: TALEEventHandler) -> None:
    llm = scripted()
    synthesizer(llm, survey_share=0.25).synthesize(QUESTION, NODES)
    _, survey, answer = llm.sent
    assert "Use less than 25 tokens for all lines together." in survey.text
    assert "step by step" not in survey.text
    assert "use less than 89 tokens" in answer.text, "100 less the 11 words of the survey"
    assert [(call.role, call.budget) for call in handler.ledger.calls] == [
        ("estimate", None),
        ("reason", 25),
        ("reason", 89),
    ]
    assert len({call.question_id for call in handler.ledger.calls}) == 1


def test_without_a_mark_the_most_relevant_passage_is_read_in_full() -> None:
    llm = scripted("[1] her year of birth\n[3] the year")
    synthesizer(llm).synthesize(QUESTION, NODES)
    assert PASSAGES[0] in llm.sent[2].text
    assert PASSAGES[2] not in llm.sent[2].text


@pytest.mark.parametrize("survey", ["I cannot say.", "[9] nothing +", ""])
def test_an_unreadable_survey_means_everything_is_read_and_says_so(
    handler: TALEEventHandler, survey: str
) -> None:
    llm = scripted(survey)
    synthesizer(llm).synthesize(QUESTION, NODES)
    assert all(text in llm.sent[2].text for text in PASSAGES)
    details = [event.detail for event in handler.ledger.events if event.kind == "unparsable"]
    assert details == ["the survey names no passage; all are read in full"]


@pytest.mark.parametrize(
    "line", ["[1] born in 1990 +", "- [1]: born in 1990 +", "1. [1] born in 1990+", "**[1]** born in 1990 + "]
)
def test_lines_are_read_however_models_decorate_them(line: str) -> None:
    llm = scripted(line)
    synthesizer(llm).synthesize(QUESTION, NODES)
    assert PASSAGES[0] in llm.sent[2].text
    assert PASSAGES[1] not in llm.sent[2].text


def test_a_single_passage_is_not_surveyed() -> None:
    llm = scripted(ANSWER)
    synthesizer(llm).synthesize(QUESTION, NODES[:1])
    assert [sent.estimates for sent in llm.sent] == [True, False]


def test_messages_are_not_surveyed() -> None:
    llm = scripted(ANSWER)
    synthesizer(llm, multimodal=True).get_response_from_messages(
        QUESTION, [ChatMessage(text) for text in PASSAGES]
    )
    assert [sent.estimates for sent in llm.sent] == [True, False]


def test_passages_that_do_not_fit_at_once_are_surveyed_in_parts() -> None:
    llm = scripted("[1] one +", context_window=1200, max_tokens=128)
    long = [NodeWithScore(node=TextNode(text=f"Fact {number}. " + "filler " * 500)) for number in range(3)]
    synthesizer(llm).synthesize(QUESTION, long)
    surveys = [sent for sent in llm.sent if "Numbered passages" in sent.text]
    assert len(surveys) > 1
    assert all(f"less than {max(16, round(30 / len(surveys)))} tokens" in sent.text for sent in surveys)


def test_without_a_budget_the_survey_has_no_limit() -> None:
    llm = scripted()
    synthesizer(llm, strategy="vanilla").synthesize(QUESTION, NODES)
    assert [sent.estimates for sent in llm.sent] == [False, False]
    assert "less than" not in llm.sent[0].text


def test_what_is_left_is_divided_by_response_mode() -> None:
    llm = scripted()
    synthesizer(llm, "accumulate").synthesize(QUESTION, NODES)
    assert [sent.text.count("use less than 44 tokens") for sent in llm.sent[2:]] == [1, 1], "89 over two texts"


def test_the_answer_is_streamed() -> None:
    response: Any = synthesizer(scripted(), streaming=True).synthesize(QUESTION, NODES)
    assert "".join(response.response_gen) == ANSWER


def test_an_engine_answers_with_it(mock_index: Any) -> None:
    llm = scripted()
    engine = TALEQueryEngine(mock_index.as_query_engine(llm=llm, response_synthesizer=synthesizer(llm)))
    assert str(engine.query(QUESTION))
    assert [sent.estimates for sent in llm.sent].count(True) == 1


def test_the_survey_can_be_worded_anew() -> None:
    llm = scripted()
    wrapped = synthesizer(llm)
    assert "survey_template" in wrapped.get_prompts()
    wrapped.update_prompts({"survey_template": PromptTemplate("Look at {context_str} for {query_str}")})
    wrapped.synthesize(QUESTION, NODES)
    assert llm.sent[1].text.startswith("Look at [1] Ann")


def test_it_can_be_copied() -> None:
    wrapped = TALEHierarchicalSynthesizer(llm=MockLLM(), estimator=40)
    assert copy.deepcopy(wrapped).get_response(QUESTION, PASSAGES)


@pytest.mark.parametrize("share", [0, 1, -0.5, 2])
def test_a_share_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(InvalidValueError, match=f"between 0 and 1, got {share}"):
        synthesizer(scripted(), survey_share=share)
