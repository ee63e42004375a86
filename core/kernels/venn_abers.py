"""Isotonic regression with one more row, wherever that row may lie."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from numba import njit

from core.kernels.exp import _HELPER, _KERNEL

__all__: list[str] = []


@njit(**_HELPER)
def _turn(x, y, a, b, c):
    """Positive where the way from corner a over b to c turns left."""
    return (x[b] - x[a]) * (y[c] - y[b]) - (y[b] - y[a]) * (x[c] - x[b])


@njit(**_KERNEL)
def _one_more_hit_kernel(mass, hits, x, y, corners, out):
    """Write the isotonic fit at each place with one more row there that is a hit.

    mass, hits: (m,), of distinct scores, ascending; x, y: (m + 2,) and corners (m + 2,)
    of int64 to work in; out: (m,).

    Sums of hits against sums of mass, with the new row in front, make a polygon whose
    greatest convex minorant has the fit as its slopes. Moving the row one place up
    swaps two sides of the polygon, so that every place costs a few steps only. The
    corners of the minorant are a stack, the leftmost on top.
    """
    m = mass.shape[0]
    x[0], y[0], x[1], y[1] = -1.0, -1.0, 0.0, 0.0
    for i in range(m):
        x[i + 2] = x[i + 1] + mass[i]
        y[i + 2] = y[i + 1] + hits[i]
    top = -1
    for place in range(m + 1, -1, -1):
        while top > 0 and _turn(x, y, place, corners[top], corners[top - 1]) <= 0.0:
            top -= 1
        top += 1
        corners[top] = place
    for i in range(m):
        first, second = corners[top], corners[top - 1]
        out[i] = (y[second] - y[first]) / (x[second] - x[first])
        # The sides before and after corner i + 1 change places.
        x[i + 1] = x[i] + x[i + 2] - x[i + 1]
        y[i + 1] = y[i] + y[i + 2] - y[i + 1]
        if _turn(x, y, first, i + 1, second) <= 0.0:
            continue
        top -= 1
        while top > 0 and _turn(x, y, i + 1, corners[top], corners[top - 1]) <= 0.0:
            top -= 1
        top += 1
        corners[top] = i + 1
    return -1
