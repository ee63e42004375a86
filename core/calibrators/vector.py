"""Vector scaling: a slope and an offset for the logit of each class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from core.calibrators.base import CALIBRATORS, Calibrator
from core.calibrators.one_vs_rest import effective_rows
from core.calibrators.scaling import TemperatureScaling
from core.kernels.vector import (
    _vector_curvature_kernel,
    _vector_objective_kernel,
    new_tile,
)
from core.messages import Note, Progress
from core.parallel import map_rows
from core.registry import Param
from core.softmax import log_softmax

__all__ = ["VectorScaling"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_TOLERANCE = 1e-7  # of the gradient in the optimiser's units
_MAX_ITERATIONS = 500
_LARGEST = 1e9  # no slope or offset of a file may be beyond it
_ROW_BYTES = 64


@CALIBRATORS.register(
    "vector",
    label="Vector scaling",
    reference="Guo et al. 2017, arXiv:1706.04599",
    formula=(
        r"\mathrm{softmax}(w \odot z + b),\quad \min_{w, b}\ \mathrm{NLL} + "
        r"\lambda \frac{K}{n} \left(\lVert T w - 1 \rVert^2 + \lVert b \rVert^2\right)"
    ),
    params=(
        Param(
            "ridge",
            "Ridge",
            "float",
            1.0,
            minimum=0.0,
            maximum=1e6,
            help=(
                "How strongly the classes are held to the common temperature; 0 is "
                "the vector scaling of Guo et al."
            ),
        ),
    ),
    aliases=("vector-scaling", "vs"),
)
class VectorScaling(Calibrator):
    """Give the logit of each class its own slope and offset, by maximum likelihood.

    Parameters
    ----------
    ridge : float, default=1.0
        lambda, 0 or more: how strongly slopes are held to the common inverse
        temperature and offsets to 0. With 0 the classes are free, as in [1]_.
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    weights_ : ndarray of shape (k,)
        Slopes w; all are 1 / T at the start of the fit.
    bias_ : ndarray of shape (k,)
        Offsets b, in nats.
    temperature_ : float
        T of temperature scaling on the same rows: the start of the fit.
    gradient_ : float
        Largest derivative of the objective at the optimum, in units in which each
        class's own curvature is 1: the certificate, at most 1e-7.
    nll_before_, nll_after_ : float
        Mean NLL of the fit rows at T and at the optimum, without the ridge.
    n_iterations_ : int
        Passes over the rows after the temperature was found.

    Notes
    -----
    The ridge, and its strength K / n, follow the structured scaling of [2]_; n is the
    effective number of rows. A class without fit rows keeps w = 1 / T and b = 0.
    Logits are taken as they are: where a constant is added to all logits of a row, w
    and b mean something else. The objective is convex; it is minimised by SciPy's
    L-BFGS-B in coordinates in which the curvature of each class is 1 at the start.

    References
    ----------
    .. [1] C. Guo et al., "On calibration of modern neural networks", ICML 2017,
       arXiv:1706.04599.
    .. [2] "Structured matrix scaling for multi-class calibration", arXiv:2511.03685.
    """

    weights_: FloatArray
    bias_: FloatArray
    temperature_: float
    gradient_: float
    nll_before_: float
    nll_after_: float
    n_iterations_: int

    def __init__(self, *, ridge: float = 1.0, input: str = "logits") -> None:
        self.ridge = ridge
        super().__init__(input=input)

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return 2 per class: slope and offset."""
        return 2 * k

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,
        progress: Progress,
    ) -> None:
        if not 0.0 <= float(self.ridge) < np.inf:
            msg = f"ridge must be a finite number, 0 or more, got {self.ridge!r}"
            raise ValueError(msg)
        start = TemperatureScaling()
        start.notes_ = []
        start._fit(logits, y, sample_weight, groups=groups, progress=progress)
        self.notes_ += start.notes_
        self.temperature_ = start.temperature_
        # A label that is ruled out has an infinite loss at any w and b.
        possible = np.isfinite(logits[np.arange(y.size), y])
        weight = np.where(possible, sample_weight, 0.0)
        fit = _VectorFit(logits, y, weight, 1.0 / start.temperature_, float(self.ridge))
        self.nll_before_ = fit.loss(*fit.start)
        self.weights_, self.bias_ = fit.minimise(progress)
        self.nll_after_ = fit.loss(self.weights_, self.bias_)
        self.gradient_, self.n_iterations_ = fit.certificate, fit.n_passes
        self._remark(fit, logits, y, weight > 0)

    def _remark(
        self,
        fit: _VectorFit,
        logits: FloatArray,
        y: IndexArray,
        used: NDArray[np.bool_],
    ) -> None:
        is_free = self.ridge == 0 and used.any()
        if is_free and (self._transform(logits[used]).argmax(axis=1) == y[used]).all():
            text = (
                "Every fit row is right, so that without a ridge no finite optimum "
                "exists; slopes and offsets are where the fit stopped."
            )
            self.notes_.append(Note("separable", "warning", text))
        elif not self.gradient_ <= fit.tolerance:
            text = (
                f"The fit stopped with a gradient of {self.gradient_:.2g} after "
                f"{self.n_iterations_} passes."
            )
            self.notes_.append(Note("not-converged", "warning", text))
        n_falling = int((self.weights_ < 0).sum())
        if n_falling:
            text = (
                f"{n_falling:,} of {self.weights_.size:,} classes have a "
                "negative slope: there, a larger logit came with a smaller chance."
            )
            self.notes_.append(Note("falling-curve", "warning", text))

    def _transform(self, logits: FloatArray) -> FloatArray:
        result = np.empty(logits.shape, logits.dtype)

        def rows(start: int, stop: int) -> None:
            z = logits[start:stop]
            with np.errstate(invalid="ignore"):
                scores = z * self.weights_ + self.bias_
            scores[np.isneginf(z)] = -np.inf
            result[start:stop] = log_softmax(scores, algorithm="three-pass")

        map_rows(rows, len(logits), 16 * logits.shape[1] + _ROW_BYTES)
        return result

    def parameters(self) -> dict[str, Any]:
        """Return slopes and offsets by class."""
        return self._state()

    def _state(self) -> dict[str, Any]:
        return {"weights": self.weights_.tolist(), "bias": self.bias_.tolist()}

    def _restore(self, state: dict[str, Any]) -> None:
        self.weights_ = np.array(state["weights"], dtype=np.float64)
        self.bias_ = np.array(state["bias"], dtype=np.float64)
        for values in (self.weights_, self.bias_):
            if values.shape != self.classes_.shape:
                msg = (
                    f"there are {values.size} numbers for {self.classes_.size} classes"
                )
                raise ValueError(msg)
            if not (np.abs(values) <= _LARGEST).all():  # nor NaN
                msg = "a slope or an offset is out of range"
                raise ValueError(msg)


