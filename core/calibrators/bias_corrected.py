"""Bias-corrected temperature scaling: one temperature, and an offset for each class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.calibrators.base import CALIBRATORS
from core.calibrators.checks import possible_weight
from core.calibrators.ridged import Ridged
from core.calibrators.scaling import HIGHEST, LOWEST, fitted_temperature
from core.calibrators.structured import checked_numbers
from core.calibrators.vector_fit import BiasFit
from core.messages import Note, Progress, part_of
from core.parallel import map_rows
from core.registry import Param
from core.softmax import log_softmax

__all__ = ["BiasCorrectedTemperature"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_ROW_BYTES = 64


@CALIBRATORS.register(
    "bias-corrected-temperature",
    label="Bias-corrected temperature",
    reference="Alexandari et al. 2020, arXiv:1901.06852",
    formula=(
        r"\mathrm{softmax}(z / T + b),\quad \min_{T, b}\ \mathrm{NLL} + "
        r"\lambda \frac{K}{n} \lVert b \rVert^2"
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
                "How strongly the offsets are held to 0, where this is temperature "
                "scaling; 0 is the method of Alexandari et al."
            ),
        ),
    ),
    aliases=("bcts",),
    when="Class frequencies differ from those the model was trained on.",
    not_when="Predictions must stay, or some class has few rows.",
    cost="Milliseconds; one number per class and one more.",
)
class BiasCorrectedTemperature(Ridged):
    """Divide the logits by a temperature, and add an offset to each class.

    Parameters
    ----------
    ridge : float, default=1.0
        lambda, 0 or more: how strongly offsets are held to 0. With 0 they are free,
        as in [1]_.
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    temperature_ : float
        T, fitted together with the offsets, within 0.001 to 1,000.
    bias_ : ndarray of shape (k,)
        Offsets b, in nats.
    gradient_ : float
        Largest derivative of the objective at the optimum, in units in which
        curvatures are about 1: the certificate, at most 1e-7.
    nll_before_, nll_after_ : float
        Mean NLL of the fit rows under temperature scaling and at the optimum, without
        the ridge.
    n_iterations_ : int
        Passes over the rows after the temperature was found.

    Notes
    -----
    An offset undoes a shift of the classes' shares, log(share here / share there),
    which no temperature can. A class without fit rows keeps b = 0. The objective is
    convex in (1 / T, b); it is minimised by SciPy's L-BFGS-B.

    References
    ----------
    .. [1] A. Alexandari, A. Kundaje, A. Shrikumar, "Maximum likelihood with
       bias-corrected calibration is hard-to-beat at label shift adaptation", ICML
       2020, arXiv:1901.06852.
    """

    temperature_: float
    bias_: FloatArray
    gradient_: float
    nll_before_: float
    nll_after_: float
    n_iterations_: int

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return 1 for T, and 1 per class."""
        return 1 + k

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
        first = fitted_temperature(logits, y, sample_weight, groups, part)
        self.notes_ += [note for note in first.notes_ if note.code != "fit-at-bound"]
        weight = possible_weight(logits, y, sample_weight)
        # From here on slopes are relative to 1 / T, and no row has an offset of its
        # own.
        t = first.temperature_
        logs = log_softmax(logits, temperature=t, algorithm="three-pass")
        fit = BiasFit(logs, y, weight, 1.0, float(self.ridge))
        fit.slopes = (t / HIGHEST, t / LOWEST)
        self.nll_before_ = fit.loss(*fit.start)
        slopes, self.bias_ = fit.minimise(progress)
        self.nll_after_ = fit.loss(slopes, self.bias_)
        self.gradient_, self.n_iterations_ = fit.certificate, fit.n_passes
        self.temperature_ = float(np.clip(t / slopes[0], LOWEST, HIGHEST))
        self._remark(fit.tolerance)

    def _remark(self, tolerance: float) -> None:
        is_low = self.temperature_ <= LOWEST * (1 + 1e-9)
        if is_low or self.temperature_ >= HIGHEST * (1 - 1e-9):
            why = "the labels do not follow the logits"
            if is_low:
                why = "the fit rows are right, or the logits are very small"
            text = f"T is at its bound {self.temperature_:g}: {why}."
            self.notes_.append(Note("fit-at-bound", "warning", text))
        elif not self.gradient_ <= tolerance:
            text = (
                f"The fit stopped with a gradient of {self.gradient_:.2g} after "
                f"{self.n_iterations_} passes."
            )
            self.notes_.append(Note("not-converged", "warning", text))

    def _transform(self, logits: FloatArray) -> FloatArray:
        result = np.empty(logits.shape, logits.dtype)

        def rows(start: int, stop: int) -> None:
            z = logits[start:stop].astype(np.float64)
            z -= z.max(axis=1, keepdims=True)
            z /= self.temperature_
            z += self.bias_
            result[start:stop] = log_softmax(z, algorithm="three-pass")

        map_rows(rows, len(logits), 16 * logits.shape[1] + _ROW_BYTES)
        return result

    def _state(self) -> dict[str, Any]:
        """Return "temperature" T and "bias" (k): softmax(z / T + bias)."""
        return {"temperature": self.temperature_, "bias": self.bias_.tolist()}

    def _restore(self, state: dict[str, Any]) -> None:
        self.temperature_ = float(state["temperature"])
        if not LOWEST <= self.temperature_ <= HIGHEST:
            msg = f"temperature {self.temperature_!r} is outside its bounds"
            raise ValueError(msg)
        self.bias_ = checked_numbers(state["bias"], self.classes_.shape)
