"""Fitting and checking a budget regression; the one estimator module that needs the extra ``learn``.

The model is linear in the logarithm of the budget: counts of the question (and, where asked for, the main
directions of its hashed n-grams or of its embedding), scaled, into a quantile regression with an L1 penalty
that cross-validation chooses. A few hundred searched questions do not carry more, and the penalty may take
away every weight, which leaves one budget for all.
"""

from __future__ import annotations

import io
from itertools import compress
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED

import numpy as np
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import QuantileRegressor
from sklearn.metrics import make_scorer, mean_pinball_loss
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from tale_core.errors import InvalidValueError
from tale_core.estimators.linear import Layout, Weights, tokens_of
from tale_core.estimators.scoring import score
from tale_core.estimators.training import FitReport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from tale_core.estimators.training import BudgetExample

_PENALTIES = (0.1, 0.03, 0.01, 0.003, 0.001)
_FOLDS = 5
_INNER_FOLDS = 3
_DIRECTIONS = 16
_EXAMPLES_PER_DIRECTION = 5
_NO_SPREAD = 1e-12
_MARK = "tale budget regression"


def fit_pipeline(
    matrix: Sequence[Sequence[float]] | NDArray[np.float64],
    budgets: Sequence[int] | NDArray[np.int_],
    groups: Sequence[str],
    *,
    layout: Layout,
    quantile: float,
) -> Pipeline:
    """Fit the logarithm of budgets.

    Args:
        matrix: One row for each question, columns as in ``layout``.
        budgets: Output tokens, one for each row.
        groups: Which rows are the same question, so that none is on both sides of a split.
        layout: What the columns hold.
        quantile: The quantile to fit, between 0 and 1.
    """
    columns = _columns(layout, examples=len(budgets))
    # Found once, not once for each penalty: they do not look at the budgets.
    scaled = columns.fit_transform(matrix)
    search = GridSearchCV(
        QuantileRegressor(quantile=quantile),
        {"alpha": _PENALTIES},
        scoring=make_scorer(mean_pinball_loss, greater_is_better=False, alpha=quantile),
        cv=GroupKFold(_INNER_FOLDS, shuffle=True, random_state=0),
    )
    search.fit(scaled, np.log(budgets), groups=groups)
    return Pipeline([*columns.steps, ("quantile", search.best_estimator_)])


def _columns(layout: Layout, *, examples: int) -> Pipeline:
    most = min(_DIRECTIONS, examples // _EXAMPLES_PER_DIRECTION)
    counts, ngrams, embedding = layout.blocks()
    blocks: list[tuple[str, Any, slice]] = [("counts", "passthrough", counts)]
    if layout.ngrams:
        blocks.append(("ngrams", TruncatedSVD(min(most, layout.ngrams), random_state=0), ngrams))
    if layout.dimensions:
        blocks.append(("embedding", PCA(min(most, layout.dimensions), random_state=0), embedding))
    return Pipeline(
        [
            ("columns", ColumnTransformer(blocks)),
            # Questions may have fewer directions than are asked for: what is left is noise of the arithmetic,
            # and scaled to the spread of the others it would decide everything.
            ("spread", VarianceThreshold(_NO_SPREAD)),
            ("scale", StandardScaler()),
        ]
    )


def weights_of(pipeline: Pipeline, layout: Layout) -> Weights:
    """Return what a fitted pipeline multiplies each column with."""
    probes = np.vstack([np.zeros(layout.width), np.eye(layout.width)])
    intercept, *shifted = pipeline.predict(probes).tolist()
    slopes = tuple(value - intercept for value in shifted)
    counts, ngrams, embedding = (slopes[block] for block in layout.blocks())
    return Weights(intercept=intercept, counts=counts, ngrams=ngrams, embedding=embedding)


def cross_validate(
    matrix: Sequence[Sequence[float]],
    examples: Sequence[BudgetExample],
    groups: Sequence[str],
    *,
    layout: Layout,
    quantile: float,
    zero_shot: Mapping[str, int | None] | None,
) -> FitReport:
    """Score the regression on questions it has not seen, beside what it has to beat.

    Args:
        matrix: One row for each example.
        examples: Questions with their budgets.
        groups: Which rows are the same question.
        layout: What the columns hold.
        quantile: The quantile to fit.
        zero_shot: Zero-shot estimates by question, None for an unusable one. All scores are then taken over
            these questions alone, so that they can be compared.

    Raises:
        InvalidValueError: None of the questions has a zero-shot estimate.
    """
    rows, budgets = np.array(matrix), np.array([one.tokens for one in examples])
    estimates: dict[str, list[int | None]] = {"regression": [None] * len(examples)}
    estimates["one budget"] = list(estimates["regression"])
    for seen, unseen in GroupKFold(_FOLDS, shuffle=True, random_state=0).split(rows, groups=groups):
        known = [groups[row] for row in seen]
        fitted = fit_pipeline(rows[seen], budgets[seen], known, layout=layout, quantile=quantile)
        for row, value in zip(unseen, fitted.predict(rows[unseen]), strict=True):
            estimates["regression"][row] = tokens_of(value, min(budgets[seen]), max(budgets[seen]))
            estimates["one budget"][row] = int(np.quantile(budgets[seen], quantile, method="higher"))
    if zero_shot is not None:
        estimates["zero-shot"] = [zero_shot.get(one.question) for one in examples]
    asked = [zero_shot is None or one.question in zero_shot for one in examples]
    if not any(asked):
        raise InvalidValueError(
            "none of the questions has a zero-shot estimate; key them by the question's text"
        )
    scores = [
        score(name, list(compress(examples, asked)), list(compress(guesses, asked)), quantile)
        for name, guesses in estimates.items()
    ]
    return FitReport(quantile=quantile, folds=_FOLDS, scores=tuple(scores))


def dump_pipeline(pipeline: Pipeline, facts: str) -> bytes:
    """Return a fitted pipeline and its facts as the content of a skops file."""
    content = io.BytesIO()
    skops.io.dump({"format": _MARK, "facts": facts, "pipeline": pipeline}, content, compression=ZIP_DEFLATED)
    return content.getvalue()


def load_pipeline(content: bytes, name: str) -> tuple[Pipeline, str]:
    """Return the pipeline and the facts of a skops file; nothing in it is executed.

    Args:
        content: The file.
        name: What to call it in an error.

    Raises:
        InvalidValueError: It is not one of ours, is damaged, or holds types that scikit-learn does not bring.
    """
    try:
        unknown = skops.io.get_untrusted_types(data=content)
        loaded = None if unknown else skops.io.loads(content)
    except Exception as exc:  # skops lets through whatever the zip file or the schema inside leads to
        raise InvalidValueError(
            f"{name} is no budget regression, or is damaged ({type(exc).__name__}); make one with `tale fit`"
        ) from exc
    if unknown:
        raise InvalidValueError(
            f"{name} holds types that no budget regression has, and was not loaded: {', '.join(unknown)}"
        )
    if not isinstance(loaded, dict) or loaded.get("format") != _MARK:
        raise InvalidValueError(f"{name} is a skops file, but no budget regression; make one with `tale fit`")
    return loaded["pipeline"], loaded["facts"]
