"""Losses of the rank of the label, whatever the scale of the scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.metrics.base import (
    METRICS,
    RowScores,
    one_weighting,
    scores_from_probabilities,
)
from core.metrics.scoring_rules import WeightedMeans
from core.z_loss import z_losses

__all__ = ["mean_z_loss"]

FloatArray = NDArray[np.floating[Any]]


def row_z_loss(scores: RowScores) -> FloatArray:
    """Return the Z-loss of the label of each row."""
    assert scores.probabilities is not None  # noqa: S101 - the registry asks for them
    assert scores.labels is not None  # noqa: S101
    with np.errstate(divide="ignore"):
        logs = np.log(np.asarray(scores.probabilities, dtype=np.float64))
    return z_losses(logs, scores.labels)


def z_loss(scores: RowScores, weights: FloatArray) -> FloatArray:
    """Return the mean Z-loss under each row of weights."""
    return np.asarray(WeightedMeans([row_z_loss(scores)])(weights)[:, 0])


@METRICS.register(
    "z-loss",
    label="Z-loss (ranking)",
    reference="de Brébisson and Vincent 2016, arXiv:1604.08859",
    formula=(
        r"\frac1n\sum_i \ln\left(1 + e^{-\zeta_i}\right),\quad \zeta_i = "
        r"(z_{i y_i} - \bar z_i) / s_i"
    ),
    tier="more",
    needs="rows",
    direction="lower",
    unit="",
    views=("top-label",),
    field="probabilities",
    statistic=z_loss,
    values=row_z_loss,
)
def mean_z_loss(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """How far the label stands out among the classes of its row, at any temperature.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Class indices, or names where `labels` gives them in column order.
    y_prob : array-like of shape (n, k), or (n,) for the positive class
        Probabilities. A class of probability 0 counts as ruled out; where it is the
        label, the loss is infinite.
    sample_weight : array-like of shape (n,), optional
    labels : array-like of shape (k,), optional
        Class names in column order.

    Returns
    -------
    float
        log 2 where the label is as the mean of its row.

    Notes
    -----
    No temperature changes it, so that it says nothing about calibration: it compares
    how models, or calibrators that move classes, rank the label. With two classes it
    is the error rate on another scale. `core.z_loss` has other offsets and sharpness,
    as for the top-k error.

    References
    ----------
    .. [1] A. de Brébisson and P. Vincent, "The Z-loss: a shift and scale invariant
       classification loss belonging to the spherical family", arXiv:1604.08859.
    """
    scores = scores_from_probabilities(y_true, y_prob, labels=labels)
    return float(z_loss(scores, one_weighting(sample_weight, len(scores)))[0])
