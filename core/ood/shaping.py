"""Energies of reshaped features: what ReLU networks let through is cut or scaled."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.head import Head
from core.messages import Note, Progress
from core.ood.base import DETECTORS, Detector
from core.ood.rows import Rows, layers_of, logits_of_head
from core.registry import Param
from core.softmax import logsumexp

__all__ = ["ASH", "DICE", "SCALE", "VRA", "ReAct", "Shaping"]

FloatArray = NDArray[np.floating[Any]]

_MOST_VALUES = 1 << 25  # activations of which a percentile is exact
_LARGEST_EXPONENT = 300.0  # beyond it a scaled logit would leave double precision


def percentile_param(default: float, text: str) -> Param:
    """Return the option that says how much is cut."""
    return Param("percentile", "Percentile", "float", default, 0.0, 99.9, help=text)


class Shaping(Detector):
    """Base of scores that reshape the features and take the energy of their logits."""

    requires = frozenset({"features", "head"})

    @abstractmethod
    def _shaped(self, rows: Rows) -> FloatArray:
        """Return the features that enter the last layer."""

    def _score(self, rows: Rows) -> FloatArray:
        assert self.head_ is not None  # noqa: S101 - required
        logits = logits_of_head(self._shaped(rows), self.head_)
        return -logsumexp(logits).astype(np.float64)


def percentiles(rows: Rows, layer: str, wanted: list[float]) -> FloatArray:
    """Return percentiles of all activations; of a part of the rows where many."""
    step = -(-len(rows) * layers_of(rows.own.features)[layer].shape[1] // _MOST_VALUES)
    part = rows if step < 2 else rows.part(np.arange(0, len(rows), step))
    values = part.features(layer)
    return np.percentile(values, wanted).astype(np.float64)


@DETECTORS.register(
    "react",
    label="ReAct",
    reference="Sun, Guo and Li 2021, arXiv:2111.12797",
    formula=r"-\mathrm{LSE}(W \min(h, c) + b)",
    params=(percentile_param(90.0, "Activations above this percentile are cut."),),
    tier="more",
)
class ReAct(Shaping):
    """Energy of features cut at a percentile of the reference activations.

    Parameters
    ----------
    percentile : float, default=90
        Of all activations of the reference rows.

    Attributes
    ----------
    threshold_ : float
    """

    needs_non_negative = True
    assumes = "Features are at least 0 (after a ReLU); unknown inputs have peaks."

    threshold_: float

    def __init__(self, *, percentile: float = 90.0) -> None:
        self.percentile = percentile

    def _fit(self, rows: Rows, progress: Progress) -> None:
        progress(0.0, "Sorting the activations")
        self.threshold_ = float(percentiles(rows, self.layer_, [self.percentile])[0])

    def _shaped(self, rows: Rows) -> FloatArray:
        features = rows.features(self.layer_)
        return np.minimum(features, features.dtype.type(self.threshold_))

    def _state(self) -> dict[str, Any]:
        return {"threshold": self.threshold_}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.threshold_ = float(state["threshold"])


@DETECTORS.register(
    "vra",
    label="VRA",
    reference="Xu et al. 2023, arXiv:2302.11716",
    formula=r"-\mathrm{LSE}(W \min(\max(h, q_{\mathrm{low}}), q_{\mathrm{high}}) + b)",
    params=(
        Param(
            "low",
            "Lower percentile",
            "float",
            10.0,
            0.0,
            100.0,
            help="Activations below this percentile are raised to it.",
        ),
        Param(
            "high",
            "Upper percentile",
            "float",
            90.0,
            0.0,
            100.0,
            help="Activations above this percentile are cut.",
        ),
    ),
    tier="more",
)
class VRA(Shaping):
    """Energy of features clipped to a band of the reference activations.

    Notes
    -----
    Clipping at both percentiles is what OpenOOD does. The paper sets activations below
    the lower one to 0, which is the same where that percentile is 0, as it is after
    most ReLUs.
    """

    needs_non_negative = True
    assumes = "Features are at least 0 (after a ReLU); unknown inputs leave the band."

    bounds_: FloatArray

    def __init__(self, *, low: float = 10.0, high: float = 90.0) -> None:
        self.low = low
        self.high = high

    def _fit(self, rows: Rows, progress: Progress) -> None:
        progress(0.0, "Sorting the activations")
        low, high = sorted((self.low, self.high))
        self.bounds_ = percentiles(rows, self.layer_, [low, high])

    def _shaped(self, rows: Rows) -> FloatArray:
        features = rows.features(self.layer_)
        low, high = self.bounds_.astype(features.dtype)
        return np.clip(features, low, high)

    def _state(self) -> dict[str, Any]:
        return {"bounds": self.bounds_}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.bounds_ = np.asarray(state["bounds"], dtype=np.float64)


def n_kept(width: int, percentile: float) -> int:
    """Return how many activations are kept: at least one."""
    return max(width - round(width * percentile / 100), 1)


def largest(features: FloatArray, kept: int) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return the largest activations of each row and their places, first ones first."""
    width = features.shape[1]
    places = np.argpartition(features, width - kept, axis=1)[:, width - kept :]
    values = np.take_along_axis(features, places, axis=1)
    least = values.min(axis=1, keepdims=True)
    # Among equal activations, such as zeros, those of the first features are kept.
    n_equal = (features == least).sum(axis=1) - (values == least).sum(axis=1)
    for row in np.flatnonzero(n_equal):
        places[row] = np.argsort(-features[row], kind="stable")[:kept]
    return np.take_along_axis(features, places, axis=1), places


