"""Doubts that the rows themselves raise, in words: what may be wrong with a file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from core.messages import Note
from core.predictions import Predictions, as_keys
from core.softmax import RowStatistics
from core.splitting import Split
from core.uncertainty import wilson_interval

__all__ = ["doubts"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_FEW = 50  # labelled rows below which nothing is said
_MOST_CLASSES = 300  # that are permuted
_SATURATED = 0.999
_MOST_CELLS = 20_000_000  # scores that are searched for duplicates


def doubts(
    own: Predictions, rows: RowStatistics, used: IndexArray, split: Split | None
) -> tuple[Note, ...]:
    """Return what a careful reader would ask about these rows.

    Parameters
    ----------
    own : Predictions
    rows : RowStatistics
        Of all rows of the file.
    used : ndarray of int64
        Labelled rows in use.
    split : Split or None
    """
    found: list[Note | None] = [
        _duplicates(own, rows),
        _shared_ids(own, split),
        _softmax_twice(own),
    ]
    if used.size >= _FEW and own.labels is not None and rows.prediction is not None:
        labels, prediction = own.labels[used], rows.prediction[used]
        found += [
            _permuted(own, labels, prediction),
            _degenerate(own, labels, prediction, rows.confidence[used]),
        ]
    return tuple(note for note in found if note is not None)


def _permuted(
    own: Predictions, labels: IndexArray, prediction: IndexArray
) -> Note | None:
    """Accuracy at chance, and whether another order of the columns would mend it."""
    k, n = own.n_classes, labels.size
    accuracy = float((labels == prediction).mean())
    high = float(wilson_interval(accuracy, n, 0.99)[1])
    most = np.bincount(labels, minlength=k).max() / n
    if k < 2 or high >= max(0.5, most) or most > 0.9:
        return None
    words = f"Accuracy is {100 * accuracy:.1f} %"
    if 2 <= k <= _MOST_CLASSES:
        counts = np.bincount(labels * k + prediction, minlength=k * k).reshape(k, k)
        label, column = linear_sum_assignment(counts, maximize=True)
        best = counts[label, column].sum() / n
        # Of k! orders the best one always gains a little.
        if best >= max(2 * accuracy, 0.5) and best - accuracy > 0.25:
            return Note(
                "labels-permuted",
                "question",
                f"{words}, but {100 * best:.1f} % if the score columns belonged to "
                "other classes. Are labels and columns in the same order?",
            )
    low = float(wilson_interval(accuracy, n, 0.99)[0])
    if low <= 1 / k:
        return Note(
            "accuracy-at-chance",
            "question",
            f"{words}, no better than guessing among {k:,} classes. Are labels and "
            "score columns in the same order?",
        )
    return None


def _degenerate(
    own: Predictions,
    labels: IndexArray,
    prediction: IndexArray,
    confidence: FloatArray,
) -> Note | None:
    """One class for every row, or one confidence for every row."""
    seen = np.unique(labels)
    if seen.size > 1 and np.all(prediction == prediction[0]):
        name = own.classes[int(prediction[0])]
        return Note(
            "one-prediction",
            "warning",
            f"Every row is predicted as {name!r}, whatever its label: confidence says "
            "nothing about single rows.",
        )
    if np.ptp(confidence) < 1e-6:
        return Note(
            "one-confidence",
            "warning",
            f"Every row has the confidence {confidence[0]:.3g}: it says nothing about "
            "single rows.",
        )
    return None


def _softmax_twice(own: Predictions) -> Note | None:
    """Probabilities that are a softmax of numbers from 0 to 1 that sum to 1."""
    if own.input_kind != "probabilities" or own.logits is None or len(own) < _FEW:
        return None
    k = own.n_classes
    logs = np.asarray(own.logits[: max(1, _MOST_CELLS // k)], dtype=np.float64)
    if k < 3 or not np.isfinite(logs).all():
        return None
    inner = logs + (1 - logs.sum(axis=1, keepdims=True)) / k
    # Honest probabilities near 1/k fit too, but do not end just at 0 and near 1.
    low, high = float(inner.min()), float(inner.max())
    if not (-1e-4 <= low < 0.05 and 0.8 < high <= 1 + 1e-4):
        return None
    return Note(
        "softmax-twice",
        "question",
        "These look like a softmax of probabilities: it was applied twice. The "
        f"largest probability is {np.exp(logs.max()):.2f}. Save the scores before "
        "the last softmax.",
    )


def _duplicates(own: Predictions, rows: RowStatistics) -> Note | None:
    """Rows whose scores and label are those of an earlier row.

    Binary scores and saturated rows are alike by chance and do not count.
    """
    if own.logits is None or own.logits.size > _MOST_CELLS or own.n_classes < 3:
        return None
    unsure = np.flatnonzero(rows.confidence < _SATURATED)
    parts = [own.logits[unsure]]
    if own.labels is not None:
        parts.append(own.labels[unsure, None].astype(own.logits.dtype))
    whole = np.ascontiguousarray(np.hstack(parts))
    keys = whole.view(np.dtype((np.void, whole.shape[1] * whole.itemsize))).ravel()
    n = int(keys.size - np.unique(keys).size)
    if n < max(2, len(own) // 1000):
        return None
    tail = (
        "Give a group column, so that copies stay together."
        if own.roles.group is None
        else "Are they copies?"
    )
    return Note(
        "duplicated-rows",
        "question",
        f"{n:,} rows have the scores and the label of another row. {tail}",
    )


def _shared_ids(own: Predictions, split: Split | None) -> Note | None:
    """Ids that are in the fit rows and in the test rows of one round."""
    column = own.column("id")
    if column is None or split is None or split.kind == "fit-file":
        return None
    ids = pd.Series(as_keys(column).to_numpy())
    if not ids.duplicated().any():
        return None
    shared: set[Any] = set()
    for item in split.rounds:
        shared |= set(ids.iloc[item.fit].dropna()) & set(ids.iloc[item.test].dropna())
    if not shared:
        return None
    return Note(
        "id-in-two-roles",
        "warning",
        f"{len(shared):,} ids are both among the rows that fit and among those that "
        "test. Give a group column, so that such rows stay together.",
    )
