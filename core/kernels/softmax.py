"""Softmax, log-softmax and log-sum-exp of rows: Two-Pass, three-pass and online.

The algorithms differ in their trips over a long row: Two-Pass (Dukhan and Ablavatski,
arXiv 2001.04438) reads it twice, three-pass three times, and computes the exponentials
twice or keeps them in the output, online (Milakov and Gimelshein, arXiv 1805.02867)
reads it twice with a running maximum. They share their loops, so that a comparison of
them compares the trips. Rows of very few classes all take the same tile.
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
    _SEGMENT,
    LANES,
    SHORT_ROW,
    _add,
    _anchor,
    _exponential,
    _highest,
    _load_lanes,
    _load_shifted,
    _sum_exponentials,
)

__all__ = ["EXP_STAMP"]

# of exp.py: a change of it must reach the kernels that Numba keeps for this file
EXP_STAMP = 852983434


@njit(**_INLINE)
def _keep_exponentials(x, first, k, scale, magic, lowest, buffer, out):
    """Keep exp(x / T) * 2**-E and return the sum: in the buffer if it holds the row.

    Else in `out`, by way of the buffer: `out` may be `x`, and then a loop from one to
    the other would not vectorise.
    """
    total = 0.0
    for begin in range(0, k, buffer.size):
        n = min(buffer.size, k - begin)
        for start in range(0, n, _FLUSH):
            part = x.dtype.type(0)
            for j in range(start, min(start + _FLUSH, n)):
                value = x[np.uintp(first + begin + j)]
                value = lowest if value < lowest else value
                e = _exponential(value, scale, magic)
                buffer[np.uintp(j)] = e
                part = _add(part, e)
            total += np.float64(part)
        if k > buffer.size:
            for j in range(n):
                out[np.uintp(first + begin + j)] = buffer[np.uintp(j)]
    return total


@njit(**_HELPER)
def _extended_sum(x, first, k, scale, limit):
    """Return (M, maximum) with sum of exp(x / T) = M * 2**E, by one trip.

    E is the exponent of the maximum; M is NaN where one is out of range.
    """
    mass, exponent = 0.0, -np.inf
    highest = x.dtype.type(-np.inf)
    for begin in range(first, first + k, _SEGMENT):
        n = min(_SEGMENT, first + k - begin)
        top = _highest(x, begin, n)
        if top == -np.inf:
            continue
        highest = top if top > highest else highest
        own, magic, lowest = _anchor(top, scale)
        if not abs(own) < limit:
            return np.nan, _highest(x, first, k)
        part = _sum_exponentials(x, begin, n, scale, magic, lowest)
        # one of the two is scaled down to the exponent of the other
        if own > exponent:
            mass = mass * 2.0 ** (exponent - own) + part
            exponent = np.float64(own)
        else:
            mass += part * 2.0 ** (own - exponent)
    return mass, highest


@njit(**_HELPER)
def _online_sum(x, first, k, scale, limit):
    """Return the same by one trip with a running maximum (arXiv 1805.02867)."""
    mass, exponent = 0.0, 0.0
    highest = x.dtype.type(-np.inf)
    magic, lowest = highest, highest
    for begin in range(first, first + k, _SEGMENT):
        n = min(_SEGMENT, first + k - begin)
        top = _highest(x, begin, n)
        if top == -np.inf:
            continue
        if not top <= highest:
            highest = top
            own, magic, lowest = _anchor(top, scale)
            if not abs(own) < limit:
                return np.nan, _highest(x, first, k)
            mass = mass * 2.0 ** (exponent - own) if mass > 0.0 else mass
            exponent = np.float64(own)
        mass += _sum_exponentials(x, begin, n, scale, magic, lowest)
    return mass, highest


@njit(**_HELPER)
def _write_exponentials(x, first, k, scale, magic, lowest, factor, out):
    """Write exp(x / T) * 2**-E * factor: the last trip over the row."""
    for j in range(k):
        value = x[np.uintp(first + j)]
        value = lowest if value < lowest else value
        out[np.uintp(first + j)] = _exponential(value, scale, magic) * factor


@njit(**_INLINE)
def _write_scaled(first, k, factor, buffer, out):
    """Write what `_keep_exponentials` kept, times a factor."""
    if k > buffer.size:
        for j in range(k):
            out[np.uintp(first + j)] *= factor
        return
    for j in range(k):
        out[np.uintp(first + j)] = buffer[np.uintp(j)] * factor


@njit(**_HELPER)
def _write_log(x, first, k, top, beta, log_mass, out):
    """Write (x - top) * beta - log_mass, in double precision."""
    for j in range(k):
        value = (np.float64(x[np.uintp(first + j)]) - top) * beta - log_mass
        out[np.uintp(first + j)] = value


@njit(**_HELPER)
def _shifted_sum(x, first, k, top, rate, shifted):
    """Return the sum of 2**((x - top) * rate) over a row."""
    total = 0.0
    for begin in range(first, first + k, shifted.size):
        n = _load_shifted(x, begin, first + k, top, rate, shifted)
        for j in range(n):
            total += shifted[j]
    return total


@njit(**_HELPER)
def _write_shifted(x, first, k, top, rate, mass, shifted, out):
    """Write 2**((x - top) * rate) / mass."""
    for begin in range(first, first + k, shifted.size):
        n = _load_shifted(x, begin, first + k, top, rate, shifted)
        for j in range(n):
            out[begin + j] = shifted[j] / mass


@njit(**_HELPER)
def _softmax_shifted(x, first, k, top, scratch, kind, rate, beta, out):
    """Do one row from its maximum, in double precision; return its log-sum-exp."""
    _, _, shifted = scratch
    mass = _shifted_sum(x, first, k, top, rate, shifted)
    log_mass = math.log(mass)
    if kind == 0 and mass < np.inf:
        _write_shifted(x, first, k, top, rate, mass, shifted, out)
    elif kind == 1:
        _write_log(x, first, k, top, beta, log_mass, out)
    return top * beta + log_mass


@njit(**_HELPER)
def _exponentials_of_lanes(k, scale, tile, lanes):
    """Turn logits side by side into exponentials, and sum them, 16 and 16."""
    for r in range(LANES):
        lanes[5 * LANES + r] = 0
    for begin in range(0, k, 16):
        for r in range(LANES):
            lanes[6 * LANES + r] = 0
        for j in range(begin, min(begin + 16, k)):
            for r in range(LANES):
                value = tile[np.uintp(j * LANES + r)]
                lowest = lanes[4 * LANES + r]
                value = lowest if value < lowest else value
                e = _exponential(value, scale, lanes[3 * LANES + r])
                tile[np.uintp(j * LANES + r)] = e
                lanes[6 * LANES + r] += e
        for r in range(LANES):
            lanes[5 * LANES + r] += lanes[6 * LANES + r]


@njit(**_HELPER)
def _softmax_short(
    x, k, start, stop, scratch, kind, scale, limit, rate, beta, out, normaliser
):
    """Do what `_softmax_kernel` does for rows with few classes."""
    tile, lanes, _ = scratch
    for begin in range(start, stop, LANES):
        n_rows = min(LANES, stop - begin)
        _load_lanes(x, begin * k, n_rows, k, scale, tile, lanes)
        _exponentials_of_lanes(k, scale, tile, lanes)
        for r in range(n_rows):
            row = begin + r
            first = row * k
            top = np.float64(lanes[r])
            if not abs(top) < np.inf:
                return row
            if not abs(lanes[2 * LANES + r]) < limit:
                log_sum = _softmax_shifted(
                    x, first, k, top, scratch, kind, rate, beta, out
                )
                if not abs(log_sum) < np.inf:
                    return row
                if kind == 2:
                    normaliser[row] = log_sum
                continue
            mass = lanes[5 * LANES + r]
            if not mass < np.inf:
                return row
            if kind == 0:
                factor = tile.dtype.type(1.0) / mass
                for j in range(k):
                    e = tile[np.uintp(j * LANES + r)]
                    out[np.uintp(first + j)] = e * factor
                continue
            peak = tile[np.intp(lanes[LANES + r]) * LANES + r]
            log_mass = math.log(np.float64(mass) / np.float64(peak))
            if kind == 1:
                _write_log(x, first, k, top, beta, log_mass, out)
            else:
                normaliser[row] = top * beta + log_mass
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

    x, out: flat (n * k,); normaliser: (n,); algorithm: 0 two-pass, 1 three-pass, 2
    three-pass with kept exponentials, 3 online; `limit`: largest trusted exponent.
    Returns the first bad row, or -1.
    """
    if k < SHORT_ROW:
        return _softmax_short(
            x, k, start, stop, scratch, kind, scale, limit, rate, beta, out, normaliser
        )
    buffer, _, _ = scratch
    is_kept = kind == 0 and algorithm == 2
    # one exponent for the row: the algorithms do not differ
    is_whole = is_kept or k <= _SEGMENT
    for row in range(start, stop):
        first = row * k
        mass = np.nan
        if algorithm == 3 and not is_whole:
            mass, top = _online_sum(x, first, k, scale, limit)
        elif algorithm == 0 and not is_whole:
            mass, top = _extended_sum(x, first, k, scale, limit)
        else:
            top = _highest(x, first, k)
            own, magic, lowest = _anchor(top, scale)
            if abs(own) < limit:
                if is_kept:
                    mass = _keep_exponentials(
                        x, first, k, scale, magic, lowest, buffer, out
                    )
                else:
                    mass = _sum_exponentials(x, first, k, scale, magic, lowest)
        if not abs(top) < np.inf:
            return row
        peak = np.float64(top)
        own, magic, lowest = _anchor(top, scale)
        if not abs(own) < limit:
            # out of the exact range: once more, from the maximum
            log_sum = _softmax_shifted(
                x, first, k, peak, scratch, kind, rate, beta, out
            )
            if not abs(log_sum) < np.inf:
                return row
            if kind == 2:
                normaliser[row] = log_sum
            continue
        if not mass < np.inf:
            return row
        if kind == 0:
            factor = x.dtype.type(1.0 / mass)
            if is_kept:
                _write_scaled(first, k, factor, buffer, out)
            else:
                _write_exponentials(x, first, k, scale, magic, lowest, factor, out)
            continue
        log_mass = math.log(mass / np.float64(_exponential(top, scale, magic)))
        if kind == 1:
            _write_log(x, first, k, peak, beta, log_mass, out)
        else:
            normaliser[row] = peak * beta + log_mass
    return -1
