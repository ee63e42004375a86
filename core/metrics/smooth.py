"""Smooth ECE: residuals smoothed by a Gaussian kernel instead of sorted into bins."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray
from scipy import fft, sparse

from core.metrics.base import METRICS, RowScores
from core.metrics.curves import CURVES, Curve, consistency_band
from core.metrics.design import Design, null_draws, null_estimate
from core.metrics.distances import point_of
from core.uncertainty import Estimate

__all__ = [
    "smooth_calibration_error",
    "smooth_calibration_error_relplot",
    "smooth_reliability_curve",
]

FloatArray = NDArray[np.floating[Any]]

_NARROWEST = 1e-3  # bandwidth below which the search stops
_CELLS = 1024  # of the grid on [0, 1]
_STEPS = 14  # halvings of the search: a resolution below 1e-4
_PEER_STEPS = 10  # those of relplot
_PEER_MESH = 200  # points at which relplot sums the smoothed residuals
_DENSITY_FLOOR = 1e-4  # what relplot adds to the density
_MOST_AT_ONCE = 1 << 10  # draws whose grids are held at once


def _grid(confidence: FloatArray, n_points: int) -> Any:
    """Return the matrix (n_points, n) that shares each row among two grid points."""
    place = confidence * (n_points - 1)
    left = place.astype(np.int64).clip(0, n_points - 2)
    right_share = place - left
    rows = np.arange(confidence.size)
    return sparse.csr_array(
        (
            np.concatenate([1.0 - right_share, right_share]),
            (np.concatenate([left, left + 1]), np.concatenate([rows, rows])),
        ),
        shape=(n_points, confidence.size),
    )


def _kernel(n_points: int, bandwidth: float | FloatArray) -> FloatArray:
    """Return the Gaussian at the distances of the grid, 0 beyond one half."""
    t = np.linspace(0.0, 1.0, n_points)
    bandwidth = np.asarray(bandwidth)[..., None]
    height = np.exp(-0.5 * (t / bandwidth) ** 2) / (np.sqrt(2 * np.pi) * bandwidth)
    return np.where(t <= 0.5, height, 0.0)


class _Smoother:
    """Smoothed residuals of one or many draws on a grid that reflects at 0 and 1.

    Parameters
    ----------
    density : ndarray of shape (n_points,)
        Weights of the rows on the grid.
    is_corrected : bool
        Whether the end points, which a reflection meets only once, count twice. Left
        as they are, rows at 0 or 1 weigh half and the others too much.
    """

    def __init__(self, density: FloatArray, *, is_corrected: bool) -> None:
        self.n_points = density.shape[0]
        self.is_corrected = is_corrected
        self.density = self._spectrum(density)

    def _spectrum(self, values: FloatArray) -> FloatArray:
        if self.is_corrected:
            values = values.copy()
            values[..., [0, -1]] *= 2.0
        return np.asarray(fft.dct(values, type=1, axis=-1))

    def errors(self, residuals: FloatArray) -> FloatArray:
        """Return the smooth ECE of residuals on the grid, shape (b, n_points) -> (b,).

        The answer is where the error at a bandwidth equals the bandwidth; a bisection
        finds it for all draws at once.
        """
        spectrum = self._spectrum(residuals)
        return self._at(spectrum, self._widths(spectrum))

    def width(self, residual: FloatArray) -> float:
        """Return the bandwidth at which the error equals it, shape (n_points,)."""
        return float(self._widths(self._spectrum(residual[None, :]))[0])

    def means(self, values: FloatArray, bandwidth: float) -> FloatArray:
        """Return kernel averages of values on the grid, shape (b, n_points)."""
        kernel = fft.dct(_kernel(self.n_points, bandwidth), type=1)
        smoothed = fft.idct(self._spectrum(values) * kernel, type=1, axis=-1)
        density = fft.idct(self.density * kernel, type=1)
        return np.asarray(smoothed / np.maximum(density, np.finfo(float).tiny))

    def _widths(self, spectrum: FloatArray) -> FloatArray:
        n = spectrum.shape[0]
        low, high = np.zeros(n), np.ones(n)
        n_steps = _STEPS if self.is_corrected else _PEER_STEPS
        is_wide = self._at(spectrum, high) > 1.0
        for _ in range(n_steps):
            middle = (low + high) / 2
            is_met = (middle < _NARROWEST) | (middle < self._at(spectrum, middle))
            low = np.where(is_met, middle, low)
            high = np.where(is_met, high, middle)
        return np.where(is_wide, 1.0, high)

    def _at(self, spectrum: FloatArray, bandwidth: FloatArray) -> FloatArray:
        # Bisections meet the same widths again and again.
        widths, which = np.unique(bandwidth, return_inverse=True)
        kernel = fft.dct(_kernel(self.n_points, widths), type=1, axis=-1)
        density = fft.idct(self.density * kernel, type=1, axis=-1)
        smoothed = np.abs(fft.idct(spectrum * kernel[which], type=1, axis=-1))
        if self.is_corrected:
            return _trapezoid(smoothed) / _trapezoid(density)[which]
        mesh = np.linspace(0, self.n_points - 1, _PEER_MESH)
        below = _sum_at(density + _DENSITY_FLOOR, mesh)[which]
        return _sum_at(smoothed, mesh) / below


def _trapezoid(values: FloatArray) -> FloatArray:
    return np.asarray(values.sum(axis=-1) - (values[..., 0] + values[..., -1]) / 2)


def _sum_at(values: FloatArray, mesh: FloatArray) -> FloatArray:
    left = mesh.astype(np.int64).clip(0, values.shape[-1] - 2)
    share = mesh - left
    found = values[..., left] * (1 - share) + values[..., left + 1] * share
    return np.asarray(found.sum(axis=-1))


def _smooth_point(scores: RowScores, design: Design) -> float:
    scale = design.shares(len(scores)) * len(scores)
    grid = _grid(scores.confidence, _CELLS + 1)
    residual = grid @ (scale * (scores.confidence - scores.outcome))
    smoother = _Smoother(grid @ scale, is_corrected=True)
    return float(smoother.errors(residual[None, :])[0])


def _peer_error(
    confidence: FloatArray, residual: FloatArray, scale: FloatArray, bandwidth: float
) -> float:
    """Return the error at one bandwidth on the grid that relplot takes for it."""
    n_points = max(2000, round(20 / bandwidth)) // 2 + 1
    grid = _grid(confidence, n_points)
    centred = np.linspace(0.0, 1.0, n_points) - 0.5
    kernel = np.exp(-(centred**2) / (2 * bandwidth**2))
    kernel /= np.sqrt(2 * np.pi) * bandwidth
    mesh = np.linspace(0.0, 1.0, max(round(10 / bandwidth), _PEER_MESH))
    sums: list[float] = []
    for values in (grid @ (scale * residual), grid @ scale):
        mirrored = np.concatenate([values[:0:-1], values, values[-2::-1]])
        # loaded here: with its imports it takes a tenth of a second
        smoothed = scipy.signal.oaconvolve(mirrored, kernel, "valid")
        # An even number of points shifts the kernel by half a cell, as in relplot.
        smoothed = smoothed[n_points // 2 :][:n_points]
        is_density = bool(sums)
        smoothed = smoothed + _DENSITY_FLOOR if is_density else np.asarray(smoothed)
        found = np.interp(mesh * (n_points - 1), np.arange(n_points), smoothed)
        sums.append(float((found if is_density else np.abs(found)).sum()))
    return sums[0] / sums[1]


def _peer_point(scores: RowScores, design: Design) -> float:
    scale = design.shares(len(scores)) * len(scores)
    confidence, residual = scores.confidence, scores.confidence - scores.outcome

    def error(bandwidth: float) -> float:
        return _peer_error(confidence, residual, scale, bandwidth)

    if error(1.0) > 1.0:
        return error(1.0)
    low, high = 0.0, 1.0
    for _ in range(_PEER_STEPS):
        middle = (low + high) / 2
        if middle < _NARROWEST or middle < error(middle):
            low = middle
        else:
            high = middle
    return error(high)


def _estimate(scores: RowScores, design: Design, *, is_corrected: bool) -> Estimate:
    ordered, drawn = design.by_confidence(scores)
    scale = drawn.shares(len(scores)) * len(scores)
    grid = _grid(ordered.confidence, _CELLS + 1)
    smoother = _Smoother(grid @ scale, is_corrected=is_corrected)

    def errors(residuals: FloatArray) -> FloatArray:
        on_grid = (grid @ (scale * residuals).T).T
        pieces = range(0, on_grid.shape[0], _MOST_AT_ONCE)
        return np.concatenate(
            [smoother.errors(on_grid[i : i + _MOST_AT_ONCE]) for i in pieces]
        )

    observed = float(errors((ordered.confidence - ordered.outcome)[None, :])[0])
    point = observed if is_corrected else _peer_point(scores, design)
    draws = null_draws(ordered, drawn, errors)
    words = "Gaussian kernel of the width that equals the error"
    return null_estimate(point, draws, scores, design, words, observed=observed)


def smooth_estimate(scores: RowScores, design: Design) -> Estimate:
    """Return the boundary-corrected smooth ECE with its null range and p-value."""
    return _estimate(scores, design, is_corrected=True)


def peer_estimate(scores: RowScores, design: Design) -> Estimate:
    """Return the smooth ECE of relplot with its null range and p-value."""
    return _estimate(scores, design, is_corrected=False)


@CURVES.register(
    "smooth",
    label="Smooth",
    reference="Blasiok and Nakkiran 2023, arXiv:2309.12236",
    formula=r"\hat\mu(t) = t + \frac{\sum_i K_{s^*}(t, \hat p_i)\,(o_i - \hat p_i)}"
    r"{\sum_i K_{s^*}(t, \hat p_i)},\quad s^* = \mathrm{smooth\ ECE}",
    aliases=("kernel",),
    metrics=("smooth-ece", "smooth-ece-relplot"),
)
def smooth_reliability_curve(
    scores: RowScores, design: Design, *, level: float = 0.9
) -> Curve:
    """Confidence plus the residuals around it, averaged as wide as the smooth ECE.

    Parameters
    ----------
    scores : RowScores
    design : Design
        Weights, groups, resamples, seed and progress.
    level : float, default=0.9
        Pointwise level of the band.

    Returns
    -------
    Curve
        The band is where the curve of a calibrated model with these confidences would
        lie, smoothed by the same width. Confidences that no row is near have no point.

    Notes
    -----
    Residuals are smoothed, not outcomes as in the diagram of relplot: those drift off
    the diagonal wherever rows get denser, although the model may be calibrated. The
    distance from the diagonal, weighted by the density of the rows, is what the smooth
    ECE adds up.
    """
    ordered, drawn = design.by_confidence(scores)
    scale = drawn.shares(len(scores)) * len(scores)
    grid = _grid(ordered.confidence, _CELLS + 1)
    smoother = _Smoother(grid @ scale, is_corrected=True)
    residual = grid @ (scale * (ordered.confidence - ordered.outcome))
    width = smoother.width(residual)
    shown = _near_rows(grid, ordered.confidence, width)
    x = np.linspace(0.0, 1.0, _CELLS + 1)[shown]

    def curves(on_grid: FloatArray) -> FloatArray:
        return x - smoother.means(on_grid, width)[:, shown]

    def smoothed(residuals: FloatArray) -> FloatArray:
        on_grid = (grid @ (scale * residuals).T).T
        pieces = range(0, on_grid.shape[0], _MOST_AT_ONCE)
        return np.concatenate([curves(on_grid[i : i + _MOST_AT_ONCE]) for i in pieces])

    low, high = consistency_band(ordered, drawn, smoothed, level)
    return Curve(
        x=x,
        y=np.clip(curves(residual[None, :])[0], 0.0, 1.0),
        low=low,
        high=high,
        level=level,
        n=len(scores),
        method=f"residuals smoothed by a Gaussian kernel of width {width:.4f}, the "
        f"smooth ECE, reflected at 0 and 1; consistency band, {drawn.null_words}",
    )


def _near_rows(grid: Any, confidence: FloatArray, width: float) -> NDArray[np.int64]:
    """Return the points of the grid, between the ends, that some row is near.

    The kernels of the rows reach there as much as one row reaches its own place.
    """
    count = np.asarray(grid.sum(axis=1), dtype=np.float64)
    reach = _Smoother(count, is_corrected=True)
    kernel = _kernel(reach.n_points, width)
    near = fft.idct(reach.density * fft.dct(kernel / kernel[0], type=1), type=1)
    place = np.flatnonzero(near >= 1.0 - 1e-6)
    first, last = (round(float(end) * _CELLS) for end in confidence[[0, -1]])
    inside = place[(place >= first) & (place <= last)]
    return inside if inside.size else np.unique([first, last])


@METRICS.register(
    "smooth-ece",
    label="Smooth ECE",
    reference="Blasiok and Nakkiran 2023, arXiv:2309.12236",
    formula=r"s^* = \int_0^1 \Bigl|\frac1n\sum_i K_{s^*}(t, \hat p_i)\,"
    r"(\hat p_i - o_i)\Bigr|\,dt",
    tier="more",
    aliases=("smece", "smooth-calibration-error"),
    needs="design",
    direction="lower",
    unit="share",
    views=("top-label", "positive-class"),
    field="outcome",
    statistic=smooth_estimate,
    point=_smooth_point,
)
def smooth_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    view: str = "top-label",
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """Calibration error by kernel smoothing, which needs no choice of bins.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Class indices, or names where `labels` gives them in column order.
    y_prob : array-like of shape (n, k), or (n,) for the positive class
        Probabilities.
    view : {"top-label", "positive-class"}, default="top-label"
        For two classes: confidence in the prediction against how often it is right,
        or probability of the positive class against how often it comes true.
    sample_weight : array-like of shape (n,), optional
    labels : array-like of shape (k,), optional
        Class names in column order.

    Returns
    -------
    float
        In [0, 1], with a resolution of 0.001.

    Notes
    -----
    The kernel is reflected at 0 and 1 and, unlike in relplot, mass that lies exactly
    there keeps its full weight.
    """
    return point_of(
        _smooth_point,
        y_true,
        y_prob,
        sample_weight=sample_weight,
        labels=labels,
        view=view,
    )


@METRICS.register(
    "smooth-ece-relplot",
    label="Smooth ECE, relplot",
    reference="Blasiok and Nakkiran 2023, arXiv:2309.12236; relplot 1.0.3",
    formula=r"s^* = \int_0^1 \Bigl|\frac1n\sum_i K_{s^*}(t, \hat p_i)\,"
    r"(\hat p_i - o_i)\Bigr|\,dt",
    tier="more",
    aliases=("smece-relplot",),
    needs="design",
    direction="lower",
    unit="share",
    views=("top-label", "positive-class"),
    field="outcome",
    statistic=peer_estimate,
    point=_peer_point,
)
def smooth_calibration_error_relplot(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    view: str = "top-label",
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """Smooth ECE with the grid and boundary of relplot: rows at 0 and 1 weigh half.

    Parameters
    ----------
    y_true, y_prob, view, sample_weight, labels
        As in `smooth_calibration_error`.

    Returns
    -------
    float
    """
    return point_of(
        _peer_point,
        y_true,
        y_prob,
        sample_weight=sample_weight,
        labels=labels,
        view=view,
    )
