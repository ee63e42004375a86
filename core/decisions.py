"""What predictions decide: confusions, and thresholds with what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.binning import mean_outcome
from core.splitting import Split
from core.uncertainty import Estimate

__all__ = [
    "Halves",
    "OperatingPoint",
    "class_rates",
    "confusion_matrix",
    "confusions",
    "halves",
    "proportion",
    "selective_points",
    "sensitivity_points",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """Rows that choose something, and the others that measure it.

    Parameters
    ----------
    choose, measure : ndarray of bool of shape (n,)
    sentence : str
        Where they come from.
    """

    choose: Mask
    measure: Mask
    sentence: str


@dataclass(frozen=True, slots=True, eq=False)
class OperatingPoint:
    """A threshold chosen on some rows, and its rates on others.

    Parameters
    ----------
    target : float
        What the threshold was chosen for.
    threshold : float or None
        None where no threshold reaches the target on the rows that choose.
    rates : mapping of str to Estimate
    """

    target: float
    threshold: float | None
    rates: Mapping[str, Estimate]


def halves(
    rows: IndexArray,
    groups: IndexArray | None,
    seed: int,
    split: Split | None = None,
) -> Halves:
    """Divide rows, whole groups together, into those that choose and the others.

    Parameters
    ----------
    rows : ndarray of int64 of shape (n,)
        Positions in the file.
    groups : ndarray of int64 of shape (n,) or None
    seed : int
    split : Split, optional
        Its threshold rows choose where `rows` hold some of them.
    """
    if split is not None and split.kind != "cross-fit":
        threshold = split.rounds[0].threshold
        choose = np.isin(rows, threshold)
        if choose.any():
            measure = np.isin(rows, split.test)
            return Halves(choose, measure, "Chosen on the threshold rows")
    unit = np.arange(rows.size) if groups is None else groups
    names, code = np.unique(unit, return_inverse=True)
    rng = np.random.default_rng(seed)
    is_first = np.zeros(names.size, dtype=bool)
    is_first[rng.permutation(names.size)[: names.size // 2]] = True
    choose = is_first[code]
    return Halves(choose, ~choose, "Chosen on one half of the rows, drawn at random")


def proportion(
    outcome: NDArray[Any],
    sample_weight: FloatArray | None = None,
    groups: IndexArray | None = None,
    *,
    level: float = 0.95,
    rows: str = "all",
) -> Estimate:
    """Return a share with its Wilson interval; groups widen it, weights count.

    Parameters
    ----------
    outcome : ndarray of shape (n,)
        0 or 1.
    sample_weight, groups : ndarray of shape (n,), optional
    level : float, default=0.95
    rows : str, default="all"
    """
    if not outcome.size:
        return Estimate(float("nan"), level=level, rows=rows, method="no rows")
    share, low, high = mean_outcome(
        outcome, sample_weight=sample_weight, groups=groups, level=level
    )
    return Estimate(
        value=share,
        low=low,
        high=high,
        level=level,
        n=int(outcome.size),
        rows=rows,
        method="Wilson interval",
    )


def confusion_matrix(labels: IndexArray, prediction: IndexArray, k: int) -> IndexArray:
    """Return counts of shape (k, k): label down, prediction across."""
    found = np.bincount(labels * k + prediction, minlength=k * k)
    return np.asarray(found.reshape(k, k), dtype=np.int64)


def class_rates(
    labels: IndexArray,
    prediction: IndexArray,
    k: int,
    *,
    sample_weight: FloatArray | None = None,
    groups: IndexArray | None = None,
    level: float = 0.95,
    rows: str = "all",
) -> list[dict[str, Estimate]]:
    """Return recall and precision of every class, each with its Wilson interval."""
    found = []
    for column in range(k):
        rates = {}
        for name, given, other in (
            ("recall", labels, prediction),
            ("precision", prediction, labels),
        ):
            inside = np.flatnonzero(given == column)
            rates[name] = proportion(
                other[inside] == column,
                None if sample_weight is None else sample_weight[inside],
                None if groups is None else groups[inside],
                level=level,
                rows=rows,
            )
        found.append(rates)
    return found


def confusions(matrix: IndexArray, classes: Sequence[str], n: int = 10) -> pd.DataFrame:
    """Return the most frequent confusions: label, prediction, rows, share of label."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:n]
    label, prediction = np.unravel_index(order, wrong.shape)
    count = wrong[label, prediction]
    names = np.array(list(classes), dtype=object)
    frame = pd.DataFrame(
        {
            "label": names[label],
            "prediction": names[prediction],
            "rows": count,
            "rows_with_label": matrix.sum(axis=1)[label],
        }
    )
    frame["share"] = frame["rows"] / frame["rows_with_label"].clip(lower=1)
    return frame[frame["rows"] > 0]


