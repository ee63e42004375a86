"""Selective prediction: whether confidence tells right from wrong."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.kernels.resampling import _ranking_kernel, _totals_kernel
from core.metrics.base import (
    METRICS,
    RowScores,
    one_weighting,
    scores_from_probabilities,
)

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
    these orders is exact (`core.kernels.resampling`).
    """
    order, ends, outcome = scores.by_confidence
    lanes = np.ascontiguousarray(weights.T)
    n, size = lanes.shape
    totals, scale = np.empty(size), np.ones(size)
    table: FloatArray = np.zeros(0)
    if _totals_kernel(lanes, totals):
        largest = int(totals.max(initial=0.0))
        if largest < _LARGEST_TABLE:
            table = _harmonic_numbers(1 << largest.bit_length())
    else:
        # Weights count relative to each other: scaled so that they sum to n.
        # A resample that drew no weight at all is undefined, and stays so.
        is_drawn = totals > 0
        scale[is_drawn] = n / totals[is_drawn]
    found = np.empty((2, size))
    work = np.empty((6, size))
    _ranking_kernel(lanes, scale, order, outcome, ends, table, work, *found)
    return found.T


@lru_cache(maxsize=1)
def _harmonic_numbers(size: int) -> FloatArray:
    """Return 0, 1, 1 + 1/2, ...: the harmonic numbers of 0 to size - 1."""
    return np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, size))])


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
