"""What calibrators share that map the probability of each class against the rest."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.calibrators.base import Calibrator
from core.messages import FitError, Note, Progress
from core.parallel import map_rows

__all__ = [
    "LOWEST_LOG",
    "Chances",
    "OneVsRest",
    "RowOffsets",
    "chances",
    "curve_columns",
    "effective_rows",
    "log_probabilities",
    "renormalised",
    "row_offsets",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

LOWEST_LOG = -700.0
"""Lowest logarithm of a probability that curves see: exp(-700) is still a number."""

_BLOCK = 1_000_000  # scores that are exponentiated at once
_POOLED_PAIRS = 1_000_000  # (row, class) pairs that a shared curve is fitted on
_SLAB = 64  # curves between two reports of progress
_FEW_ROWS = 10  # fit rows of a class below which a note says so


class RowOffsets(NamedTuple):
    """What turns logits into log-probabilities, per row of shape (n, 1).

    Attributes
    ----------
    shift : ndarray
        The largest logit.
    total : ndarray
        Sum of exp(logit - shift) over all classes, at least 1.
    others : ndarray
        The same without the first class that has the largest logit: where that class
        is almost certain, 1 - p could not be had by subtraction.
    top : ndarray of int64
        The column of that class.
    """

    shift: FloatArray
    total: FloatArray
    others: FloatArray
    top: IndexArray

    def take(self, rows: slice) -> RowOffsets:
        """Return those of some rows."""
        shift, total, others, top = self
        return RowOffsets(shift[rows], total[rows], others[rows], top[rows])


class Chances(NamedTuple):
    """Logarithms of p and of 1 - p, neither below `LOWEST_LOG`; any equal shapes."""

    log_p: FloatArray
    log_rest: FloatArray

    def take(self, column: int) -> Chances:
        """Return those of one column, contiguous."""
        return Chances(
            np.ascontiguousarray(self.log_p[:, column]),
            np.ascontiguousarray(self.log_rest[:, column]),
        )


def curve_columns(k: int) -> list[int]:
    """Return the columns that have a curve: two classes need one, of the second."""
    return [1] if k == 2 else list(range(k))


def effective_rows(weight: FloatArray) -> float:
    """Return Kish's effective number of rows: n for n equal weights of any scale."""
    return float(weight.sum() ** 2 / (weight**2).sum())


