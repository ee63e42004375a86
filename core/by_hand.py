"""A temperature set by hand: not fitted, and marked wherever it goes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core.analysis import UNCALIBRATED, Analysis, Comparison, preview_temperature
from core.calibrators import Calibrator
from core.fitting import Fitted
from core.messages import FitError, Note
from core.softmax import row_statistics

__all__ = ["TUNED_ON_TEST", "temperature_by_hand"]

TUNED_ON_TEST = Note(
    "tuned-on-test",
    "warning",
    "This temperature was set by hand while looking at the rows it is measured on: no "
    "rows fitted it, and its numbers after are in-sample, without intervals.",
)


def temperature_by_hand(analysis: Analysis, temperature: float) -> Analysis:
    """Return an analysis whose temperature was set by hand, ready to be exported.

    Parameters
    ----------
    analysis : Analysis
        With a comparison that holds the uncalibrated scores.
    temperature : float
        Within 0.001 to 1000.

    Returns
    -------
    Analysis
        Without a split, as nothing was fitted: exports say 0 fit rows, carry the
        note "tuned-on-test", and their numbers after say "in-sample".

    Raises
    ------
    FitError
        If there are no labelled rows with class scores.
    """
    study, settings, overview = analysis.study, analysis.settings, analysis.overview
    own = study.evaluation
    if analysis.comparison is None or own.logits is None:
        raise FitError("A temperature needs labelled rows with class scores.", own.name)
    rows = row_statistics(own.logits, own.labels, temperature=temperature)
    after = preview_temperature(study, settings, overview, temperature, rows)
    before = analysis.comparison.views["top-label"][UNCALIBRATED]
    k = own.n_classes
    calibrator = Calibrator.from_dict(
        {
            "method": "temperature",
            "options": {},
            "input": "logits",
            "n_scores": k,
            "n_classes": k,
            "parameters": {"temperature": temperature},
        }
    )
    fitted = Fitted(
        method="temperature",
        calibrator=calibrator,
        rows=rows,
        ranking=np.empty(0),
        folds=(),
        rounds=(calibrator,),
        refits=(),
        notes=(TUNED_ON_TEST,),
    )
    views = {"top-label": {UNCALIBRATED: before, "temperature": after}}
    return Analysis(
        study=study,
        settings=settings.replace(method="temperature", temperature=temperature),
        overview=replace(overview, split=None),
        fitted={"temperature": fitted},
        comparison=Comparison(views, {}, ()),
        notes=(TUNED_ON_TEST,),
    )
