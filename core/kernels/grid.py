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

from core.kernels.exp import (
    _HELPER,
    _KERNEL,
    _LOG2E,
    _add,
    _anchor,
    _exponential,
    _highest,
)

__all__ = ["EXP_STAMP", "GRID_BLOCK"]

# of exp.py: a change of it must reach the kernels that Numba keeps for this file
EXP_STAMP = 852983434

GRID_BLOCK = 1024  # classes that are multiplied together, all in cache
_FAINT = 100.0  # powers of two below the largest class that are left out


@njit(**_HELPER)
def _powers_of(z, n, constants, floor, out):
    """Write exp(z * beta), z <= 0, with the beta of `constants`; 0 below `floor`."""
    zero = z.dtype.type(0)
    scale = constants[0], constants[1], constants[2], constants[3], constants[4]
    _, magic, lowest = _anchor(zero, scale)
    for j in range(n):
        given = z[np.uintp(j)]
        value = lowest if given < lowest else given
        e = _exponential(value, scale, magic)
        out[np.uintp(j)] = zero if given < floor else e


@njit(**_HELPER)
def _add_powers(e, ratio, n, is_first):
    """Multiply e by its ratio, unless it is the first step; return the two sums."""
    a = b = e.dtype.type(0)
    if is_first:
        for j in range(n):
            value = e[np.uintp(j)]
            a = _add(a, value)
            b = _add(b, value * value)
        return np.float64(a), np.float64(b)
    for j in range(n):
        value = e[np.uintp(j)] * ratio[np.uintp(j)]
        e[np.uintp(j)] = value
        a = _add(a, value)
        b = _add(b, value * value)
    return np.float64(a), np.float64(b)


@njit(**_HELPER)
def _row_sums(x, first, k, top, runs, scales, z, e, ratio, sums):
    """Write, per beta, the sums of e and e^2 below the largest; return its count."""
    n_top = 0
    sums[:, :] = 0.0
    for begin in range(first, first + k, GRID_BLOCK):
        n = min(GRID_BLOCK, first + k - begin)
        n_equal = np.int32(0)
        for j in range(n):
            value = x[np.uintp(begin + j)]
            is_top = value == top
            n_equal = np.int32(n_equal + (np.int32(1) if is_top else np.int32(0)))
            # the largest is put where it is left out
            z[np.uintp(j)] = z.dtype.type(-np.inf) if is_top else value - top
        n_top += int(n_equal)
        at = 0
        for run in range(runs.shape[0]):
            # judged by the largest beta, so that no power becomes denormal
            floor = z.dtype.type(-_FAINT / (runs[run, 1] * _LOG2E))
            _powers_of(z, n, scales[run, 0], floor, e)
            _powers_of(z, n, scales[run, 1], floor, ratio)
            for step in range(int(runs[run, 0])):
                a, b = _add_powers(e, ratio, n, step == 0)
                sums[0, at] += a
                sums[1, at] += b
                at += 1
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
    cells: (3, m, n_bins) weight, weight * confidence, weight of the correct; kept:
    (m + 1, n) confidences, and whether the row is right, or of no rows at all.
    """
    z, e, ratio, sums = scratch
    n_bins = inner.size + 1
    for row in range(start, stop):
        share = weight[row]
        if share == 0.0:
            continue
        first = row * k
        top = _highest(x, first, k)
        if not abs(top) < np.inf:
            return row
        n_top = _row_sums(x, first, k, top, runs, scales, z, e, ratio, sums)
        label = first + labels[row]
        z_label = np.float64(x[label]) - np.float64(top)
        is_correct = z_label == 0.0
        if is_correct:
            for j in range(first, label):
                is_correct = is_correct and x[j] < top
        if kept.size > 0:
            kept[betas.size, row] = 1.0 if is_correct else 0.0
        for t in range(betas.size):
            rest = sums[0, t] + (n_top - 1)
            if not rest < np.inf:
                return row
            confidence = 1.0 / (1.0 + rest)
            loss = math.log1p(rest) - betas[t] * z_label
            square = (sums[1, t] + n_top) * confidence * confidence
            losses[0, t] += share * loss
            losses[1, t] += share * (1.0 - 2.0 * math.exp(-loss) + square)
            if kept.size > 0:
                kept[t, row] = confidence
            low = min(int(confidence * n_bins), n_bins - 1)
            while low > 0 and confidence <= inner[low - 1]:
                low -= 1
            while low < n_bins - 1 and confidence > inner[low]:
                low += 1
            cells[0, t, low] += share
            cells[1, t, low] += share * confidence
            cells[2, t, low] += share if is_correct else 0.0
    return -1
