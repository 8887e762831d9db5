"""A model that keeps its budget by itself is asked the plain question, with the same accounts as any other."""

from __future__ import annotations

from tale_core import Calibration
from tale_core.method.calibration import Trained
from tale_core.testing import ScriptedModel

QUESTION = "How much is 3 + 4?"


def test_the_langchain_runnable_sends_the_plain_question_and_nothing_else() -> None:
    from scripted_chat_model import ScriptedChatModel

    from tale_langchain import TALECallbackHandler, TALERunnable

    model = ScriptedChatModel(ScriptedModel("3 + 4 = 7"))
    handler = TALECallbackHandler()
    answer = TALERunnable(model, strategy="internalised").invoke(QUESTION, config={"callbacks": [handler]})
    assert [sent.text for sent in model.sent] == [QUESTION]
    assert answer.response_metadata["tale"]["budget"] is None
    assert [call.role for call in handler.ledger.calls] == ["reason"]


def test_the_llamaindex_transform_leaves_the_question_as_it_is() -> None:
    from llama_index.core.llms import MockLLM

    from tale_llamaindex import TALEQueryTransform

    assert TALEQueryTransform(MockLLM(), strategy="internalised").run(QUESTION).query_str == QUESTION


def test_its_calibration_says_what_it_was_trained_from(tmp_path) -> None:
    trained = Trained(base="base.gguf", method="sft", data_digest="ab" * 32, examples=300)
    Calibration(model="concise", strategy="internalised", trained=trained).save(tmp_path / "calibration.json")
    again = Calibration.load(tmp_path / "calibration.json")
    assert again.trained == trained
    assert again.prompt_strategy().frame(QUESTION, 50).apply(QUESTION) == QUESTION
