"""Loss of vector scaling and its derivatives in the slope and offset of each class.

Everything is in double precision, whatever the logits are: the optimiser compares
losses whose differences are below the resolution of single precision. Rows with few
classes share a tile; the sums over rows are one pair of vectors per chunk of rows.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from core.kernels.exp import (
    _HELPER,
    _KERNEL,
    _LOG2E,
    _TILE,
    _powers,
)

__all__ = ["EXP_STAMP", "new_tile"]

# of what kernels share: a change must reach those that Numba keeps
EXP_STAMP = 1774504357


def new_tile(n_classes: int) -> tuple[NDArray[np.float64], ...]:
    """Return the arrays a kernel works in: exponentials, logits, maxima.

    Parameters
    ----------
    n_classes : int
    """
    n_rows = max(1, _TILE // n_classes)
    size = n_rows * n_classes
    return np.zeros(size), np.zeros(size), np.zeros(n_rows)


@njit(**_HELPER)
def _fill_tile(x, k, begin, n_rows, slope, offset, tile):
    """Write logits, and exp(score - row maximum), of some rows; -inf has no mass."""
    e, z, tops = tile
    for i in range(n_rows):
        first = (begin + i) * k
        place = i * k
        top = -np.inf
        for j in range(k):
            logit = np.float64(x[np.uintp(first + j)])
            is_there = logit > -np.inf
            value = logit if is_there else 0.0
            score = slope[np.uintp(j)] * value + offset[np.uintp(j)]
            score = score if is_there else -np.inf
            z[np.uintp(place + j)] = value
            e[np.uintp(place + j)] = score
            top = score if score > top else top
        tops[i] = top
        for j in range(place, place + k):
            e[np.uintp(j)] = (e[np.uintp(j)] - top) * _LOG2E
    _powers(e, n_rows * k)


@njit(**_KERNEL)
def _vector_objective_kernel(
    x, k, start, stop, tile, labels, weight, slope, offset, losses, sums
):
    """Add the gradient of rows start..stop to `sums`; write their losses; return -1.

    x: flat (n * k,); labels: (n,) int64; weight: (n,), rows with 0 are passed over (a
    label at -inf must have 0); slope, offset: (k,); losses: (n,); sums: (2, k) of
    weight * (p - [label]) * (z, 1). O(k) per row.
    """
    e, z, tops = tile
    step = max(1, _TILE // k)
    for begin in range(start, stop, step):
        n_rows = min(step, stop - begin)
        _fill_tile(x, k, begin, n_rows, slope, offset, tile)
        for i in range(n_rows):
            row = begin + i
            losses[row] = 0.0
            if weight[row] == 0.0:
                continue
            place = i * k
            mass = 0.0
            for j in range(place, place + k):
                mass += e[np.uintp(j)]
            label = labels[row]
            z_label = z[np.uintp(place + label)]
            score = slope[label] * z_label + offset[label]
            losses[row] = math.log(mass) - (score - tops[i])
            scale = weight[row] / mass
            for j in range(k):
                p = e[np.uintp(place + j)] * scale
                sums[0, np.uintp(j)] += p * z[np.uintp(place + j)]
                sums[1, np.uintp(j)] += p
            sums[0, label] -= weight[row] * z_label
            sums[1, label] -= weight[row]
    return -1


@njit(**_KERNEL)
def _vector_curvature_kernel(x, k, start, stop, tile, weight, slope, offset, sums):
    """Add each class's own second derivatives of rows start..stop to `sums`.

    As `_vector_objective_kernel`; sums: (3, k) of weight * p (1 - p) * (z^2, z, 1).
    """
    e, z, _ = tile
    step = max(1, _TILE // k)
    for begin in range(start, stop, step):
        n_rows = min(step, stop - begin)
        _fill_tile(x, k, begin, n_rows, slope, offset, tile)
        for i in range(n_rows):
            place = i * k
            mass = 0.0
            for j in range(place, place + k):
                mass += e[np.uintp(j)]
            inverse = 1.0 / mass
            for j in range(k):
                p = e[np.uintp(place + j)] * inverse
                value = z[np.uintp(place + j)]
                spread = weight[begin + i] * p * (1.0 - p)
                sums[0, np.uintp(j)] += spread * value * value
                sums[1, np.uintp(j)] += spread * value
                sums[2, np.uintp(j)] += spread
    return -1
