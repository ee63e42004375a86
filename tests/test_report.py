"""report.json holds what the pages show, from the functions that the pages call."""

from __future__ import annotations

import json

import pytest
from test_app import SAMPLES

from app import cli_export
from core.analysis import analyze
from core.findings import find
from core.loading import open_study
from core.on_demand import measure_metrics
from core.operating_points import operating_points
from core.per_class import class_gaps, scores_for
from core.predictions import Predictions, Study
from core.report import CLASSWISE, report_document
from core.settings import Settings

SETTINGS = Settings(calibrators=("temperature",), n_resamples=200)


@pytest.fixture(scope="module")
def analysis():
    return analyze(open_study(SAMPLES / "digits_noisy.csv", SETTINGS)[0], SETTINGS)


@pytest.fixture(scope="module")
def document(analysis):
    return report_document(analysis, "temperature")


def test_it_is_the_analysis_and_more(analysis, document) -> None:
    known = analysis.to_dict()
    assert {key: document[key] for key in known} == known
    text = cli_export.json_text(document)
    assert json.loads(text)["remains"] == analysis.remains
    assert set(document) - set(known) == {"findings", "operating_points", "classwise"}


def test_the_worst_class_is_that_of_the_overview(analysis, document) -> None:
    found = find(analysis.study, SETTINGS, analysis.overview)
    assert document["findings"] == found.to_dict()
    worst = document["findings"]["worst_class"]
    assert worst["gap"]["n"] > 0
    assert worst["gap"]["low"] < worst["gap"]["value"] < worst["gap"]["high"]


def test_operating_points_are_those_of_decisions(analysis, document) -> None:
    given = (analysis.study, SETTINGS, analysis.overview)
    for name, fitted in [("uncalibrated", None), *analysis.fitted.items()]:
        found = document["operating_points"][name]
        assert found == operating_points(*given, fitted).to_dict()
        assert found["n"] == 1194
        rate = found["selective"][0]["rates"]["accuracy"]
        assert rate["low"] < rate["value"] < rate["high"]


def test_classes_are_those_of_the_reliability_page(analysis, document) -> None:
    study, overview = analysis.study, analysis.overview
    given = (analysis.study, SETTINGS, overview, CLASSWISE, analysis.fitted)
    measured = measure_metrics(*given)["top-label"]
    for name in ("uncalibrated", "temperature"):
        found = document["classwise"][name]
        for metric, item in measured[name].items():
            assert found["metrics"][metric] == item.to_dict()
        scores = scores_for(
            study, overview, analysis.fitted.get(name), is_compared=True
        )
        gaps = class_gaps(scores, SETTINGS.level)
        for i, line in enumerate(found["classes"]):
            assert line["class"] == study.evaluation.classes[i]
            assert line["rows_with_label"] == gaps.count[i]
            ends = [line[key] for key in ("low", "value", "high")]
            assert ends == [gaps.low[i], gaps.gap[i], gaps.high[i]]
            assert (line["n"], line["rows"]) == (1194, "test")


def test_a_file_of_confidences_has_what_it_can() -> None:
    own = Predictions.from_arrays(
        confidence=[0.9, 0.6, 0.8] * 100,
        correct=[1, 0, 1] * 100,
        input_kind="confidence",
    )
    study = Study(own)
    found = report_document(analyze(study, SETTINGS), "uncalibrated")
    assert found["classwise"] == {"uncalibrated": None}
    assert found["operating_points"]["uncalibrated"]["n"] == 300
    assert found["findings"]["n_wrong"] == 100


def test_rows_without_labels_have_no_such_numbers() -> None:
    study = Study(Predictions.from_arrays([[1.0, 0.0, 2.0]] * 9))
    found = report_document(analyze(study, SETTINGS), "uncalibrated")
    assert found["findings"] is None
    assert found["operating_points"] == {"uncalibrated": None}
    assert found["classwise"] == {"uncalibrated": None}
