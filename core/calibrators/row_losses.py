"""Losses of rows that have a temperature each, and their derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.kernels.row_temperature import N_SUMS, TILE, _row_temperature_kernel
from core.parallel import map_rows

__all__ = ["LOSSES", "RowLoss", "is_right"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

LOSSES = ("correctness-aware", "cross-entropy", "squared-error", "mixture")
"""What a temperature per row can be fitted by; see `RowLoss`."""

TOP_LABEL = "top-label"
"""Log loss of the confidence alone, as in top-versus-all."""


def is_right(logits: FloatArray, y: IndexArray) -> NDArray[np.bool_]:
    """Return which predictions are right; of equal logits the first is predicted."""
    return np.asarray(logits.argmax(axis=1) == y)


class RowLoss:
    """A weighted mean loss of rows as a function of one temperature per row.

    Parameters
    ----------
    logits : ndarray of shape (n, k)
    y : ndarray of int64 of shape (n,)
    weight : ndarray of shape (n,)
        Rows with 0 play no part; a label at -inf must have 0.
    kind : str
        With p = softmax(z / T), q its largest entry and c = 1 where the prediction is
        right, else 0:

        - "correctness-aware": (q - c)^2, the Brier score of the confidence.
        - "cross-entropy": -ln p_y.
        - "squared-error": sum_k (p_k - [k = y])^2.
        - "mixture": `share` of the first and 1 - `share` of the second.
        - "top-label": -c ln q - (1 - c) ln(1 - q).
    share : float, default=0.5
    """

    def __init__(
        self,
        logits: FloatArray,
        y: IndexArray,
        weight: FloatArray,
        kind: str,
        share: float = 0.5,
    ) -> None:
        n, k = logits.shape
        self.kind, self.share = kind, share
        self.k, self.itemsize = k, logits.itemsize
        # Read-only: one specialisation of the kernel.
        self.flat = np.ascontiguousarray(logits).reshape(-1).view()
        self.flat.flags.writeable = False
        self.right = is_right(logits, y)
        self.weight = weight
        top = logits.max(axis=1).astype(np.float64)
        label = logits[np.arange(n), y].astype(np.float64)
        # A label at -inf has no weight, and must not make NaN of it.
        self.z_label = np.where(np.isfinite(label), label - top, 0.0)

    def __call__(self, log_t: FloatArray, rows: IndexArray) -> tuple[float, FloatArray]:
        """Return the mean loss of some rows and its derivatives in each ln T.

        Parameters
        ----------
        log_t : ndarray of shape (m,)
        rows : ndarray of int64 of shape (m,)
        """
        beta = np.exp(-log_t)
        values, slopes = self._per_row(beta, rows)
        share = self.weight[rows]
        share = share / share.sum()
        return float(share @ values), -beta * slopes * share

    def _per_row(
        self, beta: FloatArray, rows: IndexArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return the loss of each row and its derivative in beta = 1/T."""
        sums = np.empty((N_SUMS, rows.size))

        def run(start: int, stop: int) -> None:
            scratch = np.empty(TILE)
            with np.errstate(all="ignore"):  # kernels let infinity pass
                _row_temperature_kernel(
                    *(self.flat, self.k, start, stop, rows, beta, scratch, sums)
                )

        map_rows(run, rows.size, self.itemsize * self.k + 64)
        rest, slope, square, square_slope = sums
        total = 1.0 + rest
        mean = slope / total  # of z under p, the largest being 0
        if self.kind == "cross-entropy":
            return self._cross_entropy(beta, rest, mean, rows)
        if self.kind == "squared-error":
            z = self.z_label[rows]
            p = np.exp(beta * z) / total
            norm = square / total**2
            bend = square_slope / total**2 - norm * mean
            return norm - 2.0 * p + 1.0, 2.0 * bend - 2.0 * p * (z - mean)
        q, right = 1.0 / total, self.right[rows]
        if self.kind == TOP_LABEL:
            with np.errstate(divide="ignore"):
                log_rest = np.log(rest)
            # Where nothing is left for the others, a wrong row loses what it can.
            odds = np.maximum(log_rest, -745.0)
            value = np.log1p(rest) - np.where(right, 0.0, odds)
            # d ln(1 - q) / d beta is the mean of z over the others.
            among = np.divide(slope, rest, out=np.zeros_like(rest), where=rest > 0)
            return value, np.where(right, mean, mean - among)
        gap = q - right
        value, bend = gap**2, -2.0 * gap * q * mean
        if self.kind == "mixture":
            log_loss, more = self._cross_entropy(beta, rest, mean, rows)
            value = self.share * value + (1.0 - self.share) * log_loss
            bend = self.share * bend + (1.0 - self.share) * more
        return value, bend

    def _cross_entropy(
        self, beta: FloatArray, rest: FloatArray, mean: FloatArray, rows: IndexArray
    ) -> tuple[FloatArray, FloatArray]:
        z = self.z_label[rows]
        return np.log1p(rest) - beta * z, mean - z
