from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core import Document, MockEmbedding, Settings, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.query_engine import TransformQueryEngine
from llama_index_instrumentation import root_dispatcher
from pydantic import PrivateAttr
from scripted_llm import ScriptedLLM

from tale_core.testing import ScriptedModel
from tale_llamaindex import TALEEventHandler, TALEQueryTransform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ANSWER = "Ann was born in 1990 and it is 2026 so she is 36 years old now."  # 16 words


class WatchedEmbedding(BaseEmbedding):
    """Embeds a text as its letter counts, and keeps what it was asked to embed."""

    _queries: list[str] = PrivateAttr(default_factory=list)

    @property
    def queries(self) -> list[str]:
        return self._queries

    def _get_text_embedding(self, text: str) -> list[float]:
        return [float(text.lower().count(letter)) + 0.01 for letter in "abcdefghijklmnopqrstuvwxyz"]

    def _get_query_embedding(self, query: str) -> list[float]:
        self._queries.append(query)
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


@pytest.fixture(autouse=True)
def _own_settings() -> Iterator[None]:
    """Each test starts with no callback manager in Settings and leaves no handler behind."""
    handlers = list(root_dispatcher.event_handlers)
    yield
    Settings._callback_manager = None
    Settings._llm = None
    root_dispatcher.event_handlers = handlers


@pytest.fixture
def handler() -> Iterator[TALEEventHandler]:
    with TALEEventHandler() as attached:
        yield attached


@pytest.fixture
def llm() -> ScriptedLLM:
    return ScriptedLLM(ScriptedModel(estimate="[[40]]", reason=ANSWER))


@pytest.fixture
def embedding() -> WatchedEmbedding:
    return WatchedEmbedding()


@pytest.fixture
def index(embedding: WatchedEmbedding) -> VectorStoreIndex:
    texts = ["Ann was born in 1990.", "Bob was born in 1985.", "The year is 2026."]
    return VectorStoreIndex.from_documents([Document(text=text) for text in texts], embed_model=embedding)


@pytest.fixture
def mock_index() -> VectorStoreIndex:
    return VectorStoreIndex.from_documents([Document(text="Ann is 36.")], embed_model=MockEmbedding(8))


@pytest.fixture
def make_engine(index: VectorStoreIndex, llm: ScriptedLLM) -> Callable[..., TransformQueryEngine]:
    def make(transform: TALEQueryTransform | None = None, **options: Any) -> TransformQueryEngine:
        return TransformQueryEngine(
            index.as_query_engine(llm=llm, **options), transform or TALEQueryTransform(llm)
        )

    return make
