"""The verdict in words: what the numbers say, and what they cannot say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from core.uncertainty import Estimate

__all__ = ["FEW_ROWS", "Verdict", "repair_sentence", "verdict"]

FEW_ROWS = 200
_PRECISION = 0.02  # half width of the gap's interval that "about N rows" aims at


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
    accuracy: Estimate, gap: Estimate, ece: Estimate, *, n_effective: int
) -> Verdict:
    """Return what the gap, its interval and the ECE's null say together.

    Parameters
    ----------
    accuracy, gap, ece : Estimate
        On the same rows, uncalibrated.
    n_effective : int
        Independent rows that would give the same precision.
    """
    said = accuracy.value + gap.value
    facts = (
        f"It says {_percent(said)} and is right {_percent(accuracy.value)} of the time "
        f"({gap_words(gap)})."
    )
    half = gap.half_width or 0.0
    if n_effective < FEW_ROWS:
        wanted = max(FEW_ROWS, math.ceil(n_effective * (half / _PRECISION) ** 2))
        wanted = math.ceil(wanted / 50) * 50
        return Verdict(
            "too-few",
            "Too few rows to tell.",
            f"{facts} About {wanted:,} rows would do.",
        )
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
        f"{facts} A gap beyond {_points(gap.low)} to {_points(gap.high)} points is "
        "unlikely.",
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
        return f"{action} lowers the log loss; {gap_words(after)} on {after.rows} rows."
    if (
        after.low is not None
        and after.high is not None
        and after.low <= 0 <= after.high
    ):
        return f"{action} removes it ({gap_words(after)} on {after.rows} rows)."
    left = gap_words(after).replace("gap ", "gap of ", 1)
    return f"{action} leaves a {left} on {after.rows} rows."


def gap_words(gap: Estimate) -> str:
    """Return the gap in points with its uncertainty, such as "gap 5.4 ± 0.5 points"."""
    words = f"gap {_points(gap.value)}"
    if gap.half_width is not None:
        words += f" ± {_points(gap.half_width)}"
    return words + " points"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"


def _points(value: float | None) -> str:
    text = "unknown" if value is None else f"{100 * value:.1f}"
    return "0.0" if text == "-0.0" else text.replace("-", "\N{MINUS SIGN}")
