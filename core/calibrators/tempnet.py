"""Supervised TempNet: its network of pooled projections, fitted with labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from core.calibrators.base import CALIBRATORS
from core.calibrators.network import Found, Network
from core.calibrators.row_temperature import (
    NETWORK_PARAMS,
    NetworkTemperature,
    sorted_log_probabilities,
)
from core.messages import Progress

__all__ = ["SupervisedTempNet"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

TOP = 10
"""Scores of a row that the network reads, the largest ones."""

UNITS = 16
"""Width of both layers of the projection."""

# The sigmoids leave less of what they read, and starts hardly differ.
_DEFAULTS = {"ridge": 1e-3, "restarts": 1}
_MOST_SPREAD = 700.0  # of its logarithm: exp() of more is no number


class PooledNetwork(Network):
    """TempNet's network: a projection, then pooling weighed by its own softmax.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, two widths, and 1. One parameter follows those of the layers: s, the
        logarithm of what projections are divided by inside the softmax.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__(sizes)
        self.n_parameters += 1

    def start(self, rng: np.random.Generator) -> FloatArray:
        """Return parameters that say 0 everywhere, with s = 0."""
        return np.append(super().start(rng), 0.0)

    def value(
        self, flat: FloatArray, inputs: FloatArray
    ) -> tuple[FloatArray, list[FloatArray]]:
        """Return the output of each row, and what was met on the way."""
        first, second, last = self.layers(flat)
        hidden = special.expit(inputs @ first.weights + first.bias)
        projected = hidden @ second.weights + second.bias
        share = projected / np.exp(flat[-1])
        share -= share.max(axis=1, keepdims=True)
        np.exp(share, out=share)
        share *= share.shape[1] / share.sum(axis=1, keepdims=True)
        pooled = (share - 1.0) * projected
        output = (pooled @ last.weights + last.bias)[:, 0]
        return output, [inputs, hidden, projected, share, pooled]

    def gradient(
        self, flat: FloatArray, entered: list[FloatArray], slope: FloatArray
    ) -> FloatArray:
        """Return the derivatives in the parameters of a sum over rows."""
        inputs, hidden, projected, share, pooled = entered
        _, second, last = self.layers(flat)
        spread = np.exp(flat[-1])
        back = slope[:, None] * last.weights[:, 0]
        weighed = back * projected
        weighed -= (share * weighed).mean(axis=1, keepdims=True)
        of_scaled = share * weighed
        of_spread = -(of_scaled * projected).sum() / spread
        of_projected = back * (share - 1.0) + of_scaled / spread
        of_hidden = (of_projected @ second.weights.T) * hidden * (1.0 - hidden)
        parts = [
            np.vstack([before.T @ after, after.sum(axis=0)]).ravel()
            for before, after in (
                (inputs, of_hidden),
                (hidden, of_projected),
                (pooled, slope[:, None]),
            )
        ]
        return np.concatenate([*parts, [of_spread]])


