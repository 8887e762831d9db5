"""Self-consistency at equal spend: many short answers for the tokens of one long one, and a vote."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from tale_core.method.calibration import Calibration  # noqa: TC001  # pydantic reads it
from tale_core.method.method import TaleMethod
from tale_core.tokens import usage_of
from tale_core.types import Budget
from tale_lab.bench.methods.base import Conditions, Method, Said, register_method
from tale_lab.bench.methods.tale import Vanilla, asking_facts, estimates
from tale_lab.questions.answer_extraction import vote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from tale_core.method.plan import Plan
    from tale_core.types import Flow, ModelCall, ModelReply


@register_method
class SelfConsistency(Method):
    """Short answers, drawn until the next is expected to exceed what vanilla's one answer took; most votes win.

    The short answers are asked for in the calibration's way, or else with the essential calculations alone and
    no budget. The next one is expected to take the mean of those before, so that the spend exceeds vanilla's by
    less than one answer; one is always drawn. Vanilla's answer is asked for in its very words: a results file
    asks for it once, and its cost counts for vanilla. Answers that cannot be read have no vote, and on a tie
    the answer that came first wins.
    """

    name: ClassVar[str] = "self-consistency"
    source: ClassVar[str] = (
        "Wang et al., arXiv 2203.11171 (temperature 0.7, at most 40 answers); at equal spend as in Wang et "
        "al., arXiv 2406.06461"
    )

    calibration: Calibration | None = None
    """Says how to ask for a short answer; None asks with the strategy ``essential`` and no budget."""
    temperature: float = Field(default=0.7, ge=0)
    """Sampling temperature of the short answers."""
    most: int = Field(default=40, ge=1)

    @classmethod
    def under(cls, conditions: Conditions) -> Self:
        """Return the method, with the run's calibration where there is one; see `Method.under`."""
        return cls(calibration=conditions.calibration)

    @property
    def most_calls(self) -> int:
        """Vanilla's answer, an estimate where there is one, and the short answers; see `Method.most_calls`."""
        return 1 + int(self.calibration is not None and estimates(self._asking())) + self.most

    def answer(self, question: str) -> Flow[Said]:
        """Plan the answer; see `Method.answer`."""
        vanilla = yield from Vanilla().asking.begin(question).plan()
        call = vanilla.call().model_copy(update={"role": "reference"})
        limit = _spent(call, (yield call))
        plan, spent = yield from self._planned(question)
        texts: list[str] = []
        drawn = 0
        while not texts or (len(texts) < self.most and spent + drawn / len(texts) <= limit):
            call = plan.call().model_copy(update={"temperature": self.temperature, "sample": len(texts) + 1})
            reply = yield call
            cost = _spent(call, reply)
            spent, drawn = spent + cost, drawn + cost
            texts.append(reply.text)
        return Said(text=elected(texts, question))

    def settings(self) -> dict[str, Any]:
        """Return the fields, and what the calibration makes of them; see `Method.settings`."""
        facts = asking_facts(self._asking())
        return {**self.model_dump(mode="json", exclude={"calibration"}), "asking": facts}

    def _asking(self) -> TaleMethod:
        chosen = self.calibration
        return TaleMethod(strategy="essential") if chosen is None else TaleMethod(calibration=chosen)

    def _planned(self, question: str) -> Flow[tuple[Plan, int]]:
        """Return how to ask for a short answer, and the output tokens that it took to find out."""
        run = self._asking().begin(question)
        if self.calibration is None:
            return run.under(Budget()), 0
        plan = yield from run.plan()
        cost = run.estimate_cost()
        return plan, 0 if cost is None else cost.output_tokens


def elected(texts: Sequence[str], question: str) -> str:
    """Return the first of the texts that give the answer which most of them give."""
    said = [vote(text, question) for text in texts]
    votes = Counter(one for one in said if one is not None)
    if not votes:
        return texts[0]
    (winner, _), *_ = votes.most_common(1)  # of equals, the first that was counted
    return texts[said.index(winner)]


def _spent(call: ModelCall, reply: ModelReply) -> int:
    return usage_of(call, reply).output_tokens
