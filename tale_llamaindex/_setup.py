"""What every wrapper here is told: an LLM, and how to ask it under a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict
from uuid import uuid4

from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.llms import LLM

from tale_core.method.method import TaleMethod, as_estimator
from tale_llamaindex._calls import arun_flow, quiet_request, run_flow
from tale_llamaindex._models import name_of, open_llm
from tale_llamaindex._observer import watch
from tale_llamaindex._tracking import Question
from tale_llamaindex.reasoning_controls import ModelControls

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Unpack

    from tale_core.method.calibration import Calibration
    from tale_core.method.policy import BudgetPolicy
    from tale_core.models.reasoning_controls import ReasoningControl
    from tale_core.protocols import Estimator, Strategy
    from tale_core.types import ChooseControl, ModelCall
    from tale_llamaindex._calls import Request


class Options(TypedDict, total=False):
    """How to ask under a budget; what is left out comes from the calibration, or else is the default."""

    estimator: Estimator | LLM | str | int | None
    """An estimator, another LLM or a string that names one, or a number of output tokens."""
    policy: BudgetPolicy | None
    """Bounds of the budget, and what to do when an answer does not keep it."""
    strategy: str | Strategy | None
    """A prompt strategy or its name."""
    language: str
    """Language of the prompt, or ``"auto"`` to follow the question's script."""
    calibration: Calibration | str | Path | None
    """What was measured about the LLM, or a path to it; None for the shipped one, if any."""
    reasoning_control: ReasoningControl
    """What may carry a budget to the LLM."""


@dataclass(frozen=True, slots=True)
class Setup:
    """An LLM and the method to ask it with."""

    llm: LLM
    """Answers."""
    method: TaleMethod
    """How it is asked."""
    reasoner: ModelControls
    """The reasoning controls of the LLM that answers."""
    estimator: ModelControls
    """The reasoning controls of the LLM that estimates; usually the same."""

    @classmethod
    def of(cls, llm: LLM, **options: Unpack[Options]) -> Setup:
        """Return the setup that a caller meant.

        Raises:
            InvalidValueError: A value that cannot be meant; its subclasses say which.
        """
        estimator = options.get("estimator")
        estimator_llm = llm
        if isinstance(estimator, str | LLM):
            estimator_llm, estimator = open_llm(estimator), as_estimator(None)
        method = TaleMethod(
            estimator=estimator,
            policy=options.get("policy"),
            strategy=options.get("strategy"),
            language=options.get("language", "auto"),
            calibration=options.get("calibration"),
            model_name=name_of(llm),
        )
        reasoner = ModelControls(llm, options.get("reasoning_control", "auto"))
        # A server that was named stands behind this LLM, not behind another one that estimates.
        return cls(llm, method, reasoner, reasoner if estimator_llm is llm else ModelControls(estimator_llm))

    def begin(self, text: str, *, shown: str | None = None, control: ChooseControl | None = None) -> Question:
        """Start a question; its run id is the span around the current call.

        Args:
            text: What the estimator sees.
            shown: The text that the framing goes around, where it is more.
            control: Decides what carries the budget; None for the prompt.
        """
        watch()
        question_id = active_span_id.get() or str(uuid4())
        return Question(self.method.begin(text, question_id=question_id, shown=shown, control=control))

    def plan(self, question: Question) -> Question:
        """Estimate the budget of a question, and return the question, ready to be asked."""
        question.planned(run_flow(question.run.plan(), question, self.quiet_request))
        return question

    async def aplan(self, question: Question) -> Question:
        """Estimate the budget of a question, asynchronously; see `plan`."""
        question.planned(await arun_flow(question.run.plan(), question, self.quiet_request))
        return question

    def quiet_request(self, call: ModelCall) -> Request:
        """Return the request that answers the estimator's call."""
        return quiet_request(self.estimator, call)

    def describe(self) -> str:
        """Return the setup in words fit for a ``repr``: no keys, which an LLM's own shows."""
        llm, method = self.llm, self.method
        return (
            f"{type(llm).__name__}({llm.metadata.model_name!r}), "
            f"estimator={method.estimator.name!r}, strategy={method.strategy.name!r}"
        )
