"""What is asked of the arrays that calibrators are given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.messages import DataError

__all__ = [
    "checked_features",
    "checked_labels",
    "checked_weight",
    "looks_like_probabilities",
    "possible_weight",
    "validated",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]


def validated(
    estimator: Any, values: ArrayLike, y: ArrayLike | None, *, reset: bool
) -> FloatArray:
    """Return scores as scikit-learn's `validate_data` does, and keep their number."""
    # Arrays that leave it nothing to do are not worth importing scikit-learn for.
    if _is_plain(values, y, reset=reset) and not hasattr(
        estimator, "feature_names_in_"
    ):
        width = np.shape(values)[1]
        if reset:
            estimator.n_features_in_ = width
        if width == estimator.n_features_in_:
            return np.ascontiguousarray(values)
    from sklearn.utils.validation import validate_data

    both = {"y": y, "multi_output": False} if reset else {}
    found = validate_data(
        estimator,
        values,
        reset=reset,
        dtype=[np.float64, np.float32],
        order="C",
        ensure_all_finite=False,
        **both,
    )
    return np.asarray(found[0] if both else found)


def _is_plain(values: Any, y: Any, *, reset: bool) -> bool:
    if type(values) is not np.ndarray or values.ndim != 2 or not values.size:
        return False
    if values.dtype not in (np.float32, np.float64):
        return False
    if not reset:
        return True
    is_whole = type(y) is np.ndarray and y.dtype.kind in "iu"
    return is_whole and y.shape == values.shape[:1]


def looks_like_probabilities(scores: FloatArray) -> bool:
    """Return whether every row lies in 0 to 1 and sums to 1."""
    n, k = scores.shape
    if k < 2 or not n:
        return False
    # Logits give themselves away in the first row.
    for head in (scores[:1], scores[:1000]):
        if not ((head >= 0) & (head <= 1)).all():
            return False
        if not (np.abs(head.sum(axis=1) - 1) <= 1e-3).all():
            return False
    return True


def checked_labels(y: ArrayLike, n: int, k: int) -> IndexArray:
    """Return labels as column numbers, or raise DataError."""
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind == "f" and (labels == np.floor(labels)).all():
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iub" or labels.shape != (n,):
        raise DataError(
            f"Unknown label type: labels must be whole numbers, got {labels.dtype} of "
            f"shape {labels.shape}.",
            "y",
            "Give the column number of each row's class.",
        )
    bad = np.flatnonzero((labels < 0) | (labels >= k))
    if bad.size:
        raise DataError(
            f"The label {labels[bad[0]]} is not a column of the {k} scores.",
            f"y, row {bad[0] + 1}",
            "Number the classes from 0 in column order; leave unlabelled rows out.",
        )
    return labels.astype(np.int64)


def checked_features(value: ArrayLike, n: int) -> FloatArray:
    """Return features of n rows, or raise DataError."""
    array = np.asarray(value)
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    is_shaped = array.ndim == 2 and array.shape[0] == n and array.shape[1]
    if not is_shaped or np.isnan(array).any():
        raise DataError(
            f"features has shape {array.shape} or holds NaN.",
            "features",
            f"Give numbers of shape ({n}, d), for the same rows as the logits.",
        )
    return array


def checked_weight(weight: ArrayLike | None, n: int) -> FloatArray:
    """Return n weights, ones by default, or raise DataError."""
    if weight is None:
        return np.ones(n)
    values = np.asarray(weight, dtype=np.float64)
    if values.shape != (n,) or not np.isfinite(values).all() or (values < 0).any():
        raise DataError(
            f"sample_weight has shape {values.shape} or holds values that are negative "
            "or not finite.",
            "sample_weight",
            f"Give {n} finite weights, none of them negative.",
        )
    if values.sum() <= 0:
        what = "All weights are zero."
        raise DataError(what, "sample_weight", "Give some rows weight.")
    return values


def possible_weight(
    logits: FloatArray, y: IndexArray, sample_weight: FloatArray
) -> FloatArray:
    """Return the weights, 0 where a label is ruled out: its loss is always infinite."""
    is_possible = np.isfinite(logits[np.arange(y.size), y])
    return np.where(is_possible, sample_weight, 0.0)
