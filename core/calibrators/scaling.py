"""Calibrators that rescale the logits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from core.calibrators.base import CALIBRATORS, Calibrator
from core.messages import Note, Progress, no_progress
from core.row_statistics import RowStatistics
from core.softmax import (
    log_softmax,
    row_statistics,
    temperature_derivatives,
)

__all__ = ["TemperatureScaling", "Uncalibrated", "fitted_temperature"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

LOWEST, HIGHEST = 1e-3, 1e3  # bounds of the fitted temperature
_TOLERANCE = 1e-8  # of the mean gradient, the certificate of the optimum
# What the iteration aims at: float32 sums carry rounding noise of about 1e-10.
_AIM = {np.dtype(np.float32): 1e-9, np.dtype(np.float64): 1e-12}
_SETTLED = {np.dtype(np.float32): 1e-8, np.dtype(np.float64): 1e-13}  # relative step
_MAX_PASSES = 80
_SMOOTH = 0.5  # largest share of a Newton step that the series may add to it
_PART_FROM = 1_000  # rows from which some of them start the fit
_PART = 200  # of them, about
_SHORT = 0.2  # relative step after which a rough optimum is good enough
_LEFT_OUT = 1e-2  # of what the iteration aims at, what the series may leave out
_CLOSE = 1e-3  # step at most, relative to 1/T, at whose end the series is trusted
_NEGLIGIBLE = 1e-3  # relative Newton step at which an optimum needs no second look


@CALIBRATORS.register(
    "uncalibrated",
    label="Uncalibrated",
    reference="-",
    formula=r"\mathrm{softmax}(z)",
    aliases=("none", "identity"),
    when="As the baseline of every comparison.",
    not_when="Never as a repair: it is none.",
    cost="None.",
)
class Uncalibrated(Calibrator):
    """The scores as they came: softmax of the logits, nothing fitted."""

    is_accuracy_preserving = True
    is_order_preserving = True

    @staticmethod
    def n_parameters(k: int) -> int:  # noqa: ARG004 - the same for every k
        """Return 0."""
        return 0

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,
        progress: Progress,
    ) -> None:
        pass

    def _transform(self, logits: FloatArray) -> FloatArray:
        return log_softmax(logits, algorithm="three-pass")

    def _state(self) -> dict[str, Any]:
        """Return nothing: softmax(z)."""
        return {}

    def _restore(self, state: dict[str, Any]) -> None:
        pass


@CALIBRATORS.register(
    "temperature",
    label="Temperature scaling",
    reference="Guo et al. 2017, arXiv:1706.04599",
    formula=r"\mathrm{softmax}(z / T),\quad T = \arg\min_{T>0} \mathrm{NLL}",
    aliases=("temp-scaling", "ts", "temperature-scaling"),
    when="First: one number, hard to overfit, keeps every prediction.",
    not_when=(
        "Classes or regions err in different directions: one number cannot tell "
        "them apart."
    ),
    cost="Milliseconds; one number.",
)
class TemperatureScaling(Calibrator):
    """Divide the logits by one number T, fitted by maximum likelihood.

    Parameters
    ----------
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    temperature_ : float
        T; above 1 it lowers confidence. For one binary score z the two-class logits
        are (0, z), so that T means what Guo et al. mean (pairs (-z, z), as some
        libraries build them, double it).
    beta_ : float
        1 / T.
    gradient_ : float
        Mean derivative of the NLL in 1/T at the optimum: the certificate, at most
        1e-8 (1e-8 T where T is above 1) unless a bound was hit.
    nll_after_ : float
        Mean NLL of the fit rows at the optimum.
    log_standard_error_ : float
        Of ln T, from the sandwich of gradient and curvature, by group where groups
        were given; NaN at a bound.
    n_iterations_ : int
        Passes over the rows.
    is_at_bound_ : bool

    Notes
    -----
    The NLL is convex in 1/T; the iteration stays inside a bracket of the root of its
    slope, so that it cannot diverge. T stays within 0.001 to 1000.
    """

    is_accuracy_preserving = True
    is_order_preserving = True

    temperature_: float
    gradient_: float
    nll_after_: float
    log_standard_error_: float
    n_iterations_: int
    is_at_bound_: bool

    @staticmethod
    def n_parameters(k: int) -> int:  # noqa: ARG004 - the same for every k
        """Return 1."""
        return 1

    @property
    def beta_(self) -> float:
        """Inverse temperature."""
        return 1.0 / self.temperature_

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the sandwich interval of T, symmetric in ln T."""
        half = special.ndtri(0.5 + level / 2) * self.log_standard_error_
        return (
            float(self.temperature_ * np.exp(-half)),
            float(self.temperature_ * np.exp(half)),
        )

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,
        progress: Progress,
    ) -> None:
        fit = _NewtonFit(logits, y, sample_weight, progress)
        beta = fit.minimise()
        self.temperature_ = 1.0 / beta
        self.gradient_ = fit.slope
        self.nll_after_ = fit.loss
        self.n_iterations_ = fit.n_passes
        self.is_at_bound_ = fit.bound is not None
        self.log_standard_error_ = float("nan")
        if fit.bound is None:
            self.log_standard_error_ = fit.standard_error(groups) / beta
        self._remark(fit, logits, y)

    def _remark(self, fit: _NewtonFit, logits: FloatArray, y: IndexArray) -> None:
        if fit.bound is not None:
            is_low = fit.bound == "low"
            if is_low and (logits.argmax(axis=1) == y).all():
                why = "all fit rows are right, so that no finite T fits"
            elif is_low:
                why = "the logits are very small, or the fit rows say too little"
            elif fit.is_informative:
                why = "the logits are very large; divide them before they are saved"
            else:
                why = "the labels do not match the logits better than chance"
            text = f"T is at its bound {self.temperature_:g}: {why}."
            self.notes_.append(Note("fit-at-bound", "warning", text))
        elif abs(self.gradient_) > _TOLERANCE * max(1.0, self.temperature_):
            text = (
                f"The fit stopped with a gradient of {self.gradient_:.2g} per row "
                f"after {self.n_iterations_} passes."
            )
            self.notes_.append(Note("not-converged", "warning", text))
        if fit.n_impossible:
            text = (
                f"{fit.n_impossible:,} fit rows have a label whose logit is -inf; no "
                "temperature helps them and they were left out of the fit."
            )
            self.notes_.append(Note("impossible-label", "warning", text))

    def _transform(self, logits: FloatArray) -> FloatArray:
        # Three passes subtract the maximum before the division rounds: exports that
        # are written in NumPy agree to the last digits whatever the size of logits.
        return log_softmax(
            logits, temperature=self.temperature_, algorithm="three-pass"
        )

    def row_statistics(
        self,
        logits: FloatArray,
        labels: IndexArray | None = None,
        *,
        features: FloatArray | None = None,  # noqa: ARG002 - part of the contract
        copies: FloatArray | None = None,  # noqa: ARG002
    ) -> RowStatistics:
        """Return statistics of the calibrated rows in one trip over the logits."""
        if self.input == "probabilities":
            return super().row_statistics(logits, labels)
        return row_statistics(logits, labels, temperature=self.temperature_)

    def _state(self) -> dict[str, Any]:
        """Return "temperature" T: softmax(z / T)."""
        return {"temperature": self.temperature_}

    def _restore(self, state: dict[str, Any]) -> None:
        self.temperature_ = float(state["temperature"])
        if not LOWEST <= self.temperature_ <= HIGHEST:
            msg = f"temperature {self.temperature_!r} is outside its bounds"
            raise ValueError(msg)


