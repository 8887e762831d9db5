"""Fitting and checking a budget regression; the one estimator module that needs the extra ``learn``.

The model is linear in the logarithm of the budget: counts of the question, scaled, into a quantile regression
with an L1 penalty that cross-validation chooses. A few hundred searched questions do not support more, and the
penalty may remove every weight, which leaves one budget for all.
"""

from __future__ import annotations

import io
import json
import math
from itertools import compress
from statistics import fmean
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import QuantileRegressor
from sklearn.metrics import make_scorer, mean_pinball_loss
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from tale_core.errors import InvalidValueError
from tale_core.estimators.features import FEATURES, tokens_of
from tale_core.estimators.training import FitReport, Score
from tale_core.statistics import Interval, mean_interval, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from tale_core.estimators.training import Bounds, BudgetExample

_PENALTIES = (0.1, 0.03, 0.01, 0.003, 0.001)
_FOLDS = 5
_INNER_FOLDS = 3
_NO_SPREAD = 1e-12
_MARK = "tale budget regression"

_SCHEMA = "schema.json"
_MOST_MEMBERS = 64
_MOST_SCHEMA = 4_000_000
_MOST_ARRAY = 100_000
"""Bytes of one array; those of a regression have one value for each feature."""
# skops trusts all of scikit-learn, where a small file can ask for gigabytes: this is what a regression needs.
_LOADERS = {
    "DictNode",
    "ListNode",
    "TupleNode",
    "JsonNode",
    "TypeNode",
    "SliceNode",
    "NdArrayNode",
    "ObjectNode",
}
_STEPS = (VarianceThreshold, StandardScaler, QuantileRegressor, ColumnTransformer, FunctionTransformer)
"""The last two, which pass columns on, are in files of earlier versions."""
_TYPES = {
    *(
        ("builtins", name)
        for name in ("dict", "list", "tuple", "str", "int", "float", "bool", "NoneType", "slice")
    ),
    *(("numpy", name) for name in ("ndarray", "float64", "int64")),
    *((kind.__module__, kind.__name__) for kind in (Pipeline, *_STEPS)),
}


def fit_pipeline(
    matrix: Sequence[Sequence[float]] | NDArray[np.float64],
    budgets: Sequence[int] | NDArray[np.int_],
    groups: Sequence[str],
    *,
    quantile: float,
) -> Pipeline:
    """Fit the logarithm of budgets.

    Args:
        matrix: One row of features for each question.
        budgets: Output tokens, one for each row.
        groups: Which rows are the same question, so that none is on both sides of a split.
        quantile: The quantile to fit, between 0 and 1.
    """
    # A count that hardly varies is noise, and scaled to the spread of the others it would decide everything.
    columns = Pipeline([("spread", VarianceThreshold(_NO_SPREAD)), ("scale", StandardScaler())])
    # Fitted once, not once for each penalty: they do not look at the budgets.
    scaled = columns.fit_transform(matrix)
    search = GridSearchCV(
        QuantileRegressor(quantile=quantile),
        {"alpha": _PENALTIES},
        scoring=make_scorer(mean_pinball_loss, greater_is_better=False, alpha=quantile),
        cv=GroupKFold(_INNER_FOLDS, shuffle=True, random_state=0),
    )
    search.fit(scaled, np.log(budgets), groups=groups)
    return Pipeline([*columns.steps, ("quantile", search.best_estimator_)])


def weights_of(pipeline: Pipeline) -> tuple[float, tuple[float, ...]]:
    """Return the intercept of a fitted pipeline, and what it multiplies each feature with."""
    probes = np.vstack([np.zeros(len(FEATURES)), np.eye(len(FEATURES))])
    intercept, *shifted = pipeline.predict(probes).tolist()
    return intercept, tuple(value - intercept for value in shifted)


