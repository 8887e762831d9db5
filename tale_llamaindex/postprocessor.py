"""TALENodePostprocessor: retrieved nodes fitted into a context budget by relevance, without a model call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from pydantic import PrivateAttr

from tale_core.context import fit_context
from tale_core.errors import InvalidValueError
from tale_core.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from tale_core.context import Scorer


class TALENodePostprocessor(BaseNodePostprocessor):
    """Keeps the nodes, and the sentences of nodes, that bear most on the query and fit into a budget.

    Nodes stay in their order and keep their score, their metadata and their id; those that are cut keep only
    whole sentences. Nodes without text, such as images, are passed on and do not count.

    Args:
        budget: Tokens that the text of all nodes together may have, as ``count`` counts them.
        count: Counts the tokens of a text; None for an estimate.
        scorer: Scores texts by their relevance to a query; None for BM25.

    Raises:
        InvalidValueError: The budget is no whole number, or below 1.

    Example:
        >>> nodes = [
        ...     NodeWithScore(node=TextNode(text="Bob sails. He is tired.")),
        ...     NodeWithScore(node=TextNode(text="Ann was born in 1990. She likes tea and old maps.")),
        ... ]
        >>> postprocessor = TALENodePostprocessor(8, count=lambda text: len(text.split()))
        >>> [node.text for node in postprocessor.postprocess_nodes(nodes, query_str="When was Ann born?")]
        ['Ann was born in 1990.']
    """

    budget: int
    """Tokens that the text of all nodes together may have."""

    _count: Callable[[str], int] = PrivateAttr()
    _scorer: Scorer | None = PrivateAttr()

    def __init__(
        self,
        budget: int,
        *,
        count: Callable[[str], int] | None = None,
        scorer: Scorer | None = None,
    ) -> None:
        if type(budget) is not int or budget < 1:  # True is an int, and no budget
            raise InvalidValueError(f"a context budget is a number of tokens of at least 1, got {budget!r}")
        super().__init__(budget=budget)
        self._count = count_tokens if count is None else count
        self._scorer = scorer

    @classmethod
    def class_name(cls) -> str:
        """Return the postprocessor's name."""
        return "TALENodePostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InvalidValueError(
                "fitting nodes into a budget needs the query: pass query_bundle= or query_str=, or use the "
                "postprocessor in a query engine"
            )
        # What the model will read, metadata included, is what has to fit.
        texts = {
            index: text
            for index, one in enumerate(nodes)
            if (text := one.node.get_content(metadata_mode=MetadataMode.LLM)).strip()
        }
        fitted = fit_context(
            query_bundle.query_str, [*texts.values()], self.budget, count=self._count, scorer=self._scorer
        )
        places = list(texts)
        kept = {places[position]: text for position, text in fitted}
        return [
            one if kept.get(index) == texts.get(index) else _cut(one, kept[index])
            for index, one in enumerate(nodes)
            if index in kept or index not in texts
        ]


def _cut(node: NodeWithScore, text: str) -> NodeWithScore:
    """Return a copy of a node with less text, in which its metadata, if any, is already written out."""
    source = node.node
    shorter = TextNode(
        id_=source.node_id,
        text=text,
        metadata=source.metadata,
        relationships=source.relationships,
        excluded_llm_metadata_keys=list(source.metadata),
        excluded_embed_metadata_keys=list(source.metadata),
    )
    return NodeWithScore(node=shorter, score=node.score)
