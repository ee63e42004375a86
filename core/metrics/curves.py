"""Reliability curves that need no bins, and the registry they are entered in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.metrics.base import RowScores
from core.metrics.design import Design, null_draws
from core.registry import Registry

__all__ = ["CURVES", "Curve", "consistency_band"]

FloatArray = NDArray[np.floating[Any]]

CURVES = Registry("reliability curve")
"""Reliability curves by id.

Each is a function of `RowScores` and `core.metrics.design.Design`, with the level of
its band, that returns a `Curve`. Trait: ``metrics``, the ids of the numbers that belong
beside it.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A line with a pointwise band, for a figure to draw.

    Parameters
    ----------
    x : ndarray of shape (m,)
        Confidences, rising.
    y : ndarray of shape (m,)
        Estimated share of outcomes at `x`; straight between the points.
    low, high : ndarray of shape (m,)
        Where the curve of a calibrated model of this size lies, pointwise.
    level : float
        Of the band.
    n : int
        Rows.
    method : str
        How line and band were made.
    rows : {"all", "test", "cross-fitted", "in-sample"}, default="all"
        Which rows these are.
    """

    x: FloatArray
    y: FloatArray
    low: FloatArray
    high: FloatArray
    level: float
    n: int
    method: str
    rows: str = "all"


def consistency_band(
    ordered: RowScores,
    design: Design,
    curves: Callable[[FloatArray], FloatArray],
    level: float,
) -> tuple[FloatArray, FloatArray]:
    """Return where the curves of calibrated models of this size lie, pointwise.

    Ends beyond 0 and 1, where no share can be, are cut.

    Parameters
    ----------
    ordered : RowScores
        Sorted by rising confidence, like `design`.
    design : Design
    curves : callable
        From residuals of shape (b, n) to curves of shape (b, m).
    level : float
    """
    draws = null_draws(ordered, design, curves)
    tails = [(1 - level) / 2, (1 + level) / 2]
    found = np.nanquantile(draws, tails, axis=0, method="weibull")
    low, high = np.clip(found, 0.0, 1.0)
    return low, high
