"""Embeddings of either framework, without importing one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tale_core.errors import InvalidValueError

Embed: TypeAlias = Callable[[list[str]], Sequence[Sequence[float]]]
"""Turns texts into vectors of one length, in order."""

# LangChain's Embeddings, then LlamaIndex's BaseEmbedding. Both frameworks also have a way of their own to embed
# queries; a regression must see its training questions and new ones in the same way.
_METHODS = ("embed_documents", "get_text_embedding_batch")


def embed_function(embeddings: Any) -> Embed:
    """Return how to embed texts.

    Args:
        embeddings: A LangChain ``Embeddings``, a LlamaIndex ``BaseEmbedding``, or a function of texts.

    Raises:
        InvalidValueError: None of these.
    """
    for method in _METHODS:
        found = getattr(embeddings, method, None)
        if callable(found):
            return found  # type: ignore[no-any-return]
    if callable(embeddings) and not isinstance(embeddings, type):
        return embeddings  # type: ignore[no-any-return]
    raise InvalidValueError(
        "embeddings must be a LangChain Embeddings, a LlamaIndex BaseEmbedding or a function from texts to "
        f"vectors, got {type(embeddings).__name__}"
    )


def embedding_name(embeddings: Any) -> str:
    """Return the name by which an embedding model is recognised: its model's, or else its class's."""
    for attribute in ("model_name", "model"):
        name = getattr(embeddings, attribute, None)
        if isinstance(name, str) and name and name != "unknown":
            return name
    return getattr(embeddings, "__name__", type(embeddings).__name__)


def embed_all(embeddings: Any, questions: Sequence[str], *, length: int | None = None) -> list[list[float]]:
    """Embed questions, and check what came back.

    Args:
        embeddings: As for `embed_function`.
        questions: The texts.
        length: The length that each vector must have; None where any will do.

    Raises:
        InvalidValueError: Not one vector for each question, or vectors of different or wrong lengths.
    """
    vectors = [[float(value) for value in vector] for vector in embed_function(embeddings)(list(questions))]
    lengths = {len(vector) for vector in vectors}
    wanted = lengths if length is None else {length}
    if len(vectors) != len(questions) or len(lengths) > 1 or 0 in lengths or not lengths <= wanted:
        expected = "one length" if length is None else f"length {length}"
        raise InvalidValueError(
            f"{embedding_name(embeddings)} returned {len(vectors)} vectors of lengths {sorted(lengths)} for "
            f"{len(questions)} questions; one vector each, all of {expected}, are needed"
        )
    return vectors
