"""What out-of-distribution rows do to calibration, and what rejecting them mends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.binning import BinStatistics, bin_statistics
from core.ood.rows import Rows
from core.predictions import Predictions
from core.settings import Settings

__all__ = ["SHARES", "MixturePoint", "mixtures"]

FloatArray = NDArray[np.floating[Any]]

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares of OOD rows that are looked at."""


@dataclass(frozen=True, slots=True, eq=False)
class MixturePoint:
    """Calibration of a mixture of in-distribution and OOD rows.

    An OOD row has none of the classes: whatever is predicted is wrong.

    Parameters
    ----------
    share : float
        Of OOD rows among all that come.
    is_rejecting : bool
        Whether rows beyond the threshold are left out.
    coverage : float
        Share of the rows that are kept.
    ood_share : float
        Share of OOD rows among those.
    accuracy, confidence, ece : float
        Of the rows that are kept; NaN where none is.
    bins : BinStatistics or None
        Reliability of the confidence.
    """

    share: float
    is_rejecting: bool
    coverage: float
    ood_share: float
    accuracy: float
    confidence: float
    ece: float
    bins: BinStatistics | None

    @property
    def gap(self) -> float:
        """Mean confidence minus accuracy; positive where overconfident."""
        return self.confidence - self.accuracy


def mixtures(
    inside: Predictions,
    outside: Predictions,
    accepted: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None,
    settings: Settings,
    *,
    shares: Sequence[float] = SHARES,
    temperature: float = 1.0,
) -> list[MixturePoint]:
    """Return the calibration of mixtures, without and with rejection.

    Parameters
    ----------
    inside : Predictions
        In-distribution test rows; those without a label are left out.
    outside : Predictions
        OOD rows with the scores of every class.
    accepted : tuple of two ndarray of bool, optional
        Which of either rows a threshold accepts (`Threshold.accepts`).
    settings : Settings
        `n_bins`, `strategy`, `norm` and `level`.
    shares : sequence of float, default=SHARES
        Each from 0 to below 1.
    temperature : float, default=1
        Of the confidences, as a calibrator found it.

    Returns
    -------
    list of MixturePoint
        All shares without rejection, then all with it. In-distribution rows weigh
        (1 - share) / n each and OOD rows share / m.
    """
    is_labelled = inside.is_labelled
    right, sure = (values[is_labelled] for values in _outcomes(inside, temperature))
    odd = Rows(outside).statistics(temperature).confidence
    both = _Both(
        confidence=np.concatenate([sure, odd]),
        correct=np.concatenate([right, np.zeros(odd.size)]),
        is_odd=np.repeat([False, True], [sure.size, odd.size]),
    )
    keeps = [np.ones(both.is_odd.size, dtype=bool)]
    if accepted is not None:
        keeps.append(np.concatenate([accepted[0][is_labelled], accepted[1]]))
    return [
        _point(both, share, keep, settings, is_rejecting=number > 0)
        for number, keep in enumerate(keeps)
        for share in shares
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _Both:
    """In-distribution rows and OOD rows, one after the other."""

    confidence: FloatArray
    correct: FloatArray
    is_odd: NDArray[np.bool_]

    def weight(self, share: float) -> FloatArray:
        """Return the weight of each row in a mixture."""
        n_odd = int(self.is_odd.sum())
        n_inside = self.is_odd.size - n_odd
        odd, inside = share / max(n_odd, 1), (1 - share) / max(n_inside, 1)
        return np.where(self.is_odd, odd, inside)


def _outcomes(rows: Predictions, temperature: float) -> tuple[FloatArray, FloatArray]:
    """Return whether each row is right, and its confidence."""
    if rows.correct is not None and rows.confidence is not None:
        return rows.correct.astype(np.float64), rows.confidence
    every = Rows(rows)
    statistics = every.statistics(temperature)
    is_right = np.asarray(statistics.prediction) == every.labels
    return is_right.astype(np.float64), statistics.confidence


def _point(
    both: _Both,
    share: float,
    keep: NDArray[np.bool_],
    settings: Settings,
    *,
    is_rejecting: bool,
) -> MixturePoint:
    weight = both.weight(share)
    used = keep & (weight > 0)
    weight = weight[used]
    mass = float(weight.sum())
    if not mass > 0:
        nan = float("nan")
        return MixturePoint(share, is_rejecting, 0.0, nan, nan, nan, nan, None)
    confidence, correct = both.confidence[used], both.correct[used]
    bins = bin_statistics(
        confidence,
        correct,
        n_bins=settings.n_bins,
        strategy=settings.strategy,
        sample_weight=weight,
        level=settings.level,
    )
    return MixturePoint(
        share=share,
        is_rejecting=is_rejecting,
        coverage=mass / float(both.weight(share).sum()),
        ood_share=float(weight @ both.is_odd[used]) / mass,
        accuracy=float(weight @ correct) / mass,
        confidence=float(weight @ confidence) / mass,
        ece=bins.error(settings.norm),
        bins=bins,
    )
