"""Statistics of rows of logits and the loss as a function of temperature.

Both read a row twice, once for its maximum and once for the sums around it; the
second sweep finds the row in cache, so that it is one trip over memory.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
from __future__ import annotations

import math

import numpy as np
from numba import njit

from core.kernels.exp import (
    _HELPER,
    _KERNEL,
    _ONE_SINGLE,
    _SEGMENT,
    _ZERO_SINGLE,
    LANES,
    SHORT_ROW,
    _bits,
    _fold,
    _load,
    _maximum,
    _polynomial,
    _power,
    _reduce,
    _tile_exponentials,
)

__all__ = ["EXP_STAMP"]

# of exp.py: a change of it must reach the kernels that Numba keeps for this file
EXP_STAMP = 2856138432


@njit(**_HELPER)
def _top_two(x, first, k, threshold, buffer, work, where):
    """Return (maximum, second, first index of the maximum, count above threshold).

    work: largest, second largest, count; where: block of the largest.
    """
    one = work.dtype.type(_ONE_SINGLE)
    for j in range(LANES):
        work[j] = -np.inf
        work[LANES + j] = -np.inf
        work[2 * LANES + j] = 0
        where[j] = 0
    for begin in range(first, first + k, _SEGMENT):
        for start in range(0, _load(x, begin, first + k, buffer), LANES):
            block = np.int32((begin - first + start) // LANES)
            for j in range(LANES):
                value = buffer[np.uintp(start + j)]
                best = work[j]
                is_up = value > best
                below = best if is_up else value
                second = work[LANES + j]
                work[j] = (value if is_up else best) + _ZERO_SINGLE
                work[LANES + j] = (below if below > second else second) + _ZERO_SINGLE
                # blocks come in order, so that the latest is the largest
                latest = block if is_up else np.int32(0)
                where[j] = latest if latest > where[j] else where[j]
                work[2 * LANES + j] += one if value > threshold else _ZERO_SINGLE
    best = 0
    n_above = 0
    for j in range(LANES):
        n_above += int(work[2 * LANES + j])
        is_earlier = work[j] == work[best] and where[j] < where[best]
        if work[j] > work[best] or is_earlier:
            best = j
    second = work[LANES + best]
    for j in range(LANES):
        if j != best and work[j] > second:
            second = work[j]
    return work[best], second, int(where[best]) * LANES + best, n_above


@njit(**_HELPER)
def _moments(x, first, k, top, scale, buffer, work, total):
    """Return the sums of e, e z, e z^2 and e^2, z = x - top, e = exp(z / T)."""
    bits = _bits(work)
    for j in range(4 * LANES):
        work[j] = 0
        total[j] = 0.0
    for begin in range(first, first + k, _SEGMENT):
        for start in range(0, _load(x, begin, first + k, buffer), LANES):
            for j in range(LANES):
                z = buffer[np.uintp(start + j)] - top
                z = scale[4] if z < scale[4] else z
                n, f = _reduce(z, scale)
                bits[4 * LANES + j] = _power(n)
                e = _polynomial(f) * work[4 * LANES + j]
                ez = e * z
                work[j] += e
                work[LANES + j] += ez
                work[2 * LANES + j] += ez * z
                work[3 * LANES + j] += e * e
        for j in range(4 * LANES):
            total[j] += np.float64(work[j])
            work[j] = 0
    _fold(total, 4)
    return total[0], total[LANES], total[2 * LANES], total[3 * LANES]


@njit(**_HELPER)
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


@njit(**_HELPER)
def _top_two_short(x, first, k, threshold):
    """Do what `_top_two` does, by selections: branches here are hard to predict."""
    top = x[first]
    second = x.dtype.type(-np.inf)
    best = 0
    n_above = 1 if top > threshold else 0
    for j in range(1, k):
        value = x[first + j]
        is_up = value > top
        below = top if is_up else value
        second = below if below > second else second
        best = j if is_up else best
        top = value if is_up else top
        n_above += 1 if value > threshold else 0
    return top, second, best, n_above


@njit(**_HELPER)
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


@njit(**_HELPER)
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


@njit(**_HELPER)
def _statistics_short(
    x, k, start, stop, scratch, labels, rate, beta, integers, numbers
):
    """Do what `_statistics_kernel` does for rows with few classes."""
    work, tile, shifted, _, tops, _ = scratch
    step = _SEGMENT // k
    for begin in range(start, stop, step):
        n_rows = min(step, stop - begin)
        _tile_exponentials(x, begin * k, n_rows, k, rate, tops, shifted, work, tile)
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
def _statistics_kernel(
    x, k, start, stop, scratch, labels, scale, rate, beta, integers, numbers
):
    """Statistics of rows start..stop; the first bad row, or -1.

    x: flat (n * k,); labels: (n,) int64 or empty; integers: (2, n) prediction and rank
    of the label; numbers: (7, n) confidence, margin, maximum, log-sum-exp, entropy,
    squared sum, log-probability of the label.
    """
    if k < SHORT_ROW:
        return _statistics_short(
            x, k, start, stop, scratch, labels, rate, beta, integers, numbers
        )
    work, buffer, _, total, _, where = scratch
    for row in range(start, stop):
        first = row * k
        label = labels[row] if labels.size > 0 else -1
        threshold = x[first + label] if label >= 0 else x.dtype.type(np.inf)
        top, second, index, n_above = _top_two(
            x, first, k, threshold, buffer, work, where
        )
        if not abs(top) < np.inf:
            return row
        sums = _moments(x, first, k, top, scale, buffer, work, total)
        if not sums[0] < np.inf:
            return row
        peak = np.float64(top)
        log_mass = _store_row(
            row, beta, peak, second, index, n_above, sums, integers, numbers
        )
        _store_label(x, first, row, label, peak, log_mass, beta, integers, numbers)
    return -1


# ------------------------------------------- loss as a function of temperature


@njit(**_HELPER)
def _store_objective(row, beta, z, sums, numbers):
    mass, slope, curvature, _ = sums
    mean = slope / mass
    numbers[0, row] = math.log(mass) - beta * z
    numbers[1, row] = mean - (z if z > -np.inf else 0.0)
    numbers[2, row] = max(curvature / mass - mean * mean, 0.0)


@njit(**_HELPER)
def _objective_short(x, k, start, stop, scratch, labels, rate, beta, numbers):
    """Do what `_objective_kernel` does for rows with few classes."""
    work, tile, shifted, _, tops, _ = scratch
    step = _SEGMENT // k
    for begin in range(start, stop, step):
        n_rows = min(step, stop - begin)
        _tile_exponentials(x, begin * k, n_rows, k, rate, tops, shifted, work, tile)
        for i in range(n_rows):
            row = begin + i
            sums = _tile_moments(x, row * k, k, tops[i], tile, i * k)
            if not (abs(tops[i]) < np.inf and sums[0] < np.inf):
                return row
            z = np.float64(x[row * k + labels[row]]) - tops[i]
            _store_objective(row, beta, z, sums, numbers)
    return -1


@njit(**_KERNEL)
def _objective_kernel(x, k, start, stop, scratch, labels, scale, rate, beta, numbers):
    """Loss, slope and curvature in beta of rows start..stop; the first bad row, or -1.

    x: flat (n * k,); labels: (n,) int64, all >= 0; numbers: (3, n).
    """
    if k < SHORT_ROW:
        return _objective_short(x, k, start, stop, scratch, labels, rate, beta, numbers)
    work, buffer, _, total, _, _ = scratch
    for row in range(start, stop):
        first = row * k
        peak = _maximum(x, first, k, buffer, work)
        if not abs(peak) < np.inf:
            return row
        top = x.dtype.type(peak)
        sums = _moments(x, first, k, top, scale, buffer, work, total)
        if not sums[0] < np.inf:
            return row
        z = np.float64(x[first + labels[row]]) - peak
        _store_objective(row, beta, z, sums, numbers)
    return -1
