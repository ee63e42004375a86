"""The whole report as one document: what every page shows, from the same functions."""

from __future__ import annotations

from typing import Any

from core.analysis import UNCALIBRATED, Analysis
from core.findings import find
from core.messages import FitError, Progress, no_progress
from core.on_demand import measure_metrics
from core.operating_points import operating_points
from core.per_class import class_gaps, scores_for

__all__ = ["CLASSWISE", "report_document"]

CLASSWISE = ("classwise-ece", "classwise-l2")
"""Metrics over all classes that stand beside the gap of each class."""


def report_document(
    analysis: Analysis, method: str, progress: Progress = no_progress
) -> dict[str, Any]:
    """Return the analysis with findings, operating points and classes as plain JSON.

    Parameters
    ----------
    analysis : Analysis
    method : str
        Id of the calibrator whose numbers stand beside the uncalibrated ones.
    progress : callable, optional

    Returns
    -------
    dict
        `Analysis.to_dict` with "findings" (worst class and slice, rows to review),
        "operating_points" and, with more than two classes, "classwise", both by
        "uncalibrated" and id of the calibrator. None where the file does not allow it.
    """
    study, settings = analysis.study, analysis.settings
    names = [UNCALIBRATED, *(name for name in analysis.fitted if name == method)]
    progress(0.0, "Looking at classes, slices and rows")
    found = find(study, settings, analysis.overview)
    points: dict[str, Any] = {}
    classes: dict[str, Any] = {}
    for number, name in enumerate(names):
        progress(0.2 + 0.8 * number / len(names), "Choosing thresholds")
        points[name] = _points(analysis, name)
        classes[name] = _classwise(analysis, name)
    return analysis.to_dict() | {
        "findings": None if found is None else found.to_dict(),
        "operating_points": points,
        "classwise": classes,
    }


def _points(analysis: Analysis, name: str) -> dict[str, Any] | None:
    if not analysis.overview.views:
        return None
    given = (analysis.study, analysis.settings, analysis.overview)
    try:
        return operating_points(*given, analysis.fitted.get(name)).to_dict()
    except FitError:
        return None


def _classwise(analysis: Analysis, name: str) -> dict[str, Any] | None:
    """Return the gap of every class against the rest, and the metrics over all."""
    study, settings, overview = analysis.study, analysis.settings, analysis.overview
    own = study.evaluation
    if own.logits is None or own.n_classes < 3 or not overview.views:
        return None
    measured = measure_metrics(
        study,
        settings,
        overview,
        CLASSWISE,
        analysis.fitted,
        view="top-label",
        method=name,
    )
    scores = scores_for(
        analysis.study,
        overview,
        analysis.fitted.get(name),
        is_compared=analysis.comparison is not None,
    )
    gaps = class_gaps(scores, settings.level)
    return {
        "metrics": {
            metric: item.to_dict()
            for metric, item in measured["top-label"][name].items()
        },
        "classes": [
            {"class": label, "rows_with_label": int(gaps.count[i])}
            | gaps.estimate(i, scores.kind).to_dict()
            for i, label in enumerate(own.classes)
        ],
    }
