"""Sums over bins of the probability of every class, in one pass over the rows."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from numba import njit

from core.kernels.exp import _KERNEL

__all__: list[str] = []


@njit(**_KERNEL)
def _class_cells_kernel(p, labels, share, inner, start, stop, index, sums):
    """Write the bins of rows start to stop and add to the sums of cells.

    p: (n, k) probabilities; labels: (n,); share: (n,) weights; inner: (k, n_bins - 1)
    inner edges, infinite where a class has fewer; index: (n, k) bins, edges belong to
    the bin below; sums: (k, n_bins, 8), a line of the cache a cell, of s, s p, s^2,
    s^2 p (1 - p), s r, s^2 r, s^2 r^2 and the count, with s the share and r the
    probability minus the outcome.
    """
    n_inner = inner.shape[1]
    for i in range(start, stop):
        s = share[i]
        square = s * s
        for j in range(p.shape[1]):
            value = p[i, j]
            low = 0
            high = n_inner
            if n_inner > 0 and value <= inner[j, 0]:
                high = 0
            while low < high:
                middle = (low + high) // 2
                if inner[j, middle] < value:
                    low = middle + 1
                else:
                    high = middle
            index[i, j] = low
            r = value - (1.0 if labels[i] == j else 0.0)
            sums[j, low, 0] += s
            sums[j, low, 1] += s * value
            sums[j, low, 2] += square
            sums[j, low, 3] += square * value * (1.0 - value)
            sums[j, low, 4] += s * r
            sums[j, low, 5] += square * r
            sums[j, low, 6] += square * r * r
            sums[j, low, 7] += 1.0 if s > 0.0 else 0.0
    return -1
