"""The whole job, headless: page, command line and report all call this."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from core.binning import BinStatistics
from core.calibrators import CALIBRATORS, TemperatureScaling
from core.fitting import Fitted, fit_method, unusable_reason
from core.messages import DataError, FitError, Note, Progress, no_progress
from core.metrics import RowScores, Sample, changes, estimates, row_scores
from core.metrics.base import METRICS
from core.predictions import Predictions, Study
from core.settings import Settings
from core.softmax import RowStatistics, row_statistics
from core.splitting import Split, make_split, usable_rows
from core.uncertainty import Estimate
from core.verdict import NO_LABELS, Verdict, repair_sentence, verdict

__all__ = [
    "Analysis",
    "Comparison",
    "Overview",
    "ViewResult",
    "analyze",
    "compare",
    "measure",
    "preview_temperature",
    "scores_of",
]

FloatArray = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

UNCALIBRATED = "uncalibrated"
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
    """

    rows: RowStatistics
    used: IndexArray
    views: Mapping[str, ViewResult]
    verdict: Verdict
    split: Split | None
    notes: tuple[Note, ...]


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
    study: Study, settings: Settings, progress: Progress = no_progress
) -> Analysis:
    """Measure the scores, fit the chosen calibrators and compare them.

    Parameters
    ----------
    study : Study
    settings : Settings
    progress : callable, optional
        Told the fraction done and what is being done; may raise `Cancelled`.

    Returns
    -------
    Analysis
        Without a comparison where nothing can be fitted; the reason is in its notes.
    """
    progress(0.0, "Measuring the scores as they are")
    overview = measure(study, settings)
    fitted: dict[str, Fitted] = {}
    problems: list[Note] = []
    asked = [CALIBRATORS[m].id if m in CALIBRATORS else m for m in settings.calibrators]
    methods = [m for m in dict.fromkeys(asked) if m != UNCALIBRATED]
    for number, method in enumerate(methods):

        def report(fraction: float, message: str, done: int = number) -> None:
            progress(0.1 + 0.7 * (done + fraction) / len(methods), message)

        if overview.split is None:
            break
        try:
            fitted[method] = fit_method(study, settings, method, report)
        except (DataError, FitError) as error:
            problems.append(Note("not-fitted", "warning", f"{method}: {error.what}"))
    progress(0.8, "Comparing on the same rows")
    return assemble(study, settings, overview, fitted, tuple(problems))


def assemble(
    study: Study,
    settings: Settings,
    overview: Overview,
    fitted: Mapping[str, Fitted],
    problems: tuple[Note, ...] = (),
) -> Analysis:
    """Put measured scores and fitted calibrators together."""
    comparison = compare(study, settings, overview, fitted) if fitted else None
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


def measure(study: Study, settings: Settings) -> Overview:
    """Return the uncalibrated numbers on every labelled row, and the verdict."""
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
    views = {}
    for view in view_names(own):
        scores = scores_of(own, rows.take(used), settings, view)
        sample = _sample(own, used, {UNCALIBRATED: scores}, settings, "all")
        views[view] = ViewResult(
            estimates(sample)[UNCALIBRATED], sample.bins(UNCALIBRATED).statistics
        )
    found = views["top-label"].estimates
    scores = scores_of(own, rows.take(used), settings)
    said = verdict(
        found["accuracy"],
        found["gap"],
        found["ece"],
        n_effective=_effective_rows(
            _sample(own, used, {UNCALIBRATED: scores}, settings, "all"), found["gap"]
        ),
    )
    return Overview(rows, used, views, said, split, notes)


def compare(
    study: Study,
    settings: Settings,
    overview: Overview,
    fitted: Mapping[str, Fitted],
) -> Comparison:
    """Return all calibrators' numbers on the same test rows, with paired changes."""
    split = overview.split
    if split is None:
        msg = "there is no split to compare on"
        raise ValueError(msg)
    own, test = study.evaluation, split.test
    statistics = {UNCALIBRATED: overview.rows.take(test)}
    statistics |= {name: item.rows for name, item in fitted.items()}
    views, moved = {}, {}
    for view in view_names(own):
        scores = {
            name: scores_of(own, rows, settings, view)
            for name, rows in statistics.items()
        }
        sample = _sample(own, test, scores, settings, split.rows)
        views[view] = {
            name: ViewResult(found, sample.bins(name).statistics)
            for name, found in estimates(sample).items()
        }
        moved[view] = {name: changes(sample, UNCALIBRATED, name) for name in fitted}
    return Comparison(views, moved, _ranking(study, settings, overview, fitted))


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
    sample = _sample(own, rows, {"manual": scores}, settings, "in-sample")
    weight = sample.sample_weight
    mass = (np.ones(rows.size) if weight is None else weight)[None, :]
    values = {
        method.id: float(method.traits["statistic"](scores, mass)[0])
        for method in METRICS.values()
        if method.traits["needs"] == "rows"
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


def _sample(
    own: Predictions,
    rows: IndexArray,
    scores: Mapping[str, RowScores],
    settings: Settings,
    kind: str,
    metrics: tuple[str, ...] = (),
) -> Sample:
    weight, codes = own.sample_weight(), own.group_codes()
    return Sample(
        scores=scores,
        settings=settings,
        sample_weight=None if weight is None else weight[rows],
        groups=None if codes is None else codes[rows],
        rows=kind,
        metrics=metrics,
    )


def _rows_in_use(split: Split) -> IndexArray:
    """Labelled rows that some role has; rows the model was trained on have none."""
    parts = [item.test for item in split.rounds]
    if split.kind != "fit-file":
        parts += [part for item in split.rounds for part in (item.fit, item.threshold)]
    return np.unique(np.concatenate(parts))


def _effective_rows(sample: Sample, gap: Estimate) -> int:
    """Independent rows whose mean gap would be as uncertain: weights, groups count."""
    if not gap.half_width or any(note.code == "few-outcomes" for note in gap.notes):
        return round(sample.n_units)
    scores = sample.scores[UNCALIBRATED]
    z = float(stats.norm.ppf(0.5 + gap.level / 2))
    error = gap.half_width / z
    spread = float(np.var(scores.confidence - scores.outcome))
    return min(gap.n, round(spread / error**2))


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


def _ranking(
    study: Study,
    settings: Settings,
    overview: Overview,
    fitted: Mapping[str, Fitted],
) -> tuple[tuple[str, Estimate, Estimate], ...]:
    """Rank by cross-validated NLL: fit rows only, or the cross-fitted rows."""
    split = overview.split
    assert split is not None  # noqa: S101 - the caller has looked
    fit_file = study.fit if split.kind == "fit-file" else None
    own = fit_file or study.evaluation
    rows = split.test if split.kind == "cross-fit" else split.fit
    before = rows_of(fit_file).take(rows) if fit_file else overview.rows.take(rows)
    scores = {
        UNCALIBRATED: scores_of(own, before, settings, "top-label"),
    }
    for name, item in fitted.items():
        known = scores[UNCALIBRATED]
        scores[name] = RowScores(known.confidence, known.outcome, nll=item.ranking)
    sample = _sample(own, rows, scores, settings, "cross-fitted", ("nll",))
    found = {name: item["nll"] for name, item in estimates(sample).items()}
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
