"""What a repair leaves: tests that still reject calibration on the test rows."""

from __future__ import annotations

from collections.abc import Mapping

from core.comparison import Comparison
from core.fitting import Fitted
from core.measurement import Overview, positive_index
from core.messages import Progress, no_progress
from core.on_demand import measure_metrics
from core.predictions import Study
from core.settings import Settings
from core.uncertainty import Estimate

__all__ = ["remaining_sentence", "remaining_tests"]

_MOST_CELLS = 1 << 24  # scores of test rows; more are tested on request only


def remaining_tests(
    study: Study,
    settings: Settings,
    overview: Overview,
    comparison: Comparison,
    fitted: Fitted,
    progress: Progress = no_progress,
) -> dict[str, Estimate]:
    """Return the ECE of each view of the repaired scores, by what it is of.

    Parameters
    ----------
    study : Study
    settings : Settings
    overview : Overview
    comparison : Comparison
        With the calibrator.
    fitted : Fitted
        The calibrator.
    progress : callable, optional

    Returns
    -------
    dict of str to Estimate
        With two classes the predicted and the positive class; with more the predicted
        class and all classes together (classwise ECE), unless there are more than
        2^24 scores of test rows.
    """
    own = study.evaluation
    of = {"top-label": "the predicted class"}
    if own.n_classes == 2:
        positive = own.classes[positive_index(own, settings)]
        of["positive-class"] = f"the class {positive}"
    found = {
        words: comparison.views[view][fitted.method].estimates["ece"]
        for view, words in of.items()
        if view in comparison.views
    }
    n_cells = fitted.rows.confidence.size * own.n_classes
    if own.n_classes > 2 and n_cells <= _MOST_CELLS:
        name = "classwise-ece"
        measured = measure_metrics(
            study,
            settings,
            overview,
            (name,),
            {fitted.method: fitted},
            progress,
            view="top-label",
            method=fitted.method,
        )
        found["each class against the rest"] = measured["top-label"][fitted.method][
            name
        ]
    return found


def remaining_sentence(found: Mapping[str, Estimate]) -> str:
    """Return which tests still reject calibration, or an empty string.

    Parameters
    ----------
    found : mapping of str to Estimate
        As `remaining_tests` returns them.
    """
    left = []
    for words, item in found.items():
        if item.p_value is None or item.p_value >= 1 - item.level:
            continue
        p = "p < 0.001" if item.p_value < 0.001 else f"p = {item.p_value:.3f}"
        left.append(f"{words} (ECE {100 * item.value:.2f} points, {p})")
    if not left:
        return ""
    first = next(iter(found.values()))
    return (
        f"Still miscalibrated on {first.n:,} {first.rows} rows: {' and '.join(left)}."
    )