def sharpening(before: FloatArray, after: FloatArray) -> FloatArray:
    """Return before / after as an exponent; 1 where both are 0, never absurd.

    Sums that are not positive only come of negative features, about which the fit
    has said something.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = before / after
    ratio = np.nan_to_num(ratio, nan=1.0, posinf=_LARGEST_EXPONENT, neginf=0.0)
    return np.clip(ratio, -_LARGEST_EXPONENT, _LARGEST_EXPONENT)


@DETECTORS.register(
    "ash",
    label="ASH",
    reference="Djurisic et al. 2023, arXiv:2209.09858",
    formula=r"-\mathrm{LSE}(W\,\mathrm{ash}(h) + b)",
    params=(
        Param(
            "variant",
            "Variant",
            "choice",
            "b",
            choices=("b", "p", "s"),
            help="What is kept takes the mean that keeps the sum (b), stays (p), or is "
            "scaled by exp(sum before / sum after) (s).",
        ),
        percentile_param(90.0, "Activations below this percentile of a row are set 0."),
    ),
    tier="more",
)
class ASH(Shaping):
    """Energy of the largest activations of each row, binarised, pruned or scaled.

    Parameters
    ----------
    variant : {"b", "p", "s"}, default="b"
    percentile : float, default=90
        Of the activations of each row.
    """

    needs_non_negative = True
    assumes = "Features are at least 0, as after a ReLU."

    def __init__(self, *, variant: str = "b", percentile: float = 90.0) -> None:
        self.variant = variant
        self.percentile = percentile

    def _shaped(self, rows: Rows) -> FloatArray:
        features = rows.features(self.layer_)
        if self.variant == "s":  # exponents of up to 1 / share kept
            features = rows.double_features(self.layer_)
        kept = n_kept(features.shape[1], self.percentile)
        values, places = largest(features, kept)
        before = features.sum(axis=1, dtype=np.float64)
        if self.variant == "b":
            values = np.broadcast_to((before / kept)[:, None], values.shape)
        elif self.variant == "s":
            after = values.sum(axis=1, dtype=np.float64)
            values = values * np.exp(sharpening(before, after))[:, None]
        shaped = np.zeros_like(features)
        np.put_along_axis(shaped, places, values.astype(features.dtype), axis=1)
        return shaped


@DETECTORS.register(
    "scale",
    label="SCALE",
    reference="Xu et al. 2024, arXiv:2310.00227",
    formula=r"-\mathrm{LSE}(e^{s_1 / s_2}\, W h + b),\quad s_1 = \sum_i h_i,\;"
    r" s_2 = \sum_{i \in \text{top}} h_i",
    params=(
        percentile_param(85.0, "The activations above this percentile of a row count."),
    ),
)
class SCALE(Shaping):
    """Energy of features scaled by how much of their sum the largest ones lack.

    Parameters
    ----------
    percentile : float, default=85
        Of the activations of each row; those above it make the second sum.
    """

    needs_non_negative = True
    assumes = "Features are at least 0, as after a ReLU."

    def __init__(self, *, percentile: float = 85.0) -> None:
        self.percentile = percentile

    def _shaped(self, rows: Rows) -> FloatArray:
        return rows.double_features(self.layer_) * self._factor(rows)[:, None]

    def _factor(self, rows: Rows) -> FloatArray:
        features = rows.features(self.layer_)
        kept = n_kept(features.shape[1], self.percentile)
        width = features.shape[1]
        top = np.partition(features, width - kept, axis=1)[:, width - kept :]
        before = features.sum(axis=1, dtype=np.float64)
        return np.exp(sharpening(before, top.sum(axis=1, dtype=np.float64)))

    def _score(self, rows: Rows) -> FloatArray:
        # The factor of a row passes through the weights: no second product.
        assert self.head_ is not None  # noqa: S101 - required
        logits = rows.head_logits(self.head_, self.layer_).astype(np.float64)
        bias = self.head_.bias.astype(np.float64)
        scaled = (logits - bias) * self._factor(rows)[:, None] + bias
        return -logsumexp(scaled)


@DETECTORS.register(
    "dice",
    label="DICE",
    reference="Sun and Li 2022, arXiv:2111.09805",
    formula=r"-\mathrm{LSE}((M \odot W) h + b),\quad M = [\bar h \odot W > q]",
    params=(
        percentile_param(90.0, "Contributions below this percentile are left out."),
    ),
    tier="more",
)
class DICE(Detector):
    """Energy of logits made of the weights that contribute most on average.

    Parameters
    ----------
    percentile : float, default=90
        Of the mean contributions of all weights.

    Attributes
    ----------
    masked_ : Head
        Last layer without the other weights.
    """

    requires = frozenset({"features", "head"})
    needs_non_negative = True
    assumes = "Features are at least 0 (after a ReLU); few weights speak for a class."

    masked_: Head

    def __init__(self, *, percentile: float = 90.0) -> None:
        self.percentile = percentile

    def _fit(self, rows: Rows, progress: Progress) -> None:
        assert self.head_ is not None  # noqa: S101 - required
        total = np.zeros(self.layers_[self.layer_])
        for block in rows.blocks(progress, "Averaging features"):
            total += block.features(self.layer_).sum(axis=0, dtype=np.float64)
        weight = self.head_.weight.astype(np.float64)
        contribution = total / len(rows) * weight
        cut = np.percentile(contribution, self.percentile)
        mask = contribution > cut
        self.masked_ = Head(np.where(mask, weight, 0.0), self.head_.bias)
        empty = int((~mask.any(axis=1)).sum())
        if empty:
            text = f"{empty:,} classes lose every weight; their logit is their bias."
            self.notes_.append(Note("class-without-weight", "info", text))

    def _score(self, rows: Rows) -> FloatArray:
        logits = logits_of_head(rows.features(self.layer_), self.masked_)
        return -logsumexp(logits).astype(np.float64)

    def _state(self) -> dict[str, Any]:
        return {"weight": self.masked_.weight}

    def _restore(self, state: Mapping[str, Any]) -> None:
        assert self.head_ is not None  # noqa: S101 - restored before
        weight = np.asarray(state["weight"], dtype=np.float64)
        self.masked_ = Head(weight, self.head_.bias)
