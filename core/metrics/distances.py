"""Plug-in distances beside the ECE: RMSCE, MCE, ACE and the KS error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.messages import Note
from core.metrics.base import (
    METRICS,
    RowScores,
    one_weighting,
    scores_from_probabilities,
)
from core.metrics.calibration_error import N_BINS, STRATEGY, Bins
from core.metrics.design import Design, null_draws, null_estimate
from core.uncertainty import Estimate

__all__ = [
    "adaptive_calibration_error",
    "ks_calibration_error",
    "maximum_calibration_error",
    "point_of",
    "root_mean_squared_calibration_error",
]

FloatArray = NDArray[np.floating[Any]]
Point = Callable[[RowScores, Design], float]

ENOUGH = 5  # rows below which a bin's gap is no candidate for the largest


def point_of(
    point: Point,
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    view: str = "top-label",
    **chosen: Any,
) -> float:
    """Return the value of a metric of `Design` from arrays as users hold them."""
    scores = scores_from_probabilities(y_true, y_prob, labels=labels, view=view)
    weight = None
    if sample_weight is not None:
        weight = one_weighting(sample_weight, len(scores))[0]
    return point(scores, Design(sample_weight=weight, **chosen))


def _root_mean_square(gaps: FloatArray, bins: Bins) -> Any:
    return np.sqrt(gaps**2 @ bins.statistics.weight)


def _largest(gaps: FloatArray, bins: Bins) -> Any:
    """Return the largest absolute gap of the bins with enough rows (last axis)."""
    count = bins.statistics.count
    is_enough = count >= min(ENOUGH, int(count.max()))
    return np.abs(gaps[..., is_enough]).max(axis=-1)


def _mean_of_bins(gaps: FloatArray, bins: Bins) -> Any:
    return np.abs(gaps[..., bins.statistics.weight > 0]).mean(axis=-1)


def _gaps(bins: Bins) -> FloatArray:
    return np.asarray(np.nan_to_num(bins.statistics.gap))


def rmsce_point(scores: RowScores, design: Design) -> float:
    """Return the root of the mean squared gap."""
    bins = design.bins(scores)
    return float(_root_mean_square(_gaps(bins), bins))


def mce_point(scores: RowScores, design: Design) -> float:
    """Return the largest gap of a bin with enough rows."""
    bins = design.bins(scores)
    return float(_largest(_gaps(bins), bins))


def ace_point(scores: RowScores, design: Design) -> float:
    """Return the mean gap of bins of equal counts."""
    bins = design.bins(scores, "quantile")
    return float(_mean_of_bins(_gaps(bins), bins))


def rmsce_estimate(scores: RowScores, design: Design) -> Estimate:
    """Return the RMSCE with its null range and p-value."""
    bins = design.bins(scores)
    draws = _root_mean_square(bins.null, bins)
    words = f"{bins.statistics.n_bins} bins"
    return null_estimate(rmsce_point(scores, design), draws, scores, design, words)


def mce_estimate(scores: RowScores, design: Design) -> Estimate:
    """Return the MCE with its null range and p-value."""
    bins = design.bins(scores)
    count = bins.statistics.count
    n_thin = int(((count > 0) & (count < ENOUGH)).sum())
    notes: tuple[Note, ...] = ()
    if n_thin and count.max() >= ENOUGH:
        text = f"Bins with fewer than {ENOUGH} rows were left out: {n_thin}."
        notes = (Note("thin-bins", "info", text),)
    words = f"largest gap of {bins.statistics.n_bins} bins"
    draws = _largest(bins.null, bins)
    point = mce_point(scores, design)
    return null_estimate(point, draws, scores, design, words, notes=notes)


def ace_estimate(scores: RowScores, design: Design) -> Estimate:
    """Return the ACE with its null range and p-value."""
    bins = design.bins(scores, "quantile")
    draws = _mean_of_bins(bins.null, bins)
    words = f"{bins.statistics.n_bins} bins of equal counts"
    return null_estimate(ace_point(scores, design), draws, scores, design, words)


def _largest_sum(residuals: FloatArray, ends: NDArray[np.int64]) -> FloatArray:
    """Return the largest absolute running sum at the ends of ties (last axis)."""
    running = np.cumsum(residuals, axis=-1)[..., ends]
    return np.asarray(np.abs(running).max(axis=-1))


def _tie_ends(ordered: FloatArray) -> NDArray[np.int64]:
    return np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])


def ks_point(scores: RowScores, design: Design) -> float:
    """Return the largest distance between summed confidence and summed outcomes."""
    ordered, drawn = design.by_confidence(scores)
    share = drawn.shares(len(scores))
    residuals = share * (ordered.confidence - ordered.outcome)
    return float(_largest_sum(residuals, _tie_ends(ordered.confidence)))


def ks_estimate(scores: RowScores, design: Design) -> Estimate:
    """Return the KS error with its null range and p-value."""
    ordered, drawn = design.by_confidence(scores)
    share, ends = drawn.shares(len(scores)), _tie_ends(ordered.confidence)
    draws = null_draws(ordered, drawn, lambda found: _largest_sum(share * found, ends))
    return null_estimate(ks_point(scores, design), draws, scores, design)


@METRICS.register(
    "rmsce",
    label="RMSCE",
    reference="Nguyen and O'Connor 2015; Hendrycks, Mazeika and Dietterich 2019, "
    "arXiv:1812.04606",
    formula=r"\sqrt{\sum_b \frac{n_b}{n}\,(\mathrm{conf}_b - \mathrm{acc}_b)^2}",
    params=(N_BINS, STRATEGY),
    tier="more",
    aliases=("root-mean-squared-calibration-error",),
    needs="design",
    direction="lower",
    unit="share",
    views=("top-label", "positive-class"),
    field="outcome",
    statistic=rmsce_estimate,
    point=rmsce_point,
)
def root_mean_squared_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    n_bins: int = 15,
    strategy: str = "uniform",
    view: str = "top-label",
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """Root of the mean squared gap over bins; large gaps count more than in the ECE.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Class indices, or names where `labels` gives them in column order.
    y_prob : array-like of shape (n, k), or (n,) for the positive class
        Probabilities.
    n_bins : int, default=15
    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of equal width, or of equal counts with ties kept together.
    view : {"top-label", "positive-class"}, default="top-label"
        For two classes: confidence in the prediction against how often it is right,
        or probability of the positive class against how often it comes true.
    sample_weight : array-like of shape (n,), optional
    labels : array-like of shape (k,), optional
        Class names in column order.

    Returns
    -------
    float
        In [0, 1]; above 0 even for a calibrated model: read it beside its null range.
    """
    return point_of(
        rmsce_point,
        y_true,
        y_prob,
        sample_weight=sample_weight,
        labels=labels,
        view=view,
        n_bins=n_bins,
        strategy=strategy,
    )


@METRICS.register(
    "mce",
    label="MCE",
    reference="Naeini, Cooper and Hauskrecht 2015",
    formula=r"\max_{b:\,n_b \ge 5}\,\bigl|\mathrm{conf}_b - \mathrm{acc}_b\bigr|",
    params=(N_BINS, STRATEGY),
    tier="more",
    aliases=("maximum-calibration-error",),
    needs="design",
    direction="lower",
    unit="share",
    views=("top-label", "positive-class"),
    field="outcome",
    statistic=mce_estimate,
    point=mce_point,
)
def maximum_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    n_bins: int = 15,
    strategy: str = "uniform",
    view: str = "top-label",
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """Largest gap among bins with at least 5 rows; it is mostly noise in thin bins.

    Parameters
    ----------
    y_true, y_prob, n_bins, strategy, view, sample_weight, labels
        As in `root_mean_squared_calibration_error`.

    Returns
    -------
    float
        In [0, 1]. Where no bin has 5 rows, the fullest bins count.
    """
    return point_of(
        mce_point,
        y_true,
        y_prob,
        sample_weight=sample_weight,
        labels=labels,
        view=view,
        n_bins=n_bins,
        strategy=strategy,
    )


@METRICS.register(
    "ace",
    label="ACE",
    reference="Nixon et al. 2019, arXiv:1904.01685; Nguyen and O'Connor 2015",
    formula=r"\frac1B\sum_b \bigl|\mathrm{conf}_b - \mathrm{acc}_b\bigr|,"
    r"\quad n_b \approx n/B",
    params=(N_BINS,),
    tier="more",
    aliases=("adaptive-calibration-error",),
    needs="design",
    direction="lower",
    unit="share",
    views=("top-label", "positive-class"),
    field="outcome",
    statistic=ace_estimate,
    point=ace_point,
)
def adaptive_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    n_bins: int = 15,
    view: str = "top-label",
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """Mean gap over bins that hold equal counts of rows, whatever their confidence.

    Parameters
    ----------
    y_true, y_prob, n_bins, view, sample_weight, labels
        As in `root_mean_squared_calibration_error`.

    Returns
    -------
    float
        In [0, 1]. Ties stay together, so that bins may hold different counts; each
        counts once all the same.
    """
    return point_of(
        ace_point,
        y_true,
        y_prob,
        sample_weight=sample_weight,
        labels=labels,
        view=view,
        n_bins=n_bins,
    )


@METRICS.register(
    "ks",
    label="KS calibration error",
    reference="Gupta et al. 2021, arXiv:2006.12800",
    formula=r"\max_i \Bigl|\frac1n\sum_{j \le i} \bigl(\hat p_{(j)} - "
    r"\mathbf 1[\hat y_{(j)} = y_{(j)}]\bigr)\Bigr|,"
    r"\quad \hat p_{(1)} \le \hat p_{(2)} \le \dots",
    tier="more",
    aliases=("ks-error", "kolmogorov-smirnov"),
    needs="design",
    direction="lower",
    unit="share",
    views=("top-label", "positive-class"),
    field="outcome",
    statistic=ks_estimate,
    point=ks_point,
)
def ks_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    view: str = "top-label",
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """Largest distance between the running sums of confidence and of outcomes.

    Parameters
    ----------
    y_true, y_prob, view, sample_weight, labels
        As in `root_mean_squared_calibration_error`.

    Returns
    -------
    float
        In [0, 1]; needs no bins. Rows of equal confidence enter together.
    """
    return point_of(
        ks_point,
        y_true,
        y_prob,
        sample_weight=sample_weight,
        labels=labels,
        view=view,
    )
