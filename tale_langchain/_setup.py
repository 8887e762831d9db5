"""The options of all wrappers here, checked and ready for use, and what the wrappers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from langchain_core.runnables import Runnable
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from tale_core.errors import InvalidValueError, UnknownModelError
from tale_core.method.method import MethodOptions, TaleMethod
from tale_core.method.policy import BudgetPolicy  # pydantic reads the types of the fields
from tale_core.models.providers import named_server
from tale_core.models.reasoning_controls import ReasoningControl  # as above
from tale_langchain._models import ChatRunnable, at_head, calling, models_in, name_of, open_model, rebuilt
from tale_langchain.reasoning_controls import EstimatorModel, ModelControls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from langchain_core.language_models import LanguageModelInput
    from langchain_core.messages import AIMessage

    from tale_core.protocols import Estimator

_OPTIONS = ("estimator", "policy", "strategy", "language", "calibration", "estimator_sees", "reasoning_control")
OWN_OPTIONS = ("estimator", "estimator_sees")
"""The options that LangChain's wrappers take besides those of `MethodOptions`."""


class Options(MethodOptions, total=False):
    """How to ask under a budget: all options of `MethodOptions`, and these."""

    estimator: Estimator | ChatRunnable | str | int | None
    """An estimator, a model (or its string) to estimate with, a number of output tokens, or None: the
    calibration's budget, or else the zero-shot estimator on the unbound model."""
    estimator_sees: Literal["question", "conversation"]
    """``"question"`` for the last human message, ``"conversation"`` for all text before it, too."""


class Setup(NamedTuple):
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
    def of(cls, model: ChatRunnable, options: dict[str, Any]) -> Setup:
        """Return how to ask a model, with options under their present names; raises as `TALERunnable`."""
        _refuse_budgeted(model)
        options = dict(options)
        estimator = opened_estimator(options.pop("estimator", None))
        sees = options.pop("estimator_sees", "question")
        control = options.pop("reasoning_control", "auto")
        estimating = EstimatorModel(model, server=named_server(control))
        if isinstance(estimator, Runnable):
            _refuse_budgeted(estimator)
            # A model is asked as the zero-shot estimator asks, or as the calibration says.
            estimating, estimator = EstimatorModel(estimator), None
        method = TaleMethod(estimator=estimator, model_name=name_of(model), **options)
        return cls(method, ModelControls(model, control), estimating, sees)

    def describe(self, model: ChatRunnable) -> Iterator[tuple[str, Any]]:
        """Yield what a ``repr`` may show: models carry keys and addresses, so they appear by name only."""
        yield "model", name_of(model) or model.get_name()
        yield "estimator", self.method.estimator.name
        yield "strategy", self.method.strategy.name


class Budgeted(BaseModel):
    """Mixin for models that ask under a budget themselves; tools and formats go to the model inside."""

    # What the user gave, so that configurable_fields can build the same with one thing changed.
    model: ChatRunnable = Field(frozen=True)
    estimator: Any = Field(default=None, frozen=True)
    policy: BudgetPolicy | None = Field(default=None, frozen=True)
    strategy: Any = Field(default=None, frozen=True)
    language: str = Field(default="auto", frozen=True)
    calibration: Any = Field(default=None, frozen=True)
    estimator_sees: Literal["question", "conversation"] = Field(default="question", frozen=True)
    reasoning_control: ReasoningControl = Field(default="auto", frozen=True)

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    _setup: Setup = PrivateAttr()

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the same with tools bound to the model, which the estimator does not see.

        Takes what the model's own ``bind_tools`` takes; raises `NotAChatModelError` where it has none.
        """
        # Left out rather than passed as None: not every model takes the argument.
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        return self._around(rebuilt(self.model, calling("bind_tools", tools, **kwargs)))

    def with_structured_output(self, schema: Any, **kwargs: Any) -> Runnable[LanguageModelInput, Any]:
        """Return a runnable that answers in the form of a schema, under a budget.

        Takes what the model's own method takes; raises `NotAChatModelError` where it has none.
        """
        structured = calling("with_structured_output", schema, **kwargs)
        return rebuilt(self.model, lambda model: at_head(structured(model), self._around))

    def _set_up(self, model: ChatRunnable) -> Setup:
        """Return how a model is asked with these options."""
        return Setup.of(model, {one: getattr(self, one) for one in _OPTIONS})

    def _around(self, model: Runnable[Any, Any]) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the same choices around another model."""
        kind: Any = type(self)
        fields = {field: getattr(self, field) for field in kind.model_fields}
        same: Runnable[LanguageModelInput, AIMessage] = kind(**{**fields, "model": model})
        return same

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        return self._setup.describe(self.model)


def opened_estimator(estimator: Any) -> Any:
    """Return an estimator as it was given, or the model that a string names."""
    if not isinstance(estimator, (str, Runnable)):
        return estimator
    try:
        return open_model(estimator)
    except UnknownModelError as exc:
        raise UnknownModelError(
            f"estimator={estimator!r}: {exc}; a string names the model to estimate with, so pass an estimator "
            "of tale_core.estimators as an object, or leave it out for the zero-shot estimator"
        ) from exc


def _refuse_budgeted(model: ChatRunnable) -> None:
    # Looked for inside wrappers, too: with_retry and bind hide the type.
    for inside in models_in(model):
        if isinstance(inside.model, Budgeted):
            raise InvalidValueError(
                f"{type(inside.model).__name__} asks under a budget already, and a second budget would go into "
                "the same question; pass the model that it wraps"
            )
