"""The exponential and what every kernel over rows of logits builds on.

Softmax follows the Two-Pass algorithm of Dukhan and Ablavatski [1]_: exponentials
are pairs (mantissa, exponent), so that no row maximum has to be known before the
first trip over a row. What makes the loops fast:

* a running pair is carried from one element to the next and does not vectorise.
  There is one pair for each segment of 4,096 elements: its exponent comes from a sweep
  for the largest element, after which the segment is in the first-level cache, and
  the sweep that adds is one exponential, one addition and nothing else;
* the exponential is a range reduction and a polynomial of our own: ``math.exp``
  inside a kernel is a call per element. A large constant is added to x log2(e), so
  that the last bits of the sum are the exponent of the result, already biased;
* additions may be put in another order, and only additions: `_add`;
* ``max`` keeps NaN semantics and blocks vectorisation. Floats are compared as
  integers of the same order;
* indices are unsigned, because a possibly negative one wraps round and blocks it too;
* rows of few classes are put side by side, one row a lane.

Accuracy without fused multiply-add. A single-precision reduction ``x - n * L``,
L = T ln 2, subtracts three parts of L in turn; the first two have 9 significant
bits, so that their products with |n| <= 2**15 are exact. Rows outside that range are
done in double precision from the row maximum. Sums of single precision are moved
into double precision every 512 elements.

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
# For loops over a row: a call passes every field of every array, which costs a row of
# 100 classes 13 % of its time, and a row of 1,000 classes 3 %.
_INLINE = {**_HELPER, "forceinline": True}
_LEAF = {"jit_options": {"error_model": "numpy", "fastmath": FASTMATH}}
# What is computed twice and must come out the same: fused or not, the compiler decides
# anew in each place, and near a half that is another whole number.
_EXACT_LEAF = {"jit_options": {"error_model": "numpy", "fastmath": False}}

LANES = 64  # short rows side by side
SHORT_ROW = 64  # rows with fewer classes go through lanes
_TILE = 1024  # elements of a segment in double precision
_SEGMENT = 4096  # elements with one exponent; they are read twice, the second time
# from the first-level cache
_FLUSH = 512  # additions in single precision between two in double precision

_LN2 = math.log(2.0)
_LOG2E = 1.4426950408889634
_LOG2E_LOW = 2.0355273740931033e-17  # log2(e) - _LOG2E
_SINGLE_LIMIT = 2.0**15  # largest |n| with exact products in single precision
_DOUBLE_LIMIT = 2.0**20  # far from it: the reduction's trailing part stays small
_HEADROOM = 2048.0  # classes this many powers of two below the top are exactly 0
_SHIFTED_FLOOR = -2000.0  # 2**-2000 is zero in both precisions
_ROUND = 1.5 * 2.0**52  # adding and subtracting it rounds to whole numbers
_ROUND_SINGLE = np.float32(1.5 * 2.0**23)
_ZERO_SINGLE, _ONE_SINGLE = np.float32(0), np.float32(1)
_BIAS, _BIAS_SINGLE = 1023.0, np.float32(127)
_POSITIVE, _POSITIVE_SINGLE = np.int64(2**63 - 1), np.int32(2**31 - 1)

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


def _exponential_single(x: Any, scale: Any, magic: Any) -> Any:
    y = x * scale[0] + magic
    n = y - magic
    rest = ((x - n * scale[1]) - n * scale[2]) - n * scale[3]
    power = np.int32(np.float32(y).view(np.int32) << np.int32(23)).view(np.float32)
    return _polynomial(rest * scale[0]) * power


def _exponential_double(x: Any, scale: Any, magic: Any) -> Any:
    # 24 + 26 bits: the product of the leading parts is exact
    leading = np.float64(np.float32(x))
    y = leading * scale[0]
    biased = y + magic
    f = (y - (biased - magic)) + (leading * scale[1] + (x - leading) * scale[2])
    bits = np.float64(biased).view(np.int64) << np.int64(52)
    return _polynomial(f) * np.int64(bits).view(np.float64)


def _exponential(x: Any, scale: Any, magic: Any) -> Any:
    """Return exp(x / T) * 2**-E, for x that is not below the anchor's lowest."""
    if isinstance(x, np.float32):
        return _exponential_single(x, scale, magic)
    return _exponential_double(x, scale, magic)


