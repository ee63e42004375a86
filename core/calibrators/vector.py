"""Vector scaling: a slope and an offset for the logit of each class."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from core.calibrators.base import CALIBRATORS
from core.calibrators.checks import possible_weight
from core.calibrators.ridged import Ridged
from core.calibrators.scaling import fitted_temperature
from core.calibrators.vector_fit import SlopeFit, VectorFit, falling_note
from core.messages import Note, Progress, part_of
from core.parallel import map_rows
from core.registry import Param
from core.softmax import log_softmax

__all__ = ["NoBiasVectorScaling", "VectorScaling"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

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
    when="Classes err in their own ways and each has many rows.",
    not_when="Few rows per class: nothing holds its numbers; predictions must stay.",
    cost="Tens of milliseconds; two numbers per class.",
)
class VectorScaling(Ridged):
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

    _kind: ClassVar[type[VectorFit]] = VectorFit

    weights_: FloatArray
    bias_: FloatArray
    temperature_: float
    gradient_: float
    nll_before_: float
    nll_after_: float
    n_iterations_: int

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
        self._check_ridge()
        part = part_of(progress, 0.0, 0.1)
        start = fitted_temperature(logits, y, sample_weight, groups, part)
        self.notes_ += start.notes_
        self.temperature_ = start.temperature_
        # A label that is ruled out has an infinite loss at any w and b.
        weight = possible_weight(logits, y, sample_weight)
        beta = 1.0 / start.temperature_
        fit = self._kind(logits, y, weight, beta, float(self.ridge))
        self.nll_before_ = fit.loss(*fit.start)
        self.weights_, self.bias_ = fit.minimise(progress)
        self.nll_after_ = fit.loss(self.weights_, self.bias_)
        self.gradient_, self.n_iterations_ = fit.certificate, fit.n_passes
        self._remark(fit, logits, y, weight > 0)

    def _remark(
        self,
        fit: VectorFit,
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
        self.notes_ += falling_note(self.weights_)

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
        """Return "weights" and "bias" (k): softmax(weights * z + bias)."""
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


@CALIBRATORS.register(
    "no-bias-vector",
    label="No-bias vector scaling",
    reference="Alexandari et al. 2020, arXiv:1901.06852",
    formula=(
        r"\mathrm{softmax}(w \odot z),\quad \min_w\ \mathrm{NLL} + "
        r"\lambda \frac{K}{n} \lVert T w - 1 \rVert^2"
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
                "How strongly the classes are held to the common temperature; 0 "
                "leaves them free."
            ),
        ),
    ),
    when="To see what the offsets of vector scaling are worth.",
    not_when="Class frequencies differ from those the model was trained on.",
    cost="As vector scaling.",
    tier="more",
    aliases=("nbvs",),
)
class NoBiasVectorScaling(VectorScaling):
    """Give the logit of each class its own slope, and no offset.

    Parameters
    ----------
    ridge : float, default=1.0
        lambda, 0 or more: how strongly slopes are held to the common inverse
        temperature.
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    weights_ : ndarray of shape (k,)
        Slopes w; all are 1 / T at the start of the fit.
    bias_ : ndarray of shape (k,)
        Zeros.
    temperature_, gradient_, nll_before_, nll_after_, n_iterations_
        As for `VectorScaling`.

    Notes
    -----
    Vector scaling without what corrects the shares of the classes: in [1]_ it is the
    control that shows what the offsets are worth. As there, logits are taken as they
    are.

    References
    ----------
    .. [1] A. Alexandari, A. Kundaje, A. Shrikumar, "Maximum likelihood with
       bias-corrected calibration is hard-to-beat at label shift adaptation", ICML
       2020, arXiv:1901.06852.
    """

    _kind: ClassVar[type[VectorFit]] = SlopeFit

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return 1 per class."""
        return k

    def _state(self) -> dict[str, Any]:
        """Return "weights" (k): softmax(weights * z)."""
        return {"weights": self.weights_.tolist()}

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore({**state, "bias": [0.0] * self.classes_.size})
