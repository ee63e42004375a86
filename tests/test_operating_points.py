"""Operating points: thresholds of some rows, measured on the test rows of the split."""

from __future__ import annotations

import json

import naive
import numpy as np
import pandas as pd
import pytest

from core.analysis import analyze
from core.fitting import fit_method
from core.messages import FitError
from core.operating_points import (
    TARGETS,
    OperatingPoint,
    accuracy_threshold,
    operating_points,
    sensitivity_threshold,
)
from core.predictions import ColumnRoles, Predictions, Study
from core.settings import Settings
from core.uncertainty import Estimate

SETTINGS = Settings(calibrators=("temperature",), n_resamples=100)


def study(n=600, k=3, *, seed=0, split=None) -> Study:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)) * 2
    p = np.exp(logits / 1.7)
    p /= p.sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return as_study(logits, labels, split=split)


def as_study(logits, labels, **columns) -> Study:
    known = {name: column for name, column in columns.items() if column is not None}
    return Study(
        Predictions.from_arrays(
            logits,
            labels,
            metadata=pd.DataFrame(known, index=range(len(logits))),
            roles=ColumnRoles(**{name: name for name in known}),
        )
    )


def points(given: Study, settings: Settings = SETTINGS, method: str = ""):
    analysis = analyze(given, settings)
    fitted = fit_method(given, settings, method) if method else None
    return analysis, operating_points(given, settings, analysis.overview, fitted)


@pytest.mark.parametrize("target", [0.7, 0.9, 1.0])
def test_thresholds_agree_with_a_search_over_all_of_them(target) -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.3, 1, 400).round(2)
    hit = (rng.random(400) < confidence).astype(float)
    wanted = naive.accuracy_threshold(confidence, hit, target)
    assert accuracy_threshold(confidence, hit, target) == wanted
    wanted = naive.sensitivity_threshold(confidence, hit, target)
    assert sensitivity_threshold(confidence, hit, target) == wanted
    counts = rng.integers(1, 4, 400)
    for found in (accuracy_threshold, sensitivity_threshold):
        copied = found(confidence.repeat(counts), hit.repeat(counts), target)
        assert found(confidence, hit, target, counts.astype(float)) == copied


def test_a_split_of_the_file_is_used_as_it_is() -> None:
    roles = np.array(["calibration", "test"])[(np.arange(600) % 3 == 0).astype(int)]
    given = study(split=roles)
    own = given.evaluation
    test = np.flatnonzero(roles == "test")
    for method in ("", "temperature"):
        analysis, found = points(given, method=method)
        assert (found.role, found.kind) == ("fit", "test")
        assert (found.n_choose, found.n_test) == (400, 200)
        assert "400 fit rows" in found.sentence
        assert "200 test rows" in found.sentence
        temperature = 1.0
        if method:
            temperature = analysis.fitted[method].calibrator.temperature_
        p = np.exp(own.logits / temperature)
        p /= p.sum(axis=1, keepdims=True)
        confidence, correct = p.max(axis=1), p.argmax(axis=1) == own.labels
        for item in found.tables["selective"]:
            fit = roles != "test"
            wanted = naive.accuracy_threshold(
                confidence[fit], correct[fit], item.target
            )
            if wanted is None:
                assert item.threshold is None
                continue
            assert item.threshold == pytest.approx(wanted, rel=1e-12)
            kept = test[confidence[test] >= wanted - 1e-12]
            assert item.rates["coverage"].value == pytest.approx(kept.size / 200)
            assert item.rates["coverage"].n == 200
            assert item.rates["accuracy"].n == kept.size
            if not kept.size:
                assert item.outcome == "no test row to judge"
                continue
            assert item.rates["accuracy"].value == pytest.approx(correct[kept].mean())
            assert item.rates["accuracy"].rows == "test"


