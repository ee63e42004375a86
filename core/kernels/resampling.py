"""Resamples side by side: one lane per resample, rows in one trip for all of them.

Weights are (n, b), one row of the file after the other: a row's weights in b
resamples lie together, so that going through rows in any order loads each of them
once for all resamples, and lanes vectorise without reordering a sum.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math

from numba import njit

from core.kernels.exp import _HELPER, _KERNEL

__all__ = ["LANES"]

LANES = 8  # lanes that the sums keep in registers: 64 bytes, a line of the cache
_ROWS = 512  # rows that stay in cache while every column of values meets them


@njit(**_KERNEL)
def _counting_kernel(drawn, counts):
    """Count how often each unit was drawn: (b, n_drawn) -> (b, n_units)."""
    for r in range(drawn.shape[0]):
        for i in range(drawn.shape[1]):
            counts[r, drawn[r, i]] += 1


@njit(**_KERNEL)
def _weights_kernel(counts, start, unit, scale, weights):
    """Write the weights of rows in resamples start to start + b, shape (n, b).

    `unit` holds the unit of each row and `scale` its own weight; empty arrays stand
    for one unit per row and for equal weights.
    """
    n, size = weights.shape
    for i in range(n):
        drawn = unit[i] if unit.size > 0 else i
        if scale.size > 0:
            for r in range(size):
                weights[i, r] = counts[start + r, drawn] * scale[i]
        else:
            for r in range(size):
                weights[i, r] = counts[start + r, drawn]


@njit(**_KERNEL)
def _sums_kernel(weights, values, sums):
    """Write the weighted sums of each column of values, (n, b), (m, n) -> (m, b).

    Rows are added one after the other, so that a sum depends on nothing but its own
    weights and values.
    """
    n, size = weights.shape
    full = size - size % LANES
    sums[:, :] = 0.0
    for first in range(0, n, _ROWS):
        last = min(first + _ROWS, n)
        for j in range(values.shape[0]):
            for r in range(0, full, LANES):
                a, b = sums[j, r], sums[j, r + 1]
                c, d = sums[j, r + 2], sums[j, r + 3]
                e, f = sums[j, r + 4], sums[j, r + 5]
                g, h = sums[j, r + 6], sums[j, r + 7]
                for i in range(first, last):
                    value = values[j, i]
                    a += weights[i, r] * value
                    b += weights[i, r + 1] * value
                    c += weights[i, r + 2] * value
                    d += weights[i, r + 3] * value
                    e += weights[i, r + 4] * value
                    f += weights[i, r + 5] * value
                    g += weights[i, r + 6] * value
                    h += weights[i, r + 7] * value
                sums[j, r], sums[j, r + 1] = a, b
                sums[j, r + 2], sums[j, r + 3] = c, d
                sums[j, r + 4], sums[j, r + 5] = e, f
                sums[j, r + 6], sums[j, r + 7] = g, h
            for r in range(full, size):
                total = sums[j, r]
                for i in range(first, last):
                    total += weights[i, r] * values[j, i]
                sums[j, r] = total


@njit(**_KERNEL)
def _totals_kernel(weights, totals):
    """Write the sum of each resample's weights; return whether all are whole."""
    n, size = weights.shape
    is_whole = True
    totals[:] = 0.0
    for i in range(n):
        for r in range(size):
            weight = weights[i, r]
            totals[r] += weight
            is_whole &= weight == math.floor(weight)
    return is_whole


@njit(**_KERNEL)
def _hits_kernel(uniform, chance, scale, starts, hits):
    """Write the weight of the rows of each bin whose outcome came true, (b, n_bins).

    Rows lie bin by bin; bin j begins at ``starts[j]``. An empty `scale` stands for
    equal weights.
    """
    for r in range(uniform.shape[0]):
        for j in range(starts.size):
            start = starts[j]
            stop = starts[j + 1] if j + 1 < starts.size else chance.size
            drawn = uniform[r, start:stop]
            limit = chance[start:stop]
            if scale.size > 0:
                total = 0.0
                for i in range(drawn.size):
                    total += scale[start + i] if drawn[i] < limit[i] else 0.0
                hits[r, j] = total
            else:
                count = 0
                for i in range(drawn.size):
                    count += drawn[i] < limit[i]
                hits[r, j] = count


