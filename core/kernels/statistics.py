"""Statistics of rows of logits and the loss as a function of temperature.

Both read a row twice, once for its maximum and once for the sums around it; the
second sweep finds the row in cache, so that it is one trip over memory.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from core.kernels.exp import (
    LANES,
    SHORT_ROW,
    _BLOCKS_PER_FLUSH,
    _KERNEL,
    _ONE_SINGLE,
    _TILE,
    _bits,
    _fill_tail,
    _fold,
    _maximum,
    _polynomial,
    _power,
    _reduce,
    _tile_exponentials,
)

__all__ = ["EXP_STAMP"]

EXP_STAMP = 0  # of exp.py: a change of it must reach the kernels cached for this file


@njit(**_KERNEL)
def _top_blocks(x, first, n_blocks, block, threshold, work, where):
    for start in range(first, first + n_blocks * LANES, LANES):
        for j in range(LANES):
            value = x[np.uintp(start + j)]
            best = work[j]
            is_up = value > best
            below = best if is_up else value
            work[j] = value if is_up else best
            second = work[LANES + j]
            work[LANES + j] = below if below > second else second
            where[j] = block if is_up else where[j]
            above = work[2 * LANES + j]
            work[2 * LANES + j] = above + _ONE_SINGLE if value > threshold else above
        block += np.int32(1)


@njit(**_KERNEL)
def _top_two(x, first, k, threshold, work, where, tail):
    """Return (maximum, second, first index of the maximum, count above threshold)."""
    for j in range(LANES):
        work[j] = -np.inf
        work[LANES + j] = -np.inf
        work[2 * LANES + j] = 0
        where[j] = 0
    n_blocks = k // LANES
    _top_blocks(x, first, n_blocks, np.int32(0), threshold, work, where)
    if k % LANES > 0:
        _fill_tail(x, first, k, -np.inf, tail)
        _top_blocks(tail, 0, 1, np.int32(n_blocks), threshold, work, where)
    best = 0
    n_above = 0
    for j in range(LANES):
        n_above += np.int64(work[2 * LANES + j])
        is_earlier = work[j] == work[best] and where[j] < where[best]
        if work[j] > work[best] or is_earlier:
            best = j
    second = work[LANES + best]
    for j in range(LANES):
        if j != best and work[j] > second:
            second = work[j]
    index = np.int64(where[best]) * LANES + best
    return work[best], second, index, n_above


@njit(**_KERNEL)
def _moment_blocks(x, first, n_blocks, top, scale, work):
    bits = _bits(work)
    for start in range(first, first + n_blocks * LANES, LANES):
        for j in range(LANES):
            z = x[np.uintp(start + j)] - top
            z = scale[4] if z < scale[4] else z
            n, f = _reduce(z, scale)
            bits[4 * LANES + j] = _power(n)
            e = _polynomial(f) * work[4 * LANES + j]
            ez = e * z
            work[j] += e
            work[LANES + j] += ez
            work[2 * LANES + j] += ez * z
            work[3 * LANES + j] += e * e


@njit(**_KERNEL)
def _moments(x, first, k, top, scale, work, tail, total):
    """Return the sums of e, e z, e z^2 and e^2, z = x - top, e = exp(z / T)."""
    for j in range(4 * LANES):
        work[j] = 0
        total[j] = 0.0
    n_blocks = k // LANES
    for block in range(0, n_blocks, _BLOCKS_PER_FLUSH):
        n_now = min(_BLOCKS_PER_FLUSH, n_blocks - block)
        _moment_blocks(x, first + block * LANES, n_now, top, scale, work)
        for j in range(4 * LANES):
            total[j] += np.float64(work[j])
            work[j] = 0
    if k % LANES > 0:
        _fill_tail(x, first, k, -np.inf, tail)
        _moment_blocks(tail, 0, 1, top, scale, work)
        for j in range(4 * LANES):
            total[j] += np.float64(work[j])
    return (
        _fold(total[:LANES]),
        _fold(total[LANES : 2 * LANES]),
        _fold(total[2 * LANES : 3 * LANES]),
        _fold(total[3 * LANES : 4 * LANES]),
    )


@njit(**_KERNEL)
def _tile_moments(x, first, k, top, tile, begin):
    """Return the same sums as `_moments` for one row of a tile."""
    mass, slope, curvature, square = 0.0, 0.0, 0.0, 0.0
    for j in range(k):
        e = np.float64(tile[begin + j])
        z = np.float64(x[first + j]) - top
        # a class at minus infinity has no mass: 0 * inf must not become NaN
        ez = e * (z if e > 0.0 else 0.0)
        mass += e
        slope += ez
        curvature += ez * (z if e > 0.0 else 0.0)
        square += e * e
    return mass, slope, curvature, square


@njit(**_KERNEL)
def _top_two_short(x, first, k, threshold):
    best = 0
    second = -np.inf
    n_above = 0
    for j in range(k):
        value = x[first + j]
        n_above += value > threshold
        if value > x[first + best]:
            second = x[first + best]
            best = j
        elif j > 0 and value > second:
            second = value
    return x[first + best], second, best, n_above


@njit(**_KERNEL)
def _store_row(row, beta, top, second, index, n_above, sums, integers, numbers):
    mass, slope, _, square = sums
    log_mass = math.log(mass)
    integers[0, row] = index
    integers[1, row] = n_above
    numbers[0, row] = 1.0 / mass
    numbers[1, row] = -math.expm1((second - top) * beta) / mass
    numbers[2, row] = top
    numbers[3, row] = top * beta + log_mass
    numbers[4, row] = max(log_mass - beta * slope / mass, 0.0)
    numbers[5, row] = square / (mass * mass)
    return log_mass


@njit(**_KERNEL)
def _store_label(x, first, row, label, top, log_mass, beta, integers, numbers):
    """Write log-probability and rank of the label, after `_store_row`."""
    if label < 0:
        integers[1, row] = -1
        numbers[6, row] = np.nan
        return
    value = x[first + label]
    n_ties = 0
    for j in range(label):
        n_ties += 1 if x[np.uintp(first + j)] == value else 0
    integers[1, row] += n_ties
    numbers[6, row] = (np.float64(value) - top) * beta - log_mass


@njit(**_KERNEL)
def _statistics_short(x, k, start, stop, labels, rate, beta, integers, numbers):
    """Do what `_statistics_kernel` does for rows with few classes."""
    work = np.zeros(4 * LANES, x.dtype)
    tops = np.empty(_TILE)
    shifted = np.zeros(_TILE)
    tile = np.empty(_TILE, x.dtype)
    step = _TILE // k
    for begin in range(start, stop, step):
        n_rows = min(step, stop - begin)
        _tile_exponentials(x, begin * k, n_rows, k, rate, work, tops, shifted, tile)
        for i in range(n_rows):
            row = begin + i
            first = row * k
            sums = _tile_moments(x, first, k, tops[i], tile, i * k)
            if not (abs(tops[i]) < np.inf and sums[0] < np.inf):
                return row
            label = labels[row] if labels.size > 0 else -1
            threshold = x[first + label] if label >= 0 else x.dtype.type(np.inf)
            top, second, index, n_above = _top_two_short(x, first, k, threshold)
            log_mass = _store_row(
                row, beta, tops[i], second, index, n_above, sums, integers, numbers
            )
            _store_label(x, first, row, label, top, log_mass, beta, integers, numbers)
    return -1


@njit(**_KERNEL)
def _statistics_kernel(x, k, start, stop, labels, scale, rate, beta, integers, numbers):
    """Statistics of rows start..stop; the first bad row, or -1.

    x: flat (n * k,); labels: (n,) int64 or empty; integers: (2, n) prediction and rank
    of the label; numbers: (7, n) confidence, margin, maximum, log-sum-exp, entropy,
    squared sum, log-probability of the label.
    """
    if k < SHORT_ROW:
        return _statistics_short(
            x, k, start, stop, labels, rate, beta, integers, numbers
        )
    work = np.zeros(5 * LANES, x.dtype)
    where = np.zeros(LANES, np.int32)
    tail = np.empty(LANES, x.dtype)
    total = np.empty(4 * LANES)
    for row in range(start, stop):
        first = row * k
        label = labels[row] if labels.size > 0 else -1
        threshold = x[first + label] if label >= 0 else x.dtype.type(np.inf)
        top, second, index, n_above = _top_two(
            x, first, k, threshold, work, where, tail
        )
        if not abs(top) < np.inf:
            return row
        sums = _moments(x, first, k, top, scale, work, tail, total)
        if not sums[0] < np.inf:
            return row
        peak = np.float64(top)
        log_mass = _store_row(
            row, beta, peak, second, index, n_above, sums, integers, numbers
        )
        _store_label(x, first, row, label, peak, log_mass, beta, integers, numbers)
    return -1


# ------------------------------------------- loss as a function of temperature


@njit(**_KERNEL)
def _store_objective(row, beta, z, sums, numbers):
    mass, slope, curvature, _ = sums
    mean = slope / mass
    numbers[0, row] = math.log(mass) - beta * z
    numbers[1, row] = mean - (z if z > -np.inf else 0.0)
    numbers[2, row] = max(curvature / mass - mean * mean, 0.0)


@njit(**_KERNEL)
def _objective_short(x, k, start, stop, labels, rate, beta, numbers):
    """Do what `_objective_kernel` does for rows with few classes."""
    work = np.zeros(4 * LANES, x.dtype)
    tops = np.empty(_TILE)
    shifted = np.zeros(_TILE)
    tile = np.empty(_TILE, x.dtype)
    step = _TILE // k
    for begin in range(start, stop, step):
        n_rows = min(step, stop - begin)
        _tile_exponentials(x, begin * k, n_rows, k, rate, work, tops, shifted, tile)
        for i in range(n_rows):
            row = begin + i
            sums = _tile_moments(x, row * k, k, tops[i], tile, i * k)
            if not (abs(tops[i]) < np.inf and sums[0] < np.inf):
                return row
            z = np.float64(x[row * k + labels[row]]) - tops[i]
            _store_objective(row, beta, z, sums, numbers)
    return -1


@njit(**_KERNEL)
def _objective_kernel(x, k, start, stop, labels, scale, rate, beta, numbers):
    """Loss, slope and curvature in beta of rows start..stop; the first bad row, or -1.

    x: flat (n * k,); labels: (n,) int64, all >= 0; numbers: (3, n).
    """
    if k < SHORT_ROW:
        return _objective_short(x, k, start, stop, labels, rate, beta, numbers)
    work = np.zeros(5 * LANES, x.dtype)
    tail = np.empty(LANES, x.dtype)
    total = np.empty(4 * LANES)
    for row in range(start, stop):
        first = row * k
        peak = _maximum(x, first, k, work, tail)
        if not abs(peak) < np.inf:
            return row
        top = x.dtype.type(peak)
        sums = _moments(x, first, k, top, scale, work, tail, total)
        if not sums[0] < np.inf:
            return row
        z = np.float64(x[first + labels[row]]) - peak
        _store_objective(row, beta, z, sums, numbers)
    return -1