def fitted_temperature(
    logits: FloatArray,
    y: IndexArray,
    sample_weight: FloatArray,
    groups: IndexArray | None = None,
    progress: Progress = no_progress,
) -> TemperatureScaling:
    """Return temperature scaling of checked arrays, where another fit starts."""
    made = TemperatureScaling()
    made.notes_ = []
    made._fit(logits, y, sample_weight, groups=groups, progress=progress)
    return made


class _NewtonFit:
    """Safeguarded iteration for the root of the NLL's slope in 1/T.

    Each pass over the rows gives the slope and its first three derivatives; the root
    of their series is the next point, or a Newton step where the series is no guide.
    """

    def __init__(
        self,
        logits: FloatArray,
        y: IndexArray,
        weight: FloatArray,
        progress: Progress = no_progress,
        *,
        every: int = 1,
    ) -> None:
        self.logits, self.y, self.progress = logits, y, progress
        self.every = every  # y and weight are those of every so-many-th row
        # A row without weight must not contribute, not even an infinite loss.
        self.weight = weight / weight.sum()
        self.n_passes = 0
        self.n_impossible = 0
        self.bound: str | None = None
        self.is_informative = True
        self.loss = self.slope = self.curvature = float("nan")
        self._bends = (0.0, 0.0)  # second and third derivative of the slope
        self._rows: FloatArray = np.empty((5, 0))
        self._used = self.weight

    def at(self, beta: float) -> float:
        """Evaluate at one inverse temperature: one pass; return the slope."""
        rows = temperature_derivatives(self.logits, self.y, beta, every=self.every)
        self.n_passes += 1
        self._rows, self._used = rows, self.weight
        sums = rows @ self._used
        if not np.isfinite(sums[0]):
            impossible = np.isposinf(rows[0])
            self.n_impossible = int((impossible & (self.weight > 0)).sum())
            self._used = np.where(impossible, 0.0, self.weight)
            self._used /= self._used.sum() or 1.0
            rows[0, impossible] = 0.0
            sums = rows @ self._used
        self.loss, self.slope, self.curvature, *bends = sums.tolist()
        self._bends = bends[0], bends[1]
        return self.slope

    def _is_known_at(self, beta: float, step: float) -> bool:
        """Whether the series around a point says enough of another to spare a pass.

        What it leaves out must be lost in the rounding of the slope. That is judged by
        how fast the terms fall that it has.
        """
        gap = abs(step - beta)
        if not (gap <= _CLOSE * beta and self.curvature > _TOLERANCE):
            return False
        bent = abs(self._bends[0]) / (2.0 * self.curvature) * gap
        twice = np.sqrt(abs(self._bends[1]) / (6.0 * self.curvature)) * gap
        ratio = max(bent, twice, gap / beta)
        left_out = self.curvature * gap * ratio**3
        return bool(left_out <= _LEFT_OUT * _AIM[self.logits.dtype])

    def _move(self, gap: float) -> None:
        """Go on to a point nearby, where the rows are what their series say."""
        rows, (third, fourth) = self._rows, self._bends
        self.loss += gap * (self.slope + gap / 2 * (self.curvature + gap / 3 * third))
        self.slope += gap * (self.curvature + gap / 2 * (third + gap / 3 * fourth))
        self.curvature += gap * (third + gap / 2 * fourth)
        rows[1] += gap * (rows[2] + gap / 2 * rows[3])

    def minimise(self, *, is_rough: bool = False) -> float:
        """Return the inverse temperature of least NLL within the bounds.

        A rough one is not looked at again after the first short step.
        """
        low, high = 1.0 / HIGHEST, 1.0 / LOWEST
        is_low_known = is_high_known = False  # whether the slope there was seen
        aim, previous = _AIM[self.logits.dtype], np.inf
        beta = self._rough_start()
        for _ in range(_MAX_PASSES):
            self.progress(min(0.9, self.n_passes / 10), "Fitting the temperature")
            slope = self.at(beta)
            if abs(slope) <= aim or self._is_there(beta, previous):
                return self._far_end(beta)
            previous = abs(slope)
            if slope > 0 and beta == low:
                self.bound = "high"
                # Near 1/T = 0 the loss falls wherever the labels follow the logits.
                self.is_informative = self.at(0.0) < 0.0
                self.at(beta)
                return beta
            if slope < 0 and beta == high:
                self.bound = "low"
                return beta
            if slope > 0:
                high, is_high_known = beta, True
            else:
                low, is_low_known = beta, True
            step = self._step(beta)
            if is_rough and abs(step - beta) < _SHORT * beta:
                return float(step)
            if low < step < high and self._is_known_at(beta, step):
                self._move(step - beta)
                return float(step)
            # Far from the optimum the curvature there is unknown.
            step = min(max(step, beta / 4.0), beta * 4.0)
            if step >= high:
                step = np.sqrt(low * high) if is_high_known else high
            elif step <= low:
                step = np.sqrt(low * high) if is_low_known else low
            if abs(step - beta) <= 1e-15 * beta:
                return beta
            beta = float(step)
        return beta

    def _is_there(self, beta: float, previous: float) -> bool:
        """Whether another pass would change nothing but digits that no row supports."""
        if abs(self.slope) > _TOLERANCE:
            return False
        settled = _SETTLED[self.logits.dtype]
        is_near = abs(self.slope) <= settled * beta * self.curvature
        return is_near or abs(self.slope) >= 0.5 * previous

    def _rough_start(self) -> float:
        """Return about the optimum of some of many rows; 1 of few.

        From there, the first step over all rows is so good that the second needs no
        pass to prove it.
        """
        n_rows = len(self.weight)
        every = n_rows // _PART
        part = self.weight[::every] if n_rows >= _PART_FROM else np.zeros(0)
        if not part.sum() > 0:
            return 1.0
        rough = _NewtonFit(self.logits, self.y[::every], part, every=every)
        beta = rough.minimise(is_rough=True)
        return 1.0 if rough.bound is not None else beta

    def _far_end(self, beta: float) -> float:
        """Return `beta`, or the bound where the loss only looks flat at `beta`.

        Where every row is right by a wide margin the slope rounds to 0 long before
        the loss stops falling.
        """
        flat = self.curvature < _TOLERANCE and abs(self._newton_step() / beta)
        if not flat > _NEGLIGIBLE:
            return beta
        highest = 1.0 / LOWEST
        if self.at(1.0 / HIGHEST) < 0.0 and self.at(highest) <= 0.0:
            self.bound = "low"
            return highest
        self.at(beta)
        return beta

    def _step(self, beta: float) -> float:
        """Return where the slope should be 0, seen from this point."""
        newton = self._newton_step()
        if not np.isfinite(newton):
            return beta + newton
        a, b = (
            self._bends[0] / (2 * self.curvature),
            self._bends[1] / (6 * self.curvature),
        )
        first, second = -a * newton, (2 * a * a - b) * newton * newton
        if abs(first) + abs(second) < _SMOOTH:
            return beta + newton * (1 + first + second)
        return beta + newton

    def _newton_step(self) -> float:
        if self.curvature <= 0:
            return float(np.copysign(np.inf, -self.slope))
        return -self.slope / self.curvature

    def standard_error(self, groups: IndexArray | None) -> float:
        """Return the sandwich standard error of 1/T at the last point."""
        if self.curvature <= 0:
            return float("nan")
        parts = self._used * self._rows[1]
        if groups is not None:
            unit = np.unique(groups, return_inverse=True)[1]
            parts = np.asarray(np.bincount(unit, parts), dtype=np.float64)
        n = int(np.count_nonzero(parts))
        meat = float(np.square(parts).sum()) * n / max(n - 1.0, 1.0)
        return float(np.sqrt(meat)) / self.curvature
