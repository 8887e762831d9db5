"""The regression estimator: budgets that were searched, learned (arXiv 2412.18547)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime, timezone
from operator import mul
from typing import TYPE_CHECKING, Any

from tale_core.errors import InvalidValueError, MissingExtraError
from tale_core.estimators.features import FEATURES, text_features, tokens_of
from tale_core.estimators.training import MOST_BYTES, FitFacts, examples_of, only, question_digest
from tale_core.files import read_file, replace_file
from tale_core.types import Estimate, Flow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

    from typing_extensions import Self

    from tale_core.estimators.training import BudgetExample
    from tale_core.search.budget_search import SearchTrace

_VERSION = 1
_FEWEST = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitted:
    facts: FitFacts
    pipeline: Any
    intercept: float
    weights: tuple[float, ...]

    def tokens(self, question: str) -> int:
        # The pipeline in plain Python: a call of scikit-learn takes longer than the whole of the rest.
        logarithm = self.intercept + sum(map(mul, self.weights, text_features(question)))
        return tokens_of(logarithm, self.facts.lowest, self.facts.highest)


class RegressionEstimator:
    """Predicts the budget of a question from its text, without a model call.

    It learns from searched budgets: a linear quantile regression of their logarithm on what can be counted in a
    question. A prediction takes well under 0.5 ms and stays in the range of the budgets it was fitted to.

    Args:
        quantile: Which quantile of the budget to predict, between 0 and 1. Above one half, because a budget
            that is too small costs more than one that is too large (arXiv 2412.18547, section 3.2).

    Raises:
        InvalidValueError: ``quantile`` is not between 0 and 1.

    Example:
        >>> from tale_core import BudgetExample
        >>> sums = {count: " + ".join(["3"] * count) for count in range(2, 32)}
        >>> examples = [BudgetExample(question=text, tokens=8 * count) for count, text in sums.items()]
        >>> estimator = RegressionEstimator().fit_table(examples)
        >>> 70 < estimator.predict([sums[10]])[0] < 90
        True
    """

    def __init__(self, *, quantile: float = 0.6) -> None:
        if not 0 < quantile < 1:
            raise InvalidValueError(f"a quantile lies between 0 and 1, got {quantile}")
        self.quantile = quantile
        self._fitted: _Fitted | None = None

    @property
    def name(self) -> str:
        """``"regression"``."""
        return "regression"

    @property
    def facts(self) -> FitFacts:
        """What it was fitted to, and its cross-validated scores.

        Raises:
            InvalidValueError: It was not fitted.
        """
        return self._ready().facts

    @property
    def pipeline(self) -> Any:
        """The scikit-learn pipeline, from the rows of `matrix` to the logarithm of the budget."""
        return self._ready().pipeline

    def fit(self, traces: Iterable[SearchTrace], *, zero_shot: Mapping[str, int | None] | None = None) -> Self:
        """Fit to searches of one model in one strategy, and cross-validate.

        Args:
            traces: Finished searches; those that found no budget are counted and left out.
            zero_shot: Zero-shot estimates by question in output tokens, None for an unusable one, to be scored
                beside the regression.

        Raises:
            InvalidValueError: Too few questions, the same budget for all, or several models or strategies.
            MissingExtraError: The extra ``learn`` is not installed.
        """
        kept = list(traces)
        examples = examples_of(kept)
        return self.fit_table(
            examples,
            zero_shot=zero_shot,
            model=only((probe.model for trace in kept for probe in trace.probes), "models"),
            strategy=only((trace.settings.strategy for trace in kept), "strategies"),
            skipped=len(kept) - len(examples),
        )

    def fit_table(
        self,
        examples: Sequence[BudgetExample],
        *,
        zero_shot: Mapping[str, int | None] | None = None,
        model: str = "",
        strategy: str = "",
        skipped: int = 0,
    ) -> Self:
        """Fit to questions with their budgets, and cross-validate.

        Args:
            examples: Questions with budgets in output tokens.
            zero_shot: As in `fit`.
            model: The model whose answers were searched.
            strategy: The prompt strategy of the searches.
            skipped: Searches that found no budget, for the record.

        Raises:
            InvalidValueError: Too few questions, or the same budget for all.
            MissingExtraError: The extra ``learn`` is not installed.
        """
        self._fitted = None  # a second fit takes nothing over from the first
        budgets = [one.tokens for one in examples]
        groups = [question_digest(one.question) for one in examples]
        _check_enough(budgets, len(set(groups)), skipped)
        fitting = _fitting()
        matrix = self.matrix([one.question for one in examples])
        report = fitting.cross_validate(matrix, examples, groups, quantile=self.quantile, zero_shot=zero_shot)
        pipeline = fitting.fit_pipeline(matrix, budgets, groups, quantile=self.quantile)
        facts = FitFacts(
            version=_VERSION,
            examples=len(examples),
            skipped=skipped,
            model=model,
            strategy=strategy,
            date=datetime.now(timezone.utc).date().isoformat(),
            quantile=self.quantile,
            lowest=min(budgets),
            highest=max(budgets),
            features=FEATURES,
            digests=frozenset(groups),
            report=report,
        )
        self._take(facts, pipeline)
        return self

    def matrix(self, questions: Sequence[str]) -> list[list[float]]:
        """Return what the pipeline sees of questions: one row of features each."""
        return [list(text_features(question)) for question in questions]

    def predict(self, questions: Sequence[str]) -> list[int]:
        """Predict the budgets of several questions at once, in output tokens.

        Raises:
            InvalidValueError: It was not fitted.
        """
        return list(map(self._ready().tokens, questions))

    def estimate(self, question: str) -> Flow[Estimate]:
        """Predict the budget of one question; see `Estimator.estimate`."""
        yield from ()  # a flow is a generator, even one that needs no call
        return Estimate(tokens=self.predict([question])[0], source=self.name)

    def trained_on(self, question: str) -> bool:
        """Return whether the question was among those fitted to, so that a test on it would prove nothing."""
        return question_digest(question) in self.facts.digests

    def save(self, path: str | Path) -> None:
        """Write a skops file, which holds no code: no pickle.

        Raises:
            InvalidValueError: It was not fitted.
            StoreError: The file cannot be written.
        """
        fitted = self._ready()
        content = _fitting().dump_pipeline(fitted.pipeline, fitted.facts.model_dump_json())
        replace_file(path, content)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that `save` wrote.

        Args:
            path: The file.

        Raises:
            InvalidValueError: The file is missing, damaged, of another version, or no such file at all.
            MissingExtraError: The extra ``learn`` is not installed.
        """
        fitting, name = _fitting(), repr(str(path))
        content = read_file(path, "estimator", most=MOST_BYTES, fix="make one with `tale fit`")
        pipeline, header = fitting.load_pipeline(content, name)
        facts = _facts_from(header, name)
        loaded = cls(quantile=facts.quantile)
        try:
            loaded._take(facts, pipeline)
        except Exception as exc:  # arrays of other shapes, and whatever else scikit-learn meets in them
            raise InvalidValueError(
                f"{name} holds a regression that cannot predict ({type(exc).__name__}); fit again with "
                "`tale fit`"
            ) from exc
        return loaded

    def _take(self, facts: FitFacts, pipeline: Any) -> None:
        intercept, weights = _fitting().weights_of(pipeline)
        if not all(map(math.isfinite, (intercept, *weights))):
            raise InvalidValueError("a regression's weights are finite numbers; fit again with `tale fit`")
        self._fitted = _Fitted(facts=facts, pipeline=pipeline, intercept=intercept, weights=weights)

    def _ready(self) -> _Fitted:
        if self._fitted is None:
            raise InvalidValueError(
                "the regression was not fitted; call fit(traces), or use RegressionEstimator.load(path)"
            )
        return self._fitted

    def __repr__(self) -> str:
        fitted = "not fitted" if self._fitted is None else f"fitted to {self._fitted.facts.examples} questions"
        return f"RegressionEstimator(quantile={self.quantile}) <{fitted}>"


