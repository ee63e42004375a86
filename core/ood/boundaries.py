"""Scores of features and the last layer: boundaries, collapse and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.messages import Progress
from core.ood.base import DETECTORS, Detector
from core.ood.logits import known
from core.ood.rows import Rows
from core.registry import Param
from core.softmax import softmax

__all__ = ["FDBD", "NCI", "GradNorm"]

FloatArray = NDArray[np.floating[Any]]

_TINY = 1e-12


def mean_features(rows: Rows, layer: str, width: int, progress: Progress) -> FloatArray:
    """Return the mean features of the rows."""
    total = np.zeros(width)
    for block in rows.blocks(progress, "Averaging features"):
        total += block.features(layer).sum(axis=0, dtype=np.float64)
    return np.asarray(total / len(rows))


@DETECTORS.register(
    "fdbd",
    label="Distance to decision boundaries (fDBD)",
    reference="Liu and Qin 2024, arXiv:2312.11536",
    formula=r"-\frac{1}{\|h - \bar h\|} \sum_{c \ne \hat y}"
    r" \frac{|z_{\hat y} - z_c|}{\|w_{\hat y} - w_c\|}",
    params=(
        Param(
            "norm",
            "Divided by",
            "choice",
            "mean",
            choices=("mean", "origin"),
            help="Distance of the features to their mean, or to 0.",
        ),
    ),
)
class FDBD(Detector):
    """Minus the distances to the boundaries of the predicted class, per deviation.

    Parameters
    ----------
    norm : {"mean", "origin"}, default="mean"
        What the sum of the distances is divided by.

    Notes
    -----
    The distances are summed, as in the released code; their mean ranks alike.
    """

    requires = frozenset({"features", "head"})
    assumes = "Features lie around one mean, and the last layer is linear in them."

    mean_: FloatArray

    def __init__(self, *, norm: str = "mean") -> None:
        self.norm = norm

    def _fit(self, rows: Rows, progress: Progress) -> None:
        width = self.layers_[self.layer_]
        self.mean_ = mean_features(rows, self.layer_, width, progress)
        self._ready()

    def _ready(self) -> None:
        assert self.head_ is not None  # noqa: S101 - required
        weight = self.head_.weight.astype(np.float64)
        square = np.einsum("ij,ij->i", weight, weight)
        gram = square[:, None] + square[None, :] - 2 * weight @ weight.T
        with np.errstate(divide="ignore"):
            inverse = 1 / np.sqrt(np.maximum(gram, 0.0))
        # A class has no boundary with itself, nor with one of the same weights.
        near = gram <= _TINY * np.maximum(square[:, None], square[None, :])
        self._inverse = np.where(near, 0.0, inverse)

    def _score(self, rows: Rows) -> FloatArray:
        assert self.head_ is not None  # noqa: S101 - required
        logits = rows.head_logits(self.head_, self.layer_).astype(np.float64)
        statistics = rows.head_statistics(self.head_, self.layer_)
        lead = known(statistics.max_logit)[:, None] - logits
        prediction = statistics.prediction
        distance = np.einsum("ij,ij->i", lead, self._inverse[prediction])
        features = rows.double_features(self.layer_)
        gap = features - self.mean_ if self.norm == "mean" else features
        return np.asarray(-distance / np.maximum(np.linalg.norm(gap, axis=1), _TINY))

    def _state(self) -> dict[str, Any]:
        return {"mean": self.mean_}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.mean_ = np.asarray(state["mean"], dtype=np.float64)
        self._ready()


@DETECTORS.register(
    "nci",
    label="Neural collapse (NCI)",
    reference="Liu and Qin 2025, arXiv:2311.01479",
    formula=r"-\frac{\langle w_{\hat y}, h - \bar h \rangle}{\|h - \bar h\|}"
    r" - a \|h\|_1",
    params=(
        Param(
            "weight",
            "Weight of the norm",
            "float",
            1e-4,
            0.0,
            10.0,
            help="How much the sum of the absolute features counts.",
        ),
    ),
    tier="more",
)
class NCI(Detector):
    """Minus how far features point along the weights of the predicted class.

    Parameters
    ----------
    weight : float, default=0.0001
        Of the L1 norm of the features.
    """

    requires = frozenset({"features", "head"})
    assumes = "Features of a class collapse towards the weights of the class."

    mean_: FloatArray

    def __init__(self, *, weight: float = 1e-4) -> None:
        self.weight = weight

    def _fit(self, rows: Rows, progress: Progress) -> None:
        width = self.layers_[self.layer_]
        self.mean_ = mean_features(rows, self.layer_, width, progress)

    def _score(self, rows: Rows) -> FloatArray:
        assert self.head_ is not None  # noqa: S101 - required
        prediction = rows.head_statistics(self.head_, self.layer_).prediction
        gap = rows.double_features(self.layer_) - self.mean_
        weights = self.head_.weight.astype(np.float64)[prediction]
        along = np.einsum("ij,ij->i", weights, gap)
        along = along / np.maximum(np.linalg.norm(gap, axis=1), _TINY)
        return np.asarray(-along - self.weight * rows.norms(self.layer_))

    def _state(self) -> dict[str, Any]:
        return {"mean": self.mean_}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.mean_ = np.asarray(state["mean"], dtype=np.float64)


@DETECTORS.register(
    "gradnorm",
    label="GradNorm",
    reference="Huang, Geng and Li 2021, arXiv:2110.00218",
    formula=r"-\|h\|_1 \sum_c |1 - K p_c|",
    tier="more",
)
class GradNorm(Detector):
    """Minus the gradient norm of the divergence from the uniform, in closed form.

    Notes
    -----
    The gradient of the divergence in the weights of the last layer is the outer
    product of features and K p - 1, so that its L1 norm needs no network.
    """

    requires = frozenset({"features", "head"})
    fits_on = "reference"
    assumes = "Known inputs have large features and far from uniform probabilities."

    def _score(self, rows: Rows) -> FloatArray:
        assert self.head_ is not None  # noqa: S101 - required
        p = softmax(rows.head_logits(self.head_, self.layer_))
        k = p.shape[1]
        uneven = np.abs(1.0 - k * p.astype(np.float64)).sum(axis=1)
        return np.asarray(-rows.norms(self.layer_) * uneven)
