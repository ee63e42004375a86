"""The optimum of a matrix and an offset: what several methods fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from core.calibrators.one_vs_rest import effective_rows
from core.kernels.matrix import _residual_kernel
from core.parallel import CHUNK_BYTES, map_rows

__all__ = ["MatrixFit", "Ridge"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_TOLERANCE = {True: 2e-5, False: 1e-6}  # of the gradient; whether begun in single
_MAX_ITERATIONS = 500
_MEMORY = 20  # steps that the optimiser remembers
_MAX_TRIES = 10  # passes along one line; more lead nowhere in single precision
_CHUNK = 512  # rows of a product at least: fewer cost less than to add their gradient
_BLOCK = 1 << 22  # scores whose gradients are held at once
_SINGLE_FROM = 1 << 16  # scores from which products in single precision begin the fit
_SINGLE_SIZE = 1e3  # inputs up to which they are good for it
_LEAST = 1e-10  # curvature at least, of the largest, where nothing else holds


def _no_use(chunk: slice, x: FloatArray, residual: FloatArray) -> FloatArray:  # noqa: ARG001
    return np.zeros(())


@dataclass(frozen=True, slots=True)
class Ridge:
    """How strongly the parts of the matrix and the offsets are held.

    Parameters
    ----------
    diagonal, off_diagonal, intercept : float
        Factors of the sums of squares of the departures from the start.
    """

    diagonal: float
    off_diagonal: float
    intercept: float

    @classmethod
    def structured(cls, strength: float, n_classes: int, n_rows: float) -> Ridge:
        """Return the ridge of structured matrix scaling, times `strength`.

        K / n for diagonal and offsets, K (K - 1) / n for the others.
        """
        unit = strength * n_classes / n_rows
        return cls(unit, unit * (n_classes - 1), unit)


class MatrixFit:
    r"""Minimises mean NLL of softmax(x W' + b) plus a ridge on W - 1 and b.

    Parameters
    ----------
    inputs : ndarray of shape (n, k)
        x: finite, scaled so that the identity is a good start.
    y : ndarray of int64 of shape (n,)
    weight : ndarray of shape (n,)
        Rows whose label is ruled out must have 0.
    is_ruled_out : ndarray of bool of shape (n, k), optional
        Classes without chances.

    Notes
    -----
    SciPy's L-BFGS-B moves in coordinates in which the curvature is near 1. That of
    the row of a class i is about :math:`M_i = a_i C + R_i`: a_i is the mean of
    p (1 - p), C the second moments of (x, 1), weighted by how undecided a row is, and
    R_i the ridge. With the ridge of the elements off the diagonal everywhere,
    :math:`R^{-1/2} C R^{-1/2}` has eigenvectors that all classes share; that the
    diagonal is held less is a correction of rank one in each row. So a change of
    coordinates is one product with a (k + 1) x (k + 1) matrix.

    The products are left to BLAS, on chunks of rows; a fit of a calibrator keeps it to
    one thread per chunk. Larger fits begin in single
    precision: what is rounded there is only what W - 1 adds to the scores. They
    end in double precision, which certifies the optimum and goes on where it must.
    """

    def __init__(
        self,
        inputs: FloatArray,
        y: IndexArray,
        weight: FloatArray,
        is_ruled_out: NDArray[np.bool_] | None = None,
    ) -> None:
        n, k = inputs.shape
        total = weight.sum()
        is_small = np.abs(inputs).max(initial=0.0) <= _SINGLE_SIZE
        self.is_single = bool(n * k >= _SINGLE_FROM and is_small)
        self.x = np.empty((n, k + 1), np.float32 if self.is_single else np.float64)
        self.x[:, :k], self.x[:, k] = inputs, 1.0
        self.y, self.is_ruled_out = y, is_ruled_out
        self.weight = weight / total if total > 0 else weight
        self.n_rows = effective_rows(weight) if total > 0 else float(n)
        self.is_free = np.bincount(y, weights=weight, minlength=k) > 0
        self.n_passes = 0
        self.certificate, self.tolerance = 0.0, _TOLERANCE[self.is_single]
        self._losses = np.empty(n)
        self._known: _Shape | None = None

    @property
    def start(self) -> FloatArray:
        """The identity, with offsets 0 in the last column; (k, k + 1)."""
        return np.eye(self.is_free.size, self.is_free.size + 1)

    def _residuals(
        self,
        theta: FloatArray,
        use: Callable[[slice, FloatArray, FloatArray], FloatArray] = _no_use,
        *,
        dtype: type[np.floating[Any]] = np.float64,
    ) -> FloatArray:
        """Sum ``use(rows, x, weight * (p - [label]))``; leave the losses of the rows.

        Each thread multiplies and finishes chunks of rows of its own.
        """
        change = np.ascontiguousarray((theta - self.start).T, dtype)
        n, k = len(self.y), len(theta)
        total: FloatArray = np.zeros(())

        def finish(chunk: slice) -> FloatArray:
            x = self.x[chunk].astype(dtype, copy=False)
            scores = x @ change
            if self.is_ruled_out is not None:
                scores[self.is_ruled_out[chunk]] = -np.inf
            labels, weight = self.y[chunk], self.weight[chunk]
            tile, losses = np.empty(k), self._losses[chunk]
            with np.errstate(all="ignore"):  # kernels let infinity pass
                _residual_kernel(scores, x, 0, len(x), labels, weight, tile, losses)
            return use(chunk, x, scores)

        size = max(_BLOCK // k, 1)
        chunk_bytes = max(CHUNK_BYTES, 8 * k * _CHUNK)
        for first in range(0, n, size):

            def rows(start: int, stop: int, first: int = first) -> FloatArray:
                return finish(slice(first + start, first + stop))

            height = min(size, n - first)
            parts = map_rows(rows, height, 8 * k, chunk_bytes=chunk_bytes)
            total = sum(parts, start=total)
        self.n_passes += 1
        return total

    def objective(
        self, theta: FloatArray, *, dtype: type[np.floating[Any]] = np.float64
    ) -> tuple[float, FloatArray]:
        """Return the mean NLL of ``theta = [W | b]`` and its gradient, (k, k + 1)."""

        def use(chunk: slice, x: FloatArray, residual: FloatArray) -> FloatArray:  # noqa: ARG001
            return np.asarray(residual.T @ x)

        gradient = self._residuals(theta, use, dtype=dtype)
        return float(self.weight @ self._losses), gradient

    def loss(self, theta: FloatArray) -> float:
        """Return the mean NLL."""
        return float(self.weight @ self.row_losses(theta))

    def row_losses(self, theta: FloatArray) -> FloatArray:
        """Return the NLL of each row; 0 where it has no weight."""
        self._residuals(theta)
        return self._losses.copy()

    def _moments(self) -> tuple[FloatArray, FloatArray]:
        """Return a (k,) and C (k + 1, k + 1) at the start."""

        def use(chunk: slice, x: FloatArray, residual: FloatArray) -> FloatArray:
            labels, weight = self.y[chunk], self.weight[chunk]
            residual[np.arange(len(labels)), labels] += weight  # weight * p
            with np.errstate(invalid="ignore", divide="ignore"):
                squares = residual * (residual / weight[:, None])
            squares[weight == 0.0] = 0.0
            undecided = np.maximum(weight - squares.sum(axis=1), 0.0)
            a = residual.sum(axis=0) - squares.sum(axis=0)
            return np.vstack([x.T @ (x * undecided[:, None]), np.append(a, 0.0)])

        found = self._residuals(self.start, use)
        kept = np.maximum(found[-1, :-1], 0.0)
        return kept, found[:-1] / (kept.sum() or 1.0)

    def _shape(self, ridge: Ridge) -> _Shape:
        """Return the curvature at the start; ridges of one shape share it."""
        ratio = ridge.intercept / ridge.off_diagonal if ridge.off_diagonal else 1.0
        if self._known is None or abs(self._known.ratio / ratio - 1.0) > 1e-9:
            self._known = _Shape.of(*self._moments(), ratio)
        return self._known

    def minimise(
        self,
        ridge: Ridge,
        progress: Callable[[], None],
        begin: FloatArray | None = None,
    ) -> FloatArray:
        """Return ``[W | b]`` (k, k + 1); classes without rows keep the start.

        Parameters
        ----------
        ridge : Ridge
        progress : callable
            Called before each pass over the rows; may raise `Cancelled`.
        begin : ndarray of shape (k, k + 1), optional
            Where to begin, the start by default; the ridge holds to the start.
        """
        if not self.is_free.any():
            return self.start
        theta = self.start
        units = _Units(self._shape(ridge), ridge, self.is_free)
        factors = units.ridge
        origin = theta[self.is_free]

        def value(u: FloatArray, dtype: Any = np.float64) -> tuple[float, FloatArray]:
            steps = units.moved(u)
            theta[self.is_free] = origin + steps
            progress()
            loss, gradient = self.objective(theta, dtype=dtype)
            held = factors * steps
            loss += float((held * steps).sum())
            return loss, units.pulled(gradient[self.is_free] + 2.0 * held)

        u: FloatArray = np.zeros(origin.size)
        if begin is not None:
            u = units.unmoved(begin[self.is_free] - origin)
        options = {
            "gtol": 0.9 * self.tolerance,
            "ftol": 0.0,
            "maxcor": _MEMORY,
            "maxls": _MAX_TRIES,
            "maxiter": _MAX_ITERATIONS,
            "maxfun": 2 * _MAX_ITERATIONS,
        }
        for dtype in (np.float32, np.float64)[not self.is_single :]:
            found = scipy.optimize.minimize(
                value, u, args=(dtype,), method="L-BFGS-B", jac=True, options=options
            )
            u = found.x
        self.certificate = float(np.abs(found.jac).max())
        theta[self.is_free] = origin + units.moved(u)
        return theta


@dataclass(frozen=True, slots=True, eq=False)
class _Shape:
    """Curvature at the start: a, and C relative to a ridge that holds offsets less.

    `values` and `vectors` are those of C with its last line and column divided by the
    root of `ratio`: the strength of the ridge on offsets over that off the diagonal.
    """

    a: FloatArray
    values: FloatArray
    vectors: FloatArray
    ratio: float
    largest: float

    @classmethod
    def of(cls, a: FloatArray, moments: FloatArray, ratio: float) -> _Shape:
        """Return the shape for second moments and a ratio."""
        scaled = moments.copy()
        scaled[-1] /= np.sqrt(ratio)
        scaled[:, -1] /= np.sqrt(ratio)
        largest = float(a.max(initial=0.0) * np.diag(moments).max())
        values, vectors = scipy.linalg.eigh(scaled)
        return cls(a, values, vectors, ratio, largest)


class _Units:
    """Coordinates u of the rows that move, in which the curvature is near 1."""

    def __init__(self, shape: _Shape, ridge: Ridge, is_free: NDArray[np.bool_]) -> None:
        k = is_free.size
        free = np.flatnonzero(is_free)
        self.ridge = np.full((free.size, k + 1), ridge.off_diagonal)
        self.ridge[np.arange(free.size), free] = ridge.diagonal
        self.ridge[:, k] = ridge.intercept
        # What holds where the ridge is 0, so that it can be divided by.
        least = max(_LEAST * shape.largest, 1e-30)
        held = max(2.0 * ridge.off_diagonal, least)
        root = np.full(k + 1, np.sqrt(held))
        root[k] *= np.sqrt(shape.ratio)
        self.basis = shape.vectors / root[:, None]
        self.back = shape.vectors * root[:, None]
        curved = np.outer(shape.a[free], shape.values / held)
        self.scale = 1.0 / np.sqrt(np.maximum(curved, 0.0) + 1.0)
        # The diagonal is held less: I - less t t' in these coordinates.
        self.turn = self.scale * self.basis[free]
        squares = (self.turn**2).sum(axis=1)
        less = root[0] ** 2 - 2.0 * ridge.diagonal if k > 1 else 0.0
        left = np.sqrt(np.maximum(1.0 - less * squares, 1e-6))
        self.bend = (1.0 / left - 1.0) / squares
        self.unbend = (left - 1.0) / squares

    def _bent(self, u: FloatArray, by: FloatArray) -> FloatArray:
        along = np.einsum("ij,ij->i", u, self.turn)
        return np.asarray(u + (by * along)[:, None] * self.turn)

    def moved(self, u: FloatArray) -> FloatArray:
        """Return steps of the rows of [W | b]."""
        bent = self._bent(u.reshape(self.scale.shape), self.bend)
        return np.asarray((bent * self.scale) @ self.basis.T)

    def pulled(self, gradient: FloatArray) -> FloatArray:
        """Return the gradient in u of a gradient in the steps."""
        return self._bent((gradient @ self.basis) * self.scale, self.bend).ravel()

    def unmoved(self, steps: FloatArray) -> FloatArray:
        """Return u of steps."""
        u = (steps @ self.back) / self.scale
        return self._bent(u, self.unbend).ravel()
