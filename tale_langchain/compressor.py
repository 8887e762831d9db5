"""TALEDocumentCompressor: documents fitted into a context budget by relevance, without a model call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, PrivateAttr, ValidationError

from tale_core.errors import InvalidValueError
from tale_core.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from langchain_core.callbacks import Callbacks

    from tale_core.context import Scorer


class TALEDocumentCompressor(BaseDocumentCompressor):
    """Keeps the documents, and the sentences of documents, that bear most on a question and fit into a budget.

    Documents stay in their order and keep their id and metadata; those that are cut keep only whole sentences.

    Args:
        budget: Tokens that the text of all documents together may have, as ``count`` counts them.
        count: Counts the tokens of a text; None for an estimate. ``model.get_num_tokens`` is exact where the
            model knows its tokenizer.
        scorer: Scores texts by their relevance to a question, an embedding model say; None for BM25.

    Raises:
        InvalidValueError: The budget is below 1.

    Example:
        >>> documents = [
        ...     Document("Bob sails. He is tired."),
        ...     Document("Ann was born in 1990. She likes tea and old maps."),
        ... ]
        >>> compressor = TALEDocumentCompressor(8, count=lambda text: len(text.split()))
        >>> [kept.page_content for kept in compressor.compress_documents(documents, "When was Ann born?")]
        ['Ann was born in 1990.']
    """

    model_config = ConfigDict(extra="forbid")

    budget: int = Field(ge=1, frozen=True)
    """Tokens that the text of all documents together may have."""

    _count: Callable[[str], int] = PrivateAttr()
    _scorer: Scorer | None = PrivateAttr()

    def __init__(
        self,
        budget: int,
        *,
        count: Callable[[str], int] | None = None,
        scorer: Scorer | None = None,
        **fields: Any,
    ) -> None:
        try:
            super().__init__(budget=budget, **fields)
        except ValidationError as exc:
            raise InvalidValueError.from_validation("TALEDocumentCompressor", exc) from exc
        self._count = count_tokens if count is None else count
        self._scorer = scorer

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return what is kept of the documents, in order; empty when not even one relevant sentence fits."""
        from tale_core.context import fit_context  # noqa: PLC0415  # chains without documents need none

        del callbacks
        texts = [document.page_content for document in documents]
        fitted = fit_context(query, texts, self.budget, count=self._count, scorer=self._scorer)
        return [
            documents[at] if text == texts[at] else documents[at].model_copy(update={"page_content": text})
            for at, text in fitted
        ]