def _fitting() -> ModuleType:
    try:
        from tale_core.estimators import fitting  # noqa: PLC0415  # needs the extra `learn`
    except ImportError as exc:
        raise MissingExtraError(exc.name or "scikit-learn", "learn") from exc
    return fitting


def _check_enough(budgets: Sequence[int], questions: int, skipped: int) -> None:
    if questions < _FEWEST:
        also = f" ({skipped} more searches found no budget)" if skipped else ""
        raise InvalidValueError(
            f"a regression needs at least {_FEWEST} different questions with a budget, got {questions}{also}; "
            "search more with `tale search`"
        )
    if min(budgets) == max(budgets):
        raise InvalidValueError(
            f"all {questions} questions have the same budget, {budgets[0]}, so there is nothing to learn; use "
            f"FixedEstimator({budgets[0]})"
        )


def _facts_from(header: str, name: str) -> FitFacts:
    """Read the header of a file, its version first."""
    try:
        version = json.loads(header).get("version")
        facts = FitFacts.model_validate_json(header) if version == _VERSION else None
    except (ValueError, AttributeError, TypeError) as exc:  # pydantic's errors are ValueErrors
        raise InvalidValueError(f"{name} has a header that cannot be read; fit again with `tale fit`") from exc
    if facts is None or facts.features != FEATURES:
        raise InvalidValueError(
            f"{name} was written by another version of tale-reasoning (layout {version}, here {_VERSION}); "
            "fit again with `tale fit`"
        )
    return facts
