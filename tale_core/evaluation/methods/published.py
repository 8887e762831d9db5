"""The ways of answering that the paper compares (arXiv 2412.18547, section 5), and this project's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tale_core.errors import InvalidValueError
from tale_core.estimators import FixedEstimator, RegressionEstimator
from tale_core.evaluation.methods.base import Conditions, Method, Said, register_method
from tale_core.method import TaleMethod
from tale_core.policy import BudgetPolicy
from tale_core.profile import Profile  # noqa: TC001  # pydantic reads it

if TYPE_CHECKING:
    from typing_extensions import Self

    from tale_core.types import Flow

_PAPER = "Han et al., arXiv 2412.18547"


class Styled(Method):
    """A method that is a way of asking of `TaleMethod`."""

    def tale(self) -> TaleMethod:
        """Return the way of asking."""
        raise NotImplementedError

    @property
    def most_calls(self) -> int:
        """An estimate, an answer, and as often as the policy asks again; see `Method.most_calls`."""
        tale = self.tale()
        policy = tale.policy
        retried = "retry" in {policy.on_overrun, policy.on_collapse, policy.on_truncation}
        estimated = tale.style.budgeted and not isinstance(tale.estimator, FixedEstimator | RegressionEstimator)
        return 1 + int(estimated) + (policy.retries if retried else 0)

    def answer(self, question: str) -> Flow[Said]:
        """Plan the answer; see `Method.answer`."""
        answer = yield from self.tale().begin(question).answer()
        return Said(text=answer.reply.text, events=answer.events)


@register_method
class Direct(Styled):
    """The answer without reasoning: the lower bound on tokens."""

    name: ClassVar = "direct"
    source: ClassVar = _PAPER

    def tale(self) -> TaleMethod:
        """Return the way of asking."""
        return TaleMethod(style="direct")


@register_method
class Vanilla(Styled):
    """Chain of thought without a budget: the baseline."""

    name: ClassVar = "vanilla"
    source: ClassVar = f"Kojima et al., arXiv 2205.11916, as used by {_PAPER}"

    def tale(self) -> TaleMethod:
        """Return the way of asking."""
        return TaleMethod(style="vanilla")


@register_method
class TaleAsPublished(Styled):
    """The published estimator and the published prompt, with no floor, no ceiling and no second try."""

    name: ClassVar = "tale"
    source: ClassVar = _PAPER

    def tale(self) -> TaleMethod:
        """Return the way of asking."""
        return TaleMethod(style="tale", policy=BudgetPolicy(floor=1))


@register_method
class TaleProfile(Styled):
    """The way of asking that was measured to suit the model."""

    name: ClassVar = "tale-profile"
    source: ClassVar = "this project: tale tune"

    profile: Profile

    @classmethod
    def under(cls, conditions: Conditions) -> Self:
        """Return the method with the run's profile; see `Method.under`."""
        if conditions.profile is None:
            raise InvalidValueError(
                "tale-profile needs a profile of this model: make one with `tale tune`, and name it with "
                "--profile; or leave the method out"
            )
        return cls(profile=conditions.profile)

    def tale(self) -> TaleMethod:
        """Return the way of asking."""
        return TaleMethod(profile=self.profile)
