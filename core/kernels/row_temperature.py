"""What losses of rows with a temperature of their own are made of.

One trip over the logits gives, for an inverse temperature per row, everything that
the log loss, the Brier score and losses of the confidence need, with their
derivatives. Everything is in double precision, whatever the logits are: the optimiser
compares losses whose differences are below the resolution of single precision.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
from __future__ import annotations

import numpy as np
from numba import njit

from core.kernels.exp import _KERNEL, _LOG2E, _TILE, _highest, _load_shifted

__all__ = ["EXP_STAMP", "N_SUMS", "TILE"]

# of what kernels share: a change must reach those that Numba keeps
EXP_STAMP = 1774504357

N_SUMS = 4
TILE = _TILE


@njit(**_KERNEL)
def _row_temperature_kernel(x, k, start, stop, rows, beta, shifted, sums):
    """Write the sums of rows start..stop to `sums`; return -1.

    With z relative to the largest logit of its row and e = exp(beta z), for each of
    the `rows` (places in x): the sum of e without the largest, and the sums of e z,
    e^2 and e^2 z. Of several largest ones, one counts as the largest.

    x: flat (n * k,); rows: (m,) int64; beta: (m,); shifted: (TILE,); sums: (4, m).
    O(k) per row.
    """
    for i in range(start, stop):
        first = rows[i] * k
        top = np.float64(_highest(x, first, k))
        rate = beta[i] * _LOG2E
        mass, slope, square, square_slope = 0.0, 0.0, 0.0, 0.0
        n_top = 0
        for begin in range(first, first + k, shifted.size):
            n = _load_shifted(x, begin, first + k, top, rate, shifted)
            for j in range(n):
                z = np.float64(x[np.uintp(begin + j)]) - top
                e = shifted[np.uintp(j)]
                if z == 0.0:
                    n_top += 1
                    continue
                if e == 0.0:  # a class at minus infinity: 0 * inf must not be NaN
                    continue
                mass += e
                slope += e * z
                square += e * e
                square_slope += e * e * z
        sums[0, i] = mass + (n_top - 1)
        sums[1, i] = slope
        sums[2, i] = square + n_top
        sums[3, i] = square_slope
    return -1
