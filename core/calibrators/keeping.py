"""Predictions kept: what a calibrator says, changed as little as that takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEAD", "keep_predictions"]

FloatArray = NDArray[np.floating[Any]]

LEAD = 1e-5  # by which share the kept class is ahead, so that no rounding undoes it


def keep_predictions(log_p: FloatArray, logits: FloatArray) -> FloatArray:
    """Return log-probabilities whose first largest class is that of the logits.

    Rows whose largest class changed are replaced by the distribution nearest to them
    in Kullback-Leibler divergence among those that predict the old class c: the
    others are capped at a level a, p_j' = min(p_j, a), and p_c' = a takes what they
    lose (with a lead of 1e-5 that settles the tie). Other rows stay as they are.

    Parameters
    ----------
    log_p : ndarray of shape (n, k)
        Changed in place.
    logits : ndarray of shape (n, k)
        The scores before calibration.
    """
    first = logits.argmax(axis=1)
    rows = np.flatnonzero(log_p.argmax(axis=1) != first)
    if not rows.size:
        return log_p
    kept = first[rows]
    p = np.exp(log_p[rows].astype(np.float64))
    here = np.arange(rows.size)
    own = p[here, kept].copy()
    p[here, kept] = -1.0  # comes last
    falling = -np.sort(-p, axis=1)
    # The mean of the kept class and of the j largest others, for j = 0, 1, ...
    totals = own[:, None] + np.cumsum(falling, axis=1)
    means = totals / np.arange(2, p.shape[1] + 2)
    before = np.column_stack([own, means[:, :-1]])
    is_above = falling > before
    level = (own + np.where(is_above, falling, 0.0).sum(1)) / (1 + is_above.sum(1))
    p = np.minimum(p, level[:, None])
    p[here, kept] = level * (1.0 + LEAD)
    with np.errstate(divide="ignore"):
        log_p[rows] = np.log(p / p.sum(axis=1, keepdims=True))
    return log_p
