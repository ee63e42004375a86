"""The verdict in words: what the numbers say, and what they cannot say."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from core.uncertainty import Estimate

__all__ = [
    "FEW_ROWS",
    "SampleSize",
    "Verdict",
    "repair_sentence",
    "sample_size",
    "verdict",
]

FloatArray = NDArray[np.floating[Any]]

FEW_ROWS = 200  # independent rows below which nothing is told
_MOST_DIGITS = 8  # of a number in points
_NOISE = 1e-12  # an interval's end that is 0 but for rounding
_ROUND = 50  # rows that are asked for come in steps of so many


@dataclass(frozen=True, slots=True)
class SampleSize:
    """How much rows say, and how many of their kind would say enough.

    Parameters
    ----------
    n : int
        Rows.
    n_effective : float
        Independent rows of equal weight that say as much.
    n_groups : int or None
        None where rows are independent.
    n_needed : int or None
        Rows of this kind that count as `FEW_ROWS` independent ones, rounded up; None
        where one group tells nothing of others.
    is_weighted : bool
        Whether rows have weights that differ.
    """

    n: int
    n_effective: float
    n_groups: int | None = None
    n_needed: int | None = FEW_ROWS
    is_weighted: bool = False

    @property
    def is_enough(self) -> bool:
        """Whether something can be told from these rows."""
        return self.n_effective >= FEW_ROWS

    @property
    def advice(self) -> str:
        """How many rows would do, in one sentence."""
        if self.n_needed is None:
            return (
                "All rows belong to one group, which says nothing about others: rows "
                "of more groups are needed."
            )
        kind = ""
        if self.n_groups is not None:
            groups = math.ceil(self.n_needed * self.n_groups / self.n)
            kind = f" in groups like these ({groups:,} groups)"
        elif self.is_weighted:
            kind = " with weights like these"
        return f"About {self.n_needed:,} rows{kind} would do."


def sample_size(
    residual: FloatArray,
    sample_weight: FloatArray | None = None,
    groups: NDArray[Any] | None = None,
    *,
    few_outcomes: bool = False,
) -> SampleSize:
    """Return how many independent rows say as much about the mean residual.

    Parameters
    ----------
    residual : ndarray of shape (n,)
        Confidence minus outcome.
    sample_weight : ndarray of shape (n,), optional
        Positive. Rows count by Kish's effective number, (sum w)^2 / sum w^2.
    groups : ndarray of shape (n,), optional
        Rows of a group depend on each other: their number is divided by the design
        effect, the variance of the mean between groups over that between rows, and by
        the squared ratio of Student's quantiles for so few groups.
    few_outcomes : bool, default=False
        Whether nearly all outcomes are alike, so that the design effect is not known:
        then a group counts as one row.

    References
    ----------
    Kish (1965), Survey Sampling, chapters 5 and 8.
    """
    n = residual.size
    weight = np.ones(n) if sample_weight is None else sample_weight
    count = float(weight.sum() ** 2 / (weight @ weight))
    is_weighted = bool(np.ptp(weight) > 0) if n else False
    if groups is None:
        count = count if is_weighted else float(n)
        needed = _rounded(FEW_ROWS * n / count)
        return SampleSize(n, count, None, needed, is_weighted)
    names, unit = np.unique(groups, return_inverse=True)
    n_groups = int(names.size)
    if n_groups < 2:
        return SampleSize(n, 1.0, n_groups, None, is_weighted)
    parts = weight * (residual - np.average(residual, weights=weight))
    sums = np.bincount(unit, weights=parts)
    mass = np.bincount(unit, weights=weight)
    alone = float(parts @ parts)
    if few_outcomes or alone <= 0:
        independent = min(count, float(mass.sum() ** 2 / (mass @ mass)))
    else:
        independent = count / max(1.0, float(sums @ sums) / alone)

    def counted(k: int) -> float:
        """Return how many independent rows k groups like these are."""
        quantiles = special.stdtrit([k * n / n_groups - 1, k - 1], 0.975)
        return independent * k / n_groups * float(quantiles[0] / quantiles[1]) ** 2

    most = n_groups
    while counted(most) < FEW_ROWS:
        most *= 2
    limit = float(FEW_ROWS)
    enough = bisect.bisect_left(range(most + 1), limit, lo=2, key=counted)
    needed = _rounded(enough * n / n_groups)
    return SampleSize(n, counted(n_groups), n_groups, needed, is_weighted)


def _rounded(rows: float) -> int:
    """Return a number of rows rounded up, but for noise in the last digits."""
    return math.ceil(rows / _ROUND - 1e-9) * _ROUND


@dataclass(frozen=True, slots=True)
class Verdict:
    """A headline and one sentence with the figures behind it.

    Parameters
    ----------
    kind : {"overconfident", "underconfident", "uneven", "calibrated", "too-few", \
"no-labels"}
    headline : str
    sentence : str
    """

    kind: str
    headline: str
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return the three fields as a plain dictionary."""
        return asdict(self)