@overload(_exponential, **_LEAF)
def _exponential_typed(x: Any, scale: Any, magic: Any) -> Any:  # noqa: ARG001
    return _exponential_single if x == types.float32 else _exponential_double


def _anchor_single(top: Any, scale: Any) -> Any:
    n = (top * scale[0] + _ROUND_SINGLE) - _ROUND_SINGLE
    below = n - _BIAS_SINGLE
    return n, _ROUND_SINGLE - below, below * scale[4]


def _anchor_double(top: Any, scale: Any) -> Any:
    n = (np.float64(np.float32(top)) * scale[0] + _ROUND) - _ROUND
    below = n - _BIAS
    return n, _ROUND - below, below * scale[4]


def _anchor(top: Any, scale: Any) -> Any:
    """Return (E, magic, lowest): the exponent of exp(top / T), and what it implies.

    magic rounds x / T * log2(e) and leaves n - E + bias in the last bits. At `lowest`
    these are 0, which makes the power of two and so the exponential exactly 0.
    """
    if isinstance(top, np.float32):
        return _anchor_single(top, scale)
    return _anchor_double(top, scale)


@overload(_anchor, **_EXACT_LEAF)
def _anchor_typed(top: Any, scale: Any) -> Any:  # noqa: ARG001
    return _anchor_single if top == types.float32 else _anchor_double


def _ordered_single(x: Any) -> Any:
    bits = np.float32(x + _ZERO_SINGLE).view(np.int32)
    return np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & _POSITIVE_SINGLE))


def _ordered_double(x: Any) -> Any:
    bits = np.float64(x + 0.0).view(np.int64)
    return np.int64(bits ^ np.int64(np.int64(bits >> np.int64(63)) & _POSITIVE))


def _ordered(x: Any) -> Any:
    """Return an integer in the order of the floats, zeros equal, +NaN at the top."""
    return _ordered_single(x) if isinstance(x, np.float32) else _ordered_double(x)


@overload(_ordered, **_LEAF)
def _ordered_typed(x: Any) -> Any:
    return _ordered_single if x == types.float32 else _ordered_double


def _from_ordered_single(i: Any) -> Any:
    bits = np.int32(i ^ np.int32(np.int32(i >> np.int32(31)) & _POSITIVE_SINGLE))
    return bits.view(np.float32)


def _from_ordered_double(i: Any) -> Any:
    bits = np.int64(i ^ np.int64(np.int64(i >> np.int64(63)) & _POSITIVE))
    return bits.view(np.float64)


def _from_ordered(i: Any) -> Any:
    """Return the float of `_ordered`."""
    if isinstance(i, np.int32):
        return _from_ordered_single(i)
    return _from_ordered_double(i)


@overload(_from_ordered, **_LEAF)
def _from_ordered_typed(i: Any) -> Any:
    return _from_ordered_single if i == types.int32 else _from_ordered_double


