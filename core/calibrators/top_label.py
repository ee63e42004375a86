"""Top-versus-all: a temperature for the one question, is the prediction right."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from core.calibrators.base import CALIBRATORS, Calibrator
from core.calibrators.row_losses import TOP_LABEL, RowLoss, is_right
from core.calibrators.row_temperature import divided
from core.calibrators.scaling import HIGHEST, LOWEST
from core.messages import Note, Progress

__all__ = [
    "COMMON",
    "TopLabel",
    "TopVersusAll",
    "checked_temperature",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

COMMON: dict[str, Any] = {
    "reference": "Le Coz, Herbin and Adjed 2024, arXiv:2411.02988",
    "when": "Only the confidence of the predicted class matters.",
    "not_when": "Probabilities of the other classes are used.",
    "cost": "Milliseconds; one curve for all classes.",
}
_N_GRID = 25  # temperatures tried before the search between two of them


class TopLabel(Calibrator):
    """Base: the prediction and the order of the classes never change."""

    is_accuracy_preserving = is_order_preserving = True


@CALIBRATORS.register(
    "top-versus-all",
    label="Top-versus-all temperature",
    **COMMON | {"cost": "Milliseconds; one number."},
    formula=(
        r"\mathrm{softmax}(z / T),\quad T = \arg\min_{T>0} \sum_i "
        r"-c_i \ln q_i - (1 - c_i) \ln(1 - q_i),\quad q = \max_k p_k"
    ),
    aliases=("tva", "top-versus-all-temperature"),
)
class TopVersusAll(TopLabel):
    """Divide the logits by the T whose confidences say best which rows are right.

    Parameters
    ----------
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    temperature_ : float
        T; above 1 it lowers confidence.
    loss_before_, loss_after_ : float
        Mean log loss of the confidence on the fit rows, at T = 1 and at the optimum.
    is_at_bound_ : bool

    Notes
    -----
    Temperature scaling asks for the probability of the true class, this for the
    probability that the prediction is right: rows that are wrong say nothing about
    which class is right instead [1]_. The loss is not convex in T: 25 temperatures
    from 0.001 to 1000 are tried, and the best neighbourhood is searched.

    References
    ----------
    .. [1] A. Le Coz, S. Herbin and F. Adjed, "Confidence calibration of classifiers
       with many classes", NeurIPS 2024, arXiv:2411.02988.
    """

    temperature_: float
    loss_before_: float
    loss_after_: float
    is_at_bound_: bool

    @staticmethod
    def n_parameters(k: int) -> int:  # noqa: ARG004 - the same for every k
        """Return 1."""
        return 1

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,  # noqa: ARG002 - T has no interval here
        progress: Progress,
    ) -> None:
        # Rows with one open class are right or wrong at any temperature.
        is_usable = (logits > -np.inf).sum(axis=1) > 1
        used = np.flatnonzero((sample_weight > 0) & is_usable)
        self.temperature_, self.is_at_bound_ = 1.0, not used.size
        self.loss_before_ = self.loss_after_ = float("nan")
        if used.size:
            self._search(logits[used], y[used], sample_weight[used], progress)
        right = is_right(logits[used], y[used])
        if self.is_at_bound_:
            why = "the confidences say nothing about which rows are right"
            if right.all() or not right.any():
                why = f"all fit rows are {'right' if right.all() else 'wrong'}"
            text = f"T is at its bound {self.temperature_:g}: {why}."
            self.notes_.append(Note("fit-at-bound", "warning", text))

    def _search(
        self, logits: FloatArray, y: IndexArray, weight: FloatArray, progress: Progress
    ) -> None:
        loss = RowLoss(logits, y, weight, TOP_LABEL)
        rows = np.arange(y.size)
        n_done = 0

        def value(log_t: float) -> float:
            nonlocal n_done
            n_done += 1
            progress(min(0.95, n_done / 50), "Fitting the temperature")
            return loss(np.full(rows.size, log_t), rows)[0]

        grid = np.linspace(np.log(LOWEST), np.log(HIGHEST), _N_GRID)
        values = np.array([value(point) for point in grid])
        best = int(values.argmin())
        self.loss_before_ = value(0.0)
        self.is_at_bound_ = best in (0, _N_GRID - 1)
        found, self.loss_after_ = float(grid[best]), float(values[best])
        if not self.is_at_bound_:
            low, high = grid[best - 1], grid[best + 1]
            options = {"xatol": 1e-8, "maxiter": 100}
            near = scipy.optimize.minimize_scalar(
                value, bounds=(low, high), method="bounded", options=options
            )
            if near.fun <= self.loss_after_:
                found, self.loss_after_ = float(near.x), float(near.fun)
        self.temperature_ = float(np.clip(np.exp(found), LOWEST, HIGHEST))

    def _transform(self, logits: FloatArray) -> FloatArray:
        return divided(logits, np.full(len(logits), self.temperature_))

    def _state(self) -> dict[str, Any]:
        """Return "temperature" T: softmax(z / T)."""
        return {"temperature": self.temperature_}

    def _restore(self, state: dict[str, Any]) -> None:
        self.temperature_ = checked_temperature(state)


def checked_temperature(state: dict[str, Any]) -> float:
    """Return the temperature of a saved calibrator, or raise ValueError."""
    value = float(state["temperature"])
    if not LOWEST <= value <= HIGHEST:
        msg = f"temperature {value!r} is outside its bounds"
        raise ValueError(msg)
    return value
