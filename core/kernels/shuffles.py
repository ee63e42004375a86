"""Lanes of vectors brought to other lanes: rows reduced, one number a row spread.

Numba's cache on disk does not notice changes here: `exp.source_stamp` has them.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from core.kernels.vectors import (
    _I32,
    VectorType,
    _call,
    _first_lanes,
    _integers,
    _larger,
    _llvm,
    _of,
    _operation,
    _read,
    _shuffled,
    width,
)

__all__ = [
    "largest_of_rows",
    "lower_half",
    "spread",
    "spread_code",
    "sums_of_rows",
    "sums_of_short_rows",
    "upper_half",
]


def _in_pairs(builder: Any, combine: Callable[..., Any], parts: list[Any]) -> Any:
    """Reduce as many vectors as one has lanes, each to one lane.

    Vectors are joined in pairs: each step halves the lanes that are left of a row.
    """
    count = len(parts)
    step = count // 2
    while step:
        low = [
            start + lane
            for start in range(0, 2 * count, 2 * step)
            for lane in range(step)
        ]
        high = [place + step for place in low]
        parts = [
            combine(
                builder,
                _shuffled(builder, first, second, low),
                _shuffled(builder, first, second, high),
            )
            for first, second in zip(parts[::2], parts[1::2], strict=True)
        ]
        step //= 2
    return parts[0]


def _sum(builder: Any, a: Any, b: Any) -> Any:
    return builder.fadd(a, b)


def _of_rows(combine: Callable[..., Any], fallback: Callable[..., Any]) -> Any:
    """Return an operation that reduces as many vectors as one has lanes."""

    def operation(typingctx, x, i):  # noqa: ARG001
        vector = _of(x.dtype)
        count = vector.count

        def make(context, builder, signature, arguments):  # noqa: ARG001
            array, index = arguments
            places = [builder.add(index, index.type(r * count)) for r in range(count)]
            parts = [
                _read(context, builder, x, vector, (array, place)) for place in places
            ]
            return _in_pairs(builder, combine, parts)

        return vector(x, types.uintp), make

    return _operation(fallback)(operation)


def _rows(x, i):
    count = width(x)
    return x[int(i) : int(i) + count * count].reshape(count, count)


largest_of_rows = _of_rows(_larger, lambda x, i: _rows(x, i).max(axis=1))
sums_of_rows = _of_rows(_sum, lambda x, i: _rows(x, i).sum(axis=1))


def _sums_of_short_rows(x, i, k):
    count = width(x)
    rows = np.zeros((count, count), x.dtype)
    rows[:, :k] = x[int(i) : int(i) + count * k].reshape(count, k)
    return rows.sum(axis=1)


@_operation(_sums_of_short_rows)
def sums_of_short_rows(typingctx, x, i, k):  # noqa: ARG001
    """Return the sums of as many rows of k elements as a vector has lanes.

    k is at most the lanes of a vector, of which one is read behind the last row.
    """
    vector = _of(x.dtype)

    def make(context, builder, signature, arguments):  # noqa: ARG001
        array, index, k = arguments
        kind = _llvm(vector)
        mask = _first_lanes(builder, k, kind)
        zeros = ir.Constant(kind, [0.0] * kind.count)
        parts = []
        for _ in range(kind.count):
            row = _read(context, builder, x, vector, (array, index))
            parts.append(builder.select(mask, row, zeros))
            index = builder.add(index, k)
        return _in_pairs(builder, _sum, parts)

    return vector(x, types.uintp, types.intp), make


# ---------------------------------------------------------------- halves, factors


def _half_of(part: int, fallback: Callable[..., Any]) -> Any:
    def operation(typingctx, a):  # noqa: ARG001
        half = VectorType(a.dtype, a.count // 2)
        places = [part * half.count + lane for lane in range(half.count)]

        def make(context, builder, signature, arguments):  # noqa: ARG001
            return _shuffled(builder, arguments[0], arguments[0], places)

        return half(a), make

    return _operation(fallback)(operation)


lower_half = _half_of(0, lambda a: a[: a.size // 2])
upper_half = _half_of(1, lambda a: a[a.size // 2 :])


_FIRST = 2.0**23  # of whole numbers whose last bits count up


@_operation(lambda lane, x: x.dtype.type(_FIRST + lane))
def spread_code(typingctx, lane, x):  # noqa: ARG001
    """Return the code by which `spread` knows a lane, of the type of an array."""

    def make(context, builder, signature, arguments):  # noqa: ARG001
        lane = builder.sitofp(arguments[0], ir.FloatType())
        return builder.fadd(lane, ir.FloatType()(_FIRST))

    return types.float32(types.intp, x), make


@_operation(lambda a, codes: a[(codes - np.float32(_FIRST)).astype(np.intp)])
def spread(typingctx, a, codes):  # noqa: ARG001
    """Return half a vector of single precision: the lanes that its codes name.

    A code is the number whose last bits are that of the lane: the instruction looks at
    no others.
    """

    def make(context, builder, signature, arguments):  # noqa: ARG001
        values, codes = arguments
        numbers = builder.bitcast(codes, _integers(values.type))
        if "+avx2" in context.codegen().magic_tuple()[2]:
            name = "llvm.x86.avx2.permps"
            return _call(builder, name, values.type, [values, numbers])
        found = values
        for lane in range(a.count):
            number = builder.extract_element(numbers, _I32(lane))
            number = builder.and_(number, _I32(a.count - 1))
            one = builder.extract_element(values, number)
            found = builder.insert_element(found, one, _I32(lane))
        return found

    return a(a, codes), make
