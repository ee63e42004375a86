"""Piecewise linear curves for runtimes whose exponentials are not NumPy's.

Exponentials and sums of other runtimes differ from NumPy's in the last bits. A
fitted curve can rise so steeply between two neighbouring rows that those bits decide;
here every knot keeps its value within the reach of such differences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Segments", "interpolation", "reach", "steps"]

FloatArray = NDArray[np.floating[Any]]

_STEEP = 1e-13  # change of a result within the reach of rounding that is too much


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """A function of probabilities, linear on each segment.

    Parameters
    ----------
    start : ndarray of float64, shape (m,)
        Lower ends, ascending; the first segment also holds everything below it, the
        last one everything above.
    value, slope : ndarray of float64, shape (m,)
        The function is value + slope * (p - start).
    """

    start: FloatArray
    value: FloatArray
    slope: FloatArray

    def __call__(self, p: FloatArray) -> FloatArray:
        """Return the function at probabilities."""
        at = np.searchsorted(self.start[1:], p, side="right")
        found: FloatArray = self.value[at] + self.slope[at] * (p - self.start[at])
        return found


def reach(p: FloatArray) -> FloatArray:
    """Return how far the same probability may lie apart in two runtimes.

    A probability is the exponential of a difference: its relative error is the
    rounding of that difference, plus a few units of the exponential and the sum.
    """
    logs = np.abs(np.log(np.maximum(p, np.finfo(np.float64).tiny)))
    return np.asarray(8 * np.finfo(np.float64).eps * p * (2 + logs))


def interpolation(x: FloatArray, y: FloatArray, steep: float = _STEEP) -> Segments:
    """Return the curve of `numpy.interp` through knots, safe against rounding.

    Parameters
    ----------
    x, y : ndarray of shape (m,)
        Knots, `x` ascending in [0, 1]; constant outside.
    steep : float, default=1e-13
        Change of a result within the reach of rounding from which knots are widened.
        Rounding rarely exhausts its reach: where rows lie between knots, more may be
        left to it.

    Returns
    -------
    Segments
        Where the curve is so steep that the rounding of another runtime would show,
        knots are as wide as that rounding; in between it differs from the curve by
        no more than it would have anyway.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    parts = [(0.0, float(y[0]), 0.0)]
    width = reach(x)
    for i in np.flatnonzero(np.diff(y)):
        left, right = float(x[i]), float(x[i + 1])
        rise = float(y[i + 1] - y[i])
        reached = width[i] + width[i + 1]
        if abs(rise) * reached > steep * (right - left):
            left, right = left + float(width[i]), right - float(width[i + 1])
            if not left < right:
                left = right = float(x[i] + x[i + 1]) / 2
        if left < right:
            _append(parts, (left, float(y[i]), rise / (right - left)))
        _append(parts, (right, float(y[i + 1]), 0.0))
    start, value, slope = np.array(parts).T
    return Segments(start, value, slope)


def steps(edges: FloatArray, values: FloatArray) -> Segments:
    """Return the step function of bins (lo, hi], safe against rounding.

    Parameters
    ----------
    edges : ndarray of shape (m + 1,)
        Ascending, from 0 to 1.
    values : ndarray of shape (m,)
    """
    inner = np.asarray(edges, dtype=np.float64)[1:-1]
    above = inner + np.maximum(reach(inner), np.spacing(inner))
    # Probabilities that round to 1 are many; 1 itself always lies in the last bin.
    start = np.concatenate([[0.0], np.minimum(above, 1.0)])
    value = np.asarray(values, dtype=np.float64)
    return Segments(start, value, np.zeros(value.size))


def _append(
    parts: list[tuple[float, float, float]], part: tuple[float, float, float]
) -> None:
    """Append a segment; one that would have no length is replaced."""
    if parts[-1][0] >= part[0]:
        parts.pop()
    parts.append(part)
