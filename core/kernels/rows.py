"""Statistics of rows of logits.

A row is read several times, for its maximum, its second and for the sums around it;
after the first sweep it is in cache, so that it is one trip over memory.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
from __future__ import annotations

import numpy as np
from numba import njit

from core.kernels.exp import (
    _FLUSH,
    _HELPER,
    _INLINE,
    _KERNEL,
    _anchor,
    _exponential,
    _highest,
    _log_one_plus,
    _one_minus_exp,
    _peak,
    _vector_at,
)
from core.kernels.lanes import _columns_of, _shifted_sums
from core.kernels.turns import next_chunk, wait_for
from core.kernels.vectors import (
    add,
    count_equal,
    count_larger,
    first_equal,
    fma,
    larger,
    largest_of,
    load,
    prefetch,
    splat,
    store,
    subtract,
    sum_of,
    where_equal,
    where_larger,
    width,
)

__all__ = ["EXP_STAMP"]

_TINY = 1e-30  # lost among squares that sum to 1 / k or more
# of what kernels share: a change must reach those that Numba keeps
EXP_STAMP = 1774504357


@njit(**_INLINE)
def _rank(x, first, k, label):
    """Return how many classes come before the label, by logit and then by column."""
    value = x[np.uintp(first + label)]
    values, fill = splat(value), x.dtype.type(-np.inf)
    step = width(x)
    rank = 0
    for j in range(0, label, step):
        # below the label, equal logits count too
        given = _vector_at(x, first + j, label - j, x.dtype.type(np.nan))
        rank += count_larger(given, values) + count_equal(given, values)
    for j in range(label + 1, k, step):
        rank += count_larger(_vector_at(x, first + j, k - j, fill), values)
    return rank


@njit(**_INLINE)
def _statistics_sums(x, first, k, top, scale, magic, lowest):
    """Return the sums of e, e z and e^2 over the elements below the largest.

    Also its first place, how often it is there, and the second largest;
    z = x - top, e = exp(x / T) * 2**-E.
    """
    magics, floor, tops = splat(magic), splat(lowest), splat(top)
    zero, fill = x.dtype.type(0), x.dtype.type(-np.inf)
    below = splat(fill)
    second = below
    step = width(x)
    mass, slope, square = 0.0, 0.0, 0.0
    place, n_top = 0, 0
    for begin in range(0, k, _FLUSH):
        a = b = splat(zero)
        # squares of faint classes alone would be denormal numbers, which take long
        c = splat(x.dtype.type(_TINY))
        for j in range(begin, min(begin + _FLUSH, k), step):
            prefetch(x, np.uintp(first + k + j))
            given = _vector_at(x, first + j, k - j, fill)
            n_equal = count_equal(given, tops)
            if n_equal > 0:
                if n_top == 0:
                    place = j + first_equal(given, tops)
                n_top += n_equal
                given = where_equal(given, tops, below, given)
            second = larger(given, second)
            value = larger(floor, given)
            e = _exponential(value, scale, magics)
            a = add(a, e)
            b = fma(e, subtract(value, tops), b)
            c = fma(e, e, c)
        mass += sum_of(a)
        slope += sum_of(b)
        square += sum_of(c)
    runner_up = top if n_top > 1 else largest_of(second)
    return (mass, slope, square), place, n_top, runner_up


@njit(**_HELPER)
def _order(x, first, k, top):
    """Return the first place of the largest, and the second largest."""
    place, n_top = 0, 0
    second = -np.inf
    for j in range(k - 1, -1, -1):
        value = np.float64(x[first + j])
        if value == top:
            place = j
            n_top += 1
        elif value > second:
            second = value
    return place, top if n_top > 1 else second


# ------------------------------------------------ rows of few classes, one in a lane


@njit(**_HELPER)
def _statistics_lanes(x, first, n_rows, k, scale, tile, lanes):
    """Write, of rows that fit a vector, what `_statistics_sums` finds of one row.

    lanes: maxima, exponents, exponentials of the maxima, sums of e, e z and e^2, first
    places of the maxima, how often they are there, and the second largest.
    """
    magic, lowest, tops = _columns_of(x, first, n_rows, k, scale, tile, lanes)
    step = width(x)
    below = splat(x.dtype.type(-np.inf))
    zero, one = splat(x.dtype.type(0)), splat(x.dtype.type(1))
    a = b = n_top = place = zero
    c = splat(x.dtype.type(_TINY))
    second = below
    for j in range(k - 1, -1, -1):
        given = load(tile, np.uintp(j * step))
        place = where_equal(given, tops, splat(x.dtype.type(j)), place)
        n_top = add(n_top, where_equal(given, tops, one, zero))
        given = where_equal(given, tops, below, given)
        second = larger(given, second)
        value = larger(lowest, given)
        e = _exponential(value, scale, magic)
        a = add(a, e)
        b = fma(e, subtract(value, tops), b)
        c = fma(e, e, c)
    second = where_larger(n_top, one, tops, second)
    store(lanes, np.uintp(3 * step), a)
    store(lanes, np.uintp(4 * step), b)
    store(lanes, np.uintp(5 * step), c)
    store(lanes, np.uintp(6 * step), place)
    store(lanes, np.uintp(7 * step), n_top)
    store(lanes, np.uintp(8 * step), second)


# --------------------------------------------------------------------- the statistics


@njit(**_INLINE)
def _store_statistics(
    x, k, row, labels, beta, top, peak, sums, n_top, place, second, integers, numbers
):
    """Write everything about a row; `sums` are those below the largest."""
    n_others = n_top - 1
    mass, slope = sums[0] + n_others * peak, sums[1]
    square = sums[2] + n_others * peak * peak
    if not mass < np.inf:
        return False
    rest = mass / peak
    total = peak + mass
    log_mass = _log_one_plus(rest)
    integers[0, row] = place
    integers[1, row] = -1
    numbers[0, row] = 1.0 / (1.0 + rest)
    numbers[1, row] = _one_minus_exp((second - top) * beta) / (1.0 + rest)
    numbers[2, row] = top
    numbers[3, row] = top * beta + log_mass
    numbers[4, row] = max(log_mass - beta * slope / total, 0.0)
    numbers[5, row] = (peak * peak + square) / (total * total)
    numbers[6, row] = np.nan
    label = labels[row] if labels.size > 0 else -1
    if label >= 0:
        integers[1, row] = 0 if place == label else _rank(x, row * k, k, label)
        value = np.float64(x[np.uintp(row * k + label)])
        numbers[6, row] = (value - top) * beta - log_mass
    return True


@njit(**_KERNEL)
def _statistics_kernel(
    x, k, start, stop, scratch, labels, scale, limit, rate, beta, integers, numbers
):
    """Statistics of rows start..stop; the first bad row, or -1.

    x: flat (n * k,); labels: (n,) int64 or empty; integers: (2, n) prediction and rank
    of the label; numbers: (7, n) confidence, margin, maximum, log-sum-exp, entropy,
    squared sum, log-probability of the label.
    """
    _, _, shifted = scratch
    for row in range(start, stop):
        first = row * k
        top = _highest(x, first, k)
        if not abs(top) < np.inf:
            return row
        exponent, magic, lowest = _anchor(top, scale)
        high = np.float64(top)
        if abs(exponent) < limit:
            sums, place, n_top, runner_up = _statistics_sums(
                x, first, k, top, scale, magic, lowest
            )
            second = np.float64(runner_up)
            peak = _peak(top, scale, magic)
        else:
            parts, square, n_top = _shifted_sums(x, first, k, high, rate, shifted)
            sums = parts[0], parts[1], square
            place, second = _order(x, first, k, high)
            peak = 1.0
        if not _store_statistics(
            x,
            k,
            row,
            labels,
            beta,
            high,
            peak,
            sums,
            n_top,
            place,
            second,
            integers,
            numbers,
        ):
            return row
    return -1


@njit(**_KERNEL)
def _statistics_block_kernel(
    x,
    k,
    begin,
    end,
    share,
    turns,
    scratch,
    labels,
    scale,
    limit,
    beta,
    integers,
    numbers,
):
    """Do what `_statistics_kernel` does, for rows that fit a vector, one in each lane.

    In turns with other threads, as `core.kernels.turns` says.
    """
    tile, lanes, _ = scratch
    step = width(x)
    while True:
        if begin >= end:
            begin, end = next_chunk(turns, end, share)
            if begin == end:
                break
        n_rows = min(step, end - begin)
        _statistics_lanes(x, begin * k, n_rows, k, scale, tile, lanes)
        for r in range(n_rows):
            if not (abs(lanes[r]) < np.inf and abs(lanes[step + r]) < limit):
                return begin, end
            if not _store_statistics(
                x,
                k,
                begin + r,
                labels,
                beta,
                np.float64(lanes[r]),
                np.float64(lanes[2 * step + r]),
                (
                    np.float64(lanes[3 * step + r]),
                    np.float64(lanes[4 * step + r]),
                    np.float64(lanes[5 * step + r]),
                ),
                int(lanes[7 * step + r]),
                int(lanes[6 * step + r]),
                np.float64(lanes[8 * step + r]),
                integers,
                numbers,
            ):
                return begin, end
        begin += n_rows
    wait_for(turns, share)
    return begin, end
