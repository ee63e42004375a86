"""Vectors of numbers in registers: 16 of single precision, or 8 of double.

A loop over a row that LLVM vectorises by itself ends in a remainder, element by
element, which costs rows of 100 classes half of their time, and its fused
multiply-adds are a choice of the compiler. Here both are said: a row is whole vectors
and one masked vector, and `fma` is one rounding. LLVM splits vectors for processors
whose registers are narrower.

Interpreted kernels (``NUMBA_DISABLE_JIT=1``) use the same names on NumPy arrays.
Indices are unsigned: a possibly negative one would be wrapped round.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

__all__ = [
    "VECTOR_BYTES",
    "VectorType",
    "add",
    "count_equal",
    "count_larger",
    "divide",
    "first_equal",
    "first_of",
    "fma",
    "larger",
    "largest_of",
    "load",
    "load_half",
    "load_part",
    "multiply",
    "narrow",
    "power_of_two",
    "prefetch",
    "splat",
    "splat_double",
    "store",
    "store_part",
    "stream",
    "subtract",
    "sum_of",
    "where_equal",
    "where_larger",
    "widen",
    "width",
]

VECTOR_BYTES = 64  # of a vector
_I32 = ir.IntType(32)


class VectorType(types.Type):
    """Numbers of one type in one register, in Numba's terms.

    Parameters
    ----------
    dtype : numba type
        float32 or float64.
    count : int
    """

    def __init__(self, dtype: Any, count: int) -> None:
        self.dtype, self.count = dtype, count
        super().__init__(name=f"Vector({dtype} x {count})")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _llvm(fe_type))


def _llvm(vector: Any) -> Any:
    is_single = vector.dtype == types.float32
    return ir.VectorType(ir.FloatType() if is_single else ir.DoubleType(), vector.count)


def _of(dtype: Any) -> Any:
    """Return the type of a whole vector."""
    return VectorType(dtype, VECTOR_BYTES // (dtype.bitwidth // 8))


def _operation(fallback: Callable[..., Any]) -> Callable[..., Any]:
    """Return a decorator that makes an intrinsic, with a twin in NumPy."""

    def made(definition: Callable[..., Any]) -> Any:
        return fallback if config.DISABLE_JIT else intrinsic(definition)

    return made


def _integers(vector: Any) -> Any:
    bits = 32 if isinstance(vector.element, ir.FloatType) else 64
    return ir.VectorType(ir.IntType(bits), vector.count)


def _call(builder: Any, name: str, result: Any, arguments: Any, **options: Any) -> Any:
    kind = ir.FunctionType(result, [value.type for value in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, arguments, **options)


def _suffix(vector: Any) -> str:
    is_single = isinstance(vector.element, ir.FloatType)
    return f"v{vector.count}f{32 if is_single else 64}"


def _repeated(builder: Any, value: Any, count: int) -> Any:
    vector = ir.VectorType(value.type, count)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(
        one, one, ir.Constant(ir.VectorType(_I32, count), [0] * count)
    )


def _shuffled(builder: Any, first: Any, second: Any, places: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(_I32, len(places)), places)
    return builder.shuffle_vector(first, second, mask)


def _first_lanes(builder: Any, n: Any, kind: Any) -> Any:
    """Return the mask of the lanes below n, of integers as wide as the lanes.

    Others would have to be packed: rows of 100 classes took a third more time.
    """
    integers = _integers(kind)
    n = builder.trunc(n, integers.element) if integers.element.width < 64 else n
    lanes = ir.Constant(integers, list(range(kind.count)))
    return builder.icmp_signed("<", lanes, _repeated(builder, n, kind.count))


def _larger(builder: Any, a: Any, b: Any) -> Any:
    # one instruction, which returns b where one of them is NaN
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _pointer(context: Any, builder: Any, array: Any, value: Any, index: Any) -> Any:
    start = context.make_array(array)(context, builder, value).data
    return builder.gep(start, [index])


def _read(context: Any, builder: Any, x: Any, vector: Any, place: Any) -> Any:
    """Return the vector at (array, index)."""
    start = _pointer(context, builder, x, *place)
    start = builder.bitcast(start, _llvm(vector).as_pointer())
    return builder.load(start, align=x.dtype.bitwidth // 8)


# ------------------------------------------------------------------------ memory


@_operation(lambda x: VECTOR_BYTES // x.itemsize)
def width(typingctx, x):  # noqa: ARG001 - the signature of an intrinsic
    """Return how many elements of an array a vector holds."""
    count = _of(x.dtype).count

    def make(context, builder, signature, arguments):  # noqa: ARG001
        return ir.IntType(64)(count)

    return types.intp(x), make


def _load(x, i):
    return x[int(i) : int(i) + width(x)].copy()


@_operation(_load)
def load(typingctx, x, i):  # noqa: ARG001
    """Return the vector at an index of a flat array."""
    vector = _of(x.dtype)

    def make(context, builder, signature, arguments):  # noqa: ARG001
        return _read(context, builder, x, vector, arguments)

    return vector(x, types.uintp), make


def _load_half(x, i):
    return x[int(i) : int(i) + width(x) // 2].copy()


@_operation(_load_half)
def load_half(typingctx, x, i):  # noqa: ARG001
    """Return half a vector at an index of a flat array."""
    half = VectorType(x.dtype, _of(x.dtype).count // 2)

    def make(context, builder, signature, arguments):  # noqa: ARG001
        return _read(context, builder, x, half, arguments)

    return half(x, types.uintp), make


def _load_part(x, i, n, fill):
    found = np.full(width(x), fill)
    found[:n] = x[int(i) : int(i) + n]
    return found


@_operation(_load_part)
def load_part(typingctx, x, i, n, fill):  # noqa: ARG001
    """Return n elements, and `fill` in the lanes behind them."""
    vector = _of(x.dtype)

    def make(context, builder, signature, arguments):  # noqa: ARG001
        array, index, count, value = arguments
        kind = _llvm(vector)
        place = _pointer(context, builder, x, array, index)
        place = builder.bitcast(place, kind.as_pointer())
        mask = _first_lanes(builder, count, kind)
        other = _repeated(builder, value, vector.count)
        name = f"llvm.masked.load.{_suffix(kind)}.p0"
        given = [place, _I32(x.dtype.bitwidth // 8), mask, other]
        return _call(builder, name, kind, given)

    return vector(x, types.uintp, types.intp, x.dtype), make


def _store(x, i, value):
    x[int(i) : int(i) + value.size] = value


@_operation(_store)
def store(typingctx, x, i, value):  # noqa: ARG001
    """Write a vector at an index of a flat array."""

    def make(context, builder, signature, arguments):  # noqa: ARG001
        array, index, given = arguments
        place = _pointer(context, builder, x, array, index)
        place = builder.bitcast(place, given.type.as_pointer())
        builder.store(given, place, align=x.dtype.bitwidth // 8)

    return types.void(x, types.uintp, value), make


@_operation(_store)
def stream(typingctx, x, i, value):  # noqa: ARG001
    """Write a vector past the caches; its address is a multiple of its size."""

    def make(context, builder, signature, arguments):  # noqa: ARG001
        array, index, given = arguments
        place = _pointer(context, builder, x, array, index)
        place = builder.bitcast(place, given.type.as_pointer())
        written = builder.store(given, place, align=VECTOR_BYTES)
        note = builder.module.add_metadata([_I32(1)])
        written.set_metadata("nontemporal", note)

    return types.void(x, types.uintp, value), make


@_operation(lambda *_: None)
def prefetch(typingctx, x, i):  # noqa: ARG001
    """Ask for the line of the cache at an index, which may lie behind the array."""

    def make(context, builder, signature, arguments):  # noqa: ARG001
        place = _pointer(context, builder, x, *arguments)
        place = builder.bitcast(place, ir.IntType(8).as_pointer())
        given = [place, _I32(0), _I32(2), _I32(1)]  # to read, to keep, data
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), given)

    return types.void(x, types.uintp), make


def _store_part(x, i, n, value):
    x[int(i) : int(i) + n] = value[:n]


@_operation(_store_part)
def store_part(typingctx, x, i, n, value):  # noqa: ARG001
    """Write the first n lanes of a vector."""

    def make(context, builder, signature, arguments):  # noqa: ARG001
        array, index, count, given = arguments
        place = _pointer(context, builder, x, array, index)
        place = builder.bitcast(place, given.type.as_pointer())
        mask = _first_lanes(builder, count, given.type)
        name = f"llvm.masked.store.{_suffix(given.type)}.p0"
        parts = [given, place, _I32(x.dtype.bitwidth // 8), mask]
        _call(builder, name, ir.VoidType(), parts)

    return types.void(x, types.uintp, types.intp, value), make


# -------------------------------------------------------------------- arithmetic


@_operation(lambda s: np.full(VECTOR_BYTES // np.asarray(s).itemsize, s))
def splat(typingctx, s):  # noqa: ARG001
    """Return a number in every lane."""
    vector = _of(s)

    def make(context, builder, signature, arguments):  # noqa: ARG001
        return _repeated(builder, arguments[0], vector.count)

    return vector(s), make


@_operation(lambda s, a: np.full(a.size, s))
def splat_double(typingctx, s, a):  # noqa: ARG001
    """Return a double in as many lanes as a vector has."""
    vector = VectorType(types.float64, a.count)

    def make(context, builder, signature, arguments):  # noqa: ARG001
        return _repeated(builder, arguments[0], a.count)

    return vector(types.float64, a), make


def _lane_by_lane(name: str, fallback: Callable[..., Any]) -> Any:
    def operation(typingctx, a, b):  # noqa: ARG001
        def make(context, builder, signature, arguments):  # noqa: ARG001
            return getattr(builder, name)(*arguments)

        return a(a, b), make

    return _operation(fallback)(operation)


add = _lane_by_lane("fadd", np.add)
subtract = _lane_by_lane("fsub", np.subtract)
multiply = _lane_by_lane("fmul", np.multiply)
divide = _lane_by_lane("fdiv", np.divide)


@_operation(lambda a, b: np.where(a > b, a, b))
def larger(typingctx, a, b):  # noqa: ARG001
    """Return the larger of each lane, and b where one of them is NaN."""

    def make(context, builder, signature, arguments):  # noqa: ARG001
        return _larger(builder, *arguments)

    return a(a, b), make


def _halves(a):
    leading = (a * 134217729.0) - (a * 134217729.0 - a)  # 26 bits
    return leading, a - leading


def _fma(a, b, c):
    if a.dtype == np.float32:
        return (np.float64(a) * b + c).astype(np.float32)
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    lost = a_high * b_high - product + a_high * b_low + a_low * b_high
    lost += a_low * b_low
    total = product + c
    part = total - product
    lost += (product - (total - part)) + (c - part)
    return np.where(np.isfinite(total), total + lost, total)


@_operation(_fma)
def fma(typingctx, a, b, c):  # noqa: ARG001
    """Return a * b + c, rounded once."""

    def make(context, builder, signature, arguments):  # noqa: ARG001
        kind = arguments[0].type
        return _call(builder, f"llvm.fma.{_suffix(kind)}", kind, list(arguments))

    return a(a, b, c), make


def _power_of_two(y):
    is_single = y.dtype == np.float32
    kind, places = (np.int32, 23) if is_single else (np.int64, 52)
    return (y.view(kind) << kind(places)).view(y.dtype)


@_operation(_power_of_two)
def power_of_two(typingctx, y):  # noqa: ARG001
    """Return the float whose exponent is in the last bits of each lane."""

    def make(context, builder, signature, arguments):  # noqa: ARG001
        kind = arguments[0].type
        integers = _integers(kind)
        n = 23 if y.dtype == types.float32 else 52
        places = ir.Constant(integers, [n] * y.count)
        bits = builder.shl(builder.bitcast(arguments[0], integers), places)
        return builder.bitcast(bits, kind)

    return y(y), make


@_operation(lambda a: a.astype(np.float64))
def widen(typingctx, a):  # noqa: ARG001
    """Return the same numbers in double precision."""
    wide = VectorType(types.float64, a.count)

    def make(context, builder, signature, arguments):  # noqa: ARG001
        if a.dtype == types.float64:
            return arguments[0]
        return builder.fpext(arguments[0], _llvm(wide))

    return wide(a), make


@_operation(lambda a, x: a.astype(x.dtype))
def narrow(typingctx, a, x):  # noqa: ARG001
    """Return numbers in double precision in the type of an array."""
    vector = VectorType(x.dtype, a.count)

    def make(context, builder, signature, arguments):  # noqa: ARG001
        if x.dtype == types.float64:
            return arguments[0]
        return builder.fptrunc(arguments[0], _llvm(vector))

    return vector(a, x), make


# ------------------------------------------------------------------- comparisons


def _choosing(sign: str, fallback: Callable[..., Any]) -> Any:
    def operation(typingctx, a, b, x, y):  # noqa: ARG001
        def make(context, builder, signature, arguments):  # noqa: ARG001
            a, b, x, y = arguments
            return builder.select(builder.fcmp_ordered(sign, a, b), x, y)

        return x(a, b, x, y), make

    return _operation(fallback)(operation)


# x in the lanes in which a equals b, or is larger, else y
where_equal = _choosing("==", lambda a, b, x, y: np.where(a == b, x, y))
where_larger = _choosing(">", lambda a, b, x, y: np.where(a > b, x, y))


def _lanes_where(builder: Any, sign: str, a: Any, b: Any) -> Any:
    mask = builder.fcmp_ordered(sign, a, b)
    bits = builder.bitcast(mask, ir.IntType(a.type.count))
    return builder.zext(bits, ir.IntType(64))


def _counting(sign: str, fallback: Callable[..., Any]) -> Any:
    def operation(typingctx, a, b):  # noqa: ARG001
        def make(context, builder, signature, arguments):  # noqa: ARG001
            return builder.ctpop(_lanes_where(builder, sign, *arguments))

        return types.int64(a, b), make

    return _operation(fallback)(operation)


count_equal = _counting("==", lambda a, b: int((a == b).sum()))
count_larger = _counting(">", lambda a, b: int((a > b).sum()))


@_operation(lambda a, b: int(np.argmax(a == b)))
def first_equal(typingctx, a, b):  # noqa: ARG001
    """Return the first lane in which a equals b, which there is."""

    def make(context, builder, signature, arguments):  # noqa: ARG001
        bits = _lanes_where(builder, "==", *arguments)
        return builder.cttz(bits, ir.IntType(1)(0))

    return types.int64(a, b), make


# -------------------------------------------------------------------- reductions


@_operation(lambda a: np.float64(a.sum(dtype=np.float64)))
def sum_of(typingctx, a):  # noqa: ARG001
    """Return the sum of the lanes, in double precision."""

    def make(context, builder, signature, arguments):  # noqa: ARG001
        value = arguments[0]
        wide = ir.VectorType(ir.DoubleType(), a.count)
        if a.dtype != types.float64:
            value = builder.fpext(value, wide)
        zero = ir.DoubleType()(0.0)
        name = f"llvm.vector.reduce.fadd.{_suffix(wide)}"
        given = [zero, value]
        return _call(builder, name, zero.type, given, fastmath=("reassoc",))

    return types.float64(a), make


@_operation(lambda a: a[0])
def first_of(typingctx, a):  # noqa: ARG001
    """Return the first lane."""

    def make(context, builder, signature, arguments):  # noqa: ARG001
        return builder.extract_element(arguments[0], _I32(0))

    return a.dtype(a), make


@_operation(lambda a: a.max())
def largest_of(typingctx, a):  # noqa: ARG001
    """Return the largest lane; NaN lanes may be passed over."""

    def make(context, builder, signature, arguments):  # noqa: ARG001
        value, step = arguments[0], a.count // 2
        while step:
            places = [(lane + step) % a.count for lane in range(a.count)]
            value = _larger(builder, value, _shuffled(builder, value, value, places))
            step //= 2
        return builder.extract_element(value, _I32(0))

    return a.dtype(a), make
