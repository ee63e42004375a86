"""Calibrators that learn a monotone map of each class's probability."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.calibrators.base import CALIBRATORS
from core.calibrators.one_vs_rest import (
    Chances,
    OneVsRest,
    curve_columns,
    effective_rows,
    log_probabilities,
    renormalised,
    row_offsets,
)
from core.messages import Note

__all__ = ["IsotonicCalibration"]

FloatArray = NDArray[np.floating[Any]]
Knots = tuple[FloatArray, FloatArray]


@CALIBRATORS.register(
    "isotonic",
    label="Isotonic, one-vs-rest",
    reference="Zadrozny and Elkan 2002",
    formula=r"q_k \propto f_k(p_k),\quad f_k \text{ non-decreasing, least squares}",
    aliases=("isotonic-ovr", "ir"),
    when="Two classes, ten thousand rows or more, a curve of no known shape.",
    not_when="Few rows: it steps, ties rows and may say 0 or 1 after all.",
    cost="One sort per class.",
)
class IsotonicCalibration(OneVsRest):
    """Map each class's probability by a step-like rising curve, then renormalise.

    Parameters
    ----------
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    maps_ : list of (x, y)
        Knots of each class's curve, linear in between and constant outside; one
        curve for two classes (of the second class).
    mixing_ : float
        1 / (n + 1) for n fit rows, by their effective number where they have weights:
        the weight of the uncalibrated probabilities in the result.

    Notes
    -----
    Two classes have one curve and the first class the rest. For more, every class is
    fitted against the rest and rows are renormalised (rows of zeros become uniform),
    as scikit-learn does. Isotonic curves contain exact zeros, which would make the
    log loss infinite on the first surprise: the result is mixed with the uncalibrated
    probabilities as if one more row had voted for them. A class without fit rows
    gets the curve fitted on the pooled pairs of all classes.
    """

    maps_: list[Knots]
    mixing_: float

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return the number of curves; each has as many knots as the rows ask for."""
        return len(curve_columns(k))

    @property
    def n_fitted_(self) -> int:
        """Number of knots of all curves."""
        return sum(len(x) for x, _ in self.maps_)

    def _fit_curve(
        self, found: Chances, target: FloatArray, weight: FloatArray
    ) -> Knots:
        # Importing scikit-learn is slow, and few sessions fit a step function.
        from sklearn.isotonic import IsotonicRegression

        model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
        model.fit(np.exp(found.log_p), target, sample_weight=weight)
        return model.X_thresholds_, model.y_thresholds_

    def _keep(self, curves: list[Any], weight: FloatArray) -> None:
        self.maps_ = curves
        self.mixing_ = 1.0 / (effective_rows(weight) + 1.0)
        if all(y.size == 1 or np.ptp(y) == 0 for _, y in curves):
            text = "Every curve is flat: the fit rows show no relation to fit."
            self.notes_.append(Note("flat-curves", "warning", text))

    def map_probability(self, p: FloatArray, curve: int = 0) -> FloatArray:
        """Return what one curve makes of probabilities, before renormalising."""
        mapped = np.interp(p, *self.maps_[curve])
        return np.asarray((1.0 - self.mixing_) * mapped + self.mixing_ * np.asarray(p))

    def breaks(self, curve: int = 0) -> FloatArray:
        """Return the knots."""
        return self.maps_[curve][0]

    def _log_map(self, logits: FloatArray) -> FloatArray:
        logs = log_probabilities(logits, row_offsets(logits))
        probabilities = np.exp(logs)
        mapped: FloatArray = np.empty(probabilities.shape)
        if probabilities.shape[1] == 2:
            mapped[:, 1] = np.interp(probabilities[:, 1], *self.maps_[0])
            mapped[:, 0] = 1.0 - mapped[:, 1]
        else:
            for column, knots in enumerate(self.maps_):
                mapped[:, column] = np.interp(probabilities[:, column], *knots)
        mapped = renormalised(mapped, np.isneginf(logits))
        with np.errstate(divide="ignore"):
            mapped *= 1.0 - self.mixing_
            np.log(mapped, out=mapped)
        logs += np.log(self.mixing_)
        return np.asarray(np.logaddexp(mapped, logs))

    def parameters(self) -> dict[str, Any]:
        """Return the number of knots of each curve."""
        return {"n_knots": [int(x.size) for x, _ in self.maps_]}

    def _state(self) -> dict[str, Any]:
        """Return "mixing", and "maps", one per curve, of knots "x" and "y".

        Linear between knots, constant outside; the result is
        (1 - mixing) * mapped + mixing * p.
        """
        return {
            "mixing": self.mixing_,
            "maps": [{"x": x.tolist(), "y": y.tolist()} for x, y in self.maps_],
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.mixing_ = float(state["mixing"])
        self.maps_ = [
            (np.array(item["x"], dtype=np.float64), np.array(item["y"], np.float64))
            for item in state["maps"]
        ]
        n_classes = self.classes_.size
        if len(self.maps_) != len(curve_columns(n_classes)):
            msg = f"there are {len(self.maps_)} curves for {n_classes} classes"
            raise ValueError(msg)
        if not 0.0 < self.mixing_ <= 1.0:
            msg = f"the mixing {self.mixing_!r} is not a share"
            raise ValueError(msg)
        for x, y in self.maps_:
            is_curve = x.ndim == 1 and x.shape == y.shape and x.size > 0
            if not is_curve or not (np.diff(x) >= 0).all():
                msg = "the knots of a curve do not match or do not ascend"
                raise ValueError(msg)
            if not ((y >= 0) & (y <= 1)).all():
                msg = "a curve leaves 0 to 1"
                raise ValueError(msg)
