"""The walks of `structure.py`: how many of our functions one question calls, in how many files, how deep.

Runs in a process of its own, with the checkout to look at on its path::

    PYTHONPATH=ROOT python benchmarks/_structure_walks.py ROOT tale_core.cli

A call is an event ``call`` of `sys.setprofile` for code in a file of our packages, scripted models excepted,
so resuming a generator counts as well. The depth is that of our own functions on one thread's stack, whatever
stands between them. Second questions are counted: the first one also fills caches.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import os
import sys
import tempfile
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core import Document, MockEmbedding, Settings, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager
from llama_index.core.query_engine import TransformQueryEngine

from tale_core.testing import ScriptedModel
from tale_langchain import ChatTALE, TALECallbackHandler, TALERunnable
from tale_llamaindex import TALELLM, TALEQueryTransform
from tale_llamaindex import TALECallbackHandler as LlamaIndexHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

PACKAGES = ("tale_core", "tale_lab", "tale_langchain", "tale_llamaindex")
QUESTION = "How much is 3 + 4?"
ANSWER = "3 + 4 = 7"
"""Holds one calculation, since looking for arithmetic errors is a part of some walks."""
SCRIPTED_SERVER = Path(__file__).parents[1] / "tests" / "fixtures" / "results-42528ed" / "make.py"


@dataclass
class Steps:
    """What one thread did."""

    calls: int = 0
    files: set[str] = field(default_factory=set)
    deepest: int = 0
    depth: int = 0

    def found(self) -> dict[str, int]:
        """Return the figures."""
        return {"calls": self.calls, "files": len(self.files), "depth": self.deepest}


class Walk:
    """Counts the calls of our functions while it is entered, by thread; start threads within.

    Args:
        root: The checkout whose functions count.
    """

    def __init__(self, root: Path) -> None:
        self._folders = tuple(f"{root / name}{os.sep}" for name in PACKAGES)
        self.threads: defaultdict[threading.Thread, Steps] = defaultdict(Steps)

    def __enter__(self) -> Walk:  # noqa: PYI034  # for Python 3.10
        threading.setprofile(self._heard)
        sys.setprofile(self._heard)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def together(self) -> Steps:
        """Return what all threads did."""
        every = self.threads.values()
        return Steps(
            sum(one.calls for one in every),
            set().union(*(one.files for one in every)),
            max(one.deepest for one in every),
        )

    def workers(self) -> Steps:
        """Return what the threads other than the main one did, or that one if it worked alone."""
        if len(self.threads) > 1:
            self.threads.pop(threading.main_thread(), None)
        return self.together()

    def _heard(self, frame: FrameType, event: str, _: object) -> None:
        if event not in {"call", "return"}:
            return
        file = frame.f_code.co_filename
        if not file.startswith(self._folders) or file.endswith("testing.py"):
            return
        steps = self.threads[threading.current_thread()]
        steps.depth += 1 if event == "call" else -1
        if event == "call":
            steps.calls += 1
            steps.files.add(file)
            steps.deepest = max(steps.deepest, steps.depth)


def second(ask: Callable[[], object], root: Path) -> dict[str, int]:
    """Ask twice, and return the figures of the second time."""
    ask()
    with Walk(root) as walk:
        ask()
    return walk.together().found()


def script() -> ScriptedModel:
    """Return what the models answer."""
    return ScriptedModel(estimate="Budget: [[40]]", reason=ANSWER)


def scripted(name: str, module: str, before: str) -> Any:
    """Return a scripted model of an adapter: from our tests, or from where earlier checkouts have it."""
    sys.path.append(str(SCRIPTED_SERVER.parents[2]))
    try:
        shipped = importlib.util.find_spec(before) is not None
    except ModuleNotFoundError:  # how later checkouts say that it is gone
        shipped = False
    return getattr(importlib.import_module(before if shipped else module), name)(script())


def trips() -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield each trip with what asks one question on it."""
    model = scripted("ScriptedChatModel", "scripted_chat_model", "tale_langchain.testing")
    runnable, chat = TALERunnable(model), ChatTALE(model)
    heard: Any = {"callbacks": [TALECallbackHandler()]}
    yield "`TALERunnable.invoke`", lambda: runnable.invoke(QUESTION)
    yield "`TALERunnable.invoke` + handler", lambda: runnable.invoke(QUESTION, heard)
    yield "`ChatTALE.invoke` + handler", lambda: chat.invoke(QUESTION, heard)
    llm = scripted("ScriptedLLM", "scripted_llm", "tale_llamaindex.testing")
    index = VectorStoreIndex.from_documents([Document(text=ANSWER)], embed_model=MockEmbedding(8))
    Settings.callback_manager = CallbackManager([LlamaIndexHandler()])
    engine = TransformQueryEngine(index.as_query_engine(llm=llm), TALEQueryTransform(llm))
    yield "`TransformQueryEngine` + handler", lambda: engine.query(QUESTION)
    wrapped = TALELLM(llm)
    yield "`TALELLM.complete` + handler", lambda: wrapped.complete(QUESTION)


def bench(root: Path, command: str) -> dict[str, int]:
    """Return the figures of one question of ``tale bench``, under the method that estimates first.

    They are those of the thread that answers it, without progress, reports and what else a run does once.
    """
    spec = importlib.util.spec_from_file_location("scripted_server", SCRIPTED_SERVER)
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    main = importlib.import_module(command).main
    with tempfile.TemporaryDirectory() as name, make.Server() as server:
        folder = Path(name)
        make.write_questions(folder)
        for results in ("first.sqlite", "second.sqlite"):
            arguments = ["bench", str(folder / "test.jsonl"), "--limit", "1", "--methods", "tale", "--json"]
            sys.argv = ["tale", *arguments, "--out", str(folder / results), "--model", server.base_url]
            quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
            with quiet[0], quiet[1], Walk(root) as walk, contextlib.suppress(SystemExit):
                main()
    return walk.workers().found()


def main() -> None:
    """Print the figures of every trip as JSON."""
    root, command = Path(sys.argv[1]), sys.argv[2]
    found = {name: second(ask, root) for name, ask in trips()}
    print(json.dumps({**found, "one question of `tale bench`": bench(root, command)}))


if __name__ == "__main__":
    main()
