"""The whole job, headless: page, command line and report all call this."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.binning import BinStatistics
from core.calibrators import CALIBRATORS, TemperatureScaling
from core.fitting import Fitted, fit_method, unusable_reason
from core.messages import DataError, FitError, Note, Progress, no_progress, part_of
from core.metrics import RowScores, Sample, changes, estimates, row_scores
from core.metrics.base import METRICS
from core.metrics.estimation import FEW_OUTCOMES
from core.predictions import Predictions, Study
from core.settings import Settings
from core.softmax import RowStatistics, row_statistics
from core.splitting import Split, make_split, usable_rows
from core.uncertainty import Estimate
from core.verdict import (
    NO_LABELS,
    SampleSize,
    Verdict,
    repair_sentence,
    sample_size,
    verdict,
)

__all__ = [
    "Analysis",
    "Comparison",
    "Overview",
    "ViewResult",
    "analyze",
    "compare",
    "measure",
    "preview_temperature",
    "sample_of",
    "scores_of",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

UNCALIBRATED = "uncalibrated"
# Shares of an analysis that are done when scores are measured, calibrators fitted.
_MEASURED, _FITTED = 0.25, 0.5

# Settings that the numbers of a set of rows depend on.
_MEASURING = (
    "n_bins",
    "strategy",
    "norm",
    "level",
    "n_resamples",
    "seed",
    "positive_class",
)
_MOST_LISTED = 1000  # left-out rows that a JSON document lists; it counts them all


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


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Calibrators side by side on the same test rows.

    Parameters
    ----------
    views : mapping of str to mapping of str to ViewResult
        View -> calibrator id (and "uncalibrated") -> numbers and bins.
    changes : mapping of str to mapping of str to mapping of str to Estimate
        View -> calibrator id -> metric id -> change from the uncalibrated scores.
    ranking : tuple of (str, Estimate, Estimate)
        Calibrators by cross-validated NLL, best first: id, that NLL, and the
        difference to the best one, paired.
    """

    views: Mapping[str, Mapping[str, ViewResult]]
    changes: Mapping[str, Mapping[str, Mapping[str, Estimate]]]
    ranking: tuple[tuple[str, Estimate, Estimate], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """Everything that one study and one Settings lead to."""

    study: Study
    settings: Settings
    overview: Overview
    fitted: Mapping[str, Fitted] = field(default_factory=dict)
    comparison: Comparison | None = None
    repair: str = ""
    notes: tuple[Note, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return every number, with provenance, as plain JSON values."""
        own = self.study.evaluation
        overview = self.overview
        document: dict[str, Any] = {
            "file": own.name,
            "fingerprint": self.study.fingerprint,
            "settings": self.settings.to_dict(),
            "n_rows": len(own),
            "n_left_out": len(own.left_out),
            "left_out": _plain_records(own.left_out),
            "n_labelled": int(own.is_labelled.sum()),
            "classes": list(own.classes),
            "input_kind": own.input_kind,
            "split": overview.split.sentence if overview.split else None,
            "verdict": overview.verdict.to_dict(),
            "repair": self.repair,
            "uncalibrated": {
                view: _estimates_dict(result.estimates)
                for view, result in overview.views.items()
            },
            "notes": [note.to_dict() for note in self.notes],
        }
        if self.comparison is not None:
            document["calibrators"] = self._comparison_dict(self.comparison)
        return document

    def _comparison_dict(self, comparison: Comparison) -> list[dict[str, Any]]:
        rows = []
        for method, nll, behind in comparison.ranking:
            fitted = self.fitted.get(method)
            row: dict[str, Any] = {
                "method": method,
                "cross_validated_nll": nll.to_dict(),
                "behind_best": behind.to_dict(),
                "estimates": {
                    view: _estimates_dict(results[method].estimates)
                    for view, results in comparison.views.items()
                },
            }
            if fitted is not None:
                row["changes"] = {
                    view: _estimates_dict(methods[method])
                    for view, methods in comparison.changes.items()
                }
                row["parameters"] = fitted.calibrator.parameters()
                row["notes"] = [note.to_dict() for note in fitted.notes]
                row["refits"] = [
                    [item.nll if math.isfinite(item.nll) else None, item.gap]
                    for item in fitted.refits
                ]
            rows.append(row)
        return rows


def analyze(
    study: Study,
    settings: Settings,
    progress: Progress = no_progress,
    *,
    measured: Callable[[Study, Settings, Progress], Overview] | None = None,
    fitted: Callable[[Study, Settings, str, Progress], Fitted] = fit_method,
) -> Analysis:
    """Measure the scores, fit the chosen calibrators and compare them.

    Parameters
    ----------
    study : Study
    settings : Settings
    progress : callable, optional
        Told the fraction done and what is being done; may raise `Cancelled`.
    measured, fitted : callable, optional
        Stand in for `measure` and `core.fitting.fit_method`, to return results that
        are known already.

    Returns
    -------
    Analysis
        Without a comparison where nothing can be fitted; the reason is in its notes.
    """
    progress(0.0, "Measuring the scores as they are")
    overview = (measured or measure)(study, settings, part_of(progress, 0.0, _MEASURED))
    made: dict[str, Fitted] = {}
    problems: list[Note] = []
    asked = [CALIBRATORS[m].id if m in CALIBRATORS else m for m in settings.calibrators]
    methods = [m for m in dict.fromkeys(asked) if m != UNCALIBRATED]
    share = (_FITTED - _MEASURED) / max(1, len(methods))
    for number, method in enumerate(methods):
        if overview.split is None:
            break
        start = _MEASURED + share * number
        try:
            report = part_of(progress, start, start + share)
            made[method] = fitted(study, settings, method, report)
        except (DataError, FitError) as error:
            label = CALIBRATORS[method].label if method in CALIBRATORS else method
            text = f"{label}: {error.what}"
            problems.append(Note("not-fitted", "warning", text))
    report = part_of(progress, _FITTED, 1.0)
    report(0.0, "Comparing on the same rows")
    return assemble(study, settings, overview, made, tuple(problems), report)


def assemble(
    study: Study,
    settings: Settings,
    overview: Overview,
    fitted: Mapping[str, Fitted],
    problems: tuple[Note, ...] = (),
    progress: Progress = no_progress,
) -> Analysis:
    """Put measured scores and fitted calibrators together.

    Parameters
    ----------
    study : Study
    settings : Settings
    overview : Overview
    fitted : mapping of str to Fitted
        By id of the calibrator.
    problems : tuple of Note, default=()
        Why other calibrators could not be fitted.
    progress : callable, optional
        Told the share of the comparison that is done; may raise `Cancelled`.
    """
    comparison = None
    if fitted:
        comparison = compare(study, settings, overview, fitted, progress)
    notes = (*study.evaluation.notes, *overview.notes, *problems)
    for item in fitted.values():
        notes += item.notes
    return Analysis(
        study=study,
        settings=settings,
        overview=overview,
        fitted=dict(fitted),
        comparison=comparison,
        repair=_repair(study, fitted, comparison, overview.verdict),
        notes=tuple(dict.fromkeys(notes)),
    )


def measure(
    study: Study, settings: Settings, progress: Progress = no_progress
) -> Overview:
    """Return the uncalibrated numbers on every labelled row, and the verdict.

    Parameters
    ----------
    study : Study
    settings : Settings
    progress : callable, optional
        Told the share that is done; may raise `Cancelled`.
    """
    own = study.evaluation
    rows = rows_of(own)
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
    notes += _doubts(own, rows, used)
    names = view_names(own)
    samples, views = {}, {}
    for i, view in enumerate(names):
        scores = scores_of(own, rows.take(used), settings, view)
        sample = sample_of(own, used, {UNCALIBRATED: scores}, settings, "all")
        report = part_of(progress, i / len(names), (i + 1) / len(names))
        numbers = estimates(sample, report)[UNCALIBRATED]
        views[view] = ViewResult(numbers, sample.bins(UNCALIBRATED).statistics)
        samples[view] = sample
    found = views["top-label"].estimates
    said = verdict(
        found["accuracy"],
        found["gap"],
        found["ece"],
        _size(samples["top-label"]),
    )
    return Overview(rows, used, views, said, split, notes, samples)


def compare(
    study: Study,
    settings: Settings,
    overview: Overview,
    fitted: Mapping[str, Fitted],
    progress: Progress = no_progress,
) -> Comparison:
    """Return all calibrators' numbers on the same test rows, with paired changes.

    Parameters
    ----------
    study : Study
    settings : Settings
    overview : Overview
        With the split; where it measured the test rows, its resamples are used.
    fitted : mapping of str to Fitted
        By id of the calibrator.
    progress : callable, optional
        Told the share that is done; may raise `Cancelled`.
    """
    split = overview.split
    if split is None:
        msg = "there is no split to compare on"
        raise ValueError(msg)
    own, test = study.evaluation, split.test
    is_ranked_apart = split.kind != "cross-fit"
    names = view_names(own)
    n_steps = len(names) + is_ranked_apart
    samples, views, moved = {}, {}, {}
    for i, view in enumerate(names):
        added = {
            name: scores_of(own, item.rows, settings, view)
            for name, item in fitted.items()
        }
        known = overview.samples.get(view)
        if known is not None and _is_same_sample(overview, test, known, settings):
            sample = known.extended(added, split.rows)
        else:
            before = scores_of(own, overview.rows.take(test), settings, view)
            scores = {UNCALIBRATED: before, **added}
            sample = sample_of(own, test, scores, settings, split.rows)
        found = estimates(sample, part_of(progress, i / n_steps, (i + 1) / n_steps))
        views[view] = {
            name: ViewResult(numbers, sample.bins(name).statistics)
            for name, numbers in found.items()
        }
        moved[view] = {name: changes(sample, UNCALIBRATED, name) for name in fitted}
        samples[view] = sample
    ranked = samples["top-label"]
    if is_ranked_apart:
        ranked = _fit_sample(study, settings, overview, fitted, split)
    report = part_of(progress, len(names) / n_steps, 1.0)
    return Comparison(views, moved, _ranking(replace(ranked, metrics=("nll",)), report))


def preview_temperature(
    study: Study, settings: Settings, overview: Overview, temperature: float
) -> ViewResult:
    """Return numbers and bins of the test rows at a temperature set by hand.

    They are tuned on the rows they are measured on, so that they carry no interval
    and say "in-sample".
    """
    own = study.evaluation
    rows = overview.split.test if overview.split is not None else overview.used
    if own.logits is None or own.labels is None or not rows.size:
        raise FitError("A temperature needs labelled rows with class scores.", own.name)
    found = row_statistics(own.logits, own.labels, temperature=temperature).take(rows)
    scores = scores_of(own, found, settings, "top-label")
    sample = sample_of(own, rows, {"manual": scores}, settings, "in-sample")
    weight = sample.sample_weight
    mass = (np.ones(rows.size) if weight is None else weight)[None, :]
    values = {
        method.id: float(method.traits["statistic"](scores, mass)[0])
        for method in METRICS.values()
        if method.traits["needs"] == "rows" and method.tier == "default"
    }
    statistics = sample.bins("manual").statistics
    values["ece"] = statistics.error(settings.norm)
    note = Note("tuned-on-test", "warning", "Tuned by hand on the rows it is shown on.")
    made = {
        name: Estimate(value, n=rows.size, rows="in-sample", notes=(note,))
        for name, value in values.items()
    }
    return ViewResult(made, statistics)


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


def _doubts(
    own: Predictions, rows: RowStatistics, used: IndexArray
) -> tuple[Note, ...]:
    """Questions that the numbers themselves raise."""
    assert rows.correct is not None  # noqa: S101 - there are labelled rows
    accuracy = float(rows.correct[used].mean())
    confidence = float(rows.confidence[used].mean())
    notes = []
    if used.size >= 50 and (accuracy >= 0.998 or confidence >= 0.9995):
        text = (
            f"Accuracy is {100 * accuracy:.1f} % and mean confidence "
            f"{100 * confidence:.2f} %. Were these rows used to train the model? Then "
            "they say nothing about new ones."
        )
        notes.append(Note("looks-like-training-rows", "question", text))
    is_known = any(note.code == "one-class" for note in own.notes)
    if own.labels is not None and not is_known:
        seen = np.unique(own.labels[used])
        if seen.size == 1:
            text = (
                f"Every label is {own.classes[seen[0]]!r}: nothing can be said about "
                "the other classes."
            )
            notes.append(Note("one-class", "warning", text))
    return tuple(notes)


def _is_same_sample(
    overview: Overview, rows: IndexArray, sample: Sample, settings: Settings
) -> bool:
    """Whether a sample was made of these rows, in the way these settings ask for."""
    is_alike = all(
        getattr(sample.settings, name) == getattr(settings, name) for name in _MEASURING
    )
    return is_alike and np.array_equal(overview.used, rows)


def _fit_sample(
    study: Study,
    settings: Settings,
    overview: Overview,
    fitted: Mapping[str, Fitted],
    split: Split,
) -> Sample:
    """Return the cross-validated losses of the fit rows of a fixed split."""
    fit_file = study.fit if split.kind == "fit-file" else None
    own, rows = fit_file or study.evaluation, split.fit
    before = rows_of(fit_file).take(rows) if fit_file else overview.rows.take(rows)
    known = scores_of(own, before, settings)
    scores = {UNCALIBRATED: known} | {
        name: RowScores(known.confidence, known.outcome, nll=item.ranking)
        for name, item in fitted.items()
    }
    return sample_of(own, rows, scores, settings, "cross-fitted")


def _ranking(
    sample: Sample, progress: Progress
) -> tuple[tuple[str, Estimate, Estimate], ...]:
    """Rank by cross-validated NLL: fit rows only, or the cross-fitted rows."""
    found = {name: item["nll"] for name, item in estimates(sample, progress).items()}
    order = sorted(
        found, key=lambda name: (np.isnan(found[name].value), found[name].value)
    )
    return tuple(
        (name, found[name], changes(sample, order[0], name)["nll"]) for name in order
    )


def _repair(
    study: Study,
    fitted: Mapping[str, Fitted],
    comparison: Comparison | None,
    said: Verdict,
) -> str:
    item = fitted.get("temperature")
    if item is None or comparison is None:
        reason = unusable_reason(study, "temperature")
        return reason or ""
    assert isinstance(item.calibrator, TemperatureScaling)  # noqa: S101 - the registry
    if item.calibrator.is_at_bound_:
        return "No temperature fits these rows: T went to its bound (see the notes)."
    return repair_sentence(
        item.calibrator.temperature_,
        study.evaluation.input_kind,
        comparison.views["top-label"]["temperature"].estimates["gap"],
        comparison.changes["top-label"]["temperature"],
        is_gap_found=said.kind in ("overconfident", "underconfident"),
    )


def _plain_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the first rows of a table as plain JSON values."""
    shown = table.head(_MOST_LISTED).astype(str)
    records: list[dict[str, Any]] = shown.to_dict(orient="records")
    return records


def _estimates_dict(found: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: item.to_dict() for name, item in found.items()}
