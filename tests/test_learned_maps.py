"""Curves of classes, confidences before and after, and what changed per class."""

from __future__ import annotations

import numpy as np
import pytest
from methods import ALONE

from core.calibrators import CALIBRATORS, OneVsRest
from core.learned_maps import (
    class_changes,
    class_curves,
    class_weights,
    confidence_map,
)
from core.row_statistics import RowStatistics
from core.softmax import row_statistics, softmax


def draw(n=400, k=4, t=2.0, seed=0):
    rng = np.random.default_rng(seed)
    z = 1.5 * rng.normal(size=(n, k))
    y = (z + rng.gumbel(size=(n, k))).argmax(axis=1)
    return z * t, y


WITH_CURVES = [
    name
    for name, method in CALIBRATORS.items()
    if issubclass(method.target, OneVsRest)  # type: ignore[arg-type]
]


@pytest.mark.parametrize("method", WITH_CURVES)
def test_the_curve_of_two_classes_is_what_their_rows_get(method):
    z, y = draw(k=2)
    fit = CALIBRATORS[method]().fit(z, y)
    (curve,) = class_curves(fit)
    assert curve.column == 1
    assert curve.before[0] == 0
    assert curve.before[-1] == 1
    assert (np.diff(curve.before) > 0).all()
    assert ((curve.after >= 0) & (curve.after <= 1)).all()
    p, found = softmax(z)[:, 1], fit.predict_proba(z)[:, 1]
    drawn = np.interp(p, curve.before, curve.after)
    np.testing.assert_allclose(drawn, found, atol=5e-3)
    assert [c.column for c in class_curves(fit, [0])] == [1]


@pytest.mark.parametrize("method", WITH_CURVES)
def test_more_classes_have_one_curve_each(method):
    z, y = draw(k=5)
    fit = CALIBRATORS[method]().fit(z, y)
    assert [curve.column for curve in class_curves(fit)] == [0, 1, 2, 3, 4]
    some = class_curves(fit, [3, 1], n_points=11)
    assert [curve.column for curve in some] == [3, 1]
    for curve in some:
        expected = fit.map_probability(curve.before, curve.column)
        np.testing.assert_array_equal(curve.after, expected)


def test_steps_are_drawn_as_steps():
    z, y = draw(k=2)
    fit = CALIBRATORS["histogram"](n_bins=5).fit(z, y)
    (curve,) = class_curves(fit, n_points=2)
    edges, values = fit.maps_[0]
    assert curve.before.size == 2 * edges.size - 2
    np.testing.assert_array_equal(curve.after, np.repeat(values, 2))


@pytest.mark.parametrize("method", sorted(set(ALONE) - set(WITH_CURVES)))
def test_calibrators_of_whole_rows_have_no_curves(method):
    assert class_curves(CALIBRATORS[method]().fit(*draw())) == ()


@pytest.mark.parametrize("method", ALONE)
def test_confidences_before_and_after(method):
    z, y = draw(3000)
    before = row_statistics(z, y)
    after = CALIBRATORS[method]().fit(z, y).row_statistics(z, y)
    found = confidence_map(before, after, n_bins=10)
    assert found.count.tolist() == [
        n for n in np.histogram(before.confidence, np.linspace(0, 1, 11))[0] if n
    ]
    assert found.before @ found.count == pytest.approx(before.confidence.sum())
    assert (found.low <= found.after).all()
    assert (found.after <= found.high).all()
    order = np.argsort(before.confidence)[: found.count[0]]
    expected = np.quantile(after.confidence[order], [0.1, 0.5, 0.9])
    np.testing.assert_allclose([found.low[0], found.after[0], found.high[0]], expected)
    if method == "uncalibrated":
        np.testing.assert_allclose(found.after, found.before, atol=0.05)
        assert (found.high - found.low < 0.1).all()


def test_one_confidence_is_one_bin():
    rows = RowStatistics(np.full(50, 0.5))
    found = confidence_map(rows, RowStatistics(np.linspace(0, 1, 50)))
    assert found.count.tolist() == [50]
    assert found.before.tolist() == [0.5]
    assert found.after[0] == pytest.approx(0.5)
    nothing = RowStatistics(np.empty(0))
    assert confidence_map(nothing, nothing).count.size == 0


@pytest.mark.parametrize("method", ALONE)
@pytest.mark.parametrize("labelled", [True, False])
def test_changes_per_class_are_the_slow_counts(method, labelled):
    z, y = draw(200, k=5)
    y = np.minimum(y, 3)
    labels = y if labelled else None
    before = row_statistics(z, labels)
    after = CALIBRATORS[method]().fit(z, y).row_statistics(z, labels)
    found = class_changes(before, after, 5)
    old, new = before.prediction, after.prediction
    for c in range(5):
        rows = [i for i in range(200) if old[i] == c]
        assert found.n[c] == len(rows)
        assert found.n_left[c] == sum(new[i] != c for i in rows)
        assert found.n_joined[c] == sum(new[i] == c != old[i] for i in range(200))
        mean = np.mean([after.confidence[i] for i in rows])
        assert found.confidence_after[c] == pytest.approx(mean)
        mean = np.mean([before.confidence[i] for i in rows])
        assert found.confidence_before[c] == pytest.approx(mean)
        if labelled:
            assert found.correct_before[c] == sum(y[i] == c for i in rows)
            assert found.correct_after[c] == sum(new[i] == y[i] for i in rows)
    assert (found.correct_before is None) == (not labelled)
    assert found.n_rows == 200
    assert found.n_changed == (old != new).sum()
    if CALIBRATORS[method].is_accuracy_preserving:
        assert found.n_changed == 0
    order = found.by_change()
    moved = (found.n_left + found.n_joined)[order]
    assert (np.diff(moved) <= 0).all()


def test_a_class_that_nothing_is_predicted_as_has_no_mean():
    rows = row_statistics(np.array([[2.0, 0.0, 1.0]]))
    found = class_changes(rows, rows, 3)
    assert found.n.tolist() == [1, 0, 0]
    assert np.isnan(found.confidence_before[1:]).all()
    assert found.by_change()[0] == 0


def test_different_rows_and_bare_confidences_are_refused():
    one, two = RowStatistics(np.full(3, 0.5)), RowStatistics(np.full(4, 0.5))
    with pytest.raises(ValueError, match="3 rows before"):
        confidence_map(one, two)
    with pytest.raises(ValueError, match="no predictions"):
        class_changes(one, one, 2)


def test_linear_maps_of_logits_are_their_weights():
    z, y = draw()
    vector = CALIBRATORS["vector"]().fit(z, y)
    found = class_weights(vector)
    np.testing.assert_array_equal(found.weights, vector.weights_)
    assert not found.is_matrix
    matrix = class_weights(CALIBRATORS["structured-matrix"]().fit(z, y))
    assert matrix.is_matrix
    assert matrix.weights.shape == (4, 4)
    assert class_weights(CALIBRATORS["temperature"]().fit(z, y)) is None
    assert class_weights(CALIBRATORS["isotonic"]().fit(z, y)) is None
