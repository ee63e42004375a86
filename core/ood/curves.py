"""What figures and tables of scores show: curves, densities, rows to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from core.ood.delong import checked_scores
from core.ood.detection import INSIDE, Detection
from core.ood.rows import Rows
from core.predictions import Predictions

__all__ = [
    "Densities",
    "densities",
    "hardest_rows",
    "precision_recall_points",
    "rejected_rows",
    "roc_points",
    "scatter",
]

FloatArray = NDArray[np.floating[Any]]

MOST_POINTS = 1000
_TAIL = 0.001  # share of the rows beyond either end of a density


@dataclass(frozen=True, slots=True, eq=False)
class Densities:
    """Histograms of several sets on the same bins.

    Parameters
    ----------
    edges : ndarray of shape (b + 1,)
        From about the 0.1 % to the 99.9 % point of all scores; what lies beyond is in
        the first and last bins.
    density : mapping of str to ndarray of shape (b,)
        Set -> share of its rows per unit of score.
    """

    edges: FloatArray
    density: Mapping[str, FloatArray]


def roc_points(
    score_id: ArrayLike, score_ood: ArrayLike, most: int = MOST_POINTS
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return false and true positive rates at thresholds, in-distribution positive.

    Parameters
    ----------
    score_id, score_ood : array-like
    most : int, default=1000
        Points to return at most; which they are loses less than 1 / most in either
        rate.

    Returns
    -------
    fpr, tpr, threshold : ndarray
        From nothing accepted (-inf) to everything. OOD as positives: 1 - tpr is then
        the false positive rate and 1 - fpr the true one.
    """
    inside, outside = _sorted(score_id), _sorted(score_ood)
    cuts = _cuts(inside, outside, most)
    tpr = np.searchsorted(inside, cuts, side="right") / inside.size
    fpr = np.searchsorted(outside, cuts, side="right") / outside.size
    start = np.zeros(1)
    return (
        np.concatenate([start, fpr]),
        np.concatenate([start, tpr]),
        np.concatenate([[-np.inf], cuts]),
    )


