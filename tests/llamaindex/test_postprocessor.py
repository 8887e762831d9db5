from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import pytest
from llama_index.core.schema import (
    ImageNode,
    MetadataMode,
    NodeRelationship,
    NodeWithScore,
    RelatedNodeInfo,
    TextNode,
)
from scripted_llm import ScriptedLLM

from tale_core import InvalidValueError
from tale_core.testing import ScriptedModel
from tale_llamaindex import TALENodePostprocessor

if TYPE_CHECKING:
    from llama_index.core import VectorStoreIndex

QUESTION = "When was Ann born?"
BOB = NodeWithScore(node=TextNode(text="Bob sails every day. He is tired."), score=0.9)
ANN = NodeWithScore(node=TextNode(text="Ann likes tea. Ann was born in 1990. She has two cats."), score=0.8)


def words(text: str) -> int:
    return len(text.split())


def texts(nodes: list[NodeWithScore]) -> list[str]:
    return [node.node.get_content(MetadataMode.LLM) for node in nodes]


def test_what_fits_is_passed_on_as_it_is() -> None:
    kept = TALENodePostprocessor(100).postprocess_nodes([BOB, ANN], query_str=QUESTION)
    assert [id(node) for node in kept] == [id(BOB), id(ANN)]


async def test_relevant_sentences_are_kept_and_nodes_stay_who_they_are() -> None:
    source = RelatedNodeInfo(node_id="document")
    node = TextNode(text=ANN.node.get_content(), relationships={NodeRelationship.SOURCE: source})
    postprocessor = TALENodePostprocessor(6, count=words)
    (kept,) = await postprocessor.apostprocess_nodes(
        [BOB, NodeWithScore(node=node, score=0.8)], query_str=QUESTION
    )
    assert texts([kept]) == ["Ann was born in 1990."]
    assert (kept.node_id, kept.score) == (node.node_id, 0.8)
    assert kept.node.ref_doc_id == "document"
    assert texts([NodeWithScore(node=node)]) == [ANN.node.get_content()], "the node given is not changed"


def test_the_metadata_that_the_model_reads_counts() -> None:
    node = TextNode(text="Ann was born in 1990.", metadata={"title": "word " * 50})
    kept = TALENodePostprocessor(10, count=words).postprocess_nodes(
        [NodeWithScore(node=node)], query_str=QUESTION
    )
    assert texts(kept) == ["Ann was born in 1990."]
    assert kept[0].node.metadata == node.metadata


def test_images_are_passed_on() -> None:
    image = NodeWithScore(node=ImageNode(image_url="https://example.org/ann.png"))
    assert (
        TALENodePostprocessor(5, count=words).postprocess_nodes([BOB, image, ANN], query_str=QUESTION)[0]
        is image
    )


def test_an_engine_reads_what_is_kept(index: VectorStoreIndex) -> None:
    llm = ScriptedLLM(ScriptedModel(reason="1990"))
    postprocessor = TALENodePostprocessor(5, count=words)
    index.as_query_engine(llm=llm, node_postprocessors=[postprocessor], similarity_top_k=3).query(QUESTION)
    assert "Ann was born in 1990." in llm.sent[0].text
    assert "Bob" not in llm.sent[0].text


def test_another_scorer_can_decide() -> None:
    postprocessor = TALENodePostprocessor(
        7, count=words, scorer=lambda _, given: [len(given) - at for at in range(len(given))]
    )
    assert texts(postprocessor.postprocess_nodes([BOB, ANN], query_str=QUESTION)) == [BOB.node.get_content()]


def test_it_can_be_copied_and_pickled() -> None:
    postprocessor = TALENodePostprocessor(9)
    for copied in (copy.deepcopy(postprocessor), pickle.loads(pickle.dumps(postprocessor))):  # noqa: S301
        assert texts(copied.postprocess_nodes([BOB, ANN], query_str=QUESTION)) == ["Ann was born in 1990."]


def test_without_a_query_it_says_what_is_missing() -> None:
    with pytest.raises(InvalidValueError, match="needs the query: pass query_bundle"):
        TALENodePostprocessor(5).postprocess_nodes([BOB])


@pytest.mark.parametrize("budget", [0, -3])
def test_a_budget_below_one_is_refused(budget: int) -> None:
    with pytest.raises(InvalidValueError, match=f"at least 1, got {budget}"):
        TALENodePostprocessor(budget)
