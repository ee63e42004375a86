"""Calibrators that fit a logistic curve to the log-odds of each class."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from core.calibrators.base import CALIBRATORS
from core.calibrators.logistic_fit import (
    TOLERANCE,
    counted,
    fit_logistic,
    is_separable,
    smoothed,
)
from core.calibrators.one_vs_rest import (
    LOWEST_LOG,
    Chances,
    OneVsRest,
    chances,
    curve_columns,
    row_offsets,
)
from core.messages import Note

__all__ = ["BetaCalibration", "PlattScaling"]

FloatArray = NDArray[np.floating[Any]]

_LARGEST = 1e6  # no coefficient of a file may be beyond it


class _Curve(NamedTuple):
    """sigmoid(a log p - b log(1 - p) + c), and how it was found."""

    a: float
    b: float
    c: float
    gradient: float
    is_flat: bool = False
    is_separable: bool = False


class LogisticOneVsRest(OneVsRest):
    """Base of curves sigmoid(a log p - b log(1 - p) + c), one per class.

    Attributes
    ----------
    coefficients_ : ndarray of shape (n_curves, 3)
        a, b and c of every class, or of the second of two classes.
    gradient_ : float
        Largest derivative of the mean objective over all curves, per standard
        deviation of the inputs: the certificate of the optimum.
    """

    coefficients_: FloatArray
    gradient_: float

    def _keep(
        self,
        curves: list[Any],
        weight: FloatArray,  # noqa: ARG002 - curves of others are mixed by it
    ) -> None:
        self.coefficients_ = np.array([(item.a, item.b, item.c) for item in curves])
        self.gradient_ = max(item.gradient for item in curves)
        n_loose = sum(item.gradient > TOLERANCE for item in curves)
        if n_loose:
            text = (
                f"{n_loose:,} of {len(curves):,} curves stopped early, with a gradient "
                f"of up to {self.gradient_:.2g} per row."
            )
            self.notes_.append(Note("not-converged", "warning", text))
        if all(item.is_flat for item in curves):
            text = "Every curve is flat: the fit rows show no relation to fit."
            self.notes_.append(Note("flat-curves", "warning", text))
        n_separable = sum(item.is_separable for item in curves)
        if n_separable:
            text = (
                f"For {n_separable:,} of {len(curves):,} curves one probability "
                "divides the fit rows of the class from the rest; how steep they are "
                "is set by Platt's smoothed targets, not by the rows."
            )
            self.notes_.append(Note("separable", "warning", text))

    def map_probability(self, p: FloatArray, curve: int = 0) -> FloatArray:
        """Return what one curve makes of probabilities, before renormalising."""
        with np.errstate(divide="ignore"):
            log_p = np.maximum(np.log(p), LOWEST_LOG)
            log_rest = np.maximum(np.log1p(-np.asarray(p)), LOWEST_LOG)
        a, b, c = self.coefficients_[curve]
        return np.asarray(special.expit(a * log_p - b * log_rest + c))

    def breaks(self, curve: int = 0) -> FloatArray:  # noqa: ARG002 - alike for all
        """Return points at equal distances in log-odds: curves bend near 0 and 1."""
        return np.asarray(special.expit(np.linspace(-14.0, 14.0, 113)))

    def _scores(self, found: Chances) -> FloatArray:
        """Return the log-odds that each curve gives, a column for each."""
        a, b, c = self.coefficients_.T
        return np.asarray(a * found.log_p - b * found.log_rest + c)

    def _log_map(self, logits: FloatArray) -> FloatArray:
        k = logits.shape[1]
        columns = np.array(curve_columns(k))
        offsets = row_offsets(logits)
        score = self._scores(chances(logits[:, columns], offsets, columns))
        logs = np.asarray(special.log_expit(score))
        if k == 2:
            logs = np.hstack([special.log_expit(-score), logs])
        is_ruled_out = np.isneginf(logits)
        logs[is_ruled_out] = -np.inf
        best = logs.max(axis=1, keepdims=True)
        logs -= best + np.log(np.exp(logs - best).sum(axis=1, keepdims=True))
        empty = np.exp(best[:, 0]) == 0  # no class has a probability in this precision
        if empty.any():
            is_open = ~is_ruled_out[empty]
            share = -np.log(is_open.sum(axis=1, keepdims=True))
            logs[empty] = np.where(is_open, share, -np.inf)
        return logs

    def _restore_coefficients(self, coefficients: FloatArray) -> None:
        k = self.classes_.size
        expected = (len(curve_columns(k)), 3)
        if coefficients.shape != expected:
            msg = f"the coefficients have shape {coefficients.shape}, not {expected}"
            raise ValueError(msg)
        if not (np.abs(coefficients) <= _LARGEST).all():  # nor NaN
            msg = "a coefficient is out of range"
            raise ValueError(msg)
        self.coefficients_ = coefficients


@CALIBRATORS.register(
    "platt",
    label="Platt scaling, one-vs-rest",
    reference="Platt 1999; Lin, Lin and Weng 2007",
    formula=(
        r"q_k \propto \sigma\!\left(A_k f_k + B_k\right),\quad "
        r"f_k = \ln \frac{p_k}{1 - p_k}"
    ),
    aliases=("sigmoid", "logistic", "platt-scaling", "platt-logits"),
    when=(
        "Two classes and a score that is right but for its scale and offset; few rows."
    ),
    not_when="The reliability curve bends back; many classes with few rows each.",
    cost="Milliseconds per class; two numbers.",
)
class PlattScaling(LogisticOneVsRest):
    """Fit a sigmoid to the log-odds of each class, then renormalise.

    Parameters
    ----------
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    slope_, intercept_ : ndarray of shape (n_curves,)
        A and B of each class; of the second class if there are two. (scikit-learn's
        ``a_`` and ``b_`` have the opposite sign.)
    gradient_ : float
        Largest derivative of the mean objective at the optimum: the certificate.

    Notes
    -----
    The score f is the logarithm of p / (1 - p), which for one binary score z is z
    itself. It does not change when a constant is added to the logits of a row. Targets
    are Platt's, (N+ + 1) / (N+ + 2) and 1 / (N- + 2), so that a finite optimum exists
    even where a threshold divides the classes; weights count by their effective number
    of rows, whatever their scale. The optimum is found by a damped Newton method, as in
    [2]_, with SciPy's trust region where that fails.

    References
    ----------
    .. [1] J. Platt, "Probabilistic outputs for support vector machines", 1999.
    .. [2] H.-T. Lin, C.-J. Lin and R. C. Weng, "A note on Platt's probabilistic
       outputs for support vector machines", Machine Learning 68 (2007).
    """

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return 2 per curve: slope and intercept."""
        return 2 * len(curve_columns(k))

    @property
    def slope_(self) -> FloatArray:
        """A of every curve."""
        return self.coefficients_[:, 0]

    @property
    def intercept_(self) -> FloatArray:
        """B of every curve."""
        return self.coefficients_[:, 2]

    def _fit_curve(
        self, found: Chances, target: FloatArray, weight: FloatArray
    ) -> _Curve:
        score = found.log_p - found.log_rest
        mass = counted(weight)
        fit = fit_logistic(score[None], smoothed(target, mass), mass)
        (slope,) = fit.slope
        return _Curve(
            slope,
            slope,
            fit.intercept,
            fit.gradient,
            is_flat=slope == 0.0,
            is_separable=is_separable(score, target),
        )

    def _keep(self, curves: list[Any], weight: FloatArray) -> None:
        super()._keep(curves, weight)
        n_falling = int((self.slope_ < 0).sum())
        if n_falling:
            text = (
                f"{n_falling:,} of {len(curves):,} curves fall: there, a larger score "
                "came with a smaller chance."
            )
            self.notes_.append(Note("falling-curve", "warning", text))

    def parameters(self) -> dict[str, Any]:
        """Return slope and intercept of each curve."""
        return self._state()

    def _state(self) -> dict[str, Any]:
        """Return "slope" and "intercept", one per curve.

        sigmoid(slope * (log p - log(1 - p)) + intercept).
        """
        return {"slope": self.slope_.tolist(), "intercept": self.intercept_.tolist()}

    def _restore(self, state: dict[str, Any]) -> None:
        slope = np.array(state["slope"], dtype=np.float64)
        intercept = np.array(state["intercept"], dtype=np.float64)
        self._restore_coefficients(np.stack([slope, slope, intercept], axis=-1))