@CALIBRATORS.register(
    "supervised-tempnet",
    label="TempNet, supervised",
    reference="Qiu et al. 2024 (TempNet), arXiv:2404.04575",
    formula=(
        r"\mathrm{softmax}(z / T(z)),\quad T(z) = T_0\, e^{2 \tanh(g(s) / 2)},\quad "
        r"g(s) = w \cdot \left(\left(16\,\mathrm{softmax}(u / e^{\sigma}) - 1"
        r"\right) \odot u\right) + b,\quad u = W_2\, \mathrm{sigmoid}\!\left(W_1 s / "
        r"\lVert s \rVert + b_1\right) + b_2"
    ),
    params=tuple(
        replace(param, default=_DEFAULTS.get(param.name, param.default))
        for param in NETWORK_PARAMS
    ),
    tier="more",
    aliases=("tempnet-supervised",),
    when="To try TempNet's network where labels are at hand; many rows.",
    not_when="Fewer than some thousand rows, or a common temperature does.",
    cost="Seconds; a network of some 500 weights.",
)
class SupervisedTempNet(NetworkTemperature):
    """Give each row the temperature that TempNet's network learns from labels.

    Parameters
    ----------
    ridge : float, default=1e-3
        Times half the sum of squared weights, on standardised inputs.
    restarts : int, default=1
        Random starts; 3-fold cross-validation of the log loss inside the fit rows, by
        group where there are groups, chooses one, or none of them: then every row
        gets T0.
    seed : int, default=0
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    log_spread_ : float
        The logarithm of what projections are divided by inside the softmax.

    Notes
    -----
    TempNet lowers T (CE(z / T, y) + rho - ln K), the dual of a worst case over all
    distributions within rho of the even one. On frozen logits T times the first term
    is T logsumexp(z / T) - z_y: **the label adds a constant**, so that the slope in T
    is the same for every label, and its optimum gives every row the same entropy
    ("entropy-target"). Divided by T, the same loss is the cross-entropy and a
    constant: the label counts again, and that is what is lowered here. Each row alone
    would take T to 0 where it is right and raise it where it is wrong: what can be
    learned is what rows share, by a network that is small and by starts that are
    compared on rows that they were not fitted on.

    The network is that of [1]_ with 16 units instead of 256, fed with the 10 largest
    log-probabilities (none below -30), divided by their norm as there. Its bounds are
    taken on ln T, within 2 of that of temperature scaling, where the fit starts: a
    sigmoid between two ends is what 2 tanh(g / 2) is. Full-batch L-BFGS with exact
    gradients and a ridge instead of dropout. The predicted class never changes;
    "parameterised-temperature" does the same with a smaller network.

    References
    ----------
    .. [1] Z.-H. Qiu et al., "To cool or not to cool? Temperature network meets large
       foundation models via DRO", ICML 2024, arXiv:2404.04575.
    """

    _hidden = (UNITS, UNITS)
    _network = PooledNetwork

    log_spread_: float

    def __init__(
        self,
        *,
        ridge: float = 1e-3,
        restarts: int = 1,
        seed: int = 0,
        input: str = "logits",
    ) -> None:
        self.ridge = ridge
        self.restarts = restarts
        self.seed = seed
        super().__init__(input=input)

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return T0, the weights of the network, and the spread."""
        return 1 + (min(TOP, k) + 1) * UNITS + (UNITS + 1) * UNITS + UNITS + 2

    @property
    def n_fitted_(self) -> int:
        """Numbers that this fit chose: T0, the network's and the spread."""
        return super().n_fitted_ + bool(self.layers_)

    @property
    def _n_inputs(self) -> int:
        return min(TOP, int(self.classes_.size))

    def _inputs(self, logits: FloatArray, **_: Any) -> FloatArray:
        best = sorted_log_probabilities(logits, self._n_inputs)
        return np.asarray(best / np.linalg.norm(best, axis=1, keepdims=True))

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,
        progress: Progress,
    ) -> None:
        self.log_spread_ = 0.0
        self._fit_rows(
            *(logits, y, sample_weight, ("cross-entropy", 0.0)),
            groups=groups,
            progress=progress,
        )

    def _keep(self, found: Found) -> None:
        super()._keep(found)
        if self.layers_:
            self.log_spread_ = float(found.others[0])

    def _output(self, inputs: FloatArray) -> FloatArray:
        shape = [layer.weights.shape[0] for layer in self.layers_]
        flat = [np.vstack([w, b]).ravel() for w, b in self.layers_]
        all_of_it = np.concatenate([*flat, [self.log_spread_]])
        return PooledNetwork((*shape, 1)).value(all_of_it, inputs)[0]

    def _state(self) -> dict[str, Any]:
        """Return softmax(z / T) with T = T0 exp(b tanh(g(x) / b)).

        "temperature" T0; "bound" b; "layers", none where T = T0, of W1 and b1, W2 and
        b2, w and the last b: "weights" (n_in, n_out) and "bias" (n_out,).
        x: the "n_top" largest log-probabilities of the row, largest first, none below
        -30, divided by their norm; u = sigmoid(x W1 + b1) W2 + b2; g(x) =
        ((len(u) softmax(u / exp("log_spread")) - 1) * u) w + b.
        """
        return super()._state() | {
            "log_spread": self.log_spread_,
            "n_top": self._n_inputs,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        self.log_spread_ = float(state["log_spread"])
        if int(state["n_top"]) != self._n_inputs or len(self.layers_) not in (0, 3):
            msg = "the network does not read this row, or has not three layers"
            raise ValueError(msg)
        if not abs(self.log_spread_) <= _MOST_SPREAD:
            msg = f"log_spread {self.log_spread_!r} is out of range"
            raise ValueError(msg)
