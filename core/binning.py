"""Bins: the one definition that diagrams, numbers and exports share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.kernels.binning import BLOCK, TABLES, _bin_kernel
from core.parallel import map_rows
from core.uncertainty import wilson_interval

__all__ = [
    "BinStatistics",
    "assign_bins",
    "bin_edges",
    "bin_statistics",
    "bin_sums",
    "grouped_size",
    "mean_outcome",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_CHUNK_BYTES = 1 << 20  # the kernel spends a tenth of the time of others on a byte
THIN = 10  # rows below which a bin is called thin


@dataclass(frozen=True, slots=True, eq=False)
class BinStatistics:
    """What each bin of confidence holds; empty bins are kept with count 0.

    Parameters
    ----------
    edges : ndarray of shape (n_bins + 1,)
        Bin b holds values in (edges[b], edges[b + 1]]; 0 belongs to the first.
    count : ndarray of int64 of shape (n_bins,)
    weight : ndarray of shape (n_bins,)
        Share of the total weight; sums to 1.
    confidence, accuracy : ndarray of shape (n_bins,)
        Weighted means of the confidence and of the outcome; NaN in empty bins.
    low, high : ndarray of shape (n_bins,)
        Wilson interval of the accuracy.
    level : float
        Level of that interval.
    """

    edges: FloatArray
    count: IndexArray
    weight: FloatArray
    confidence: FloatArray
    accuracy: FloatArray
    low: FloatArray
    high: FloatArray
    level: float

    @property
    def gap(self) -> FloatArray:
        """Mean confidence minus accuracy; positive where overconfident."""
        return self.confidence - self.accuracy

    @property
    def n_bins(self) -> int:
        """Number of bins, empty ones included."""
        return int(self.count.shape[0])

    @property
    def is_thin(self) -> NDArray[np.bool_]:
        """Bins with rows, but so few that their accuracy says little."""
        return (self.count > 0) & (self.count < THIN)

    def error(self, norm: str = "l1") -> float:
        """Return the expected calibration error in the norm l1, l2 or max."""
        gaps = np.abs(np.nan_to_num(self.gap))
        return float(combined(gaps, self.weight, norm))


def combined(gaps: FloatArray, weight: FloatArray, norm: str) -> Any:
    """Combine absolute gaps of bins (last axis) into one error."""
    if norm == "l1":
        return gaps @ weight
    if norm == "l2":
        return np.sqrt(gaps**2 @ weight)
    if norm == "max":
        return gaps.max(axis=-1)
    msg = f"norm must be 'l1', 'l2' or 'max', got {norm!r}"
    raise ValueError(msg)


def bin_edges(values: FloatArray, n_bins: int, strategy: str) -> FloatArray:
    """Return edges of equal widths or equal counts on [0, 1].

    Parameters
    ----------
    values : ndarray of shape (n,)
        Confidences in [0, 1].
    n_bins : int
    strategy : {"uniform", "quantile"}
        Quantile bins cut the sorted values into equal counts, halfway between
        neighbours; equal values stay together, so there may be fewer bins.

    Returns
    -------
    ndarray of shape (n_bins + 1,) or shorter
    """
    if n_bins < 1:
        msg = f"n_bins must be at least 1, got {n_bins}"
        raise ValueError(msg)
    if strategy == "uniform":
        return np.linspace(0.0, 1.0, n_bins + 1)
    if strategy != "quantile":
        msg = f"strategy must be 'uniform' or 'quantile', got {strategy!r}"
        raise ValueError(msg)
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = ordered.shape[0]
    sizes = np.full(n_bins, n // n_bins)
    sizes[: n % n_bins] += 1
    cuts = np.cumsum(sizes)[:-1]
    cuts = cuts[(cuts > 0) & (cuts < n)]
    left, right = ordered[cuts - 1], ordered[cuts]
    # Rounding must not lift a halfway point onto its upper neighbour.
    inner = np.unique(np.minimum((left + right) / 2, np.nextafter(right, left)))
    inner = inner[(inner > 0) & (inner < 1)]
    return np.concatenate([[0.0], inner, [1.0]])


def assign_bins(
    values: FloatArray, edges: FloatArray, *, closed: str = "right"
) -> IndexArray:
    """Return the bin of each value: (lo, hi] with 0 in the first, or [lo, hi).

    With ``closed="left"`` the last bin holds 1 as well.
    """
    if closed not in ("right", "left"):
        msg = f"closed must be 'right' or 'left', got {closed!r}"
        raise ValueError(msg)
    side = "left" if closed == "right" else "right"
    found = np.searchsorted(edges[1:-1], values, side=side)  # type: ignore[call-overload]
    return np.asarray(found, dtype=np.int64)


def bin_sums(index: IndexArray, values: FloatArray, n_bins: int) -> FloatArray:
    """Return the sum of `values` in each bin."""
    sums = np.bincount(index, weights=values, minlength=n_bins)
    return np.asarray(sums, dtype=np.float64)


def bin_statistics(
    confidence: FloatArray,
    correct: NDArray[Any],
    *,
    edges: FloatArray | None = None,
    n_bins: int = 15,
    strategy: str = "uniform",
    closed: str = "right",
    sample_weight: FloatArray | None = None,
    groups: IndexArray | None = None,
    level: float = 0.95,
) -> BinStatistics:
    """Return counts, mean confidence, accuracy and its interval for each bin.

    Parameters
    ----------
    confidence : ndarray of shape (n,)
        In [0, 1].
    correct : ndarray of shape (n,)
        Outcomes, 0 or 1.
    edges : ndarray, optional
        Edges to use; by default they are made from `n_bins` and `strategy`.
    sample_weight : ndarray of shape (n,), optional
        The interval then takes the effective number of rows.
    groups : ndarray of int of shape (n,), optional
        Rows that belong together widen the interval by their design effect.
    level : float, default=0.95
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    outcome = np.asarray(correct, dtype=np.float64)
    is_even = edges is None and strategy == "uniform"
    if edges is None:
        edges = bin_edges(confidence, n_bins, strategy)
    sums = _sums(confidence, outcome, edges, sample_weight, closed, is_even=is_even)
    count = sums[:, 0].astype(np.int64)
    mass = sums[:, 3]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_confidence = sums[:, 1] / mass
        accuracy = sums[:, 2] / mass
        independent: FloatArray = mass**2 / sums[:, 4]
    if groups is not None:
        unit = 1.0 if sample_weight is None else np.asarray(sample_weight, np.float64)
        index = assign_bins(confidence, edges, closed=closed)
        residual = unit * (outcome - np.nan_to_num(accuracy)[index])
        independent = grouped_size(index, residual, groups, accuracy, mass)
        independent = np.minimum(independent, count)
    low, high = wilson_interval(accuracy, independent, level)
    return BinStatistics(
        edges=edges,
        count=count,
        weight=mass / mass.sum(),
        confidence=mean_confidence,
        accuracy=accuracy,
        low=low,
        high=high,
        level=level,
    )


