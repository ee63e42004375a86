"""Softplus link: a softmax whose exponential turns into a straight line at the top."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy import special

from core.calibrators.base import CALIBRATORS, Calibrator
from core.calibrators.scaling import HIGHEST, LOWEST, fitted_temperature
from core.messages import Note, Progress, part_of
from core.parallel import map_rows
from core.softmax import log_softmax

__all__ = ["SoftplusLink"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

EXPONENTIAL_BELOW = -36.0  # there log softplus(x) is x, to the last digit
_BENDS = (-20.0, 20.0)  # bounds of b: at the ends nothing changes any more
_STARTS = (-6.0, 0.0, 4.0)
_CELLS = 1 << 20  # scores that the starts are compared on
_TOLERANCE = 1e-6  # of the gradient
_ROW_BYTES = 64


@CALIBRATORS.register(
    "softplus-link",
    label="Softplus link",
    reference="Gao & Spratling 2025, arXiv:2501.13428",
    formula=(
        r"p_k' \propto \ln\!\left(1 + e^{\ln p_k / T + b}\right),\quad "
        r"\min_{T > 0,\, b}\ \mathrm{NLL}"
    ),
    when="Predictions must stay, and the top is off where the rest is right.",
    not_when="One temperature is enough: look at it first.",
    cost="Some dozen passes over the rows.",
    tier="more",
    aliases=("softplus",),
)
class SoftplusLink(Calibrator):
    """Normalise softplus instead of the exponential: the large scores grow slower.

    Parameters
    ----------
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    temperature_ : float
        T, within 0.001 to 1,000.
    bend_ : float
        b, within -20 to 20: where the exponential turns into a straight line. Far
        below 0 this is temperature scaling; above 0 large probabilities come closer to
        each other than small ones.
    gradient_ : float
        Larger of the two derivatives of the mean NLL, by ln T and by b, at the
        optimum; at a bound, of what could still move.
    nll_before_, nll_after_ : float
        Mean NLL of the fit rows under temperature scaling and at the optimum.

    Notes
    -----
    The normaliser of length-scaled softplus attention [1]_, used as a calibrator: two
    numbers and the order is kept. Softplus takes notice of a constant that is added to
    all its inputs, unlike softmax; the inputs are therefore log-probabilities, which
    have none, and b is that constant, fitted. The loss is not convex: the fit starts
    from three values of b, on a part of the rows where there are many, and never
    returns anything worse on the fit rows than temperature scaling.

    References
    ----------
    .. [1] B. Gao, M. W. Spratling, "Softplus attention with re-weighting boosts length
       extrapolation in large language models", arXiv:2501.13428.
    """

    is_accuracy_preserving = True
    is_order_preserving = True

    temperature_: float
    bend_: float
    gradient_: float
    nll_before_: float
    nll_after_: float

    @staticmethod
    def n_parameters(k: int) -> int:  # noqa: ARG004 - the same for every k
        """Return 2: T and b."""
        return 2

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,
        progress: Progress,
    ) -> None:
        part = part_of(progress, 0.0, 0.1)
        first = fitted_temperature(logits, y, sample_weight, groups, part)
        self.notes_ += first.notes_
        start = np.log(first.temperature_)
        self.temperature_, self.bend_ = first.temperature_, _BENDS[0]
        self.gradient_, self.nll_before_, self.nll_after_ = 0.0, np.nan, np.nan
        used = np.isfinite(logits[np.arange(y.size), y]) & (sample_weight > 0)
        if not used.any():
            return
        fit = _LinkFit(logits[used], y[used], sample_weight[used], progress)
        rough = fit.part()
        candidates = [rough.minimise(np.array([start, b])) for b in _STARTS]
        best = min(candidates, key=lambda point: rough.value(point)[0])
        point = fit.minimise(best)
        stays = np.array([start, _BENDS[0]])
        self.nll_before_ = fit.value(stays)[0]
        point = min((stays, point), key=lambda point: fit.value(point)[0])
        self.nll_after_, slope = fit.value(point)
        self.temperature_ = float(np.clip(np.exp(point[0]), LOWEST, HIGHEST))
        self.bend_ = float(point[1])
        moved = np.clip(point - slope, *fit.bounds)
        self.gradient_ = float(np.abs(moved - point).max())
        if not self.gradient_ <= _TOLERANCE:
            text = f"The fit stopped with a gradient of {self.gradient_:.2g}."
            self.notes_.append(Note("not-converged", "warning", text))

    def _transform(self, logits: FloatArray) -> FloatArray:
        result = np.empty(logits.shape, logits.dtype)

        def rows(start: int, stop: int) -> None:
            z = logits[start:stop].astype(np.float64)
            x = log_softmax(z, algorithm="three-pass") / self.temperature_ + self.bend_
            result[start:stop] = log_softmax(_log_softplus(x), algorithm="three-pass")

        map_rows(rows, len(logits), 32 * logits.shape[1] + _ROW_BYTES)
        return result

    def _state(self) -> dict[str, Any]:
        """Return "temperature" T and "bend" b.

        log(1 + exp(log(p) / T + b)), divided by its sum over the classes; p =
        softmax(z).
        """
        return {"temperature": self.temperature_, "bend": self.bend_}

    def _restore(self, state: dict[str, Any]) -> None:
        self.temperature_ = float(state["temperature"])
        self.bend_ = float(state["bend"])
        low, high = _BENDS
        is_sound = LOWEST <= self.temperature_ <= HIGHEST and low <= self.bend_ <= high
        if not is_sound:
            msg = "the temperature or the bend is out of range"
            raise ValueError(msg)


class _LinkFit:
    """The mean NLL in (ln T, b), and its least value from a start."""

    bounds = np.array([[np.log(LOWEST), _BENDS[0]], [np.log(HIGHEST), _BENDS[1]]])

    def __init__(
        self,
        logits: FloatArray,
        y: IndexArray,
        weight: FloatArray,
        progress: Progress,
    ) -> None:
        self.logits, self.y, self.weight = logits, y, weight / weight.sum()
        self.progress, self.n_passes = progress, 0

    def part(self) -> _LinkFit:
        """Return the same of evenly spaced rows, where there are many."""
        step = max(1, self.logits.size // _CELLS)
        some = slice(None, None, step)
        return _LinkFit(self.logits[some], self.y[some], self.weight[some], self._told)

    def _told(self, fraction: float, message: str) -> None:
        self.progress(0.1 + 0.4 * fraction, message)

    def value(self, point: FloatArray) -> tuple[float, FloatArray]:
        """Return the mean NLL and its gradient."""
        inverse, bend = np.exp(-point[0]), point[1]

        def rows(start: int, stop: int) -> FloatArray:
            z = self.logits[start:stop].astype(np.float64)
            x = log_softmax(z, algorithm="three-pass") * inverse
            here = np.arange(stop - start), self.y[start:stop]
            logs = _log_softplus(x + bend)
            found = log_softmax(logs, algorithm="three-pass")
            with np.errstate(invalid="ignore"):
                # sigmoid / softplus, in logarithms: it is 1 far below 0
                rate = np.exp(special.log_expit(x + bend) - logs)
            rate[np.isneginf(x)] = 0.0
            x[np.isneginf(x)] = 0.0
            residual = np.exp(found) * rate
            by_bend = residual.sum(axis=1) - rate[here]
            by_log_t = rate[here] * x[here] - (residual * x).sum(axis=1)
            sums = np.stack([-found[here], by_log_t, by_bend])
            return np.asarray(sums @ self.weight[start:stop])

        self.n_passes += 1
        share = min(0.95, 0.5 + self.n_passes / 40)
        self.progress(share, "Fitting the temperature and the bend")
        parts = map_rows(rows, len(self.y), 32 * self.logits.shape[1] + _ROW_BYTES)
        total = np.sum(parts, axis=0)
        return float(total[0]), total[1:]

    def minimise(self, start: FloatArray) -> FloatArray:
        """Return the point of least NLL near a start."""
        found = scipy.optimize.minimize(
            self.value,
            np.clip(start, *self.bounds),
            jac=True,
            method="L-BFGS-B",
            bounds=scipy.optimize.Bounds(*self.bounds),
            options={"gtol": _TOLERANCE / 2, "ftol": 0.0, "maxiter": 100},
        )
        return np.asarray(found.x)


def _log_softplus(x: FloatArray) -> FloatArray:
    """Return log(log(1 + exp(x))), exact where x is far below 0 too."""
    with np.errstate(divide="ignore"):
        logs = np.log(np.logaddexp(0.0, x))
    return np.where(x < EXPONENTIAL_BELOW, x, logs)