class _VectorFit:
    """Minimises mean NLL + ridge in coordinates of similar curvature."""

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

    def _factors(self) -> FloatArray:
        """Return (3, k): Cholesky factors of each class's own 2 x 2 curvature.

        Coordinates u with (slope - start, offset) = inv(L).T u have curvature 1 in
        each class; what classes share is left to the optimiser.
        """
        raw = self._mapped(_vector_curvature_kernel, 3, self.weight, *self.start)
        scale = self.beta**2  # the ridge holds T w, not w
        squares = raw[0] + self.penalty / scale
        masses = raw[2] + self.penalty
        first = np.sqrt(np.where(squares > 0, squares, 1.0))
        cross = raw[1] / first
        rest = masses - cross**2
        # Where slope and offset say the same, rounding leaves nothing of the rest.
        rest = np.where(rest > 1e-12 * masses, rest, np.where(masses > 0, masses, 1.0))
        second = np.sqrt(rest)
        return np.stack([first, cross, second])

    def minimise(self, progress: Progress) -> tuple[FloatArray, FloatArray]:
        """Return slopes and offsets; classes without rows keep the start."""
        n_free = int(self.is_free.sum())
        slope, offset = (part.copy() for part in self.start)
        if not n_free:
            return slope, offset
        first, cross, second = self._factors()[:, self.is_free]

        def moved(u: FloatArray) -> FloatArray:
            """Return steps of slope and offset, inv(L).T u."""
            low = u[n_free:] / second
            return np.stack([(u[:n_free] - cross * low) / first, low])

        def value(u: FloatArray) -> tuple[float, FloatArray]:
            steps = moved(u)
            slope[self.is_free] = self.beta + steps[0]
            offset[self.is_free] = steps[1]
            share = min(0.95, 0.1 + self.n_passes / 60)
            progress(share, "Fitting slope and offset of each class")
            loss, gradient = self.objective(slope, offset)
            gradient = gradient[:, self.is_free]
            units = np.array([[self.beta], [1.0]])
            relative = steps / units
            loss += 0.5 * self.penalty * float((relative**2).sum())
            gradient += self.penalty * relative / units
            top = gradient[0] / first
            return loss, np.concatenate([top, (gradient[1] - cross * top) / second])

        found = optimize.minimize(
            value,
            np.zeros(2 * n_free),
            method="L-BFGS-B",
            jac=True,
            options={
                "gtol": self.tolerance / 2,
                "ftol": 0.0,
                "maxcor": 20,
                "maxiter": _MAX_ITERATIONS,
                "maxfun": 2 * _MAX_ITERATIONS,
            },
        )
        self.certificate = float(np.abs(value(found.x)[1]).max())
        return slope, offset
