"""Segmentation maps measured on images that no fit has seen."""

from __future__ import annotations

import numpy as np
import pytest
from test_segmentation import maps

from core.map_evaluation import METHODS, evaluate_maps
from core.messages import DataError
from core.metrics import Sample, changes, estimates, row_scores
from core.segmentation import LocalTemperature, SegmentationMaps
from core.settings import Settings
from core.softmax import row_statistics

SETTINGS = Settings(n_resamples=200, seed=3)


@pytest.fixture(scope="module")
def analysis():
    return evaluate_maps(maps(b=6, size=20), SETTINGS)


def slow_rows(given, analysis):
    """Every pixel a row, under the fit that has not seen its image."""
    order = np.random.default_rng(SETTINGS.seed).permutation(len(given.logits))
    logs: dict[str, list] = {name: [] for name in METHODS}
    y, groups = [], []
    for fold in range(5):
        test = np.sort(order[fold::5])
        fit = np.array([i for i in range(len(order)) if i not in test])
        local = LocalTemperature().fit(
            SegmentationMaps.from_arrays(given.logits[fit], given.labels[fit])
        )
        for image in test:
            one = SegmentationMaps.from_arrays(given.logits[[image]])
            used = given.labels[image] >= 0
            z = given.logits[image][:, used].T
            logs["uncalibrated"].append(z)
            logs["temperature"].append(z / local.temperature_)
            logs["local-temperature"].append(local.transform(one)[0][:, used].T)
            y.append(given.labels[image][used])
            groups.append(np.full(used.sum(), image))
            np.testing.assert_allclose(
                analysis.image(image).temperatures, local.temperatures(one)[0], 1e-6
            )
    labels, groups = np.concatenate(y), np.concatenate(groups)
    order = np.argsort(groups, kind="stable")
    return {
        name: row_scores(row_statistics(np.concatenate(parts)[order], labels[order]), 3)
        for name, parts in logs.items()
    }, groups[order]


def test_numbers_are_those_of_pixels_drawn_by_image(analysis):
    scores, groups = slow_rows(analysis.maps, analysis)
    names = ("nll", "brier", "gap", "accuracy", "ece")
    sample = Sample(scores, SETTINGS, groups=groups, rows="cross-fitted", metrics=names)
    slow = estimates(sample)
    for method in METHODS:
        found = analysis.results[method]
        for name in names:
            a, b = found.estimates[name], slow[method][name]
            for field in ("value", "low", "high", "null_low", "null_high", "p_value"):
                left, right = getattr(a, field), getattr(b, field)
                assert left == (right if right is None else pytest.approx(right)), name
            assert (a.n, a.rows) == (b.n, "cross-fitted")
            assert "group" not in a.method
        bins = sample.bins(method).statistics
        for field in ("count", "weight", "accuracy", "low", "high"):
            np.testing.assert_allclose(
                getattr(found.bins, field), getattr(bins, field), rtol=1e-9
            )
    for pair, found in analysis.changes.items():
        wanted = changes(sample, *pair)
        for metric, item in found.items():
            assert item.value == pytest.approx(wanted[metric].value)
            assert item.low == pytest.approx(wanted[metric].low)


def test_local_temperatures_win_where_maps_are_too_sure_at_edges(analysis):
    change = analysis.changes["temperature", "local-temperature"]["nll"]
    assert change.high < 0
    assert analysis.is_cross_fitted
    assert analysis.n_test_images == analysis.n_fit_images == 6
    assert "few-images" in {note.code for note in analysis.notes}
    lines = analysis.by_image
    n = lines["pixels"]
    assert n.sum() == analysis.n_test_pixels == 6 * 400 - 40
    mean = (lines["nll temperature"] * n).sum() / n.sum()
    assert mean == pytest.approx(analysis.results["temperature"].estimates["nll"].value)
    wrong = sum(item.is_wrong.sum() for item in analysis.images)
    right = analysis.results["temperature"].estimates["accuracy"].value
    assert wrong == pytest.approx((1 - right) * n.sum())


def test_images_that_the_file_holds_out_are_never_fitted_on():
    given = maps(b=4, size=16)
    is_test = np.array([True, False, True, False])
    split = SegmentationMaps.from_arrays(given.logits, given.labels, is_test=is_test)
    found = evaluate_maps(split, SETTINGS)
    assert [item.number for item in found.images] == [0, 2]
    assert found.results["temperature"].estimates["nll"].rows == "test"
    # Other labels of held-out images change the numbers, not the fit.
    labels = np.where(is_test[:, None, None] & (given.labels >= 0), 0, given.labels)
    other = SegmentationMaps.from_arrays(given.logits, labels, is_test=is_test)
    again = evaluate_maps(other, SETTINGS)
    assert again.calibrator.to_dict() == found.calibrator.to_dict()
    assert again.results["temperature"].estimates["nll"].value != pytest.approx(
        found.results["temperature"].estimates["nll"].value
    )


def test_one_labelled_image_cannot_be_measured():
    with pytest.raises(DataError, match="Only one image"):
        evaluate_maps(maps(b=1, size=16), SETTINGS)
