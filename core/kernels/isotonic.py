"""Isotonic regression of many weightings at once: pool adjacent violators."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math

from numba import njit

from core.kernels.exp import _HELPER, _KERNEL

__all__: list[str] = []


@njit(**_HELPER)
def _pool(weight, total, b, mass, mean, ends):
    """Write the blocks of draw b; the number of the last one, -1 if there is none.

    weight: (1 or b, m), 0 where nothing was drawn; total: (b, m) sums of weight times
    outcome; mass, mean: (m,) and ends: (2, m), first and last place of each block.
    """
    row = b if weight.shape[0] > 1 else 0
    top = -1
    for j in range(total.shape[1]):
        w = weight[row, j]
        if w <= 0.0:
            continue
        top += 1
        mass[top] = w
        mean[top] = total[b, j] / w
        ends[0, top] = j
        ends[1, top] = j
        while top > 0 and mean[top - 1] >= mean[top]:
            both = mass[top - 1] + mass[top]
            mean[top - 1] += (mean[top] - mean[top - 1]) * (mass[top] / both)
            mass[top - 1] = both
            ends[1, top - 1] = ends[1, top]
            top -= 1
    return top


@njit(**_KERNEL)
def _isotonic_kernel(x, weight, total, points, start, stop, mass, mean, ends, out):
    """Write the isotonic fits of draws start to stop at `points`.

    x: (m,) rising; points: (p,) rising; out: (b, p); the rest as in `_pool`. Between
    blocks the fit is linear, outside constant.
    """
    for b in range(start, stop):
        top = _pool(weight, total, b, mass, mean, ends)
        block = 0
        for i in range(points.shape[0]):
            if top < 0:
                out[b, i] = math.nan
                continue
            while block < top and x[ends[0, block + 1]] <= points[i]:
                block += 1
            left = x[ends[1, block]]
            out[b, i] = mean[block]
            if block < top and points[i] > left:
                right = x[ends[0, block + 1]]
                share = (points[i] - left) / (right - left)
                out[b, i] += share * (mean[block + 1] - mean[block])
    return -1


@njit(**_KERNEL)
def _isotonic_score_kernel(weight, total, clip, start, stop, mass, mean, ends, out):
    """Write scores of the isotonic fits of draws start to stop on their own rows.

    out: (b, 2), sums of mass times m^2 and of mass times m ln m + (1 - m) ln (1 - m)
    over blocks of mean m, which is kept `clip` away from 0 and 1 in the logarithms.
    """
    for b in range(start, stop):
        top = _pool(weight, total, b, mass, mean, ends)
        square = 0.0
        entropy = 0.0
        for block in range(top + 1):
            m = mean[block]
            square += mass[block] * m * m
            q = min(max(m, clip), 1.0 - clip)
            entropy += mass[block] * (m * math.log(q) + (1.0 - m) * math.log1p(-q))
        out[b, 0] = square
        out[b, 1] = entropy
    return -1
