"""Each class against the rest: probabilities, bins and gaps of every class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from core.analysis import UNCALIBRATED, Overview
from core.binning import BinStatistics, bin_statistics, bin_sums
from core.fitting import Fitted
from core.messages import FitError, Progress, no_progress
from core.metrics import CURVES, Curve, Design, RowScores
from core.metrics.base import without_noise
from core.metrics.estimation import FEW_OUTCOMES
from core.predictions import Predictions, Study
from core.settings import Settings
from core.splitting import Split
from core.uncertainty import Estimate, wilson_interval

__all__ = [
    "ClassGaps",
    "ClassScores",
    "calibrated_scores",
    "class_bins",
    "class_curve",
    "class_gaps",
    "class_scores",
    "scores_for",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

_CELLS = 1 << 20  # scores worked on at once


@dataclass(frozen=True, slots=True, eq=False)
class ClassScores:
    """Probabilities of every class on the same rows, made class by class.

    Parameters
    ----------
    logits : ndarray of shape (m, k)
        Of all rows they were computed for.
    logsumexp : ndarray of shape (m,)
        Their normaliser; 0 for log-probabilities.
    place : ndarray of int64 of shape (n,)
        Rows of `logits` that count.
    rows : ndarray of int64 of shape (n,)
        The same rows, as positions in the file.
    labels : ndarray of int64 of shape (n,)
    sample_weight : ndarray of shape (n,) or None
    groups : ndarray of int64 of shape (n,) or None
    kind : {"all", "test", "cross-fitted"}
    """

    logits: FloatArray
    logsumexp: FloatArray
    place: IndexArray
    rows: IndexArray
    labels: IndexArray
    sample_weight: FloatArray | None
    groups: IndexArray | None
    kind: str

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.logits.shape[1])

    def probability(self, columns: slice | int) -> NDArray[np.float64]:
        """Return the probability of some classes, shape (n,) or (n, c)."""
        found = np.asarray(self.logits[self.place, columns], dtype=np.float64)
        lse = self.logsumexp[self.place]
        found -= lse if found.ndim == 1 else lse[:, None]
        return np.exp(found, out=found)


@dataclass(frozen=True, slots=True, eq=False)
class ClassGaps:
    """Mean probability of every class minus the share of rows that have it.

    Parameters
    ----------
    count : ndarray of int64 of shape (k,)
        Rows with this label.
    probability, share : ndarray of shape (k,)
        Weighted means.
    low, high : ndarray of shape (k,)
        Interval of the gap, by group where there are groups; one class at a time.
    level : float
    n : int
    """

    count: IndexArray
    probability: FloatArray
    share: FloatArray
    low: FloatArray
    high: FloatArray
    level: float
    n: int

    @property
    def gap(self) -> FloatArray:
        """Mean probability minus share; positive where overconfident."""
        return self.probability - self.share

    def estimate(self, column: int, rows: str = "all") -> Estimate:
        """Return the gap of one class with its interval."""
        return Estimate(
            value=float(self.gap[column]),
            low=float(self.low[column]),
            high=float(self.high[column]),
            level=self.level,
            n=self.n,
            rows=rows,
            method="interval of this class by itself",
        )


def class_scores(
    own: Predictions, overview: Overview, split: Split | None = None
) -> ClassScores:
    """Return the uncalibrated probabilities of every labelled row in use.

    The normaliser comes from the one kernel trip of the overview.

    Parameters
    ----------
    own : Predictions
    overview : Overview
    split : Split, optional
        Only its test rows, to be compared with calibrated ones.

    Raises
    ------
    FitError
        If there are no class scores or no labels.
    """
    if own.logits is None or own.labels is None or overview.rows.logsumexp is None:
        raise FitError("Classes need labelled rows with class scores.", own.name)
    used, kind = overview.used, "all"
    if split is not None:
        used, kind = split.test, split.rows
    return _scores(own, own.logits, overview.rows.logsumexp, used, used, kind)


def calibrated_scores(study: Study, split: Split, fitted: Fitted) -> ClassScores:
    """Return the probabilities of the test rows, each by a fit that never saw it."""
    own = study.evaluation
    if own.logits is None or own.labels is None:
        raise FitError("Classes need labelled rows with class scores.", own.name)
    test, logs = split.test, fitted.log_probabilities(study, split)
    return _scores(
        own, logs, np.zeros(test.size), np.arange(test.size), test, split.rows
    )


def class_bins(scores: ClassScores, column: int, settings: Settings) -> BinStatistics:
    """Return the bins of one class against the rest."""
    return bin_statistics(
        without_noise(scores.probability(column)),
        scores.labels == column,
        n_bins=settings.n_bins,
        strategy=settings.strategy,
        sample_weight=scores.sample_weight,
        groups=scores.groups,
        level=settings.level,
    )


def class_curve(
    scores: ClassScores,
    column: int,
    settings: Settings,
    kind: str,
    progress: Progress = no_progress,
) -> Curve:
    """Return the reliability curve of one class against the rest.

    Parameters
    ----------
    scores : ClassScores
    column : int
        Of the class.
    settings : Settings
        `level`, `n_resamples` and `seed`.
    kind : str
        Id in `core.metrics.CURVES`.
    progress : callable, optional
    """
    design = Design(
        level=settings.level,
        n_resamples=settings.n_resamples,
        seed=settings.seed,
        sample_weight=scores.sample_weight,
        groups=scores.groups,
        progress=progress,
    )
    hit = np.asarray(scores.labels == column, dtype=np.float64)
    own = RowScores(without_noise(scores.probability(column)), hit)
    found: Curve = CURVES[kind](own, design, level=settings.level)
    return replace(found, rows=scores.kind)


def class_gaps(scores: ClassScores, level: float = 0.95) -> ClassGaps:
    """Return the gap of every class with its interval, a few classes at a time.

    Parameters
    ----------
    scores : ClassScores
    level : float, default=0.95
        Of each interval by itself; nothing is corrected for looking at all classes.

    Notes
    -----
    Classes with fewer than ten rows, or all but ten, have Wilson's interval of the
    share put together with the normal one of the mean probability (Zou and Donner
    2008, Statistics in Medicine 27): where no row has the label nothing varies.
    """
    n, k = scores.rows.size, scores.n_classes
    weight = np.ones(n) if scores.sample_weight is None else scores.sample_weight
    weight = weight / weight.sum()
    share = bin_sums(scores.labels, weight, k)
    probability, error, spread = np.empty(k), np.empty(k), np.empty(k)
    step = max(1, _CELLS // max(n, 1))
    for start in range(0, k, step):
        block = slice(start, min(start + step, k))
        residual = scores.probability(block)
        probability[block] = weight @ residual
        said = (residual - probability[block]) * weight[:, None]
        spread[block] = _standard_error(said, scores.groups)
        inside = np.flatnonzero((scores.labels >= start) & (scores.labels < block.stop))
        residual[inside, scores.labels[inside] - start] -= 1.0
        residual -= probability[block] - share[block]
        residual *= weight[:, None]
        error[block] = _standard_error(residual, scores.groups)
    z = float(special.ndtri(0.5 + level / 2))
    gap, count = probability - share, np.bincount(scores.labels, minlength=k)
    design = Design(sample_weight=scores.sample_weight, groups=scores.groups)
    low, high = wilson_interval(share, design.n_units(n), level)
    is_rare = np.minimum(count, n - count) < FEW_OUTCOMES
    return ClassGaps(
        count=count,
        probability=probability,
        share=share,
        low=gap - np.where(is_rare, np.hypot(high - share, z * spread), z * error),
        high=gap + np.where(is_rare, np.hypot(share - low, z * spread), z * error),
        level=level,
        n=n,
    )


def _standard_error(parts: FloatArray, groups: IndexArray | None) -> FloatArray:
    """Return the standard error of sums of independent rows, or groups of rows."""
    if groups is not None:
        names, unit = np.unique(groups, return_inverse=True)
        sums = np.zeros((names.size, parts.shape[1]))
        np.add.at(sums, unit, parts)
        parts = sums
    n = parts.shape[0]
    if n < 2:
        return np.full(parts.shape[1], np.nan)
    found: FloatArray = np.sqrt((parts**2).sum(axis=0) * n / (n - 1))
    return found


def _scores(
    own: Predictions,
    logits: FloatArray,
    logsumexp: FloatArray,
    place: IndexArray,
    rows: IndexArray,
    kind: str,
) -> ClassScores:
    assert own.labels is not None  # noqa: S101 - the caller has looked
    weight, codes = own.sample_weight(), own.group_codes()
    return ClassScores(
        logits=logits,
        logsumexp=logsumexp,
        place=place,
        rows=rows,
        labels=own.labels[rows],
        sample_weight=None if weight is None else weight[rows],
        groups=None if codes is None else codes[rows],
        kind=kind,
    )


def scores_for(
    study: Study,
    overview: Overview,
    fitted: Fitted | None = None,
    *,
    is_compared: bool = False,
) -> ClassScores:
    """Return the probabilities before a repair, or after it on the test rows.

    Parameters
    ----------
    study : Study
    overview : Overview
    fitted : Fitted, optional
    is_compared : bool, default=False
        Whether those before a repair are of the test rows as well.
    """
    if fitted is None or fitted.method == UNCALIBRATED or overview.split is None:
        split = overview.split if is_compared else None
        return class_scores(study.evaluation, overview, split)
    return calibrated_scores(study, overview.split, fitted)
