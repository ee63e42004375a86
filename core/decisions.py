"""What predictions decide: confusions, and the rates of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.binning import mean_outcome
from core.uncertainty import Estimate

__all__ = [
    "Halves",
    "class_rates",
    "confusion_matrix",
    "confusions",
    "halves",
    "proportion",
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
    """

    choose: Mask
    measure: Mask


def halves(
    rows: IndexArray,
    groups: IndexArray | None,
    seed: int,
) -> Halves:
    """Divide rows, whole groups together, into those that choose and the others.

    Parameters
    ----------
    rows : ndarray of int64 of shape (n,)
        Positions in the file.
    groups : ndarray of int64 of shape (n,) or None
    seed : int
    """
    unit = np.arange(rows.size) if groups is None else groups
    names, code = np.unique(unit, return_inverse=True)
    rng = np.random.default_rng(seed)
    is_first = np.zeros(names.size, dtype=bool)
    is_first[rng.permutation(names.size)[: names.size // 2]] = True
    choose = is_first[code]
    return Halves(choose, ~choose)


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
        method="Wilson interval" + ("" if groups is None else " by group"),
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
