"""Softmax and its relatives, and everything a page needs from one trip over logits.

Dispatch; what is given is checked in `core.arguments`, the loops are in `core.kernels`,
the threads in `core.parallel`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from core.arguments import (
    checked_labels,
    checked_logits,
    checked_temperature,
    raise_bad_row,
)
from core.kernels.blocks import _block_kernel
from core.kernels.exp import (
    IS_COMPILED,
    STORED_ROW,
    new_scratch,
    reduction_constants,
    trusted_exponent,
)
from core.kernels.objective import _objective_block_kernel, _objective_kernel
from core.kernels.rows import _statistics_block_kernel, _statistics_kernel
from core.kernels.softmax import _softmax_kernel
from core.kernels.turns import are_over, new_turns
from core.kernels.vectors import VECTOR_BYTES
from core.messages import DataError
from core.parallel import map_rows, take_turns
from core.row_statistics import RowStatistics

__all__ = [
    "Algorithm",
    "TemperatureObjective",
    "log_softmax",
    "logsumexp",
    "row_statistics",
    "softmax",
    "temperature_derivatives",
    "temperature_objective",
    "warm_up",
]

Algorithm = Literal["auto", "two-pass", "three-pass", "three-pass-reload", "online"]
FloatArray = NDArray[np.float32] | NDArray[np.float64]

_ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
_KERNEL_ALGORITHMS = _ALGORITHMS[1:]
_SOFTMAX, _LOG_SOFTMAX, _LOG_SUM_EXP = range(3)
_LOG2E = 1.4426950408889634
# What a row costs beside its classes, in bytes read: less where rows go by the block.
_ROW_BYTES, _BLOCK_ROW_BYTES = 64, 8

# Bytes of a chunk of short rows, which costs no more than a call inside of a kernel.
_TURN_BYTES = 1 << 18
_STREAMED = 1 << 24  # bytes of a result from which it is written past the caches

_own = threading.local()  # arrays that the kernels of a thread work in

_SHORT_ROW = 16  # classes at most that a vector can hold, on any processor
# Classes up to which rows are done in blocks: 0.35 to 0.75 of the time of single
# rows up to 100 classes, 0.9 at 250 and the same from 500 on.
_BLOCK_ROW = 256
_LONG_ROW = 512  # from which the objective's blocks leave the first-level cache
_CAREFUL_ROWS = 256  # done singly where a block has a row that is far below the others
_SINGLE_RANGE = (1e-20, 1e20)  # inverse temperatures whose constants fit float32
_DOUBLE_RANGE = (1e-25, 1e25)  # beyond it, nothing changes but for absurd logits


class TemperatureObjective(NamedTuple):
    """Loss of every row and its derivatives in the inverse temperature.

    Attributes
    ----------
    loss, slope, curvature : ndarray of float64, shape (n_samples,)
        Negative log-likelihood of the label, its first and its second derivative.
    """

    loss: NDArray[np.float64]
    slope: NDArray[np.float64]
    curvature: NDArray[np.float64]


# ------------------------------------------------------------------ dispatch


@functools.lru_cache(maxsize=256)
def _scale(beta: float, dtype: np.dtype[Any]) -> tuple[tuple[Any, ...], float, float]:
    """Return what a kernel needs of a temperature: constants, beta log2(e), beta."""
    low, high = _DOUBLE_RANGE
    beta = min(max(beta, low), high)
    if np.dtype(dtype) == np.float32:
        low, high = _SINGLE_RANGE
    constants = reduction_constants(min(max(beta, low), high), dtype)
    return constants, beta * _LOG2E, beta


def _for_kernel(logits: NDArray[Any], beta: float) -> NDArray[Any]:
    """Return logits in double precision where a temperature is out of range."""
    fits = _SINGLE_RANGE[0] <= beta <= _SINGLE_RANGE[1]
    if fits or logits.dtype == np.float64:
        return logits
    wide = logits.astype(np.float64)
    wide.flags.writeable = False
    return wide


def _run(
    kernel: Callable[..., int],
    logits: NDArray[Any],
    *arguments: Any,
    every: int = 1,
    row_bytes: int = _ROW_BYTES,
    block: tuple[Any, ...] = (),
) -> None:
    """Run a kernel over every so-many-th row, in chunks; raise for a bad one.

    `block` is a kernel of blocks of short rows, with its arguments: it goes as far as
    that is exact, and the kernel of single rows does a few rows in its place.
    """
    n_rows, n_classes = -(-logits.shape[0] // every), logits.shape[1]
    flat = logits.reshape(-1)
    row_bytes += logits.itemsize * n_classes

    def rows(start: int, stop: int) -> int:
        with _quiet():
            given = (flat, n_classes, start, stop, _scratch(logits.dtype))
            return kernel(*given, *arguments)

    if not block:
        raise_bad_row(logits[::every], map_rows(rows, n_rows, row_bytes))
        return
    chunk = max(1, _TURN_BYTES // row_bytes)
    turns, bad_rows = new_turns(), []

    def turn(patience: int) -> bool:
        share, start, stop = (n_rows, chunk, patience), 0, 0
        scratch = _scratch(logits.dtype)
        with _quiet():
            while True:
                given = (flat, n_classes, start, stop, share, turns, scratch)
                start, stop = block[0](*given, *block[1:])
                if start == n_rows:
                    return are_over(turns, n_rows, chunk)
                careful = min(start + _CAREFUL_ROWS, stop)
                bad = rows(start, careful)
                if bad >= 0:
                    bad_rows.append(bad)
                    careful = stop
                start = careful

    take_turns(turn, n_rows * row_bytes)
    raise_bad_row(logits[::every], sorted(bad_rows))


def _quiet() -> AbstractContextManager[Any]:
    """Keep interpreted kernels from warning of NaN, which they let pass."""
    return nullcontext() if IS_COMPILED else np.errstate(all="ignore")


def _scratch(dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """Return the arrays that this thread works in, made once."""
    known: dict[np.dtype[Any], tuple[Any, ...]] = _own.__dict__.setdefault("known", {})
    if dtype not in known:
        known[dtype] = new_scratch(dtype)
    return known[dtype]


def _target(
    out: NDArray[Any] | None, shape: tuple[int, ...], logits: NDArray[Any]
) -> NDArray[Any]:
    """Return the array a kernel writes to: `out` itself if it can be written to."""
    if out is None:
        return np.empty(shape, logits.dtype)
    fits = isinstance(out, np.ndarray) and out.shape == shape
    if not (fits and out.dtype == logits.dtype and out.flags.writeable):
        what = f"out is not a writable array {shape} of {logits.dtype}."
        raise DataError(what, "out", "Give one, or leave it out.")
    is_same = out.ctypes.data == logits.ctypes.data and shape == logits.shape
    overlaps = np.may_share_memory(out, logits) and not is_same
    if not out.flags.c_contiguous or overlaps:
        return np.empty(shape, logits.dtype)
    return out


def _run_softmax(
    logits: ArrayLike,
    temperature: float,
    out: NDArray[Any] | None,
    algorithm: Algorithm,
    kind: int,
) -> NDArray[Any]:
    if algorithm not in _ALGORITHMS:
        what = f"There is no algorithm {algorithm!r}."
        raise DataError(what, "algorithm", f"Use one of {', '.join(_ALGORITHMS)}.")
    checked = checked_logits(logits)
    beta = 1.0 / checked_temperature(temperature)
    n_rows, n_classes = checked.shape
    shape = (n_rows,) if kind == _LOG_SUM_EXP else (n_rows, n_classes)
    target = _target(out, shape, checked)
    array = _for_kernel(checked, beta)
    is_short = n_classes <= (_BLOCK_ROW if algorithm == "auto" else _SHORT_ROW)
    if algorithm == "auto":
        is_kept = kind == _SOFTMAX and n_classes <= STORED_ROW
        algorithm = "three-pass-reload" if is_kept else "two-pass"
    constants, rate, beta = _scale(beta, array.dtype)
    is_matrix = kind != _LOG_SUM_EXP
    is_direct = is_matrix and target.dtype == array.dtype
    result = target if is_direct else np.empty(shape if is_matrix else 0, array.dtype)
    column = np.empty(0 if is_matrix else n_rows)
    lead = -1
    if result.nbytes >= _STREAMED and result.ctypes.data % result.itemsize == 0:
        lead = result.ctypes.data // result.itemsize % (64 // result.itemsize)
    limit = trusted_exponent(array.dtype)
    outputs = (result.reshape(-1), column)
    _run(
        *(_softmax_kernel, array, _KERNEL_ALGORITHMS.index(algorithm), kind),
        *(constants, limit, rate, beta, lead, *outputs),
        row_bytes=_BLOCK_ROW_BYTES if is_short else _ROW_BYTES,
        block=(_block_kernel, kind, constants, limit, beta, *outputs)
        if is_short
        else (),
    )
    values = result if is_matrix else column
    if target is not values:
        with np.errstate(over="ignore"):  # of a logarithm beyond float32: infinite
            target[...] = values
    if out is not None and out is not target:
        out[...] = target
    return target if out is None else out


def softmax(
    logits: ArrayLike,
    *,
    temperature: float = 1.0,
    out: NDArray[Any] | None = None,
    algorithm: Algorithm = "auto",
) -> NDArray[Any]:
    r"""Return the probabilities of every row of logits.

    Parameters
    ----------
    logits : array_like, shape (n_samples, n_classes)
        float32 or float64, any order; other types are taken as float64. ``-inf``
        rules a class out: its probability is exactly 0.
    temperature : float, default=1.0
        Finite and positive; above 1 it makes the probabilities flatter. Values
        beyond 1e-25 and 1e25 count as these.
    out : ndarray or None, default=None
        Where to write the result; same shape and dtype, may be `logits` itself. Its
        contents are unspecified after an error.
    algorithm : {"auto", "two-pass", "three-pass", "three-pass-reload", "online"}
        Same result to rounding; they differ in trips over a row. The default takes
        what was measured as the fastest for the length of a row.

    Returns
    -------
    ndarray, shape (n_samples, n_classes)
        Same dtype as `logits` (or `out`).

    Raises
    ------
    DataError
        For NaN, ``+inf``, a row of only ``-inf`` (naming the first such row, counted
        from 1), a wrong shape, temperature, algorithm or `out`.

    Notes
    -----
    :math:`p_k = \exp(z_k / T) / \sum_j \exp(z_j / T)`, by the Two-Pass algorithm [1]_:
    every exponential is a pair :math:`m \cdot 2^n`, so that no maximum is needed. Rows
    of up to 65,536 classes keep their exponentials in the cache instead.

    References
    ----------
    .. [1] M. Dukhan and A. Ablavatski, "The Two-Pass Softmax Algorithm",
       arXiv 2001.04438 (2020).

    Examples
    --------
    >>> softmax([[0.0, 0.0], [1000.0, -float("inf")]])
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    return _run_softmax(logits, temperature, out, algorithm, _SOFTMAX)


