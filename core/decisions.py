"""What predictions decide: confusions, and the rates of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.binning import bin_statistics, mean_outcome
from core.measurement import Overview
from core.predictions import Predictions
from core.uncertainty import Estimate

__all__ = [
    "Decisions",
    "Halves",
    "class_rates",
    "confusion_matrix",
    "confusions",
    "decisions",
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
    method = "Wilson interval" + ("" if groups is None else " by group")
    found: list[dict[str, Estimate]] = [{} for _ in range(k)]
    for name, given in (("recall", labels), ("precision", prediction)):
        bins = bin_statistics(
            given.astype(np.float64),
            labels == prediction,
            edges=np.arange(k + 1) - 0.5,  # each class is a bin
            sample_weight=sample_weight,
            groups=groups,
            level=level,
        )
        ends = (bins.accuracy, bins.low, bins.high)
        numbers = zip(*(end.tolist() for end in ends), bins.count.tolist(), strict=True)
        for rates, (share, low, high, n) in zip(found, numbers, strict=True):
            if n:
                rates[name] = Estimate(
                    share, low, high, level, n, rows=rows, method=method
                )
            else:
                rates[name] = Estimate(
                    float("nan"), level=level, rows=rows, method="no rows"
                )
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """What is taken for what.

    Parameters
    ----------
    matrix : ndarray of int64 of shape (k, k)
        Label down, prediction across.
    confused : DataFrame
        The most frequent confusions.
    rates : list of dict
        "recall" and "precision" of each class.
    """

    matrix: IndexArray
    confused: pd.DataFrame
    rates: list[dict[str, Estimate]]


def decisions(own: Predictions, overview: Overview, level: float) -> Decisions:
    """Return matrix and rates of the rows that an overview used.

    Parameters
    ----------
    own : Predictions
        With labels and class scores.
    overview : Overview
    level : float
        Of the intervals.
    """
    used = overview.used
    prediction = overview.rows.prediction
    assert own.labels is not None  # noqa: S101 - rows in use are labelled
    assert prediction is not None  # noqa: S101 - class scores
    labels, prediction, k = own.labels[used], prediction[used], own.n_classes
    weight, codes = own.sample_weight(), own.group_codes()
    matrix = confusion_matrix(labels, prediction, k)
    rates = class_rates(
        labels,
        prediction,
        k,
        sample_weight=None if weight is None else weight[used],
        groups=None if codes is None else codes[used],
        level=level,
    )
    return Decisions(matrix, confusions(matrix, own.classes), rates)


def confusions(matrix: IndexArray, classes: Sequence[str], n: int = 10) -> pd.DataFrame:
    """Return the most frequent confusions: label, prediction, rows, share of label."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    some = np.flatnonzero(wrong)
    order = some[np.argsort(-wrong.flat[some], kind="stable")[:n]]
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
    frame["share"] = frame["rows"] / frame["rows_with_label"]
    return frame
