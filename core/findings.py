"""What to look at next: the worst class, the worst slice, and rows to review."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.analysis import UNCALIBRATED, Overview
from core.decisions import halves
from core.listing import list_rows, most_surprising
from core.metrics import Sample
from core.predictions import Study
from core.settings import Settings
from core.slices import Gaps, PartGaps, large_parts, part_gaps
from core.uncertainty import Estimate

__all__ = ["MOST_REVIEWED", "Findings", "StandOut", "find"]

IndexArray = NDArray[np.int64]

MOST_REVIEWED = 100
_MADE = "Clopper-Pearson interval of the share that is right, confidences as they are"
_MISSING = "(empty)"


@dataclass(frozen=True, slots=True)
class StandOut:
    """The part of the rows that differs most from the others, by the signed gap.

    Parameters
    ----------
    column : str
        What the rows are divided by; empty for the predicted class.
    value : str
        Class, or value of the column.
    gap, rest, difference : Estimate
        Mean confidence minus accuracy in the part, outside it, and the difference.
    n_candidates : int
        Parts that were looked at.
    n_searched : int
        Rows of the half that the part was found on; 0 where the intervals allow for
        all parts at once instead.
    """

    column: str
    value: str
    gap: Estimate
    rest: Estimate
    difference: Estimate
    n_candidates: int
    n_searched: int = 0

    @property
    def is_detectable(self) -> bool:
        """Whether the part is worse than the other rows by more than chance."""
        low, high = self.difference.low, self.difference.high
        if low is None or high is None or low <= 0 <= high:
            return False
        return abs(self.gap.value) > abs(self.rest.value)

    @property
    def sentence(self) -> str:
        """What was found, in a sentence."""
        if not self.is_detectable:
            return f"Nothing detectable among {self._looked_at}."
        where = f"{self.column} = {self.value}" if self.column else self.value
        return f"{where}: gap {_words(self.gap)}; elsewhere {_words(self.rest)}."

    @property
    def _looked_at(self) -> str:
        noun = "slices" if self.column else "predicted classes"
        return f"{self.n_candidates:,} {noun}"

    @property
    def how(self) -> str:
        """How it was searched and tested, in a sentence."""
        if not self.column:
            return (
                f"Found among {self.n_candidates:,} predicted classes, each against "
                "all other rows; the intervals hold for all classes at once."
            )
        return (
            f"Found among {self.n_candidates:,} slices on {self.n_searched:,} rows, "
            f"whole groups together; measured on the {self.difference.n:,} others."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            "column": self.column,
            "value": self.value,
            "is_detectable": self.is_detectable,
            "sentence": self.sentence,
            "how": self.how,
            "gap": self.gap.to_dict(),
            "rest": self.rest.to_dict(),
            "difference": self.difference.to_dict(),
            "n_candidates": self.n_candidates,
            "n_searched": self.n_searched,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What stands out among the labelled rows, before any repair.

    Parameters
    ----------
    worst_class, worst_slice : StandOut or None
        None where there is nothing to compare.
    class_reason, slice_reason : str
        Why there is nothing to compare; else empty.
    rows : ndarray of int64
        Wrong rows, the most surprising first; at most `MOST_REVIEWED`.
    n_wrong : int
        Wrong rows in all.
    review : DataFrame
        Those rows as `core.listing.list_rows` gives them.
    """

    worst_class: StandOut | None
    worst_slice: StandOut | None
    class_reason: str
    slice_reason: str
    rows: IndexArray
    n_wrong: int
    review: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        shown = ("label", "prediction", "confidence", "probability_of_label")
        first = self.review.columns[: self.review.columns.get_loc("file_row") + 1]
        kept = [*first, *(name for name in shown if name in self.review)]
        if "probability_of_label" not in self.review:  # one confidence per row
            kept = [name for name in self.review if name != "correct"]
        return {
            "worst_class": self.worst_class and self.worst_class.to_dict(),
            "class_reason": self.class_reason,
            "worst_slice": self.worst_slice and self.worst_slice.to_dict(),
            "slice_reason": self.slice_reason,
            "n_wrong": self.n_wrong,
            "rows_to_review": json.loads(
                self.review[kept].to_json(orient="records", double_precision=15)
            ),
        }