def precision_recall_points(
    score_id: ArrayLike,
    score_ood: ArrayLike,
    *,
    positive: str = "ood",
    most: int = MOST_POINTS,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return recall, precision and threshold, in ascending recall.

    Parameters
    ----------
    score_id, score_ood : array-like
    positive : {"ood", "in-distribution"}, default="ood"
    most : int, default=1000
    """
    inside, outside = _sorted(score_id), _sorted(score_ood)
    cuts = _cuts(inside, outside, most)
    if positive == "ood":
        cuts = cuts[::-1]
        counts = [x.size - np.searchsorted(x, cuts, "left") for x in (outside, inside)]
    else:
        counts = [np.searchsorted(x, cuts, "right") for x in (inside, outside)]
    hits, false = counts
    n = outside.size if positive == "ood" else inside.size
    return hits / n, hits / np.maximum(hits + false, 1), cuts


def densities(sets: Mapping[str, ArrayLike], n_bins: int = 0) -> Densities:
    """Return histograms of the scores of several sets on the same bins.

    Parameters
    ----------
    sets : mapping of str to array-like
    n_bins : int, default=0
        By default more for larger sets: 12 to 60, 24 for some 200 rows.
    """
    given = {name: checked_scores(v, name) for name, v in sets.items()}
    if not n_bins:
        usual = np.median([v.size for v in given.values()])
        n_bins = int(np.clip(round(4 * np.cbrt(usual)), 12, 60))
    ends = [
        np.quantile(v[np.isfinite(v)], [_TAIL, 1 - _TAIL])
        for v in given.values()
        if np.isfinite(v).any()
    ]
    low = min((float(a) for a, _ in ends), default=0.0)
    high = max((float(b) for _, b in ends), default=1.0)
    if not low < high:
        low, high = low - 0.5, low + 0.5
    edges = np.linspace(low, high, n_bins + 1)
    found = {}
    for name, values in given.items():
        inside = np.clip(values, low, high)
        count = np.histogram(inside, edges)[0]
        found[name] = count / (values.size * np.diff(edges))
    return Densities(edges, found)


def scatter(
    detection: Detection, method: str, *, most: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Return score against confidence for some rows of each set, drawn at random.

    Parameters
    ----------
    detection : Detection
    method : str
    most : int, default=2000
        Rows of each set.
    seed : int, default=0

    Returns
    -------
    DataFrame
        Columns set, file_row, score, confidence; confidence is NaN for rows without
        class scores.
    """
    rng, parts = np.random.default_rng(seed), []
    for name, rows, score in _sets(detection, method):
        kept = np.arange(len(rows))
        if kept.size > most:
            kept = np.sort(rng.choice(kept, most, replace=False))
        frame = _described(rows, kept, name)
        frame["score"] = score[kept]
        parts.append(frame[["set", "file_row", "score", "confidence"]])
    return pd.concat(parts, ignore_index=True)


def hardest_rows(detection: Detection, method: str, n: int = 20) -> pd.DataFrame:
    """Return the OOD rows that look most like in-distribution ones.

    Parameters
    ----------
    detection : Detection
    method : str
    n : int, default=20
        Rows of all sets together.

    Returns
    -------
    DataFrame
        Lowest scores first: set, file_row, id where there is one, prediction,
        confidence, score, share_above (share of the in-distribution test rows with a
        higher score) and accepted.
    """
    parts = [p for p in _sets(detection, method) if p[0] != INSIDE]
    frames = [
        _extreme(detection, method, name, rows, score, np.argsort(score)[:n])
        for name, rows, score in parts
    ]
    if not frames:
        return pd.DataFrame()
    found = pd.concat(frames, ignore_index=True)
    return found.sort_values("score", kind="stable").head(n).reset_index(drop=True)


def rejected_rows(detection: Detection, method: str, n: int = 20) -> pd.DataFrame:
    """Return the in-distribution test rows that look least like the others.

    Parameters
    ----------
    detection : Detection
    method : str
    n : int, default=20

    Returns
    -------
    DataFrame
        Highest scores first; columns as in `hardest_rows`.
    """
    name, rows, score = next(iter(_sets(detection, method)))
    order = np.argsort(-score, kind="stable")[:n]
    return _extreme(detection, method, name, rows, score, order)


def _sets(
    detection: Detection, method: str
) -> list[tuple[str, Predictions, FloatArray]]:
    """Return name, rows and scores of every reported set, in-distribution first."""
    scores, rows = detection.results[method].scores, detection.rows
    return [
        (INSIDE, rows.test, scores.test),
        *((name, rows.ood[name], values) for name, values in scores.ood.items()),
    ]


def _extreme(
    detection: Detection,
    method: str,
    name: str,
    rows: Predictions,
    score: FloatArray,
    kept: NDArray[np.int64],
) -> pd.DataFrame:
    found = detection.results[method]
    inside = np.sort(found.scores.test)
    frame = _described(rows, kept, name)
    frame["score"] = score[kept]
    above = inside.size - np.searchsorted(inside, score[kept], side="right")
    frame["share_above"] = above / inside.size
    frame["accepted"] = found.threshold.accepts(score[kept])
    return frame


def _described(rows: Predictions, kept: NDArray[np.int64], name: str) -> pd.DataFrame:
    """Return where rows come from and what the network says of them."""
    frame = pd.DataFrame({"set": name, "file_row": rows.file_rows[kept]})
    ids = rows.column("id")
    if ids is not None:
        frame["id"] = ids.iloc[kept].to_numpy()
    frame["confidence"] = np.nan
    if rows.logits is not None or rows.confidence is not None:
        statistics = Rows(rows, kept).statistics()
        frame["confidence"] = statistics.confidence
        if statistics.prediction is not None:
            names = np.array(list(rows.classes), dtype=object)
            frame["prediction"] = names[statistics.prediction]
    return frame


def _sorted(values: ArrayLike) -> FloatArray:
    return np.sort(checked_scores(values, "scores"))


def _cuts(inside: FloatArray, outside: FloatArray, most: int) -> FloatArray:
    """Return thresholds: every distinct score, or quantiles of both sets."""
    every = np.unique(np.concatenate([inside, outside]))
    if every.size <= most:
        return every
    half = most // 2
    places = [
        x[np.linspace(0, x.size - 1, half).astype(np.int64)] for x in (inside, outside)
    ]
    return np.unique(np.concatenate([*places, every[[0, -1]]]))
