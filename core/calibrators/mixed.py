"""Laplace-mixed calibrators: a grain of the uniform, so that no answer is ever 0."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.calibrators.base import CALIBRATORS, Calibrator
from core.calibrators.one_vs_rest import effective_rows
from core.calibrators.scaling import TemperatureScaling
from core.calibrators.structured import StructuredMatrixScaling
from core.messages import Progress
from core.parallel import map_rows
from core.row_statistics import RowStatistics

__all__ = ["MixedStructuredMatrix", "MixedTemperature"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_REFERENCE = "Berta et al. 2026, arXiv:2511.03685"
_ROW_BYTES = 64


class _Mixed(Calibrator):
    """What is done after another calibrator, whose class comes next in the bases."""

    grain_: float

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,
        progress: Progress,
    ) -> None:
        super()._fit(  # type: ignore[safe-super]
            logits, y, sample_weight, groups=groups, progress=progress
        )
        self.grain_ = 1.0 / (effective_rows(sample_weight) + 1.0)

    def _transform(self, logits: FloatArray) -> FloatArray:
        result = super()._transform(logits)  # type: ignore[safe-super]

        def rows(start: int, stop: int) -> None:
            is_open = logits[start:stop] > -np.inf
            n_open = is_open.sum(axis=1, keepdims=True)
            logs = result[start:stop].astype(np.float64) + np.log1p(-self.grain_)
            logs = np.logaddexp(logs, np.log(self.grain_ / n_open))
            result[start:stop] = np.where(is_open, logs, -np.inf)

        map_rows(rows, len(logits), 16 * logits.shape[1] + _ROW_BYTES)
        return result

    def row_statistics(
        self,
        logits: FloatArray,
        labels: IndexArray | None = None,
        *,
        features: FloatArray | None = None,
        copies: FloatArray | None = None,
    ) -> RowStatistics:
        """Return statistics of the calibrated rows, without keeping their matrix."""
        return Calibrator.row_statistics(
            self, logits, labels, features=features, copies=copies
        )

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)  # type: ignore[safe-super]
        self.grain_ = float(state["grain"])
        if not 0.0 < self.grain_ < 1.0:
            msg = "the share of the uniform is out of range"
            raise ValueError(msg)


@CALIBRATORS.register(
    "temperature-mixed",
    label="Temperature, Laplace-mixed",
    reference=_REFERENCE,
    formula=(
        r"\left(1 - \tfrac{1}{n + 1}\right) \mathrm{softmax}(z / T) + "
        r"\tfrac{1}{n + 1} \cdot \tfrac{1}{K},\quad T = \arg\min_{T>0} \mathrm{NLL}"
    ),
    when="All fit rows are right, or one wrong row must not cost everything.",
    not_when="Probabilities below 1 / (K n) matter.",
    cost="As temperature scaling.",
    tier="more",
    aliases=("ts-mix",),
)
class MixedTemperature(_Mixed, TemperatureScaling):
    """Temperature scaling, then a grain of the uniform so that no class gets 0.

    Parameters
    ----------
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    grain_ : float
        1 / (n + 1), n the effective number of fit rows: the share of the uniform
        distribution over the classes of a row that are not ruled out.
    temperature_, gradient_, nll_after_, log_standard_error_, n_iterations_,
    is_at_bound_
        As for `TemperatureScaling`; the mixing comes after the fit.

    Notes
    -----
    Where every fit row is right the temperature runs to its bound, and one wrong row
    later would cost everything. Laplace's rule of succession expects one failure in
    n + 1: with this share [1]_, as in probmetrics, the NLL stays finite.

    References
    ----------
    .. [1] E. Berta, D. Holzmüller, M. I. Jordan, F. Bach, "Structured matrix scaling
       for multi-class calibration", AISTATS 2026, arXiv:2511.03685.
    """

    def _state(self) -> dict[str, Any]:
        """Return "temperature" T and "grain" g: (1 - g) softmax(z / T) + g u.

        u is uniform over the classes that are not ruled out.
        """
        return {**TemperatureScaling._state(self), "grain": self.grain_}


@CALIBRATORS.register(
    "structured-matrix-mixed",
    label="Structured matrix, Laplace-mixed",
    reference=_REFERENCE,
    formula=(
        r"\left(1 - \tfrac{1}{n + 1}\right) q + \tfrac{1}{n + 1} \cdot "
        r"\tfrac{1}{K},\quad q\ \text{from structured matrix scaling}"
    ),
    params=CALIBRATORS["structured-matrix"].params,
    when="As structured matrix scaling, where no answer may be near 0.",
    not_when="Probabilities below 1 / (K n) matter.",
    cost="As structured matrix scaling.",
    tier="more",
    aliases=("sms-mix",),
)
class MixedStructuredMatrix(_Mixed, StructuredMatrixScaling):
    """Structured matrix scaling, then a grain of the uniform so that no class gets 0.

    Parameters
    ----------
    ridge : float, default=1.0
        lambda, above 0: how strongly W is held to the identity and b to 0.
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    grain_ : float
        1 / (n + 1), n the effective number of fit rows: the share of the uniform
        distribution over the classes of a row that are not ruled out.
    temperature_, mixing_, matrix_, bias_, gradient_, nll_before_, nll_after_,
    n_iterations_
        As for `StructuredMatrixScaling`; the mixing comes after the fit.

    Notes
    -----
    Structured matrix scaling mixes before the matrix, which can still make a class
    very improbable; here the answer is mixed too, as in probmetrics' mixtures [1]_.

    References
    ----------
    .. [1] E. Berta, D. Holzmüller, M. I. Jordan, F. Bach, "Structured matrix scaling
       for multi-class calibration", AISTATS 2026, arXiv:2511.03685.
    """

    def _state(self) -> dict[str, Any]:
        """Return those of structured matrix scaling, and "grain" g.

        (1 - g) q + g u, where q is what "temperature", "mixing", "matrix" and "bias"
        give there, and u uniform over the classes that are not ruled out.
        """
        return {**StructuredMatrixScaling._state(self), "grain": self.grain_}
