"""The loss of every row as a function of temperature, with four derivatives.

A row is read twice, for its maximum and for the sums around it; the second time it is
in cache, so that it is one trip over memory. Of short rows, a block is done at a time,
one row in each lane of a vector: what is found once per row takes longer than the
exponentials of 100 classes otherwise.
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
    _peak,
    _vector_at,
)
from core.kernels.lanes import _columns_of, _logs, _shifted_sums, _tops_of
from core.kernels.shuffles import sums_of_rows
from core.kernels.turns import next_chunk, wait_for
from core.kernels.vectors import (
    add,
    count_equal,
    fma,
    larger,
    load,
    load_part,
    multiply,
    prefetch,
    splat,
    store,
    subtract,
    sum_of,
    where_equal,
    width,
)

__all__ = ["EXP_STAMP"]

# of what kernels share: a change must reach those that Numba keeps
EXP_STAMP = 1774504357


@njit(**_INLINE)
def _add_moments(given, tops, below, floor, scale, magics, sums):
    """Add e z^0 to e z^4 to five sums; return them, and how often the largest is there.

    given: logits; tops: the largest of the row, which is left out; below: -inf;
    z = x - top, e = exp(x / T) * 2**-E.
    """
    a, b, c, d, f = sums
    n_top = count_equal(given, tops)
    value = larger(floor, where_equal(given, tops, below, given))
    z = subtract(value, tops)
    e = _exponential(value, scale, magics)
    a = add(a, e)
    e = multiply(e, z)
    b = add(b, e)
    e = multiply(e, z)
    c = add(c, e)
    e = multiply(e, z)
    d = add(d, e)
    return (a, b, c, d, fma(e, z, f)), n_top


@njit(**_INLINE)
def _objective_sums(x, first, following, k, top, scale, magic, lowest):
    """Return the sums of `_add_moments` over a row, and how often its largest is there.

    The row from `following` on is fetched meanwhile.
    """
    magics, floor, tops = splat(magic), splat(lowest), splat(top)
    fill = x.dtype.type(-np.inf)
    zero, below = splat(x.dtype.type(0)), splat(fill)
    step = width(x)
    sum_0, sum_1, sum_2, sum_3, sum_4 = 0.0, 0.0, 0.0, 0.0, 0.0
    n_top = 0
    for begin in range(0, k, _FLUSH):
        sums = (zero, zero, zero, zero, zero)
        for j in range(begin, min(begin + _FLUSH, k), step):
            prefetch(x, np.uintp(following + j))
            given = _vector_at(x, first + j, k - j, fill)
            sums, n = _add_moments(given, tops, below, floor, scale, magics, sums)
            n_top += n
        sum_0 += sum_of(sums[0])
        sum_1 += sum_of(sums[1])
        sum_2 += sum_of(sums[2])
        sum_3 += sum_of(sums[3])
        sum_4 += sum_of(sums[4])
    return (sum_0, sum_1, sum_2, sum_3, sum_4), n_top


@njit(**_HELPER)
def _objective_lanes(x, first, n_rows, k, scale, tile, lanes):
    """Write, of rows that fit a vector, what `_objective_sums` finds of one row.

    lanes: maxima, exponents, exponentials of the maxima, sums of e z^0 to e z^4, and
    how often the maxima are there.
    """
    magic, lowest, tops = _columns_of(x, first, n_rows, k, scale, tile, lanes)
    step = width(x)
    below = splat(x.dtype.type(-np.inf))
    zero, one = splat(x.dtype.type(0)), splat(x.dtype.type(1))
    sums, n_top = (zero, zero, zero, zero, zero), zero
    for j in range(k):
        given = load(tile, np.uintp(j * step))
        n_top = add(n_top, where_equal(given, tops, one, zero))
        sums, _ = _add_moments(given, tops, below, lowest, scale, magic, sums)
    store(lanes, np.uintp(3 * step), sums[0])
    store(lanes, np.uintp(4 * step), sums[1])
    store(lanes, np.uintp(5 * step), sums[2])
    store(lanes, np.uintp(6 * step), sums[3])
    store(lanes, np.uintp(7 * step), sums[4])
    store(lanes, np.uintp(8 * step), n_top)


@njit(**_HELPER)
def _objective_block(x, first, n_rows, k, stride, scale, buffer, lanes):
    """Write what `_objective_lanes` does, of rows that are longer than a vector."""
    step = width(x)
    tile = step * step
    fill = x.dtype.type(-np.inf)
    zero, below = splat(x.dtype.type(0)), splat(fill)
    store(lanes, np.uintp(0), _tops_of(x, first, n_rows, k, stride, buffer))
    for r in range(n_rows, step):
        lanes[r] = 0
        for i in range(5):
            store(buffer, np.uintp(i * tile + r * step), zero)
    high, unit = splat(scale[0]), splat(scale[2])
    rounding = splat(scale[3])
    tops = load(lanes, np.uintp(0))
    n = subtract(fma(tops, high, rounding), rounding)
    below_n = subtract(n, splat(scale[4]))
    magics = subtract(rounding, below_n)
    store(lanes, np.uintp(step), n)
    store(lanes, np.uintp(2 * step), _exponential(tops, scale, magics))
    store(lanes, np.uintp(3 * step), magics)
    store(lanes, np.uintp(4 * step), multiply(below_n, unit))
    whole = k - k % step
    for r in range(n_rows):
        row = first + r * stride
        top = splat(lanes[np.uintp(r)])
        magic = splat(lanes[np.uintp(3 * step + r)])
        floor = splat(lanes[np.uintp(4 * step + r)])
        sums = (zero, zero, zero, zero, zero)
        n_top = 0
        for j in range(0, whole, step):
            prefetch(x, np.uintp(row + step * stride + j))
            given = load(x, np.uintp(row + j))
            sums, n = _add_moments(given, top, below, floor, scale, magic, sums)
            n_top += n
        if whole < k:
            given = load_part(x, np.uintp(row + whole), k - whole, fill)
            sums, n = _add_moments(given, top, below, floor, scale, magic, sums)
            n_top += n
        place = r * step
        store(buffer, np.uintp(place), sums[0])
        store(buffer, np.uintp(place + tile), sums[1])
        store(buffer, np.uintp(place + 2 * tile), sums[2])
        store(buffer, np.uintp(place + 3 * tile), sums[3])
        store(buffer, np.uintp(place + 4 * tile), sums[4])
        lanes[np.uintp(8 * step + r)] = n_top
    store(lanes, np.uintp(3 * step), sums_of_rows(buffer, np.uintp(0)))
    store(lanes, np.uintp(4 * step), sums_of_rows(buffer, np.uintp(tile)))
    store(lanes, np.uintp(5 * step), sums_of_rows(buffer, np.uintp(2 * tile)))
    store(lanes, np.uintp(6 * step), sums_of_rows(buffer, np.uintp(3 * tile)))
    store(lanes, np.uintp(7 * step), sums_of_rows(buffer, np.uintp(4 * tile)))


@njit(**_INLINE)
def _store_derivatives(row, beta, z, log_mass, share, sums, numbers):
    """Write the loss of a row, and as its derivatives the cumulants of its logits.

    z: the label's logit less the largest; share: 1 over the sum of the exponentials;
    sums: of e z to e z^4.
    """
    mean, square = sums[0] * share, sums[1] * share
    cube = sums[2] * share
    variance = max(square - mean * mean, 0.0)
    third = cube - 3.0 * mean * square + 2.0 * mean * mean * mean
    fourth = sums[3] * share - 4.0 * mean * cube
    fourth += 6.0 * mean * mean * square - 3.0 * mean * mean * mean * mean
    numbers[0, row] = log_mass - beta * z
    numbers[1, row] = mean - (z if z > -np.inf else 0.0)
    numbers[2, row] = variance
    numbers[3, row] = third
    numbers[4, row] = fourth - 3.0 * variance * variance


@njit(**_HELPER)
def _finish_block(row, n_rows, beta, step, lanes, work, numbers):
    """Write the loss and its derivatives of a block; return how many are numbers.

    work: 9 vectors in double precision, the first with the label's logit, less the
    largest, of each row.
    """
    for r in range(n_rows):
        peak = np.float64(lanes[2 * step + r])
        mass = np.float64(lanes[3 * step + r])
        mass += (np.float64(lanes[8 * step + r]) - 1.0) * peak
        work[step + r] = mass
        rest = mass / peak
        total = 1.0 + rest
        work[2 * step + r] = total
        # log(1 + rest): what the sum lost is in total - 1, for the logarithm too
        work[3 * step + r] = rest / (total - 1.0) if total > 1.0 else 1.0
        work[4 * step + r] = 0.0 if total > 1.0 else rest
    _logs(work, 2 * step, n_rows)
    n_finite = 0
    for r in range(n_rows):
        z, mass = work[r], work[step + r]
        n_finite += mass < np.inf
        share = 1.0 / (np.float64(lanes[2 * step + r]) + mass)
        log_mass = work[2 * step + r] * work[3 * step + r] + work[4 * step + r]
        sums = (
            np.float64(lanes[4 * step + r]),
            np.float64(lanes[5 * step + r]),
            np.float64(lanes[6 * step + r]),
            np.float64(lanes[7 * step + r]),
        )
        _store_derivatives(row + r, beta, z, log_mass, share, sums, numbers)
    return n_finite


@njit(**_KERNEL)
def _objective_kernel(
    x, k, start, stop, scratch, labels, every, scale, limit, rate, beta, numbers
):
    """Loss and derivatives in beta of rows start..stop; the first bad row, or -1.

    x: flat (m * k,); labels: (n,) int64, all >= 0; numbers: (5, n) of the loss and its
    first four derivatives: the cumulants of the logits under the probabilities, the
    first of them less the label's logit. Row i of these is row i * every of x.
    """
    _, _, shifted = scratch
    for row in range(start, stop):
        first = row * every * k
        top = _highest(x, first, k)
        if not abs(top) < np.inf:
            return row
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
        mass = sums[0] + (n_top - 1) * peak
        if not mass < np.inf:
            return row
        z = np.float64(x[np.uintp(first + labels[row])]) - high
        log_mass, share = _log_one_plus(mass / peak), 1.0 / (peak + mass)
        _store_derivatives(row, beta, z, log_mass, share, sums[1:], numbers)
    return -1


@njit(**_KERNEL)
def _objective_block_kernel(
    x, k, begin, end, share, turns, scratch, labels, every, scale, limit, beta, numbers
):
    """Do what `_objective_kernel` does, for rows of which a block fits the caches.

    `every` is more than 1 only of rows that do not fit a vector. In turns with other
    threads, as `core.kernels.turns` says.
    """
    buffer, lanes, work = scratch
    step = width(x)
    stride = every * k
    while True:
        if begin >= end:
            begin, end = next_chunk(turns, end, share)
            if begin == end:
                break
        n_rows = min(step, end - begin)
        first = begin * stride
        if k <= step:
            _objective_lanes(x, first, n_rows, k, scale, buffer, lanes)
        else:
            _objective_block(x, first, n_rows, k, stride, scale, buffer, lanes)
        n_exact = 0
        for r in range(n_rows):
            n_exact += abs(lanes[step + r]) < limit and abs(lanes[r]) < np.inf
            z = np.float64(x[np.uintp(first + r * stride + labels[begin + r])])
            work[r] = z - np.float64(lanes[r])
        if n_exact < n_rows:
            return begin, end
        if _finish_block(begin, n_rows, beta, step, lanes, work, numbers) < n_rows:
            return begin, end
        begin += n_rows
    wait_for(turns, share)
    return begin, end