@CALIBRATORS.register(
    "beta",
    label="Beta calibration, one-vs-rest",
    reference="Kull, Silva Filho and Flach 2017",
    formula=(
        r"q_k \propto \sigma\!\left(a_k \ln p_k - b_k \ln(1 - p_k) + c_k\right),"
        r"\quad a_k, b_k \ge 0"
    ),
    aliases=("beta-calibration",),
    when="Two classes whose curve bends at both ends, or is too steep at one only.",
    not_when="Few rows; scores that are logits of no probability.",
    cost="Milliseconds per class; three numbers.",
)
class BetaCalibration(LogisticOneVsRest):
    """Fit a ratio of two beta densities to each class's probability, then renormalise.

    Parameters
    ----------
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    coefficients_ : ndarray of shape (n_curves, 3)
        a, b and c of every class, or of the second of two classes; a, b >= 0, so that
        no curve falls. a = b = 1, c = 0 changes nothing.
    gradient_ : float
        Largest derivative of the mean NLL at the optimum, in the directions that the
        constraint leaves free: the certificate.

    Notes
    -----
    Maximum likelihood under a, b >= 0. Where the optimum without the constraint breaks
    it, the best fit with a = 0, with b = 0 or with both is taken, which is exact, as
    the objective is convex. Where one probability divides the fit rows of a class from
    the rest no finite optimum exists: targets are then smoothed as Platt does. Each
    optimum is found by a damped Newton method, with SciPy's trust region where that
    fails.

    References
    ----------
    .. [1] M. Kull, T. Silva Filho and P. Flach, "Beta calibration: a well-founded and
       easily implemented improvement on logistic calibration for binary classifiers",
       AISTATS 2017.
    """

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return 3 per curve."""
        return 3 * len(curve_columns(k))

    def _fit_curve(
        self, found: Chances, target: FloatArray, weight: FloatArray
    ) -> _Curve:
        mass = counted(weight)
        separable = is_separable(found.log_p - found.log_rest, target)
        wanted = smoothed(target, mass) if separable else target
        features = np.stack([found.log_p, -found.log_rest])
        best = fit_logistic(features, wanted, mass)
        if min(best.slope) < 0.0:
            # The objective is convex: between the best fit and the best one that is
            # allowed lies an edge, a = 0 or b = 0, of one that is negative.
            edges = [(1 - i,) for i in (0, 1) if best.slope[i] < 0.0]
            fits = [fit_logistic(features, wanted, mass, used) for used in edges]
            allowed = [fit for fit in fits if min(fit.slope) >= 0.0]
            if not allowed:
                allowed = [fit_logistic(features, wanted, mass, ())]
            best = min(allowed, key=lambda fit: fit.loss)
        a, b = best.slope
        return _Curve(
            a,
            b,
            best.intercept,
            best.gradient,
            is_flat=a == b == 0.0,
            is_separable=separable,
        )

    def parameters(self) -> dict[str, Any]:
        """Return a, b and c of each curve."""
        return self._state()

    def _state(self) -> dict[str, Any]:
        """Return "a", "b" and "c", one per curve.

        sigmoid(a * log p - b * log(1 - p) + c).
        """
        a, b, c = self.coefficients_.T
        return {"a": a.tolist(), "b": b.tolist(), "c": c.tolist()}

    def _restore(self, state: dict[str, Any]) -> None:
        parts = [np.array(state[name], dtype=np.float64) for name in ("a", "b", "c")]
        if any((part < 0).any() for part in parts[:2]):
            msg = "a or b is negative"
            raise ValueError(msg)
        self._restore_coefficients(np.stack(parts, axis=-1))
