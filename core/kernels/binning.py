"""Sums over bins of one value per row, in one pass over the rows."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import numpy as np
from numba import njit

from core.kernels.exp import _INLINE, _KERNEL, _ROUND

__all__ = ["BLOCK", "TABLES"]

BLOCK = 1024  # rows whose bins are found before they are added
TABLES = 4  # rows that are added to tables of their own: none waits for the one before


@njit(**_INLINE)
def _find_even(values, begin, n, n_bins, is_right, place):
    """Write the bins of n rows; edge i is i / n_bins as `numpy.linspace` rounds it.

    Only the nearest edge can be the one that a value is on, or next to.
    """
    size = float(n_bins)
    unit, last = 1.0 / size, size - 1.0
    for i in range(n):
        value = values[np.uintp(begin + i)]
        near = (value * size + _ROUND) - _ROUND
        edge = near * unit
        is_below = value <= edge if is_right else value < edge
        p = near - 1.0 if is_below else near
        p = p if p < last else last
        place[np.uintp(i)] = np.int32(p if p > 0.0 else 0.0)


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


@njit(**_INLINE)
def _find_cells(outcome, begin, n, place, cell):
    """Write twice the bin, plus the outcome; return how many are not 0 or 1."""
    n_others = 0
    for i in range(n):
        value = outcome[np.uintp(begin + i)]
        is_one = value == 1.0
        n_others += value != 0.0 and not is_one
        cell[np.uintp(i)] = np.int32(2) * place[np.uintp(i)] + np.int32(is_one)
    return n_others


@njit(**_INLINE)
def _add_cells(values, begin, n, cell, tally, total):
    """Count n rows and add their values by cell, in each of four tables in turn."""
    whole = n - n % 4
    for i in range(0, whole, 4):
        a, b = np.uintp(cell[np.uintp(i)]), np.uintp(cell[np.uintp(i + 1)])
        c, d = np.uintp(cell[np.uintp(i + 2)]), np.uintp(cell[np.uintp(i + 3)])
        tally[0, a] += 1
        tally[1, b] += 1
        tally[2, c] += 1
        tally[3, d] += 1
        total[0, a] += values[np.uintp(begin + i)]
        total[1, b] += values[np.uintp(begin + i + 1)]
        total[2, c] += values[np.uintp(begin + i + 2)]
        total[3, d] += values[np.uintp(begin + i + 3)]
    for i in range(whole, n):
        tally[0, np.uintp(cell[np.uintp(i)])] += 1
        total[0, np.uintp(cell[np.uintp(i)])] += values[np.uintp(begin + i)]


@njit(**_KERNEL)
def _bin_kernel(
    values,
    outcome,
    weight,
    edges,
    is_even,
    is_right,
    start,
    stop,
    work,
    sums,
    tally,
    total,
):
    """Add rows start to stop to the sums of their bins.

    values, outcome: (n,); weight: (n,), or (0,) for ones; edges: (n_bins + 1,), those
    of `numpy.linspace` from 0 to 1 if `is_even`; is_right: edges belong to the bin
    below; work: (2, BLOCK); sums: (TABLES, n_bins, 5) of the count, w value, w outcome,
    and with weights w and w^2; tally, total: (TABLES, 2 n_bins), zeros, of counts and
    values by bin and outcome, which spares a third of the additions.
    """
    place, cell = work[0], work[1]
    n_bins = edges.size - 1
    for begin in range(start, stop, BLOCK):
        n = min(BLOCK, stop - begin)
        if is_even:
            _find_even(values, begin, n, n_bins, is_right, place)
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
        elif _find_cells(outcome, begin, n, place, cell) == 0:
            _add_cells(values, begin, n, cell, tally, total)
        else:
            for i in range(n):
                row, bin_ = np.uintp(begin + i), np.uintp(place[np.uintp(i)])
                table = np.uintp(i % TABLES)
                sums[table, bin_, 0] += 1.0
                sums[table, bin_, 1] += values[row]
                sums[table, bin_, 2] += outcome[row]
    for number in range(TABLES):
        for at in range(2 * n_bins):
            count = float(tally[number, at])
            sums[number, at // 2, 0] += count
            sums[number, at // 2, 1] += total[number, at]
            sums[number, at // 2, 2] += count * (at % 2)
    return -1
