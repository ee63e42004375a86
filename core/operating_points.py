"""Thresholds on the confidence, chosen on some rows and measured on the test rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.companions import companions_of
from core.decisions import proportion
from core.fitting import Fitted
from core.measurement import UNCALIBRATED, Overview, rows_of, scores_of
from core.messages import FitError
from core.predictions import Study
from core.row_statistics import RowStatistics
from core.settings import Settings
from core.splitting import Split
from core.uncertainty import Estimate

__all__ = [
    "TARGETS",
    "OperatingPoint",
    "OperatingPoints",
    "accuracy_threshold",
    "operating_points",
    "sensitivity_threshold",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]
Threshold = Callable[[FloatArray, FloatArray, float, FloatArray | None], float | None]

TARGETS = (0.8, 0.9, 0.95, 0.99)
_WANTED = {"selective": "accuracy", "sensitivity": "sensitivity"}


@dataclass(frozen=True, slots=True, eq=False)
class OperatingPoint:
    """A threshold for one target, and its rates on the test rows.

    Parameters
    ----------
    target : float
        What the threshold was chosen for.
    threshold : float or None
        None where no threshold reaches the target on the rows that choose.
    rates : mapping of str to Estimate
        Empty without a threshold.
    wanted : {"accuracy", "sensitivity"}
        Which rate the target is of.
    """

    target: float
    threshold: float | None
    rates: Mapping[str, Estimate]
    wanted: str = "accuracy"

    @property
    def is_missed(self) -> bool:
        """Whether the test rows fall short of the target."""
        found = self.rates.get(self.wanted)
        return found is not None and found.value < self.target

    @property
    def outcome(self) -> str:
        """Whether the target holds on the test rows, in a few words."""
        found = self.rates.get(self.wanted)
        if self.threshold is None or found is None:
            return "not reached"
        if not found.n:
            return "no test row to judge"
        if not self.is_missed:
            return "reached"
        if found.high is not None and found.high < self.target:
            return "missed"
        return "missed, within the interval"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            "target": self.target,
            "threshold": self.threshold,
            "outcome": self.outcome,
            "rates": {name: item.to_dict() for name, item in self.rates.items()},
        }


@dataclass(frozen=True, slots=True, eq=False)
class OperatingPoints:
    """Thresholds of one set of scores, and where they come from.

    Parameters
    ----------
    method : str
        Id of the calibrator, or "uncalibrated".
    tables : mapping of str to tuple of OperatingPoint
        "selective" (a wanted accuracy among the rows that are kept) and, for two
        classes, "sensitivity".
    role : {"fit", "threshold"}
        Which rows choose.
    kind : {"test", "cross-fitted"}
        Which rows measure.
    n_choose, n_test : int
        How many rows choose and measure.
    n_groups : int or None
        Groups of the rows that measure; None where rows are independent.
    level : float
    """

    method: str
    tables: Mapping[str, tuple[OperatingPoint, ...]]
    role: str
    kind: str
    n_choose: int
    n_test: int
    n_groups: int | None
    level: float

    @property
    def sentence(self) -> str:
        """Which rows choose, which measure, and what the intervals are."""
        intervals = f"Wilson intervals at {self.level:.0%}"
        if self.n_groups is not None:
            intervals += f", by group ({self.n_groups:,} groups)"
        if self.kind == "cross-fitted":
            return (
                f"{self.n_test:,} cross-fitted rows: each is measured at a threshold "
                f"chosen on {self.role} rows of other folds. The threshold shown is "
                f"chosen on all {self.n_choose:,}. {intervals}."
            )
        why = "" if self.role == "threshold" else " (no row is kept for thresholds)"
        return (
            f"Chosen on the {self.n_choose:,} {self.role} rows{why}, measured on the "
            f"{self.n_test:,} test rows. {intervals}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            "sentence": self.sentence,
            "chosen_on": self.role,
            "n_chosen_on": self.n_choose,
            "measured_on": self.kind,
            "n": self.n_test,
            "n_groups": self.n_groups,
        } | {
            name: [item.to_dict() for item in points]
            for name, points in self.tables.items()
        }


def accuracy_threshold(
    confidence: FloatArray,
    correct: FloatArray,
    target: float,
    sample_weight: FloatArray | None = None,
) -> float | None:
    """Return the lowest confidence from which on the accuracy reaches a target.

    Parameters
    ----------
    confidence, correct : ndarray of shape (n,)
    target : float
    sample_weight : ndarray of shape (n,), optional

    Returns
    -------
    float or None
        None where no confidence does. Equal confidences are kept or left together.
    """
    order = np.argsort(-confidence, kind="stable")
    weight = np.ones(order.size) if sample_weight is None else sample_weight[order]
    with np.errstate(invalid="ignore", divide="ignore"):
        reached = np.cumsum(weight * correct[order]) / np.cumsum(weight)
    is_last = np.ones(order.size, dtype=bool)
    is_last[:-1] = confidence[order][1:] != confidence[order][:-1]
    good = np.flatnonzero(is_last & (reached >= target))
    return float(confidence[order[good[-1]]]) if good.size else None


def sensitivity_threshold(
    probability: FloatArray,
    is_positive: FloatArray,
    target: float,
    sample_weight: FloatArray | None = None,
) -> float | None:
    """Return the highest threshold that flags a wanted share of the positive rows.

    Parameters
    ----------
    probability, is_positive : ndarray of shape (n,)
    target : float
    sample_weight : ndarray of shape (n,), optional

    Returns
    -------
    float or None
        None without a positive row.
    """
    weight = np.ones(probability.size) if sample_weight is None else sample_weight
    chosen = np.flatnonzero((is_positive > 0) & (weight > 0))
    if not chosen.size:
        return None
    order = chosen[np.argsort(-probability[chosen], kind="stable")]
    share = np.cumsum(weight[order]) / weight[order].sum()
    reached = np.flatnonzero(share >= target - 1e-12)
    return float(probability[order[reached[0]]]) if reached.size else None


def operating_points(
    study: Study,
    settings: Settings,
    overview: Overview,
    fitted: Fitted | None = None,
    targets: Sequence[float] = TARGETS,
) -> OperatingPoints:
    """Return thresholds for wanted rates, with the rates that test rows show.

    Each round of the split chooses on its threshold rows or, where it has none, on
    its fit rows, with the calibrator that it fitted, and measures on its test rows.
    With several rounds every row is measured at the threshold of its round, and the
    threshold reported is chosen on all of them with the calibrator that is exported.

    Parameters
    ----------
    study : Study
    settings : Settings
        `level` and `positive_class`.
    overview : Overview
    fitted : Fitted, optional
        The calibrator; by default the scores as they are.
    targets : sequence of float, default=TARGETS

    Raises
    ------
    FitError
        If the rows are not divided.
    """
    own, split = study.evaluation, overview.split
    if split is None:
        raise FitError("Operating points need rows to choose on and others.", own.name)
    test = split.test
    statistics = overview.rows.take(test) if fitted is None else fitted.rows
    views = {"selective": "top-label"}
    if own.n_classes == 2 and own.labels is not None:
        views["sensitivity"] = "positive-class"
    source = _Choosing(study, settings, overview, split, fitted)
    weight, codes = own.sample_weight(), own.group_codes()
    groups = None if codes is None else codes[test]
    options: dict[str, Any] = {
        "sample_weight": None if weight is None else weight[test],
        "groups": groups,
        "level": settings.level,
        "rows": split.rows,
    }
    tables = {}
    for name, view in views.items():
        find = accuracy_threshold if name == "selective" else sensitivity_threshold
        tested = scores_of(own, statistics, settings, view)
        per_round = source.thresholds(view, find, targets)
        at_row = np.array(
            [[np.nan if t is None else t for t in found] for found in per_round[:-1]]
        )[split.fold[test]]
        tables[name] = tuple(
            _measured(
                name,
                target,
                per_round[-1][i],
                tested.confidence,
                tested.outcome > 0,
                at_row[:, i],
                options,
            )
            for i, target in enumerate(targets)
        )
    return OperatingPoints(
        method=UNCALIBRATED if fitted is None else fitted.method,
        tables=tables,
        role=source.role,
        kind=split.rows,
        n_choose=source.parts[-1].size,
        n_test=int(test.size),
        n_groups=None if groups is None else int(np.unique(groups).size),
        level=settings.level,
    )


class _Choosing:
    """The rows that choose in each round, and after them those of all rounds."""

    def __init__(
        self,
        study: Study,
        settings: Settings,
        overview: Overview,
        split: Split,
        fitted: Fitted | None,
    ) -> None:
        has_own = all(item.threshold.size for item in split.rounds)
        self.role = "threshold" if has_own else "fit"
        self.study, self.settings = study, settings
        is_fit_file = split.kind == "fit-file" and not has_own
        self.source = study.evaluation
        if is_fit_file and study.fit is not None:
            self.source = study.fit
        self.parts = [getattr(item, self.role) for item in split.rounds]
        made: list[Any] = [None] * len(self.parts)
        if fitted is not None:
            made = list(fitted.rounds)
        if len(self.parts) > 1:
            self.parts.append(np.unique(np.concatenate(self.parts)))
            made.append(None if fitted is None else fitted.calibrator)
        before = None
        if fitted is None:
            before = rows_of(self.source) if is_fit_file else overview.rows
        self.statistics = [
            self._scored(rows, calibrator, before)
            for rows, calibrator in zip(self.parts, made, strict=True)
        ]

    def _scored(
        self, rows: IndexArray, calibrator: Any, before: RowStatistics | None
    ) -> RowStatistics:
        if before is not None:
            return before.take(rows)
        assert self.source.logits is not None  # noqa: S101 - a calibrator was fitted
        assert self.source.labels is not None  # noqa: S101
        beside = companions_of(self.study, self.source, calibrator)
        found: RowStatistics = calibrator.row_statistics(
            self.source.logits[rows], self.source.labels[rows], **beside.take(rows)
        )
        return found

    def thresholds(
        self, view: str, find: Threshold, targets: Sequence[float]
    ) -> list[list[float | None]]:
        """Return the thresholds of each round, and after them those of all rounds."""
        weight = self.source.sample_weight()
        made = []
        for rows, statistics in zip(self.parts, self.statistics, strict=True):
            scores = scores_of(self.source, statistics, self.settings, view)
            mass = None if weight is None else weight[rows]
            made.append(
                [find(scores.confidence, scores.outcome, t, mass) for t in targets]
            )
        # A single round is all rounds.
        return made if len(made) > 1 else made * 2


def _measured(
    name: str,
    target: float,
    threshold: float | None,
    score: FloatArray,
    outcome: NDArray[np.bool_],
    at_row: FloatArray,
    options: Mapping[str, Any],
) -> OperatingPoint:
    """Return one point; `at_row` is the threshold of each row, NaN for none."""
    if threshold is None:
        return OperatingPoint(target, None, {}, _WANTED[name])
    above = score >= at_row  # no row lies above NaN
    everything = np.ones(score.size, dtype=bool)
    asked = (
        (("coverage", above, everything), ("accuracy", outcome, above))
        if name == "selective"
        else (
            ("sensitivity", above, outcome),
            ("specificity", ~above, ~outcome),
            ("precision", outcome, above),
        )
    )
    rates = {rate: _rate(hit, among, options) for rate, hit, among in asked}
    return OperatingPoint(target, threshold, rates, _WANTED[name])


def _rate(
    hit: NDArray[np.bool_], among: NDArray[np.bool_], options: Mapping[str, Any]
) -> Estimate:
    weight, groups = options["sample_weight"], options["groups"]
    return proportion(
        hit[among],
        None if weight is None else weight[among],
        None if groups is None else groups[among],
        level=options["level"],
        rows=options["rows"],
    )
