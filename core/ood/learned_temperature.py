"""A temperature of its own for every row, learned after the network was trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy import special

from core.calibrators import TemperatureScaling
from core.messages import FitError, Note, Progress
from core.ood.base import DETECTORS, Detector
from core.ood.neighbours import drawn
from core.ood.rows import Rows, normalised
from core.registry import Param
from core.softmax import logsumexp, temperature_objective

__all__ = ["LearnedTemperatureEnergy"]

FloatArray = NDArray[np.floating[Any]]

_MOST_ROWS = 20_000  # the fit reads at most
_FEWEST_ERRORS = 0.02  # share of wrong rows below which nothing can be learned
_SMALLEST = 1e-12
_MOST_PASSES = 200


@DETECTORS.register(
    "abet-posthoc",
    label="Learned-temperature energy, post hoc",
    reference="after Dukler et al. 2024, arXiv:2401.12129 (AbeT)",
    formula=r"-\log \sum_c \exp(g_c / T(h)),\quad g_c = \cos(h, w_c),\;"
    r" T(h) = \sigma(a^\top \tilde h + a_0)",
    params=(
        Param(
            "ridge",
            "Ridge",
            "float",
            1e-3,
            0.0,
            1e3,
            help="Penalty on the weights of the temperature.",
        ),
    ),
    tier="more",
    aliases=("learned-temperature-energy",),
)
class LearnedTemperatureEnergy(Detector):
    """Energy of cosine logits at a temperature learned per row; AbeT without training.

    Parameters
    ----------
    ridge : float, default=0.001
        Penalty on the weights of the temperature.

    Attributes
    ----------
    direction_ : ndarray of shape (d,)
        Weights a of the standardised features; zeros where a single temperature was
        taken.
    bias_ : float
    centre_, spread_ : ndarray of shape (d,)
        What standardises the features, in place of a batch normalisation.

    Notes
    -----
    This is not AbeT: the published method trains the network and its temperature
    together, and no figures are known for frozen features. What is the same: the
    score is the energy without the temperature in front of it, and the temperature is
    chosen by the log loss. It learns from rows that are predicted wrongly, so that it
    needs rows that did not train the network. Where fewer than 2 % of them are wrong,
    one temperature is taken for all rows.
    """

    requires = frozenset({"features", "head", "labels"})
    fits_on = "held-out"
    assumes = "The rows of the fit did not train the network, and some are wrong."

    direction_: FloatArray
    bias_: float
    centre_: FloatArray
    spread_: FloatArray
    temperature_: float

    def __init__(self, *, ridge: float = 1e-3) -> None:
        self.ridge = ridge

    def _fit(self, rows: Rows, progress: Progress) -> None:
        kept = drawn(rows, _MOST_ROWS)
        features = kept.double_features(self.layer_)
        labels = kept.labels
        if labels.max() >= self._weights.shape[0]:
            raise FitError(
                "A label is not a class of the last layer.",
                rows.own.name,
                "Give labels that are columns of the logits.",
            )
        self.centre_ = features.mean(axis=0)
        spread = features.std(axis=0)
        self.spread_ = np.where(spread > 0, spread, 1.0)
        cosine = self._cosines(features)
        wrong = float((cosine.argmax(axis=1) != labels).mean())
        width = self.layers_[self.layer_]
        self.direction_, self.bias_ = np.zeros(width), 0.0
        self.temperature_ = float("nan")
        if wrong < _FEWEST_ERRORS:
            single = TemperatureScaling().fit(cosine, labels, progress=progress)
            self.temperature_ = single.temperature_
            text = (
                f"{wrong:.1%} of the rows of the fit are wrong: too few to learn a "
                "temperature from, so that all rows have the same. Were these rows "
                "used to train the network?"
            )
            self.notes_.append(Note("too-few-errors", "warning", text))
            return
        self._learn(features, cosine, labels, progress)

    def _learn(
        self,
        features: FloatArray,
        cosine: FloatArray,
        labels: NDArray[np.int64],
        progress: Progress,
    ) -> None:
        inputs = (features - self.centre_) / self.spread_
        n, d = inputs.shape
        passes = 0

        def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
            nonlocal passes
            passes += 1
            progress(min(0.95, passes / _MOST_PASSES), "Learning the temperature")
            a, bias = parameters[:d], parameters[d]
            t = special.expit(inputs @ a + bias) + _SMALLEST
            found = temperature_objective(cosine / t[:, None], labels, 1.0)
            # The slope is in 1 / T, and T' = T (1 - T).
            slope = -found.slope * (1 - t)
            gradient = np.append(inputs.T @ slope, slope.sum()) / n
            gradient[:d] += self.ridge * a
            return float(found.loss.mean() + self.ridge / 2 * a @ a), gradient

        found = scipy.optimize.minimize(
            loss,
            np.zeros(d + 1),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _MOST_PASSES, "ftol": 1e-12, "gtol": 1e-7},
        )
        self.direction_, self.bias_ = found.x[:d].copy(), float(found.x[d])
        if not found.success:
            text = f"The temperature was not fitted to the end: {found.message}."
            self.notes_.append(Note("not-converged", "warning", text))

    @property
    def _weights(self) -> FloatArray:
        assert self.head_ is not None  # noqa: S101 - required
        return self.head_.weight.astype(np.float64)

    def _cosines(self, features: FloatArray) -> FloatArray:
        return np.asarray(normalised(features) @ normalised(self._weights).T)

    def _score(self, rows: Rows) -> FloatArray:
        features = rows.double_features(self.layer_)
        cosine = self._cosines(features)
        if np.isfinite(self.temperature_):
            return -logsumexp(cosine, temperature=self.temperature_)
        inputs = (features - self.centre_) / self.spread_
        t = special.expit(inputs @ self.direction_ + self.bias_) + _SMALLEST
        return -logsumexp(cosine / t[:, None])

    def _state(self) -> dict[str, Any]:
        is_single = bool(np.isfinite(self.temperature_))
        return {
            "direction": self.direction_,
            "bias": self.bias_,
            "centre": self.centre_,
            "spread": self.spread_,
            "temperature": self.temperature_ if is_single else None,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        for name in ("direction", "centre", "spread"):
            setattr(self, f"{name}_", np.asarray(state[name], dtype=np.float64))
        self.bias_ = float(state["bias"])
        single = state["temperature"]
        self.temperature_ = float("nan") if single is None else float(single)
