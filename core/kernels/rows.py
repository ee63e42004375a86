"""Statistics of rows of logits and the loss as a function of temperature.

Both read a row several times, for its maximum, its second and for the sums around
them; after the first sweep the row is in cache, so that it is one trip over memory.
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
    _load_shifted,
    _log_one_plus,
    _one_minus_exp,
    _peak,
    _vector_at,
)
from core.kernels.vectors import (
    add,
    count_equal,
    count_larger,
    first_equal,
    fma,
    larger,
    largest_of,
    load,
    multiply,
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
# of exp.py and vectors.py: a change must reach the kernels that Numba keeps
EXP_STAMP = 1454295566


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
    high, low = splat(scale[0]), splat(scale[1])
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
            e = _exponential(value, high, low, magics)
            a = add(a, e)
            b = fma(e, subtract(value, tops), b)
            c = fma(e, e, c)
        mass += sum_of(a)
        slope += sum_of(b)
        square += sum_of(c)
    runner_up = top if n_top > 1 else largest_of(second)
    return (mass, slope, square), place, n_top, runner_up


@njit(**_INLINE)
def _objective_sums(x, first, following, k, top, scale, magic, lowest):
    """Return sums of e z^0 to e z^4 over the elements below the largest; its count.

    The row from `following` on is fetched meanwhile.
    """
    high, low = splat(scale[0]), splat(scale[1])
    magics, floor, tops = splat(magic), splat(lowest), splat(top)
    zero, fill = x.dtype.type(0), x.dtype.type(-np.inf)
    below = splat(fill)
    step = width(x)
    sum_0, sum_1, sum_2, sum_3, sum_4 = 0.0, 0.0, 0.0, 0.0, 0.0
    n_top = 0
    for begin in range(0, k, _FLUSH):
        a = splat(zero)
        b = c = d = f = a
        for j in range(begin, min(begin + _FLUSH, k), step):
            prefetch(x, np.uintp(following + j))
            given = _vector_at(x, first + j, k - j, fill)
            n_top += count_equal(given, tops)
            value = larger(floor, where_equal(given, tops, below, given))
            z = subtract(value, tops)
            e = _exponential(value, high, low, magics)
            a = add(a, e)
            e = multiply(e, z)
            b = add(b, e)
            e = multiply(e, z)
            c = add(c, e)
            e = multiply(e, z)
            d = add(d, e)
            f = fma(e, z, f)
        sum_0 += sum_of(a)
        sum_1 += sum_of(b)
        sum_2 += sum_of(c)
        sum_3 += sum_of(d)
        sum_4 += sum_of(f)
    return (sum_0, sum_1, sum_2, sum_3, sum_4), n_top


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
    high, low, rounding = splat(scale[0]), splat(scale[1]), splat(scale[3])
    n = subtract(fma(tops, high, rounding), rounding)
    below = subtract(n, splat(scale[4]))
    store(lanes, np.uintp(0), tops)
    store(lanes, np.uintp(step), n)
    magic, lowest = subtract(rounding, below), multiply(below, splat(scale[2]))
    peaks = _exponential(tops, high, low, magic)
    store(lanes, np.uintp(2 * step), peaks)
    return high, low, magic, lowest, tops


@njit(**_HELPER)
def _statistics_lanes(x, first, n_rows, k, scale, tile, lanes):
    """Write, of rows that fit a vector, what `_statistics_sums` finds of one row.

    lanes: maxima, exponents, exponentials of the maxima, sums of e, e z and e^2, first
    places of the maxima, how often they are there, and the second largest.
    """
    high, low, magic, lowest, tops = _columns_of(
        x, first, n_rows, k, scale, tile, lanes
    )
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
        e = _exponential(value, high, low, magic)
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


@njit(**_HELPER)
def _objective_lanes(x, first, n_rows, k, scale, tile, lanes):
    """Write, of rows that fit a vector, what `_objective_sums` finds of one row.

    lanes: maxima, exponents, exponentials of the maxima, sums of e z^0 to e z^4, and
    how often the maxima are there.
    """
    high, low, magic, lowest, tops = _columns_of(
        x, first, n_rows, k, scale, tile, lanes
    )
    step = width(x)
    below = splat(x.dtype.type(-np.inf))
    zero, one = splat(x.dtype.type(0)), splat(x.dtype.type(1))
    a = b = c = d = f = n_top = zero
    for j in range(k):
        given = load(tile, np.uintp(j * step))
        n_top = add(n_top, where_equal(given, tops, one, zero))
        value = larger(lowest, where_equal(given, tops, below, given))
        z = subtract(value, tops)
        e = _exponential(value, high, low, magic)
        a = add(a, e)
        e = multiply(e, z)
        b = add(b, e)
        e = multiply(e, z)
        c = add(c, e)
        e = multiply(e, z)
        d = add(d, e)
        f = fma(e, z, f)
    store(lanes, np.uintp(3 * step), a)
    store(lanes, np.uintp(4 * step), b)
    store(lanes, np.uintp(5 * step), c)
    store(lanes, np.uintp(6 * step), d)
    store(lanes, np.uintp(7 * step), f)
    store(lanes, np.uintp(8 * step), n_top)


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
    return _store_statistics(
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
    )


@njit(**_KERNEL)
def _statistics_kernel(
    x, k, start, stop, scratch, labels, scale, limit, rate, beta, integers, numbers
):
    """Statistics of rows start..stop; the first bad row, or -1.

    x: flat (n * k,); labels: (n,) int64 or empty; integers: (2, n) prediction and rank
    of the label; numbers: (7, n) confidence, margin, maximum, log-sum-exp, entropy,
    squared sum, log-probability of the label.
    """
    tile, lanes, _ = scratch
    step = width(x)
    is_short = k <= step
    for row in range(start, stop):
        lane = (row - start) % step
        if is_short and lane == 0:
            n_rows = min(step, stop - row)
            _statistics_lanes(x, row * k, n_rows, k, scale, tile, lanes)
        top = np.float64(lanes[lane])
        if is_short and abs(top) < np.inf and abs(lanes[step + lane]) < limit:
            is_row = _store_statistics(
                x,
                k,
                row,
                labels,
                beta,
                top,
                np.float64(lanes[2 * step + lane]),
                (
                    np.float64(lanes[3 * step + lane]),
                    np.float64(lanes[4 * step + lane]),
                    np.float64(lanes[5 * step + lane]),
                ),
                int(lanes[7 * step + lane]),
                int(lanes[6 * step + lane]),
                np.float64(lanes[8 * step + lane]),
                integers,
                numbers,
            )
        else:
            is_row = _statistics_row(
                x, k, row, scratch, labels, scale, limit, rate, beta, integers, numbers
            )
        if not is_row:
            return row
    return -1


# ------------------------------------------- loss as a function of temperature


@njit(**_INLINE)
def _store_objective(row, beta, z, peak, sums, n_top, numbers):
    """Write loss and derivatives of a row; `sums` are those below the largest."""
    mass = sums[0] + (n_top - 1) * peak
    if not mass < np.inf:
        return False
    share = 1.0 / (peak + mass)
    mean = sums[1] * share
    square, cube = sums[2] * share, sums[3] * share
    variance = max(square - mean * mean, 0.0)
    third = cube - 3.0 * mean * square + 2.0 * mean * mean * mean
    fourth = sums[4] * share - 4.0 * mean * cube + 6.0 * mean * mean * square
    fourth -= 3.0 * mean * mean * mean * mean
    numbers[0, row] = _log_one_plus(mass / peak) - beta * z
    numbers[1, row] = mean - (z if z > -np.inf else 0.0)
    numbers[2, row] = variance
    numbers[3, row] = third
    numbers[4, row] = fourth - 3.0 * variance * variance
    return True


@njit(**_INLINE)
def _objective_row(
    x, k, every, row, scratch, labels, scale, limit, rate, beta, numbers
):
    """Do one row of any length; return whether it is one."""
    _, _, shifted = scratch
    first = row * every * k
    top = _highest(x, first, k)
    if not abs(top) < np.inf:
        return False
    exponent, magic, lowest = _anchor(top, scale)
    high = np.float64(top)
    if abs(exponent) < limit:
        sums, n_top = _objective_sums(
            x, first, first + every * k, k, top, scale, magic, lowest
        )
        peak = _peak(top, scale, magic)
    else:
        sums, _, n_top = _shifted_sums(x, first, k, high, rate, shifted)
        peak = 1.0
    z = np.float64(x[np.uintp(first + labels[row])]) - high
    return _store_objective(row, beta, z, peak, sums, n_top, numbers)


@njit(**_KERNEL)
def _objective_kernel(
    x, k, start, stop, scratch, labels, every, scale, limit, rate, beta, numbers
):
    """Loss and derivatives in beta of rows start..stop; the first bad row, or -1.

    x: flat (m * k,); labels: (n,) int64, all >= 0; numbers: (5, n) of the loss and its
    first four derivatives: the cumulants of the logits under the probabilities, the
    first of them less the label's logit. Row i of these is row i * every of x; more
    than 1 only of rows that do not fit a vector.
    """
    tile, lanes, _ = scratch
    step = width(x)
    is_short = k <= step
    for row in range(start, stop):
        lane = (row - start) % step
        if is_short and lane == 0:
            n_rows = min(step, stop - row)
            _objective_lanes(x, row * k, n_rows, k, scale, tile, lanes)
        top = np.float64(lanes[lane])
        if is_short and abs(top) < np.inf and abs(lanes[step + lane]) < limit:
            sums = (
                np.float64(lanes[3 * step + lane]),
                np.float64(lanes[4 * step + lane]),
                np.float64(lanes[5 * step + lane]),
                np.float64(lanes[6 * step + lane]),
                np.float64(lanes[7 * step + lane]),
            )
            z = np.float64(x[np.uintp(row * k + labels[row])]) - top
            peak = np.float64(lanes[2 * step + lane])
            n_top = int(lanes[8 * step + lane])
            is_row = _store_objective(row, beta, z, peak, sums, n_top, numbers)
        else:
            is_row = _objective_row(
                x, k, every, row, scratch, labels, scale, limit, rate, beta, numbers
            )
        if not is_row:
            return row
    return -1