def row_offsets(logits: FloatArray) -> RowOffsets:
    """Return what turns the logits of some rows into log-probabilities.

    A curve can rise by any amount between neighbouring numbers, so that probabilities
    that differ in the last bit may be mapped far apart. They are therefore made by
    NumPy's own steps, the same here as in an exported module.
    """
    n, k = logits.shape
    shift = logits.max(axis=1, keepdims=True).astype(np.float64)
    top = logits.argmax(axis=1)[:, None]
    total, others = np.empty_like(shift), np.empty_like(shift)
    step = max(1, _BLOCK // k)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        e = np.exp(logits[rows] - shift[rows])
        total[rows] = e.sum(axis=1, keepdims=True)
        np.put_along_axis(e, top[rows], 0.0, axis=1)
        others[rows] = e.sum(axis=1, keepdims=True)
    return RowOffsets(shift, total, others, top)


def log_probabilities(logits: FloatArray, offsets: RowOffsets) -> FloatArray:
    """Return log-probabilities of some columns; classes at -inf stay there."""
    logs: FloatArray = logits - offsets.shift
    logs -= np.log(offsets.total)
    return logs


def chances(logits: FloatArray, offsets: RowOffsets, columns: IndexArray) -> Chances:
    """Return log p and log(1 - p) of some columns.

    Parameters
    ----------
    logits : ndarray of shape (n, m)
        The logits of these columns.
    offsets : RowOffsets
        Of the whole rows.
    columns : ndarray of int64 of shape (m,)
    """
    log_total = np.log(offsets.total)
    shifted = logits - offsets.shift
    rest = offsets.total - np.exp(shifted)
    np.copyto(rest, offsets.others, where=offsets.top == columns)
    with np.errstate(divide="ignore"):
        log_rest = np.log(rest)
    return Chances(
        np.maximum(shifted - log_total, LOWEST_LOG),
        np.maximum(log_rest - log_total, LOWEST_LOG),
    )


def renormalised(mapped: FloatArray, is_ruled_out: NDArray[np.bool_]) -> FloatArray:
    """Return rows that sum to 1, in place; rows of zeros become uniform.

    Parameters
    ----------
    mapped : ndarray of shape (n, k)
        What the curves make of each probability.
    is_ruled_out : ndarray of bool of shape (n, k)
        Classes whose logit is -inf: they stay at 0.
    """
    mapped[is_ruled_out] = 0.0
    total = mapped.sum(axis=1, keepdims=True)
    np.divide(mapped, total, out=mapped, where=total > 0)
    empty = total[:, 0] <= 0
    if empty.any():
        is_open = ~is_ruled_out[empty]
        mapped[empty] = is_open / is_open.sum(axis=1, keepdims=True)
    return mapped


class OneVsRest(Calibrator):
    """Base of calibrators with one curve per class, fitted against the rest.

    Two classes have one curve, that of the second class, and the first class has the
    rest. For more, rows are renormalised; rows of zeros become uniform, as in
    scikit-learn. Classes at -inf are ruled out: they stay at 0, and their rows have no
    say in their curve. A class without fit rows gets the curve that was fitted on the
    pooled (probability, outcome) pairs of all classes.
    """

    @abstractmethod
    def _fit_curve(self, found: Chances, target: FloatArray, weight: FloatArray) -> Any:
        """Return one curve; `target` is 1 where the row is of the class, else 0."""

    @abstractmethod
    def _keep(self, curves: list[Any], weight: FloatArray) -> None:
        """Keep one curve per entry of `curve_columns`; append to `notes_`."""

    @abstractmethod
    def map_probability(self, p: FloatArray, curve: int = 0) -> FloatArray:
        """Return what one curve makes of probabilities, before rows are renormalised.

        Parameters
        ----------
        p : ndarray of shape (m,)
        curve : int, default=0
            Number of the curve: the class, or 0 for two classes.
        """

    def breaks(self, curve: int = 0) -> FloatArray:  # noqa: ARG002 - others need it
        """Return the probabilities at which a curve bends or jumps, ascending."""
        return np.empty(0)

    def _log_map(self, logits: FloatArray) -> FloatArray:
        """Return calibrated log-probabilities of some rows, in double precision."""
        p = np.exp(log_probabilities(logits, row_offsets(logits)))
        mapped: FloatArray = np.empty(p.shape)
        if p.shape[1] == 2:
            mapped[:, 1] = self.map_probability(p[:, 1])
            mapped[:, 0] = 1.0 - mapped[:, 1]
        else:
            for column in range(p.shape[1]):
                mapped[:, column] = self.map_probability(p[:, column], column)
        mapped = renormalised(mapped, np.isneginf(logits))
        with np.errstate(divide="ignore"):
            return np.log(mapped)

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,  # noqa: ARG002 - curves have no interval
        progress: Progress,
    ) -> None:
        used = (sample_weight > 0) & self._can_be_fitted(logits, y, sample_weight)
        if not used.all():
            logits, y, sample_weight = logits[used], y[used], sample_weight[used]
        if not y.size:
            what = "No fit row has a label that its scores leave open."
            raise FitError(what, "logits", "Give rows with two or more open classes.")
        k = logits.shape[1]
        offsets = row_offsets(logits)
        columns = np.array(curve_columns(k))
        curves: list[Any] = []
        for start in range(0, columns.size, _SLAB):
            text = f"Fitting class {start + 1} of {columns.size}"
            progress(start / columns.size, text)
            slab = columns[start : start + _SLAB]
            some = logits[:, slab]
            found, is_open = chances(some, offsets, slab), some > -np.inf

            def fit(
                first: int,
                last: int,
                slab: IndexArray = slab,
                found: Chances = found,
                is_open: NDArray[np.bool_] = is_open,
            ) -> list[Any]:
                return [
                    self._fit_column(
                        *(found.take(i), is_open[:, i], y == slab[i]),
                        *(sample_weight, k == 2),
                    )
                    for i in range(first, last)
                ]

            for part in map_rows(fit, slab.size, 64 * y.size):
                curves += part
        if any(item is None for item in curves):
            pooled = self._pooled_curve(logits, offsets, y, sample_weight)
            curves = [pooled if item is None else item for item in curves]
        self._keep(curves, sample_weight)
        self._remark_counts(np.bincount(y, minlength=k))

    def _fit_column(
        self,
        found: Chances,
        is_open: NDArray[np.bool_],
        is_class: NDArray[np.bool_],
        weight: FloatArray,
        is_binary: bool,  # noqa: FBT001 - called in one place
    ) -> Any:
        """Return the curve of one class; None if its rows cannot give one.

        Where a class was ruled out, the row says nothing of its curve.
        """
        if not is_open.all():
            found = Chances(found.log_p[is_open], found.log_rest[is_open])
            is_class, weight = is_class[is_open], weight[is_open]
        # One curve for both classes needs rows of both.
        if not is_class.any() or (is_binary and is_class.all()):
            return None
        return self._fit_curve(found, is_class.astype(np.float64), weight)

    def _can_be_fitted(
        self, logits: FloatArray, y: IndexArray, weight: FloatArray
    ) -> NDArray[np.bool_]:
        """Rows that say something: an open label, and another class that is open."""
        is_open = logits > -np.inf
        impossible = ~is_open[np.arange(y.size), y]
        n_impossible = int((impossible & (weight > 0)).sum())
        if n_impossible:
            text = (
                f"{n_impossible:,} fit rows have a label whose logit is -inf; no curve "
                "helps them and they were left out of the fit."
            )
            self.notes_.append(Note("impossible-label", "warning", text))
        return np.asarray(~impossible & (is_open.sum(axis=1) > 1))

    def _pooled_curve(
        self,
        logits: FloatArray,
        offsets: RowOffsets,
        y: IndexArray,
        weight: FloatArray,
    ) -> Any:
        """One curve for all classes, from evenly spaced rows where there are many."""
        n, k = logits.shape
        step = max(1, n * k // _POOLED_PAIRS)
        columns, rows = np.arange(k), slice(None, None, step)
        found = chances(logits[rows], offsets.take(rows), columns)
        is_open = logits[rows] > -np.inf
        target = (y[rows, None] == columns).astype(np.float64)
        mass = np.broadcast_to(weight[rows, None], target.shape)
        return self._fit_curve(
            Chances(found.log_p[is_open], found.log_rest[is_open]),
            target[is_open],
            mass[is_open],
        )

    def _remark_counts(self, counts: IndexArray) -> None:
        n_few = int(((counts > 0) & (counts < _FEW_ROWS)).sum())
        if n_few:
            text = (
                f"{n_few:,} of {counts.size:,} classes have fewer than {_FEW_ROWS} fit "
                "rows; their curves are guesses."
            )
            self.notes_.append(Note("few-fit-rows", "warning", text))

    def _transform(self, logits: FloatArray) -> FloatArray:
        result = np.empty(logits.shape, logits.dtype)

        def rows(start: int, stop: int) -> None:
            result[start:stop] = self._log_map(logits[start:stop])

        map_rows(rows, len(logits), 32 * logits.shape[1])
        return result
