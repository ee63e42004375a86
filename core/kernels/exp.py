"""The exponential and what every kernel over rows of logits builds on.

Softmax follows the Two-Pass algorithm of Dukhan and Ablavatski [1]_: exponentials
are pairs (mantissa, exponent), so that no row maximum has to be known before the
first trip over a row. What makes the loops fast:

* everything is done in whole vectors (`core.kernels.vectors`), the end of a row in a
  masked one, and rows of few classes as many at a time as a vector has lanes;
* a running pair is carried from one element to the next. There is one pair for each
  segment of 4,096 elements: its exponent comes from a sweep for the largest element,
  after which the segment is in the first-level cache, and the sweep that adds is one
  exponential, one addition and nothing else;
* the exponential is a range reduction and a polynomial of our own. A large constant
  is added to x log2(e), so that the last bits of the sum are the exponent of the
  result, already biased, and fused multiply-adds make the rest of the reduction exact
  to the last bits, however large x is;
* while one row (or segment) is worked on, the next is fetched: otherwise a sweep for
  the largest element waits for memory, and memory for the sweep that computes;
* results of more than the caches hold are written past them.

Sums of single precision are moved into double precision every 512 elements.

Numba's cache on disk notices changes only in the file of a kernel, so the families
carry a stamp of this file and of `lanes`, `shuffles`, `turns` and `vectors`, and a test
compares it.

References
----------
.. [1] M. Dukhan and A. Ablavatski, "The Two-Pass Softmax Algorithm",
   arXiv 2001.04438 (2020).
"""

# mypy: allow-untyped-defs, allow-untyped-calls
from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numba import config, njit, types
from numba.extending import overload

from core.kernels.vectors import (
    add,
    first_of,
    fma,
    larger,
    largest_of,
    load,
    load_part,
    multiply,
    power_of_two,
    prefetch,
    splat,
    splat_double,
    subtract,
    sum_of,
    widen,
    width,
)

__all__ = [
    "IS_COMPILED",
    "STORED_ROW",
    "new_scratch",
    "reduction_constants",
    "source_stamp",
    "trusted_exponent",
]

