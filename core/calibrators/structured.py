"""Structured scaling: few free numbers beyond the temperature, each held by a ridge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.calibrators.base import CALIBRATORS
from core.calibrators.checks import possible_weight
from core.calibrators.matrix_fit import MatrixFit, Ridge
from core.calibrators.one_vs_rest import effective_rows
from core.calibrators.ridged import Ridged
from core.calibrators.scaling import HIGHEST, LOWEST, fitted_temperature
from core.calibrators.vector_fit import VectorFit, falling_note
from core.messages import Note, Progress, part_of
from core.registry import Param
from core.softmax import log_softmax, softmax

__all__ = [
    "StructuredMatrixScaling",
    "StructuredVectorScaling",
    "checked_numbers",
    "matrix_summary",
    "row_blocks",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_BLOCK = 1 << 19  # scores transformed at once
_LARGEST = 1e9  # no number of a file may be beyond it
_REFERENCE = "Berta et al. 2026, arXiv:2511.03685"


def _ridge_param(words: str) -> Param:
    return Param("ridge", "Ridge", "float", 1.0, minimum=1e-6, maximum=1e6, help=words)


class _Structured(Ridged):
    """What both kinds do first: a temperature, then a grain of the uniform.

    The logarithms of the mixture are finite wherever a class is: a probability of 0
    counts as the share of the uniform distribution.
    """

    temperature_: float
    mixing_: float
    bias_: FloatArray
    gradient_: float
    nll_before_: float
    nll_after_: float
    n_iterations_: int

    def _begin(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        groups: IndexArray | None,
        progress: Progress,
    ) -> FloatArray:
        """Fit the temperature; return the weights, 0 where a label is ruled out."""
        if not 0.0 < float(self.ridge) < np.inf:
            msg = f"ridge must be a finite number above 0, got {self.ridge!r}"
            raise ValueError(msg)
        part = part_of(progress, 0.0, 0.1)
        first = fitted_temperature(logits, y, sample_weight, groups, part)
        self.notes_ += first.notes_
        self.temperature_ = first.temperature_
        weight = possible_weight(logits, y, sample_weight)
        n = effective_rows(weight) if weight.any() else float(y.size)
        self.mixing_ = 1.0 / (n + 1.0)
        return weight

    def _mixed(self, logits: FloatArray) -> FloatArray:
        """Return the logarithms of the mixture in float64; (n, k)."""
        z = logits.astype(np.float64)
        p = softmax(z, temperature=self.temperature_, out=z, algorithm="three-pass")
        p *= 1.0 - self.mixing_
        p += self.mixing_ / p.shape[1]
        return np.asarray(np.log(p, out=p))

    def _scores(self, mixed: FloatArray) -> FloatArray:
        """Return the scores that the fitted numbers give; (n, k)."""
        raise NotImplementedError

    def _transform(self, logits: FloatArray) -> FloatArray:
        result = np.empty(logits.shape, logits.dtype)
        for rows in row_blocks(logits):
            scores = self._scores(self._mixed(logits[rows]))
            scores[np.isneginf(logits[rows])] = -np.inf
            result[rows] = log_softmax(scores, algorithm="three-pass")
        return result

    def _remark(self, tolerance: float) -> None:
        if not self.gradient_ <= tolerance:
            text = (
                f"The fit stopped with a gradient of {self.gradient_:.2g} after "
                f"{self.n_iterations_} passes."
            )
            self.notes_.append(Note("not-converged", "warning", text))

    def _restore_start(self, state: dict[str, Any]) -> None:
        self.temperature_ = float(state["temperature"])
        self.mixing_ = float(state["mixing"])
        if not LOWEST <= self.temperature_ <= HIGHEST or not 0.0 < self.mixing_ < 1.0:
            msg = "the temperature or the share of the uniform is out of range"
            raise ValueError(msg)
        self.bias_ = checked_numbers(state["bias"], self.classes_.shape)


@CALIBRATORS.register(
    "structured-vector",
    label="Structured vector scaling",
    reference=_REFERENCE,
    formula=(
        r"\mathrm{softmax}(w \odot z' + b),\quad z' = \ln\!\left((1 - m)\,"
        r"\mathrm{softmax}(z / T) + m / K\right),\quad m = \tfrac{1}{n + 1},\quad "
        r"\min_{w, b}\ \mathrm{NLL} + \lambda \frac{K}{n} "
        r"\left(\lVert w - 1 \rVert^2 + \lVert b \rVert^2\right)"
    ),
    params=(_ridge_param("How strongly the classes are held to temperature scaling."),),
    aliases=("svs", "structured-vector-scaling"),
    when=(
        "Many classes, or moderately many rows: close to vector scaling, but held "
        "to a temperature."
    ),
    not_when="Classes are mixed up in pairs, or predictions must stay.",
    cost="A tenth of a second at 5,000 x 100.",
)
class StructuredVectorScaling(_Structured):
    """Temperature first, then a slope and an offset for each class, held near it.

    Parameters
    ----------
    ridge : float, default=1.0
        lambda, above 0: how strongly slopes are held to 1 and offsets to 0.
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    temperature_ : float
        T of temperature scaling on the same rows.
    mixing_ : float
        m = 1 / (n + 1): share of the uniform distribution, with which the logarithms
        stay finite.
    weights_, bias_ : ndarray of shape (k,)
        w and b on the logarithms z' of the mixture.
    gradient_ : float
        Largest derivative of the objective at the optimum, in units in which each
        class's own curvature is 1: the certificate, at most 1e-7.
    nll_before_, nll_after_ : float
        Mean NLL of the fit rows at w = 1, b = 0 and at the optimum, without the ridge.
    n_iterations_ : int
        Passes over the rows after the temperature was found.

    Notes
    -----
    The method of [1]_ with its ridge, as in probmetrics; n is the effective number of
    rows, and the convex objective is solved to its optimum in double precision. A
    class without fit rows keeps w = 1 and b = 0, the shared temperature. Adding a
    constant to the logits of a row changes nothing.

    References
    ----------
    .. [1] E. Berta, D. Holzmüller, M. I. Jordan, F. Bach, "Structured matrix scaling
       for multi-class calibration", AISTATS 2026, arXiv:2511.03685.
    """

    weights_: FloatArray

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return 1 for T, and 2 per class."""
        return 1 + 2 * k

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,
        progress: Progress,
    ) -> None:
        weight = self._begin(logits, y, sample_weight, groups, progress)
        mixed = np.empty(logits.shape, logits.dtype)
        for rows in row_blocks(logits):
            mixed[rows] = self._mixed(logits[rows])
            mixed[rows][np.isneginf(logits[rows])] = -np.inf
        fit = VectorFit(mixed, y, weight, 1.0, float(self.ridge))
        self.nll_before_ = fit.loss(*fit.start)
        self.weights_, self.bias_ = fit.minimise(progress)
        self.nll_after_ = fit.loss(self.weights_, self.bias_)
        self.gradient_, self.n_iterations_ = fit.certificate, fit.n_passes
        self._remark(fit.tolerance)
        self.notes_ += falling_note(self.weights_)

    def _scores(self, mixed: FloatArray) -> FloatArray:
        mixed *= self.weights_
        mixed += self.bias_
        return mixed

    def _state(self) -> dict[str, Any]:
        """Return "temperature" T, "mixing" m, "weights" and "bias" (k).

        softmax(weights * log((1 - m) softmax(z / T) + m / k) + bias); classes at -inf
        stay 0.
        """
        return {
            "temperature": self.temperature_,
            "mixing": self.mixing_,
            "weights": self.weights_.tolist(),
            "bias": self.bias_.tolist(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self._restore_start(state)
        self.weights_ = checked_numbers(state["weights"], self.classes_.shape)


@CALIBRATORS.register(
    "structured-matrix",
    label="Structured matrix scaling",
    reference=_REFERENCE,
    formula=(
        r"\mathrm{softmax}(W z' + b),\quad z' = \ln\!\left((1 - m)\,"
        r"\mathrm{softmax}(z / T) + m / K\right),\quad m = \tfrac{1}{n + 1},\quad "
        r"\min_{W, b}\ \mathrm{NLL} + \lambda \frac{K}{n} \left(\textstyle\sum_i "
        r"(W_{ii} - 1)^2 + \lVert b \rVert^2\right) + \lambda \frac{K (K - 1)}{n} "
        r"\textstyle\sum_{i \ne j} W_{ij}^2"
    ),
    params=(
        _ridge_param(
            "How strongly the matrix is held to the identity, temperature scaling."
        ),
    ),
    aliases=("sms", "structured-matrix-scaling"),
    when="The strongest general choice from a few to some two hundred classes.",
    not_when="More classes than that, or predictions must stay.",
    cost="Grows with the square of the classes; below a second at 5,000 x 100.",
)
class StructuredMatrixScaling(_Structured):
    """Temperature first, then what every class says of every other, held near it.

    Parameters
    ----------
    ridge : float, default=1.0
        lambda, above 0: how strongly W is held to the identity and b to 0.
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    temperature_ : float
        T of temperature scaling on the same rows.
    mixing_ : float
        m = 1 / (n + 1): share of the uniform distribution, with which the logarithms
        stay finite.
    matrix_ : ndarray of shape (k, k)
        W: line i gives the score of class i.
    bias_ : ndarray of shape (k,)
        b, in nats.
    gradient_ : float
        Largest derivative of the objective at the optimum, in units in which
        curvatures are about 1: the certificate, at most 1e-6, or 2e-5 of larger fits.
    nll_before_, nll_after_ : float
        Mean NLL of the fit rows at the identity and at the optimum, without the ridge.
    n_iterations_ : int
        Passes over the rows after the temperature was found.

    Notes
    -----
    The method of [1]_ with its ridge, as in probmetrics; n is the effective number of
    rows, and the convex objective is solved to its optimum in double precision. A
    class without fit rows keeps its line of the identity and b = 0, the shared
    temperature. Adding a constant to the logits of a row changes nothing. A pass
    costs O(n K^2): beyond some 200 classes prefer structured vector scaling.

    References
    ----------
    .. [1] E. Berta, D. Holzmüller, M. I. Jordan, F. Bach, "Structured matrix scaling
       for multi-class calibration", AISTATS 2026, arXiv:2511.03685.
    """

    matrix_: FloatArray

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return 1 for T, k * k for the matrix and k for the offsets."""
        return 1 + k * (k + 1)

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,
        progress: Progress,
    ) -> None:
        weight = self._begin(logits, y, sample_weight, groups, progress)
        mixed = np.empty(logits.shape)
        for rows in row_blocks(logits):
            mixed[rows] = self._mixed(logits[rows])
        is_ruled_out = np.isneginf(logits)
        fit = MatrixFit(mixed, y, weight, is_ruled_out if is_ruled_out.any() else None)
        ridge = Ridge.structured(float(self.ridge), logits.shape[1], fit.n_rows)
        self.nll_before_ = fit.loss(fit.start)

        def step() -> None:
            progress(min(0.95, 0.1 + fit.n_passes / 60), "Fitting the matrix")

        found = fit.minimise(ridge, step)
        self.matrix_, self.bias_ = found[:, :-1].copy(), found[:, -1].copy()
        self.nll_after_ = fit.loss(found)
        self.gradient_, self.n_iterations_ = fit.certificate, fit.n_passes
        self._remark(fit.tolerance)

    def _scores(self, mixed: FloatArray) -> FloatArray:
        scores = mixed @ self.matrix_.T
        scores += self.bias_
        return np.asarray(scores)

    def parameters(self) -> dict[str, Any]:
        """Return temperature, diagonal, offsets and the largest element off it."""
        summary = matrix_summary(self.matrix_, self.bias_)
        return {"temperature": self.temperature_, **summary}

    def _state(self) -> dict[str, Any]:
        """Return "temperature" T, "mixing" m, "matrix" W (k, k) and "bias" b (k).

        softmax(W log((1 - m) softmax(z / T) + m / k) + b), each row of logits as a
        column; classes at -inf stay 0.
        """
        return {
            "temperature": self.temperature_,
            "mixing": self.mixing_,
            "matrix": self.matrix_.tolist(),
            "bias": self.bias_.tolist(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self._restore_start(state)
        shape = (*self.classes_.shape, *self.classes_.shape)
        self.matrix_ = checked_numbers(state["matrix"], shape)


def matrix_summary(matrix: FloatArray, bias: FloatArray) -> dict[str, Any]:
    """Return what a person may want to read of a matrix: not all of its numbers."""
    others = matrix - np.diag(np.diag(matrix))
    return {
        "largest_off_diagonal": float(np.abs(others).max(initial=0.0)),
        "diagonal": np.diag(matrix).tolist(),
        "bias": bias.tolist(),
    }


def row_blocks(logits: FloatArray) -> Iterator[slice]:
    """Yield the rows of each block: what stands beside the result stays small."""
    step = max(1, _BLOCK // logits.shape[1])
    for start in range(0, len(logits), step):
        yield slice(start, start + step)


def checked_numbers(values: Any, shape: tuple[int, ...]) -> FloatArray:
    """Return fitted numbers from a file as an array; others raise ValueError."""
    found = np.array(values, dtype=np.float64)
    if found.shape != shape:
        msg = f"the numbers have shape {found.shape}, not {shape}"
        raise ValueError(msg)
    if not (np.abs(found) <= _LARGEST).all():  # nor NaN
        msg = "a slope or an offset is out of range"
        raise ValueError(msg)
    return found
