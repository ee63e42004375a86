"""The temperature that fits the rows best, as an estimate with its interval."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.calibrators.scaling import TemperatureScaling
from core.metrics.base import METRICS, RowScores
from core.metrics.design import Design
from core.metrics.distances import point_of
from core.uncertainty import Estimate

__all__ = ["optimal_temperature"]

FloatArray = NDArray[np.floating[Any]]


def _fitted(scores: RowScores, design: Design) -> TemperatureScaling:
    assert scores.probabilities is not None  # noqa: S101 - the registry asks for them
    assert scores.labels is not None  # noqa: S101
    with np.errstate(divide="ignore"):
        logits = np.log(scores.probabilities)
    made = TemperatureScaling()
    made.fit(logits, scores.labels, design.sample_weight, groups=design.groups)
    return made


def _point(scores: RowScores, design: Design) -> float:
    return _fitted(scores, design).temperature_


def temperature_estimate(scores: RowScores, design: Design) -> Estimate:
    """Return T with its sandwich interval, symmetric in ln T."""
    fitted = _fitted(scores, design)
    low, high = fitted.interval(design.level)
    unit = "rows" if design.groups is None else "groups"
    return Estimate(
        value=fitted.temperature_,
        low=None if low != low else low,
        high=None if high != high else high,
        level=design.level,
        n=len(scores),
        method=f"maximum likelihood; sandwich interval of ln T over {unit}",
        notes=tuple(fitted.notes_),
    )


@METRICS.register(
    "best-temperature",
    label="Best temperature",
    reference="Guo et al. 2017, arXiv:1706.04599; White 1982",
    formula=r"\arg\min_T\; -\frac1n\sum_i \ln "
    r"\mathrm{softmax}(\mathbf z_i / T)_{y_i}",
    tier="more",
    aliases=("optimal-temperature",),
    needs="design",
    direction="none",
    unit="",
    views=("top-label",),
    field="probabilities",
    statistic=temperature_estimate,
    point=_point,
)
def optimal_temperature(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> float:
    """Temperature by which the logits would have to be divided to fit these rows.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Class indices, or names where `labels` gives them in column order.
    y_prob : array-like of shape (n, k), or (n,) for the positive class
        Probabilities.
    sample_weight : array-like of shape (n,), optional
    labels : array-like of shape (k,), optional
        Class names in column order.

    Returns
    -------
    float
        1 where confidence is right on average in this sense, above 1 where it is too
        high.
    """
    return point_of(_point, y_true, y_prob, sample_weight=sample_weight, labels=labels)
