"""The Brier score of the confidence in parts that add up exactly over bins."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from core.metrics.base import METRICS, RowScores
from core.metrics.calibration_error import N_BINS, STRATEGY
from core.metrics.design import Design, null_estimate, resampled, shifted_interval
from core.metrics.distances import point_of
from core.uncertainty import Estimate, percentile_interval

__all__ = ["TERMS", "brier_term"]

FloatArray = NDArray[np.floating[Any]]

TERMS = {
    "reliability": 1.0,
    "resolution": -1.0,
    "uncertainty": 1.0,
    "within-variance": 1.0,
    "within-covariance": -2.0,
}
"""Terms and the factors with which they add up to the Brier score."""


def _terms(scores: RowScores, design: Design, weights: FloatArray) -> FloatArray:
    """Return the five terms under each row of weights, shape (b, n) -> (b, 5)."""
    bins = design.bins(scores)
    n = len(scores)
    shape = (n, bins.statistics.n_bins)
    members = sparse.csr_array((np.ones(n), (np.arange(n), bins.index)), shape=shape)
    c, o = scores.confidence, scores.outcome

    def means(values: FloatArray) -> FloatArray:
        sums = (members.T @ (weights * values).T).T
        return np.asarray(sums / np.where(mass > 0, mass, 1.0))

    mass: FloatArray = np.ones((weights.shape[0], shape[1]))
    mass = means(np.ones(n))
    confidence, outcome = means(c), means(o)
    share = mass / mass.sum(axis=1, keepdims=True)
    rate = (share * outcome).sum(axis=1)
    return np.column_stack(
        [
            (share * (confidence - outcome) ** 2).sum(axis=1),
            (share * (outcome - rate[:, None]) ** 2).sum(axis=1),
            rate * (1.0 - rate),
            (share * (means(c * c) - confidence**2)).sum(axis=1),
            (share * (means(c * o) - confidence * outcome)).sum(axis=1),
        ]
    )


def _point(scores: RowScores, design: Design, *, term: str) -> float:
    base = design.shares(len(scores))[None, :]
    return float(_terms(scores, design, base)[0, list(TERMS).index(term)])


def _estimate(scores: RowScores, design: Design, *, term: str) -> Estimate:
    value, column = _point(scores, design, term=term), list(TERMS).index(term)
    bins = design.bins(scores)
    words = f"{bins.statistics.n_bins} bins"
    if term == "reliability":
        simulated = bins.null**2 @ bins.statistics.weight
        return null_estimate(value, simulated, scores, design, words)
    found = design.kept(
        "brier draws",
        lambda: resampled(scores, design, lambda w: _terms(scores, design, w)),
    )
    draws = found[:, column]
    n_units = design.n_units(len(scores))
    if term != "uncertainty":
        # Resampled bins have fewer distinct rows: what is squared about their means
        # lies off by as much again as the value itself does.
        low, high = shifted_interval(value, draws, design.level, n_units)
        words += "; shifted"
    else:
        low, high = percentile_interval(draws, design.level, n_units)
        words += ";"
    return Estimate(
        value=value,
        low=None if low != low else low,
        high=None if high != high else high,
        level=design.level,
        n=len(scores),
        method=f"{words} {design.bootstrap_words}",
    )


def brier_term(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    term: str = "reliability",
    n_bins: int = 15,
    strategy: str = "uniform",
    view: str = "top-label",
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """One term of the Brier score of the confidence over bins.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Class indices, or names where `labels` gives them in column order.
    y_prob : array-like of shape (n, k), or (n,) for the positive class
        Probabilities.
    term : str, default="reliability"
        A key of `TERMS`.
    n_bins : int, default=15
    strategy : {"uniform", "quantile"}, default="uniform"
    view : {"top-label", "positive-class"}, default="top-label"
    sample_weight : array-like of shape (n,), optional
    labels : array-like of shape (k,), optional
        Class names in column order.

    Returns
    -------
    float

    Notes
    -----
    The mean of (confidence - outcome)^2 is reliability - resolution + uncertainty +
    within-variance - 2 within-covariance, whatever the bins.
    """
    if term not in TERMS:
        msg = f"term must be one of {tuple(TERMS)}, got {term!r}"
        raise ValueError(msg)
    return point_of(
        partial(_point, term=term),
        y_true,
        y_prob,
        sample_weight=sample_weight,
        labels=labels,
        view=view,
        n_bins=n_bins,
        strategy=strategy,
    )


_TEXTS = {
    "reliability": (
        "Mean squared gap of the bins: the part of the Brier score that miscalibration "
        "adds.",
        r"\sum_b \frac{n_b}{n}\,(\mathrm{conf}_b - \mathrm{acc}_b)^2",
        "lower",
    ),
    "resolution": (
        "How far the bins differ in accuracy: the part of the Brier score that "
        "confidence saves.",
        r"\sum_b \frac{n_b}{n}\,(\mathrm{acc}_b - \mathrm{acc})^2",
        "higher",
    ),
    "uncertainty": (
        "Brier score of always saying the mean of the outcomes; no model changes it.",
        r"\mathrm{acc}\,(1 - \mathrm{acc})",
        "none",
    ),
    "within-variance": (
        "Variance of confidence inside the bins, which the three terms leave out.",
        r"\sum_b \frac{n_b}{n}\,\mathrm{var}_b(\hat p)",
        "none",
    ),
    "within-covariance": (
        "Covariance of confidence and outcome inside the bins; it counts -2 times.",
        r"\sum_b \frac{n_b}{n}\,\mathrm{cov}_b(\hat p, o)",
        "none",
    ),
}


def _register(term: str) -> None:
    """Enter one term."""
    summary, formula, direction = _TEXTS[term]

    def metric(
        y_true: ArrayLike,
        y_prob: ArrayLike,
        *,
        n_bins: int = 15,
        strategy: str = "uniform",
        view: str = "top-label",
        sample_weight: ArrayLike | None = None,
        labels: ArrayLike | None = None,
    ) -> float:
        return brier_term(
            y_true,
            y_prob,
            term=term,
            n_bins=n_bins,
            strategy=strategy,
            view=view,
            sample_weight=sample_weight,
            labels=labels,
        )

    metric.__doc__ = summary
    metric.__name__ = metric.__qualname__ = f"brier_{term.replace('-', '_')}"
    METRICS.register(
        f"brier-{term}",
        label=f"Binned Brier: {term.removeprefix('within-')}",
        reference="Murphy 1973; Stephenson, Coelho and Jolliffe 2008",
        formula=formula,
        params=(N_BINS, STRATEGY),
        tier="more",
        needs="design",
        direction=direction,
        unit="",
        views=("top-label", "positive-class"),
        field="outcome",
        statistic=partial(_estimate, term=term),
        point=partial(_point, term=term),
    )(metric)


for _term in TERMS:
    _register(_term)