def _sums(
    confidence: FloatArray,
    outcome: FloatArray,
    edges: FloatArray,
    sample_weight: FloatArray | None,
    closed: str,
    *,
    is_even: bool,
) -> FloatArray:
    """Return count, w confidence, w outcome, w and w^2 of each bin, (n_bins, 5)."""
    if closed not in ("right", "left"):
        msg = f"closed must be 'right' or 'left', got {closed!r}"
        raise ValueError(msg)
    n, size = confidence.shape[0], len(edges) - 1
    weight = np.empty(0) if sample_weight is None else np.asarray(sample_weight, float)
    bounds, is_right = np.ascontiguousarray(edges), closed == "right"

    def add(start: int, stop: int) -> FloatArray:
        sums, work = np.zeros((TABLES, size, 5)), np.empty((2, BLOCK), np.int32)
        tally = np.zeros((TABLES, 2 * size), np.int64)
        total = np.zeros((TABLES, 2 * size))
        _bin_kernel(
            *(confidence, outcome, weight, bounds, is_even, is_right),
            *(start, stop, work, sums, tally, total),
        )
        return np.asarray(sums.sum(axis=0))

    parts = map_rows(add, n, 16, chunk_bytes=_CHUNK_BYTES)
    found = np.asarray(np.sum(parts, axis=0)) if parts else np.zeros((size, 5))
    if sample_weight is None:
        found[:, 3:] = found[:, :1]
    return found


def mean_outcome(
    outcome: NDArray[Any],
    *,
    sample_weight: FloatArray | None = None,
    groups: IndexArray | None = None,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Return the share of outcomes with its Wilson interval: all rows in one bin.

    Parameters
    ----------
    outcome : ndarray of shape (n,)
        0 or 1, at least one.
    sample_weight, groups, level
        As in `bin_statistics`.
    """
    one = bin_statistics(
        np.full(outcome.shape, 0.5),
        outcome,
        n_bins=1,
        sample_weight=sample_weight,
        groups=groups,
        level=level,
    )
    return float(one.accuracy[0]), float(one.low[0]), float(one.high[0])


def grouped_size(
    index: IndexArray,
    residual: FloatArray,
    groups: IndexArray,
    accuracy: FloatArray,
    mass: FloatArray,
) -> FloatArray:
    """Return how many independent rows have a mean as variable as each bin's.

    Parameters
    ----------
    index, residual : ndarray of shape (n,)
        Bin of each row, and its weight times its deviation from the bin's mean.
    groups : ndarray of int of shape (n,)
    accuracy, mass : ndarray of shape (n_bins,)
        Mean outcome and total weight of the bins.
    """
    size = accuracy.shape[0]
    cells, cell = np.unique(groups * size + index, return_inverse=True)
    sums = np.bincount(cell, weights=residual)
    bin_of_cell = (cells % size).astype(np.int64)
    n_groups = np.bincount(bin_of_cell, minlength=size)
    squares = np.bincount(bin_of_cell, weights=sums**2, minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = squares / mass**2 * n_groups / (n_groups - 1)
        found = accuracy * (1 - accuracy) / variance
    # A bin without variation tells nothing of its design effect: count its groups.
    return np.where(np.isfinite(found) & (found > 0), found, n_groups)
