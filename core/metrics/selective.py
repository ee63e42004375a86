"""Selective prediction: whether confidence tells right from wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.kernels.resampling import _ranking_kernel
from core.metrics.base import (
    METRICS,
    RowScores,
    one_weighting,
    scores_from_probabilities,
)
from core.parallel import map_rows

__all__ = ["area_under_risk_coverage", "correctness_auroc"]

FloatArray = NDArray[np.floating[Any]]

_LARGEST_TABLE = 10_000_000


def auroc(scores: RowScores, weights: FloatArray) -> FloatArray:
    """Return the chance that a right row is more confident than a wrong one."""
    return ranked(scores, weights)[:, 1]


def aurc(scores: RowScores, weights: FloatArray) -> FloatArray:
    """Return the mean error rate among the most confident rows."""
    return ranked(scores, weights)[:, 0]


def ranked(scores: RowScores, weights: FloatArray) -> FloatArray:
    """Return AURC and AUROC for each row of weights, shape (b, n) -> (b, 2).

    Among rows of equal confidence every order is as likely; the expectation over
    these orders is exact: m tied rows with e errors, after c rows with r errors,
    add ``e + (r - e c / m) (H(c + m) - H(c))`` where H are harmonic numbers.
    """
    is_whole = bool((weights == np.floor(weights)).all())
    if not is_whole:
        # Weights count relative to each other: scaled so that they sum to n.
        # A resample that drew no weight at all is undefined, and stays so.
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = weights * (weights.shape[1] / weights.sum(axis=1, keepdims=True))
    order = np.argsort(-scores.confidence, kind="stable")
    ordered = scores.confidence[order]
    ends = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True]) + 1
    largest = int(weights.sum(axis=1).max()) if is_whole else 0
    table = np.zeros(0)
    if 0 < largest < _LARGEST_TABLE:
        table = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, largest + 1))])
    size, n = weights.shape
    area, separation = np.empty(size), np.empty(size)
    outcome = scores.outcome[order]
    drawn = np.ascontiguousarray(weights, dtype=np.float64)

    def kernel(start: int, stop: int) -> int:
        return int(
            _ranking_kernel(
                drawn, order, outcome, ends, table, start, stop, area, separation
            )
        )

    map_rows(kernel, size, 16 * n)
    return np.column_stack([area, separation])


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
    joint=(ranked, 1),
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
    joint=(ranked, 0),
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
