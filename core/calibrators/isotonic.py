"""Calibrators that learn a monotone map of each class's probability."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from core.calibrators.base import CALIBRATORS, Calibrator
from core.messages import Note, Progress

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
        k = logits.shape[1]
        # Weights count by their effective number, whatever their scale.
        n_effective = sample_weight.sum() ** 2 / (sample_weight @ sample_weight)
        self.mixing_ = float(1.0 / (n_effective + 1.0))
        offsets = _offsets(logits)
        columns = [1] if k == 2 else list(range(k))
        self.maps_ = []
        shared: Knots | None = None
        for done, column in enumerate(columns):
            progress(done / len(columns), f"Fitting class {done + 1} of {len(columns)}")
            is_class = y == column
            has_class = sample_weight[is_class].any()
            if k == 2:  # its one curve needs rows of both classes
                has_class = has_class and sample_weight[~is_class].any()
            if not has_class:
                if shared is None:
                    shared = _pooled_knots(logits, offsets, y, sample_weight)
                self.maps_.append(shared)
                continue
            target = is_class.astype(np.float64)
            chance = np.exp(_log_probabilities(logits[:, [column]], offsets)[:, 0])
            self.maps_.append(_knots(chance, target, sample_weight))
        if all(knots[1].size == 1 or np.ptp(knots[1]) == 0 for knots in self.maps_):
            text = "Every curve is flat: the fit rows show no relation to fit."
            self.notes_.append(Note("flat-curves", "warning", text))

    def _transform(self, logits: FloatArray) -> FloatArray:
        logs = _log_probabilities(logits, _offsets(logits))
        probabilities = np.exp(logs)
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
        logs += np.log(self.mixing_)
        return np.asarray(np.logaddexp(mapped, logs), dtype=logits.dtype)

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
        n_classes = self.classes_.size
        if len(self.maps_) != (1 if n_classes == 2 else n_classes):
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


def _offsets(logits: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return each row's maximum and the logarithm of its shifted sum, shape (n, 1).

    A curve can rise by any amount between neighbouring numbers, so that probabilities
    that differ in the last bit may be mapped far apart. They are therefore made by
    NumPy's own steps, the same here as in the exported module.
    """
    shift = logits.max(axis=1, keepdims=True).astype(np.float64)
    total = np.empty_like(shift)
    step = max(1, _POOLED_ROWS // logits.shape[1])
    for start in range(0, logits.shape[0], step):
        rows = slice(start, start + step)
        total[rows] = np.exp(logits[rows] - shift[rows]).sum(axis=1, keepdims=True)
    return shift, np.log(total)


def _log_probabilities(
    logits: FloatArray, offsets: tuple[FloatArray, FloatArray]
) -> FloatArray:
    logs: FloatArray = logits - offsets[0]
    logs -= offsets[1]
    return logs


def _knots(chance: FloatArray, target: FloatArray, weight: FloatArray) -> Knots:
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit(chance, target, sample_weight=weight)
    x: FloatArray = model.X_thresholds_
    y: FloatArray = model.y_thresholds_
    return x, y


def _pooled_knots(
    logits: FloatArray,
    offsets: tuple[FloatArray, FloatArray],
    y: IndexArray,
    weight: FloatArray,
) -> Knots:
    """One curve for all classes, from evenly spaced rows where there are many."""
    n, k = logits.shape
    step = max(1, n * k // _POOLED_ROWS)
    truth, mass = y[::step], weight[::step]
    shift, total = offsets
    some = np.exp(_log_probabilities(logits[::step], (shift[::step], total[::step])))
    target = (truth[:, None] == np.arange(k)).astype(np.float64)
    return _knots(some.ravel(), target.ravel(), np.repeat(mass, k))
