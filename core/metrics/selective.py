"""Selective prediction: does confidence tell right from wrong?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma

from core.metrics.base import (
    METRICS,
    RowScores,
    one_weighting,
    scores_from_probabilities,
)

__all__ = ["area_under_risk_coverage", "correctness_auroc"]

FloatArray = NDArray[np.floating[Any]]


def _blocks(
    scores: RowScores, weights: FloatArray, *, descending: bool
) -> tuple[FloatArray, FloatArray]:
    """Return weights of right and wrong rows, summed over equal confidences.

    Returns two arrays of shape (b, n_distinct) in the order of confidence.
    """
    order = np.argsort(scores.confidence, kind="stable")
    if descending:
        order = order[::-1]
    ordered = scores.confidence[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    drawn = weights[:, order]
    right = drawn * scores.outcome[order]
    wrong = drawn - right
    if starts.size < ordered.size:
        right = np.add.reduceat(right, starts, axis=1)
        wrong = np.add.reduceat(wrong, starts, axis=1)
    return right, wrong


def auroc(scores: RowScores, weights: FloatArray) -> FloatArray:
    """Chance that a right row is more confident than a wrong one."""
    right, wrong = _blocks(scores, weights, descending=False)
    below = np.cumsum(wrong, axis=1)
    n_wrong = below[:, -1]
    below -= wrong / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.einsum("ij,ij->i", right, below) / (right.sum(axis=1) * n_wrong)
    return np.asarray(value)


def aurc(scores: RowScores, weights: FloatArray) -> FloatArray:
    """Mean error rate among the most confident rows, over all numbers of rows.

    Among rows of equal confidence every order is as likely; the expectation over
    these orders is exact: m tied rows with e errors, after c rows with r errors,
    add ``e + (r - e c / m) (H(c + m) - H(c))`` where H are harmonic numbers.
    """
    total = weights.sum(axis=1, keepdims=True)
    if not _is_whole(weights):
        # Weights count relative to each other: scaled so that they sum to n.
        weights = weights * (weights.shape[1] / total)
        total = weights.sum(axis=1, keepdims=True)
    right, wrong = _blocks(scores, weights, descending=True)
    size = right + wrong
    after = np.cumsum(size, axis=1)
    before = after - size
    errors_before = np.cumsum(wrong, axis=1) - wrong
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = errors_before - np.where(size > 0, wrong / size, 0.0) * before
    # Rounding in running sums must not reach below zero rows.
    growth = _harmonic(after) - _harmonic(np.maximum(before, 0.0))
    return np.asarray((wrong + slope * growth).sum(axis=1) / total[:, 0])


def _is_whole(values: FloatArray) -> bool:
    return bool((values == np.floor(values)).all())


def _harmonic(x: FloatArray) -> FloatArray:
    """Return harmonic numbers, extended to fractions; a table where x is whole."""
    largest = float(x.max(initial=0.0))
    if _is_whole(x) and largest < 1e7:
        table = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, largest + 1))])
        return np.asarray(table[x.astype(np.int64)])
    return np.asarray(digamma(x + 1.0) + np.euler_gamma)


@METRICS.register(
    "auroc",
    label="AUROC of correctness",
    reference="Hendrycks and Gimpel 2017, arXiv:1610.02136",
    formula=r"P(\hat p_i > \hat p_j) + \tfrac12 P(\hat p_i = \hat p_j),"
    r"\; i \text{ right}, j \text{ wrong}",
    needs="rows",
    direction="higher",
    unit="share",
    views=("top-label",),
    field="outcome",
    statistic=auroc,
)
def correctness_auroc(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """Chance that a right prediction is more confident than a wrong one.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Class indices, or names where `labels` gives them in column order.
    y_prob : array-like of shape (n, k), or (n,) for the positive class
        Probabilities.
    sample_weight : array-like of shape (n,), optional
    labels : array-like of shape (k,), optional
        Class names in column order.

    Returns
    -------
    float
        0.5 tells nothing, 1 separates perfectly; NaN where all rows are right or
        all are wrong.
    """
    scores = scores_from_probabilities(y_true, y_prob, labels=labels)
    return float(auroc(scores, one_weighting(sample_weight, len(scores)))[0])


@METRICS.register(
    "aurc",
    label="AURC",
    reference="Geifman, Uziel and El-Yaniv 2019, arXiv:1805.08206",
    formula=r"\frac1n\sum_{i=1}^n \frac1i \sum_{j\le i} \mathbf 1[\hat y_{(j)} \ne "
    r"y_{(j)}],\quad \hat p_{(1)} \ge \hat p_{(2)} \ge \dots",
    aliases=("risk-coverage",),
    needs="rows",
    direction="lower",
    unit="share",
    views=("top-label",),
    field="outcome",
    statistic=aurc,
)
def area_under_risk_coverage(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """Mean error rate among the most confident rows, over all coverages.

    Parameters
    ----------
    y_true, y_prob, sample_weight, labels
        As in `correctness_auroc`.

    Returns
    -------
    float
        0 is perfect; the error rate where confidence tells nothing.

    Notes
    -----
    Rows of equal confidence are in random order; the expectation is exact, so the
    result depends on no sort order.
    """
    scores = scores_from_probabilities(y_true, y_prob, labels=labels)
    return float(aurc(scores, one_weighting(sample_weight, len(scores)))[0])
