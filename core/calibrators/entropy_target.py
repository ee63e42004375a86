"""Entropy target: the temperature at which every row is equally unsure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.calibrators.base import CALIBRATORS, Calibrator
from core.calibrators.row_temperature import divided
from core.calibrators.scaling import HIGHEST, LOWEST, fitted_temperature
from core.messages import Note, Progress
from core.parallel import map_rows

__all__ = ["EntropyTarget"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

STEPS = 50
"""Halvings of the range of log T: what is left of it is rounding."""


@CALIBRATORS.register(
    "entropy-target",
    label="Entropy target",
    reference="Qiu et al. 2024 (TempNet), arXiv:2404.04575",
    formula=(
        r"\mathrm{softmax}(z / T(z)),\quad H\!\left(\mathrm{softmax}(z / T(z))\right)"
        r" = \ln K - \rho"
    ),
    tier="more",
    aliases=("tempnet-entropy",),
    when="To see what TempNet's loss asks of frozen logits; T(z) ranks rows by size.",
    not_when="You want calibrated confidences: every row becomes equally sure.",
    cost="Fifty passes over the rows.",
)
class EntropyTarget(Calibrator):
    """Give each row the temperature at which its entropy is that of all others.

    Parameters
    ----------
    input : {"logits", "probabilities"}, default="logits"

    Attributes
    ----------
    entropy_ : float
        The target in nats, ln K - rho: the mean entropy of the fit rows under
        temperature scaling.

    Notes
    -----
    TempNet learns T(z) by a robust loss whose slope in T is H(softmax(z / T)) -
    (ln K - rho): on frozen logits the label does not occur in it, and its optimum
    gives **every row the same entropy**, which destroys what confidences knew. What is
    useful of TempNet there is its limited capacity, or the training of the network
    along with it; learned with labels it is "supervised-tempnet". This is the exact
    optimum, as a diagnostic; T(z), from 0.001 to 1,000, is found by halving.

    References
    ----------
    .. [1] Z.-H. Qiu et al., "To cool or not to cool? Temperature network meets large
       foundation models via DRO", ICML 2024, arXiv:2404.04575.
    """

    is_accuracy_preserving = True
    is_order_preserving = True

    entropy_: float

    @staticmethod
    def n_parameters(k: int) -> int:  # noqa: ARG004 - the same for every k
        """Return 1: the target."""
        return 1

    def _fit(
        self,
        logits: FloatArray,
        y: IndexArray,
        sample_weight: FloatArray,
        *,
        groups: IndexArray | None,
        progress: Progress,
    ) -> None:
        start = fitted_temperature(logits, y, sample_weight, groups, progress)
        even = np.full(len(logits), start.temperature_)
        entropy = _entropies(*_open(logits), even)
        self.entropy_ = float(sample_weight @ entropy / sample_weight.sum())
        text = "Every row gets the same entropy: confidences no longer tell rows apart."
        self.notes_.append(Note("equal-entropy", "warning", text))

    def temperatures(self, logits: FloatArray) -> FloatArray:
        """Return T(z) of checked logits, shape (n,)."""
        found = np.empty(len(logits))

        def rows(start: int, stop: int) -> None:
            z, is_open = _open(logits[start:stop])
            low = np.full(stop - start, np.log(LOWEST))
            high = np.full(stop - start, np.log(HIGHEST))
            for _ in range(STEPS):
                middle = (low + high) / 2
                is_sure = _entropies(z, is_open, np.exp(middle)) < self.entropy_
                low = np.where(is_sure, middle, low)
                high = np.where(is_sure, high, middle)
            found[start:stop] = np.exp((low + high) / 2)

        map_rows(rows, len(logits), 32 * logits.shape[1])
        return found

    def _transform(self, logits: FloatArray) -> FloatArray:
        return divided(logits, self.temperatures(logits))

    def _state(self) -> dict[str, Any]:
        """Return "entropy", the target in nats, of softmax(z / T(z)) in each row."""
        return {"entropy": self.entropy_}

    def _restore(self, state: dict[str, Any]) -> None:
        self.entropy_ = float(state["entropy"])
        if not 0.0 <= self.entropy_ <= np.log(self.classes_.size) + 1e-9:
            msg = f"{self.entropy_!r} is no entropy of {self.classes_.size} classes"
            raise ValueError(msg)


def _open(logits: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return logits relative to the largest, 0 where ruled out, and which are not."""
    is_open = logits > -np.inf
    z = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.where(is_open, z, 0.0), is_open


def _entropies(
    z: FloatArray, is_open: NDArray[np.bool_], temperature: FloatArray
) -> FloatArray:
    scaled = z / temperature[:, None]
    e = np.where(is_open, np.exp(scaled), 0.0)
    total = e.sum(axis=1)
    return np.asarray(np.log(total) - (e * scaled).sum(axis=1) / total)
