"""Statistics of rows of logits and the loss as a function of temperature.

Both read a row several times, for its maximum, its second and for the sums around
them; after the first sweep the row is in cache, so that it is one trip over memory.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
from __future__ import annotations

import math

import numpy as np
from numba import njit

from core.kernels.exp import (
    _FLUSH,
    _HELPER,
    _INLINE,
    _KERNEL,
    _ZERO_SINGLE,
    LANES,
    SHORT_ROW,
    _add,
    _anchor,
    _exponential,
    _from_ordered,
    _highest,
    _load_lanes,
    _load_shifted,
    _ordered,
)

__all__ = ["EXP_STAMP"]

# of exp.py: a change of it must reach the kernels that Numba keeps for this file
EXP_STAMP = 852983434


@njit(**_INLINE)
def _order(x, first, k, top):
    """Return (first place of the largest, how often it is there, second largest)."""
    highest = _ordered(top)
    second = _ordered(x.dtype.type(-np.inf))
    below = second
    place = np.int32(k)
    n_top = np.int32(0)
    for j in range(k):
        key = _ordered(x[np.uintp(first + j)])
        is_top = key == highest
        here = np.int32(j) if is_top else np.int32(k)
        place = here if here < place else place
        n_top = np.int32(n_top + (np.int32(1) if is_top else np.int32(0)))
        key = below if is_top else key
        second = key if key > second else second
    second = highest if n_top > 1 else second
    return int(place), int(n_top), _from_ordered(second)


@njit(**_INLINE)
def _rank(x, first, k, label):
    """Return how many classes come before the label, by logit and then by column."""
    value = x[first + label]
    rank = np.int32(0)
    for j in range(label):
        is_before = x[np.uintp(first + j)] >= value
        rank = np.int32(rank + (np.int32(1) if is_before else np.int32(0)))
    for j in range(label + 1, k):
        is_before = x[np.uintp(first + j)] > value
        rank = np.int32(rank + (np.int32(1) if is_before else np.int32(0)))
    return int(rank)


@njit(**_INLINE)
def _statistics_sums(x, first, k, top, scale, magic, lowest):
    """Return the sums of e, e z and e^2 over the elements below the largest.

    z = x - top, e = exp(x / T) * 2**-E.
    """
    zero = x.dtype.type(0)
    mass, slope, square = 0.0, 0.0, 0.0
    for begin in range(first, first + k, _FLUSH):
        a = b = c = zero
        for j in range(min(_FLUSH, first + k - begin)):
            given = x[np.uintp(begin + j)]
            value = lowest if given < lowest else given
            e = _exponential(value, scale, magic)
            e = zero if given == top else e
            a = _add(a, e)
            b = _add(b, e * (value - top))
            c = _add(c, e * e)
        mass += np.float64(a)
        slope += np.float64(b)
        square += np.float64(c)
    return mass, slope, square


@njit(**_INLINE)
def _objective_sums(x, first, k, top, scale, magic, lowest):
    """Return the sums of e, e z and e z^2 of elements below the largest; its count."""
    zero = x.dtype.type(0)
    mass, slope, curvature = 0.0, 0.0, 0.0
    n_top = np.int32(0)
    for begin in range(first, first + k, _FLUSH):
        a = b = c = zero
        for j in range(min(_FLUSH, first + k - begin)):
            given = x[np.uintp(begin + j)]
            value = lowest if given < lowest else given
            z = value - top
            e = _exponential(value, scale, magic)
            e = zero if given == top else e
            n_top = np.int32(n_top + (np.int32(1) if given == top else np.int32(0)))
            ez = e * z
            a = _add(a, e)
            b = _add(b, ez)
            c = _add(c, ez * z)
        mass += np.float64(a)
        slope += np.float64(b)
        curvature += np.float64(c)
    return mass, slope, curvature, int(n_top)


@njit(**_HELPER)
def _shifted_sums(x, first, k, top, rate, shifted):
    """Return sums of e, e z, e z^2, e^2 below the largest and how often that is there.

    e = 2**(z * rate), in double precision.
    """
    mass, slope, curvature, square = 0.0, 0.0, 0.0, 0.0
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
            mass += e
            slope += e * z
            curvature += e * z * z
            square += e * e
    return mass, slope, curvature, square, n_top


@njit(**_INLINE)
def _store_row(row, beta, top, peak, second, place, sums, integers, numbers):
    """Write all but the label's; `sums` are those of the other classes."""
    mass, slope, square = sums
    rest = mass / peak
    total = peak + mass
    log_mass = math.log1p(rest)
    integers[0, row] = place
    numbers[0, row] = 1.0 / (1.0 + rest)
    numbers[1, row] = -math.expm1((second - top) * beta) / (1.0 + rest)
    numbers[2, row] = top
    numbers[3, row] = top * beta + log_mass
    numbers[4, row] = max(log_mass - beta * slope / total, 0.0)
    numbers[5, row] = (peak * peak + square) / (total * total)
    return log_mass


