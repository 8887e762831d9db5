"""Retrieved documents are fitted into a context budget by what bears on the question."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from tale_core import InvalidValueError
from tale_langchain import ChatTALE, TALEDocumentCompressor

QUESTION = "When was Ann born?"
DOCUMENTS = [
    Document("Bob sails on lakes. Bob is often tired.", metadata={"source": "bob"}, id="1"),
    Document(
        "Ann was born in 1990. She likes tea and old maps of the sea.", metadata={"source": "ann"}, id="2"
    ),
    Document("Ann has a boat.", metadata={"source": "boat"}, id="3"),
]


def words(text: str) -> int:
    return len(text.split())


def compressor(budget: int, **more: Any) -> TALEDocumentCompressor:
    return TALEDocumentCompressor(budget, count=words, **more)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_what_bears_on_the_question_stays_in_order(asynchronous: bool) -> None:
    fitting = compressor(18)
    kept = (
        await fitting.acompress_documents(DOCUMENTS, QUESTION)
        if asynchronous
        else fitting.compress_documents(DOCUMENTS, QUESTION)
    )
    assert [one.id for one in kept] == ["2", "3"]
    assert kept == DOCUMENTS[1:]


def test_a_document_that_is_cut_keeps_whole_sentences_its_id_and_its_metadata() -> None:
    (only,) = compressor(6).compress_documents(DOCUMENTS, QUESTION)
    assert only == Document("Ann was born in 1990.", metadata={"source": "ann"}, id="2")


def test_the_documents_given_stay_as_they_are() -> None:
    before = copy.deepcopy(DOCUMENTS)
    compressor(6).compress_documents(DOCUMENTS, QUESTION)
    assert before == DOCUMENTS


def test_all_stay_where_all_fit() -> None:
    assert compressor(100).compress_documents(DOCUMENTS, QUESTION) == DOCUMENTS
    assert compressor(1).compress_documents([], QUESTION) == []


def test_the_budget_is_kept_whatever_it_is() -> None:
    for budget in range(1, 30):
        kept = compressor(budget).compress_documents(DOCUMENTS, QUESTION)
        assert sum(words(one.page_content) for one in kept) <= budget


def test_another_scorer_may_decide() -> None:
    kept = compressor(8, scorer=lambda _, texts: [text.count("Bob") for text in texts]).compress_documents(
        DOCUMENTS, QUESTION
    )
    assert [one.metadata["source"] for one in kept] == ["bob"]


def test_it_stands_between_a_retriever_and_a_budgeted_model() -> None:
    chat = ChatTALE(FakeListChatModel(responses=["[[40]]", "In 1990."]))
    fitting = compressor(6)
    context = RunnableLambda(lambda question: fitting.compress_documents(DOCUMENTS, question))
    prompt = ChatPromptTemplate.from_template("{context}\n\n{question}")
    chain = {"context": context, "question": RunnablePassthrough()} | prompt | chat
    assert chain.invoke(QUESTION).text == "In 1990."


@pytest.mark.parametrize("budget", [0, -3, "many"])
def test_what_is_no_budget_fails_at_once(budget: Any) -> None:
    with pytest.raises(InvalidValueError, match=f"TALEDocumentCompressor.budget: .*, got {budget!r}"):
        TALEDocumentCompressor(budget)


def test_copies_work_like_the_original() -> None:
    duplicate = copy.deepcopy(compressor(6))
    assert [one.id for one in duplicate.compress_documents(DOCUMENTS, QUESTION)] == ["2"]
