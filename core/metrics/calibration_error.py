"""Distances from calibration over bins: plug-in ECE and the debiased square."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse, special

from core.binning import BinStatistics, assign_bins, bin_statistics, bin_sums, combined
from core.messages import Progress, no_progress
from core.metrics.base import (
    METRICS,
    RowScores,
    one_weighting,
    scores_from_probabilities,
)
from core.registry import Param
from core.uncertainty import Estimate, percentile_interval, simulate_null

__all__ = [
    "NORM",
    "N_BINS",
    "STRATEGY",
    "Bins",
    "expected_calibration_error",
    "score_interval",
    "squared_calibration_error",
    "squared_error_change",
    "tail_share",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

N_BINS = Param(
    "n_bins", "Bins", "int", 15, 1, 1000, help="Number of bins of confidence."
)
STRATEGY = Param(
    "strategy",
    "Bin edges",
    "choice",
    "uniform",
    choices=("uniform", "quantile"),
    help="Bins of equal width, or of equal counts.",
)
NORM = Param(
    "norm",
    "Norm",
    "choice",
    "l1",
    choices=("l1", "l2", "max"),
    help="Mean gap, root of the mean squared gap, or largest gap.",
)


class Bins:
    """Rows sorted into bins once, for every metric and figure that needs them.

    Parameters
    ----------
    scores : RowScores
    n_bins, strategy, closed, level
        As in `core.binning.bin_statistics`.
    sample_weight : ndarray of shape (n,), optional
    groups : ndarray of int of shape (n,), optional
    n_resamples, seed : int
        Of the null simulation.
    """

    def __init__(
        self,
        scores: RowScores,
        *,
        n_bins: int = 15,
        strategy: str = "uniform",
        closed: str = "right",
        level: float = 0.95,
        sample_weight: FloatArray | None = None,
        groups: IndexArray | None = None,
        n_resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        self.scores = scores
        self.sample_weight = sample_weight
        self.groups = groups
        self.n_resamples = n_resamples
        self.seed = seed
        self.statistics: BinStatistics = bin_statistics(
            scores.confidence,
            scores.outcome,
            n_bins=n_bins,
            strategy=strategy,
            closed=closed,
            sample_weight=sample_weight,
            groups=groups,
            level=level,
        )
        self.index = assign_bins(
            scores.confidence, self.statistics.edges, closed=closed
        )
        self._null: FloatArray | None = None

    @property
    def null(self) -> FloatArray:
        """Mean residuals of the bins under the null, shape (n_resamples, n_bins)."""
        return self.simulate()

    def simulate(self, progress: Progress = no_progress) -> FloatArray:
        """Return `null`, simulated once.

        Parameters
        ----------
        progress : callable, optional
            Told the share of the simulations that are done; may raise `Cancelled`.
        """
        if self._null is None:
            self._null = simulate_null(
                self.index,
                self.statistics.n_bins,
                self.scores.confidence,
                self.scores.outcome,
                n_resamples=self.n_resamples,
                seed=self.seed,
                sample_weight=self.sample_weight,
                groups=self.groups,
                progress=progress,
            )
        return self._null

    def contributions(self) -> Any:
        """Return each unit's share in the deviation of the bin means.

        Units are rows, or groups. The columns' cross products estimate the
        covariance of the mean residuals of the bins. A bin with one unit takes the
        variance of Bernoulli draws from its confidences, rows of a group as one draw.

        Returns
        -------
        scipy.sparse.csr_array of shape (n_units, n_bins)
        """
        size = self.statistics.n_bins
        n = len(self.scores)
        unit = np.ones(n) if self.sample_weight is None else self.sample_weight
        mass = bin_sums(self.index, unit, size)[self.index]
        code = np.arange(n)
        if self.groups is not None:
            code = np.unique(self.groups, return_inverse=True)[1]
        cells = np.unique(code[unit > 0] * size + self.index[unit > 0])
        n_units = np.bincount(cells % size, minlength=size)[self.index]
        confidence, outcome = self.scores.confidence, self.scores.outcome
        centred = confidence - outcome - np.nan_to_num(self.statistics.gap)[self.index]
        centred *= np.sqrt(n_units / np.maximum(n_units - 1, 1))
        alone = np.sqrt(np.maximum(confidence * (1.0 - confidence), 0.0))
        centred = np.where(n_units == 1, alone, centred)
        share = unit / np.where(mass > 0, mass, 1.0)
        shape = (int(code.max(initial=0)) + 1, size)
        return sparse.csr_array((share * centred, (code, self.index)), shape=shape)


def ece_estimate(scores: RowScores, bins: Bins, *, norm: str = "l1") -> Estimate:
    """Return the plug-in error with its null range and p-value, never an interval."""
    statistics = bins.statistics
    value = statistics.error(norm)
    draws = combined(np.abs(bins.null), statistics.weight, norm)
    low, high = percentile_interval(draws, statistics.level)
    return Estimate(
        value=value,
        level=statistics.level,
        n=len(scores),
        null_low=low,
        null_high=high,
        p_value=tail_share(draws, value),
        method=(
            f"{statistics.n_bins} bins; null: {bins.n_resamples:,} "
            + (
                "simulations of outcomes drawn from the confidences"
                if bins.groups is None
                else "sign draws per group (wild cluster bootstrap)"
            )
            + f", seed {bins.seed}"
        ),
    )


def squared_error_estimate(scores: RowScores, bins: Bins) -> Estimate:
    """Return the debiased squared error with its closed-form interval."""
    gaps = np.nan_to_num(bins.statistics.gap)
    weight = bins.statistics.weight
    covariance = _gram(bins.contributions())
    value, error = _quadratic_form(gaps, weight, covariance)
    z = float(special.ndtri(0.5 + bins.statistics.level / 2))
    low, high = value - z * error, value + z * error
    if bins.groups is not None:
        scaled = weight[:, None] * covariance
        plain = float(weight @ gaps**2)
        leaning = weight * gaps
        slope = float(leaning @ covariance @ leaning) / plain if plain > 0 else 0.0
        low, high = score_interval(
            value, slope, 2.0 * float((scaled * scaled.T).sum()), z
        )
    return Estimate(
        value=value,
        low=low,
        high=high,
        level=bins.statistics.level,
        n=len(scores),
        p_value=tail_share(bins.null**2 @ weight, float(gaps**2 @ weight)),
        method=f"{bins.statistics.n_bins} bins; closed-form interval; p-value from "
        f"the null of the ECE, seed {bins.seed}",
    )


def squared_error_change(before: Bins, after: Bins) -> Estimate:
    """Return the change of the debiased squared error on the same rows."""
    gaps = np.nan_to_num(np.concatenate([before.statistics.gap, after.statistics.gap]))
    weight = np.concatenate([-before.statistics.weight, after.statistics.weight])
    both = sparse.hstack([before.contributions(), after.contributions()])
    value, error = _quadratic_form(gaps, weight, _gram(both), paired=True)
    level = after.statistics.level
    z = float(special.ndtri(0.5 + level / 2))
    return Estimate(
        value=value,
        low=value - z * error,
        high=value + z * error,
        level=level,
        n=len(after.scores),
        method="closed-form interval of the paired difference",
    )


def score_interval(
    value: float, slope: float, noise: float, z: float
) -> tuple[float, float]:
    """Return the values t with (T - t)^2 <= z^2 (4 s t + noise), s = g'ASAg / g'Ag.

    Groups make the standard error vary with T itself, so that T +- z standard errors
    covers too rarely (.90 to .93 with 50 to 200 groups). As in Wilson's interval the
    variance is taken at t; the noise is 2 tr(ASAS). Below t = 0 only the noise is
    left, so that the interval holds the value itself.
    """
    centre = value + 2.0 * z**2 * slope
    square = 4.0 * slope * value + noise + 4.0 * z**2 * slope**2
    half = z * float(np.sqrt(max(square, 0.0)))
    alone = z * float(np.sqrt(noise))
    low = centre - half if value - alone >= 0.0 else value - alone
    high = centre + half if value + alone >= 0.0 else value + alone
    return low, high


def _gram(parts: Any) -> FloatArray:
    """Covariance of the bin means; rows lie in one bin each, groups in several."""
    return np.asarray((parts.T @ parts).toarray(), dtype=np.float64)


def tail_share(draws: FloatArray, value: float) -> float:
    """Return the p-value of a simulation; draws equal but for rounding count."""
    reached = draws >= value - 1e-9 * max(abs(value), 1e-6)
    return (1 + int(reached.sum())) / (1 + draws.size)


def _quadratic_form(
    gaps: FloatArray,
    weight: FloatArray,
    covariance: FloatArray,
    *,
    paired: bool = False,
) -> tuple[float, float]:
    """Return sum_b w_b g_b^2 without its noise term, and its standard error.

    With g ~ N(gamma, S) and A = diag(w): the estimate is g'Ag - tr(AS), its variance
    4 gamma'ASA gamma + 2 tr(ASAS), where gamma_b gamma_c is estimated by
    g_b g_c - S_bc, with no bin's own term below 0: for independent bins these are the
    sums of the docstring of `squared_calibration_error`. In a `paired` form terms of
    both signs cancel, so that nothing is cut but the total.
    """
    value = float(weight @ (gaps**2 - np.diag(covariance)))
    sandwich = weight[:, None] * covariance * weight[None, :]
    slopes = sandwich * (np.outer(gaps, gaps) - covariance)
    linear = slopes.sum()
    if not paired:
        linear -= np.minimum(np.diag(slopes), 0.0).sum()
    scaled = weight[:, None] * covariance
    noise = max(float((scaled * scaled.T).sum()), 0.0)
    return value, float(np.sqrt(4.0 * max(float(linear), 0.0) + 2.0 * noise))


@METRICS.register(
    "ece",
    label="ECE",
    reference="Naeini, Cooper and Hauskrecht 2015; Guo et al. 2017, arXiv:1706.04599",
    formula=r"\sum_b \frac{n_b}{n}\,\bigl|\mathrm{conf}_b - \mathrm{acc}_b\bigr|",
    params=(N_BINS, STRATEGY, NORM),
    aliases=("expected-calibration-error",),
    needs="bins",
    direction="lower",
    unit="share",
    views=("top-label", "positive-class"),
    field="outcome",
    statistic=ece_estimate,
)
def expected_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    n_bins: int = 15,
    strategy: str = "uniform",
    norm: str = "l1",
    closed: str = "right",
    view: str = "top-label",
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """Mean distance between confidence and accuracy over bins of confidence.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Class indices, or names where `labels` gives them in column order.
    y_prob : array-like of shape (n, k), or (n,) for the positive class
        Probabilities.
    n_bins : int, default=15
    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of equal width, or of equal counts with ties kept together.
    norm : {"l1", "l2", "max"}, default="l1"
        Mean gap, root of the mean squared gap (RMSCE), or largest gap (MCE).
    closed : {"right", "left"}, default="right"
        (lo, hi] with 0 in the first bin, or [lo, hi) with 1 in the last.
    view : {"top-label", "positive-class"}, default="top-label"
        For two classes: confidence in the prediction against how often it is right,
        or probability of the positive class against how often it comes true.
    sample_weight : array-like of shape (n,), optional
    labels : array-like of shape (k,), optional
        Class names in column order.

    Returns
    -------
    float
        In [0, 1].

    Notes
    -----
    A plug-in distance: even a perfectly calibrated model has a positive value, about
    0.01 for 10,000 rows. Read it beside its null range.

    Examples
    --------
    >>> round(expected_calibration_error([1, 0, 1, 1], [0.9, 0.9, 0.8, 0.8]), 6)
    0.3
    """
    scores = scores_from_probabilities(y_true, y_prob, labels=labels, view=view)
    weight = None
    if sample_weight is not None:
        weight = one_weighting(sample_weight, len(scores))[0]
    statistics = bin_statistics(
        scores.confidence,
        scores.outcome,
        n_bins=n_bins,
        strategy=strategy,
        closed=closed,
        sample_weight=weight,
    )
    return statistics.error(norm)


@METRICS.register(
    "l2",
    label="Squared error, debiased",
    reference="Kumar, Liang and Ma 2019, arXiv:1909.10155; Sun et al. 2024, "
    "arXiv:2408.08998",
    formula=r"\sum_b \frac{n_b}{n}\Bigl[g_b^2 - \frac{v_b}{n_b}\Bigr]",
    params=(N_BINS, STRATEGY),
    aliases=("debiased-l2", "l2-debiased"),
    needs="bins",
    direction="lower",
    unit="",
    views=("top-label", "positive-class"),
    field="outcome",
    statistic=squared_error_estimate,
)
def squared_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    n_bins: int = 15,
    strategy: str = "uniform",
    view: str = "top-label",
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """Mean squared gap over bins, less what chance alone adds; may be negative.

    Parameters
    ----------
    y_true, y_prob, n_bins, strategy, view, sample_weight, labels
        As in `expected_calibration_error`.

    Returns
    -------
    float
        About 0 for a calibrated model, on either side of it.

    Notes
    -----
    With g_b the mean residual and v_b the residual variance of bin b,
    T = sum_b (n_b / n) (g_b^2 - v_b / n_b), and the interval of the dashboard is
    T +- z sqrt(4 sum_b (n_b / n)^2 max(g_b^2 - v_b / n_b, 0) v_b / n_b
    + 2 sum_b (v_b / n)^2).
    """
    scores = scores_from_probabilities(y_true, y_prob, labels=labels, view=view)
    weight = None
    if sample_weight is not None:
        weight = one_weighting(sample_weight, len(scores))[0]
    bins = Bins(scores, n_bins=n_bins, strategy=strategy, sample_weight=weight)
    return squared_error_estimate(scores, bins).value
