"""Softmax, log-softmax and log-sum-exp of rows: Two-Pass, three-pass and online.

The algorithms differ in their trips over a long row: Two-Pass (Dukhan and Ablavatski,
arXiv 2001.04438) reads it twice, three-pass three times, online (Milakov and
Gimelshein, arXiv 1805.02867) twice with an exponential more. Rows with fewer classes
than lanes are in cache anyway and all take the same tile.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
from __future__ import annotations

import math

import numpy as np
from numba import njit

from core.kernels.exp import (
    _DOUBLE_LIMIT,
    _HELPER,
    _KERNEL,
    _LN2,
    _LOWEST_SINGLE,
    _SEGMENT,
    _SHIFTED_FLOOR,
    _ZERO_SINGLE,
    LANES,
    SHORT_ROW,
    _bits,
    _exponentials,
    _fold,
    _largest,
    _load,
    _maximum,
    _polynomial,
    _power,
    _reduce,
    _shifted,
    _tile_exponentials,
)

__all__ = ["EXP_STAMP"]

# of exp.py: a change of it must reach the kernels that Numba keeps for this file
EXP_STAMP = 2856138432


@njit(**_HELPER)
def _extended_sum(x, first, k, scale, buffer, work, total):
    """Return (M, E) with sum of exp(x / T) = M * 2**E, by one trip over the row.

    work: mantissas, exponents, powers of two; total: the same in double precision.
    """
    bits, total_bits = _bits(work), _bits(total)
    for j in range(LANES):
        work[j] = 0
        work[LANES + j] = -2.0 * _DOUBLE_LIMIT
        total[j] = 0.0
        total[LANES + j] = -2.0 * _DOUBLE_LIMIT
    for begin in range(first, first + k, _SEGMENT):
        for start in range(0, _load(x, begin, first + k, buffer), LANES):
            for j in range(LANES):
                n, f = _reduce(buffer[np.uintp(start + j)], scale)
                new = _polynomial(f)
                old = work[j]
                top = work[LANES + j]
                d = n - top
                is_up = d > 0
                # one of the two is scaled down to the exponent of the other
                bits[2 * LANES + j] = _power(-d if is_up else d)
                power = work[2 * LANES + j]
                large = new if is_up else old
                small = old if is_up else new
                work[j] = large + small * power
                work[LANES + j] = (n if is_up else top) + _ZERO_SINGLE
        for j in range(LANES):
            top = np.float64(work[LANES + j])
            total_bits[2 * LANES + j] = _power(total[LANES + j] - top)
            total[j] = total[j] * total[2 * LANES + j] + np.float64(work[j])
            total[LANES + j] = top
            work[j] = 0
    highest = _largest(total[LANES:])
    for j in range(LANES):
        total_bits[2 * LANES + j] = _power(total[LANES + j] - highest)
        total[j] *= total[2 * LANES + j]
    _fold(total, 1)
    return total[0], highest


@njit(**_HELPER)
def _load_shifted(x, begin, end, top, rate, shifted):
    """Copy a segment as (x - top) * rate, filled up to whole blocks with -inf."""
    n = min(end - begin, _SEGMENT)
    for j in range(n):
        shifted[j] = (np.float64(x[np.uintp(begin + j)]) - top) * rate
    n_filled = (n + LANES - 1) // LANES * LANES
    for j in range(n, n_filled):
        shifted[j] = -np.inf
    return n_filled


@njit(**_HELPER)
def _shifted_sum(x, first, k, top, rate, shifted, buffer, work, total):
    """Return the sum of 2**((x - top) * rate) over a row."""
    for j in range(LANES):
        total[j] = 0.0
    for begin in range(first, first + k, _SEGMENT):
        n = _load_shifted(x, begin, first + k, top, rate, shifted)
        _exponentials(shifted, n, work, buffer)
        for start in range(0, n, LANES):
            for j in range(LANES):
                total[j] += np.float64(buffer[np.uintp(start + j)])
    _fold(total, 1)
    return total[0]


@njit(**_HELPER)
def _online_sum(x, first, k, rate, buffer, work, total):
    """Return (sum, maximum) from one trip with running maxima (arXiv 1805.02867)."""
    bits = _bits(work)
    lowest = work.dtype.type(_LOWEST_SINGLE)
    for j in range(LANES):
        work[j] = lowest
        total[j] = 0.0
    for begin in range(first, first + k, _SEGMENT):
        for start in range(0, _load(x, begin, first + k, buffer), LANES):
            for j in range(LANES):
                value = buffer[np.uintp(start + j)]
                value = lowest if value < lowest else value
                top = work[j]
                is_up = value > top
                y = (np.float64(value) - np.float64(top)) * rate
                n, f = _shifted(-y if is_up else y, value)
                bits[LANES + j] = _power(n)
                factor = np.float64(_polynomial(f) * work[LANES + j])
                old = total[j]
                total[j] = old * factor + 1.0 if is_up else old + factor
                work[j] = (value if is_up else top) + _ZERO_SINGLE
    highest = _largest(work)
    for j in range(LANES):
        y = (np.float64(work[j]) - highest) * rate
        total[j] *= 2.0**y if y > _SHIFTED_FLOOR else 0.0
    _fold(total, 1)
    return total[0], highest if highest > lowest else -np.inf


@njit(**_HELPER)
def _write_extended(x, first, k, scale, exponent, factor, buffer, work, out):
    """Write exp(x / T) * factor * 2**-exponent: the second trip over the row."""
    bits = _bits(work)
    for begin in range(first, first + k, _SEGMENT):
        for start in range(0, _load(x, begin, first + k, buffer), LANES):
            for j in range(LANES):
                n, f = _reduce(buffer[np.uintp(start + j)], scale)
                bits[j] = _power(n - exponent)
                buffer[np.uintp(start + j)] = _polynomial(f) * factor * work[j]
        for j in range(min(first + k - begin, _SEGMENT)):
            out[np.uintp(begin + j)] = buffer[j]


@njit(**_HELPER)
def _write_shifted(x, first, k, top, rate, factor, shifted, buffer, work, out):
    """Write 2**((x - top) * rate) * factor."""
    for begin in range(first, first + k, _SEGMENT):
        n = _load_shifted(x, begin, first + k, top, rate, shifted)
        _exponentials(shifted, n, work, buffer)
        for j in range(min(first + k - begin, _SEGMENT)):
            out[np.uintp(begin + j)] = buffer[j] * factor


@njit(**_HELPER)
def _write_log(x, first, k, top, beta, offset, out):
    """Write (x - top) * beta - offset, in double precision."""
    for j in range(k):
        value = (np.float64(x[np.uintp(first + j)]) - top) * beta - offset
        out[np.uintp(first + j)] = value


@njit(**_HELPER)
def _softmax_short(x, k, start, stop, scratch, kind, rate, beta, out, normaliser):
    """Do what `_softmax_kernel` does for rows with few classes."""
    work, tile, shifted, _, tops, _ = scratch
    step = _SEGMENT // k
    for begin in range(start, stop, step):
        n_rows = min(step, stop - begin)
        _tile_exponentials(x, begin * k, n_rows, k, rate, tops, shifted, work, tile)
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
    x,
    k,
    start,
    stop,
    scratch,
    algorithm,
    kind,
    scale,
    limit,
    rate,
    beta,
    out,
    normaliser,
):
    """Softmax (kind 0), log-softmax (1) or log-sum-exp (2) of rows start..stop.

    x, out: flat (n * k,); normaliser: (n,); algorithm: 0 two-pass, 1 three-pass,
    2 online; `limit`: largest trusted exponent. Returns the first bad row, or -1.
    """
    if k < SHORT_ROW:
        return _softmax_short(
            x, k, start, stop, scratch, kind, rate, beta, out, normaliser
        )
    work, buffer, shifted, total, _, _ = scratch
    for row in range(start, stop):
        first = row * k
        is_shifted = algorithm != 0
        top = 0.0
        exponent = 0.0
        mass = 0.0
        if algorithm == 0:
            mass, exponent = _extended_sum(x, first, k, scale, buffer, work, total)
            # outside the exact range, NaN or infinite: once more, from the maximum
            is_shifted = not (abs(exponent) < limit and mass < np.inf)
        if is_shifted:
            exponent = 0.0
            if algorithm == 2:
                mass, top = _online_sum(x, first, k, rate, buffer, work, total)
            else:
                top = _maximum(x, first, k, buffer, work)
                if abs(top) < np.inf:
                    mass = _shifted_sum(
                        x, first, k, top, rate, shifted, buffer, work, total
                    )
            if not (abs(top) < np.inf and mass < np.inf):
                return row
        log_mass = math.log(mass) + exponent * _LN2
        if kind == 2:
            normaliser[row] = top * beta + log_mass
        elif kind == 1:
            _write_log(x, first, k, top, beta, log_mass, out)
        else:
            factor = x.dtype.type(1.0 / mass)
            if is_shifted:
                _write_shifted(
                    x, first, k, top, rate, factor, shifted, buffer, work, out
                )
            else:
                e = x.dtype.type(exponent)
                _write_extended(x, first, k, scale, e, factor, buffer, work, out)
    return -1