@pytest.mark.parametrize("kind", ["file", "cross-fit", "threshold"])
@pytest.mark.parametrize("method", ["", "temperature"])
def test_no_threshold_reads_a_row_that_it_is_measured_on(kind, method) -> None:
    """Labels of the test rows of a round do not move what that round chooses."""
    rng = np.random.default_rng(0)
    roles = rng.choice(["calibration", "threshold", "test"], 600)
    if kind != "threshold":
        roles = np.where(roles == "test", "test", "fit")
    given = study(split=None if kind == "cross-fit" else roles)
    analysis, found = points(given, method=method)
    assert found.role == ("threshold" if kind == "threshold" else "fit")
    split = analysis.overview.split
    first = split.rounds[0]
    labels = given.evaluation.labels.copy()
    labels[first.test] = (labels[first.test] + 1) % 3
    if kind != "cross-fit":
        spoiled = as_study(given.evaluation.logits, labels, split=roles)
        again = points(spoiled, method=method)[1]
        for a, b in zip(
            found.tables["selective"], again.tables["selective"], strict=True
        ):
            assert a.threshold == b.threshold
        return
    assert found.kind == "cross-fitted"
    assert (found.n_choose, found.n_test) == (600, 600)
    assert "chosen on all 600" in found.sentence


def test_cross_fitted_rows_are_judged_at_the_threshold_of_their_round() -> None:
    given = study()
    analysis, found = points(given)
    split, rows = analysis.overview.split, analysis.overview.rows
    for item in found.tables["selective"][:2]:
        kept = np.zeros(600, bool)
        for round_ in split.rounds:
            t = naive.accuracy_threshold(
                rows.confidence[round_.fit], rows.correct[round_.fit], item.target
            )
            kept[round_.test] = rows.confidence[round_.test] >= t
        assert item.rates["coverage"].value == pytest.approx(kept.mean())
        assert item.rates["accuracy"].value == pytest.approx(rows.correct[kept].mean())


def test_two_classes_have_a_wanted_sensitivity() -> None:
    roles = np.where(np.arange(600) % 2, "fit", "test")
    given = study(k=2, split=roles)
    _, found = points(given, method="temperature")
    for item in found.tables["sensitivity"]:
        assert set(item.rates) == {"sensitivity", "specificity", "precision"}
        assert item.rates["sensitivity"].n + item.rates["specificity"].n == 300
    thresholds = [item.threshold for item in found.tables["sensitivity"]]
    assert thresholds == sorted(thresholds, reverse=True)


def test_a_calibration_file_chooses() -> None:
    both = Study(study(400).evaluation, fit=study(300, seed=1).evaluation)
    for method in ("", "temperature"):
        _, found = points(both, method=method)
        assert (found.role, found.n_choose, found.n_test) == ("fit", 300, 400)


def test_groups_are_named_and_widen_the_intervals() -> None:
    groups = np.repeat(np.arange(60), 10)
    rng = np.random.default_rng(0)
    logits = np.repeat(rng.normal(size=(60, 3)) * 2, 10, axis=0)
    labels = np.repeat(rng.integers(0, 3, 60), 10)
    given = as_study(logits, labels, group=groups)
    _, found = points(given)
    assert found.n_groups == 60
    assert "by group (60 groups)" in found.sentence
    coverage = found.tables["selective"][0].rates.get("coverage")
    if coverage is not None:
        assert coverage.method == "Wilson interval by group"


def test_a_missed_target_is_said_in_words() -> None:
    def point(value, high, n=50):
        rate = Estimate(value, value - 0.1, high, n=n)
        return OperatingPoint(0.9, 0.7, {"accuracy": rate})

    assert point(0.92, 0.99).outcome == "reached"
    assert point(0.8, 0.85).outcome == "missed"
    assert point(0.88, 0.95).outcome == "missed, within the interval"
    assert point(float("nan"), None, 0).outcome == "no test row to judge"
    assert OperatingPoint(0.9, None, {}).outcome == "not reached"


def test_rows_that_are_not_divided_have_no_operating_points() -> None:
    given = study(1)
    overview = analyze(given, SETTINGS).overview
    if overview.split is None:
        with pytest.raises(FitError, match="rows to choose on"):
            operating_points(given, SETTINGS, overview)


def test_they_are_plain_json() -> None:
    _, found = points(study(k=2), method="temperature")
    document = json.loads(json.dumps(found.to_dict()))
    assert [item["target"] for item in document["selective"]] == list(TARGETS)
    assert document["n"] == 600
