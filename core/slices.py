"""Parts of the rows against all other rows: signed gaps with exact bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from core.binning import bin_sums

__all__ = [
    "LEAST_ROWS",
    "Gaps",
    "PartGaps",
    "large_parts",
    "part_gaps",
    "shared_correlation",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

LEAST_ROWS = 10
"""A part with fewer rows is not looked at, nor one that leaves fewer others."""

_LAST = 8.0  # more than two differences of gaps can lie apart


@dataclass(frozen=True, slots=True, eq=False)
class Gaps:
    """Mean confidence minus accuracy of several sets of rows, in shares.

    Parameters
    ----------
    value, low, high : ndarray of shape (m,)
        The gap and its interval; NaN where there are no rows.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray

    def minus(self, other: Gaps) -> Gaps:
        """Return the difference to gaps of other, independent rows.

        The distances of both from their limits are added as if independent (Zou and
        Donner 2008, Statistics in Medicine 27).
        """
        value = self.value - other.value
        below = np.hypot(self.value - self.low, other.high - other.value)
        above = np.hypot(self.high - self.value, other.value - other.low)
        return Gaps(value, value - below, value + above)


@dataclass(frozen=True, slots=True, eq=False)
class PartGaps:
    """Every part of the rows, and for each the rows that are not in it.

    Parameters
    ----------
    count, n_rest : ndarray of int64 of shape (m,)
        Rows in the part, and outside it.
    part, rest, difference : Gaps
        Of the part, of all other rows, and part minus rest.
    level : float
        Of each interval by itself.
    """

    count: IndexArray
    n_rest: IndexArray
    part: Gaps
    rest: Gaps
    difference: Gaps
    level: float

    @property
    def is_large(self) -> NDArray[np.bool_]:
        """Parts with enough rows inside and outside."""
        return large_parts(self.count)

    @property
    def excess(self) -> FloatArray:
        """Least distance from the other rows that the interval allows, shape (m,).

        Positive where the difference is detectable. Parts nearer to 0 than the other
        rows come after all that are not; -inf where there are too few rows.
        """
        found = np.maximum(self.difference.low, -self.difference.high)
        is_worse = np.abs(self.part.value) > np.abs(self.rest.value)
        return np.where(self.is_large, found - _LAST * ~is_worse, -np.inf)


def large_parts(count: IndexArray) -> NDArray[np.bool_]:
    """Return which parts have enough rows inside and outside, by their counts."""
    return np.asarray((count >= LEAST_ROWS) & (count.sum() - count >= LEAST_ROWS))


def part_gaps(
    confidence: FloatArray,
    outcome: FloatArray,
    part: IndexArray,
    n_parts: int,
    *,
    sample_weight: FloatArray | None = None,
    groups: IndexArray | None = None,
    level: float = 0.95,
) -> PartGaps:
    """Return the gap of each part of the rows and of the rows outside it.

    Confidences are taken as they are; the share that is right has a Clopper-Pearson
    interval, which holds for any number of rows and for rows of unequal chances.
    Weights and groups enter by the effective number of rows.

    Parameters
    ----------
    confidence, outcome : ndarray of shape (n,)
    part : ndarray of int64 of shape (n,)
        Part of each row, in 0 to `n_parts` - 1.
    n_parts : int
    sample_weight : ndarray of shape (n,), optional
    groups : ndarray of int64 of shape (n,), optional
        Rows that belong together; see `shared_correlation`.
    level : float, default=0.95

    References
    ----------
    Clopper and Pearson (1934), Biometrika 26; Hoeffding (1956), Annals of Mathematical
    Statistics 27, for unequal chances; Kish (1965), Survey Sampling, for the groups.
    """
    unit = np.ones(part.shape) if sample_weight is None else sample_weight
    count = np.bincount(part, minlength=n_parts)
    n_rest = part.size - count
    inside = [bin_sums(part, v, n_parts) for v in _summed(confidence, outcome, unit)]
    outside = [sums.sum() - sums for sums in inside]
    if groups is not None:
        shared = shared_correlation(confidence - outcome, part, groups)
        pairs = _pairs(part, groups, unit, n_parts)
        inside[3] += shared * (pairs[0] - inside[3])
        outside[3] += shared * (pairs[1] - outside[3])
    found = _gaps(inside, count, level)
    rest = _gaps(outside, n_rest, level)
    return PartGaps(count, n_rest, found, rest, found.minus(rest), level)


def shared_correlation(
    residual: FloatArray, part: IndexArray, groups: IndexArray
) -> float:
    """Return the correlation of rows of one group within a part, in [0, 1].

    One number for all parts, since each by itself has few groups.

    Parameters
    ----------
    residual : ndarray of shape (n,)
        Confidence minus outcome; centred within each part here.
    part, groups : ndarray of int64 of shape (n,)
    """
    n_parts = int(part.max()) + 1
    with np.errstate(invalid="ignore"):
        mean = bin_sums(part, residual, n_parts) / np.bincount(part, minlength=n_parts)
    centred = residual - mean[part]
    squares = float(centred @ centred)
    cell = np.unique(groups * n_parts + part, return_inverse=True)[1]
    sums, sizes = np.bincount(cell, centred), np.bincount(cell).astype(np.float64)
    n_pairs = float(sizes @ sizes) - part.size
    if squares <= 0 or n_pairs <= 0:
        return 0.0
    found = (float(sums @ sums) - squares) / n_pairs * part.size / squares
    return min(max(found, 0.0), 1.0)


def _summed(
    confidence: FloatArray, outcome: FloatArray, unit: FloatArray
) -> tuple[FloatArray, ...]:
    return unit, unit * confidence, unit * outcome, unit**2


def _pairs(
    part: IndexArray, groups: IndexArray, unit: FloatArray, n_parts: int
) -> tuple[FloatArray, FloatArray]:
    """Return sums of squared weights of groups, inside and outside every part."""
    names, group = np.unique(groups, return_inverse=True)
    total = bin_sums(group, unit, names.size)
    cells, cell = np.unique(group * n_parts + part, return_inverse=True)
    mass = bin_sums(cell, unit, cells.size)
    group_of, part_of = np.divmod(cells, n_parts)
    inside = bin_sums(part_of, mass**2, n_parts)
    crossed = bin_sums(part_of, mass * total[group_of], n_parts)
    return inside, float(total @ total) - 2 * crossed + inside


def _gaps(sums: list[FloatArray], count: IndexArray, level: float) -> Gaps:
    """Return gaps from sums of weight, confidence, outcome and squared weight."""
    mass, confidence, outcome, squares = sums
    is_empty = (count == 0) | (mass <= 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = np.where(is_empty, np.nan, confidence / mass)
        share = np.where(is_empty, np.nan, np.clip(outcome / mass, 0, 1))
        n = np.minimum(mass**2 / squares, count)
    tail = (1 - level) / 2
    right, wrong = share * n, (1 - share) * n
    low = np.where(right > 0, special.betaincinv(right, wrong + 1, tail), 0.0)
    high = np.where(wrong > 0, special.betaincinv(right + 1, wrong, 1 - tail), 1.0)
    low, high = (np.where(is_empty, np.nan, end) for end in (low, high))
    return Gaps(centre - share, centre - high, centre - low)
