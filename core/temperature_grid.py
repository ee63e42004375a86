"""Diagram and losses at many temperatures, so that a slider needs no more work."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.arguments import checked_labels, checked_logits, raise_bad_row
from core.binning import bin_edges, bin_statistics, combined
from core.kernels.exp import reduction_constants
from core.kernels.grid import _grid_kernel, grid_scratch
from core.messages import DataError
from core.parallel import map_rows

__all__ = ["TemperatureGrid", "temperature_grid"]

FloatArray = NDArray[np.float64]

STEPS = 15
"""Evenly spaced betas of a run; after them the product of powers is started anew."""


@dataclass(frozen=True, slots=True, eq=False)
class TemperatureGrid:
    """Reliability, log loss and Brier score at each of m temperatures.

    Parameters
    ----------
    temperature : ndarray of shape (m,)
        Falling.
    nll, brier : ndarray of shape (m,)
        Weighted means over the rows.
    weight, confidence, accuracy : ndarray of shape (m, n_bins)
        Share of the weight, mean confidence and accuracy of each bin; 0, NaN and NaN
        in empty bins and where equal counts made fewer bins.
    n : int
        Number of rows with a weight.
    """

    temperature: FloatArray
    nll: FloatArray
    brier: FloatArray
    weight: FloatArray
    confidence: FloatArray
    accuracy: FloatArray
    n: int

    def error(self, norm: str = "l1") -> FloatArray:
        """Return the calibration error at each temperature, in the norm l1 or l2."""
        gaps = np.abs(np.nan_to_num(self.confidence - self.accuracy))
        cells = zip(gaps, self.weight, strict=True)
        return np.array([combined(gap, weight, norm) for gap, weight in cells])


def _runs(low: float, high: float, n_runs: int) -> list[FloatArray]:
    """Return betas from 1 / high to 1 / low: even within runs, runs by a factor."""
    knots = np.geomspace(1.0 / high, 1.0 / low, n_runs + 1)
    runs = []
    for start, stop in itertools.pairwise(knots):
        is_last = stop == knots[-1]
        betas = np.linspace(start, stop, STEPS + 1)
        runs.append(betas if is_last else betas[:-1])
    return runs


def temperature_grid(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    low: float = 0.25,
    high: float = 4.0,
    n_runs: int = 4,
    n_bins: int = 15,
    strategy: str = "uniform",
    sample_weight: FloatArray | None = None,
) -> TemperatureGrid:
    r"""Return the numbers of a page at many temperatures, from one trip over logits.

    Parameters
    ----------
    logits : array_like, shape (n_samples, n_classes)
        As for `softmax`.
    labels : array_like of int, shape (n_samples,)
        Column of the true class, 0 or more.
    low, high : float, default=0.25, 4
        Smallest and largest temperature.
    n_runs : int, default=4
        The temperatures lie in `n_runs` ranges of equal ratio; within each, 15 values
        of 1 / T are evenly spaced. The default makes 61 temperatures.
    n_bins : int, default=15
    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of equal widths, or of equal counts at each temperature. These need the
        confidences of every row at every temperature at once: 8 bytes each.
    sample_weight : ndarray of shape (n_samples,), optional
        Rows with weight 0 are passed over; their label may be anything that is one.

    Returns
    -------
    TemperatureGrid

    Raises
    ------
    DataError
        As for `temperature_objective`; if not 0 < low < high.

    Notes
    -----
    :math:`\exp(z (\beta + t d)) = \exp(z \beta) \exp(z d)^t`: within a run, one more
    temperature costs a multiplication per class. Classes 100 powers of two below the
    top at the largest beta of a run are left out of it, which changes a sum by less
    than :math:`10^{-15} K` of its largest term if high / low is at most 2 per run.

    Examples
    --------
    >>> grid = temperature_grid([[0.0, 2.0]] * 3, [1, 1, 0], low=0.5, high=2.0)
    >>> grid.temperature[[0, -1]]
    array([2. , 0.5])
    """
    if not 0 < low < high < np.inf:
        what = f"The temperatures go from {low!r} to {high!r}."
        raise DataError(what, "low and high", "Use 0 < low < high.")
    checked = checked_logits(logits)
    n_rows, n_classes = checked.shape
    y = checked_labels(labels, n_rows, n_classes, 0)
    unit = (
        np.ones(n_rows) if sample_weight is None else np.asarray(sample_weight, float)
    )
    runs = _runs(low, high, n_runs)
    betas = np.concatenate(runs)
    dtype = checked.dtype
    steps = [(run[0], run[1] - run[0]) for run in runs]
    scales = np.array(
        [[reduction_constants(beta, dtype) for beta in pair] for pair in steps], dtype
    )
    sizes = np.array([[len(run), run[-1]] for run in runs])
    inner = np.asarray(bin_edges(unit, n_bins, "uniform")[1:-1], np.float64)
    kept = np.empty((betas.size + 1, n_rows if strategy == "quantile" else 0))
    flat = checked.reshape(-1)

    def rows(start: int, stop: int) -> tuple[int, FloatArray, FloatArray]:
        losses = np.zeros((2, betas.size))
        cells = np.zeros((betas.size, n_bins, 3))
        scratch = grid_scratch(betas.size, dtype)
        given = (y, unit, sizes, scales, betas, inner)
        with np.errstate(all="ignore"):
            bad = _grid_kernel(
                flat, n_classes, start, stop, scratch, *given, losses, cells, kept
            )
        return bad, losses, cells

    parts = map_rows(rows, n_rows, checked.itemsize * n_classes + 64)
    raise_bad_row(checked, (bad for bad, _, _ in parts))
    losses = sum((part for _, part, _ in parts), np.zeros((2, betas.size)))
    cells = sum((part for _, _, part in parts), np.zeros((betas.size, n_bins, 3)))
    cells = np.moveaxis(cells, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        nll, brier = losses / unit.sum()
        weight = cells[0] / unit.sum()
        confidence, accuracy = cells[1:] / cells[0]
    if kept.size:
        used = unit > 0
        weight, confidence, accuracy = _quantile_bins(kept[:, used], n_bins, unit[used])
    return TemperatureGrid(
        temperature=1.0 / betas,
        nll=nll,
        brier=brier,
        weight=weight,
        confidence=confidence,
        accuracy=accuracy,
        n=int(np.count_nonzero(unit)),
    )


def _quantile_bins(
    kept: FloatArray, n_bins: int, unit: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return weight, confidence and accuracy of bins of equal counts."""
    size = len(kept) - 1
    found = np.full((3, size, n_bins), np.nan)
    found[0] = 0.0
    for i in range(size):
        bins = bin_statistics(
            kept[i], kept[-1], n_bins=n_bins, strategy="quantile", sample_weight=unit
        )
        found[:, i, : bins.n_bins] = bins.weight, bins.confidence, bins.accuracy
    return found[0], found[1], found[2]