def new_scratch(dtype: Any) -> tuple[Any, ...]:
    """Return the arrays a kernel works in; allocating there costs time to compile.

    Parameters
    ----------
    dtype : dtype
        float32 or float64, that of the logits.

    Returns
    -------
    tuple of ndarray
        Short rows side by side, what is known of each of them, and a segment of a row
        in double precision.
    """
    return (
        np.empty(LANES * SHORT_ROW, dtype),
        np.empty(LANES * 10, dtype),
        np.empty(_TILE),
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
        float32: 1 / L, the three parts of L = ln 2 / beta, and L. float64: the leading
        26 bits of beta * log2(e), the rest, the whole, 0, and L.
    """
    if np.dtype(dtype) == np.float32:
        unit = _LN2 / beta
        first = _leading_bits(unit, 9)
        second = _leading_bits(unit - first, 9)
        parts = (1.0 / unit, first, second, unit - first - second, unit)
        return tuple(np.float32(part) for part in parts)
    whole = beta * _LOG2E
    leading = _leading_bits(whole, 26)
    # beta * _LOG2E rounds: take the remainder from exact halves of both factors
    beta_top, log_top = _leading_bits(beta, 26), _leading_bits(_LOG2E, 26)
    beta_low, log_low = beta - beta_top, _LOG2E - log_top
    error = (beta_top * log_top - whole) + beta_top * log_low + beta_low * log_top
    error += beta_low * log_low + beta * _LOG2E_LOW
    parts = (leading, (whole - leading) + error, whole, 0.0, 1.0 / whole)
    return tuple(np.float64(part) for part in parts)


def _leading_bits(value: float, n_bits: int) -> float:
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(math.ldexp(mantissa, n_bits)), exponent - n_bits)


# ------------------------------------------------------- what the families share


@njit(**{**_HELPER, "fastmath": {"reassoc", "contract"}})
def _add(total, value):
    """Add to a sum whose terms may be taken in any order."""
    return total + value


@njit(**_HELPER)
def _highest(x, first, n):
    """Return the largest of n elements; a NaN may be it, or is passed over."""
    top = _ordered(x[first])
    for j in range(1, n):
        value = _ordered(x[np.uintp(first + j)])
        top = value if value > top else top
    return _from_ordered(top)


@njit(**_INLINE)
def _sum_exponentials(x, first, n, scale, magic, lowest):
    """Return the sum of exp(x / T) * 2**-E, in double precision."""
    total = 0.0
    for begin in range(first, first + n, _FLUSH):
        part = x.dtype.type(0)
        for j in range(min(_FLUSH, first + n - begin)):
            value = x[np.uintp(begin + j)]
            value = lowest if value < lowest else value
            part = _add(part, _exponential(value, scale, magic))
        total += np.float64(part)
    return total


@njit(**_HELPER)
def _powers(shifted, n):
    """Turn double-precision y <= 0 into 2**y."""
    for j in range(n):
        y = shifted[np.uintp(j)]
        y = _SHIFTED_FLOOR if y < _SHIFTED_FLOOR else y
        biased = y + (_ROUND + _BIAS)
        n_powers = biased - (_ROUND + _BIAS)
        # what would be below the smallest normal number is 0
        bits = np.float64(biased).view(np.int64) << np.int64(52)
        power = np.int64(bits).view(np.float64) if y > -1022.0 else 0.0
        shifted[np.uintp(j)] = _polynomial(y - n_powers) * power


@njit(**_HELPER)
def _load_shifted(x, begin, end, top, rate, shifted):
    """Write 2**((x - top) * rate) of as many elements as `shifted` holds."""
    n = min(end - begin, shifted.size)
    for j in range(n):
        shifted[np.uintp(j)] = (np.float64(x[np.uintp(begin + j)]) - top) * rate
    _powers(shifted, n)
    return n


@njit(**_HELPER)
def _load_lanes(x, first, n_rows, k, scale, tile, lanes):
    """Put rows of few classes side by side, one a lane, and anchor each.

    tile: (k * LANES,); lanes: largest element, its first place, exponent, rounding
    constant and lowest element of each row.
    """
    for r in range(n_rows):
        for j in range(k):
            tile[np.uintp(j * LANES + r)] = x[np.uintp(first + r * k + j)]
    for r in range(n_rows, LANES):
        for j in range(k):
            tile[np.uintp(j * LANES + r)] = 0
    for r in range(LANES):
        lanes[r] = tile[r]
        lanes[LANES + r] = 0
    for j in range(1, k):
        place = tile.dtype.type(j)
        for r in range(LANES):
            value = tile[np.uintp(j * LANES + r)]
            is_up = value > lanes[r]
            # with a zero added, or storing the larger one becomes a masked store
            lanes[r] = (value if is_up else lanes[r]) + _ZERO_SINGLE
            lanes[LANES + r] = (place if is_up else lanes[LANES + r]) + _ZERO_SINGLE
    for r in range(LANES):
        exponent, magic, lowest = _anchor(lanes[r], scale)
        lanes[2 * LANES + r] = exponent
        lanes[3 * LANES + r] = magic
        lanes[4 * LANES + r] = lowest
