"""Ensemble temperature scaling: a mixture of three answers that agree on the order."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from core.calibrators.base import CALIBRATORS, Calibrator
from core.calibrators.scaling import HIGHEST, LOWEST, fitted_temperature
from core.messages import Note, Progress, part_of
from core.parallel import map_rows
from core.softmax import log_softmax

__all__ = ["EnsembleTemperature"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_LARGEST_UNIFORM = 0.999  # with more, which class is first would drown in rounding
_N_ROUNDS = 30  # of expectation and maximisation, which lead to a good start
_TOLERANCE = 1e-6  # of the certificate
_TINY = 1e-300  # a chance below it counts as this much
_ROW_BYTES = 64


@CALIBRATORS.register(
    "ensemble-temperature",
    label="Ensemble temperature",
    reference="Zhang et al. 2020, arXiv:2003.07329",
    formula=(
        r"w_1\,\mathrm{softmax}(z / T) + w_2\,\mathrm{softmax}(z) + w_3 / K,\quad "
        r"w \ge 0,\ \textstyle\sum w = 1,\quad \min_T \mathrm{NLL},\ "
        r"\text{then}\ \min_w \mathrm{NLL}"
    ),
    aliases=("ets", "ensemble-temperature-scaling"),
    when=(
        "Labels are noisy, so that even sure rows are sometimes wrong: the uniform "
        "share caps the confidence."
    ),
    not_when="Classes err in different directions.",
    cost="As temperature scaling; three numbers.",
)
class EnsembleTemperature(Calibrator):
    """Mix the scores at a temperature with the scores as they are and the uniform.

    Parameters
    ----------
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    temperature_ : float
        T of temperature scaling on the same rows.
    weights_ : ndarray of shape (3,)
        Shares of softmax(z / T), of softmax(z) and of the uniform distribution; the
        last is at most 0.999.
    gradient_ : float
        How much mean NLL a small share could still win by changing the answer, per
        unit: the certificate, 0 at the optimum.
    nll_before_, nll_after_ : float
        Mean NLL of the fit rows under temperature scaling and at the optimum.

    Notes
    -----
    The uniform distribution covers the classes of a row that are not ruled out. Its
    share caps the confidence at 1 - w_3 (K - 1) / K. As in [1]_ the temperature is
    found first and the weights second; both by the NLL, as all is ranked here (the
    authors' code takes the squared error unless told otherwise). The loss is convex
    in the weights: expectation and maximisation find a good start, SciPy's SLSQP the
    optimum.

    References
    ----------
    .. [1] J. Zhang, B. Kailkhura, T. Y.-J. Han, "Mix-n-Match: ensemble and
       compositional methods for uncertainty calibration in deep learning", ICML 2020,
       arXiv:2003.07329.
    """

    is_accuracy_preserving = True
    is_order_preserving = True

    temperature_: float
    weights_: FloatArray
    gradient_: float
    nll_before_: float
    nll_after_: float

    @staticmethod
    def n_parameters(k: int) -> int:  # noqa: ARG004 - the same for every k
        """Return 3: T and two free weights."""
        return 3

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,
        progress: Progress,
    ) -> None:
        part = part_of(progress, 0.0, 0.9)
        first = fitted_temperature(logits, y, sample_weight, groups, part)
        self.notes_ += first.notes_
        self.temperature_ = first.temperature_
        progress(0.9, "Fitting the weights of the ensemble")
        here = np.arange(y.size)
        used = np.isfinite(logits[here, y]) & (sample_weight > 0)
        if not used.any():
            self.weights_ = np.array([1.0, 0.0, 0.0])
            self.gradient_, self.nll_before_, self.nll_after_ = 0.0, np.nan, np.nan
            return
        logs = [
            log_softmax(logits, temperature=t, algorithm="three-pass")[here, y][used]
            for t in (self.temperature_, 1.0)
        ]
        n_open = (logits > -np.inf).sum(axis=1)[used]
        chances = np.exp(np.stack([*logs, -np.log(n_open)], axis=1, dtype=np.float64))
        fit = _WeightFit(chances, sample_weight[used])
        self.nll_before_ = -float(fit.weight @ logs[0])
        self.weights_ = fit.minimise()
        self.nll_after_ = fit.loss(self.weights_)
        self.gradient_ = fit.gain(self.weights_)
        if not self.gradient_ <= _TOLERANCE:
            text = (
                "The weights of the ensemble may be "
                f"{self.gradient_:.2g} nats from the optimum."
            )
            self.notes_.append(Note("not-converged", "warning", text))

    def _transform(self, logits: FloatArray) -> FloatArray:
        result = np.empty(logits.shape, logits.dtype)
        with np.errstate(divide="ignore"):
            first, second, third = np.log(self.weights_)

        def rows(start: int, stop: int) -> None:
            z = logits[start:stop].astype(np.float64)
            logs = log_softmax(z, temperature=self.temperature_, algorithm="three-pass")
            if self.weights_[1] > 0:
                own = log_softmax(z, algorithm="three-pass")
                logs = np.logaddexp(logs + first, own + second)
            else:
                logs += first
            if self.weights_[2] > 0:
                is_open = z > -np.inf
                grain = third - np.log(is_open.sum(axis=1, keepdims=True))
                logs = np.where(is_open, np.logaddexp(logs, grain), -np.inf)
            result[start:stop] = logs

        map_rows(rows, len(logits), 16 * logits.shape[1] + _ROW_BYTES)
        return result

    def _state(self) -> dict[str, Any]:
        """Return "temperature" T and "weights" (3).

        weights[0] softmax(z / T) + weights[1] softmax(z) + weights[2] u, where u is
        uniform over the classes that are not ruled out.
        """
        return {"temperature": self.temperature_, "weights": self.weights_.tolist()}

    def _restore(self, state: dict[str, Any]) -> None:
        self.temperature_ = float(state["temperature"])
        self.weights_ = np.array(state["weights"], dtype=np.float64)
        is_share = self.weights_.shape == (3,) and (self.weights_ >= 0).all()
        if not is_share or not abs(self.weights_.sum() - 1) <= 1e-9:
            msg = "the weights are not three shares of 1"
            raise ValueError(msg)
        if not LOWEST <= self.temperature_ <= HIGHEST:
            msg = f"temperature {self.temperature_!r} is outside its bounds"
            raise ValueError(msg)


class _WeightFit:
    """The shares of three distributions at which the labels are most probable."""

    def __init__(self, chances: FloatArray, weight: FloatArray) -> None:
        self.chances, self.weight = chances, weight / weight.sum()

    def loss(self, shares: FloatArray) -> float:
        """Return the mean NLL."""
        mixed = np.maximum(self.chances @ shares, _TINY)
        return -float(self.weight @ np.log(mixed))

    def gradient(self, shares: FloatArray) -> FloatArray:
        """Return its derivatives in the shares."""
        mixed = np.maximum(self.chances @ shares, _TINY)
        return -np.asarray((self.weight / mixed) @ self.chances)

    def gain(self, shares: FloatArray) -> float:
        """Return by how much the loss may at most lie above the optimum."""
        slope = self.gradient(shares)
        best = [slope[0], slope[1]]
        least = float(min(best))
        # The uniform's share ends at a corner of what is allowed.
        corner = (1 - _LARGEST_UNIFORM) * least + _LARGEST_UNIFORM * slope[2]
        return float(slope @ shares) - min(least, float(corner))

    def minimise(self) -> FloatArray:
        """Return the shares."""
        shares = np.array([0.8, 0.1, 0.1])
        for _ in range(_N_ROUNDS):
            shares = shares * -self.gradient(shares)
            shares /= shares.sum()
        found = scipy.optimize.minimize(
            self.loss,
            shares,
            jac=self.gradient,
            method="SLSQP",
            bounds=[(0.0, 1.0), (0.0, 1.0), (0.0, _LARGEST_UNIFORM)],
            constraints={
                "type": "eq",
                "fun": lambda w: w.sum() - 1.0,
                "jac": np.ones_like,
            },
            options={"ftol": 1e-14, "maxiter": 200},
        )
        best = np.clip(found.x, 0.0, 1.0)
        best[2] = min(best[2], _LARGEST_UNIFORM)
        best[best < 1e-12] = 0.0
        # Whatever the optimiser did, mixing must not be worse than not to mix.
        candidates = (np.array([1.0, 0.0, 0.0]), shares, best / best.sum())
        return min(candidates, key=self.loss)
