"""The optimum of a slope and an offset for each class: what several methods fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from core.calibrators.one_vs_rest import effective_rows
from core.kernels.vector import (
    _vector_curvature_kernel,
    _vector_objective_kernel,
    new_tile,
)
from core.messages import Note, Progress
from core.parallel import map_rows

__all__ = ["BiasFit", "SlopeFit", "VectorFit", "falling_note"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_TOLERANCE = 1e-7  # of the gradient in the optimiser's units
_MAX_ITERATIONS = 500
_ROW_BYTES = 64


class Coordinates(NamedTuple):
    """The units in which an optimiser moves: curvatures near 1.

    Parameters
    ----------
    size : int
        Number of variables.
    moved : callable
        From the variables to the steps (2, k) of slopes and offsets.
    pulled : callable
        From the gradient (2, k) in these steps to that in the variables.
    bounds : tuple of float, optional
        Of the first variable.
    """

    size: int
    moved: Callable[[FloatArray], FloatArray]
    pulled: Callable[[FloatArray], FloatArray]
    bounds: tuple[float, float] = (-np.inf, np.inf)


class VectorFit:
    """Minimises mean NLL + ridge in coordinates of similar curvature.

    Parameters
    ----------
    logits : ndarray of shape (n, k)
        float32 or float64; -inf takes no part.
    y : ndarray of int64 of shape (n,)
    weight : ndarray of shape (n,)
        Rows whose label is at -inf must have 0.
    beta : float
        Slope of all classes at the start.
    ridge : float
        Strength in units of k / n.
    """

    words = "Fitting slope and offset of each class"
    held = (1.0, 1.0)  # whether the ridge holds slopes and offsets

    def __init__(
        self,
        logits: FloatArray,
        y: IndexArray,
        weight: FloatArray,
        beta: float,
        ridge: float,
    ) -> None:
        k = logits.shape[1]
        total = weight.sum()
        self.shape, self.itemsize = logits.shape, logits.itemsize
        # Read-only: one specialisation of each kernel.
        self.flat = np.ascontiguousarray(logits).reshape(-1).view()
        self.flat.flags.writeable = False
        self.y = y
        self.weight = weight / total if total > 0 else weight
        self.penalty = 0.0
        if total > 0:
            self.penalty = 2.0 * ridge * k / effective_rows(weight)
        self.beta = beta
        self.start = (np.full(k, beta), np.zeros(k))
        self.is_free = np.bincount(y, weights=weight, minlength=k) > 0
        self.tolerance = _TOLERANCE
        self.n_passes = 0
        self.certificate = 0.0

    def _mapped(self, kernel: Any, n_sums: int, *arguments: Any) -> FloatArray:
        """Run a kernel over all rows; return its sums, added in the order of chunks."""
        n, k = self.shape

        def rows(start: int, stop: int) -> FloatArray:
            sums = np.zeros((n_sums, k))
            with np.errstate(all="ignore"):  # kernels let infinity pass
                kernel(self.flat, k, start, stop, new_tile(k), *arguments, sums)
            return sums

        parts = map_rows(rows, n, self.itemsize * k + _ROW_BYTES)
        total: FloatArray = np.sum(parts, axis=0)
        return total

    def objective(
        self, slope: FloatArray, offset: FloatArray
    ) -> tuple[float, FloatArray]:
        """Return the mean NLL and its gradient of shape (2, k)."""
        losses = np.empty(len(self.y))
        gradient = self._mapped(
            _vector_objective_kernel,
            2,
            *(self.y, self.weight, slope, offset, losses),
        )
        self.n_passes += 1
        return float((self.weight * losses).sum()), gradient

    def loss(self, slope: FloatArray, offset: FloatArray) -> float:
        """Return the mean NLL."""
        return self.objective(slope, offset)[0]

    def curvature(self) -> FloatArray:
        """Return (3, k): second derivatives of each class's own slope and offset.

        Of the slope, mixed, and of the offset, at the start and with the ridge.
        """
        raw = self._mapped(_vector_curvature_kernel, 3, self.weight, *self.start)
        scale = self.beta**2  # the ridge holds T w, not w
        raw[0] += self.held[0] * self.penalty / scale
        raw[2] += self.held[1] * self.penalty
        return raw

    def coordinates(self) -> Coordinates:
        """Return coordinates u with (slope - start, offset) = inv(L).T u.

        L is the Cholesky factor of each class's own 2 x 2 curvature; what classes
        share is left to the optimiser. Classes without rows do not move.
        """
        squares, mixed, masses = self.curvature()[:, self.is_free]
        first = np.sqrt(np.where(squares > 0, squares, 1.0))
        cross = mixed / first
        rest = masses - cross**2
        # Where slope and offset say the same, rounding leaves nothing of the rest.
        rest = np.where(rest > 1e-12 * masses, rest, np.where(masses > 0, masses, 1.0))
        second = np.sqrt(rest)
        n_free = first.size

        def moved(u: FloatArray) -> FloatArray:
            steps = np.zeros((2, self.is_free.size))
            low = u[n_free:] / second
            steps[:, self.is_free] = (u[:n_free] - cross * low) / first, low
            return steps

        def pulled(gradient: FloatArray) -> FloatArray:
            slope, offset = gradient[:, self.is_free]
            top = slope / first
            return np.concatenate([top, (offset - cross * top) / second])

        return Coordinates(2 * n_free, moved, pulled)

    def minimise(self, progress: Progress) -> tuple[FloatArray, FloatArray]:
        """Return slopes and offsets; classes without rows keep the start."""
        if not self.is_free.any():
            return self.start[0].copy(), self.start[1].copy()
        size, moved, pulled, ends = self.coordinates()
        bounds = scipy.optimize.Bounds(
            np.r_[ends[0], np.full(size - 1, -np.inf)],
            np.r_[ends[1], np.full(size - 1, np.inf)],
        )
        units = np.array([[self.beta], [1.0]])
        hold = self.penalty * np.array(self.held)[:, None] / units**2

        def value(u: FloatArray) -> tuple[float, FloatArray]:
            steps = moved(u)
            share = min(0.95, 0.1 + self.n_passes / 60)
            progress(share, self.words)
            loss, gradient = self.objective(self.beta + steps[0], steps[1])
            loss += 0.5 * float((hold * steps**2).sum())
            return loss, pulled(gradient + hold * steps)

        found = scipy.optimize.minimize(
            value,
            np.zeros(size),
            method="L-BFGS-B",
            jac=True,
            bounds=bounds if np.isfinite(ends).any() else None,
            options={
                "gtol": self.tolerance / 2,
                "ftol": 0.0,
                "maxcor": 20,
                "maxiter": _MAX_ITERATIONS,
                "maxfun": 2 * _MAX_ITERATIONS,
            },
        )
        left = found.x - np.clip(found.x - value(found.x)[1], bounds.lb, bounds.ub)
        self.certificate = float(np.abs(left).max())
        steps = moved(found.x)
        return self.beta + steps[0], steps[1]


class SlopeFit(VectorFit):
    """Minimises over the slopes alone: no offsets."""

    words = "Fitting the slope of each class"
    held = (1.0, 0.0)

    def coordinates(self) -> Coordinates:
        """Return coordinates in which each class's own curvature is 1."""
        squares = self.curvature()[0, self.is_free]
        first = np.sqrt(np.where(squares > 0, squares, 1.0))

        def moved(u: FloatArray) -> FloatArray:
            steps = np.zeros((2, self.is_free.size))
            steps[0, self.is_free] = u / first
            return steps

        def pulled(gradient: FloatArray) -> FloatArray:
            return np.asarray(gradient[0, self.is_free] / first)

        return Coordinates(first.size, moved, pulled)