def cross_validate(
    matrix: Sequence[Sequence[float]],
    examples: Sequence[BudgetExample],
    groups: Sequence[str],
    *,
    quantile: float,
    zero_shot: Mapping[str, int | None] | None,
) -> FitReport:
    """Score the regression on questions it has not seen, beside what it has to beat.

    Args:
        matrix: One row for each example.
        examples: Questions with their budgets.
        groups: Which rows are the same question.
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
        fitted = fit_pipeline(rows[seen], budgets[seen], known, quantile=quantile)
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


def score(
    name: str, examples: Sequence[BudgetExample], estimates: Sequence[int | None], quantile: float
) -> Score:
    """Score the estimates of one estimator.

    Args:
        name: The estimator.
        examples: Questions with their budgets, at least one.
        estimates: Output tokens, one for each example; None for an unusable estimate.
        quantile: The quantile of the pinball loss.
    """
    short = [one.tokens - guess for one, guess in zip(examples, estimates, strict=True) if guess is not None]
    error, error_interval = _mean([abs(one) for one in short])
    pinball, pinball_interval = _mean([max(quantile * one, (quantile - 1) * one) for one in short])
    inside = [
        guess is not None and guess in one.ideal
        for one, guess in zip(examples, estimates, strict=True)
        if one.ideal is not None
    ]
    return Score(
        name=name,
        questions=len(examples),
        unusable=len(examples) - len(short),
        error=error,
        error_interval=error_interval,
        pinball=pinball,
        pinball_interval=pinball_interval,
        in_range=sum(inside) / len(inside) if inside else None,
        in_range_interval=_bounds(wilson_interval(sum(inside), len(inside))) if inside else None,
    )


def _mean(values: Sequence[float]) -> tuple[float, Bounds] | tuple[None, None]:
    return (fmean(values), _bounds(mean_interval(values))) if values else (None, None)


def _bounds(interval: Interval) -> Bounds:
    return interval.low, interval.high


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
        InvalidValueError: It is no regression that `dump_pipeline` wrote, is damaged, or holds unknown types.
    """
    try:
        _check_sizes(content)
        unknown = _unknown_types(content) or skops.io.get_untrusted_types(data=content)
        loaded = None if unknown else skops.io.loads(content)
    except InvalidValueError as exc:
        raise InvalidValueError(f"{name} {exc}, which no budget regression has, and was not loaded") from exc
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
    pipeline, facts = loaded.get("pipeline"), loaded.get("facts")
    steps = [step for _, step in pipeline.steps] if isinstance(pipeline, Pipeline) else [None]
    # With several jobs, predicting would start processes.
    harmless = all(isinstance(step, _STEPS) and getattr(step, "n_jobs", None) is None for step in steps)
    if not harmless or not isinstance(facts, str):
        raise InvalidValueError(
            f"{name} holds something else than a budget regression; make one with `tale fit`"
        )
    return pipeline, facts


def _check_sizes(content: bytes) -> None:
    """Refuse a file that grows when it is unpacked, before anything is.

    Raises:
        InvalidValueError: It does.
    """
    with ZipFile(io.BytesIO(content)) as packed:
        members = packed.infolist()
        if len(members) > _MOST_MEMBERS:
            raise InvalidValueError(f"holds {len(members)} files")
        for member in members:
            # The size that is stated is also what is read at most.
            if member.file_size > (_MOST_SCHEMA if member.filename == _SCHEMA else _MOST_ARRAY):
                raise InvalidValueError(f"holds {member.file_size:,} bytes in {member.filename!r}")
            if member.filename != _SCHEMA:
                _check_array(packed.read(member), member.filename)


def _check_array(content: bytes, name: str) -> None:
    """Compare the shape that an array states with its bytes: numpy asks for the memory before it reads them.

    Raises:
        InvalidValueError: They differ.
    """
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise InvalidValueError(f"holds an array of another format in {name!r}")
    shape, _, kind = np.lib.format.read_array_header_1_0(file)
    if kind.hasobject or math.prod(shape) * kind.itemsize != len(content) - file.tell():
        raise InvalidValueError(f"holds an array of shape {shape} in {len(content):,} bytes")


def _unknown_types(content: bytes) -> list[str]:
    """Return what a file would load that is no part of a regression."""
    with ZipFile(io.BytesIO(content)) as packed:
        waiting: list[Any] = [json.loads(packed.read(_SCHEMA))]
    found = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            loader, kind = node.get("__loader__"), (node.get("__module__"), node.get("__class__"))
            if loader is not None and (loader not in _LOADERS or kind not in _TYPES):
                found.add(f"{kind[0]}.{kind[1]} ({loader})")
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
    return sorted(found)
