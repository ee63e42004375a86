"""Logistic curves with up to two inputs: loss, derivatives, and Newton's method."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from core.kernels.exp import _HELPER, _KERNEL, _LOG2E, _powers

__all__ = ["EXP_STAMP", "new_work"]

# of what kernels share: a change must reach those that Numba keeps
EXP_STAMP = 1774504357

_BLOCK = 512  # rows whose exponentials are in the first-level cache


def new_work() -> tuple[NDArray[np.float64], ...]:
    """Return the arrays that Newton's method works in: of rows, and of points."""
    return np.empty((2, _BLOCK)), np.empty((6, 3))


@njit(**_KERNEL)
def _logistic_loss_kernel(inputs, target, weight, point):
    """Return the sum of weight * log loss.

    inputs: (2, n); target, weight: (n,); point: (3,), two slopes and the intercept.
    """
    total = 0.0
    for i in range(target.shape[0]):
        score = point[0] * inputs[0, i] + point[1] * inputs[1, i] + point[2]
        tail = math.log1p(math.exp(-abs(score)))
        total += weight[i] * (max(score, 0.0) + tail - target[i] * score)
    return total


@njit(**{**_HELPER, "fastmath": {"reassoc", "contract"}})
def _add_rows(u, v, target, weight, score, tail, first, n, slope, curvature):
    """Add the derivatives of n rows; their order does not matter.

    score, tail: (n,), of these rows, and 2**(-|score| log2(e)).
    """
    g0 = g1 = g2 = h00 = h01 = h02 = h11 = h12 = h22 = 0.0
    for j in range(n):
        i = np.uintp(first + j)
        low = tail[np.uintp(j)] / (1.0 + tail[np.uintp(j)])
        chance = 1.0 - low if score[np.uintp(j)] > 0.0 else low
        residual = weight[i] * (chance - target[i])
        g0 += residual * u[i]
        g1 += residual * v[i]
        g2 += residual
        spread = weight[i] * (low * (1.0 - low))
        at_u, at_v = spread * u[i], spread * v[i]
        h00 += at_u * u[i]
        h01 += at_u * v[i]
        h02 += at_u
        h11 += at_v * v[i]
        h12 += at_v
        h22 += spread
    slope[0] += g0
    slope[1] += g1
    slope[2] += g2
    curvature[0, 0] += h00
    curvature[1, 0] += h01
    curvature[2, 0] += h02
    curvature[1, 1] += h11
    curvature[2, 1] += h12
    curvature[2, 2] += h22


@njit(**_KERNEL)
def _logistic_kernel(inputs, target, weight, ridge, point, work, slope, curvature):
    """Write gradient (3,) and Hessian (3, 3), with ridge / 2 |point|^2; return -1.

    work: (2, block) to work in. Of the Hessian, the lower triangle is written.
    """
    u, v, score, tail = inputs[0], inputs[1], work[0], work[1]
    for j in range(3):
        slope[j] = ridge * point[j]
        for row in range(3):
            curvature[row, j] = ridge if row == j else 0.0
    block = tail.shape[0]
    for first in range(0, target.shape[0], block):
        n = min(block, target.shape[0] - first)
        for j in range(n):
            i = np.uintp(first + j)
            score[np.uintp(j)] = point[0] * u[i] + point[1] * v[i] + point[2]
            tail[np.uintp(j)] = -abs(score[np.uintp(j)]) * _LOG2E
        _powers(tail, n)
        _add_rows(u, v, target, weight, score, tail, first, n, slope, curvature)
    return -1


@njit(**_HELPER)
def _solve(curvature, slope, step):
    """Write curvature^-1 slope, by the square root of a positive matrix of 3 x 3.

    Return whether there is one: pivots of rounding noise are no numbers to divide by.
    """
    d0 = curvature[0, 0]
    if not d0 > 0.0:
        return False
    l1, l2 = curvature[1, 0] / d0, curvature[2, 0] / d0
    d1 = curvature[1, 1] - l1 * curvature[1, 0]
    if not d1 > 0.0:
        return False
    l3 = (curvature[2, 1] - l1 * curvature[2, 0]) / d1
    d2 = curvature[2, 2] - l2 * curvature[2, 0] - l3 * l3 * d1
    if not d2 > 0.0:
        return False
    y1 = slope[1] - l1 * slope[0]
    y2 = slope[2] - l2 * slope[0] - l3 * y1
    step[2] = y2 / d2
    step[1] = y1 / d1 - l3 * step[2]
    step[0] = slope[0] / d0 - l1 * step[1] - l2 * step[2]
    return True


@njit(**_KERNEL)
def _newton_kernel(
    inputs, target, weight, ridge, aim, max_steps, max_halvings, work, steps, point
):
    """Move `point` to where steps no longer shrink the gradient; return its size.

    work: as above; steps: (6, 3), a trial point, a step, a gradient, and a Hessian.
    """
    trial, step, slope, curvature = steps[0], steps[1], steps[2], steps[3:]
    _logistic_kernel(inputs, target, weight, ridge, point, work, slope, curvature)
    size = math.sqrt(slope[0] ** 2 + slope[1] ** 2 + slope[2] ** 2)
    for _ in range(max_steps):
        if size <= aim or not _solve(curvature, slope, step):
            return size
        smaller, part = size, 1.0
        for _ in range(max_halvings):
            for j in range(3):
                trial[j] = point[j] - part * step[j]
            _logistic_kernel(
                inputs, target, weight, ridge, trial, work, slope, curvature
            )
            smaller = math.sqrt(slope[0] ** 2 + slope[1] ** 2 + slope[2] ** 2)
            if smaller < size:
                break
            part *= 0.5
        if not smaller < size:
            return size
        size = smaller
        for j in range(3):
            point[j] = trial[j]
    return size
