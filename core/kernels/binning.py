"""Sums over bins of one value per row, in one pass over the rows."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit

from core.kernels.exp import _INLINE, _KERNEL

__all__ = ["BLOCK", "TABLES"]

BLOCK = 1024  # rows whose bins are found before they are added
TABLES = 4  # rows that are added to tables of their own: none waits for the one before


@njit(**_INLINE)
def _find_even(values, begin, n, edges, is_right, place):
    """Write the bins of n rows, of equal widths from 0 to 1."""
    last = np.int32(edges.size - 2)
    size = float(edges.size - 1)
    zero, one = np.int32(0), np.int32(1)
    for i in range(n):
        value = values[np.uintp(begin + i)]
        # where the bin is but for rounding: one step at most from there
        p = np.int32(value * size)
        p = p if p < last else last
        p = p if p > zero else zero
        low, high = edges[np.uintp(p)], edges[np.uintp(p) + np.uintp(1)]
        is_below = value <= low if is_right else value < low
        is_above = value > high if is_right else value >= high
        down = one if is_below and p > zero else zero
        up = one if is_above and p < last else zero
        place[np.uintp(i)] = p - down + up


@njit(**_INLINE)
def _find(values, begin, n, edges, is_right, place):
    """Write the bins of n rows, by halving."""
    for i in range(n):
        value = values[np.uintp(begin + i)]
        low, high = 0, edges.size - 2
        while low < high:
            middle = (low + high) // 2
            edge = edges[middle + 1]
            if edge < value or (edge == value and not is_right):
                low = middle + 1
            else:
                high = middle
        place[np.uintp(i)] = low


@njit(**_KERNEL)
def _bin_kernel(
    values, outcome, weight, edges, is_even, is_right, start, stop, place, sums
):
    """Add rows start to stop to the sums of their bins.

    values, outcome: (n,); weight: (n,), or (0,) for ones; edges: (n_bins + 1,), of
    equal widths from 0 to 1 if `is_even`; is_right: edges belong to the bin below;
    place: (BLOCK,); sums: (TABLES, n_bins, 5) of the count, w value, w outcome, and
    with weights w and w^2.
    """
    for begin in range(start, stop, BLOCK):
        n = min(BLOCK, stop - begin)
        if is_even:
            _find_even(values, begin, n, edges, is_right, place)
        else:
            _find(values, begin, n, edges, is_right, place)
        if weight.size > 0:
            for i in range(n):
                row, bin_ = np.uintp(begin + i), np.uintp(place[np.uintp(i)])
                table = np.uintp(i % TABLES)
                w = weight[row]
                sums[table, bin_, 0] += 1.0
                sums[table, bin_, 1] += w * values[row]
                sums[table, bin_, 2] += w * outcome[row]
                sums[table, bin_, 3] += w
                sums[table, bin_, 4] += w * w
            continue
        for i in range(n):
            row, bin_ = np.uintp(begin + i), np.uintp(place[np.uintp(i)])
            table = np.uintp(i % TABLES)
            sums[table, bin_, 0] += 1.0
            sums[table, bin_, 1] += values[row]
            sums[table, bin_, 2] += outcome[row]
    return -1
