"""The choices behind a wrapped model, checked and ready for use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from langchain_core.runnables import Runnable

from tale_core.errors import InvalidValueError
from tale_core.estimators import ZeroShotEstimator
from tale_core.method import TaleMethod
from tale_core.profile import find_profile
from tale_core.providers import named_server
from tale_langchain._models import EstimatorModel, name_of, requests_of
from tale_langchain._opening import open_model
from tale_langchain.knobs import NativeKnobs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tale_core.knobs import Knobs
    from tale_core.policy import BudgetPolicy
    from tale_core.profile import Profile
    from tale_core.types import Estimator, Style
    from tale_langchain._models import ChatRunnable


class Budgeting:
    """Marks what asks under a budget by itself, so that nobody puts a second budget around it."""


class Wiring(NamedTuple):
    """How a model is asked."""

    method: TaleMethod
    """How budgets are found and carried."""
    reasoner: NativeKnobs
    """The user's model with its knobs."""
    estimator: EstimatorModel
    """The model that estimates."""
    estimator_sees: Literal["question", "conversation"] = "question"
    """What the estimator is shown."""

    @classmethod
    def of(
        cls,
        model: ChatRunnable,
        *,
        estimator: Estimator | ChatRunnable | str | int | None = None,
        policy: BudgetPolicy | None = None,
        style: str | Style | None = None,
        language: str = "auto",
        profile: Profile | str | Path | None = None,
        estimator_sees: Literal["question", "conversation"] = "question",
        knobs: Knobs = "auto",
    ) -> Wiring:
        """Return the wiring that a caller meant; the arguments are those of `TALERunnable`.

        Raises:
            InvalidValueError: A value that cannot be meant; its subclasses say which.
            NotAChatModelError: The estimator is a runnable that cannot answer messages with a message.
        """
        _check_bare(model)
        estimating = EstimatorModel(model, server=named_server(knobs))
        if isinstance(estimator, (str, Runnable)):
            other = open_model(estimator)
            _check_bare(other)
            estimating, estimator = EstimatorModel(other), ZeroShotEstimator()
        method = TaleMethod(
            estimator=estimator,
            policy=policy,
            style=style,
            language=language,
            profile=find_profile(profile, model_name=name_of(model)),
        )
        return cls(method, NativeKnobs(model, knobs), estimating, estimator_sees)

    def describe(self, model: ChatRunnable) -> Iterator[tuple[str, Any]]:
        """Yield what a ``repr`` may show: models carry keys and addresses, a name is enough to know them by."""
        yield "model", name_of(model) or model.get_name()
        yield "estimator", self.method.estimator.name
        yield "style", self.method.style.name


def _check_bare(model: ChatRunnable) -> None:
    for request in requests_of(model):
        if isinstance(request.model, Budgeting):
            raise InvalidValueError(
                f"{type(request.model).__name__} asks under a budget already, and a second one would go into "
                "the same question; pass the model that it wraps"
            )
