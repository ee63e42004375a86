"""Softmax, log-softmax and log-sum-exp of short rows, a block of rows at a time.

A block has as many rows as a vector has lanes, and its exponentials are taken as if it
were one row: with one exponent for all of them, from its first element to its last,
whole vectors that know of no row. A row of 10 classes would fill five eighths of a
vector, and one of 2 classes an eighth. The exponent leaves room for rows that are
lower than the highest of the block by a factor of 2**100 (2**900 in double precision);
a block with others, or with what is no number, is left to the kernel of single rows.

What is found once per row, its sum and what follows from it, is found for the block by
vectors too: in rows of 100 classes that took longer than the exponentials, since each
of its steps waits for the one before.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
from __future__ import annotations

import numpy as np
from numba import njit

from core.kernels.exp import (
    _EXACT,
    _INLINE,
    _KERNEL,
    _exponential,
    _highest,
    _log_vector,
    _vector_at,
)
from core.kernels.lanes import FEW, _logs, _tops_of
from core.kernels.vectors import (
    add,
    count_larger,
    divide,
    larger,
    largest_of,
    load,
    load_part,
    multiply,
    narrow,
    prefetch,
    splat,
    store,
    store_part,
    sums_of_rows,
    width,
)

__all__ = ["EXP_STAMP"]

# of exp.py, lanes.py and vectors.py: a change must reach the kernels that Numba keeps
EXP_STAMP = 3436934630

_ROOM_SINGLE, _ROOM_DOUBLE = 100.0, 900.0  # powers of two above the bias


@njit(**_EXACT)
def _anchor_below(top, scale, room):
    """Return what `_anchor` does, with the maximum at 2**room instead of at 1."""
    n = (top * scale[0] + scale[3]) - scale[3]
    below = n - scale[4] - room
    return n, scale[3] - below, below * scale[2]


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
def _sums_of(buffer, n_rows, k, tile):
    """Return the sums of the rows of a block; of missing ones, infinity."""
    step = width(buffer)
    zero, missing = buffer.dtype.type(0), buffer.dtype.type(np.inf)
    if k <= FEW:
        for r in range(n_rows):
            total = zero
            for j in range(k):
                total += buffer[np.uintp(r * k + j)]
            tile[np.uintp(r)] = total
        for r in range(n_rows, step):
            tile[np.uintp(r)] = missing
        return load(tile, np.uintp(0))
    whole = k - k % step
    for r in range(step):
        total = splat(missing)
        if r < n_rows:
            total = splat(zero)
            for j in range(0, whole, step):
                total = add(total, load(buffer, np.uintp(r * k + j)))
            if whole < k:
                rest = load_part(buffer, np.uintp(r * k + whole), k - whole, zero)
                total = add(total, rest)
        store(tile, np.uintp(r * step), total)
    return sums_of_rows(tile, np.uintp(0))


@njit(**_INLINE)
def _put_last(first, n_rows, k, r, value, out):
    """Write the last vector of a row of a block, or all of a row that is shorter.

    To write a part of a vector takes far longer than to write once more what is there:
    elements of the row before it, or of the next rows, which are written later.
    """
    step = width(out)
    row = first + r * k
    if k >= step:
        store(out, np.uintp(row + k - step), value)
    elif r * k + step <= n_rows * k:
        store(out, np.uintp(row), value)
    else:
        store_part(out, np.uintp(row), k, value)


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
    for r in range(n_rows):
        row, place = first + r * k, r * k
        factor = splat(factors[np.uintp(r)])
        for j in range(0, k - step, step):
            e = multiply(load(buffer, np.uintp(place + j)), factor)
            store(out, np.uintp(row + j), e)
        e = multiply(load(buffer, np.uintp(place + max(k - step, 0))), factor)
        _put_last(first, n_rows, k, r, e, out)


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
    for r in range(n_rows):
        row, place = first + r * k, r * k
        top, log_mass = tops[np.uintp(r)], log_masses[np.uintp(r)]
        for j in range(0, k - step, step):
            value = load(block, np.uintp(place + j))
            value = narrow(_log_vector(value, top, beta, log_mass), out)
            store(out, np.uintp(row + j), value)
        value = load(block, np.uintp(place + max(k - step, 0)))
        value = narrow(_log_vector(value, top, beta, log_mass), out)
        _put_last(first, n_rows, k, r, value, out)


@njit(**_KERNEL)
def _block_kernel(
    x, k, start, stop, scratch, kind, scale, limit, beta, out, normaliser
):
    """Do what `_softmax_kernel` does, for rows of which a block fits the buffer.

    Returns the first row of the first block that is not in the exact range, or `stop`.
    """
    buffer, lanes, logs = scratch
    step = width(x)
    one = x.dtype.type(1)
    tile, kept = buffer[: step * step], buffer[step * step :]
    room = x.dtype.type(_ROOM_SINGLE if x.itemsize == 4 else _ROOM_DOUBLE)
    for begin in range(start, stop, step):
        first, n_rows = begin * k, min(step, stop - begin)
        n = n_rows * k
        if kind == 0:
            top = _highest(x, first, n)
        else:
            tops = _tops_of(x, first, n_rows, k, k, tile)
            store(lanes, np.uintp(0), tops)
            top = largest_of(tops)
        exponent, magic, lowest = _anchor_below(top, scale, room)
        is_exact = False
        if abs(exponent) < limit - room:
            _keep_block(x, first, n, scale, magic, lowest, kept)
            mass = _sums_of(kept, n_rows, k, tile)
            store(lanes, np.uintp(step), mass)
            # the largest of a row is at least 1 then
            n_enough = count_larger(mass, splat(x.dtype.type(k)))
            n_finite = count_larger(splat(x.dtype.type(np.inf)), mass)
            is_exact = n_enough == step and n_finite == n_rows
        if not is_exact:
            return begin
        if kind == 0:
            store(lanes, np.uintp(0), divide(splat(one), mass))
            _write_block(first, n_rows, k, kept, lanes, out)
        else:
            peaks = _exponential(load(lanes, np.uintp(0)), scale, splat(magic))
            store(lanes, np.uintp(2 * step), peaks)
            for r in range(step):
                peak = np.float64(lanes[2 * step + r]) if r < n_rows else np.inf
                logs[r] = np.float64(lanes[step + r]) / peak
            _logs(logs, 0, n_rows)
            if kind == 1:
                # `out` may be x, of which rows are written before others are read
                for j in range(0, n, step):
                    store(kept, np.uintp(j), _vector_at(x, first + j, n - j, one))
                _write_logs(first, n_rows, k, kept, lanes, beta, logs, out)
                continue
            for r in range(n_rows):
                normaliser[begin + r] = np.float64(lanes[r]) * beta + logs[r]
    return stop
