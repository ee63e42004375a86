"""Differences to a chosen baseline: paired, with multiplicity taken into account."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from core.comparison import Comparison
from core.measurement import UNCALIBRATED
from core.metrics import Sample, changes
from core.row_statistics import RowStatistics
from core.uncertainty import Estimate

__all__ = [
    "WHY_NOT_ECE",
    "Contrast",
    "Flips",
    "contrasts",
    "flips",
    "holm",
    "refit_changes",
]

FloatArray = NDArray[np.floating[Any]]

WHY_NOT_ECE = (
    "Not by the ECE: it does not see how well scores tell right from wrong, it is "
    "biased upwards by an amount that differs between scores, and maps that throw "
    "information away (histograms, say) often have the lowest. The NLL and the Brier "
    "score are proper: only the true probabilities make them least."
)
"""Why methods are not ranked by their expected calibration error."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """How one fitted calibrator differs from the baseline on the same rows.

    Parameters
    ----------
    method : str
        Id of the calibrator, or "uncalibrated".
    metric : str
        Id of the metric.
    change : Estimate
        Of the metric, from the baseline to the method; its interval is of this one
        difference.
    p_value : float
        Two-sided, of no difference: Student's t with the paired standard error of the
        bootstrap. NaN where the difference is undefined.
    adjusted_p : float
        By Holm, for all differences of this metric to the baseline.
    """

    method: str
    metric: str
    change: Estimate
    p_value: float
    adjusted_p: float

    @property
    def is_detected(self) -> bool:
        """Whether there is a difference, at the level of the interval, after Holm."""
        return self.adjusted_p <= 1 - self.change.level + 1e-12

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            "method": self.method,
            "metric": self.metric,
            "change": self.change.to_dict(),
            "p_value": _plain(self.p_value),
            "adjusted_p": _plain(self.adjusted_p),
            "is_detected": self.is_detected,
        }


@dataclass(frozen=True, slots=True)
class Flips:
    """Rows whose predicted class a calibrator changed.

    Parameters
    ----------
    n : int
        Rows compared.
    changed, gained, lost : int
        Rows whose prediction changed; became right; became wrong.
    """

    n: int
    changed: int
    gained: int
    lost: int


def holm(p_values: ArrayLike) -> FloatArray:
    """Return p-values adjusted for their number, so that any error is as rare as said.

    Parameters
    ----------
    p_values : array-like of shape (m,)
        NaN where there is none; those do not count.

    Returns
    -------
    ndarray of shape (m,)

    References
    ----------
    Holm (1979), "A simple sequentially rejective multiple test procedure",
    Scandinavian Journal of Statistics 6.
    """
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    order = np.argsort(values, kind="stable")
    order = order[np.isfinite(values[order])]
    factor = np.arange(order.size, 0, -1)
    steps = np.maximum.accumulate(values[order] * factor)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def contrasts(
    compared: Comparison,
    baseline: str = UNCALIBRATED,
    *,
    metrics: Sequence[str] = ("nll", "brier", "accuracy"),
    view: str = "top-label",
) -> dict[str, dict[str, Contrast]]:
    """Return metric -> method -> difference to the baseline, on the test rows.

    Parameters
    ----------
    compared : Comparison
        From `core.comparison.compare`; its resamples are used again.
    baseline : str, default="uncalibrated"
        One of those compared.
    metrics : sequence of str
        Ids of metrics that are functions of rows; those that the rows do not allow
        are left out. Holm's correction is made for each metric by itself.
    view : {"top-label", "positive-class"}, default="top-label"

    Raises
    ------
    KeyError
        If the baseline is not among those compared.
    """
    sample = compared.samples[view]
    if baseline not in sample.scores:
        names = ", ".join(sample.scores)
        msg = f"{baseline!r} is not compared; choose among: {names}"
        raise KeyError(msg)
    others = [name for name, *_ in compared.ranking if name != baseline]
    moved = {name: changes(sample, baseline, name) for name in others}
    found: dict[str, dict[str, Contrast]] = {}
    for metric in metrics:
        known = [name for name in others if metric in moved[name]]
        if not known or (baseline, metric) not in sample.resample():
            continue
        raw = [_p_value(sample, baseline, name, metric, moved[name]) for name in known]
        # What cannot differ (the accuracy of kept predictions) is no test.
        adjusted = holm([math.nan if p == 1.0 else p for p in raw])
        found[metric] = {
            name: Contrast(
                name,
                metric,
                moved[name][metric],
                p,
                1.0 if p == 1.0 else float(after),
            )
            for name, p, after in zip(known, raw, adjusted, strict=True)
        }
    return found


def flips(before: RowStatistics, after: RowStatistics) -> Flips:
    """Count the rows whose predicted class changed, on the same labelled rows.

    Parameters
    ----------
    before, after : RowStatistics
        Of the same rows in the same order, with labels.
    """
    if before.prediction is None or after.prediction is None:
        return Flips(len(before), 0, 0, 0)
    is_changed = before.prediction != after.prediction
    gained = lost = 0
    if before.correct is not None and after.correct is not None:
        gained = int((is_changed & after.correct & ~before.correct).sum())
        lost = int((is_changed & before.correct & ~after.correct).sum())
    return Flips(len(before), int(is_changed.sum()), gained, lost)


def refit_changes(
    compared: Comparison, baseline: str = UNCALIBRATED
) -> dict[str, tuple[float, float]]:
    """Return the least and the greatest change of the NLL over refits, by method.

    Refits of all methods are of the same repeated splits, so that their differences
    are paired. Empty where fit rows are many, or the baseline has no refits.

    Parameters
    ----------
    compared : Comparison
    baseline : str, default="uncalibrated"
    """
    if baseline not in compared.refits:
        return {}
    found = {}
    for name, values in compared.refits.items():
        if name != baseline:
            change = values - compared.refits[baseline]
            found[name] = (float(change.min()), float(change.max()))
    return found


def _p_value(
    sample: Sample,
    baseline: str,
    name: str,
    metric: str,
    moved: Mapping[str, Estimate],
) -> float:
    """Two-sided p-value of no difference, from the resamples of the difference."""
    value = moved[metric].value
    draws = sample.resample()
    with np.errstate(invalid="ignore"):
        difference = draws[name, metric] - draws[baseline, metric]
    kept = difference[np.isfinite(difference)]
    if not np.isfinite(value) or kept.size < 2 or sample.n_units < 2:
        return float("nan")
    # The bootstrap of a mean is too narrow by sqrt(1 - 1/n).
    spread = float(kept.std(ddof=1)) * np.sqrt(sample.n_units / (sample.n_units - 1))
    if spread <= 1e-12 * max(1.0, abs(value)):
        return 1.0 if abs(value) <= 1e-12 else 0.0
    return float(2 * special.stdtr(sample.n_units - 1, -abs(value) / spread))


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None
