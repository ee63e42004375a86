"""What must hold for any data: invariances, weights as repeated rows, convexity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from core.binning import assign_bins, bin_edges, bin_statistics
from core.calibrators import CALIBRATORS, TemperatureScaling, Uncalibrated
from core.metrics import (
    METRICS,
    accuracy,
    correctness_auroc,
    expected_calibration_error,
)
from core.predictions import Predictions
from core.settings import Settings
from core.softmax import row_statistics, softmax, temperature_objective
from tests.methods import CHEAP

METRIC_IDS = sorted(METRICS)


@st.composite
def labelled_logits(draw, min_rows=1, max_rows=30):
    n = draw(st.integers(min_rows, max_rows))
    k = draw(st.integers(2, 5))
    # Multiples of 1/4: ties are common, sums exact.
    whole = draw(hnp.arrays(np.int64, (n, k), elements=st.integers(-24, 24)))
    y = draw(hnp.arrays(np.int64, n, elements=st.integers(0, k - 1)))
    return whole / 4.0, y


confidences = hnp.arrays(
    np.float64,
    st.integers(1, 60),
    elements=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])),
)
bin_counts = st.integers(1, 20)
strategies = st.sampled_from(["uniform", "quantile"])


@given(labelled_logits(), st.floats(1e-2, 1e2))
def test_temperature_changes_neither_argmax_nor_accuracy(data, temperature):
    z, y = data
    before = row_statistics(z, y)
    after = row_statistics(z, y, temperature=temperature)
    np.testing.assert_array_equal(before.prediction, after.prediction)
    np.testing.assert_array_equal(before.correct, after.correct)


@given(labelled_logits(), bin_counts, strategies, st.randoms(use_true_random=False))
def test_ece_is_a_share_and_knows_no_order(data, n_bins, strategy, random):
    z, y = data
    p = softmax(z)
    options = {"n_bins": n_bins, "strategy": strategy}
    value = expected_calibration_error(y, p, **options)
    assert 0 <= value <= 1
    order = list(range(len(y)))
    random.shuffle(order)
    again = expected_calibration_error(y[order], p[order], **options)
    assert again == pytest.approx(value, abs=1e-12)


@given(labelled_logits(), bin_counts, st.sampled_from(["l1", "l2", "max"]))
def test_ece_of_every_row_twice_is_the_same(data, n_bins, norm):
    z, y = data
    p = softmax(z)
    options = {"n_bins": n_bins, "norm": norm}
    value = expected_calibration_error(y, p, **options)
    twice = expected_calibration_error(np.tile(y, 2), np.tile(p, (2, 1)), **options)
    weight = np.full(len(y), 2.0)
    heavy = expected_calibration_error(y, p, sample_weight=weight, **options)
    assert twice == pytest.approx(value, abs=1e-12)
    assert heavy == pytest.approx(value, abs=1e-12)


@given(labelled_logits(), st.floats(0.01, 50), st.floats(0.01, 50))
def test_nll_is_convex_in_inverse_temperature(data, left, right):
    z, y = data
    loss = [
        temperature_objective(z, y, beta).loss.mean()
        for beta in (left, (left + right) / 2, right)
    ]
    assert loss[1] <= (loss[0] + loss[2]) / 2 + 1e-9 * (1 + loss[0] + loss[2])


@given(labelled_logits(), st.floats(0.05, 20))
def test_slope_and_curvature_are_finite_differences(data, beta):
    z, y = data
    step = 1e-4 * beta
    low, mid, high = (
        temperature_objective(z, y, b) for b in (beta - step, beta, beta + step)
    )
    slope = (high.loss - low.loss) / (2 * step)
    curvature = (high.slope - low.slope) / (2 * step)
    np.testing.assert_allclose(mid.slope, slope, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(mid.curvature, curvature, atol=1e-3, rtol=1e-3)


@given(labelled_logits(min_rows=2), st.floats(0.2, 5))
def test_auroc_is_kept_by_rising_maps_and_turned_by_falling_ones(data, power):
    z, y = data
    p = softmax(np.column_stack([np.abs(z[:, 0]), np.zeros(len(z))]))
    hit = y % 2
    value = correctness_auroc(hit, p)
    # Confidence in the first class lies in [0.5, 1]: a rising map of it.
    c = np.round(p[:, 0], 12)
    mapped = 0.5 + 0.5 * np.round(2 * c - 1, 9) ** power
    if np.unique(np.round(mapped, 12)).size != np.unique(c).size:
        return  # the map merged neighbours
    again = correctness_auroc(hit, np.column_stack([mapped, 1 - mapped]))
    if np.isnan(value):
        assert np.isnan(again)
        return
    assert again == pytest.approx(value, abs=1e-12)
    if c.min() > 0.5:
        falling = 1.5 - c
        if falling.min() > 0.5:
            turned = correctness_auroc(hit, np.column_stack([falling, 1 - falling]))
            assert turned == pytest.approx(1 - value, abs=1e-12)


@given(confidences, bin_counts, strategies, st.sampled_from(["right", "left"]))
def test_bins_partition_the_data(values, n_bins, strategy, closed):
    edges = bin_edges(values, n_bins, strategy)
    assert edges[0] == 0
    assert edges[-1] == 1
    assert (np.diff(edges) > 0).all()
    assert len(edges) <= n_bins + 1
    index = assign_bins(values, edges, closed=closed)
    assert ((index >= 0) & (index < len(edges) - 1)).all()
    low, high = edges[index], edges[index + 1]
    if closed == "right":
        assert ((low < values) | (index == 0)).all()
        assert (values <= high).all()
    else:
        assert (low <= values).all()
        assert ((values < high) | (index == len(edges) - 2)).all()
    counts = bin_statistics(values, np.ones(len(values)), edges=edges).count
    assert counts.sum() == len(values)


@given(confidences, bin_counts)
def test_quantile_bins_keep_ties_and_equal_counts(values, n_bins):
    edges = bin_edges(values, n_bins, "quantile")
    index = assign_bins(values, edges)
    for value in np.unique(values):
        assert len(set(index[values == value].tolist())) == 1
    if np.unique(values).size == values.size and 0 < values.min() < values.max() < 1:
        count = np.bincount(index)
        expected = min(n_bins, values.size)
        assert count.size == expected
        assert count.max() - count.min() <= 1


@given(labelled_logits(), st.data())
def test_whole_weights_are_repeated_rows(data, more):
    z, y = data
    w = more.draw(hnp.arrays(np.int64, len(y), elements=st.integers(0, 3)))
    if not w.sum():
        w[0] = 1
    for metric in METRIC_IDS:  # drawing takes longer than measuring
        check_repeated(metric, y, softmax(z), w)


def check_repeated(metric, y, p, w):
    """Assert that weights say as much of a metric as rows that are there so often."""
    options = {"n_bins": 4} if METRICS[metric].params else {}
    if metric == "l2":
        # Weights say how much a row counts, not how many rows there were: the noise
        # that is subtracted is that of the rows, the squared gaps are the same.
        metric, options = "ece", {"n_bins": 4, "norm": "l2"}
    elif metric in ("ace", "mce", "classwise-l2"):
        # Cuts at equal counts, the least count of a bin and, as above, noise are
        # matters of rows.
        metric = "rmsce"
    elif metric == "smooth-ece-relplot":
        metric = "smooth-ece"  # relplot adds to the density what does not grow with n
    weighted = METRICS[metric](y, p, sample_weight=w, **options)
    repeated = METRICS[metric](np.repeat(y, w), np.repeat(p, w, axis=0), **options)
    if np.isnan(repeated):
        assert np.isnan(weighted), metric
    else:
        assert weighted == pytest.approx(repeated, rel=1e-9, abs=1e-11), metric


@given(labelled_logits(min_rows=3), st.data())
def test_whole_weights_are_repeated_rows_in_bins_and_in_the_temperature(data, more):
    z, y = data
    w = more.draw(hnp.arrays(np.int64, len(y), elements=st.integers(0, 3)))
    if not w.sum():
        w[0] = 1
    rows = row_statistics(z, y)
    confidence = np.round(rows.confidence, 12)
    weighted = bin_statistics(
        confidence, rows.correct, n_bins=5, sample_weight=w.astype(float)
    )
    repeated = bin_statistics(
        np.repeat(confidence, w), np.repeat(rows.correct, w), n_bins=5
    )
    for name in ("weight", "confidence", "accuracy"):
        np.testing.assert_allclose(
            getattr(weighted, name), getattr(repeated, name), rtol=1e-9
        )
    one = TemperatureScaling().fit(z + 0.125, y, w)
    two = TemperatureScaling().fit(np.repeat(z, w, axis=0) + 0.125, np.repeat(y, w))
    assert one.is_at_bound_ == two.is_at_bound_
    # Where the loss is flat many temperatures are as good.
    assert one.nll_after_ == pytest.approx(two.nll_after_, rel=1e-9, abs=1e-12)


@given(labelled_logits(min_rows=2))
def test_a_fitted_temperature_is_never_worse_than_none(data):
    z, y = data
    fit = TemperatureScaling().fit(z + 0.125, y)
    assert 1e-3 <= fit.temperature_ <= 1e3
    before = temperature_objective(z + 0.125, y, 1.0).loss.mean()
    assert fit.nll_after_ <= before * (1 + 1e-12) + 1e-12
    if not fit.is_at_bound_:
        assert abs(fit.gradient_) <= 1e-8 * max(1.0, fit.temperature_)


# Classes with slopes of their own turn a constant c into w_k c (see VectorScaling).
AS_THEY_ARE = ("vector", "no-bias-vector", "matrix")
SHIFTABLE = [method for method in CHEAP if method not in AS_THEY_ARE]


@given(labelled_logits(min_rows=2), st.floats(-50, 50))
def test_a_shift_of_all_logits_changes_nothing(data, shift):
    z, y = data
    for method in SHIFTABLE:
        made = CALIBRATORS[method]().fit(z + 0.125, y)
        moved = made.predict_proba(z + 0.125 + np.round(shift))
        same = made.predict_proba(z + 0.125)
        np.testing.assert_allclose(moved, same, rtol=1e-6, err_msg=method)


@given(labelled_logits(), st.integers(0, 29), st.integers(0, 4))
def test_the_fingerprint_changes_exactly_with_the_content(data, row, column):
    z, y = data
    own = Predictions.from_arrays(z, y)
    assert Predictions.from_arrays(z.copy(), y.tolist()).fingerprint == own.fingerprint
    changed = z.copy()
    changed[row % len(y), column % z.shape[1]] += 0.5
    assert Predictions.from_arrays(changed, y).fingerprint != own.fingerprint
    other = y.copy()
    other[row % len(y)] = (other[row % len(y)] + 1) % z.shape[1]
    assert Predictions.from_arrays(z, other).fingerprint != own.fingerprint


@given(
    st.builds(
        Settings,
        label_column=st.none() | st.text(max_size=5),
        slice_columns=st.none() | st.lists(st.text(max_size=4), max_size=3),
        score_columns=st.lists(st.text(max_size=4), max_size=3),
        split=st.sampled_from(["auto", "file", "cross-fit", "holdout", "time"]),
        n_bins=st.integers(1, 1000),
        level=st.floats(0.5, 0.999),
        seed=st.integers(0, 2**32 - 1),
        fit_fraction=st.floats(0.05, 0.5),
        threshold_fraction=st.floats(0, 0.4),
        temperature=st.none() | st.floats(1e-3, 1e3),
        options=st.lists(
            st.tuples(
                st.text(max_size=3),
                st.text(max_size=3),
                st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            ),
            max_size=3,
        ),
    )
)
def test_settings_survive_their_session_file(settings):
    assert Settings.from_json(settings.to_json()) == settings


@given(labelled_logits())
def test_accuracy_is_that_of_the_calibrator_that_does_nothing(data):
    z, y = data
    made = Uncalibrated().fit(z + 0.125, y)
    assert accuracy(y, softmax(z)) == pytest.approx(made.score(z + 0.125, y))
