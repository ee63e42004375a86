"""Parameterised temperature scaling: T from the sorted logits of the row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.calibrators.base import CALIBRATORS
from core.calibrators.row_temperature import (
    NETWORK_PARAMS,
    NetworkTemperature,
    sorted_log_probabilities,
)
from core.messages import Progress
from core.registry import Param

__all__ = ["ParameterisedTemperature"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

TOP = 10
"""Scores of a row that the network reads, the largest ones."""

_UNITS = 5
_LOSSES = ("cross-entropy", "squared-error")


@CALIBRATORS.register(
    "parameterised-temperature",
    label="Parameterised temperature",
    reference="Tomani, Cremers and Buettner 2022, arXiv:2102.12182",
    formula=(
        r"\mathrm{softmax}(z / T(z)),\quad T(z) = T_0\, e^{2 \tanh(g(s) / 2)},\quad "
        r"s = \text{the 10 largest } \ln p_k"
    ),
    params=(
        Param(
            "loss",
            "Loss",
            "choice",
            "cross-entropy",
            choices=_LOSSES,
            help="What the network lowers; the paper takes the squared error.",
        ),
        *NETWORK_PARAMS,
    ),
    tier="more",
    aliases=("pts", "parametrized-temperature-scaling"),
    when="Many rows, and confidence that errs differently for easy and hard rows.",
    not_when="Fewer than some thousand rows: a network needs them.",
    cost="A second or more; a small network.",
)
class ParameterisedTemperature(NetworkTemperature):
    """Give each row a temperature that a small network reads off its sorted scores.

    Parameters
    ----------
    loss : {"cross-entropy", "squared-error"}, default="cross-entropy"
        Mean of -ln p_y, or of the sum over classes of (p_k - [k = y])^2 as in [1]_.
    ridge : float, default=1e-2
        Times half the sum of squared weights, on standardised inputs.
    restarts : int, default=3
        Random starts; 3-fold cross-validation of the loss inside the fit rows, by
        group where there are groups, chooses one, or none of them: then every row
        gets T0.
    seed : int, default=0
    input : {"logits", "probabilities"}, default="logits"

    Notes
    -----
    Two hidden layers of 5 units, as in [1]_. What differs: tanh instead of ReLU, and
    T = T0 exp(bounded output) instead of the absolute value of the output, so that
    the fit starts as exact temperature scaling and T can be neither 0 nor unbounded;
    log-probabilities instead of logits, so that a constant added to a row changes
    nothing (none below -30); full-batch L-BFGS with exact gradients instead of
    100,000 steps of Adam. The predicted class never changes.

    References
    ----------
    .. [1] C. Tomani, D. Cremers and F. Buettner, "Parameterized temperature scaling
       for boosting the expressive power in post-hoc uncertainty calibration", ECCV
       2022, arXiv:2102.12182.
    """

    _hidden = (_UNITS, _UNITS)

    def __init__(
        self,
        *,
        loss: str = "cross-entropy",
        ridge: float = 1e-2,
        restarts: int = 3,
        seed: int = 0,
        input: str = "logits",
    ) -> None:
        self.loss = loss
        self.ridge = ridge
        self.restarts = restarts
        self.seed = seed
        super().__init__(input=input)

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return T0 and the weights of the network."""
        return 1 + (min(TOP, k) + 1) * _UNITS + (_UNITS + 1) * _UNITS + _UNITS + 1

    @property
    def _n_inputs(self) -> int:
        return min(TOP, int(self.classes_.size))

    def _inputs(self, logits: FloatArray, **_: Any) -> FloatArray:
        return sorted_log_probabilities(logits, self._n_inputs)

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,
        progress: Progress,
    ) -> None:
        if self.loss not in _LOSSES:
            msg = f"loss must be one of {_LOSSES}, got {self.loss!r}"
            raise ValueError(msg)
        self._fit_rows(
            *(logits, y, sample_weight, (self.loss, 0.0)),
            groups=groups,
            progress=progress,
        )

    def _state(self) -> dict[str, Any]:
        """Return softmax(z / T) with T = T0 exp(b tanh(g(x) / b)).

        "temperature" T0; "bound" b; "layers" of g, each with "weights" (n_in, n_out)
        and "bias" (n_out,), tanh in between, none where T = T0. x: the "n_top"
        largest log-probabilities of the row, largest first, none below -30.
        """
        return super()._state() | {"n_top": self._n_inputs}

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        if int(state["n_top"]) != self._n_inputs:
            msg = f"the network reads {state['n_top']} scores, not {self._n_inputs}"
            raise ValueError(msg)