class BiasFit(VectorFit):
    """Minimises over one slope that all classes share, and an offset for each.

    Only offsets are held by the ridge; `slopes` are the least and the greatest slope.
    """

    slopes = (-np.inf, np.inf)

    words = "Fitting the temperature and the offset of each class"
    held = (0.0, 1.0)

    def coordinates(self) -> Coordinates:
        """Return coordinates whose own curvatures are about 1.

        That of the shared slope is the sum over the classes: an upper bound, as what
        classes share is left out.
        """
        squares, _, masses = self.curvature()
        total = squares.sum()
        first = np.sqrt(total if total > 0 else 1.0)
        kept = masses[self.is_free]
        second = np.sqrt(np.where(kept > 0, kept, 1.0))

        def moved(u: FloatArray) -> FloatArray:
            steps = np.zeros((2, self.is_free.size))
            steps[0] = u[0] / first
            steps[1, self.is_free] = u[1:] / second
            return steps

        def pulled(gradient: FloatArray) -> FloatArray:
            low = gradient[1, self.is_free] / second
            return np.concatenate([[gradient[0].sum() / first], low])

        low, high = (first * (slope - self.beta) for slope in self.slopes)
        return Coordinates(1 + second.size, moved, pulled, (low, high))


def falling_note(slopes: FloatArray) -> list[Note]:
    """Return what to say of slopes below 0: one note, or none."""
    n_falling = int((slopes < 0).sum())
    if not n_falling:
        return []
    text = (
        f"{n_falling:,} of {slopes.size:,} classes have a "
        "negative slope: there, a larger logit came with a smaller chance."
    )
    return [Note("falling-curve", "warning", text)]
