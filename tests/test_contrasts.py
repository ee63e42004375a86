"""Differences to a baseline: paired, corrected for their number, over refits."""

from __future__ import annotations

import functools
import json
import math

import numpy as np
import pytest
from scipy import stats

from core.analysis import analyze
from core.calibrators import CALIBRATORS
from core.contrasts import contrasts, flips, holm, refit_changes
from core.folds import fold_numbers
from core.predictions import ColumnRoles, Predictions, Study
from core.row_statistics import RowStatistics
from core.settings import Settings
from core.softmax import softmax
from core.standings import standings

METHODS = ("temperature", "vector", "histogram")


def draw(n=600, k=4, seed=0):
    rng = np.random.default_rng(seed)
    z = 1.5 * rng.normal(size=(n, k))
    p = softmax(z)
    y = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, k - 1)
    return z * 2.0, y


@functools.cache
def analysis(split="holdout"):
    z, y = draw()
    study = Study(Predictions.from_arrays(z, y, roles=ColumnRoles()))
    settings = Settings(
        calibrators=METHODS, split=split, n_folds=3, n_resamples=400, seed=1
    )
    return analyze(study, settings)


def naive_holm(p):
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, largest = [0.0] * len(p), 0.0
    for step, i in enumerate(order):
        largest = max(largest, (len(p) - step) * p[i])
        adjusted[i] = min(1.0, largest)
    return adjusted


def test_holm_is_the_textbooks():
    rng = np.random.default_rng(0)
    for size in range(1, 9):
        p = rng.random(size) ** 3
        np.testing.assert_allclose(holm(p), naive_holm(list(p)))
    # Holm's own order: the smallest is multiplied by all
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    with_gap = holm([0.01, math.nan, 0.04])
    np.testing.assert_allclose(with_gap, [0.02, math.nan, 0.04])


def test_a_difference_is_paired_on_the_test_rows():
    found = analysis()
    split = found.overview.split
    before = -found.overview.rows.take(split.test).label_log_probability
    made = contrasts(found.comparison)["nll"]
    assert set(made) == set(METHODS)
    for method, item in made.items():
        after = -found.fitted[method].rows.label_log_probability
        assert item.change.value == pytest.approx(float(np.mean(after - before)))
        t = stats.ttest_rel(after, before)
        z = stats.t.isf(item.p_value / 2, before.size - 1)
        assert z == pytest.approx(abs(t.statistic), rel=0.15)
        assert item.p_value <= item.adjusted_p <= min(1, 3 * item.p_value) + 1e-12
        assert item.change.rows == "test"
    assert made["temperature"].is_detected


def test_any_calibrator_can_be_the_baseline():
    found = analysis()
    up = contrasts(found.comparison)["brier"]["temperature"]
    down = contrasts(found.comparison, "temperature")["brier"]
    assert set(down) == {"uncalibrated", "vector", "histogram"}
    assert down["uncalibrated"].change.value == pytest.approx(-up.change.value)
    assert down["uncalibrated"].p_value == pytest.approx(up.p_value)
    with pytest.raises(KeyError, match="choose among"):
        contrasts(found.comparison, "isotonic")


def test_what_does_not_differ_is_not_detected():
    found = analysis()
    kept = contrasts(found.comparison)["accuracy"]["temperature"]
    assert kept.change.value == 0
    assert kept.p_value == kept.adjusted_p == 1
    assert not kept.is_detected


def test_fit_rows_rank_by_what_never_saw_them():
    found = analysis()
    own, split = found.study.evaluation, found.overview.split
    rows = split.fit
    fold = fold_numbers(own.labels[rows], None, 3, seed=1)
    nll, brier = np.empty(rows.size), np.empty(rows.size)
    for number in range(3):
        into = fold == number
        made = CALIBRATORS["vector"]().fit(
            own.logits[rows[~into]], own.labels[rows[~into]]
        )
        p = made.predict_proba(own.logits[rows[into]])
        truth = np.eye(own.n_classes)[own.labels[rows[into]]]
        nll[into] = -np.log((p * truth).sum(1))
        brier[into] = ((p - truth) ** 2).sum(1)
    numbers = found.comparison.validated["vector"]
    assert list(found.comparison.validated) == ["uncalibrated", *METHODS]
    assert numbers["nll"].value == pytest.approx(nll.mean())
    assert numbers["brier"].value == pytest.approx(brier.mean())
    assert numbers["ece"].low is None
    assert numbers["ece"].null_low < numbers["ece"].null_high
    assert numbers["ece"].n == rows.size
    np.testing.assert_allclose(found.fitted["vector"].ranking, nll)


def test_flips_are_counted_by_what_became_of_them():
    before = RowStatistics(
        confidence=np.full(5, 0.5),
        prediction=np.array([0, 1, 2, 0, 1]),
        correct=np.array([True, False, False, True, False]),
    )
    after = RowStatistics(
        confidence=np.full(5, 0.5),
        prediction=np.array([0, 2, 1, 1, 1]),
        correct=np.array([True, True, False, False, False]),
    )
    found = flips(before, after)
    assert (found.n, found.changed, found.gained, found.lost) == (5, 3, 1, 1)
    assert flips(before, before).changed == 0


@pytest.mark.parametrize("split", ["holdout", "cross-fit"])
def test_refits_are_compared_on_their_own_rows(split):
    found = analysis(split)
    moved = refit_changes(found.comparison, "temperature")
    temperature = [item.nll for item in found.fitted["temperature"].refits]
    vector = [item.nll for item in found.fitted["vector"].refits]
    steps = np.subtract(vector, temperature)
    assert moved["vector"] == (steps.min(), steps.max())
    assert moved["uncalibrated"][0] > 0
    back = refit_changes(found.comparison)
    assert back["temperature"] == pytest.approx(
        (-moved["uncalibrated"][1], -moved["uncalibrated"][0])
    )


def test_standings_hold_everything_that_is_known():
    found = analysis()
    made = standings(found, "temperature")
    assert [item.place for item in made] == [1, 2, 3, 4]
    assert [item.method for item in made] == [n for n, *_ in found.comparison.ranking]
    by_name = {item.method: item for item in made}
    assert by_name["temperature"].contrasts == {}
    assert by_name["temperature"].flips.changed == 0
    assert by_name["uncalibrated"].seconds is None
    assert by_name["vector"].seconds > 0
    assert by_name["vector"].n_parameters == 8
    assert set(by_name["vector"].contrasts) == {"nll", "brier", "accuracy"}
    line = by_name["vector"].flat()
    assert line["cv_nll"] == found.comparison.validated["vector"]["nll"].value
    assert line["change_nll"] == by_name["vector"].contrasts["nll"].change.value
    json.dumps([item.to_dict() for item in made], allow_nan=False)


def test_calibrators_arrive_one_by_one():
    z, y = draw(n=80)
    study = Study(Predictions.from_arrays(z, y, roles=ColumnRoles()))
    seen = []
    wanted = Settings(
        calibrators=("vector", "proximity", "temperature"), n_resamples=100, n_folds=2
    )
    analyze(study, wanted, arrived=lambda name, item: seen.append((name, item)))
    assert [name for name, _ in seen] == ["vector", "proximity", "temperature"]
    assert seen[0][1].method == "vector"
    assert seen[1][1] is None
