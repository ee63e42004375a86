"""Quadratic scaling: a parabola of the log-odds of each class."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from core.calibrators.base import CALIBRATORS
from core.calibrators.logistic import LogisticOneVsRest
from core.calibrators.logistic_fit import counted, fit_logistic, smoothed
from core.calibrators.one_vs_rest import LOWEST_LOG, Chances, curve_columns
from core.messages import Note

__all__ = ["QuadraticScaling"]

FloatArray = NDArray[np.floating[Any]]


class _Parabola(NamedTuple):
    """sigmoid(a l + b l^2 + c) for l from low to high, and how it was found."""

    a: float
    b: float
    c: float
    gradient: float
    low: float
    high: float
    is_flat: bool
    is_separable: bool = False


@CALIBRATORS.register(
    "quadratic",
    label="Quadratic scaling, one-vs-rest",
    reference="Berta et al. 2025, arXiv:2511.03685",
    formula=(
        r"q_k \propto \sigma\!\left(a_k l_k + b_k l_k^2 + c_k\right),\quad "
        r"l_k = \ln \frac{p_k}{1 - p_k}"
    ),
    tier="more",
    aliases=("quadratic-scaling",),
    when="Two classes, and a gap that bends with confidence.",
    not_when="The order of rows must stay.",
    cost="Milliseconds; three numbers per class.",
)
class QuadraticScaling(LogisticOneVsRest):
    """Fit a parabola to the log-odds of each class, then renormalise; it may fall.

    Parameters
    ----------
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    coefficients_ : ndarray of shape (n_curves, 3)
        a, b and c of every class, or of the second of two classes.
    ranges_ : ndarray of shape (n_curves, 2)
        Lowest and highest log-odds of the fit rows; beyond them curves are constant.
    gradient_ : float
        Largest derivative of the mean objective at the optimum: the certificate.

    Notes
    -----
    Platt scaling with one more input. **It is not monotone**: a parabola turns at
    -a / (2 b), and where that lies among the rows, a larger score comes with a smaller
    chance, so that the order of rows (and AUROC) can change; a note says for how many
    curves. A parabola says nothing where no fit row lies: beyond their range the curve
    keeps its last value. Targets are Platt's, so that a finite optimum always exists;
    weights count by their effective number of rows.
    """

    ranges_: FloatArray

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return 3 per curve."""
        return 3 * len(curve_columns(k))

    def _fit_curve(
        self, found: Chances, target: FloatArray, weight: FloatArray
    ) -> _Parabola:
        odds = found.log_p - found.log_rest
        mass = counted(weight)
        fit = fit_logistic(np.stack([odds, odds**2]), smoothed(target, mass), mass)
        a, b = fit.slope
        ends = float(odds.min()), float(odds.max())
        return _Parabola(a, b, fit.intercept, fit.gradient, *ends, a == b == 0.0)

    def _keep(self, curves: list[Any], weight: FloatArray) -> None:
        super()._keep(curves, weight)
        self.ranges_ = np.array([(item.low, item.high) for item in curves])
        a, b, _ = self.coefficients_.T
        with np.errstate(divide="ignore", invalid="ignore"):
            turn = -a / (2 * b)
        inside = (turn > self.ranges_[:, 0]) & (turn < self.ranges_[:, 1])
        falls = inside | (a + 2 * b * self.ranges_[:, 0] < 0)
        if falls.any():
            text = (
                f"{int(falls.sum()):,} of {len(curves):,} curves fall somewhere among "
                "the fit rows: there, a larger score comes with a smaller chance."
            )
            self.notes_.append(Note("falling-curve", "warning", text))

    def _scores(self, found: Chances) -> FloatArray:
        a, b, c = self.coefficients_.T
        odds = np.clip(found.log_p - found.log_rest, *self.ranges_.T)
        return np.asarray((a + b * odds) * odds + c)

    def map_probability(self, p: FloatArray, curve: int = 0) -> FloatArray:
        """Return what one curve makes of probabilities, before renormalising."""
        with np.errstate(divide="ignore"):
            log_p = np.maximum(np.log(p), LOWEST_LOG)
            log_rest = np.maximum(np.log1p(-np.asarray(p)), LOWEST_LOG)
        odds = np.clip(log_p - log_rest, *self.ranges_[curve])
        a, b, c = self.coefficients_[curve]
        return np.asarray(special.expit((a + b * odds) * odds + c))

    def parameters(self) -> dict[str, Any]:
        """Return a, b and c of each curve, and the range where they hold."""
        return self._state()

    def _state(self) -> dict[str, Any]:
        """Return "a", "b", "c", "low" and "high", one per curve.

        sigmoid((a + b * l) * l + c), l = log p - log(1 - p) cut to low and high.
        """
        a, b, c = self.coefficients_.T.tolist()
        low, high = self.ranges_.T.tolist()
        return {"a": a, "b": b, "c": c, "low": low, "high": high}

    def _restore(self, state: dict[str, Any]) -> None:
        a, b, c, low, high = (
            np.array(state[name], dtype=np.float64)
            for name in ("a", "b", "c", "low", "high")
        )
        self._restore_coefficients(np.stack([a, b, c], axis=-1))
        ranges = np.stack([low, high], axis=-1)
        is_range = ranges.shape == (len(a), 2) and (low <= high).all()
        if not is_range or not (np.abs(ranges) <= -2 * LOWEST_LOG).all():
            msg = "the range of a curve does not fit"
            raise ValueError(msg)
        self.ranges_ = ranges