NO_LABELS = Verdict(
    "no-labels",
    "No labels, no verdict.",
    "The file says how sure the model is but not what was right. Choose the label "
    "column, or apply a calibrator that was fitted on labelled rows.",
)


def verdict(
    accuracy: Estimate, gap: Estimate, ece: Estimate, size: SampleSize
) -> Verdict:
    """Return what the gap, its interval and the ECE's null say together.

    Parameters
    ----------
    accuracy, gap, ece : Estimate
        On the same rows, uncalibrated.
    size : SampleSize
        Of these rows.
    """
    digits = _agreeing_digits(accuracy.value, gap.value)
    # Where two decimals do not agree either, they are made to: what is said to be the
    # confidence is then off by less than one of the last.
    parts = (round(100 * x, digits) for x in (accuracy.value, gap.value))
    said = _percent(sum(parts) / 100, digits)
    facts = (
        f"It says {said} and is right {_percent(accuracy.value, digits)} of the time "
        f"({gap_words(gap, digits)})."
    )
    if not size.is_enough:
        return Verdict("too-few", "Too few rows to tell.", f"{facts} {size.advice}")
    if gap.low is not None and gap.low > 0:
        return Verdict("overconfident", "Overconfident.", facts)
    if gap.high is not None and gap.high < 0:
        return Verdict("underconfident", "Underconfident.", facts)
    if ece.p_value is not None and ece.p_value < 1 - ece.level:
        return Verdict(
            "uneven",
            "Right on average, wrong in parts.",
            f"{facts} Over the bins confidence and accuracy differ by "
            f"{_percent(ece.value)} on average (a calibrated model of this size shows "
            f"{_percent(ece.null_low)} to {_percent(ece.null_high)}).",
        )
    return Verdict(
        "calibrated",
        "No miscalibration detectable.",
        f"{facts} A gap outside this interval is unlikely.",
    )


def repair_sentence(
    temperature: float,
    input_kind: str,
    after: Estimate,
    change: Mapping[str, Estimate],
    *,
    is_gap_found: bool = True,
) -> str:
    """Return what dividing by the fitted temperature does, in one sentence.

    Parameters
    ----------
    temperature : float
        Of the calibrator that is exported.
    input_kind : str
        "logits" or "probabilities".
    after : Estimate
        Signed gap of the calibrated test rows.
    change : mapping
        Metric id -> Estimate of (after minus before); uses "nll".
    is_gap_found : bool, default=True
        Whether the verdict found a gap that could be removed.
    """
    scores = "logits" if input_kind == "logits" else "log-probabilities"
    action = f"Dividing the {scores} by T = {temperature:.2f}"
    nll = change.get("nll")
    if nll is not None and nll.low is not None and nll.low > 0:
        return f"{action} makes the log loss worse: keep the scores as they are."
    if nll is not None and nll.high is not None and nll.high >= 0:
        return f"{action} makes no detectable difference to the log loss."
    if not is_gap_found:
        found = f"{gap_words(after)}, on {after.rows} rows"
        return f"{action} lowers the log loss; {found}."
    if (
        after.low is not None
        and after.high is not None
        and after.low <= 0 <= after.high
    ):
        words = f"{gap_words(after)}, on {after.rows} rows"
        return f"{action} removes the gap on average ({words})."
    left = gap_words(after).replace("gap ", "gap of ", 1)
    return f"{action} leaves a {left}, on {after.rows} rows."


def gap_words(gap: Estimate, digits: int = 1) -> str:
    """Return the gap in points with its interval: "gap 5.4 points, 4.9 to 6.0"."""
    words = f"gap {_points(gap.value, digits)} points"
    if gap.low is None or gap.high is None:
        return words
    ends = [end for end in (gap.low, gap.high) if abs(end) > _NOISE]
    while digits < _MOST_DIGITS and not all(round(100 * x, digits) for x in ends):
        digits += 1
    return f"{words}, {_points(gap.low, digits)} to {_points(gap.high, digits)}"


def _agreeing_digits(accuracy: float, gap: float) -> int:
    """Return 1 where confidence minus accuracy is the gap as shown so, else 2."""
    said = round(100 * (accuracy + gap), 1) - round(100 * accuracy, 1)
    return 1 if abs(said - round(100 * gap, 1)) < 0.05 else 2


def _percent(value: float | None, digits: int = 1) -> str:
    return "unknown" if value is None else f"{100 * value:.{digits}f} %"


def _points(value: float, digits: int = 1) -> str:
    text = f"{round(100 * value, digits) + 0.0:.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")