def selective_points(
    confidence: FloatArray,
    correct: Mask,
    divided: Halves,
    targets: Sequence[float],
    *,
    sample_weight: FloatArray | None = None,
    groups: IndexArray | None = None,
    level: float = 0.95,
    rows: str = "all",
) -> list[OperatingPoint]:
    """Return, for each wanted accuracy, the lowest confidence that reaches it.

    A threshold keeps as many rows as it can while the accuracy among the kept rows
    that choose is at least the target; coverage and accuracy are measured on the
    others.
    """
    choose = divided.choose
    weight = np.ones(confidence.size) if sample_weight is None else sample_weight
    order = np.flatnonzero(choose)[np.argsort(-confidence[choose], kind="stable")]
    mass = np.cumsum(weight[order])
    with np.errstate(invalid="ignore", divide="ignore"):
        reached = np.cumsum(weight[order] * correct[order]) / mass
    # Equal confidences are kept or left together.
    is_last = np.ones(order.size, dtype=bool)
    is_last[:-1] = confidence[order][1:] != confidence[order][:-1]
    found = []
    for target in targets:
        good = np.flatnonzero(is_last & (reached >= target))
        threshold = float(confidence[order[good[-1]]]) if good.size else None
        rates: dict[str, Estimate] = {}
        if threshold is not None:
            kept = confidence >= threshold
            rates["coverage"] = _rate(
                kept, divided.measure, sample_weight, groups, level, rows
            )
            rates["accuracy"] = _rate(
                correct, divided.measure & kept, sample_weight, groups, level, rows
            )
        found.append(OperatingPoint(target, threshold, rates))
    return found


def sensitivity_points(
    probability: FloatArray,
    is_positive: Mask,
    divided: Halves,
    targets: Sequence[float],
    *,
    sample_weight: FloatArray | None = None,
    groups: IndexArray | None = None,
    level: float = 0.95,
    rows: str = "all",
) -> list[OperatingPoint]:
    """Return, for each wanted sensitivity, the highest threshold that reaches it.

    Sensitivity, specificity and precision are measured on the rows that did not
    choose.
    """
    weight = np.ones(probability.size) if sample_weight is None else sample_weight
    chosen = np.flatnonzero(divided.choose & is_positive & (weight > 0))
    order = chosen[np.argsort(-probability[chosen], kind="stable")]
    share = np.cumsum(weight[order]) / weight[order].sum() if order.size else order
    found = []
    for target in targets:
        reached = np.flatnonzero(share >= target - 1e-12)
        threshold = float(probability[order[reached[0]]]) if reached.size else None
        rates: dict[str, Estimate] = {}
        if threshold is not None:
            flagged = probability >= threshold
            for name, outcome, among in (
                ("sensitivity", flagged, is_positive),
                ("specificity", ~flagged, ~is_positive),
                ("precision", is_positive, flagged),
            ):
                where = divided.measure & among
                rates[name] = _rate(outcome, where, sample_weight, groups, level, rows)
        found.append(OperatingPoint(target, threshold, rates))
    return found


def _rate(
    outcome: Mask,
    where: Mask,
    sample_weight: FloatArray | None,
    groups: IndexArray | None,
    level: float,
    rows: str,
) -> Estimate:
    return proportion(
        outcome[where],
        None if sample_weight is None else sample_weight[where],
        None if groups is None else groups[where],
        level=level,
        rows=rows,
    )