IS_COMPILED = not config.DISABLE_JIT
FASTMATH = {"contract"}  # fused multiply-add only
_KERNEL = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": FASTMATH}
# Callers hold the arrays: a helper that counted references too, atomically, would spend
# a fifth of the time of a row of 100 classes on it.
_HELPER = {
    **_KERNEL,
    "_nrt": False,
    "cache": False,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
# A call passes every field of every array, which costs rows of 100 classes a tenth.
_INLINE = {**_HELPER, "forceinline": True}
_SMALL = {**_KERNEL, "cache": False, "inline": "always"}
# What is computed twice and must come out the same: fused or not, the compiler decides
# anew in each place, and near a half that is another whole number.
_EXACT = {**_INLINE, "fastmath": False}

_TILE = 1024  # elements of a segment in double precision
_SEGMENT = 4096  # elements with one exponent; they are read twice, the second time
# from the first-level cache
_FLUSH = 512  # additions in single precision between two in double precision

# Exponentials of a row of up to so many classes are kept, in the second-level cache:
# 0.7 to 0.95 of the time of computing them again.
STORED_ROW = 65_536

_LN2 = math.log(2.0)
_LOG2E = 1.4426950408889634
_LOG2E_LOW = 2.0355273740931033e-17  # log2(e) - _LOG2E
# Largest |n| whose place in the last bits of the rounded sum is safe.
_LIMITS = {np.dtype(np.float32): 2.0**21, np.dtype(np.float64): 2.0**40}
_SHIFTED_FLOOR = -2000.0  # 2**-2000 is zero in both precisions
_ROUND = 1.5 * 2.0**52  # adding and subtracting it rounds to whole numbers
_BIAS = 1023.0

# 2**f on |f| <= 1/2: minimax in relative error with the constant fixed at 1, so that
# 2**0 is exactly 1; errors 2.0e-9 (degree 6) and 3.4e-18 (degree 11).
_S1, _S2, _S3, _S4, _S5, _S6 = (
    np.float32(0.6931471824645996),
    np.float32(0.24022647738456726),
    np.float32(0.055503323674201965),
    np.float32(0.009618437848985195),
    np.float32(0.0013398906448855996),
    np.float32(0.00015353337221313268),
)
_D1, _D2, _D3, _D4 = (
    0.6931471805599453,
    0.2402265069591013,
    0.05550410866482008,
    0.009618129107594053,
)
_D5, _D6, _D7, _D8 = (
    0.0013333558146775295,
    0.00015403530457205124,
    1.5252733492672893e-05,
    1.3215435232160173e-06,
)
_D9, _D10, _D11 = 1.0178199682454397e-07, 7.073792440369558e-09, 4.434766072770156e-10
_ONE_SINGLE = np.float32(1)


# --------------------------------------------------------- the exponential


def _polynomial_single(f: Any) -> Any:
    p = fma(f, splat(_S6), splat(_S5))
    p = fma(f, p, splat(_S4))
    p = fma(f, p, splat(_S3))
    p = fma(f, p, splat(_S2))
    p = fma(f, p, splat(_S1))
    return fma(f, p, splat(_ONE_SINGLE))


def _polynomial_double(f: Any) -> Any:
    # Estrin's order: fewer steps that wait for each other
    square = multiply(f, f)
    fourth = multiply(square, square)
    high = fma(square, splat(_D11), fma(f, splat(_D10), splat(_D9)))
    middle = fma(square, fma(f, splat(_D8), splat(_D7)), fma(f, splat(_D6), splat(_D5)))
    low = fma(square, fma(f, splat(_D4), splat(_D3)), fma(f, splat(_D2), splat(_D1)))
    return fma(f, fma(fourth, fma(fourth, high, middle), low), splat(1.0))


def _polynomial(f: Any) -> Any:
    """Return 2**f for |f| <= 1/2 (a little more does no harm)."""
    return _polynomial_single(f) if f.dtype == np.float32 else _polynomial_double(f)


@overload(_polynomial, jit_options=_INLINE)
def _polynomial_typed(f: Any) -> Any:
    return _polynomial_single if f.dtype == types.float32 else _polynomial_double


@njit(**_INLINE)
def _exponential(x, scale, magic):
    """Return exp(x / T) * 2**-E of vectors that are nowhere below the lowest.

    magic rounds x / T * log2(e) and leaves n - E + bias in the last bits of the sum,
    from which the power of two is made.
    """
    high, low = splat(scale[0]), splat(scale[1])
    biased = fma(x, high, magic)
    minus_n = subtract(magic, biased)
    f = fma(x, low, fma(x, high, minus_n))
    return multiply(_polynomial(f), power_of_two(biased))


@njit(**_EXACT)
def _anchor(top, scale):
    """Return (E, magic, lowest): the exponent of exp(top / T), and what it implies.

    At `lowest` the last bits of the sum with `magic` are 0, which makes the power of
    two and so the exponential exactly 0.
    """
    n = (top * scale[0] + scale[3]) - scale[3]
    below = n - scale[4]
    return n, scale[3] - below, below * scale[2]


@njit(**_SMALL)
def _peak(top, scale, magic):
    """Return exp(top / T) * 2**-E of one number."""
    found = _exponential(splat(top), scale, splat(magic))
    return np.float64(first_of(found))


@njit(**_SMALL)
def _log_one_plus(x):
    """Return log(1 + x) to the last bits, x >= 0, in a third of the time of log1p."""
    total = 1.0 + x
    # what the sum lost is in total - 1, for the logarithm too
    return math.log(total) * (x / (total - 1.0)) if total > 1.0 else x


@njit(**_SMALL)
def _one_minus_exp(x):
    """Return 1 - exp(x), x <= 0; the longer way only near 0."""
    return 1.0 - math.exp(x) if x < -1.0 else -math.expm1(x)


@njit(**_SMALL)
def _log_vector(value, top, beta, log_mass):
    """Return (value - top) * beta - log_mass in double precision."""
    wide = subtract(widen(value), splat_double(np.float64(top), value))
    return fma(wide, splat_double(beta, value), splat_double(-log_mass, value))


# --------------------------------------------------------- rows, vector by vector


@njit(**_SMALL)
def _vector_at(x, place, n_left, fill):
    """Return the vector at a place of a row of which `n_left` elements are left."""
    if n_left >= width(x):
        return load(x, np.uintp(place))
    return load_part(x, np.uintp(place), n_left, fill)


@njit(**_INLINE)
def _highest(x, first, n):
    """Return the largest of n elements; NaN is passed over."""
    step = width(x)
    fill = x.dtype.type(-np.inf)
    a = splat(fill)
    b = c = d = a
    j = 0
    while j + 4 * step <= n:
        a = larger(load(x, np.uintp(first + j)), a)
        b = larger(load(x, np.uintp(first + j + step)), b)
        c = larger(load(x, np.uintp(first + j + 2 * step)), c)
        d = larger(load(x, np.uintp(first + j + 3 * step)), d)
        j += 4 * step
    while j < n:
        a = larger(_vector_at(x, first + j, n - j, fill), a)
        j += step
    return largest_of(larger(larger(a, b), larger(c, d)))


@njit(**_INLINE)
def _sum_exponentials(x, first, n, scale, magic, lowest):
    """Return the sum of exp(x / T) * 2**-E, in double precision."""
    magics, floor = splat(magic), splat(lowest)
    step = width(x)
    # of a longer row, the processor fetches what comes next by itself
    ahead = n if n <= _SEGMENT else 0
    total = 0.0
    for begin in range(0, n, _FLUSH):
        part = splat(x.dtype.type(0))
        for j in range(begin, min(begin + _FLUSH, n), step):
            prefetch(x, np.uintp(first + ahead + j))
            value = larger(floor, _vector_at(x, first + j, n - j, lowest))
            part = add(part, _exponential(value, scale, magics))
        total += sum_of(part)
    return total


# ------------------------------------------------ rows beyond the trusted exponents


@njit(**_HELPER)
def _powers(shifted, n):
    """Turn double-precision y <= 0 into 2**y."""
    for j in range(n):
        y = shifted[np.uintp(j)]
        y = _SHIFTED_FLOOR if y < _SHIFTED_FLOOR else y
        biased = y + (_ROUND + _BIAS)
        f = y - (biased - (_ROUND + _BIAS))
        # what would be below the smallest normal number is 0
        bits = np.float64(biased).view(np.int64) << np.int64(52)
        power = np.int64(bits).view(np.float64) if y > -1022.0 else 0.0
        square = f * f
        fourth = square * square
        high = (_D9 + f * _D10) + square * _D11
        middle = (_D5 + f * _D6) + square * (_D7 + f * _D8)
        low = (_D1 + f * _D2) + square * (_D3 + f * _D4)
        value = 1.0 + f * (low + fourth * (middle + fourth * high))
        shifted[np.uintp(j)] = value * power


@njit(**_HELPER)
def _load_shifted(x, begin, end, top, rate, shifted):
    """Write 2**((x - top) * rate) of as many elements as `shifted` holds."""
    n = min(end - begin, shifted.size)
    for j in range(n):
        shifted[np.uintp(j)] = (np.float64(x[np.uintp(begin + j)]) - top) * rate
    _powers(shifted, n)
    return n


# -------------------------------------------------------------- on the Python side


def new_scratch(dtype: Any) -> tuple[Any, ...]:
    """Return the arrays a kernel works in; allocating there costs time to compile.

    Parameters
    ----------
    dtype : dtype
        float32 or float64, that of the logits.

    Returns
    -------
    tuple of ndarray
        Exponentials of a row or of short rows, what is known of each short row, and a
        segment of a row in double precision.
    """
    # in whole lines of the cache: vectors across two of them took a third longer
    kept = np.empty(STORED_ROW + 16, dtype)
    start = -kept.ctypes.data % 64 // kept.itemsize
    return kept[start : start + STORED_ROW], np.empty(9 * 16, dtype), np.empty(_TILE)


def trusted_exponent(dtype: Any) -> float:
    """Return the powers of two up to which sums without a maximum are exact."""
    return _LIMITS[np.dtype(dtype)]


def source_stamp() -> int:
    """Return the checksum of what the families of kernels share."""
    names = ("exp", "lanes", "shuffles", "turns", "vectors")
    texts = [Path(__file__).with_name(f"{name}.py").read_bytes() for name in names]
    return zlib.crc32(b"".join(texts))


def reduction_constants(beta: float, dtype: Any) -> tuple[Any, ...]:
    """Return the constants of the range reduction of x * beta, in `dtype`.

    Parameters
    ----------
    beta : float
        Inverse temperature; between 1e-20 and 1e20 for float32, 1e-25 and 1e25 for
        float64.
    dtype : dtype
        float32 or float64.

    Returns
    -------
    tuple
        beta * log2(e) in two parts, ln 2 / beta, the constant that rounds to whole
        numbers when it is added and subtracted, and the bias of exponents.
    """
    whole = beta * _LOG2E
    # beta * _LOG2E rounds: take the remainder from exact halves of both factors
    beta_top, log_top = _leading_bits(beta, 26), _leading_bits(_LOG2E, 26)
    beta_low, log_low = beta - beta_top, _LOG2E - log_top
    error = (beta_top * log_top - whole) + beta_top * log_low + beta_low * log_top
    error += beta_low * log_low + beta * _LOG2E_LOW
    if np.dtype(dtype) == np.float32:
        high = np.float32(whole)
        low = np.float32((whole - float(high)) + error)
        rest = (_LN2 / beta, 1.5 * 2.0**23, 127.0)
        return (high, low, *(np.float32(part) for part in rest))
    parts = (whole, error, 1.0 / whole, _ROUND, _BIAS)
    return tuple(np.float64(part) for part in parts)


def _leading_bits(value: float, n_bits: int) -> float:
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(math.ldexp(mantissa, n_bits)), exponent - n_bits)
