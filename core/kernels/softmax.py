"""Softmax, log-softmax and log-sum-exp of rows: Two-Pass, three-pass and online.

The algorithms differ in their trips over a long row: Two-Pass (Dukhan and Ablavatski,
arXiv 2001.04438) reads it twice, three-pass three times, online (Milakov and
Gimelshein, arXiv 1805.02867) twice with an exponential more. Rows with fewer classes
than lanes are in cache anyway and all take the same tile.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from core.kernels.exp import (
    LANES,
    SHORT_ROW,
    _BLOCKS_PER_FLUSH,
    _DOUBLE_LIMIT,
    _KERNEL,
    _LN2,
    _LOWEST_SINGLE,
    _SHIFTED_FLOOR,
    _TILE,
    _bits,
    _fill_tail,
    _fold,
    _maximum,
    _polynomial,
    _power,
    _reduce,
    _shifted,
    _tile_exponentials,
)

__all__ = ["EXP_STAMP"]

EXP_STAMP = 0  # of exp.py: a change of it must reach the kernels cached for this file


@njit(**_KERNEL)
def _extended_blocks(x, first, n_blocks, scale, work):
    """Add blocks to the pairs: work = mantissas, exponents, room for powers."""
    bits = _bits(work)
    for start in range(first, first + n_blocks * LANES, LANES):
        for j in range(LANES):
            n, f = _reduce(x[np.uintp(start + j)], scale)
            new = _polynomial(f)
            old = work[j]
            top = work[LANES + j]
            d = n - top
            is_up = d > 0
            bits[2 * LANES + j] = _power(-d if is_up else d)
            power = work[2 * LANES + j]
            large = new if is_up else old
            small = old if is_up else new
            work[j] = large + small * power
            work[LANES + j] = n if is_up else top


@njit(**_KERNEL)
def _extended_flush(work, total):
    """Move the mantissas into the double-precision pairs; exponents only grow."""
    bits = _bits(total)
    for j in range(LANES):
        top = np.float64(work[LANES + j])
        bits[2 * LANES + j] = _power(total[LANES + j] - top)
        total[j] = total[j] * total[2 * LANES + j] + np.float64(work[j])
        total[LANES + j] = top
        work[j] = 0


@njit(**_KERNEL)
def _extended_sum(x, first, k, scale, work, tail, total):
    """Return (M, E) with sum of exp(x / T) = M * 2**E, by one trip over the row."""
    for j in range(LANES):
        work[j] = 0
        work[LANES + j] = -2.0 * _DOUBLE_LIMIT
        total[j] = 0.0
        total[LANES + j] = -2.0 * _DOUBLE_LIMIT
    n_blocks = k // LANES
    for block in range(0, n_blocks, _BLOCKS_PER_FLUSH):
        n_now = min(_BLOCKS_PER_FLUSH, n_blocks - block)
        _extended_blocks(x, first + block * LANES, n_now, scale, work)
        _extended_flush(work, total)
    if k % LANES > 0:
        _fill_tail(x, first, k, -np.inf, tail)
        _extended_blocks(tail, 0, 1, scale, work)
        _extended_flush(work, total)
    top = total[LANES]
    for j in range(1, LANES):
        top = total[LANES + j] if total[LANES + j] > top else top
    bits = _bits(total)
    for j in range(LANES):
        bits[2 * LANES + j] = _power(total[LANES + j] - top)
        total[j] *= total[2 * LANES + j]
    return _fold(total), top


@njit(**_KERNEL)
def _shifted_blocks(x, first, n_blocks, top, rate, work):
    bits = _bits(work)
    for start in range(first, first + n_blocks * LANES, LANES):
        for j in range(LANES):
            value = x[np.uintp(start + j)]
            n, f = _shifted((np.float64(value) - top) * rate, value)
            bits[2 * LANES + j] = _power(n)
            work[j] += _polynomial(f) * work[2 * LANES + j]


@njit(**_KERNEL)
def _shifted_sum(x, first, k, top, rate, work, tail, total):
    """Return the sum of 2**((x - top) * rate) over a row."""
    for j in range(LANES):
        work[j] = 0
        total[j] = 0.0
    n_blocks = k // LANES
    for block in range(0, n_blocks, _BLOCKS_PER_FLUSH):
        n_now = min(_BLOCKS_PER_FLUSH, n_blocks - block)
        _shifted_blocks(x, first + block * LANES, n_now, top, rate, work)
        for j in range(LANES):
            total[j] += np.float64(work[j])
            work[j] = 0
    if k % LANES > 0:
        _fill_tail(x, first, k, -np.inf, tail)
        _shifted_blocks(tail, 0, 1, top, rate, work)
        for j in range(LANES):
            total[j] += np.float64(work[j])
    return _fold(total)


@njit(**_KERNEL)
def _online_blocks(x, first, n_blocks, rate, work, total):
    bits = _bits(work)
    for start in range(first, first + n_blocks * LANES, LANES):
        for j in range(LANES):
            value = x[np.uintp(start + j)]
            value = work[LANES + j] if value < work[LANES + j] else value
            top = work[j]
            is_up = value > top
            y = (np.float64(value) - np.float64(top)) * rate
            n, f = _shifted(-y if is_up else y, value)
            bits[2 * LANES + j] = _power(n)
            factor = np.float64(_polynomial(f) * work[2 * LANES + j])
            total[j] = total[j] * factor + 1.0 if is_up else total[j] + factor
            work[j] = value if is_up else top


@njit(**_KERNEL)
def _online_sum(x, first, k, lowest, rate, work, tail, total):
    """Return (sum, maximum) from one trip with running maxima (arXiv 1805.02867)."""
    for j in range(LANES):
        work[j] = lowest
        work[LANES + j] = lowest
        total[j] = 0.0
    _online_blocks(x, first, k // LANES, rate, work, total)
    if k % LANES > 0:
        _fill_tail(x, first, k, -np.inf, tail)
        _online_blocks(tail, 0, 1, rate, work, total)
    top = work[0]
    for j in range(1, LANES):
        top = work[j] if work[j] > top else top
    for j in range(LANES):
        y = (np.float64(work[j]) - np.float64(top)) * rate
        total[j] = total[j] * 2.0**y if y > _SHIFTED_FLOOR else 0.0 * total[j]
    if not top > lowest:
        top = -np.inf
    return _fold(total), np.float64(top)


@njit(**_KERNEL)
def _write_block(x, source, scale, exponent, factor, work, out, target):
    bits = _bits(work)
    for j in range(LANES):
        n, f = _reduce(x[np.uintp(source + j)], scale)
        bits[2 * LANES + j] = _power(n - exponent)
        out[np.uintp(target + j)] = _polynomial(f) * factor * work[2 * LANES + j]


@njit(**_KERNEL)
def _write_extended(x, first, k, scale, exponent, factor, work, tail, out):
    """Write exp(x / T) * factor * 2**-exponent: the second trip over the row."""
    last = first + k - k % LANES
    for start in range(first, last, LANES):
        _write_block(x, start, scale, exponent, factor, work, out, start)
    if last < first + k:
        _fill_tail(x, first, k, -np.inf, tail)
        _write_block(tail, 0, scale, exponent, factor, work, tail, 0)
        for j in range(k % LANES):
            out[last + j] = tail[j]


@njit(**_KERNEL)
def _write_shifted_block(x, source, top, rate, factor, work, out, target):
    bits = _bits(work)
    for j in range(LANES):
        value = x[np.uintp(source + j)]
        n, f = _shifted((np.float64(value) - top) * rate, value)
        bits[2 * LANES + j] = _power(n)
        out[np.uintp(target + j)] = _polynomial(f) * work[2 * LANES + j] * factor


@njit(**_KERNEL)
def _write_shifted(x, first, k, top, rate, factor, work, tail, out):
    """Write 2**((x - top) * rate) * factor."""
    last = first + k - k % LANES
    for start in range(first, last, LANES):
        _write_shifted_block(x, start, top, rate, factor, work, out, start)
    if last < first + k:
        _fill_tail(x, first, k, -np.inf, tail)
        _write_shifted_block(tail, 0, top, rate, factor, work, tail, 0)
        for j in range(k % LANES):
            out[last + j] = tail[j]


@njit(**_KERNEL)
def _write_log(x, first, k, top, beta, offset, out):
    """Write (x - top) * beta - offset, in double precision."""
    for j in range(k):
        value = (np.float64(x[np.uintp(first + j)]) - top) * beta - offset
        out[np.uintp(first + j)] = value


@njit(**_KERNEL)
def _softmax_short(x, k, start, stop, kind, rate, beta, out, normaliser):
    """Do what `_softmax_kernel` does for rows with few classes."""
    work = np.zeros(4 * LANES, x.dtype)
    tops = np.empty(_TILE)
    shifted = np.zeros(_TILE)
    tile = np.empty(_TILE, x.dtype)
    step = _TILE // k
    for begin in range(start, stop, step):
        n_rows = min(step, stop - begin)
        _tile_exponentials(x, begin * k, n_rows, k, rate, work, tops, shifted, tile)
        for row in range(n_rows):
            total = 0.0
            for j in range(row * k, row * k + k):
                total += np.float64(tile[j])
            if not (abs(tops[row]) < np.inf and total < np.inf):
                return begin + row
            first = (begin + row) * k
            if kind == 0:
                factor = 1.0 / total
                for j in range(k):
                    out[first + j] = np.float64(tile[row * k + j]) * factor
            elif kind == 1:
                _write_log(x, first, k, tops[row], beta, math.log(total), out)
            else:
                normaliser[begin + row] = tops[row] * beta + math.log(total)
    return -1


@njit(**_KERNEL)
def _softmax_kernel(
    x, k, start, stop, algorithm, kind, scale, limit, rate, beta, out, normaliser
):
    """Softmax (kind 0), log-softmax (1) or log-sum-exp (2) of rows start..stop.

    x, out: flat (n * k,); normaliser: (n,); algorithm: 0 two-pass, 1 three-pass,
    2 online; `limit`: largest trusted exponent. Returns the first bad row, or -1.
    """
    if k < SHORT_ROW:
        return _softmax_short(x, k, start, stop, kind, rate, beta, out, normaliser)
    work = np.zeros(4 * LANES, x.dtype)
    tail = np.empty(LANES, x.dtype)
    total = np.empty(3 * LANES)
    for row in range(start, stop):
        first = row * k
        is_shifted = algorithm != 0
        top = 0.0
        exponent = 0.0
        if algorithm == 0:
            mass, exponent = _extended_sum(x, first, k, scale, work, tail, total)
            # outside the exact range, NaN or infinite: once more, from the maximum
            is_shifted = not (abs(exponent) < limit and mass < np.inf)
        if is_shifted:
            exponent = 0.0
            if algorithm == 2:
                lowest = _LOWEST_SINGLE
                mass, top = _online_sum(x, first, k, lowest, rate, work, tail, total)
            else:
                top = _maximum(x, first, k, work, tail)
                if not abs(top) < np.inf:
                    return row
                mass = _shifted_sum(x, first, k, top, rate, work, tail, total)
            if not (abs(top) < np.inf and mass < np.inf):
                return row
        log_mass = math.log(mass) + exponent * _LN2
        if kind == 2:
            normaliser[row] = top * beta + log_mass
        elif kind == 1:
            _write_log(x, first, k, top, beta, log_mass, out)
        else:
            factor = tail.dtype.type(1.0 / mass)
            if is_shifted:
                _write_shifted(x, first, k, top, rate, factor, work, tail, out)
            else:
                e = tail.dtype.type(exponent)
                _write_extended(x, first, k, scale, e, factor, work, tail, out)
    return -1
