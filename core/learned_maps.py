"""What calibrators learned and changed: curves of classes, confidences, predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.binning import assign_bins, bin_edges
from core.calibrators import Calibrator, OneVsRest
from core.row_statistics import RowStatistics

__all__ = [
    "ClassChanges",
    "ClassCurve",
    "ClassWeights",
    "ConfidenceMap",
    "class_changes",
    "class_curves",
    "class_weights",
    "confidence_map",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_SPREAD = (0.1, 0.5, 0.9)  # quantiles of the confidences after, in each bin


@dataclass(frozen=True, slots=True, eq=False)
class ClassCurve:
    """The curve of one class: its probability before and after.

    Parameters
    ----------
    column : int
        The class.
    before, after : ndarray of shape (m,)
        `before` ascends from 0 to 1. `after` is what the curve says, before rows are
        renormalised (two classes need no renormalising).
    """

    column: int
    before: FloatArray
    after: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ClassWeights:
    """The linear map of logits that a calibrator learned.

    Parameters
    ----------
    weights : ndarray of shape (k,) or (k, k)
        Slope of each class, or the matrix: new logit of the row's class, old logit of
        the column's class.
    bias : ndarray of shape (k,)
    """

    weights: FloatArray
    bias: FloatArray

    @property
    def is_matrix(self) -> bool:
        """Whether classes are mixed."""
        return self.weights.ndim == 2


@dataclass(frozen=True, slots=True, eq=False)
class ConfidenceMap:
    """What became of the confidences of rows, in bins of the confidence before.

    Parameters
    ----------
    count : ndarray of int64 of shape (n_bins,)
        Rows of each bin, at least 1: there are no empty bins.
    before : ndarray of shape (n_bins,)
        Mean confidence before.
    after, low, high : ndarray of shape (n_bins,)
        Median of the confidence after, and its 10 % and 90 % quantiles: how much the
        result depends on the rest of the row.
    """

    count: IndexArray
    before: FloatArray
    after: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ClassChanges:
    """What a calibrator changed, by the class that was predicted before.

    Parameters
    ----------
    n : ndarray of int64 of shape (k,)
        Rows predicted as the class before.
    n_left, n_joined : ndarray of int64 of shape (k,)
        Rows predicted as the class before and not after, and the other way round.
    confidence_before, confidence_after : ndarray of shape (k,)
        Mean confidence of the `n` rows; NaN where there are none.
    correct_before, correct_after : ndarray of int64 of shape (k,), or None
        Of the `n` rows, those that were right; None without labels.
    """

    n: IndexArray
    n_left: IndexArray
    n_joined: IndexArray
    confidence_before: FloatArray
    confidence_after: FloatArray
    correct_before: IndexArray | None
    correct_after: IndexArray | None

    @property
    def n_changed(self) -> int:
        """Rows whose prediction changed."""
        return int(self.n_left.sum())

    @property
    def n_rows(self) -> int:
        """All rows."""
        return int(self.n.sum())

    def by_change(self) -> IndexArray:
        """Return the classes, those that rows left or joined most often first.

        Of equals, those whose mean confidence moved furthest come first, then those
        with more rows.
        """
        moved = np.abs(np.nan_to_num(self.confidence_after - self.confidence_before))
        changed = self.n_left + self.n_joined
        return np.lexsort((-self.n, -moved, -changed))


def class_curves(
    calibrator: Calibrator,
    columns: Sequence[int] | None = None,
    *,
    n_points: int = 201,
) -> tuple[ClassCurve, ...]:
    """Return the curves of calibrators that have one per class.

    Parameters
    ----------
    calibrator : Calibrator
        Fitted.
    columns : sequence of int, optional
        Classes that are wanted, all by default; two classes have one curve, that of
        the second, whatever is asked for.
    n_points : int, default=201
        Points at equal distances from 0 to 1; bends and steps of a curve are added.

    Returns
    -------
    tuple of ClassCurve
        Empty for calibrators that map whole rows, such as temperature scaling: there,
        what becomes of one probability depends on the others.
    """
    if not isinstance(calibrator, OneVsRest):
        return ()
    k = calibrator.classes_.size
    wanted = range(k) if columns is None else columns
    places = {1: 0} if k == 2 else {int(column): int(column) for column in wanted}
    grid = np.linspace(0.0, 1.0, n_points)
    found = []
    for column, curve in places.items():
        before = np.union1d(grid, calibrator.breaks(curve))
        after = calibrator.map_probability(before, curve)
        found.append(ClassCurve(column, before, after))
    return tuple(found)


def confidence_map(
    before: RowStatistics, after: RowStatistics, *, n_bins: int = 15
) -> ConfidenceMap:
    """Return what became of confidences, for calibrators of any kind.

    Parameters
    ----------
    before, after : RowStatistics
        Of the same rows; for honest results of rows that were not fitted on.
    n_bins : int, default=15
        Bins of equal widths of the confidence before.
    """
    _check_same_rows(before, after)
    edges = bin_edges(before.confidence, n_bins, "uniform")
    place = assign_bins(before.confidence, edges)
    count = np.bincount(place)
    used = np.flatnonzero(count)
    sums = np.bincount(place, before.confidence)
    spread = np.array(
        [np.quantile(after.confidence[place == b], _SPREAD) for b in used]
    ).reshape(-1, 3)
    return ConfidenceMap(
        count=count[used],
        before=sums[used] / count[used],
        after=spread[:, 1],
        low=spread[:, 0],
        high=spread[:, 2],
    )


def class_changes(
    before: RowStatistics, after: RowStatistics, n_classes: int
) -> ClassChanges:
    """Return what a calibrator changed, class by class.

    Parameters
    ----------
    before, after : RowStatistics
        Of the same rows, with predictions.
    n_classes : int

    Raises
    ------
    ValueError
        If the rows differ or have no predictions.
    """
    _check_same_rows(before, after)
    old, new = before.prediction, after.prediction
    if old is None or new is None:
        msg = "the rows have no predictions"
        raise ValueError(msg)

    def counted(classes: IndexArray, mask: NDArray[np.bool_]) -> IndexArray:
        return np.bincount(classes[mask], minlength=n_classes)

    def right(rows: RowStatistics) -> IndexArray | None:
        return None if rows.correct is None else counted(old, rows.correct)

    n = np.bincount(old, minlength=n_classes)
    is_moved = old != new
    with np.errstate(invalid="ignore"):
        means = [
            np.bincount(old, rows.confidence, minlength=n_classes) / n
            for rows in (before, after)
        ]
    return ClassChanges(
        n=n,
        n_left=counted(old, is_moved),
        n_joined=counted(new, is_moved),
        confidence_before=means[0],
        confidence_after=means[1],
        correct_before=right(before),
        correct_after=right(after),
    )


def _check_same_rows(before: RowStatistics, after: RowStatistics) -> None:
    if before.n != after.n:
        msg = f"there are {before.n:,} rows before and {after.n:,} after"
        raise ValueError(msg)


def class_weights(calibrator: Calibrator) -> ClassWeights | None:
    """Return what a calibrator of logits gives each class, or None if it has no such.

    Parameters
    ----------
    calibrator : Calibrator
        Fitted. One that chose another speaks for that one.
    """
    state = calibrator.exported._state()
    if "bias" not in state and "matrix" not in state and "weights" not in state:
        return None
    k = calibrator.classes_.size
    weights = np.asarray(state.get("matrix", state.get("weights", np.ones(k))), float)
    bias = np.asarray(state.get("bias", np.zeros(k)), dtype=np.float64)
    if weights.shape not in ((k,), (k, k)) or bias.shape != (k,):
        return None
    return ClassWeights(weights, bias)
