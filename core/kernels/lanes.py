"""Rows side by side, one in each lane of a vector: what kernels of short rows share.

Numba's cache on disk does not notice changes here either: `exp.source_stamp` has them.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
from __future__ import annotations

import math

import numpy as np
from numba import njit

from core.kernels.exp import _HELPER, _INLINE, _exponential, _load_shifted
from core.kernels.shuffles import largest_of_rows
from core.kernels.vectors import (
    fma,
    larger,
    load,
    load_part,
    multiply,
    splat,
    store,
    subtract,
    width,
)

__all__ = ["FEW"]

FEW = 4  # classes up to which it is faster to go through rows element by element

# Of the logarithm: 2 artanh s = 2 s (1 + s^2 / 3 + s^4 / 5 + ...), and ln 2 in two
# parts, of which whole multiples of the first up to 2**20 are exact.
_A1, _A2, _A3, _A4, _A5, _A6, _A7, _A8, _A9, _A10 = (
    2.0 / (2 * i + 1) for i in range(1, 11)
)
_LN2_HIGH = float.fromhex("0x1.62e42fefap-1")
_LN2_LOW = float.fromhex("0x1.cf79abc9e3b3ap-40")
_ROOT_HALF = np.float64(math.sqrt(0.5)).view(np.uint64)
_WHOLE = np.float64(2.0**52).view(np.uint64)


@njit(**_INLINE)
def _tops_of(x, first, n_rows, k, stride, tile):
    """Return the largest elements of the rows of a block; of missing ones, -inf.

    stride: elements from one row to the next.
    """
    step = width(x)
    fill = splat(x.dtype.type(-np.inf))
    for r in range(n_rows):
        row = first + r * stride
        if k < step:
            top = larger(load_part(x, np.uintp(row), k, x.dtype.type(-np.inf)), fill)
        else:
            # the last vector, which has elements of the one before too
            top = larger(load(x, np.uintp(row + k - step)), fill)
            for j in range(0, k - step, step):
                top = larger(load(x, np.uintp(row + j)), top)
        store(tile, np.uintp(r * step), top)
    for r in range(n_rows, step):
        store(tile, np.uintp(r * step), fill)
    return largest_of_rows(tile, np.uintp(0))


@njit(**_INLINE)
def _columns_of(x, first, n_rows, k, scale, tile, lanes):
    """Put rows side by side, one a lane; write maxima and exponents of the lanes.

    Return the constants of `_exponential` and the maxima, as vectors.
    """
    step = width(x)
    for r in range(n_rows):
        for j in range(k):
            tile[np.uintp(j * step + r)] = x[np.uintp(first + r * k + j)]
    for r in range(n_rows, step):
        for j in range(k):
            tile[np.uintp(j * step + r)] = x.dtype.type(0)
    tops = load(tile, np.uintp(0))
    for j in range(1, k):
        tops = larger(load(tile, np.uintp(j * step)), tops)
    high, rounding = splat(scale[0]), splat(scale[3])
    n = subtract(fma(tops, high, rounding), rounding)
    below = subtract(n, splat(scale[4]))
    store(lanes, np.uintp(0), tops)
    store(lanes, np.uintp(step), n)
    magic, lowest = subtract(rounding, below), multiply(below, splat(scale[2]))
    peaks = _exponential(tops, scale, magic)
    store(lanes, np.uintp(2 * step), peaks)
    return magic, lowest, tops


@njit(**_INLINE)
def _logs(values, first, n):
    """Turn n doubles from a place on into their logarithms.

    They are normal numbers, not much below 1 or above.
    log m = 2 artanh((m - 1) / (m + 1)), by its series to the last bits, m from
    sqrt(1/2) to sqrt(2): a loop that is vectorised, in a third of the time of libm's.
    """
    for j in range(first, first + n):
        bits = np.float64(values[np.uintp(j)]).view(np.uint64)
        exponent = (bits - _ROOT_HALF) >> np.uint64(52)
        m = np.uint64(bits - (exponent << np.uint64(52))).view(np.float64)
        # small whole numbers as doubles, without a conversion
        times = np.uint64(exponent | _WHOLE).view(np.float64) - 2.0**52
        s = (m - 1.0) / (m + 1.0)
        z = s * s
        p = _A9 + z * _A10
        p = _A8 + z * p
        p = _A7 + z * p
        p = _A6 + z * p
        p = _A5 + z * p
        p = _A4 + z * p
        p = _A3 + z * p
        p = _A2 + z * p
        p = _A1 + z * p
        rest = s * (z * p) + times * _LN2_LOW
        values[np.uintp(j)] = times * _LN2_HIGH + (2.0 * s + rest)


@njit(**_HELPER)
def _shifted_sums(x, first, k, top, rate, shifted):
    """Return sums of e z^0 to e z^4 and of e^2 below the largest; its count.

    e = 2**(z * rate), in double precision.
    """
    sum_0, sum_1, sum_2, sum_3, sum_4, square = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    n_top = 0
    for begin in range(first, first + k, shifted.size):
        n = _load_shifted(x, begin, first + k, top, rate, shifted)
        for j in range(n):
            z = np.float64(x[begin + j]) - top
            if z == 0.0:
                n_top += 1
                continue
            e = shifted[j]
            # a class at minus infinity has no mass: 0 * inf must not become NaN
            z = z if e > 0.0 else 0.0
            sum_0 += e
            sum_1 += e * z
            sum_2 += e * z * z
            sum_3 += e * z * z * z
            sum_4 += e * z * z * z * z
            square += e * e
    return (sum_0, sum_1, sum_2, sum_3, sum_4), square, n_top