@njit(**_INLINE)
def _store_label(x, k, row, label, top, log_mass, beta, integers, numbers):
    """Write log-probability and rank of the label, after `_store_row`."""
    integers[1, row] = -1
    numbers[6, row] = np.nan
    if label >= 0:
        is_right = integers[0, row] == label
        integers[1, row] = 0 if is_right else _rank(x, row * k, k, label)
        value = np.float64(x[row * k + label])
        numbers[6, row] = (value - top) * beta - log_mass


@njit(**_INLINE)
def _statistics_row(
    x, k, row, scratch, labels, scale, limit, rate, beta, integers, numbers
):
    """Do one row of any length; return whether it is one."""
    _, _, shifted = scratch
    first = row * k
    top = _highest(x, first, k)
    if not abs(top) < np.inf:
        return False
    label = labels[row] if labels.size > 0 else -1
    place, n_top, second = _order(x, first, k, top)
    exponent, magic, lowest = _anchor(top, scale)
    high = np.float64(top)
    if abs(exponent) < limit:
        mass, slope, square = _statistics_sums(x, first, k, top, scale, magic, lowest)
        peak = np.float64(_exponential(top, scale, magic))
    else:
        mass, slope, _, square, _ = _shifted_sums(x, first, k, high, rate, shifted)
        peak = np.float64(1.0)
    if not mass < np.inf:
        return False
    n_others = n_top - 1
    sums = mass + n_others * peak, slope, square + n_others * peak * peak
    runner_up = np.float64(second)
    log_mass = _store_row(
        row, beta, high, peak, runner_up, place, sums, integers, numbers
    )
    _store_label(x, k, row, label, high, log_mass, beta, integers, numbers)
    return True


@njit(**_HELPER)
def _statistics_short(
    x, k, start, stop, scratch, labels, scale, limit, rate, beta, integers, numbers
):
    """Do what `_statistics_kernel` does for rows with few classes."""
    tile, lanes, _ = scratch
    infinity = tile.dtype.type(np.inf)
    for begin in range(start, stop, LANES):
        n_rows = min(LANES, stop - begin)
        _load_lanes(x, begin * k, n_rows, k, scale, tile, lanes)
        for r in range(LANES):
            for i in range(5, 8):
                lanes[i * LANES + r] = 0
            lanes[8 * LANES + r] = -infinity
        for j in range(k):
            place = tile.dtype.type(j)
            for r in range(LANES):
                top = lanes[r]
                value = tile[np.uintp(j * LANES + r)]
                is_top = lanes[LANES + r] == place
                value = -infinity if is_top else value
                second = lanes[8 * LANES + r]
                second = value if value > second else second
                lanes[8 * LANES + r] = second + _ZERO_SINGLE
                lowest = lanes[4 * LANES + r]
                value = lowest if value < lowest else value
                e = _exponential(value, scale, lanes[3 * LANES + r])
                lanes[5 * LANES + r] += e
                lanes[6 * LANES + r] += e * (value - top)
                lanes[7 * LANES + r] += e * e
        for r in range(n_rows):
            row = begin + r
            top = np.float64(lanes[r])
            mass = np.float64(lanes[5 * LANES + r])
            is_safe = abs(lanes[2 * LANES + r]) < limit and mass < np.inf
            if not is_safe:
                if not _statistics_row(
                    x,
                    k,
                    row,
                    scratch,
                    labels,
                    scale,
                    limit,
                    rate,
                    beta,
                    integers,
                    numbers,
                ):
                    return row
                continue
            label = labels[row] if labels.size > 0 else -1
            sums = (
                mass,
                np.float64(lanes[6 * LANES + r]),
                np.float64(lanes[7 * LANES + r]),
            )
            peak = np.float64(_exponential(lanes[r], scale, lanes[3 * LANES + r]))
            second = np.float64(lanes[8 * LANES + r])
            place = int(lanes[LANES + r])
            log_mass = _store_row(
                row, beta, top, peak, second, place, sums, integers, numbers
            )
            _store_label(x, k, row, label, top, log_mass, beta, integers, numbers)
    return -1


