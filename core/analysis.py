"""The whole job, headless: page, command line and report all call this."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from core.calibrators import CALIBRATORS, TemperatureScaling
from core.comparison import Comparison, compare
from core.fitting import Fitted, fit_method, unusable_reason
from core.measurement import (
    UNCALIBRATED,
    Overview,
    ViewResult,
    measure,
    positive_index,
    preview_temperature,
    rows_of,
    sample_of,
    scores_of,
    view_names,
)
from core.messages import DataError, FitError, Note, Progress, no_progress, part_of
from core.predictions import Study
from core.remaining import remaining_sentence, remaining_tests
from core.settings import Settings
from core.uncertainty import Estimate
from core.verdict import Verdict, repair_sentence

__all__ = [
    "UNCALIBRATED",
    "Analysis",
    "Comparison",
    "Overview",
    "ViewResult",
    "analyze",
    "assemble",
    "compare",
    "measure",
    "positive_index",
    "preview_temperature",
    "rows_of",
    "sample_of",
    "scores_of",
    "view_names",
]

# Shares of an analysis that are done when scores are measured, calibrators fitted.
_MEASURED, _FITTED = 0.25, 0.5
_COMPARED = 0.95  # share of a comparison before what remains is tested

_MOST_LISTED = 1000  # left-out rows that a JSON document lists; it counts them all


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """Everything that one study and one Settings lead to.

    Parameters
    ----------
    study : Study
    settings : Settings
    overview : Overview
    fitted : mapping of str to Fitted
        By id of the calibrator.
    comparison : Comparison or None
        None where nothing could be fitted.
    repair : str
        What one temperature does, in a sentence.
    remains : str
        Which tests reject calibration after it; empty if none does.
    notes : tuple of Note
    """

    study: Study
    settings: Settings
    overview: Overview
    fitted: Mapping[str, Fitted] = field(default_factory=dict)
    comparison: Comparison | None = None
    repair: str = ""
    remains: str = ""
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
            "remains": self.remains,
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
                "cross_validated": _estimates_dict(
                    comparison.validated.get(method, {})
                ),
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
    measured: Callable[[Study, Settings, Progress], Overview] = measure,
    fitted: Callable[[Study, Settings, str, Progress], Fitted] = fit_method,
    arrived: Callable[[str, Fitted | None], None] | None = None,
    known: Analysis | None = None,
) -> Analysis:
    """Measure the scores, fit the chosen calibrators and compare them.

    Parameters
    ----------
    study : Study
    settings : Settings
    progress : callable, optional
        Told the fraction done and what is being done; may raise `Cancelled`.
    measured, fitted : callable, optional
        Stand in for `core.measurement.measure` and `core.fitting.fit_method`, to
        return results that are known already.
    arrived : callable, optional
        Told each calibrator as soon as it is fitted: its id, and what was fitted or
        None where it could not be.
    known : Analysis, optional
        Of the same study and calibrators with other bins or another level: what these
        leave as it is, is taken from it.

    Returns
    -------
    Analysis
        Without a comparison where nothing can be fitted; the reason is in its notes.
    """
    progress(0.0, "Measuring the scores as they are")
    overview = measured(study, settings, part_of(progress, 0.0, _MEASURED))
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
        if arrived is not None:
            arrived(method, made.get(method))
    report = part_of(progress, _FITTED, 1.0)
    report(0.0, "Comparing on the same rows")
    found = tuple(problems)
    return assemble(study, settings, overview, made, found, report, known)


def assemble(
    study: Study,
    settings: Settings,
    overview: Overview,
    fitted: Mapping[str, Fitted],
    problems: tuple[Note, ...] = (),
    progress: Progress = no_progress,
    known: Analysis | None = None,
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
    known : Analysis, optional
        As `analyze` has it.
    """
    comparison = None
    remains = ""
    if fitted:
        most = part_of(progress, 0.0, _COMPARED)
        before = None
        if known is not None and _is_of(known, overview, fitted, settings):
            before = known.comparison
        comparison = compare(study, settings, overview, fitted, most, before)
        if _is_repaired(fitted, comparison):
            given = (study, settings, overview, comparison, fitted["temperature"])
            tests = remaining_tests(*given, part_of(progress, _COMPARED, 1.0))
            remains = remaining_sentence(tests)
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
        remains=remains,
        notes=tuple(dict.fromkeys(notes)),
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


def _is_of(
    known: Analysis,
    overview: Overview,
    fitted: Mapping[str, Fitted],
    settings: Settings,
) -> bool:
    """Whether an analysis compares the same scores of the same rows."""
    split, other = overview.split, known.overview.split
    return (
        split is not None
        and other is not None
        and split.rows == other.rows
        and np.array_equal(split.test, other.test)
        and known.settings.positive_class == settings.positive_class
        and known.fitted.keys() == fitted.keys()
        and all(known.fitted[name] is item for name, item in fitted.items())
    )


def _is_repaired(fitted: Mapping[str, Fitted], comparison: Comparison) -> bool:
    """Whether one temperature lowers the log loss of the test rows."""
    if "temperature" not in fitted:
        return False
    nll = comparison.changes["top-label"]["temperature"].get("nll")
    return nll is not None and nll.high is not None and nll.high < 0


def _plain_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the first rows of a table as plain JSON values."""
    shown = table.head(_MOST_LISTED).astype(str)
    records: list[dict[str, Any]] = shown.to_dict(orient="records")
    return records


def _estimates_dict(found: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: item.to_dict() for name, item in found.items()}
