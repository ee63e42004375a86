"""What every metric is computed from, and the registry they are entered in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.messages import DataError
from core.probability_rows import ProbabilityRows
from core.registry import Registry
from core.row_statistics import RowStatistics
from core.softmax import row_statistics

__all__ = [
    "METRICS",
    "RowScores",
    "one_weighting",
    "row_scores",
    "scores_from_probabilities",
    "without_noise",
]

FloatArray = NDArray[np.floating[Any]]

_DIGITS = 12  # decimals of confidence that are kept
_TOLERATED = 1e-2  # departure of a row of probabilities from a sum of 1

METRICS = Registry("metric")
"""Metrics by id.

Traits of a metric: ``needs`` ("rows", "bins" or "design"), ``direction`` ("lower",
"higher" or "zero" is better, or "none"), ``unit`` ("share" or "nats" or ""),
``views`` it makes sense in, ``field`` of `RowScores` that must be there, and
``statistic``: a function of `RowScores` and weights of shape (b, n) that returns b
values (needs "rows"), or a function of `RowScores` and
`core.metrics.estimation.Bins` that returns an `Estimate` (needs "bins"), or a
function of `RowScores` and `core.metrics.design.Design` that returns an `Estimate`
(needs "design", with ``point`` for its value alone). A metric that needs rows may
have one of two more, by which many resamples are quicker: ``values``, where it is a
weighted mean, is the function of `RowScores` that returns what is averaged, shape
(n,); ``joint`` is a function that makes several metrics in one pass, shape (b, m),
and the column of this one. Metrics of the tier "more" are computed only when they are
asked for by id.
"""


class ConfidenceOrder(NamedTuple):
    """Rows sorted by falling confidence.

    Attributes
    ----------
    rows : ndarray of int64 of shape (n,)
        Row at each place; rows of equal confidence in the order of the file.
    ends : ndarray of int64 of shape (n_distinct,)
        Place after the last row of each confidence.
    outcome : ndarray of shape (n,)
        Outcomes in that order.
    """

    rows: NDArray[np.int64]
    ends: NDArray[np.int64]
    outcome: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class RowScores:
    """Per-row values that every row metric is a function of.

    Parameters
    ----------
    confidence : ndarray of shape (n,)
        Probability of the predicted class, or of the positive class.
    outcome : ndarray of shape (n,)
        1.0 where the prediction was right, or where the positive class came true.
    nll : ndarray of shape (n,) or None
        Negative log probability of the label, in nats; None for files that hold
        confidences only.
    brier : ndarray of shape (n,) or None
        Squared error of the probabilities: (p - y)^2 of the positive class for two
        classes, summed over classes for more.
    entropy : ndarray of shape (n,) or None
        Entropy of the class probabilities, in nats.
    probabilities : ndarray or ProbabilityRows of shape (n, k), or None
        Whole rows, where a metric that was asked for needs them.
    labels : ndarray of int64 of shape (n,) or None
        Columns, where there are whole rows.
    view : {"top-label", "positive-class"}
    """

    confidence: FloatArray
    outcome: FloatArray
    nll: FloatArray | None = None
    brier: FloatArray | None = None
    view: str = "top-label"
    entropy: FloatArray | None = None
    probabilities: FloatArray | ProbabilityRows | None = None
    labels: NDArray[np.int64] | None = None
    _order: list[ConfidenceOrder] = field(default_factory=list, init=False, repr=False)

    def __len__(self) -> int:
        return int(self.confidence.shape[0])

    @property
    def by_confidence(self) -> ConfidenceOrder:
        """Rows by falling confidence, sorted once."""
        if not self._order:
            rows = np.argsort(-self.confidence, kind="stable")
            ordered = self.confidence[rows]
            ends = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True]) + 1
            self._order.append(ConfidenceOrder(rows, ends, self.outcome[rows]))
        return self._order[0]

    def take(self, rows: NDArray[Any]) -> RowScores:
        """Return some of the rows."""
        return RowScores(
            confidence=self.confidence[rows],
            outcome=self.outcome[rows],
            nll=None if self.nll is None else self.nll[rows],
            brier=None if self.brier is None else self.brier[rows],
            view=self.view,
            entropy=None if self.entropy is None else self.entropy[rows],
            probabilities=(
                None if self.probabilities is None else self.probabilities[rows]
            ),
            labels=None if self.labels is None else self.labels[rows],
        )


def without_noise(confidence: FloatArray) -> FloatArray:
    """Round off what must neither break ties nor carry a value over an edge."""
    return np.asarray(np.round(confidence, _DIGITS))


def row_scores(
    rows: RowStatistics,
    n_classes: int,
    *,
    view: str = "top-label",
    positive: int = 1,
) -> RowScores:
    """Return the per-row values of labelled rows in one view.

    Parameters
    ----------
    rows : RowStatistics
        From `core.softmax.row_statistics` with labels.
    n_classes : int
        0 for files that hold confidences only.
    view : {"top-label", "positive-class"}, default="top-label"
        "positive-class" needs two classes.
    positive : int, default=1
        The positive class.
    """
    if rows.correct is None:
        msg = "row_scores needs statistics with labels"
        raise ValueError(msg)
    nll = brier = None
    if rows.label_log_probability is not None and rows.squared_sum is not None:
        nll = -rows.label_log_probability
        brier = 1.0 - 2.0 * np.exp(-nll) + rows.squared_sum
        if n_classes == 2:
            brier = brier / 2.0
        brier = np.maximum(brier, 0.0)
    confidence = rows.confidence
    outcome = rows.correct.astype(np.float64)
    if view == "positive-class":
        if n_classes != 2 or rows.prediction is None:
            msg = "the positive-class view needs class scores of two classes"
            raise ValueError(msg)
        is_positive = rows.prediction == positive
        # A right prediction of the other class is an outcome 0, a wrong one 1.
        outcome = np.where(is_positive, outcome, 1.0 - outcome)
        confidence = np.where(is_positive, confidence, 1.0 - confidence)
    return RowScores(without_noise(confidence), outcome, nll, brier, view, rows.entropy)


def scores_from_probabilities(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    view: str = "top-label",
) -> RowScores:
    """Return the per-row values of labels and probabilities as users hold them.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Class indices, or names where `labels` gives them in column order.
    y_prob : array-like of shape (n, k), or (n,) for the positive class
        Probabilities.
    labels : array-like of shape (k,), optional
        Class names in column order.
    view : {"top-label", "positive-class"}, default="top-label"
    """
    probabilities = np.asarray(y_prob, dtype=np.float64)
    if probabilities.ndim == 2 and probabilities.shape[1] == 1:
        probabilities = probabilities[:, 0]
    if probabilities.ndim == 1:
        probabilities = np.column_stack([1.0 - probabilities, probabilities])
    truth = np.asarray(y_true)
    if labels is not None:
        names = np.asarray(labels)
        order = np.argsort(names)
        place = np.searchsorted(names, truth, sorter=order).clip(0, names.size - 1)
        indices = order[place]
        if (names[indices] != truth).any():
            odd = truth[names[indices] != truth][0]
            raise DataError(f"The label {odd!r} is not among the classes.", "y_true")
        truth = indices
    is_matrix = probabilities.ndim == 2 and truth.shape == probabilities.shape[:1]
    if not is_matrix or truth.dtype.kind not in "iub":
        raise DataError(
            f"y_true has shape {truth.shape} and type {truth.dtype}, y_prob has shape "
            f"{probabilities.shape}.",
            "y_true",
            "Give one class index per row of y_prob, or names with labels=[...].",
        )
    if not ((probabilities >= 0) & (probabilities <= 1 + 1e-9)).all():
        raise DataError(
            "y_prob holds values outside 0 to 1.",
            "y_prob",
            "Give probabilities: softmax(logits) if you have logits.",
        )
    far = np.abs(probabilities.sum(axis=1) - 1)
    if far.size and far.max() > _TOLERATED:
        raise DataError(
            f"A row of y_prob sums to {probabilities[far.argmax()].sum():.4g}.",
            f"y_prob, row {far.argmax() + 1}",
            "Give probabilities that sum to 1: softmax(logits) if you have logits.",
        )
    if (truth < 0).any():
        raise DataError(
            f"A label is {truth.min()}.", "y_true", "Leave unlabelled rows out."
        )
    with np.errstate(divide="ignore"):
        rows = row_statistics(np.log(probabilities), truth.astype(np.int64))
    scores = row_scores(rows, probabilities.shape[1], view=view)
    return replace(scores, probabilities=probabilities, labels=truth.astype(np.int64))


def one_weighting(sample_weight: ArrayLike | None, n: int) -> FloatArray:
    """Return the weights as one row of shape (1, n); equal ones by default."""
    weights = np.ones(n) if sample_weight is None else np.asarray(sample_weight)
    if weights.shape != (n,):
        raise DataError(
            f"sample_weight has shape {weights.shape}, there are {n} rows.",
            "sample_weight",
            "Give one weight per row.",
        )
    weights = weights.astype(np.float64)
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise DataError(
            "sample_weight holds negative values, values not finite, or only zeros.",
            "sample_weight",
            "Give finite weights, none of them negative and some of them positive.",
        )
    return weights[None, :]
