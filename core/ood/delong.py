"""DeLong's variance of areas under the curve: intervals and paired tests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from core.messages import DataError
from core.ood.resampling import Basis
from core.uncertainty import Estimate

__all__ = ["AurocParts", "auroc_estimate", "checked_scores", "compare_aurocs"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]


def checked_scores(values: ArrayLike, name: str) -> FloatArray:
    """Return one score per row; no row, or a score that is NaN, raises DataError."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise DataError(
            f"The scores have shape {array.shape}.",
            f"{name} scores",
            "Give one score per row, and at least one row.",
        )
    if np.isnan(array).any():
        raise DataError(
            "A score is NaN.",
            f"{name} scores, row {int(np.isnan(array).argmax()) + 1}",
            "Leave the row out, or look for what made its score.",
        )
    return array


def compare_aurocs(
    first: tuple[ArrayLike, ArrayLike],
    second: tuple[ArrayLike, ArrayLike],
    *,
    level: float = 0.95,
    id_groups: IndexArray | None = None,
    ood_groups: IndexArray | None = None,
    rows: str = "test",
) -> Estimate:
    """Return how much the AUROC of one score exceeds another's on the same rows.

    Parameters
    ----------
    first, second : tuple of two array-like
        In-distribution and OOD scores, of the same rows in the same order.
    level, id_groups, ood_groups, rows
        As in `evaluate_ood`.

    Returns
    -------
    Estimate
        Difference, paired DeLong interval and p-value of no difference.
    """
    one = AurocParts.of(*(checked_scores(values, "scores") for values in first))
    two = AurocParts.of(*(checked_scores(values, "scores") for values in second))
    if one.inside.shape != two.inside.shape or one.outside.shape != two.outside.shape:
        raise DataError(
            "The two scores are of different rows.",
            "scores",
            "Score the same rows by both methods.",
        )
    difference = one.value - two.value
    variance = _variance(one.inside - two.inside, id_groups)
    variance += _variance(one.outside - two.outside, ood_groups)
    n = one.inside.size + one.outside.size
    low = high = p_value = None
    if math.isfinite(variance):
        error = math.sqrt(variance)
        half = float(special.ndtri(0.5 + level / 2)) * error
        low, high = max(difference - half, -1.0), min(difference + half, 1.0)
        p_value = 1.0
        if difference:
            z = abs(difference) / error if error else math.inf
            p_value = float(2 * special.ndtr(-z))
    return Estimate(
        difference,
        *(low, high, level, n),
        p_value=p_value,
        rows=rows,
        method="paired DeLong",
    )


@dataclass(frozen=True, slots=True, eq=False)
class AurocParts:
    """Each row's share in the AUROC: DeLong's structural components.

    Parameters
    ----------
    inside : ndarray of shape (n,)
        For each in-distribution row, the share of OOD rows above it.
    outside : ndarray of shape (m,)
        For each OOD row, the share of in-distribution rows below it.
    """

    inside: FloatArray
    outside: FloatArray

    @classmethod
    def of(cls, score_id: FloatArray, score_ood: FloatArray) -> AurocParts:
        """Return the parts of two sets of scores; ties count half."""
        return cls(
            inside=1.0 - _share_below(score_id, score_ood),
            outside=_share_below(score_ood, score_id),
        )

    @property
    def value(self) -> float:
        """The AUROC."""
        return float(self.outside.mean())


def _share_below(values: FloatArray, others: FloatArray) -> FloatArray:
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, side="left")
    upto = np.searchsorted(ordered, values, side="right")
    return (below + upto) / (2 * ordered.size)


def _variance(parts: FloatArray, groups: IndexArray | None) -> float:
    """Return the variance of the mean of independent rows, or of whole groups."""
    gaps = parts - parts.mean()
    if groups is not None:
        gaps = np.bincount(np.unique(groups, return_inverse=True)[1], weights=gaps)
    n = int(gaps.size)
    if n < 2:
        return math.nan
    return float(gaps @ gaps) * n / (n - 1) / parts.size**2


def auroc_estimate(
    parts: list[AurocParts],
    basis: Basis,
    id_groups: IndexArray | None,
    ood_groups: list[IndexArray | None],
) -> Estimate:
    """Return the mean AUROC over sets that share their in-distribution rows."""
    value = float(np.mean([item.value for item in parts]))
    inside = np.mean([item.inside for item in parts], axis=0)
    variance = (
        _variance(inside, id_groups)
        + sum(
            _variance(item.outside, groups)
            for item, groups in zip(parts, ood_groups, strict=True)
        )
        / len(parts) ** 2
    )
    low, high = None, None
    method = "DeLong, logit scale" + (", by group" if basis.by_group else "")
    if not math.isfinite(variance):
        method = "no interval: a set has one row or group"
    elif 0 < value < 1 and variance > 0:
        z = float(special.ndtri(0.5 + basis.level / 2))
        half = z * math.sqrt(variance) / (value * (1 - value))
        centre = math.log(value / (1 - value))
        low, high = _logistic(centre - half), _logistic(centre + half)
    elif 0 < value < 1:
        low = high = value
        method = "scores without variation"
    else:
        # No overlap: as many rows as the smaller set has were all on one side.
        smallest = min(inside.size, *(item.outside.size for item in parts))
        bound = ((1 - basis.level) / 2) ** (1 / smallest)
        low, high = (bound, 1.0) if value == 1 else (0.0, 1 - bound)
        method = f"exact bound of {smallest:,} rows without overlap"
    return Estimate(
        value, low, high, basis.level, basis.n, rows=basis.rows, method=method
    )


def _logistic(x: float) -> float:
    return float(special.expit(x))
