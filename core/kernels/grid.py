"""Every number of a page at many temperatures, from one trip over the logits.

On betas that are evenly spaced, exp(z (b + t d)) = exp(z b) exp(z d)^t: one more
temperature costs a multiplication instead of an exponential. The product is started
anew every few steps, before its rounding errors count.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import DTypeLike

from core.kernels.exp import (
    _HELPER,
    _KERNEL,
    _LOG2E,
    _anchor,
    _exponential,
    _highest,
    _log_one_plus,
    _vector_at,
)
from core.kernels.shuffles import sums_of_rows
from core.kernels.vectors import (
    add,
    count_equal,
    fma,
    larger,
    load,
    multiply,
    splat,
    store,
    subtract,
    where_equal,
    where_larger,
    width,
)

__all__ = ["EXP_STAMP", "grid_scratch"]

# of what kernels share: a change must reach those that Numba keeps
EXP_STAMP = 1774504357

_BLOCK = 1024  # classes whose sums are kept in single precision
_FAINT = 100.0  # powers of two below the largest class that are left out
_SCALE = 2.0**40  # of the powers, so that their squares are no denormal numbers


def grid_scratch(n_betas: int, dtype: DTypeLike) -> tuple[np.ndarray, ...]:
    """Return the arrays that `_grid_kernel` works in.

    Parameters
    ----------
    n_betas : int
    dtype : dtype
        float32 or float64, that of the logits.

    Returns
    -------
    tuple of ndarray
        Differences from the largest class, sums of each beta in vectors, those of one
        block, and those of a row.
    """
    n_padded = -(-n_betas // 16) * 16
    return (
        np.empty(_BLOCK, dtype),
        np.zeros(2 * n_padded * 16, dtype),
        np.empty(16, dtype),
        np.empty((2, n_padded)),
    )


@njit(**_HELPER)
def _add_run(z, n, n_steps, at, first, ratio, floor, parts):
    """Add the powers of a block at evenly spaced betas to their sums.

    z: logits less the largest, n of them, a multiple of four vectors; first, ratio:
    constants of the lowest beta and of the step; floor: below it a power is 0; parts:
    for each beta from `at` a vector of sums of e, and in the second half of e^2, of
    powers times `_SCALE`.
    """
    zero = z.dtype.type(0)
    step = width(z)
    half = parts.size // 2
    _, magic, lowest = _anchor(zero, first)
    _, magic_ratio, lowest_ratio = _anchor(zero, ratio)
    magics, magics_of = splat(magic), splat(magic_ratio)
    floors, bottom, bottom_of = splat(floor), splat(lowest), splat(lowest_ratio)
    scale = splat(z.dtype.type(_SCALE))
    for j in range(0, n, 4 * step):
        z_0 = load(z, np.uintp(j))
        z_1 = load(z, np.uintp(j + step))
        z_2 = load(z, np.uintp(j + 2 * step))
        z_3 = load(z, np.uintp(j + 3 * step))
        e_0 = _exponential(where_larger(floors, z_0, bottom, z_0), first, magics)
        e_0 = multiply(e_0, scale)
        e_1 = _exponential(where_larger(floors, z_1, bottom, z_1), first, magics)
        e_1 = multiply(e_1, scale)
        e_2 = _exponential(where_larger(floors, z_2, bottom, z_2), first, magics)
        e_2 = multiply(e_2, scale)
        e_3 = _exponential(where_larger(floors, z_3, bottom, z_3), first, magics)
        e_3 = multiply(e_3, scale)
        r_0 = _exponential(larger(bottom_of, z_0), ratio, magics_of)
        r_1 = _exponential(larger(bottom_of, z_1), ratio, magics_of)
        r_2 = _exponential(larger(bottom_of, z_2), ratio, magics_of)
        r_3 = _exponential(larger(bottom_of, z_3), ratio, magics_of)
        for t in range(at, at + n_steps):
            place = np.uintp(t * step)
            a = add(add(e_0, e_1), add(e_2, e_3))
            store(parts, place, add(load(parts, place), a))
            b = fma(e_0, e_0, multiply(e_1, e_1))
            b = add(b, fma(e_2, e_2, multiply(e_3, e_3)))
            place = np.uintp(half + t * step)
            store(parts, place, add(load(parts, place), b))
            e_0, e_1 = multiply(e_0, r_0), multiply(e_1, r_1)
            e_2, e_3 = multiply(e_2, r_2), multiply(e_3, r_3)


@njit(**_HELPER)
def _row_sums(x, first, k, top, runs, scales, scratch):
    """Write, per beta, the sums of e and e^2 below the largest; return its count."""
    z, parts, lanes, sums = scratch
    zero, fill = x.dtype.type(0), x.dtype.type(-np.inf)
    step = width(x)
    half = parts.size // 2
    tops, below = splat(top), splat(fill)
    n_top = 0
    sums[:, :] = 0.0
    for begin in range(first, first + k, _BLOCK):
        n = min(_BLOCK, first + k - begin)
        n_padded = (n + 4 * step - 1) // (4 * step) * (4 * step)
        for j in range(0, n_padded, step):
            given = below
            if j < n:
                given = _vector_at(x, begin + j, n - j, fill)
            n_top += count_equal(given, tops)
            # the largest is put where it is left out
            value = where_equal(given, tops, below, subtract(given, tops))
            store(z, np.uintp(j), value)
        for j in range(parts.size):
            parts[np.uintp(j)] = zero
        at = 0
        for run in range(runs.shape[0]):
            # judged by the largest beta, so that no power becomes denormal
            floor = z.dtype.type(-_FAINT / (runs[run, 1] * _LOG2E))
            n_steps = int(runs[run, 0])
            constants = scales[run]
            given_first = (
                constants[0, 0],
                constants[0, 1],
                constants[0, 2],
                constants[0, 3],
                constants[0, 4],
            )
            given_ratio = (
                constants[1, 0],
                constants[1, 1],
                constants[1, 2],
                constants[1, 3],
                constants[1, 4],
            )
            _add_run(z, n_padded, n_steps, at, given_first, given_ratio, floor, parts)
            at += n_steps
        for kind in range(2):
            unit = 1.0 / _SCALE ** (kind + 1)
            for t in range(0, at, step):
                found = sums_of_rows(parts, np.uintp(kind * half + t * step))
                store(lanes, np.uintp(0), found)
                for lane in range(step):
                    sums[kind, t + lane] += np.float64(lanes[lane]) * unit
    return n_top


@njit(**_KERNEL)
def _grid_kernel(
    x,
    k,
    start,
    stop,
    scratch,
    labels,
    weight,
    runs,
    scales,
    betas,
    inner,
    losses,
    cells,
    kept,
):
    """Add rows start..stop to the sums per temperature; the first bad row, or -1.

    x: flat (n * k,); labels: (n,) int64, all >= 0; weight: (n,), rows with 0 are passed
    over; runs: (r, 2) number
    of evenly spaced betas and the largest of them; scales: (r, 2, 5) reduction
    constants of the first beta and of the step; betas: (m,); inner: (n_bins - 1,)
    edges, which belong to the bin below; losses: (2, m) log loss and Brier score;
    cells: (m, n_bins, 3) weight, weight * confidence, weight of the correct; kept:
    (m + 1, n) confidences, and whether the row is right, or of no rows at all.
    """
    sums = scratch[3]
    n_bins = inner.size + 1
    for row in range(start, stop):
        share = weight[row]
        if share == 0.0:
            continue
        first = row * k
        top = _highest(x, first, k)
        if not abs(top) < np.inf:
            return row
        n_top = _row_sums(x, first, k, top, runs, scales, scratch)
        label = first + labels[row]
        z_label = np.float64(x[label]) - np.float64(top)
        is_correct = z_label == 0.0
        if is_correct:
            for j in range(first, label):
                is_correct = is_correct and x[j] < top
        if kept.size > 0:
            kept[betas.size, row] = 1.0 if is_correct else 0.0
        right = share if is_correct else 0.0
        for t in range(betas.size):
            rest = sums[0, t] + (n_top - 1)
            if not rest < np.inf:
                return row
            confidence = 1.0 / (1.0 + rest)
            loss = _log_one_plus(rest) - betas[t] * z_label
            square = (sums[1, t] + n_top) * confidence * confidence
            chance = math.exp(betas[t] * z_label) * confidence
            losses[0, t] += share * loss
            losses[1, t] += share * (1.0 - 2.0 * chance + square)
            if kept.size > 0:
                kept[t, row] = confidence
            low = min(int(confidence * n_bins), n_bins - 1)
            while low > 0 and confidence <= inner[low - 1]:
                low -= 1
            while low < n_bins - 1 and confidence > inner[low]:
                low += 1
            cells[t, low, 0] += share
            cells[t, low, 1] += share * confidence
            cells[t, low, 2] += right
    return -1
