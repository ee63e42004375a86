"""Metrics, curves and peers that are computed when they are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from core.analysis import analyze, measure
from core.messages import DataError
from core.metrics import CURVES, METRICS
from core.on_demand import MORE_METRICS, measure_metrics, reliability_curves
from core.per_class import class_curve, class_scores
from core.predictions import Predictions, Study
from core.settings import Settings
from core.softmax import softmax

SETTINGS = Settings(n_resamples=100, n_folds=2)


def study_of(k=3, n=300):
    rng = np.random.default_rng(3)
    z = 3 * rng.normal(size=(n, k))
    y = (z / 2 + rng.gumbel(size=z.shape)).argmax(axis=1)
    return Study(Predictions.from_arrays(z, y)), z, y


@pytest.mark.parametrize("k", [2, 3])
def test_metrics_that_are_asked_for_are_those_of_the_functions(k):
    study, z, y = study_of(k)
    overview = measure(study, SETTINGS)
    found = measure_metrics(study, SETTINGS, overview, MORE_METRICS)
    assert set(found) == set(overview.views)
    for view, columns in found.items():
        numbers = columns["uncalibrated"]
        for name in MORE_METRICS:
            if view not in METRICS[name].traits["views"]:
                assert name not in numbers
                continue
            options = {} if view == "top-label" else {"view": view}
            value = METRICS[name](y, softmax(z), **options)
            assert numbers[name].value == pytest.approx(value, rel=1e-9, abs=1e-11)
            assert numbers[name].rows == "all"


def test_calibrators_are_measured_on_the_test_rows():
    study, _, _ = study_of()
    settings = SETTINGS.replace(calibrators=("temperature", "isotonic"))
    analysis = analyze(study, settings)
    names = ("classwise-ece", "ks", "nll")
    found = measure_metrics(study, settings, analysis.overview, names, analysis.fitted)[
        "top-label"
    ]
    assert set(found) == {"uncalibrated", "temperature", "isotonic"}
    for name, numbers in found.items():
        assert set(numbers) == set(names)
        known = analysis.comparison.views["top-label"][name].estimates["nll"]
        assert numbers["nll"].value == pytest.approx(known.value)
        assert {item.rows for item in numbers.values()} == {known.rows}
    assert found["temperature"]["ks"].value < found["uncalibrated"]["ks"].value
    before = found["uncalibrated"]["classwise-ece"]
    assert found["temperature"]["classwise-ece"].value < before.value
    curves = reliability_curves(study, settings, analysis.overview, analysis.fitted)
    assert set(curves["top-label"]) == set(found)
    assert curves["top-label"]["temperature"].n == 300


def test_one_view_and_one_method_are_a_part_of_all():
    study, _, _ = study_of(2)
    settings = SETTINGS.replace(calibrators=("temperature",))
    analysis = analyze(study, settings)
    given = (study, settings, analysis.overview)
    names = ("ks", "brier-dsc", "brier-resolution")
    whole = measure_metrics(*given, names, analysis.fitted)
    for view, columns in whole.items():
        for method, numbers in columns.items():
            options = {"view": view, "method": method}
            part = measure_metrics(*given, names, analysis.fitted, **options)
            assert part == {view: {method: numbers}}
            curves = reliability_curves(
                *given, analysis.fitted, kind="smooth", **options
            )
            curve = curves[view][method]
            assert list(curves) == [view]
            assert curve.level == settings.level
            assert curve.rows == numbers["ks"].rows


def test_the_curve_of_one_of_two_classes_is_that_of_the_positive_class():
    study, _, _ = study_of(2)
    overview = measure(study, SETTINGS)
    scores = class_scores(study.evaluation, overview)
    for kind in CURVES:
        known = reliability_curves(study, SETTINGS, overview, kind=kind)
        known = known["positive-class"]["uncalibrated"]
        found = class_curve(scores, 1, SETTINGS, kind)
        for name in ("x", "y", "low", "high"):
            expected = getattr(known, name)
            assert getattr(found, name) == pytest.approx(expected, abs=1e-9)


def test_progress_is_told_and_unknown_metrics_are_refused():
    study, _, _ = study_of()
    overview = measure(study, SETTINGS)
    seen = []
    measure_metrics(
        study,
        SETTINGS,
        overview,
        ("e-aurc", "rmsce"),
        progress=lambda share, _: seen.append(share),
    )
    assert seen == sorted(seen)
    assert seen
    with pytest.raises(DataError, match="no metric called 'x'"):
        measure_metrics(study, SETTINGS, overview, ("x",))
    assert measure_metrics(study, SETTINGS, overview, ()) == {}


def test_unlabelled_and_confidence_files_give_what_they_can():
    study = Study(Predictions.from_arrays(np.zeros((5, 3)), None))
    overview = measure(study, SETTINGS)
    assert measure_metrics(study, SETTINGS, overview, MORE_METRICS) == {}
    assert reliability_curves(study, SETTINGS, overview) == {}
