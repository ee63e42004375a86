"""What the browser draws a tried temperature from equals what the server measures."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from components.live_temperature import METRICS_SHOWN, payload, temperature_at
from core.analysis import Analysis, analyze, preview_temperature
from core.by_hand import temperatures_by_hand
from core.loading import open_study
from core.messages import FitError
from core.predictions import Study
from core.settings import Settings

CENTER = 2.0


def analysis(root: Any, name: str, **changes: Any) -> Analysis:
    chosen = Settings(n_resamples=100, calibrators=("temperature",), **changes)
    study, _ = open_study(root / "sample_data" / name, chosen)
    return analyze(study, chosen)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("name", ["digits_noisy.csv", "breast_cancer_binary.csv"])
def test_the_grid_equals_previews(root: Any, name: str, strategy: str) -> None:
    found = analysis(root, name, strategy=strategy, norm="l2")
    study, chosen, overview = found.study, found.settings, found.overview
    grid = temperatures_by_hand(study, chosen, overview, CENTER)
    assert_allclose(grid.temperature[[0, -1]], [10 * CENTER, CENTER / 10])
    exact = preview_temperature(study, chosen, overview, CENTER)
    k = study.evaluation.n_classes
    made = payload(grid, exact, CENTER, norm=chosen.norm, n_classes=k)
    json.dumps(made, allow_nan=False)
    assert made["n"] == exact.estimates["gap"].n
    # cold, most confidences are 1 to the last bit: which of them tie, and so where
    # equal counts are cut, is rounding
    last = len(grid.temperature) - 1 if strategy == "uniform" else 75
    for i in (0, 40, last):
        shown = preview_temperature(study, chosen, overview, grid.temperature[i])
        values = [shown.estimates[name].value for name in METRICS_SHOWN]
        assert_allclose(made["grid"]["numbers"][i], values, 1e-5, 1e-5)
        weight = np.array(made["grid"]["weight"][i])[: shown.bins.n_bins]
        assert_allclose(weight, shown.bins.weight, 1e-5, 1e-6)
        accuracy = np.nan_to_num(shown.bins.accuracy) * shown.bins.weight
        cells = np.array(made["grid"]["accuracy"][i])[: shown.bins.n_bins]
        assert_allclose(cells, accuracy, 1e-5, 1e-6)


def test_what_was_let_go_of_is_exact(root: Any) -> None:
    found = analysis(root, "digits_noisy.csv")
    study, chosen, overview = found.study, found.settings, found.overview
    grid = temperatures_by_hand(study, chosen, overview, CENTER)
    fitted = preview_temperature(study, chosen, overview, CENTER)
    tried = preview_temperature(study, chosen, overview, temperature_at(CENTER, 8))
    made = payload(grid, fitted, CENTER, step=8, tried=tried, n_classes=10)
    assert made["step"] == 8
    assert made["exact"]["numbers"][1] == tried.estimates["nll"].value
    assert payload(grid, fitted, CENTER, n_classes=10)["exact"] is None
    assert temperature_at(CENTER, 80) == pytest.approx(10 * CENTER)


def test_a_file_without_class_scores_has_no_temperatures(root: Any) -> None:
    found = analysis(root, "digits_noisy.csv")
    own = found.study.evaluation
    study = Study(evaluation=replace(own, labels=None))
    with pytest.raises(FitError, match="labelled rows"):
        temperatures_by_hand(study, found.settings, found.overview, CENTER)
