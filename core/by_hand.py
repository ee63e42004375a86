"""A temperature set by hand: not fitted, and marked wherever it goes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from core.analysis import UNCALIBRATED, Analysis, Comparison, preview_temperature
from core.calibrators import Calibrator
from core.fitting import Fitted
from core.measurement import Overview
from core.messages import FitError, Note
from core.predictions import Study
from core.settings import Settings
from core.softmax import row_statistics
from core.temperature_grid import TemperatureGrid, temperature_grid

__all__ = ["TUNED_ON_TEST", "temperature_by_hand", "temperatures_by_hand"]

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


def temperatures_by_hand(
    study: Study, settings: Settings, overview: Overview, center: float
) -> TemperatureGrid:
    """Return what a slider shows, from a tenth to ten times a temperature, at once.

    Parameters
    ----------
    study : Study
    settings : Settings
        Bins and norm.
    overview : Overview
        Says which rows are shown: the test rows, as `preview_temperature` does.
    center : float
        The fitted temperature.

    Raises
    ------
    FitError
        If there are no labelled rows with class scores.
    """
    own = study.evaluation
    rows = overview.split.test if overview.split is not None else overview.used
    if own.logits is None or own.labels is None or not rows.size:
        raise FitError("A temperature needs labelled rows with class scores.", own.name)
    given = own.sample_weight()
    weight = np.zeros(len(own))
    weight[rows] = 1.0 if given is None else given[rows]
    return temperature_grid(
        own.logits,
        np.maximum(own.labels, 0),
        low=center / 10,
        high=center * 10,
        n_runs=7,
        n_bins=settings.n_bins,
        strategy=settings.strategy,
        sample_weight=weight,
    )
