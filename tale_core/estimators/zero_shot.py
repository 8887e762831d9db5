"""The zero-shot estimator: asks a model how many tokens the answer needs (arXiv 2412.18547, section 4.1)."""

from __future__ import annotations

from tale_core.errors import InvalidValueError
from tale_core.parsing import parse_budget
from tale_core.prompts.strategies import choose_language
from tale_core.types import Estimate, Flow, Message, ModelCall

_TASKS = {
    # The published prompt, word for word: its figures were measured with it.
    "en": (
        "Task: Analyze the given question and estimate the minimum number of tokens required to generate a "
        "complete and accurate response. Please Give the response by strictly following this format: "
        "[[budget]], for example, Budget: [[12]]."
    ),
    "zh": (
        "任务：分析给定的问题，估计生成完整且准确的回答所需的最少 token 数。"
        "请严格按照以下格式回答：[[budget]]，例如，Budget: [[12]]。"
    ),
}
_QUESTION_LABEL = {"en": "Question: ", "zh": "问题："}


class ZeroShotEstimator:
    """Asks the model itself for the number of tokens, in one short call (TALE-EP).

    Args:
        prompt: The instruction, in place of the published one. The question follows it.
        language: ``"en"``, ``"zh"`` or ``"auto"`` to follow the question's script; ignored with ``prompt``.
        max_tokens: Output cap of the call. The reply is a number; models that think before every answer need
            more room.

    Raises:
        InvalidValueError: ``max_tokens`` is below 1, or no prompt in that language exists.
    """

    def __init__(self, *, prompt: str | None = None, language: str = "auto", max_tokens: int = 64) -> None:
        if max_tokens < 1:
            raise InvalidValueError(f"max_tokens must be at least 1, got {max_tokens}")
        choose_language(_TASKS, "", language)  # fails now rather than at the first question
        self.prompt = prompt
        self.language = language
        self.max_tokens = max_tokens

    @property
    def name(self) -> str:
        """``"zero-shot"``."""
        return "zero-shot"

    def estimate(self, question: str) -> Flow[Estimate]:
        """Plan the one call; see `Estimator.estimate`."""
        language = choose_language(_TASKS, question, self.language)
        task = _TASKS[language] if self.prompt is None else self.prompt
        prompt = f"{task}\n\n{_QUESTION_LABEL[language]}{question}"
        reply = yield ModelCall(
            role="estimate",
            messages=(Message(role="user", content=prompt),),
            temperature=0.0,
            max_tokens=self.max_tokens,
        )
        tokens = parse_budget(reply.text)
        detail = "" if tokens is not None else "no usable number in the estimator's reply"
        return Estimate(tokens=tokens, source=self.name, detail=detail)

    def __repr__(self) -> str:
        return f"ZeroShotEstimator(max_tokens={self.max_tokens})"
