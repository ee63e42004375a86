"""The exponential and what every kernel over rows of logits builds on.

Softmax follows the Two-Pass algorithm of Dukhan and Ablavatski [1]_: exponentials
are kept as pairs (mantissa, exponent), so that no row maximum has to be known and
the row is read twice instead of three times. What makes the loops fast:

* a running pair is carried from one element to the next and does not vectorise, so
  64 independent pairs (lanes) are kept and merged at the end of the row;
* the exponential is a range reduction and a polynomial of our own: ``math.exp``
  inside a kernel is a call per element;
* ``max`` keeps NaN semantics and blocks vectorisation, compare-and-select does not;
* indices are unsigned, because a possibly negative one wraps round and blocks it too;
* a maximum kept in memory has a zero added: otherwise "store the larger one" becomes
  a masked store, which is slow and delays the next load (1.5 times the whole pass);
* rows shorter than the lanes go through a tile of several rows in one flat loop.

Accuracy without fused multiply-add. A single-precision reduction ``x - n * L``,
L = T ln 2, subtracts three parts of L in turn; the first two have 9 significant
bits, so that their products with |n| <= 2**15 are exact. Rows outside that range
(and rows with NaN or infinity, whose sum is NaN) are done again from the row maximum
in double precision. Lanes are flushed into double precision every 1,024 elements.

Leaf functions that differ by dtype are chosen by `overload`; the functions themselves
run when ``NUMBA_DISABLE_JIT=1``. Numba's cache on disk notices changes only in the
file of a kernel, so the families carry a stamp of this file, and a test compares it.

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
from numba import njit, types
from numba.extending import overload

__all__ = [
    "LANES",
    "SHORT_ROW",
    "new_scratch",
    "reduction_constants",
    "source_stamp",
    "trusted_exponent",
]

# Fused multiply-add only: "reassoc" would fold the steps of the range reduction.
FASTMATH = {"contract"}
_KERNEL = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": FASTMATH}
_HELPER = {
    **_KERNEL,
    "cache": False,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
_LEAF = {"jit_options": {"error_model": "numpy", "fastmath": FASTMATH}}

LANES = 64
SHORT_ROW = 96  # rows with fewer classes take the flat tile: as fast as lanes there
_SEGMENT = 1024  # elements between two flushes of the lanes; also those of a tile

_LN2 = math.log(2.0)
_LOG2E = 1.4426950408889634
_LOG2E_LOW = 2.0355273740931033e-17  # log2(e) - _LOG2E
_SINGLE_LIMIT = 2.0**15  # largest |n| with exact products in single precision
_DOUBLE_LIMIT = 2.0**30  # far from it: n stays an exact 32-bit integer
_HEADROOM = 2048.0  # classes this many powers of two below the top are exactly 0
_SHIFTED_FLOOR = -2000.0  # 2**-2000 is zero in both precisions
_LOWEST_SINGLE = np.float32(-3e38)
_ROUND = 1.5 * 2.0**52  # adding and subtracting it rounds to whole numbers
_ROUND_SINGLE = np.float32(1.5 * 2.0**23)
_ZERO_SINGLE = np.float32(0)
_ONE_SINGLE = np.float32(1)
_BIAS_SINGLE = np.float32(127)

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


# ------------------------------------------------------- leaves, one per dtype


def _polynomial_single(f: Any) -> Any:
    # Estrin's order: a third more multiplications at half the latency of Horner's
    square = f * f
    tail = (_S3 + f * _S4) + square * (_S5 + f * _S6)
    return _ONE_SINGLE + f * ((_S1 + f * _S2) + square * tail)


def _polynomial_double(f: Any) -> Any:
    square = f * f
    fourth = square * square
    high = (_D9 + f * _D10) + square * _D11
    middle = (_D5 + f * _D6) + square * (_D7 + f * _D8)
    low = (_D1 + f * _D2) + square * (_D3 + f * _D4)
    return 1.0 + f * (low + fourth * (middle + fourth * high))


def _polynomial(f: Any) -> Any:
    """Return 2**f for |f| <= 1/2 (a little more does no harm)."""
    return _polynomial_single(f) if isinstance(f, np.float32) else _polynomial_double(f)


@overload(_polynomial, **_LEAF)
def _polynomial_typed(f: Any) -> Any:
    return _polynomial_single if f == types.float32 else _polynomial_double


def _power_single(d: Any) -> Any:
    biased = d + _BIAS_SINGLE
    biased = biased if biased > _ZERO_SINGLE else _ZERO_SINGLE
    return np.int32(np.int32(biased) << np.int32(23))


def _power_double(d: Any) -> Any:
    biased = d + 1023.0
    biased = biased if biased > 0.0 else 0.0
    # by way of 32 bits: there is no 64-bit conversion before AVX-512
    return np.int64(np.int32(biased)) << np.int64(52)


def _power(d: Any) -> Any:
    """Return the bits of 2**d for whole d <= 0; of 0 if too small, or d is NaN."""
    return _power_single(d) if isinstance(d, np.float32) else _power_double(d)


@overload(_power, **_LEAF)
def _power_typed(d: Any) -> Any:
    return _power_single if d == types.float32 else _power_double


def _reduce_single(x: Any, scale: Any) -> Any:
    x = scale[4] if x < scale[4] else x
    n = (x * scale[0] + _ROUND_SINGLE) - _ROUND_SINGLE
    rest = ((x - n * scale[1]) - n * scale[2]) - n * scale[3]
    return n, rest * scale[0]


def _reduce_double(x: Any, scale: Any) -> Any:
    x = scale[4] if x < scale[4] else x
    # 24 + 26 bits: the product of the leading parts is exact
    leading = np.float64(np.float32(x))
    y = leading * scale[0]
    n = (y + _ROUND) - _ROUND
    return n, (y - n) + (leading * scale[1] + (x - leading) * scale[2])


def _reduce(x: Any, scale: Any) -> Any:
    """Return (n, f) with x / T * log2(e) = n + f, n whole, |f| <= 1/2."""
    if isinstance(x, np.float32):
        return _reduce_single(x, scale)
    return _reduce_double(x, scale)


@overload(_reduce, **_LEAF)
def _reduce_typed(x: Any, scale: Any) -> Any:  # noqa: ARG001
    return _reduce_single if x == types.float32 else _reduce_double


def _shifted_single(y: Any, like: Any) -> Any:  # noqa: ARG001
    y = _SHIFTED_FLOOR if y < _SHIFTED_FLOOR else y
    n = (y + _ROUND) - _ROUND
    return np.float32(n), np.float32(y - n)


def _shifted_double(y: Any, like: Any) -> Any:  # noqa: ARG001
    y = _SHIFTED_FLOOR if y < _SHIFTED_FLOOR else y
    n = (y + _ROUND) - _ROUND
    return n, y - n


def _shifted(y: Any, like: Any) -> Any:
    """Split y <= 0 into (n, f), in the dtype of `like`."""
    if isinstance(like, np.float32):
        return _shifted_single(y, like)
    return _shifted_double(y, like)


@overload(_shifted, **_LEAF)
def _shifted_typed(y: Any, like: Any) -> Any:  # noqa: ARG001
    return _shifted_single if like == types.float32 else _shifted_double


def _bits_single(lanes: Any) -> Any:
    return lanes.view(np.int32)


def _bits_double(lanes: Any) -> Any:
    return lanes.view(np.int64)


def _bits(lanes: Any) -> Any:
    """Return the lanes seen as integers; the compiler then keeps them in registers."""
    return _bits_single(lanes) if lanes.dtype == np.float32 else _bits_double(lanes)


@overload(_bits, **_LEAF)
def _bits_typed(lanes: Any) -> Any:
    return _bits_single if lanes.dtype == types.float32 else _bits_double


def new_scratch(dtype: Any) -> tuple[Any, ...]:
    """Return the arrays a kernel works in; allocating there costs time to compile.

    Parameters
    ----------
    dtype : dtype
        float32 or float64, that of the logits.

    Returns
    -------
    tuple of ndarray
        Lanes, a segment of a row (or tile of short rows), the same in double
        precision, sums in double precision, maxima of the rows of a tile, blocks.
    """
    return (
        np.zeros(5 * LANES, dtype),
        np.zeros(_SEGMENT, dtype),
        np.zeros(_SEGMENT),
        np.zeros(4 * LANES),
        np.zeros(_SEGMENT),
        np.zeros(LANES, np.int32),
    )


def trusted_exponent(dtype: Any) -> float:
    """Return the powers of two up to which sums without a maximum are exact."""
    limit = _SINGLE_LIMIT if np.dtype(dtype) == np.float32 else _DOUBLE_LIMIT
    return limit - _HEADROOM


def source_stamp() -> int:
    """Return the checksum of this file that the families of kernels carry."""
    text = Path(__file__).read_text(encoding="utf-8")
    return zlib.crc32(text.encode())


def reduction_constants(beta: float, dtype: Any) -> tuple[Any, ...]:
    """Return the five constants of the range reduction of x * beta, in `dtype`.

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
        float32: 1 / L, the three parts of L = ln 2 / beta, and the lowest logit that
        is not treated as minus infinity. float64: the leading 26 bits of
        beta * log2(e), the rest, the whole, 0, and the lowest logit.
    """
    if np.dtype(dtype) == np.float32:
        unit = _LN2 / beta
        first = _leading_bits(unit, 9)
        second = _leading_bits(unit - first, 9)
        lowest = max(-_SINGLE_LIMIT * unit, float(_LOWEST_SINGLE))
        parts = (1.0 / unit, first, second, unit - first - second, lowest)
        return tuple(np.float32(part) for part in parts)
    whole = beta * _LOG2E
    leading = _leading_bits(whole, 26)
    # beta * _LOG2E rounds: take the remainder from exact halves of both factors
    beta_top, log_top = _leading_bits(beta, 26), _leading_bits(_LOG2E, 26)
    beta_low, log_low = beta - beta_top, _LOG2E - log_top
    error = (beta_top * log_top - whole) + beta_top * log_low + beta_low * log_top
    error += beta_low * log_low + beta * _LOG2E_LOW
    lowest = -_DOUBLE_LIMIT / whole
    parts = (leading, (whole - leading) + error, whole, 0.0, lowest)
    return tuple(np.float64(part) for part in parts)


def _leading_bits(value: float, n_bits: int) -> float:
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(math.ldexp(mantissa, n_bits)), exponent - n_bits)


# ------------------------------------------------------- what the families share


@njit(**_HELPER)
def _load(x, begin, end, buffer):
    """Copy a segment of a row into `buffer`, filled up to whole blocks with -inf.

    All lane loops run over this buffer: it costs a few per cent, and leaves one
    version of each loop, without remainders and without checks for overlap.
    """
    n = min(end - begin, _SEGMENT)
    for j in range(n):
        buffer[j] = x[np.uintp(begin + j)]
    n_filled = (n + LANES - 1) // LANES * LANES
    for j in range(n, n_filled):
        buffer[j] = -np.inf
    return n_filled


@njit(**_HELPER)
def _fold(total, n_sums):
    """Sum groups of lanes pairwise, into the first lane of each group."""
    width = LANES // 2
    while width > 0:
        for first in range(0, n_sums * LANES, LANES):
            for j in range(first, first + width):
                total[j] += total[j + width]
        width //= 2


@njit(**_HELPER)
def _largest(lanes):
    top = lanes[0]
    for j in range(1, LANES):
        top = lanes[j] if lanes[j] > top else top
    return np.float64(top)


@njit(**_HELPER)
def _maximum(x, first, k, buffer, work):
    """Return the largest element of a row; NaN is passed over."""
    for j in range(LANES):
        work[j] = -np.inf
    for begin in range(first, first + k, _SEGMENT):
        for start in range(0, _load(x, begin, first + k, buffer), LANES):
            for j in range(LANES):
                value = buffer[np.uintp(start + j)]
                work[j] = (value if value > work[j] else work[j]) + _ZERO_SINGLE
    return _largest(work)


@njit(**_HELPER)
def _exponentials(shifted, n, work, buffer):
    """Write 2**shifted, shifted <= 0, for whole blocks."""
    bits = _bits(work)
    for start in range(0, n, LANES):
        for j in range(LANES):
            n_powers, f = _shifted(shifted[np.uintp(start + j)], work[j])
            bits[LANES + j] = _power(n_powers)
            buffer[np.uintp(start + j)] = _polynomial(f) * work[LANES + j]


@njit(**_HELPER)
def _tile_exponentials(x, first, n_rows, k, rate, tops, shifted, work, tile):
    """Fill `tile` with exp((x - row maximum) / T) for several short rows at once."""
    for row in range(n_rows):
        begin = first + row * k
        top = x[begin]
        for j in range(begin + 1, begin + k):
            top = x[j] if x[j] > top else top
        tops[row] = top
        for j in range(k):
            y = (np.float64(x[begin + j]) - np.float64(top)) * rate
            shifted[row * k + j] = y
    # whole blocks: what a row yields must not depend on its place in the tile
    _exponentials(shifted, n_rows * k, work, tile)
