"""Calibrators that learn a monotone map of each class's probability."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from core.calibrators.base import CALIBRATORS, Calibrator
from core.messages import Note, Progress
from core.softmax import log_softmax, softmax

__all__ = ["IsotonicCalibration"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]
Knots = tuple[FloatArray, FloatArray]

_POOLED_ROWS = 1_000_000  # (row, class) pairs that the shared map is fitted on


@CALIBRATORS.register(
    "isotonic",
    label="Isotonic, one-vs-rest",
    reference="Zadrozny and Elkan 2002",
    formula=r"q_k \propto f_k(p_k),\quad f_k \text{ non-decreasing, least squares}",
    aliases=("isotonic-ovr", "ir"),
)
class IsotonicCalibration(Calibrator):
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
        1 / (n + 1) for n fit rows: the weight of the uncalibrated probabilities in
        the result.

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
        return 1 if k == 2 else k

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,  # noqa: ARG002 - curves have no interval
        progress: Progress,
    ) -> None:
        n, k = logits.shape
        self.mixing_ = 1.0 / (n + 1.0)
        probabilities = softmax(logits)
        columns = [1] if k == 2 else list(range(k))
        self.maps_ = []
        shared: Knots | None = None
        for done, column in enumerate(columns):
            progress(done / len(columns), f"Fitting class {done + 1} of {len(columns)}")
            is_class = y == column
            if k > 2 and not is_class.any():
                if shared is None:
                    shared = _pooled_knots(probabilities, y, sample_weight)
                self.maps_.append(shared)
                continue
            target = is_class.astype(np.float64)
            self.maps_.append(_knots(probabilities[:, column], target, sample_weight))
        if all(knots[1].size == 1 or np.ptp(knots[1]) == 0 for knots in self.maps_):
            text = "Every curve is flat: the fit rows show no relation to fit."
            self.notes_.append(Note("flat-curves", "warning", text))

    def _transform(self, logits: FloatArray) -> FloatArray:
        probabilities = softmax(logits)
        k = probabilities.shape[1]
        mapped = np.empty(probabilities.shape, dtype=np.float64)
        if k == 2:
            mapped[:, 1] = np.interp(probabilities[:, 1], *self.maps_[0])
            mapped[:, 0] = 1.0 - mapped[:, 1]
        else:
            for column, knots in enumerate(self.maps_):
                mapped[:, column] = np.interp(probabilities[:, column], *knots)
            total = mapped.sum(axis=1, keepdims=True)
            np.divide(mapped, total, out=mapped, where=total > 0)
            mapped[total[:, 0] <= 0] = 1.0 / k
        with np.errstate(divide="ignore"):
            mapped *= 1.0 - self.mixing_
            np.log(mapped, out=mapped)
        rest = log_softmax(logits).astype(np.float64) + np.log(self.mixing_)
        return np.asarray(np.logaddexp(mapped, rest), dtype=logits.dtype)

    def parameters(self) -> dict[str, Any]:
        """Return the number of knots of each curve."""
        return {"n_knots": [int(x.size) for x, _ in self.maps_]}

    def _state(self) -> dict[str, Any]:
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
        for x, y in self.maps_:
            if x.shape != y.shape or not x.size or (np.diff(x) < 0).any():
                msg = "the knots of a curve do not match or do not ascend"
                raise ValueError(msg)


def _knots(chance: FloatArray, target: FloatArray, weight: FloatArray) -> Knots:
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit(chance.astype(np.float64), target, sample_weight=weight)
    x: FloatArray = model.X_thresholds_
    y: FloatArray = model.y_thresholds_
    return x, y


def _pooled_knots(chance: FloatArray, y: IndexArray, weight: FloatArray) -> Knots:
    """One curve for all classes, from evenly spaced rows where there are many."""
    n, k = chance.shape
    step = max(1, n * k // _POOLED_ROWS)
    some, truth, mass = chance[::step], y[::step], weight[::step]
    target = (truth[:, None] == np.arange(k)).astype(np.float64)
    return _knots(some.ravel(), target.ravel(), np.repeat(mass, k))
