"""Accuracy, signed gap and proper scoring rules: means over rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.kernels.resampling import _sums_kernel
from core.metrics.base import (
    METRICS,
    RowScores,
    one_weighting,
    scores_from_probabilities,
)

__all__ = ["accuracy", "brier_score", "negative_log_likelihood", "signed_gap"]

FloatArray = NDArray[np.floating[Any]]


class WeightedMeans:
    """Means of several per-row values under many weightings, in one pass.

    Parameters
    ----------
    values : sequence of ndarray of shape (n,)
        What is averaged, m of them.
    """

    def __init__(self, values: Sequence[FloatArray]) -> None:
        self._values = np.array([*values, np.ones(len(values[0]))], dtype=np.float64)
        # An infinite loss that was not drawn must not turn into 0 x inf = NaN.
        self._infinite = {
            i: row for i, row in enumerate(values) if not np.isfinite(row).all()
        }
        self._values[list(self._infinite)] = 0.0

    def __call__(self, weights: FloatArray) -> FloatArray:
        """Return the means under each row of weights, shape (b, n) -> (b, m)."""
        lanes = np.ascontiguousarray(weights.T)
        sums = np.empty((self._values.shape[0], lanes.shape[1]))
        _sums_kernel(lanes, self._values, sums)
        with np.errstate(invalid="ignore"):
            for i, values in self._infinite.items():
                drawn = np.where(weights > 0, values, 0.0) * weights
                sums[i] = drawn.sum(axis=1)
            return np.asarray((sums[:-1] / sums[-1]).T)


def correctness(scores: RowScores) -> FloatArray:
    """Return 1 where the prediction was right."""
    return scores.outcome


def residual(scores: RowScores) -> FloatArray:
    """Return confidence minus outcome."""
    return np.asarray(scores.confidence - scores.outcome)


def row_nll(scores: RowScores) -> FloatArray:
    """Return the negative log probability of the label."""
    assert scores.nll is not None  # noqa: S101 - the registry says it is needed
    return scores.nll


def row_brier(scores: RowScores) -> FloatArray:
    """Return the squared error of the probabilities."""
    assert scores.brier is not None  # noqa: S101 - the registry says it is needed
    return scores.brier


def mean_outcome(scores: RowScores, weights: FloatArray) -> FloatArray:
    """Share of right predictions."""
    return WeightedMeans([correctness(scores)])(weights)[:, 0]


def mean_gap(scores: RowScores, weights: FloatArray) -> FloatArray:
    """Mean confidence minus share of right predictions."""
    return WeightedMeans([residual(scores)])(weights)[:, 0]


def mean_nll(scores: RowScores, weights: FloatArray) -> FloatArray:
    """Mean negative log probability of the label."""
    return WeightedMeans([row_nll(scores)])(weights)[:, 0]


def mean_brier(scores: RowScores, weights: FloatArray) -> FloatArray:
    """Mean squared error of the probabilities."""
    return WeightedMeans([row_brier(scores)])(weights)[:, 0]


@METRICS.register(
    "accuracy",
    label="Accuracy",
    reference="-",
    formula=r"\frac1n\sum_i \mathbf 1[\hat y_i = y_i]",
    needs="rows",
    direction="higher",
    unit="share",
    views=("top-label",),
    field="outcome",
    statistic=mean_outcome,
    values=correctness,
)
def accuracy(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """Share of rows whose most probable class is the label.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Class indices, or names where `labels` gives them in column order.
    y_prob : array-like of shape (n, k), or (n,) for the positive class
        Probabilities. Among equal ones the first class is predicted.
    sample_weight : array-like of shape (n,), optional
    labels : array-like of shape (k,), optional
        Class names in column order.

    Returns
    -------
    float
        In [0, 1].
    """
    scores = scores_from_probabilities(y_true, y_prob, labels=labels)
    return float(mean_outcome(scores, one_weighting(sample_weight, len(scores)))[0])


@METRICS.register(
    "gap",
    label="Signed gap",
    reference="-",
    formula=r"\frac1n\sum_i (\hat p_i - \mathbf 1[\hat y_i = y_i])",
    aliases=("signed-gap", "confidence-accuracy-gap"),
    needs="rows",
    direction="zero",
    unit="share",
    views=("top-label", "positive-class"),
    field="outcome",
    statistic=mean_gap,
    values=residual,
)
def signed_gap(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    view: str = "top-label",
) -> float:
    """Mean confidence minus accuracy: positive is overconfident.

    Parameters
    ----------
    y_true, y_prob, sample_weight, labels
        As in `accuracy`.
    view : {"top-label", "positive-class"}, default="top-label"
        For two classes: confidence in the prediction against how often it is right,
        or probability of the positive class against how often it comes true.

    Returns
    -------
    float
        In [-1, 1]; 0 where confidence is right on average.
    """
    scores = scores_from_probabilities(y_true, y_prob, labels=labels, view=view)
    return float(mean_gap(scores, one_weighting(sample_weight, len(scores)))[0])


@METRICS.register(
    "nll",
    label="NLL",
    reference="Good 1952",
    formula=r"-\frac1n\sum_i \ln p_{i,y_i}",
    aliases=("log-loss", "logloss", "neg_log_loss"),
    needs="rows",
    direction="lower",
    unit="nats",
    views=("top-label",),
    field="nll",
    statistic=mean_nll,
    values=row_nll,
)
def negative_log_likelihood(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """Mean negative log probability that the model gave to the label, in nats.

    Parameters
    ----------
    y_true, y_prob, sample_weight, labels
        As in `accuracy`.

    Returns
    -------
    float
        0 is perfect; infinite where a label has probability 0.

    Notes
    -----
    The same as scikit-learn's ``log_loss`` and, with probabilities from logits, as
    the cross-entropy of deep-learning libraries.
    """
    scores = scores_from_probabilities(y_true, y_prob, labels=labels)
    return float(mean_nll(scores, one_weighting(sample_weight, len(scores)))[0])


@METRICS.register(
    "brier",
    label="Brier score",
    reference="Brier 1950",
    formula=(
        r"\frac1n\sum_i (p_i - y_i)^2 \text{ (two classes)},\quad "
        r"\frac1n\sum_i \sum_k (p_{ik} - \mathbf 1[y_i = k])^2 \text{ (more)}"
    ),
    aliases=("brier-score",),
    needs="rows",
    direction="lower",
    unit="",
    views=("top-label",),
    field="brier",
    statistic=mean_brier,
    values=row_brier,
)
def brier_score(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    scale_by_half: bool | str = "auto",
) -> float:
    """Mean squared error of the probabilities.

    Parameters
    ----------
    y_true, y_prob, sample_weight, labels
        As in `accuracy`.
    scale_by_half : bool or "auto", default="auto"
        "auto" gives the 0-1 form (p - y)^2 for two classes, as scikit-learn does,
        and the sum over classes (0 to 2) for more.

    Returns
    -------
    float
    """
    if scale_by_half not in (True, False, "auto"):
        msg = f"scale_by_half must be True, False or 'auto', got {scale_by_half!r}"
        raise ValueError(msg)
    scores = scores_from_probabilities(y_true, y_prob, labels=labels)
    value = float(mean_brier(scores, one_weighting(sample_weight, len(scores)))[0])
    shape = np.shape(y_prob)
    is_binary = len(shape) == 1 or shape[1] == 2
    if scale_by_half == "auto" or bool(scale_by_half) == is_binary:
        return value
    return value * 2.0 if is_binary else value / 2.0
