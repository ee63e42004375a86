"""The scores as they are: every row's values, the samples of a view, the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from core.binning import BinStatistics
from core.doubts import doubts
from core.messages import FitError, Note, Progress, no_progress, part_of
from core.metrics import RowScores, Sample, estimates, row_scores
from core.metrics.base import METRICS
from core.metrics.estimation import FEW_OUTCOMES
from core.predictions import Predictions, Study
from core.row_statistics import RowStatistics
from core.settings import Settings
from core.softmax import row_statistics
from core.splitting import Split, make_split, usable_rows
from core.uncertainty import Estimate
from core.verdict import NO_LABELS, SampleSize, Verdict, sample_size, verdict

__all__ = [
    "UNCALIBRATED",
    "Overview",
    "ViewResult",
    "measure",
    "positive_index",
    "preview_temperature",
    "rows_of",
    "sample_of",
    "scores_of",
    "view_names",
]

IndexArray = NDArray[np.int64]

UNCALIBRATED = "uncalibrated"


@dataclass(frozen=True, slots=True, eq=False)
class ViewResult:
    """Numbers and bins of one set of scores in one view.

    Parameters
    ----------
    estimates : mapping of str to Estimate
        By metric id.
    bins : BinStatistics
        The bins of the diagram and of the ECE beside it.
    """

    estimates: Mapping[str, Estimate]
    bins: BinStatistics


@dataclass(frozen=True, slots=True, eq=False)
class Overview:
    """The uncalibrated scores on every labelled row.

    Parameters
    ----------
    rows : RowStatistics
        Of all rows of the file, unlabelled ones included.
    used : ndarray of int64
        Rows that the numbers come from.
    views : mapping of str to ViewResult
        "top-label" and, for two classes, "positive-class"; empty without labels.
    verdict : Verdict
    split : Split or None
        How rows are divided; None where they cannot be.
    notes : tuple of Note
    samples : mapping of str to Sample
        View -> what the numbers were made from; a comparison on the same rows goes on
        with its resamples.
    """

    rows: RowStatistics
    used: IndexArray
    views: Mapping[str, ViewResult]
    verdict: Verdict
    split: Split | None
    notes: tuple[Note, ...]
    samples: Mapping[str, Sample] = field(default_factory=dict)

    def sample_of(
        self, view: str, used: IndexArray, settings: Settings
    ) -> Sample | None:
        """Return the sample of a view if it is of these rows and classes."""
        found = self.samples.get(view)
        if found is None or found.settings.positive_class != settings.positive_class:
            return None
        return found if np.array_equal(self.used, used) else None


def measure(
    study: Study,
    settings: Settings,
    progress: Progress = no_progress,
    known: Overview | None = None,
) -> Overview:
    """Return the uncalibrated numbers on every labelled row, and the verdict.

    Parameters
    ----------
    study : Study
    settings : Settings
    progress : callable, optional
        Told the share that is done; may raise `Cancelled`.
    known : Overview, optional
        Of the same study: what other bins or another level leave as it is, the values
        of every row and their resamples, is taken from it.
    """
    own = study.evaluation
    rows = rows_of(own) if known is None else known.rows
    used = usable_rows(own)
    notes: tuple[Note, ...] = ()
    split = None
    try:
        split = make_split(study, settings)
    except FitError as error:
        if used.size:
            notes = (Note("no-split", "warning", f"{error.what} {error.how_to_fix}"),)
    if split is not None:
        used = _rows_in_use(split)
        notes = split.notes
    if not used.size:
        return Overview(rows, used, {}, NO_LABELS, None, notes)
    names = view_names(own)
    samples, views = {}, {}
    for i, view in enumerate(names):
        before = None if known is None else known.sample_of(view, used, settings)
        if before is not None:
            sample = before.measured_as(settings)
        else:
            scores = scores_of(own, rows.take(used), settings, view)
            sample = sample_of(own, used, {UNCALIBRATED: scores}, settings, "all")
        report = part_of(progress, i / len(names), (i + 1) / len(names))
        numbers = estimates(sample, report)[UNCALIBRATED]
        views[view] = ViewResult(numbers, sample.bins(UNCALIBRATED).statistics)
        samples[view] = sample
    found, size = views["top-label"].estimates, _size(samples["top-label"])
    said = verdict(found["accuracy"], found["gap"], found["ece"], size)
    notes += doubts(
        own, rows, used, split, size=size.n_effective, verdict=said, estimates=found
    )
    return Overview(rows, used, views, said, split, notes, samples)


def preview_temperature(
    study: Study,
    settings: Settings,
    overview: Overview,
    temperature: float,
    statistics: RowStatistics | None = None,
) -> ViewResult:
    """Return numbers and bins of the test rows at a temperature set by hand.

    They are tuned on the rows they are measured on, so that they carry no interval
    and say "in-sample". `statistics` are those of all rows at this temperature, where
    they are known.
    """
    own = study.evaluation
    rows = overview.split.test if overview.split is not None else overview.used
    if own.logits is None or own.labels is None or not rows.size:
        raise FitError("A temperature needs labelled rows with class scores.", own.name)
    if statistics is None:
        statistics = row_statistics(own.logits, own.labels, temperature=temperature)
    scores = scores_of(own, statistics.take(rows), settings, "top-label")
    sample = sample_of(own, rows, {"manual": scores}, settings, "in-sample")
    weight = sample.sample_weight
    mass = (np.ones(rows.size) if weight is None else weight)[None, :]
    values = {
        method.id: float(method.traits["statistic"](scores, mass)[0])
        for method in METRICS.values()
        if method.traits["needs"] == "rows" and method.tier == "default"
    }
    bins = sample.bins("manual").statistics
    values["ece"] = bins.error(settings.norm)
    note = Note("tuned-on-test", "warning", "Tuned by hand on the rows it is shown on.")
    made = {
        name: Estimate(value, n=rows.size, rows="in-sample", notes=(note,))
        for name, value in values.items()
    }
    return ViewResult(made, bins)


def rows_of(own: Predictions) -> RowStatistics:
    """Return the statistics of every row: one kernel trip over the logits."""
    if own.logits is None:
        assert own.confidence is not None  # noqa: S101 - an invariant of Predictions
        confidence = own.confidence.astype(np.float64)
        return RowStatistics(confidence=confidence, correct=own.correct)
    return row_statistics(own.logits, own.labels)


def view_names(own: Predictions) -> tuple[str, ...]:
    """Return the views that make sense: both for two classes, else the top label."""
    if own.n_classes == 2:
        return ("top-label", "positive-class")
    return ("top-label",)


def positive_index(own: Predictions, settings: Settings) -> int:
    """Return the column of the positive class; the second one by default."""
    if settings.positive_class in own.classes:
        return own.classes.index(str(settings.positive_class))
    return 1


def scores_of(
    own: Predictions,
    rows: RowStatistics,
    settings: Settings,
    view: str = "top-label",
) -> RowScores:
    """Return the per-row values of labelled rows in one view."""
    positive = positive_index(own, settings)
    return row_scores(rows, own.n_classes, view=view, positive=positive)


def sample_of(
    own: Predictions,
    rows: IndexArray,
    scores: Mapping[str, RowScores],
    settings: Settings,
    kind: str,
) -> Sample:
    """Return scores on some rows of a file, with their weights and groups."""
    weight, codes = own.sample_weight(), own.group_codes()
    return Sample(
        scores=scores,
        settings=settings,
        sample_weight=None if weight is None else weight[rows],
        groups=None if codes is None else codes[rows],
        rows=kind,
    )


def _rows_in_use(split: Split) -> IndexArray:
    """Labelled rows that some role has; rows the model was trained on have none."""
    parts = [item.test for item in split.rounds]
    if split.kind != "fit-file":
        parts += [part for item in split.rounds for part in (item.fit, item.threshold)]
    return np.unique(np.concatenate(parts))


def _size(sample: Sample) -> SampleSize:
    scores = sample.scores[UNCALIBRATED]
    return sample_size(
        scores.confidence - scores.outcome,
        sample.sample_weight,
        sample.groups,
        few_outcomes=sample.n_rare(UNCALIBRATED) < FEW_OUTCOMES,
    )