@njit(**_KERNEL)
def _statistics_kernel(
    x, k, start, stop, scratch, labels, scale, limit, rate, beta, integers, numbers
):
    """Statistics of rows start..stop; the first bad row, or -1.

    x: flat (n * k,); labels: (n,) int64 or empty; integers: (2, n) prediction and rank
    of the label; numbers: (7, n) confidence, margin, maximum, log-sum-exp, entropy,
    squared sum, log-probability of the label.
    """
    if k < SHORT_ROW:
        return _statistics_short(
            x,
            k,
            start,
            stop,
            scratch,
            labels,
            scale,
            limit,
            rate,
            beta,
            integers,
            numbers,
        )
    for row in range(start, stop):
        if not _statistics_row(
            x, k, row, scratch, labels, scale, limit, rate, beta, integers, numbers
        ):
            return row
    return -1


# ------------------------------------------- loss as a function of temperature


@njit(**_INLINE)
def _store_objective(row, beta, z, peak, sums, numbers):
    mass, slope, curvature = sums
    total = peak + mass
    mean = slope / total
    numbers[0, row] = math.log1p(mass / peak) - beta * z
    numbers[1, row] = mean - (z if z > -np.inf else 0.0)
    numbers[2, row] = max(curvature / total - mean * mean, 0.0)


@njit(**_HELPER)
def _objective_row(x, k, row, scratch, labels, scale, limit, rate, beta, numbers):
    """Do one row of any length; return whether it is one."""
    _, _, shifted = scratch
    first = row * k
    top = _highest(x, first, k)
    if not abs(top) < np.inf:
        return False
    exponent, magic, lowest = _anchor(top, scale)
    high = np.float64(top)
    if abs(exponent) < limit:
        mass, slope, curvature, n_top = _objective_sums(
            x, first, k, top, scale, magic, lowest
        )
        peak = np.float64(_exponential(top, scale, magic))
    else:
        mass, slope, curvature, _, n_top = _shifted_sums(
            x, first, k, high, rate, shifted
        )
        peak = np.float64(1.0)
    mass += (n_top - 1) * peak
    if not mass < np.inf:
        return False
    z = np.float64(x[first + labels[row]]) - high
    _store_objective(row, beta, z, peak, (mass, slope, curvature), numbers)
    return True


@njit(**_HELPER)
def _objective_short(
    x, k, start, stop, scratch, labels, scale, limit, rate, beta, numbers
):
    """Do what `_objective_kernel` does for rows with few classes."""
    tile, lanes, _ = scratch
    for begin in range(start, stop, LANES):
        n_rows = min(LANES, stop - begin)
        _load_lanes(x, begin * k, n_rows, k, scale, tile, lanes)
        for r in range(LANES):
            for i in range(5, 8):
                lanes[i * LANES + r] = 0
        for j in range(k):
            place = tile.dtype.type(j)
            for r in range(LANES):
                lowest = lanes[4 * LANES + r]
                value = tile[np.uintp(j * LANES + r)]
                value = lowest if value < lowest else value
                value = lowest if lanes[LANES + r] == place else value
                z = value - lanes[r]
                e = _exponential(value, scale, lanes[3 * LANES + r])
                ez = e * z
                lanes[5 * LANES + r] += e
                lanes[6 * LANES + r] += ez
                lanes[7 * LANES + r] += ez * z
        for r in range(n_rows):
            row = begin + r
            mass = np.float64(lanes[5 * LANES + r])
            is_safe = abs(lanes[2 * LANES + r]) < limit and mass < np.inf
            if not is_safe:
                if not _objective_row(
                    x, k, row, scratch, labels, scale, limit, rate, beta, numbers
                ):
                    return row
                continue
            z = np.float64(x[row * k + labels[row]]) - np.float64(lanes[r])
            peak = np.float64(_exponential(lanes[r], scale, lanes[3 * LANES + r]))
            slope = np.float64(lanes[6 * LANES + r])
            curvature = np.float64(lanes[7 * LANES + r])
            _store_objective(row, beta, z, peak, (mass, slope, curvature), numbers)
    return -1


@njit(**_KERNEL)
def _objective_kernel(
    x, k, start, stop, scratch, labels, scale, limit, rate, beta, numbers
):
    """Loss, slope and curvature in beta of rows start..stop; the first bad row, or -1.

    x: flat (n * k,); labels: (n,) int64, all >= 0; numbers: (3, n).
    """
    if k < SHORT_ROW:
        return _objective_short(
            x, k, start, stop, scratch, labels, scale, limit, rate, beta, numbers
        )
    for row in range(start, stop):
        if not _objective_row(
            x, k, row, scratch, labels, scale, limit, rate, beta, numbers
        ):
            return row
    return -1
