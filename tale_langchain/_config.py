"""The choices behind a wrapped model, checked and ready for use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from langchain_core.runnables import Runnable

from tale_core.errors import InvalidValueError
from tale_core.method.method import TaleMethod, as_estimator
from tale_core.models.providers import named_server
from tale_langchain._model_loading import open_model
from tale_langchain._models import EstimatorModel, at_head, calling, name_of, rebuilt, requests_of
from tale_langchain.reasoning_controls import ModelControls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import AIMessage

    from tale_core.method.calibration import Calibration
    from tale_core.method.policy import BudgetPolicy
    from tale_core.models.reasoning_controls import ReasoningControl
    from tale_core.protocols import Estimator, Strategy
    from tale_langchain._models import ChatRunnable


class Budgeting:
    """What asks under a budget by itself: nobody puts a second one around it, and tools go to its model."""

    if TYPE_CHECKING:  # fields of the classes that this is mixed into
        model: ChatRunnable
        _wiring: Wiring

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the same with tools bound to the model; the estimator does not see them.

        Args:
            tools: As the model's own ``bind_tools`` takes them.
            tool_choice: As there; None leaves the model its choice.
            **kwargs: As there.

        Raises:
            NotAChatModelError: The model has no ``bind_tools``.
        """
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        return self._around(rebuilt(self.model, calling("bind_tools", tools, **kwargs)))

    def with_structured_output(self, schema: Any, **kwargs: Any) -> Runnable[LanguageModelInput, Any]:
        """Return a runnable that answers in the form of a schema, under a budget.

        Args:
            schema: As the model's own ``with_structured_output`` takes it.
            **kwargs: As there.

        Raises:
            NotAChatModelError: The model has no ``with_structured_output``.
        """
        structured = calling("with_structured_output", schema, **kwargs)
        return rebuilt(self.model, lambda model: at_head(structured(model), self._around))

    def _around(self, model: Runnable[Any, Any]) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the same choices around another model."""
        kind: Any = type(self)
        fields = {field: getattr(self, field) for field in kind.model_fields}
        same: Runnable[LanguageModelInput, AIMessage] = kind(**{**fields, "model": model})
        return same

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        return self._wiring.describe(self.model)


class Wiring(NamedTuple):
    """How a model is asked."""

    method: TaleMethod
    """How budgets are found and carried."""
    reasoner: ModelControls
    """The user's model with its reasoning controls."""
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
        strategy: str | Strategy | None = None,
        language: str = "auto",
        calibration: Calibration | str | Path | None = None,
        estimator_sees: Literal["question", "conversation"] = "question",
        reasoning_control: ReasoningControl = "auto",
    ) -> Wiring:
        """Return the wiring that a caller meant; the arguments are those of `TALERunnable`.

        Raises:
            InvalidValueError: A value that cannot be meant; its subclasses say which.
            NotAChatModelError: The estimator is a runnable that cannot answer messages with a message.
        """
        _check_bare(model)
        estimating = EstimatorModel(model, server=named_server(reasoning_control))
        if isinstance(estimator, (str, Runnable)):
            other = open_model(estimator)
            _check_bare(other)
            estimating, estimator = EstimatorModel(other), as_estimator(None)
        method = TaleMethod(
            estimator=estimator,
            policy=policy,
            strategy=strategy,
            language=language,
            calibration=calibration,
            model_name=name_of(model),
        )
        return cls(method, ModelControls(model, reasoning_control), estimating, estimator_sees)

    def describe(self, model: ChatRunnable) -> Iterator[tuple[str, Any]]:
        """Yield what a ``repr`` may show: models carry keys and addresses, a name is enough to know them by."""
        yield "model", name_of(model) or model.get_name()
        yield "estimator", self.method.estimator.name
        yield "strategy", self.method.strategy.name


def _check_bare(model: ChatRunnable) -> None:
    for request in requests_of(model):
        if isinstance(request.model, Budgeting):
            raise InvalidValueError(
                f"{type(request.model).__name__} asks under a budget already, and a second one would go into "
                "the same question; pass the model that it wraps"
            )