def find(study: Study, settings: Settings, overview: Overview) -> Findings | None:
    """Look for the worst class, the worst slice and rows to review.

    Parameters
    ----------
    study : Study
    settings : Settings
        `level` and `seed`.
    overview : Overview

    Returns
    -------
    Findings or None
        None without labelled rows.
    """
    if "top-label" not in overview.samples:
        return None
    own, used = study.evaluation, overview.used
    sample = overview.samples["top-label"]
    worst_class, class_reason = _worst_class(own.classes, overview, sample, settings)
    worst_slice, slice_reason = _worst_slice(study, overview, sample, settings)
    correct = overview.rows.correct
    assert correct is not None  # noqa: S101 - there are labelled rows
    wrong = used[~np.asarray(correct[used], dtype=bool)]
    rows = most_surprising(overview.rows, wrong, MOST_REVIEWED)
    return Findings(
        worst_class=worst_class,
        worst_slice=worst_slice,
        class_reason=class_reason,
        slice_reason=slice_reason,
        rows=rows,
        n_wrong=int(wrong.size),
        review=list_rows(own, overview.rows.take(rows), rows),
    )


def _worst_class(
    classes: tuple[str, ...], overview: Overview, sample: Sample, settings: Settings
) -> tuple[StandOut | None, str]:
    """Every predicted class against the others, all intervals valid together."""
    predicted = overview.rows.prediction
    if predicted is None:
        return None, "Needs class scores."
    part = np.asarray(predicted[overview.used], dtype=np.int64)
    everything = np.arange(part.size)
    # Which classes have enough rows depends on the scores alone, not on the labels.
    n_candidates = int(large_parts(np.bincount(part)).sum())
    if n_candidates < 2:
        return None, "Needs two classes that are predicted ten times or more."
    level = 1 - (1 - settings.level) / n_candidates
    found = _gaps_of(sample, everything, part, level)
    best = int(found.excess.argmax())
    method = f"{_MADE}, Bonferroni over {n_candidates:,} classes"
    return _stand_out("", classes[best], found, best, n_candidates, method), ""


def _worst_slice(
    study: Study, overview: Overview, sample: Sample, settings: Settings
) -> tuple[StandOut | None, str]:
    """Find the slice on one half of the rows, measure it on the other."""
    own = study.evaluation
    if not own.roles.slices:
        return None, "No column to slice by."
    n = overview.used.size
    n_units = n if sample.groups is None else int(np.unique(sample.groups).size)
    if n_units < 2:
        return None, "Too few rows or groups for two halves."
    divided = halves(overview.used, sample.groups, settings.seed)
    searched, tested = np.flatnonzero(divided.choose), np.flatnonzero(divided.measure)
    best: tuple[float, str, Any, IndexArray, int] | None = None
    n_candidates = 0
    for column in own.roles.slices:
        values = own.metadata[column].iloc[overview.used]
        part, names = pd.factorize(values, use_na_sentinel=False)
        part = np.asarray(part, dtype=np.int64)
        found = _gaps_of(sample, searched, part, settings.level)
        n_candidates += int(found.is_large.sum())
        if not found.is_large.any():
            continue
        place = int(found.excess.argmax())
        if best is None or found.excess[place] > best[0]:
            best = float(found.excess[place]), column, names[place], part, place
    if best is None:
        return None, "No slice has ten rows to search and ten others."
    _, column, name, part, place = best
    found = _gaps_of(sample, tested, part, settings.level)
    value = _MISSING if pd.isna(name) else str(name)
    method = f"{_MADE}, on the half that was not searched"
    made = _stand_out(
        column, value, found, place, n_candidates, method, n_searched=searched.size
    )
    return made, ""


def _gaps_of(
    sample: Sample, rows: IndexArray, part: IndexArray, level: float
) -> PartGaps:
    scores, weight = sample.scores[UNCALIBRATED], sample.sample_weight
    return part_gaps(
        scores.confidence[rows],
        scores.outcome[rows],
        part[rows],
        int(part.max()) + 1,
        sample_weight=None if weight is None else weight[rows],
        groups=None if sample.groups is None else sample.groups[rows],
        level=level,
    )


def _stand_out(
    column: str,
    value: str,
    found: PartGaps,
    place: int,
    n_candidates: int,
    method: str,
    *,
    n_searched: int = 0,
) -> StandOut:
    n, n_rest = int(found.count[place]), int(found.n_rest[place])

    def estimate(gaps: Gaps, n: int) -> Estimate:
        ends = (float(gaps.low[place]), float(gaps.high[place]))
        low, high = (None if end != end else end for end in ends)
        value = float(gaps.value[place])
        return Estimate(value, low, high, found.level, n, method=method)

    return StandOut(
        column=column,
        value=value,
        gap=estimate(found.part, n),
        rest=estimate(found.rest, n_rest),
        difference=estimate(found.difference, n + n_rest),
        n_candidates=n_candidates,
        n_searched=n_searched,
    )


def _words(item: Estimate) -> str:
    """Return a gap in points with its interval and its rows."""
    ends = (
        ""
        if item.low is None or item.high is None
        else (f"{100 * item.low:+.1f} to {100 * item.high:+.1f}, ")
    )
    return f"{100 * item.value:+.1f} points ({ends}{item.n:,} rows)"
