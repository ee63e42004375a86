"""Softmax, log-softmax and log-sum-exp of short rows, a block of rows at a time.

The exponentials of a block of rows are taken as if it were one row: with one exponent
for all of them, from its first element to its last, whole vectors that know of no row.
A row of 10 classes would fill five eighths of a vector, and one of 2 classes an eighth.
The exponent leaves room for rows that are lower than the highest of the block by a
factor of 2**100 (2**900 in double precision); a block with others, or with what is no
number, is left to the kernel of single rows.

What is found once per row, its sum and what follows from it, is found by vectors too,
of as many rows as they have lanes: in rows of 100 classes that took longer than the
exponentials, since each of its steps waits for the one before.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
from __future__ import annotations

import numpy as np
from numba import njit, types
from numba.extending import overload

from core.kernels.exp import (
    _EXACT,
    _INLINE,
    _KERNEL,
    _SMALL,
    _exponential,
    _highest,
    _log_vector,
    _vector_at,
)
from core.kernels.lanes import FEW, _logs, _tops_of
from core.kernels.shuffles import (
    lower_half,
    spread,
    spread_code,
    sums_of_rows,
    sums_of_short_rows,
    upper_half,
)
from core.kernels.turns import next_chunk, wait_for
from core.kernels.vectors import (
    add,
    count_larger,
    divide,
    larger,
    largest_of,
    load,
    load_half,
    load_part,
    multiply,
    narrow,
    prefetch,
    splat,
    store,
    store_part,
    width,
)

__all__ = ["EXP_STAMP"]

# of what kernels share: a change must reach those that Numba keeps
EXP_STAMP = 1774504357

_ROOM_SINGLE, _ROOM_DOUBLE = 100.0, 900.0  # powers of two above the bias
# A block has at least as many rows as a vector has lanes, and more of few classes: each
# of its steps waits for the one before, and only rows of the same step do not.
_ELEMENTS, _MOST_ROWS = 1024, 512
# Places in the buffer of what is known of the rows of a block, after a square to turn
# rows into lanes, and of its exponentials.
_TOPS, _SUMS, _PEAKS, _KEPT = 256, 768, 1280, 1792


@njit(**_EXACT)
def _anchor_below(top, scale, room):
    """Return what `_anchor` does, with the maximum at 2**room instead of at 1."""
    n = (top * scale[0] + scale[3]) - scale[3]
    below = n - scale[4] - room
    return n, scale[3] - below, below * scale[2]


@njit(**_INLINE)
def _highest_of_rows(x, first, n_rows, k, tile):
    """Return the largest elements of the rows of a block; of missing ones, -inf."""
    if k > FEW:
        return _tops_of(x, first, n_rows, k, k, tile)
    for r in range(width(x)):
        most = x.dtype.type(-np.inf)
        for j in range(k if r < n_rows else 0):
            value = x[np.uintp(first + r * k + j)]
            most = value if value > most else most
        tile[np.uintp(r)] = most
    return load(tile, np.uintp(0))


@njit(**_INLINE)
def _keep_block(x, first, n, scale, magic, lowest, buffer):
    """Keep the exponentials of n elements, and fetch as many that follow."""
    magics, floor = splat(magic), splat(lowest)
    step = width(x)
    whole = n - n % step
    for j in range(0, whole, step):
        prefetch(x, np.uintp(first + n + j))
        value = larger(floor, load(x, np.uintp(first + j)))
        store(buffer, np.uintp(j), _exponential(value, scale, magics))
    if whole < n:
        value = load_part(x, np.uintp(first + whole), n - whole, lowest)
        value = larger(floor, value)
        store(buffer, np.uintp(whole), _exponential(value, scale, magics))


@njit(**_INLINE)
def _sums_of(buffer, first, n_rows, k, tile):
    """Return the sums of as many rows as a vector has lanes; missing ones: infinity."""
    step = width(buffer)
    zero, missing = buffer.dtype.type(0), buffer.dtype.type(np.inf)
    if k <= FEW:
        for r in range(n_rows):
            total = zero
            for j in range(k):
                total += buffer[np.uintp(first + r * k + j)]
            tile[np.uintp(r)] = total
        for r in range(n_rows, step):
            tile[np.uintp(r)] = missing
        return load(tile, np.uintp(0))
    whole = k - k % step
    for r in range(n_rows if whole == 0 else 0):
        value = load_part(buffer, np.uintp(first + r * k), k, zero)
        store(tile, np.uintp(r * step), value)
    for r in range(n_rows if whole > 0 else 0):
        row = first + r * k
        total = splat(zero)
        for j in range(0, whole, step):
            total = add(total, load(buffer, np.uintp(row + j)))
        if whole < k:
            rest = load_part(buffer, np.uintp(row + whole), k - whole, zero)
            total = add(total, rest)
        store(tile, np.uintp(r * step), total)
    for r in range(n_rows, step):
        store(tile, np.uintp(r * step), splat(missing))
    return sums_of_rows(tile, np.uintp(0))


@njit(**_SMALL)
def _n_whole(n_rows, k, step):
    """Return how many rows of a block can be written as vectors that are whole.

    To write a part of a vector takes far longer than to write too much: of a short row,
    the next ones write it again, if there are any.
    """
    return max((n_rows * k - step) // k + 1, 0) if k < step else n_rows


@njit(**_INLINE)
def _write_block(first, n_rows, k, buffer, factors, out):
    """Write the probabilities of a block: exponentials times one factor per row."""
    step = width(out)
    if k <= FEW:
        for r in range(n_rows):
            for j in range(k):
                value = buffer[np.uintp(r * k + j)] * factors[np.uintp(r)]
                out[np.uintp(first + r * k + j)] = value
        return
    n_whole = _n_whole(n_rows, k, step)
    # of a longer row, the last vector has elements of the one before too
    rest = max(k - step, 0)
    for r in range(n_whole):
        place = r * k
        factor = splat(factors[np.uintp(r)])
        for j in range(0, rest, step):
            e = multiply(load(buffer, np.uintp(place + j)), factor)
            store(out, np.uintp(first + place + j), e)
        e = multiply(load(buffer, np.uintp(place + rest)), factor)
        store(out, np.uintp(first + place + rest), e)
    for r in range(n_whole, n_rows):
        e = multiply(load(buffer, np.uintp(r * k)), splat(factors[np.uintp(r)]))
        store_part(out, np.uintp(first + r * k), k, e)


@njit(**_INLINE)
def _name_rows(codes, k):
    """Name the row of each element of half as many rows as a vector has lanes.

    Rows of k elements, as many as a vector has lanes, are k vectors: none is a part.
    """
    half = width(codes) // 2
    for r in range(half):
        for j in range(k):
            codes[np.uintp(r * k + j)] = spread_code(r, codes)


def _softmax_groups(x, k, start, stop, scale, limit, room, codes, kept, out):
    """Do groups of short rows, as many as a vector has lanes, each with an exponent.

    In one trip the probabilities of a group are written, the sums of the next found,
    the exponentials of the one after it taken and the largest element of a fourth, so
    that nothing waits for what was begun last. Before the first group and after the
    last, the trip does something that nobody reads. Returns the first row that is not
    done: of a group beyond the exact range, or of the rest.
    """
    step = width(x)
    half, size = step // 2, step * k
    one, count = splat(x.dtype.type(1)), splat(x.dtype.type(k))
    infinity = splat(x.dtype.type(np.inf))
    n_groups = (stop - start) // step
    _name_rows(codes, k)
    written, summed, taken = 0, size, 2 * size
    exponent, magic, lowest = _anchor_below(x.dtype.type(0), scale, room)
    factors = one
    g = -3
    while g < n_groups:
        target, place = (out, start * k + g * size) if g >= 0 else (kept, 3 * size)
        low, high = lower_half(factors), upper_half(factors)
        magics, floor = splat(magic), splat(lowest)
        ahead = start * k + max(min(g + 2, n_groups - 1), 0) * size
        seen = start * k + max(min(g + 3, n_groups - 1), 0) * size
        tops = splat(x.dtype.type(-np.inf))
        for j in range(k):
            prefetch(x, np.uintp(seen + _ELEMENTS + j * step))
            tops = larger(load(x, np.uintp(seen + j * step)), tops)
            value = larger(floor, load(x, np.uintp(ahead + j * step)))
            e = _exponential(value, scale, magics)
            store(kept, np.uintp(taken + j * step), e)
            code = load_half(codes, np.uintp(j * half))
            e = load_half(kept, np.uintp(written + j * half))
            e = multiply(e, spread(low, code))
            store(target, np.uintp(place + j * half), e)
            e = load_half(kept, np.uintp(written + (k + j) * half))
            e = multiply(e, spread(high, code))
            store(target, np.uintp(place + (k + j) * half), e)
        sums = sums_of_short_rows(kept, np.uintp(summed), k)
        # more than k: the largest of a row is at least 1 then
        n_exact = min(count_larger(sums, count), count_larger(infinity, sums))
        if n_exact < step and 0 <= g + 1 < n_groups:
            n_groups = g + 1
        factors = divide(one, sums)
        exponent, magic, lowest = _anchor_below(largest_of(tops), scale, room)
        if not abs(exponent) < limit - room:
            n_groups = min(n_groups, g + 3)
        written, summed, taken = summed, taken, written
        g += 1
    return start + n_groups * step


def _no_groups(x, k, start, stop, scale, limit, room, codes, kept, out):  # noqa: ARG001
    return start


@overload(_softmax_groups, jit_options=_INLINE)
def _typed_groups(x, k, start, stop, scale, limit, room, codes, kept, out):  # noqa: ARG001
    # a vector of double precision holds 7 classes at most, and is not `spread`
    return _softmax_groups if x.dtype == types.float32 else _no_groups


@njit(**_INLINE)
def _write_logs(first, n_rows, k, block, tops, beta, log_masses, out):
    """Write the log-probabilities of a block from its logits, all digits of them."""
    step = width(out)
    if k <= FEW:
        for r in range(n_rows):
            top, log_mass = np.float64(tops[np.uintp(r)]), log_masses[np.uintp(r)]
            for j in range(k):
                z = np.float64(block[np.uintp(r * k + j)]) - top
                out[np.uintp(first + r * k + j)] = z * beta - log_mass
        return
    n_whole, rest = _n_whole(n_rows, k, step), max(k - step, 0)
    for r in range(n_rows):
        place = r * k
        top, log_mass = tops[np.uintp(r)], log_masses[np.uintp(r)]
        for j in range(0, rest, step):
            value = load(block, np.uintp(place + j))
            value = narrow(_log_vector(value, top, beta, log_mass), out)
            store(out, np.uintp(first + place + j), value)
        value = load(block, np.uintp(place + rest))
        value = narrow(_log_vector(value, top, beta, log_mass), out)
        if r < n_whole:
            store(out, np.uintp(first + place + rest), value)
        else:
            store_part(out, np.uintp(first + place), k, value)


@njit(**_KERNEL)
def _block_kernel(
    x, k, begin, end, share, turns, scratch, kind, scale, limit, beta, out, normaliser
):
    """Do what `_softmax_kernel` does, for rows of which a block fits the buffer.

    In turns with other threads, as `core.kernels.turns` says.
    """
    buffer, _, logs = scratch
    step = width(x)
    tile, tops = buffer[:_TOPS], buffer[_TOPS:_SUMS]
    sums, peaks = buffer[_SUMS:_PEAKS], buffer[_PEAKS:_KEPT]
    kept = buffer[_KEPT:]
    one, count = splat(x.dtype.type(1)), splat(x.dtype.type(k))
    infinity = splat(x.dtype.type(np.inf))
    room = x.dtype.type(_ROOM_SINGLE if x.itemsize == 4 else _ROOM_DOUBLE)
    most = step * min(max(_ELEMENTS // (k * step), 1), _MOST_ROWS // step)
    in_groups = x.itemsize == 4 and kind == 0 and FEW < k < step
    while True:
        if in_groups and end - begin >= step:
            begin = _softmax_groups(
                x, k, begin, end, scale, limit, room, tops, kept, out
            )
        if begin >= end:
            begin, end = next_chunk(turns, end, share)
            if begin == end:
                break
            continue
        first, n_rows = begin * k, min(most, end - begin)
        n = n_rows * k
        if kind == 0:
            top = _highest(x, first, n)
        else:
            highest = splat(x.dtype.type(-np.inf))
            for r in range(0, n_rows, step):
                n_here = min(step, n_rows - r)
                found = _highest_of_rows(x, first + r * k, n_here, k, tile)
                store(tops, np.uintp(r), found)
                highest = larger(found, highest)
            top = largest_of(highest)
        exponent, magic, lowest = _anchor_below(top, scale, room)
        if not abs(exponent) < limit - room:
            return begin, end
        _keep_block(x, first, n, scale, magic, lowest, kept)
        n_bad = 0
        for r in range(0, n_rows, step):
            n_here = min(step, n_rows - r)
            found = _sums_of(kept, r * k, n_here, k, tile)
            # more than k: the largest of a row is at least 1 then
            n_bad += step - count_larger(found, count)
            n_bad += n_here - count_larger(infinity, found)
            store(sums, np.uintp(r), divide(one, found) if kind == 0 else found)
        if n_bad > 0:
            return begin, end
        if kind == 0:
            _write_block(first, n_rows, k, kept, sums, out)
            begin += n_rows
            continue
        for r in range(0, n_rows, step):
            found = _exponential(load(tops, np.uintp(r)), scale, splat(magic))
            store(peaks, np.uintp(r), found)
        for r in range(n_rows):
            logs[r] = np.float64(sums[r]) / np.float64(peaks[r])
        _logs(logs, 0, n_rows)
        if kind == 1:
            # `out` may be x, of which rows are written before others are read
            for j in range(0, n, step):
                store(kept, np.uintp(j), _vector_at(x, first + j, n - j, lowest))
            _write_logs(first, n_rows, k, kept, tops, beta, logs, out)
        else:
            for r in range(n_rows):
                normaliser[begin + r] = np.float64(tops[r]) * beta + logs[r]
        begin += n_rows
    wait_for(turns, share)
    return begin, end
