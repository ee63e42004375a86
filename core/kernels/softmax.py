"""Softmax, log-softmax and log-sum-exp of rows: Two-Pass, three-pass and online.

The algorithms differ in their trips over a long row: Two-Pass (Dukhan and Ablavatski,
arXiv 2001.04438) reads it twice, three-pass three times, and computes the exponentials
twice or keeps them, online (Milakov and Gimelshein, arXiv 1805.02867) reads it twice
with a running maximum. They share their loops, so that a comparison of them compares
the trips. Short rows are done by `core.kernels.blocks`, but for a few.
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
    _SMALL,
    _anchor,
    _exponential,
    _highest,
    _load_shifted,
    _log_vector,
    _peak,
    _sum_exponentials,
    _vector_at,
)
from core.kernels.vectors import (
    add,
    larger,
    load,
    multiply,
    narrow,
    prefetch,
    splat,
    store,
    store_part,
    stream,
    sum_of,
    width,
)

__all__ = ["EXP_STAMP"]

# of what kernels share: a change must reach those that Numba keeps
EXP_STAMP = 1774504357


@njit(**_INLINE)
def _keep_exponentials(x, first, k, scale, magic, lowest, buffer, out):
    """Keep exp(x / T) * 2**-E and return the sum: in the buffer if it holds the row.

    Else in `out`.
    """
    magics, floor = splat(magic), splat(lowest)
    step = width(x)
    is_long = k > buffer.size
    total = 0.0
    for begin in range(0, k, _FLUSH):
        part = splat(x.dtype.type(0))
        for j in range(begin, min(begin + _FLUSH, k), step):
            prefetch(x, np.uintp(first + k + j))
            value = larger(floor, _vector_at(x, first + j, k - j, lowest))
            e = _exponential(value, scale, magics)
            if is_long:
                store_part(out, np.uintp(first + j), min(k - j, step), e)
            else:
                store(buffer, np.uintp(j), e)
            part = add(part, e)
        total += sum_of(part)
    return total


@njit(**_HELPER)
def _is_ruled_out(x, first, n):
    """Whether n elements are all -inf; the largest of NaN is -inf too."""
    n_others = 0
    for j in range(n):
        n_others += x[np.uintp(first + j)] != -np.inf
    return n_others == 0


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
        if top == -np.inf and _is_ruled_out(x, begin, n):
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
        if top == -np.inf and _is_ruled_out(x, begin, n):
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


# ------------------------------------------------------------ the last trip over a row


@njit(**_SMALL)
def _put(out, place, n_left, value, is_aligned):
    """Write a vector, or what is left of a row; past the caches where aligned."""
    if n_left < width(out):
        store_part(out, np.uintp(place), n_left, value)
    elif is_aligned:
        stream(out, np.uintp(place), value)
    else:
        store(out, np.uintp(place), value)


@njit(**_SMALL)
def _head(out, first, k, lead):
    """Return how many elements of a row come before an aligned one; 0 if lead < 0.

    lead: place of the first element of `out` in its line of the cache.
    """
    return min(k, (-(lead + first)) % width(out)) if lead >= 0 else 0


@njit(**_INLINE)
def _write_exponentials(x, first, k, scale, magic, lowest, factor, lead, out):
    """Write exp(x / T) * 2**-E * factor."""
    magics, floor = splat(magic), splat(lowest)
    factors = splat(factor)
    step = width(x)
    head = _head(out, first, k, lead)
    if head > 0:
        value = larger(floor, _vector_at(x, first, head, lowest))
        e = multiply(_exponential(value, scale, magics), factors)
        store_part(out, np.uintp(first), head, e)
    for j in range(head, k, step):
        value = larger(floor, _vector_at(x, first + j, k - j, lowest))
        e = multiply(_exponential(value, scale, magics), factors)
        _put(out, first + j, k - j, e, lead >= 0)


@njit(**_INLINE)
def _write_scaled(first, k, factor, lead, buffer, out):
    """Write what `_keep_exponentials` kept, times a factor."""
    factors = splat(factor)
    step = width(out)
    if k > buffer.size:
        for j in range(0, k, step):
            e = multiply(_vector_at(out, first + j, k - j, factor), factors)
            store_part(out, np.uintp(first + j), min(k - j, step), e)
        return
    if lead < 0 and k >= step:
        for j in range(0, k - step, step):
            e = multiply(load(buffer, np.uintp(j)), factors)
            store(out, np.uintp(first + j), e)
        # Once more what is there: to write a part of a vector takes far longer.
        e = multiply(load(buffer, np.uintp(k - step)), factors)
        store(out, np.uintp(first + k - step), e)
        return
    head = _head(out, first, k, lead)
    if head > 0:
        e = multiply(load(buffer, np.uintp(0)), factors)
        store_part(out, np.uintp(first), head, e)
    for j in range(head, k, step):
        e = multiply(_vector_at(buffer, j, k - j, factor), factors)
        _put(out, first + j, k - j, e, lead >= 0)


@njit(**_HELPER)
def _write_log(x, first, k, top, beta, log_mass, lead, out):
    """Write log-probabilities, all digits of them."""
    zero = x.dtype.type(0)
    step = width(x)
    if lead < 0 and k >= step:
        # `out` may be x: the last vector is read before it is overwritten
        last = load(x, np.uintp(first + k - step))
        for j in range(0, k - step, step):
            value = _log_vector(load(x, np.uintp(first + j)), top, beta, log_mass)
            store(out, np.uintp(first + j), narrow(value, out))
        value = narrow(_log_vector(last, top, beta, log_mass), out)
        store(out, np.uintp(first + k - step), value)
        return
    head = _head(out, first, k, lead)
    if head > 0:
        value = _log_vector(_vector_at(x, first, head, zero), top, beta, log_mass)
        store_part(out, np.uintp(first), head, narrow(value, out))
    for j in range(head, k, step):
        value = _vector_at(x, first + j, k - j, zero)
        value = narrow(_log_vector(value, top, beta, log_mass), out)
        _put(out, first + j, k - j, value, lead >= 0)


# ------------------------------------------------ rows beyond the trusted exponents


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
        _write_log(x, first, k, top, beta, log_mass, -1, out)
    return top * beta + log_mass


# ---------------------------------------------------------------------- the kernel


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
    lead,
    out,
    normaliser,
):
    """Softmax (kind 0), log-softmax (1) or log-sum-exp (2) of rows start..stop.

    x, out: flat (n * k,); normaliser: (n,); algorithm: 0 two-pass, 1 three-pass, 2
    three-pass with kept exponentials, 3 online; `limit`: largest trusted exponent;
    lead: place of the first element of `out` in its line of the cache, to write past
    the caches, or -1. Returns the first bad row, or -1.
    """
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
        own, magic, lowest = _anchor(top, scale)
        if not abs(own) < limit:
            # out of the exact range: once more, from the maximum
            log_sum = _softmax_shifted(
                x, first, k, np.float64(top), scratch, kind, rate, beta, out
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
                _write_scaled(first, k, factor, lead, buffer, out)
            else:
                _write_exponentials(
                    x, first, k, scale, magic, lowest, factor, lead, out
                )
            continue
        log_mass = math.log(mass / _peak(top, scale, magic))
        if kind == 1:
            _write_log(x, first, k, top, beta, log_mass, lead, out)
        else:
            normaliser[row] = np.float64(top) * beta + log_mass
    return -1
