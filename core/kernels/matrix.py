"""Residuals of softmax scores that a matrix product made: losses and their gradient.

The products themselves are left to BLAS, in single or double precision; here is what
happens to each row between them, in double precision.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
from __future__ import annotations

import math

import numpy as np
from numba import njit

from core.kernels.exp import _KERNEL, _LOG2E, _powers

__all__ = ["EXP_STAMP"]

# of what kernels share: a change must reach those that Numba keeps
EXP_STAMP = 1774504357


@njit(**_KERNEL)
def _residual_kernel(change, x, start, stop, labels, weight, tile, losses):
    """Turn changes of scores of some rows into weight * (p - [label]), with losses.

    change: (n, k), what is added to the scores x, -inf rules a class out; x: (n, k) or
    wider, of the same type; labels: (n,) int64; weight: (n,), rows with 0 become 0 (a
    label at -inf must have 0); tile: (k,) float64; losses: (n,). Rows start..stop;
    O(k) per row; returns -1.
    """
    k = change.shape[1]
    for i in range(start, stop):
        row = change[i]
        losses[i] = 0.0
        if weight[i] == 0.0:
            row[:] = 0.0
            continue
        top = -np.inf
        for j in range(k):
            score = np.float64(x[i, np.uintp(j)]) + np.float64(row[np.uintp(j)])
            tile[np.uintp(j)] = score
            top = score if score > top else top
        label = labels[i]
        below = tile[label] - top
        for j in range(k):
            tile[np.uintp(j)] = (tile[np.uintp(j)] - top) * _LOG2E
        _powers(tile, k)
        mass = 0.0
        for j in range(k):
            mass += tile[np.uintp(j)]
        losses[i] = math.log(mass) - below
        scale = weight[i] / mass
        tile[label] -= mass
        for j in range(k):
            row[np.uintp(j)] = tile[np.uintp(j)] * scale
    return -1