def log_softmax(
    logits: ArrayLike,
    *,
    temperature: float = 1.0,
    out: NDArray[Any] | None = None,
    algorithm: Algorithm = "auto",
) -> NDArray[Any]:
    """Return the log-probabilities of every row of logits.

    Never the logarithm of a rounded probability: z / T minus `logsumexp`.

    Parameters
    ----------
    logits : array_like, shape (n_samples, n_classes)
        As for `softmax`; a class at ``-inf`` stays there.
    temperature : float, default=1.0
        Finite and positive.
    out : ndarray or None, default=None
        As for `softmax`.
    algorithm : {"auto", "two-pass", "three-pass", "three-pass-reload", "online"}
        As for `softmax`.

    Returns
    -------
    ndarray, shape (n_samples, n_classes)
        Same dtype as `logits`, in nats.

    Raises
    ------
    DataError
        As for `softmax`.

    Examples
    --------
    >>> log_softmax([[1000.0, 0.0]])
    array([[    0., -1000.]])
    """
    return _run_softmax(logits, temperature, out, algorithm, _LOG_SOFTMAX)


def logsumexp(
    logits: ArrayLike, *, temperature: float = 1.0, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    r"""Return the logarithm of the sum of exp(logits / temperature) of every row.

    Parameters
    ----------
    logits : array_like, shape (n_samples, n_classes)
        As for `softmax`.
    temperature : float, default=1.0
        Finite and positive.
    out : ndarray or None, default=None
        Where to write the result, shape (n_samples,).

    Returns
    -------
    ndarray, shape (n_samples,)
        Same dtype as `logits`, in nats. (Times -T it is the free energy.)

    Raises
    ------
    DataError
        As for `softmax`.

    Notes
    -----
    :math:`\log \sum_k \exp(z_k / T) = \log M + E \log 2`, where the Two-Pass algorithm
    (arXiv 2001.04438) finds the sum as :math:`M \cdot 2^E` in one trip.

    Examples
    --------
    >>> logsumexp([[1000.0, -float("inf")]])
    array([1000.])
    """
    return _run_softmax(logits, temperature, out, "auto", _LOG_SUM_EXP)


def row_statistics(
    logits: ArrayLike, labels: ArrayLike | None = None, *, temperature: float = 1.0
) -> RowStatistics:
    r"""Return all statistics of every row from one trip over the logits.

    Parameters
    ----------
    logits : array_like, shape (n_samples, n_classes)
        As for `softmax`.
    labels : array_like of int or None, shape (n_samples,), default=None
        Column of the true class; -1 = unlabelled. Without labels the fields
        `correct`, `label_log_probability` and `label_rank` are None.
    temperature : float, default=1.0
        Finite and positive.

    Returns
    -------
    RowStatistics
        float64 and int64 arrays of length n_samples.

    Raises
    ------
    DataError
        As for `softmax`; for labels of a wrong shape, type or range.

    Notes
    -----
    With :math:`d_k = (z_k - \max z) / T`, :math:`e_k = \exp d_k` and
    :math:`S = \sum e_k`: confidence :math:`1/S`, entropy
    :math:`\log S - \sum e_k d_k / S`, squared sum :math:`\sum e_k^2 / S^2`.

    Examples
    --------
    >>> rows = row_statistics([[0.0, 0.0, 1.0]], [0])
    >>> rows.prediction, rows.label_rank, rows.correct
    (array([2]), array([1]), array([False]))
    """
    checked = checked_logits(logits)
    n_rows, n_classes = checked.shape
    beta = 1.0 / checked_temperature(temperature)
    y = np.empty(0, np.int64)
    if labels is not None:
        y = checked_labels(labels, n_rows, n_classes, -1)
    y.flags.writeable = False
    array = _for_kernel(checked, beta)
    constants, rate, beta = _scale(beta, array.dtype)
    integers = np.empty((2, n_rows), np.int64)
    numbers = np.empty((7, n_rows))
    limit = trusted_exponent(array.dtype)
    outputs = (integers, numbers)
    fits_vector = array.itemsize * n_classes <= VECTOR_BYTES
    _run(
        *(_statistics_kernel, array, y, constants, limit, rate, beta, *outputs),
        block=(_statistics_block_kernel, y, constants, limit, beta, *outputs)
        if fits_vector
        else (),
    )
    has_labels = labels is not None
    return RowStatistics(
        prediction=integers[0],
        confidence=numbers[0],
        margin=numbers[1],
        max_logit=numbers[2],
        logsumexp=numbers[3],
        entropy=numbers[4],
        squared_sum=numbers[5],
        correct=integers[0] == y if has_labels else None,
        label_log_probability=numbers[6] if has_labels else None,
        label_rank=integers[1] if has_labels else None,
    )


def temperature_objective(
    logits: ArrayLike, labels: ArrayLike, beta: float
) -> TemperatureObjective:
    r"""Return loss, slope and curvature in beta = 1 / temperature of every row.

    Parameters
    ----------
    logits : array_like, shape (n_samples, n_classes)
        As for `softmax`.
    labels : array_like of int, shape (n_samples,)
        Column of the true class, 0 or more.
    beta : float
        Inverse temperature, finite and not negative.

    Returns
    -------
    TemperatureObjective
        Three float64 arrays of length n_samples.

    Raises
    ------
    DataError
        As for `softmax`; for labels of a wrong shape, type or range; for a `beta` that
        is negative or not finite.

    Notes
    -----
    With z relative to the row maximum and p = softmax(beta z): loss
    :math:`\log \sum_k \exp(\beta z_k) - \beta z_y`, slope
    :math:`\mathrm{E}_p[z] - z_y`, curvature :math:`\mathrm{Var}_p[z]`. Classes at
    ``-inf`` contribute nothing. A label at ``-inf`` makes the loss ``inf`` at every
    beta; slope and curvature are then those of the rest, without the term of the
    label.

    Examples
    --------
    >>> [float(a[0]) for a in temperature_objective([[0.0, 2.0]], [1], 0.0)[1:]]
    [-1.0, 1.0]
    """
    numbers = temperature_derivatives(logits, labels, beta)
    return TemperatureObjective(numbers[0], numbers[1], numbers[2])


def temperature_derivatives(
    logits: ArrayLike, labels: ArrayLike, beta: float, *, every: int = 1
) -> NDArray[np.float64]:
    """Return the loss of every row and its first four derivatives in beta.

    Parameters
    ----------
    logits, labels, beta
        As for `temperature_objective`.
    every : int, default=1
        Only every so-many-th row is looked at; `labels` are those of these rows.

    Returns
    -------
    ndarray of float64, shape (5, n_labels)
        Loss, slope and curvature as there, and the third and fourth cumulant of the
        logits under the probabilities.
    """
    checked = checked_logits(logits)
    n_rows, n_classes = checked.shape
    value = float(beta)
    if not 0 <= value < np.inf:
        what = f"beta is {beta!r}."
        raise DataError(what, "beta", "Use a finite number, 0 or more.")
    n_rows = -(-n_rows // every)
    if every > 1 and n_classes <= _SHORT_ROW:
        checked, every = checked_logits(checked[::every]), 1
    y = checked_labels(labels, n_rows, n_classes, 0)
    value = max(value, _SINGLE_RANGE[0])
    array = _for_kernel(checked, value)
    constants, rate, value = _scale(value, array.dtype)
    numbers = np.empty((5, n_rows))
    limit = trusted_exponent(array.dtype)
    of_rows = (y, every, constants, limit)
    _run(
        *(_objective_kernel, array, *of_rows, rate, value, numbers),
        every=every,
        block=(_objective_block_kernel, *of_rows, value, numbers)
        if n_classes < _LONG_ROW
        else (),
    )
    return numbers


def warm_up(dtypes: Iterable[DTypeLike] = (np.float64, np.float32)) -> None:
    """Compile what the first page needs, or load it from Numba's cache.

    Parameters
    ----------
    dtypes : iterable of dtype, default=(float64, float32)
        Precisions to compile for.

    Notes
    -----
    Another process may be compiling for the same page, which needs the statistics
    first and the rest later: here they come last.
    """
    for dtype in dtypes:
        labels = np.zeros(2, np.int64)
        for n_classes in (3, _LONG_ROW):
            logits = np.zeros((2, n_classes), dtype)
            temperature_objective(logits, labels, 1.0)
            softmax(logits)
            row_statistics(logits, labels)
