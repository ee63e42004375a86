"""The correctness-aware calibrator as its authors released it, for reproduction."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.calibrators.base import CALIBRATORS
from core.calibrators.correctness import TOP, check_copies, copy_scores
from core.calibrators.network import Layer, layers_from, layers_state
from core.calibrators.row_losses import RowLoss, is_right
from core.calibrators.row_temperature import RowTemperature
from core.messages import Note, Progress
from core.registry import Param

__all__ = ["CorrectnessAwareReleased", "released_network"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

LOWEST_T, HIGHEST_T = 0.1, 10.0

_UNITS = 5
_RATE, _DECAY, _DECAY_SQUARE, _EPSILON = 1e-4, 0.9, 0.999, 1e-8
_BATCH = 1000
_EPOCHS = 10
_DEAD = 0.99  # share of fit rows at the clip from which the fit is called dead
_NOTABLE = 0.05


@CALIBRATORS.register(
    "correctness-aware-released",
    label="Correctness-aware, as released",
    reference="Liu et al. 2024, arXiv:2404.13016 (released code)",
    formula=(
        r"\mathrm{softmax}(z / T(\varphi)),\quad "
        r"T(\varphi) = \mathrm{clip}(g(\varphi), 0.1, 10),\quad "
        r"\min_g \frac{\sum_i w_i (\max_k p_{ik} - c_i)^2}{\sum_i w_i}"
    ),
    params=(
        Param(
            "seed",
            "Seed",
            "int",
            0,
            minimum=0,
            maximum=2**32 - 1,
            help="Seed of the weights at the start and of the mini-batches.",
        ),
    ),
    tier="more",
    aliases=("ca-released",),
    when="To reproduce the paper, with its code's choices.",
    not_when="For anything else: use ours.",
    cost="Seconds: the paper's network and optimiser.",
)
class CorrectnessAwareReleased(RowTemperature):
    """Reproduce the released correctness-aware calibrator, its fragile start included.

    Parameters
    ----------
    seed : int, default=0
        The released code sets none.
    input : {"logits", "probabilities"}, default="logits"
        Of the rows and of their copies.

    Attributes
    ----------
    layers_ : list of Layer
        12-5-1 units for three copies, ReLU in between.
    n_copies_ : int
    clipped_before_, clipped_after_ : float
        Share of the fit rows whose T is clipped, before and after the fit.
    loss_before_, loss_after_ : float
        Mean weighted loss of all fit rows.

    Notes
    -----
    T = clip(g(phi), 0.1, 10); weights start uniform in +-1 / sqrt(inputs), as in
    PyTorch; Adam with rate 0.0001, shuffled batches of 1,000 rows, 10 epochs; in each
    batch right rows weigh 1 - A and wrong ones A, A being the share of right rows in
    it. **Why it often fails**: where the clip holds, the gradient is zero. With random
    weights g is often below 0.1 for every row: then T = 0.1 for good and confidences
    are far too high. And few steps are made: ten per 1,000 fit rows, of at most about
    0.0001 each. A note says when either happened. The balanced weights are not
    undone: the result speaks of an accuracy of one half.

    References
    ----------
    .. [1] Y. Liu, L. Wang, Y. Zou, J. Zou and L. Zheng, "Optimizing calibration by
       gaining aware of prediction correctness", arXiv:2404.13016 (2024).
    """

    requires = frozenset({"logits", "copies"})

    layers_: list[Layer]
    n_copies_: int
    clipped_before_: float
    clipped_after_: float
    loss_before_: float
    loss_after_: float

    def __init__(self, *, seed: int = 0, input: str = "logits") -> None:
        self.seed = seed
        super().__init__(input=input)

    @staticmethod
    def n_parameters(k: int) -> int:
        """Return the weights of the network, for the paper's three copies."""
        return (3 * min(TOP, k) + 1) * _UNITS + _UNITS + 1

    @property
    def n_fitted_(self) -> int:
        """Weights of this fit's network."""
        return sum(w.size + b.size for w, b in self.layers_)

    def _fit(  # type: ignore[override]  # copies: see `requires`
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,  # noqa: ARG002 - T has no interval here
        progress: Progress,
        copies: FloatArray,
    ) -> None:
        self.n_copies_ = len(copies)
        used = np.flatnonzero(sample_weight > 0)
        logits, y, weight = logits[used], y[used], sample_weight[used]
        phi = copy_scores(logits, copies[:, used], min(TOP, logits.shape[1]))
        rng = np.random.default_rng(self.seed)
        training = _Training(logits, y, weight, phi, rng)
        self.clipped_before_, self.loss_before_ = training.state()
        training.run(progress)
        self.clipped_after_, self.loss_after_ = training.state()
        self.layers_ = training.layers()
        self._remark(training)

    def _remark(self, training: _Training) -> None:
        n = len(training.phi)
        if self.clipped_after_ >= _DEAD:
            place = training.temperature(training.phi)
            text = (
                f"The fit is dead: T is at its clip ({np.median(place):g}) in "
                f"{self.clipped_after_:.0%} of the fit rows, where the gradient is "
                "zero. Another seed may start elsewhere; the variant "
                '"correctness-aware" does not start at random.'
            )
            self.notes_.append(Note("dead-at-the-clip", "warning", text))
        elif self.clipped_after_ >= _NOTABLE:
            text = (
                f"T is at its clip in {self.clipped_after_:.0%} of the fit rows, which "
                "the fit cannot move."
            )
            self.notes_.append(Note("clipped", "warning", text))
        if training.n_steps < 10 * _EPOCHS:
            text = (
                f"{n:,} fit rows make {training.n_steps} steps of at most about "
                f"{_RATE:g}: the weights are all but those that they started with."
            )
            self.notes_.append(Note("few-steps", "warning", text))

    def _temperatures(
        self, logits: FloatArray, *, copies: FloatArray | None = None, **_: Any
    ) -> FloatArray:
        check_copies(copies, self.n_copies_)
        assert copies is not None  # noqa: S101 - check_copies has looked
        phi = copy_scores(logits, copies, min(TOP, logits.shape[1]))
        return np.clip(released_network(self.layers_, phi), LOWEST_T, HIGHEST_T)

    def parameters(self) -> dict[str, Any]:
        """Return the number of copies and of weights."""
        return {"n_copies": self.n_copies_, "n_parameters": self.n_fitted_}

    def _state(self) -> dict[str, Any]:
        """Return softmax(z / T) with T = g(x) within "lowest" and "highest".

        "layers" of g, each with "weights" (n_in, n_out) and "bias" (n_out,), ReLU in
        between. x: for each of the "n_copies" copies, the probabilities that it gives
        the "n_top" largest classes of the row.
        """
        return {
            "n_copies": self.n_copies_,
            "n_top": min(TOP, int(self.classes_.size)),
            "lowest": LOWEST_T,
            "highest": HIGHEST_T,
            "layers": layers_state(self.layers_),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.n_copies_ = int(state["n_copies"])
        n_top = min(TOP, int(self.classes_.size))
        limits = (state["n_top"], state["lowest"], state["highest"])
        if not 1 <= self.n_copies_ <= 1000 or limits != (n_top, LOWEST_T, HIGHEST_T):
            msg = "the number of copies or classes, or the limits of T, are unknown"
            raise ValueError(msg)
        self.layers_ = layers_from(state["layers"], self.n_copies_ * n_top)


def released_network(layers: list[Layer], inputs: FloatArray) -> FloatArray:
    """Return the output of layers with ReLU in between, shape (n,)."""
    first, last = layers
    hidden = np.maximum(inputs @ first.weights + first.bias, 0.0)
    return np.asarray((hidden @ last.weights + last.bias)[:, 0])


class _Training:
    """Adam on mini-batches, with the gradient written out."""

    def __init__(
        self,
        logits: FloatArray,
        y: IndexArray,
        weight: FloatArray,
        phi: FloatArray,
        rng: np.random.Generator,
    ) -> None:
        self.logits, self.y, self.weight, self.phi = logits, y, weight, phi
        self.right = is_right(logits, y)
        self.rng = rng
        sizes = ((phi.shape[1], _UNITS), (_UNITS, 1))
        self.values: list[FloatArray] = []
        for n_in, n_out in sizes:
            reach = 1.0 / np.sqrt(n_in)
            self.values.append(rng.uniform(-reach, reach, (n_in, n_out)))
            self.values.append(rng.uniform(-reach, reach, n_out))
        self.mean = [np.zeros_like(value) for value in self.values]
        self.square = [np.zeros_like(value) for value in self.values]
        self.n_steps = 0

    def layers(self) -> list[Layer]:
        """Return the network as it is now."""
        first, first_bias, last, last_bias = self.values
        return [Layer(first, first_bias), Layer(last, last_bias)]

    def temperature(self, phi: FloatArray) -> FloatArray:
        """Return T of some rows."""
        return np.clip(released_network(self.layers(), phi), LOWEST_T, HIGHEST_T)

    def state(self) -> tuple[float, float]:
        """Return the share of clipped rows, and the loss of all rows."""
        t = self.temperature(self.phi)
        everything = np.arange(len(t))
        loss = RowLoss(
            self.logits, self.y, self.balanced(everything), "correctness-aware"
        )
        is_clipped = (t <= LOWEST_T) | (t >= HIGHEST_T)
        return float(is_clipped.mean()), loss(np.log(t), everything)[0]

    def balanced(self, rows: IndexArray) -> FloatArray:
        """Return weights of a batch: 1 - A for right rows, A for wrong ones."""
        weight, right = self.weight[rows], self.right[rows]
        accuracy = float(np.average(right, weights=weight))
        balanced = weight * np.where(right, 1.0 - accuracy, accuracy)
        # Where all are right or all wrong, every weight would be 0.
        return balanced if balanced.any() else weight

    def run(self, progress: Progress) -> None:
        """Make ten trips over shuffled rows."""
        n = len(self.phi)
        for epoch in range(_EPOCHS):
            order = self.rng.permutation(n)
            for start in range(0, n, _BATCH):
                share = (epoch + start / n) / _EPOCHS
                progress(share, f"Epoch {epoch + 1} of {_EPOCHS}")
                self.step(order[start : start + _BATCH])

    def step(self, rows: IndexArray) -> None:
        """Make one step of Adam."""
        first, first_bias, last, last_bias = self.values
        phi = self.phi[rows]
        hidden = np.maximum(phi @ first + first_bias, 0.0)
        output = (hidden @ last + last_bias)[:, 0]
        t = np.clip(output, LOWEST_T, HIGHEST_T)
        loss = RowLoss(
            *(self.logits[rows], self.y[rows], self.balanced(rows)),
            "correctness-aware",
        )
        slope = loss(np.log(t), np.arange(rows.size))[1] / t
        slope[(output < LOWEST_T) | (output > HIGHEST_T)] = 0.0
        back = slope[:, None] @ last.T * (hidden > 0)
        gradients = [
            *(phi.T @ back, back.sum(axis=0)),
            *(hidden.T @ slope[:, None], np.array([slope.sum()])),
        ]
        self.n_steps += 1
        shrink = 1.0 - _DECAY**self.n_steps
        shrink_square = 1.0 - _DECAY_SQUARE**self.n_steps
        for place, gradient in enumerate(gradients):
            mean, square = self.mean[place], self.square[place]
            mean *= _DECAY
            mean += (1.0 - _DECAY) * gradient
            square *= _DECAY_SQUARE
            square += (1.0 - _DECAY_SQUARE) * gradient**2
            size = np.sqrt(square / shrink_square) + _EPSILON
            self.values[place] -= _RATE * (mean / shrink) / size