@njit(**_HELPER)
def _harmonic(x, table):
    """Return the harmonic number of x, extended to fractions by its digamma form."""
    if table.size > 0:
        return table[int(x)]
    shift = 0.0
    while x < 8.0:
        x += 1.0
        shift += 1.0 / x
    # H(x) = ln x + gamma + 1/(2x) - 1/(12x^2) + 1/(120x^4) - ...; 1e-14 from x = 8 on
    inverse = 1.0 / (x * x)
    series = inverse * (
        1.0 / 12.0
        - inverse
        * (
            1.0 / 120.0
            - inverse * (1.0 / 252.0 - inverse * (1.0 / 240.0 - inverse / 132.0))
        )
    )
    return math.log(x) + 0.5772156649015329 + 0.5 / x - series - shift


@njit(**_KERNEL)
def _ranking_kernel(
    weights, scale, order, outcome, ends, table, work, area, separation
):
    """Write AURC and AUROC of every resample; rows of a tie end at `ends`.

    `weights` is (n, b), each resample's multiplied by its `scale`; `order` sorts rows
    by falling confidence; `outcome` is in that order; `table` holds harmonic numbers
    where all weights are whole; `work` is (6, b).

    A wrong row at place p adds 1/t to the mean of the error rates at each t >= p, so
    that only wrong rows are looked at: with H(0) + ... + H(x - 1) = x H(x) - x, a tie
    of m rows with e errors after c rows adds
    ``e H(n) - e / m ((c + m) H(c + m) - c H(c) - m)``.
    """
    size = weights.shape[1]
    seen, errors, risk, pairs, tied, wrong = work
    for r in range(size):
        seen[r] = 0.0
        errors[r] = 0.0
        risk[r] = 0.0
        pairs[r] = 0.0
    first = 0
    for end in ends:
        if end - first == 1:  # most rows tie with no other, and need no division
            row = order[first]
            if outcome[first] > 0.0:
                for r in range(size):
                    seen[r] += weights[row, r] * scale[r]
            else:
                for r in range(size):
                    weight = weights[row, r] * scale[r]
                    before = seen[r]
                    after = before + weight
                    high = after * _harmonic(after, table)
                    risk[r] += high - before * _harmonic(before, table)
                    pairs[r] += weight * (before - errors[r])
                    errors[r] += weight
                    seen[r] = after
            first = end
            continue
        for r in range(size):
            tied[r] = 0.0
            wrong[r] = 0.0
        for i in range(first, end):
            row = order[i]
            miss = 1.0 - outcome[i]
            for r in range(size):
                weight = weights[row, r] * scale[r]
                tied[r] += weight
                wrong[r] += weight * miss
        for r in range(size):
            if wrong[r] > 0.0:
                before = seen[r]
                after = before + tied[r]
                share = wrong[r] / tied[r]
                high = after * _harmonic(after, table)
                risk[r] += share * (high - before * _harmonic(before, table))
                right = before - errors[r]
                pairs[r] += wrong[r] * (right + 0.5 * (tied[r] - wrong[r]))
                errors[r] += wrong[r]
            seen[r] += tied[r]
        first = end
    for r in range(size):
        # Nothing drawn, or nothing to tell apart: undefined.
        area[r] = math.nan
        separation[r] = math.nan
        if seen[r] > 0.0:
            top = errors[r] * (1.0 + _harmonic(seen[r], table))
            area[r] = (top - risk[r]) / seen[r]
        both = errors[r] * (seen[r] - errors[r])
        if both > 0.0:
            separation[r] = pairs[r] / both
    return -1
