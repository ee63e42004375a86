"""What deserves a look: the worst class and the worst slice, honestly searched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from core.analysis import Overview
from core.decisions import Halves, halves
from core.per_class import ClassScores, class_gaps, class_scores
from core.predictions import Predictions
from core.settings import Settings
from core.uncertainty import Estimate

__all__ = ["Finding", "worst_class", "worst_slice"]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

FEWEST_ROWS = 20  # of a class or slice, in each half
MOST_VALUES = 50  # of a slice column


@dataclass(frozen=True, slots=True)
class Finding:
    """What stood out on one half of the rows, measured on the other.

    Parameters
    ----------
    column : str
        Slice column; empty for a class.
    value : str
        Class, or value of the slice column.
    estimate : Estimate
        Of a class: mean probability minus share. Of a slice: its signed gap minus
        that of all other rows.
    gap : float
        Of the class or slice itself.
    n_inside : int
        Rows of the half that measured that belong to it.
    n_searched : int
        Classes or slices that were looked at.
    """

    column: str
    value: str
    estimate: Estimate
    gap: float
    n_inside: int
    n_searched: int

    @property
    def is_detectable(self) -> bool:
        """Whether the interval excludes 0, on the side of the gap itself."""
        low, high = self.estimate.low, self.estimate.high
        is_clear = low is not None and high is not None and not low <= 0 <= high
        return is_clear and self.estimate.value * self.gap > 0


def worst_class(
    own: Predictions, overview: Overview, settings: Settings
) -> Finding | None:
    """Return the class whose gap is clearest on one half, measured on the other.

    None for files without class scores, or where no class has enough rows.
    """
    if own.logits is None or own.labels is None or overview.rows.logsumexp is None:
        return None
    scores = class_scores(own, overview)
    divided = halves(scores.rows, scores.groups, settings.seed)
    first = class_gaps(_part(scores, divided.choose), settings.level)
    second = class_gaps(_part(scores, divided.measure), settings.level)
    is_known = (first.count >= FEWEST_ROWS) & (second.count >= FEWEST_ROWS)
    half = (first.high - first.low) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        clear = np.where(is_known & (half > 0), np.abs(first.gap) / half, -1.0)
    best = int(np.argmax(clear))
    if clear[best] < 0:
        return None
    gap = float(second.gap[best])
    return Finding(
        column="",
        value=own.classes[best],
        estimate=_estimate(
            gap, float(second.high[best]) - gap, settings.level, second.n
        ),
        gap=gap,
        n_inside=int(second.count[best]),
        n_searched=int(is_known.sum()),
    )


def worst_slice(
    own: Predictions, overview: Overview, settings: Settings
) -> Finding | None:
    """Return the slice whose gap is most clearly worse than that of all other rows.

    It is searched on one half of the rows (whole groups) and measured on the other;
    None without slice columns or with too few rows.
    """
    used = overview.used
    statistics = overview.rows.take(used)
    if not own.roles.slices or statistics.correct is None:
        return None
    residual = statistics.confidence - statistics.correct
    weight, codes = own.sample_weight(), own.group_codes()
    mass = np.ones(used.size) if weight is None else weight[used]
    unit = np.arange(used.size) if codes is None else codes[used]
    divided = halves(used, None if codes is None else unit, settings.seed)
    best, n_searched = None, 0
    for column in own.roles.slices:
        values = own.metadata[column].iloc[used].reset_index(drop=True)
        for value in values.value_counts().index[:MOST_VALUES]:
            inside = (values == value).to_numpy()
            if not _is_enough(inside, divided):
                continue
            n_searched += 1
            difference, error, gap = _against_rest(
                residual, inside, mass, unit, divided.choose
            )
            # Worse, not only different: further from 0 than the others.
            clear = difference * np.sign(gap) / error if error > 0 else 0.0
            if best is None or clear > best[0]:
                best = (clear, column, value, inside)
    if best is None:
        return None
    _, column, value, inside = best
    difference, error, gap = _against_rest(
        residual, inside, mass, unit, divided.measure
    )
    z = float(stats.norm.ppf(0.5 + settings.level / 2))
    n = int(divided.measure.sum())
    return Finding(
        column=column,
        value=str(value),
        estimate=_estimate(difference, z * error, settings.level, n),
        gap=gap,
        n_inside=int((inside & divided.measure).sum()),
        n_searched=n_searched,
    )


def _part(scores: ClassScores, keep: NDArray[np.bool_]) -> ClassScores:
    weight, groups = scores.sample_weight, scores.groups
    return replace(
        scores,
        place=scores.place[keep],
        rows=scores.rows[keep],
        labels=scores.labels[keep],
        sample_weight=None if weight is None else weight[keep],
        groups=None if groups is None else groups[keep],
    )


def _is_enough(inside: NDArray[np.bool_], divided: Halves) -> bool:
    """Whether both halves have enough rows in the slice and outside of it."""
    counts = [
        int((half & part).sum())
        for half in (divided.choose, divided.measure)
        for part in (inside, ~inside)
    ]
    return min(counts) >= FEWEST_ROWS


def _against_rest(
    residual: FloatArray,
    inside: NDArray[np.bool_],
    mass: FloatArray,
    unit: IndexArray,
    keep: NDArray[np.bool_],
) -> tuple[float, float, float]:
    """Return gap inside minus outside, its standard error by group, and the gap."""
    r, w, here = residual[keep], mass[keep], inside[keep]
    part = np.zeros(r.size)
    means = []
    for where, sign in ((here, 1.0), (~here, -1.0)):
        total = w[where].sum()
        if total <= 0:
            return 0.0, 0.0, 0.0
        mean = float(w[where] @ r[where] / total)
        part[where] = sign * w[where] * (r[where] - mean) / total
        means.append(mean)
    sums = np.bincount(pd.factorize(unit[keep])[0], weights=part)
    error = float(np.sqrt((sums**2).sum() * sums.size / max(sums.size - 1, 1)))
    return means[0] - means[1], error, means[0]


def _estimate(value: float, half: float, level: float, n: int) -> Estimate:
    return Estimate(
        value=value,
        low=value - half,
        high=value + half,
        level=level,
        n=n,
        method="normal interval, found on the other half of the rows",
    )
